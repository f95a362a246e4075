"""What the shipped rows know: tables of words and short facts, written for this project, each with one right answer."""

from __future__ import annotations


def _pairs(text: str) -> dict[str, str]:
    """ "a b, c d" as {a: b, c: d}."""
    return dict(pair.split() for pair in text.split(","))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


NUMBERS = _words(
    "zero, one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen, sixteen, "
    "seventeen, eighteen, nineteen, twenty"
)
DAYS = _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
MONTHS = _words(
    "January, February, March, April, May, June, July, August, September, October, November, December"
)
SEASONS = _words("spring, summer, autumn, winter")

# No word stands in two pairs, so that every word has one opposite here.
OPPOSITES = _pairs(
    "hot cold, big small, happy sad, up down, in out, day night, old young, fast slow, wet dry, open closed, high low, long short, "
    "full empty, light dark, good bad, soft hard, loud quiet, rich poor, clean dirty, near far, early late, left right, "
    "north south, east west, first last, strong weak, thick thin, wide narrow, deep shallow, smooth rough, sweet sour, "
    "true false, black white, push pull, give take, come go, begin end, win lose, laugh cry, love hate, before after, "
    "inside outside, over under, always never, more less, top bottom, friend enemy, careful careless, easy difficult, "
    "straight crooked, morning evening, together apart, everything nothing, everybody nobody"
)

PLURALS = _pairs(
    # by no rule, or by a rarer one
    "mouse mice, goose geese, child children, foot feet, tooth teeth, man men, woman women, sheep sheep, deer deer, fish fish, "
    "leaf leaves, loaf loaves, knife knives, wolf wolves, shelf shelves, scarf scarves, berry berries, city cities, story stories, "
    "penny pennies, daisy daisies, fox foxes, box boxes, bench benches, brush brushes, glass glasses, bus buses, watch watches, "
    "branch branches, bush bushes"
)
REGULAR_NOUNS = _words(
    "cat, hat, drum, kite, bear, owl, frog, goat, cow, duck, horse, badger, rabbit, turtle, robin, book, bell, cup, clock, spoon, pear, "
    "apple, cake, pie, melon, rope, key, map, spade, ladder, hill, tree, garden, house, door, window, road, bridge, castle, barn, star, stone, "
    "egg, nut, letter, ribbon, coat, donkey, song, friend, sister, brother, uncle, cousin, day"
)

PAST = _pairs(
    # by no rule
    "go went, run ran, see saw, eat ate, give gave, take took, come came, sing sang, swim swam, ring rang, drink drank, begin began, "
    "sit sat, stand stood, find found, hold held, tell told, say said, make made, have had, sleep slept, lose lost, bring brought, "
    "think thought, write wrote, break broke, know knew, fall fell, meet met, dig dug, get got, buy bought"
)
REGULAR_VERBS = _words(
    "jump, walk, look, help, ask, wait, play, work, want, open, push, pull, cook, wash, paint, climb, listen, count, pick, thank, clean, "
    "watch, stop, hop, hug, nod, carry, cry, dry, like, dance, smile, live, bake, share, close, hope"
)

COMPARATIVES = _pairs(
    "good better, bad worse, far farther, many more, happy happier, busy busier, early earlier, windy windier, pretty prettier, big bigger, "
    "hot hotter, wet wetter, sad sadder, wide wider, wise wiser, brave braver, close closer, tall taller, small smaller, old older, "
    "young younger, long longer, short shorter, fast faster, slow slower, warm warmer, cold colder, cool cooler, soft softer, hard harder, "
    "loud louder, kind kinder, clean cleaner, dark darker, light lighter, deep deeper, high higher, low lower, strong stronger, weak weaker, "
    "thick thicker, sweet sweeter"
)

SPELLED = _words(
    "because, friend, school, water, little, mother, father, sister, brother, yellow, purple, summer, autumn, spring, Monday, Tuesday, Friday, "
    "Saturday, morning, evening, garden, window, kitchen, village, castle, bridge, river, apple, bread, honey, biscuit, rabbit, "
    "squirrel, hedgehog, badger, beaver, otter, turtle, donkey, horse, whistle, ribbon, needle, candle, ladder, letter, careful, "
    "slowly, quietly, every, happy, library, minute, number, station, thought, through, together"
)

# Short facts: wordings for a group (the last words of the question come from the row), then question -> answer.
FACTS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "young": (
        ("What is a young {x} called?", "What do we call a baby {x}?", "Give the name of a young {x}.", "Say the word for a baby {x}.",
         "Which word means a young {x}?"),
        _pairs("dog puppy, cat kitten, cow calf, horse foal, sheep lamb, goat kid, duck duckling, goose gosling, hen chick, bear cub, owl owlet"),
    ),
    "sound": (
        ("What does a {x} say?", "Which sound does a {x} make?", "Name the sound of a {x}.", "How does a {x} sound?", "Tell me the sound that a {x} makes."),
        _pairs("cow moo, cat meow, duck quack, sheep baa, dog woof, pig oink, mouse squeak, lion roar, frog croak, crow caw, clock tick"),
    ),
    "home": (
        ("Where does a {x} live?", "Tell me where a {x} lives.", "Say where a {x} lives.", "Where is a {x} at home?", "Do you know where a {x} lives?"),
        {"bee": "in a hive", "bird": "in a nest", "spider": "in a web", "rabbit": "in a burrow", "horse": "in a stable", "pig": "in a sty",
         "bear": "in a cave", "beaver": "in a lodge", "fox": "in a den",
         "farmer": "on a farm", "mole": "under the ground"},
    ),
    "colour": (
        ("What colour is {x}?", "What is the colour of {x}?", "Name the colour of {x}.", "Tell me the colour of {x}.", "Say which colour {x} is."),
        {"snow": "white", "grass": "green", "the clear sky": "blue", "coal": "black", "blood": "red", "milk": "white",
         "a ripe tomato": "red", "a carrot": "orange", "a crow": "black",
         "a pine tree": "green", "an elephant": "grey", "a polar bear": "white",},
    ),
    "count": (
        ("How many {x} are there?", "What is the number of {x}?", "Tell me the number of {x}.", "Give the number of {x}.", "Say how many {x} there are."),
        {"days in a week": "seven", "months in a year": "twelve", "legs on a spider": "eight", "legs on a dog": "four",
         "legs on a hen": "two", "wheels on a bicycle": "two", "wheels on a car": "four", "sides in a triangle": "three",
         "fingers on one hand": "five", "seasons in a year": "four",
         "eggs in a dozen": "twelve",
         "wings on a bird": "two", "wings on a butterfly": "four"},
    ),
    "job": (
        ("Who {x}?", "What do we call a person who {x}?", "Name the person who {x}.", "Which person {x}?", "Give the word for somebody who {x}."),
        {"bakes bread": "a baker", "teaches children": "a teacher", "puts out fires": "a firefighter", "heals the sick": "a doctor",
         "grows corn": "a farmer", "catches fish": "a fisherman",
         "paints pictures": "a painter",
         "drives a bus": "a bus driver", "sails the sea": "a sailor",
         "brings letters": "a postman",
         "looks after sheep": "a shepherd",},
    ),
    "tool": (
        ("What do we use to {x}?", "Which thing helps us to {x}?", "Name a tool to {x}.", "With what do people {x}?", "What do you need to {x}?"),
        {"cut paper": "scissors", "dig a hole": "a spade", "open a lock": "a key", "sweep the floor": "a broom",
         "see in the dark": "a lamp", "eat soup": "a spoon", "saw wood": "a saw", "sew a button on": "a needle",
         "comb our hair": "a comb",
         "wash our hands": "soap", "boil water": "a kettle",
         "rake leaves": "a rake",
         "mend a broken cup": "glue"},
    ),
    "made": (
        ("What is {x} made of?", "What do people make {x} of?", "Name what {x} is made of.", "Say what people use to make {x}.", "Of what is {x} made?"),
        {"bread": "flour", "butter": "milk", "jam": "fruit", "cheese": "milk", "paper": "wood",
         "a candle": "wax", "a woolly scarf": "wool", "a snowman": "snow",
         "flour": "grain",},
    ),
}  # fmt: skip

# What kind of thing each is; no word stands in two lists.
CATEGORIES = {
    "animals": _words("cat, dog, mouse, rabbit, bear, badger, otter, goose, duck, owl, frog, goat, donkey, horse"),
    "food": _words("bread, soup, cake, pie, jam, toast, butter, rice, cheese, honey"),
    "tools": _words("saw, spade, rake, ladder, broom, needle, hammer, hoe"),
    "plants": _words("pine, elm, fern, moss, willow, nettle, oak, daisy"),
    "buildings": _words("castle, barn, school, library, lighthouse, cottage, windmill, theatre, chapel"),
    "colours": _words("red, blue, green, yellow, purple, brown, grey, white, black"),
    "clothes": _words("hat, coat, scarf, sock, dress, boot, shirt, glove"),
    "vehicles": _words("car, bus, train, tram, van, cart, ship"),
    "numbers": _words("two, three, four, five, six, seven, eight, nine"),
    "family": _words("mother, father, sister, brother, aunt, uncle, cousin, grandmother"),
}  # fmt: skip

# Parts of plain sentences. A doing: the verb, with he or she, in the past, and what follows.
DOINGS = tuple(
    tuple(part.strip() for part in doing.split("|"))
    for doing in (
        "walk|walks|walked|to school", "run|runs|ran|to the river", "go|goes|went|to the market", "eat|eats|ate|an apple", "drink|drinks|drank|warm milk",
        "sing|sings|sang|a song", "play|plays|played|the flute", "read|reads|read|a book", "write|writes|wrote|a letter", "bake|bakes|baked|a cake",
        "sweep|sweeps|swept|the step", "wash|washes|washed|the windows", "paint|paints|painted|the fence", "feed|feeds|fed|the hens", "plant|plants|planted|seeds",
        "pick|picks|picked|daisies", "count|counts|counted|the clouds", "climb|climbs|climbed|the hill", "swim|swims|swam|in the lake", "sleep|sleeps|slept|by the fire",
        "sit|sits|sat|on the porch", "dig|digs|dug|in the garden", "make|makes|made|soup", "fly|flies|flew|a kite", "carry|carries|carried|a basket",
        "tell|tells|told|a story", "ring|rings|rang|the bell", "watch|watches|watched|the birds", "help|helps|helped|the farmer", "find|finds|found|a coin",
        "catch|catches|caught|a ball", "draw|draws|drew|a picture", "buy|buys|bought|bread", "ride|rides|rode|a pony", "throw|throws|threw|a stone",
    )
)  # fmt: skip
SINGLE = _words(
    "he, she, Pip, Mia, Tilly, Bruno, Clara, Nora, Otto, Rosie, my sister, my brother, the boy, the girl, the teacher, the farmer, her uncle, his aunt"
)
MANY = _words("they, we, the boys, the girls, my friends, the teachers, the children, Pip and Mia, Nora and Otto, the farmers")  # fmt: skip
TIMES = _words(
    "every day, in the morning, on Sunday, after supper, before lunch, in spring, at noon, in the evening, on Monday, in winter"
)
LANDMARKS = _words(
    "the house, the door, the river, the garden, the window, the bridge, the road, the tower, the mill, the castle, the hill, the lake, the barn"
)
MOVABLE = _words("the cat, the dog, the kite, the drum, the soup, the lamp, the old owl, my coat, my book, your hat, her spoon, the bread, the blue cup, "
                 "the bear, the clock, the little boat, his letter, the ball, our lunch, the doll, the apple, the hen, the flute, the basket")  # fmt: skip
STATES = _words(
    "cold, old, new, big, small, clean, dirty, red, green, quiet, wet, dry, white, very old, rather small, beautiful"
)
PLACES = _words(
    "on the table, in the kitchen, near the mill, under the tree, behind the barn, by the window, in the garden, on the step, in the boat"
)
ABLE = _words("can, will, must, should")

# An order: the verb and what it may be said of.
ORDERS = {
    "close": "the door, the window, the gate, the book, the box", "open": "the door, the window, the gate, the letter, the basket",
    "pass": "the salt, the butter, the bread, the milk", "wash": "the dishes, your hands, the cups, the apples", "bring": "the ladder, a spoon, some water, the lamp, my coat",
    "sweep": "the floor, the step, the yard", "feed": "the hens, the cat, the horse", "carry": "the basket, the bag, the box", "read": "the story, the letter, this page",
    "write": "a letter, your name, a list", "tell": "me a story, us the truth, me your name", "show": "me the map, us the garden, me the way", "give": "me the key, her the ball, him a cup",
    "wait": "for me, by the bridge, at the mill", "help": "me, your sister, the farmer", "sing": "a song, it again", "turn": "off the light, the page, left at the barn",
    "water": "the flowers, the beans", "set": "the table", "cut": "the bread, the paper", "light": "the fire, the candle", "call": "your mother, the doctor", "come": "here, in, home early",
    "sit": "down, by the fire, next to me", "stop": "the noise, here", "fetch": "the rope, a bucket, some wood", "find": "my hat, the key", "hold": "the rope, my hand, the ladder",
    "mend": "the fence, the kite", "be": "quiet, careful, on time",
}  # fmt: skip
ORDERS = {verb: _words(rest) for verb, rest in ORDERS.items()}
