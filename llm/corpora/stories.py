"""Children's stories from a seeded story grammar: somebody wishes for a thing, something is in the way, it ends well or kindly.

The tables below are the whole grammar. A template is a sentence with `{slots}` and `[alternatives|of|phrasing]`:
a slot is filled from the facts of the story (who, what, where), from `WORDS` (a filler), or from `PHRASES`
(a part of a sentence that has slots of its own). A sentence's *skeleton* is the sentence with every
filler replaced by the name of its slot.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from llm.corpora.articles import with_articles

SEPARATOR = "<|endoftext|>"
SEED = 7
COUNT = 2600

# The cast: everybody stays the kind of creature they are from story to story.
CAST = {
    "he": {
        "Pip": "mouse",
        "Bruno": "bear",
        "Felix": "fox",
        "Otto": "otter",
        "Hugo": "hedgehog",
        "Toby": "mole",
    },
    "she": {
        "Mia": "rabbit",
        "Tilly": "squirrel",
        "Clara": "cat",
        "Willa": "badger",
        "Nora": "hare",
        "Rosie": "beaver",
    },
}
NAMES = {pronoun: tuple(cast) for pronoun, cast in CAST.items()}
PRONOUNS = {"he": ("he", "him", "his"), "she": ("she", "her", "her")}

# Heroes have paws, ears, whiskers and a tail; anybody may help.
HERO_KINDS = (
    "mouse",
    "rabbit",
    "fox",
    "bear",
    "cat",
    "squirrel",
    "hedgehog",
    "badger",
    "otter",
    "mole",
    "beaver",
    "hare",
)
HELPER_KINDS = (
    "owl",
    "goose",
    "duck",
    "hen",
    "crow",
    "robin",
    "heron",
    "frog",
    "toad",
    "turtle",
    "goat",
    "donkey",
    "horse",
    "cow",
    "sheep",
    "pig",
)
KINDS = HERO_KINDS + HELPER_KINDS

# thing: what one does with it, now and in the past; soft things tear, hard things break, food does neither.
THINGS = {
    "soft": {
        "kite": ("fly", "flew"), "book": ("read", "read"), "hat": ("wear", "wore"), "scarf": ("wear", "wore"),

        "ribbon": ("tie", "tied"), "doll": ("hug", "hugged"), "coat": ("wear", "wore"),

    },
    "hard": {
        "drum": ("beat", "beat"), "bell": ("ring", "rang"), "whistle": ("blow", "blew"), "flute": ("play", "played"),
        "fiddle": ("play", "played"), "top": ("spin", "spun"),
        "marble": ("roll", "rolled"), "teapot": ("fill", "filled"),
        "cup": ("fill", "filled"), "clock": ("wind", "wound"),
        "spoon": ("polish", "polished"),

    },
    "food": {
        "pear": ("taste", "tasted"), "melon": ("share", "shared"),
        "pie": ("share", "shared"), "cake": ("share", "shared"),
        "pumpkin": ("cook", "cooked"),
    },
}  # fmt: skip
KIND_OF_THING = {thing: kind for kind, things in THINGS.items() for thing in things}
USES = {thing: use for things in THINGS.values() for thing, use in things.items()}
ADJECTIVES = {
    "thing": "red blue green yellow purple silver golden striped",
    "food": "big sweet round fresh",
}
ADJECTIVES = {kind: tuple(words.split()) for kind, words in ADJECTIVES.items()}


def _words(text: str) -> tuple[str, ...]:
    """A filler list: separated by commas."""
    return tuple(word.strip() for word in text.split(","))


# Fillers: any of these may stand in its slot.
WORDS = {
    "nature": _words(
        "small, young, kind, brave, shy, cheerful, gentle, clever, curious, quiet, merry, careful, busy, sleepy, "
        "friendly, patient, proud, hopeful, lively, dreamy, plump, thoughtful, playful"
    ),
    "age": _words("old, wise, kind, tall, gentle, cheerful, busy, patient, friendly, clever, thoughtful, quiet, plump, jolly, "
                  "good, merry"),
    "look": _words(
        "old, quiet, crooked, sunny, mossy, little, sleepy, windy, dusty, pretty, grey, white, cosy, narrow, lonely, leafy"
    ),
    "plain": _words("old, wooden, dusty, grey, white, little, black, plain, crooked, rough, flat, thin"),
    "heart": _words("kind, brave, shy, gentle, merry, proud, hopeful, patient, warm, big, true"),
    "building": _words(
        "mill, bridge, bakery, harbour, school, barn, station, windmill, orchard, library, market, lighthouse, "
        "greenhouse, castle, workshop, inn, stable, chapel, farm, cottage, dairy, smithy, theatre, post office"
    ),
    "near": _words("behind, beside, near, next to, across from, close to"),
    "weather": _words("bright, windy, misty, warm, cool, grey, quiet, rainy, sunny, breezy, cloudy, fine, still, mild, clear"),
    "hour": _words("morning, afternoon, evening, day"),
    "daytime": _words("morning, afternoon, evening"),
    "weekday": _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    "month": _words("March, April, May, June, July, September, October, November, December, January"),
        "span": _words("week, month, year"),
    "smell": _words(
        "warm bread, wet grass, mint, honey, apples, old wood, fresh paint, roses, soup, clover, hay, lemon, smoke, rain, "
        "butter, lavender, cinnamon, pine, toast, ginger, moss, violets, seaweed, beeswax"
    ),
    "habit": _words(
        "counted the clouds, watered the beans, swept the step, hummed a tune, drew circles in the dust, picked daisies, "
        "stacked pebbles, skipped stones, baked oat bread, listened to the rain, waved to the train, told long jokes, "
        "raked the path, fed the fire, painted tiny pictures, sang to the flowers, washed the windows, made soup, "
        "wrote letters, dried herbs, folded paper stars, shelled peas, planted seeds, practised handstands, "
        "gathered acorns, looked for rainbows, carved little figures of wood, shook the rugs"
    ),
    "hobby": _words(
        "counting clouds, watering beans, humming tunes, picking daisies, stacking pebbles, skipping stones, baking bread, "
        "telling jokes, painting pictures, singing songs, making soup, writing letters, folding paper stars, "
        "planting seeds, gathering acorns, chasing leaves, building towers, drawing faces, asking questions, watching the rain"
    ),
    "fur": _words("brown, grey, white, soft, silky, black, long, fluffy, curly, smooth"),
    "part": _words("ears, whiskers, paws, tail"),
    "droop": _words("drooped, sank, trembled, hung low, went still, shook a little"),
    "sad": _words("sad, unhappy, quiet, gloomy, worried, upset, downhearted, low"),
    "glad": _words("happy, glad, proud, cheerful, pleased, merry, joyful, content"),
    "seat": _words("log, step, stone, chair, stump, wall, fence, mat"),
    "softly": _words("softly, kindly, gently, warmly, quietly, calmly, cheerfully, with a smile, with a nod"),
    "kindly": _words("kindly, gently, warmly, quietly, calmly, brightly"),
    "good": _words("kind, brave, patient, gentle, polite, calm, true"),
    "sadly": _words("sadly, softly, quietly, at last, with a sigh, glumly, in a small voice, with a sniff"),
    "slowly": _words("slowly, carefully, bravely, quickly, gently, step by step, little by little, with great care, steadily, quietly"),
    "food": _words(
        "a warm bun, a slice of bread, some hot soup, a plate of porridge, a few berries, a jam tart, some oat biscuits, "
        "a mug of cocoa, a plate of beans, a pancake, some roast nuts, a boiled egg, a pot of tea, a glass of milk, "
        "some buttered toast, a ginger biscuit, a bunch of grapes, some honey bread"
    ),
    "spot": _words(
        "by the fire, in the garden, under the willow, on the hill, in the meadow, by the window, on the porch, in the kitchen, "
        "under the apple tree, in the square, by the door, on the grass, in the yard, on the doorstep"
    ),
    "event": _words(
        "at the fair, after supper, on holidays, at the party, before bed, on Sundays, in the parade, at the picnic, after "
        "school, every day, at breakfast, with friends, on rainy days, at the concert"
    ),
    "kin": _words("grandmother, grandfather, aunt, uncle, sister, brother, mother, father, cousin, niece, nephew"),
    "number": _words("two, three, four, five, six, seven, eight, nine, ten"),
    "ragged": _words("old, strong, good, little, sturdy, trusty, useful, plain, fine, handy, clean, simple, spare, small"),
    "bag": _words("a basket of nuts, a sack of flour, a bundle of sticks, a bag of apples, a loaf of bread, a jar of jam, "
                  "a letter, an umbrella, a pail of milk, a bunch of flowers, a box of eggs, a wet towel"),
    "walk": _words("came by, walked past, came along, strolled by, stopped by, passed by, wandered by"),
    "road": _words("path, lane, road, hill, track, street"),
    "store": _words("shed, kitchen, cupboard, attic, garden, hall, barn, cellar"),
    "light": _words("soft, pale, warm, clear, low, gentle, bright, mild"),
    "sky": _words("stars, moon, first star, evening star, fireflies"),
    "shine": _words("shone, twinkled, glowed, came out, appeared, blinked, rose"),
    "grand": _words("happiest, proudest, merriest, luckiest, gladdest"),
    "box": _words("chest, box, trunk, cupboard, drawer, cabinet, case, cage"),
    "cave": _words("cave, tunnel, mine, basement, burrow, passage, vault"),
    "stuff": _words("snow, sand, leaves, earth, straw, gravel, sawdust, ashes"),
    "dirt": _words("mud, soot, grease, tar, syrup, slime, oil"),
    "string": _words("string, wool, cords, vines, wire, fishing line, yarn"),
    "flow": _words("wide, cold, grey, fast, brown, deep, muddy, wild"),
    "water": _words("river, lake, stream, canal, pond"),
    "shop": _words("shop, toyshop, stall, store, market hall"),
    "wood": _words("woods, forest, hills, swamp, moor, valley"),
    "bush": _words("hedge, bush, thicket, bramble"),
    "hill": _words("oak, pine, elm, beech, chestnut, tower, steeple, flagpole"),
}  # fmt: skip

# Parts of sentences, with slots of their own.
PHRASES = {
    "home": (
        "{near} the {look} {building}", "in a {look} house {near} the {building}", "{near} a {look} {building}",
        "in a {look} hut on {weekday} Lane", "under the {look} stairs of the {building}",
        "in the {look} attic of a {building}", "at the edge of the {look} {wood2}",
    ),
    "wood2": ("village", "town", "meadow", "park", "hamlet"),
    "when": (
        "one {weather} {hour}", "on a {weather} {hour} in {month}", "one {weather} {weekday}", "early one {weather} {weekday}",
        "late one {weather} {hour}", "on a {weather} {weekday} in {season}",
    ),
    "often": ("every {hour}", "each {weather} {hour}", "on every {weather} {weekday}", "most {weekday}s",
              "each {weekday}", "every {weekday} {daytime}"),
    "use_when": ("{spot}", "{event}", "{spot} every {weekday}", "{spot} in {month}", "{spot} each {season}"),
    "use_once": ("{spot}", "{spot} with {his} {kin}", "all {weekday} {spot}"),
}  # fmt: skip

SEASONS = {
    "spring": ("March", "April", "May"), "summer": ("June", "July"), "autumn": ("September", "October", "November"),
    "winter": ("December", "January"),
}  # fmt: skip

# Fillers that stay the same through a story once they are chosen.
SETTING = (
    "month",
    "fur",
    "box",
    "cave",
    "stuff",
    "dirt",
    "string",
    "water",
    "shop",
    "wood",
    "bush",
    "hill",
    "store",
    "ragged",
)

INTRO = (
    "{N} was a {nature} {K} who lived {home}.",
    "{N} the {K} lived {home}.",
    "{home}, there lived a {nature} {K} called {N}.",
    "there was once a {nature} {K} named {N}, who lived {home}.",
    "{N} was a {nature}, {nature} {K}.",
    "{N} was a {K}, {nature} and {nature}, and {he} lived {home}.",
    "a {nature} {K} called {N} lived {home}.",
    "once a {nature} {K} named {N} had a home {home}.",
    "this is the story of {N}, a {nature} {K} with {fur} {part}.",
    "{N} was a {nature} {K} with {fur} fur and a {heart} heart.",
    "long ago, a {nature} {K} named {N} lived {home}.",
    "once upon a time, a {nature} {K} named {N} lived {home}.",
    "once upon a time there was a {nature} {K} called {N}.",
    "the {K} who lived {home} was called {N}.",
    "the {nature} {K} in this story was called {N} and lived {home}.",
    "in {month}, when this story begins, {N} was a {nature} {K} who lived {home}.",
)
DETAIL = (
    "{often}, {he} {habit} and {habit}.",
    "the air there smelled of {smell} and {smell}.",
    "{he} {habit}, {habit} and [sometimes|often|always] {habit}.",
    "{he} liked {hobby} and {hobby}, but not {hobby}.",
    "{his} little room smelled of {smell}, {smell} and {smell}.",
    "{his} {kin} called {him} the most {nature} {K} in the {building}.",
    "{often}, {N} {habit} with {his} {kin}.",
    "when {he} was not {hobby}, {he} was {hobby}.",
    "nobody was better at {hobby} or {hobby} than {he} was.",
    "{he} had {fur} {part}, and {he} loved the smell of {smell}.",
    "{his} {kin} {habit}, and {N} {habit}.",
    "everyone knew {him}, because {he} {habit} {often}.",
)
WISH = (
    "more than anything, {N} wanted a {A} {T}.",
    "{N} wished for a {A} {T} [of {his} own|with all {his} heart|{often}].",
    "what {N} wanted most that {season} was a {A} {T}.",
    "\"I wish I had a {A} {T},\" said {N} {when}.",
    "for {number} [days|weeks|months], {N} had dreamed of a {A} {T}.",
    "all [{span}|{season}] long, {often}, {N} had longed for a {A} {T}.",
    "there was one thing {N} wanted: a {A} {T}.",
    "{N} had [one|only one|a] {nature} wish, and it was a {A} {T}.",
    "{when}, {N} told {his} {kin}, \"I wish for a {A} {T}.\"",
    "but {N} had no {T}, and {he} wanted a {A} one {so_much}.",
    "{when}, {N} began to wish for a {A} {T}.",
    "\"Do you know what I want, {kin}?\" said {N}. \"I want a {A} {T}.\"",
)  # fmt: skip
PHRASES["so_much"] = (
    "very much",
    "with all {his} heart",
    "more every {hour}",
    "just like the one of {his} {kin}",
)
REASON = (
    "{he} wanted to {use} it {use_when}.",
    "with a {T}, {he} could {use} it {use_when}.",
    '"I would {use} my {T} {use_when}," {he} said to {his} {kin}.',
    "{he} [hoped|planned|meant] to {use} the {T} {use_when} with {his} {kin}.",
    "how {glad} {he} would feel with a {T} {use_when}!",
    "{his} {kin} had a {T} [long ago|once], and {N} still thought of it {often}.",
    '"Then I could {use} it {use_when}," {N} said {softly}.',
    "{N} had already chosen where to {use} the {T}: {spot}, with {his} {kin}.",
)
FIND = (
    "{when}, {N} found the {T}, but it was {where}.",
    "{when}, {N} saw the {A} {T} {where}.",
    "then, {when}, there was the {T}, {where}.",
    "{when}, {his} {kin} told {N} that the {T} was {where}.",
    "but the {A} {T} was {where}, {near} the {building}.",
    "{N} looked {near} the {building}, and there was the {T}, {where}.",
    "a letter came {when}: the {T} was {where}.",
    "{N} searched for {number} days, and then saw the {T} {where}.",
)

# What can be in the way. where: the thing was ...; trouble: why that stops the hero; plea: the thing is ...;
# tools: what helps, as one would offer it; work: how it helps. {R} is the tool.
OBSTACLES = {
    "high": dict(
        where=("high up on the {look} roof of the {building}", "on a high shelf in the {look} {building}",
               "high in a tall {hill}", "on a high peg above the door of the {building}"),
        trouble=("{he} jumped {number} times, but the {T} was too high.", "{he} stretched {his} {fur} paws, but {he} could not reach the {T}.",
                 "it was so high that {his} neck ached after {number} minutes.", "the {hill} was too high to climb, and {N} could not reach the {T}."),
        plea=("too high for a {nature} {K} like me", "so high that no {K} can reach it", "up high, and a {K} is too small"),
        tools={"ladder": "a {ragged} ladder", "stool": "a {ragged} stool", "bench": "a {ragged} bench", "barrel": "a {ragged} barrel"},
        work=("they set the {R} under the {T}, and {N} climbed up {slowly}.", "the {J} held the {R} while {N} climbed up to the {T}.",
              "{slowly}, {N} climbed onto the {ragged} {R} {spot} and reached the {A} {T}.", "with the {ragged} {R} under {his} {fur} paws, {N} {slowly} reached the {A} {T}."),
    ),
    "water": dict(
        where=("on the far side of the {flow} {water}", "on an island in the {flow} {water}", "across the {flow} {water} {near} the {building}",
               "on a rock in the middle of the {water}"),
        trouble=("the water was {flow} and {flow}, and {N} could not swim.", "there was no way over the {flow} water to the {T}.",
                 "{he} put one paw into the {flow} water and jumped back.", "{N} could not swim across the {water} to the {T}."),
        plea=("across the {flow} {water}, and I cannot swim", "on the other side of the {flow} {water}", "over the {flow} water, far from me"),
        tools={"raft": "a {ragged} raft", "rowboat": "a {ragged} rowboat", "canoe": "a {ragged} canoe", "dinghy": "a {ragged} dinghy"},
        work=("they pushed the {R} into the water and paddled {slowly} to the {T}.", "the {J} steered the {R} over the {water}, and {N} picked up the {T}.",
              "{slowly}, the {ragged} {R} carried {N} across the {flow} {water} to the {T}.", "{N} paddled the {R} {slowly} across and took the {A} {T}."),
    ),
    "locked": dict(
        where=("locked in a {ragged} {box}", "behind the locked door of the {look} {building}", "inside a locked {plain} {box} in the {store}",
               "in the {plain} {box}, and the {box} was locked"),
        trouble=("{N} pulled {number} times, but the lock did not open.", "{he} pushed and pulled with {his} {fur} paws, but the lock stayed shut.",
                 "the {plain} lock would not open for the {nature} {K}.", "{N} knocked {slowly}, but it stayed locked."),
        plea=("locked in, and I cannot open it", "behind a {plain} lock", "locked away from me"),
        tools={"key": "a {ragged} key", "hairpin": "a {ragged} hairpin", "screwdriver": "a {ragged} screwdriver"},
        work=("{N} turned the {R} {slowly} in the {plain} lock, and out came the {A} {T}.", "{slowly}, the {J} opened the {plain} lock with the {R}, and there lay the {A} {T}.",
              "the {ragged} {R} went click {number} times in the {plain} lock, and {N} saw the {A} {T}.", "they tried the {R} {number} times, and the {plain} lock let go of the {T}."),
    ),
    "dark": dict(
        where=("deep inside a dark {cave}", "at the dark end of a {look} {cave}", "in the dark {cave} under the {building}",
               "in a {cave} as dark as {weekday} night"),
        trouble=("it was so dark that {N} could not see {his} own {part}.", "{he} took {number} steps {slowly} into the dark, {sad} and {sad}.",
                 "it was too dark in the {cave} to find the {T}.", "{N} was {nature}, but on that {weather} {hour} {he} saw nothing in the dark."),
        plea=("in the dark {cave}, and I cannot see", "in the dark {cave} {near} the {look} {building}", "in a {cave} that is too dark for me"),
        tools={"lantern": "a {ragged} lantern", "candle": "a {ragged} candle", "torch": "a {ragged} torch", "lamp": "a {ragged} oil lamp"},
        work=("they lit the {ragged} {R}, and {N} walked {slowly} to the {T}.", "the {J} held up the {R}, and its {light} light fell on the {T}.",
              "the {light} light of the {R} showed {N} the way to the {A} {T}.", "with the {ragged} {R}, {N} went {slowly} into the {cave} and found the {T}."),
    ),
    "deep": dict(
        where=("at the bottom of a {look} well", "deep down in the well of the {building}", "at the bottom of a pit {near} the {building}",
               "down in a deep hole on the {look} {road}"),
        trouble=("{he} lay on {his} tummy, but the hole was too deep for {his} {fur} paws.", "the {look} well was {number} times as deep as {N} was tall.",
                 "{N} looked down, and the bottom was {number} feet below.", "it was too deep to climb down to the {T}."),
        plea=("at the bottom, and it is too deep", "deep down {near} the {look} {building}", "{number} feet down, at the very bottom"),
        tools={"rope": "a {ragged} rope", "net": "a {ragged} net", "hook": "a {ragged} hook on a cord", "bucket": "a {ragged} bucket on a chain"},
        work=("they lowered the {R} {slowly}, and up came the {T}.", "the {J} let the {R} down, and {N} pulled up the {T} {slowly}.",
              "{number} times they lowered the {ragged} {R}, until it caught the {T}.", "with the {ragged} {R}, {N} {slowly} pulled the {A} {T} up into the light."),
    ),
    "buried": dict(
        where=("buried under {number} feet of {stuff}", "buried in the {stuff} {near} the {building}", "under a {plain} heap of {stuff}",
               "buried deep in {stuff} and {stuff}"),
        trouble=("{he} dug with {his} {fur} paws, but the {stuff} slid back.", "the heap of {stuff} was {number} times as big as {N}.",
                 "{N} scratched at the {stuff} until {his} paws were sore.", "the more {N} dug, the more {stuff} slid onto the {T}."),
        plea=("buried in the {stuff}", "under a heap of {stuff}", "buried, and my paws are sore"),
        tools={"spade": "a {ragged} spade", "shovel": "a {ragged} shovel", "trowel": "a {ragged} trowel", "hoe": "a {ragged} hoe"},
        work=("they dug {slowly} with the {R}, until they saw the {T}.", "the {J} dug with the {R}, and {N} brushed the {stuff} off the {T}.",
              "{number} times {N} pushed the {ragged} {R} into the {stuff}, and then {he} saw the {T}.",
              "with the {R}, {N} {slowly} dug the {A} {T} {spot} out of the {stuff}."),
    ),
    "broken": dict(
        where=("broken in {number} pieces {spot}", "in the {look} {building}, cracked and broken", "broken, and the pieces lay {spot}",
               "there in {number} broken pieces on a {plain} {seat}"),
        trouble=("{he} pushed the pieces together {spot}, but they fell apart.", "nobody could {use} a broken {T}.",
                 "{N} held the pieces in {his} {fur} paws, and {his} {part} {droop}.", "the {A} {T} was too broken to {use} {use_when}."),
        plea=("broken in pieces", "broken, and it falls apart", "all cracked and in pieces"),
        tools={"glue": "a pot of {ragged} glue", "tape": "a roll of {ragged} tape", "paste": "a jar of {ragged} paste", "putty": "a tin of {ragged} putty"},
        work=("they mended the {T} {slowly} with the {R}, piece by piece.", "the {J} spread the {R}, and {N} pressed the pieces of the {T} together.",
              "with the {R}, {N} {slowly} joined all the pieces of the {A} {T}.", "the {ragged} {R} held, and the {T} was whole by {weekday}."),
    ),
    "torn": dict(
        where=("torn in {number} places {spot}", "in the {look} {building}, torn down the middle", "on a nail {near} the {building}, torn and ragged",
               "there on a {plain} {seat}, badly torn"),
        trouble=("{he} smoothed the torn edges with {his} {fur} paws, but they would not join.", "nobody could {use} a torn {T}.",
                 "{N} looked at the torn {T}, and {his} {part} {droop}.", "the {A} {T} was too torn to {use} {use_when}."),
        plea=("badly torn", "torn in the middle", "so torn that I cannot {use} it"),
        tools={"needle": "a {ragged} needle", "thread": "a reel of {ragged} thread", "patch": "a {ragged} patch"},
        work=("they sewed the {T} {slowly} with the {R}, stitch by stitch.", "the {J} sewed with the {R}, and {N} held the {T} flat.",
              "with the {R}, {N} {slowly} closed every tear in the {A} {T}.", "the {ragged} {R} did its work, and the {T} was whole by {weekday}."),
    ),
    "heavy": dict(
        where=("in a crate as heavy as {number} pumps", "under a heavy {plain} stone", "tied to a heavy {plain} {seat}",
               "packed in a {plain} crate, heavy as lead"),
        trouble=("{he} pushed {number} times, but the load was too heavy.", "it was too heavy for the {fur} paws of one {nature} {K}.",
                 "{N} pulled until {his} {part} {droop}, but it was too heavy.", "the heavy load with the {T} did not move an inch for {N}."),
        plea=("too heavy for a {nature} {K} like me", "under a load as heavy as {number} pumps", "stuck, because no {K} can lift the load"),
        tools={"cart": "a {ragged} cart", "wheelbarrow": "a {ragged} wheelbarrow", "sledge": "a {ragged} sledge", "trolley": "a {ragged} trolley"},
        work=("they rolled the load {slowly} onto the {R} and freed the {T}.", "the {J} pulled the {R}, {N} pushed, and off came the {T}.",
              "with the {ragged} {R}, {N} {slowly} moved the load off the {A} {T}.", "{number} times they heaved, and then the {R} took the load off the {T}."),
    ),
    "price": dict(
        where=("in the window of the {look} {shop} for {number} coins", "in the {look} {shop}, and it cost {number} coins",
               "for sale {near} the {building}, and the price was {number} coins", "on a shelf of the {shop} with a price of {number} coins"),
        trouble=("{he} had only {number} pennies left from {weekday}.", "{N} shook {his} money box, but there were no coins in it.",
                 "{N} had {food} but no coins, and {his} {part} {droop}.", "the price was more than the {nature} {K} had."),
        plea=("too dear, and I have only {number} coins", "for sale {near} the {building}, and I have only {number} coins", "in the {shop}, and it costs many coins"),
        tools={"broom": "a {ragged} broom", "mop": "a {ragged} mop", "duster": "a {ragged} duster", "paintbrush": "a {ragged} paintbrush"},
        work=("{N} worked {slowly} with the {R} {spot} until {he} could buy the {A} {T}.", "the {J} paid {N} for {number} days with the {R} {spot}, and {N} bought the {A} {T}.",
              "with the {ragged} {R}, {N} worked {number} days {spot} and earned the {A} {T}.",
              "{N} took the {ragged} {R}, cleaned the {look} {building} and earned the price of the {T}."),
    ),
    "lost": dict(
        where=("lost somewhere in the {look} {wood}", "lost, and nobody in the {building} knew where", "lost {near} the {look} {wood} since {weekday}",
               "lost in the {wood}, {number} miles away"),
        trouble=("{he} searched {number} trails and lost the way each time.", "nobody could say where in the {wood} the lost {T} lay.",
                 "every path in the {look} {wood} looked the same to {N}.", "{N} walked in circles, and {his} {part} {droop}."),
        plea=("lost in the {wood}", "lost, and every {road} looks the same", "lost, and I do not know the way"),
        tools={"map": "a {ragged} map", "compass": "a {ragged} compass", "chart": "a {ragged} chart", "guidebook": "a {ragged} guidebook"},
        work=("they followed the {R} {slowly} through the {wood} to the {T}.", "the {J} read the {R}, and {N} found the {T} {near} the {plain} {seat}.",
              "the {ragged} {R} led {N} {number} miles to the {A} {T}.", "with the {R}, {N} {slowly} found the right path to the {T}."),
    ),
    "thorns": dict(
        where=("in the middle of a {look} {bush} of thorns", "behind {number} rows of thorns {near} the {building}",
               "stuck among the thorns of a {look} {bush}", "in a thorny {bush} on the {look} {road}"),
        trouble=("{he} put a paw in, and the thorns pricked {his} {fur} paws.", "{he} tried it {slowly}, but {number} thorns stuck in {his} {fur} paw.",
                 "the thorns were as sharp as pins, and {N} stepped back.", "{N} tried {number} times to get past the {plain} thorns to the {T}."),
        plea=("in the {plain} thorns, and they prick", "behind sharp thorns", "stuck in a thorny {bush}"),
        tools={"gloves": "a pair of {ragged} gloves", "shears": "a pair of {ragged} shears", "clippers": "a pair of {ragged} clippers", "tongs": "a pair of {ragged} tongs"},
        work=("they used the {R} on the thorns, and {N} {slowly} took the {T}.", "the {J} moved the thorns with the {R}, and {N} lifted out the {T}.",
              "with the {ragged} {R}, {N} {slowly} drew the {A} {T} {spot} out of the thorns.", "thanks to the {R}, the thorns let go of the {T} {slowly}."),
    ),
    "dirty": dict(
        where=("covered in {dirt} {near} the {building}", "in the {look} yard, dirty with {dirt}", "on a {plain} {seat}, covered in {dirt}",
               "so dirty with {dirt} that it looked black"),
        trouble=("{he} wiped it {number} times, but it stayed dirty.", "nobody could {use} a {T} covered in {dirt}.",
                 "the {dirt} stuck to {his} {fur} paws and did not come off.", "{N} blew on it, but the {T} was too dirty to {use}."),
        plea=("covered in {dirt}", "so dirty that I cannot {use} it", "dirty, and it sticks"),
        tools={"soap": "a bar of {ragged} soap", "sponge": "a {ragged} sponge", "brush": "a {ragged} brush", "rag": "a {ragged} rag"},
        work=("they scrubbed the {T} {slowly} with the {R}, until it shone.", "the {J} fetched the {R}, and {N} washed the {T} {slowly}.",
              "with the {ragged} {R}, {N} washed {number} spots of {dirt} off the {A} {T}.", "{number} times {N} rubbed with the {R}, and the {T} was clean."),
    ),
    "frozen": dict(
        where=("frozen in a {plain} block of ice", "frozen to the {look} step of the {building}", "behind {number} inches of ice {near} the {building}",
               "frozen fast in the ice on the {road}"),
        trouble=("{he} blew on the ice {number} times, but it did not melt.", "the ice was so cold {spot} that {his} {part} {droop}.",
                 "{N} tapped the ice with {his} {fur} paws, but the {T} stayed frozen.", "it was frozen as hard as stone, and {N} could not free it."),
        plea=("frozen in the ice", "in a block of ice", "frozen, and my {fur} paws cannot melt it"),
        tools={"kettle": "a {ragged} kettle", "stove": "a {ragged} stove on wheels", "heater": "a {ragged} heater", "iron": "a {ragged} hot iron"},
        work=("they warmed the ice {slowly} with the {R}, until it let go of the {T}.", "the {J} brought the {R}, the ice melted, and {N} picked up the {T}.",
              "with the {ragged} {R}, {N} {slowly} melted the ice around the {A} {T}.", "after {number} minutes with the {R}, the ice was gone and the {T} was free."),
    ),
    "tangled": dict(
        where=("tangled in {number} yards of {string}", "in a {plain} web of {string}, all tangled up", "tangled in {string} {near} the {building}",
               "hanging in a tangled ball of {string}"),
        trouble=("{he} pulled {number} times, but the knots grew tighter.", "the knots were too tight for {his} {fur} paws.",
                 "{N} picked at the {string} until {his} {part} {droop}.", "every time {N} pulled, the {T} was more tangled."),
        plea=("tangled in {string}", "all tangled, and the knots are tight", "caught in the knots"),
        tools={"scissors": "a pair of {ragged} scissors", "comb": "a {ragged} comb", "tweezers": "a pair of {ragged} tweezers"},
        work=("they worked at the knots {slowly} with the {R}, until the {T} was free.", "the {J} undid the knots with the {R}, and {N} pulled out the {T}.",
              "with the {ragged} {R}, {N} {slowly} freed the {A} {T} from the {string}.", "{number} knots gave way to the {R}, and the {T} was free."),
    ),
}  # fmt: skip
# Everybody in the village has a trade: who helps depends on the trouble, who owns on the thing.
HELPERS = dict(zip(OBSTACLES, HELPER_KINDS))
OWNERS = {thing: HELPER_KINDS[i % len(HELPER_KINDS)] for i, thing in enumerate(KIND_OF_THING)}
FOOD_OBSTACLES = ("high", "water", "locked", "dark", "price", "lost", "thorns", "heavy")

FEEL = (
    "{N} sat down on a {plain} {seat} and felt {sad}.",
    "{his} {part} {droop}, and {he} felt {sad} and {sad}.",
    "\"Oh dear,\" said {N} {sadly}. \"I want that {A} {T} so much.\"",
    "\"What shall I do now?\" {he} asked the {plain} {seat}.",
    "{N} thought about it for {number} minutes, {sad} and {sad}.",
    "{N} went home and {habit}, but {he} could not forget the {T}.",
    "{he} sat {spot}, {sad} and {sad}, and sighed {number} times.",
)  # fmt: skip
HELPER = (
    "just then a {age} {J} {walk} with {bag}.",
    "then a {age}, {age} {J} {walk} with {bag}.",
    "along the {look} {road} came a {age} {J} with {bag}.",
    "{N} went to see a {age} {J} who lived {near} the {building}.",
    "{when}, a {age} {J} {walk} with {bag}.",
    "a {age} {J} who lived {home} heard {N}.",
    "up the {look} {road} came a {age}, {age} {J}.",
    "{N} met a {age} {J} on the {look} {road}.",
    "a {age} {J} was {hobby} {near} the {building} and saw {N}.",
)
ASK = (
    "\"Why are you so {sad}, {N}?\" asked the {J} {softly}.",
    "\"What is the matter, {N}?\" asked the {J} {softly}.",
    "\"You look {sad} and {sad}, {N},\" said the {J}.",
    "\"Good {hour}, {N}! Why are you {sad}?\" asked the {J}.",
    "the {J} put down {bag} and asked what was wrong.",
)  # fmt: skip
PLEA = (
    "\"The {T} is {plea},\" said {N} {sadly}.",
    "\"I want the {A} {T}, but it is {plea},\" said {N} {sadly}.",
    "\"My wish is the {T},\" said {N} {sadly}. \"But it is {plea}.\"",
    "\"Do you see the {A} {T}?\" asked {N}. \"It is {plea}.\"",
    "\"Oh dear {J}, the {T} is {plea}!\" said {N}.",
    "\"I cannot {use} the {T},\" said {N}. \"It is {plea}.\"",
)  # fmt: skip
OFFER = (
    "\"I have {aR} in my {store},\" said the {J} {softly}.",
    "\"Then we need {aR}, {N},\" said the {J}.",
    "\"Look, {N}, here is {aR},\" said the {J} {softly}.",
    "the {J} smiled {kindly} and brought {aR} from the {store}.",
    "\"Do not be {sad}. Let us use {aR},\" said the {J}.",
    "the {J} knew what to do and fetched {aR} from a {look} {store}.",
    "\"My {kin} left {aR} {near} the {building},\" said the {J}.",
    "\"Wait here, {N}!\" said the {J}, and came back with {aR}.",
)  # fmt: skip
ALONE = (
    "then {N} remembered {aR} in the {look} {store}.",
    "{N} thought for {number} minutes, and then {he} fetched {aR} from the {store}.",
    "but {N} was {nature} and {nature}, and {he} found {aR} in the {store}.",
    "\"I know what to do!\" said {N}. \"There is {aR} in the {store}.\"",
    "{N} asked {his} {nature} {kin} for help, and back came {aR}.",
    "{spot}, {he} saw {aR}, and {N} had an idea.",
)  # fmt: skip
MET = (
    "at last {N} held the {A} {T} in {his} {fur} paws.",
    "\"I have it!\" cried {N}, {glad} and {glad}. \"I have my {A} {T}!\"",
    "now the {A} {T} belonged to {N}, and {he} felt {glad} and {glad}.",
    "{N} had {his} {A} {T} at last, and {his} {part} shook with joy.",
    "{N} took the {A} {T} in {his} arms and laughed {softly}.",
    "so {N} got {his} {T}, and {he} was the {grand} {K} in the {wood2}.",
    "the {A} {T} belonged to {N} at last, and it was {lovely}.",
    "{N} carried {his} {A} {T} home, {glad} and {glad}.",
    "at last {N} had the {T}, and {he} danced {spot}.",
)  # fmt: skip
PHRASES["lovely"] = ("better than any dream in {month}", "worth every minute of that {hour}", "the best thing in the {look} {building}",
                     "as lovely as {a_smell}")  # fmt: skip
PHRASES["a_smell"] = ("the smell of {smell}", "a {weather} {hour}", "{weather} {weekday}s in {month}")
THANKS = (
    "\"Thank you, dear {J}!\" said {N}, {glad} and {glad}, and took the {T} in both {fur} paws.",
    "\"Thank you for the {R}, dear {J},\" said {N}. \"I have my {A} {T} at last!\"",
    "{N} had the {T} at last and gave the {J} {food}.",
    "now {N} had the {A} {T}, and the {J} was {glad} too.",
    "\"Now the {T} belongs to you, {N},\" said the {J} {softly}.",
    "{N} got the {A} {T}, and the {J} got {food} as thanks.",
)  # fmt: skip
JOY = (
    "{when}, {N} {used} the {T} {use_once}.",
    "{N} {used} the {A} {T} {spot} and then again {use_once}.",
    "the {building} smelled of {smell}, and {N} {used} the {T} {spot}.",
    "{often}, {N} {used} the {T} with {his} {kin}.",
    "{he} {used} it {use_once}, and {his} {kin} {habit}.",
    "{N} {used} the {T} {number} times before {weekday}.",
)
CLOSING = (
    "that night {N} and the {J} shared {food} and {food} {spot}.",
    "from that {weekday} on, {N} and the {J} {habit} together {often}.",
    "they shared {food} {spot} until the {sky} {shine}.",
    "when the {light} sun went down, {N} and the {J} walked home along the {look} {road}.",
    "that night {N} fell asleep {glad}, and the {sky} {shine} over the {look} {building}.",
    "ever after, {N} and the {J} were friends, and {often} they {habit}.",
    "and when the {sky} {shine}, {N} was the {grand} {K} in the {wood2}.",
    "to this day, {N} and the {J} share {food} {spot} {often}.",
    "{N} went home {glad}, had {food} and slept until {weekday} {daytime}.",
    "that {light} evening {N} {habit}, and everybody in the {look} {building} was {glad}.",
    "{N} slept well that night and dreamed of {smell}, {smell} and {smell}.",
)
OWNER = (
    "but the {A} {T} belonged to a {age} {J} who lived {home}.",
    "{when}, {N} saw the {T}, but it belonged to a {age} {J}.",
    "there was only one {A} {T} in the {look} {wood2}, and it belonged to a {age} {J}.",
    "the only {A} {T} {near} the {building} belonged to a {age} {J}.",
    "{N} saw the {T} {near} the {building}, but it belonged to a {age}, {age} {J}.",
    "a {age} {J} lived {near} the {building}, and the {A} {T} belonged to the {J}.",
    "but {N} learned {when} that the {T} belonged to a {age} {J}.",
)
REQUEST = (
    "\"May I please have the {T} for {food}, dear {J}?\" asked {N} {softly}.",
    "\"Please, dear {J}, will you give me the {A} {T}?\" asked {N}.",
    "{N} asked the {J} {softly} for the {T} and offered {food}.",
    "\"I will give you {food} for the {T}, dear {J},\" said {N}.",
    "\"Good {hour}, dear {J}. May I please have your {A} {T}?\" asked {N}.",
    "{when}, {N} went to the {J} and asked {softly} for the {A} {T}.",
)  # fmt: skip
REFUSE = (
    "the {J} looked at {bag} for {number} minutes. \"I must keep the {T}, {N}, because {why}.\"",
    "\"It is a {weather} {hour} to ask,\" said the {J}, \"but I must keep the {T}, because {why}.\"",
    "the {J} {habit} and thought {softly}, {age} as ever. \"I must keep the {A} {T}, {N}, because {why}.\"",
    "\"I am sorry, {N},\" said the {J} and put down {bag}. \"I must keep the {T}, because {why}.\"",
    "\"No, not even for {food}. I cannot give away the {T},\" said the {J} {softly}. \"You see, {why}.\"",
    "\"I cannot give you the {T}, {N}, not even for {food},\" said the {J}. \"You see, {why}.\"",
    "\"Dear {N}, even on a {weather} {hour} I must keep the {T},\" said the {J} {softly}. \"It is because {why}.\"",
    "\"I am sorry, but I cannot give it away,\" said the {J}. \"You see, {why}.\"",
)  # fmt: skip
PHRASES["why"] = (
    "my {kin} gave it to me one {weather} {weekday}", "I promised it to my {kin} {when}", "my {kin} needs it {use_when}",
    "I {use} it {use_when} with my {kin}", "it makes my {kin} {glad} {use_when}", "it is a gift for my {nature} {kin}",
    "my {kin} made it for me in {month}",
)  # fmt: skip
ACCEPT = (
    "{N} felt {sad} for {number} minutes, but then {he} understood.",
    "{his} {part} {droop}, but {N} nodded {softly}.",
    "\"Then you must keep it,\" said {N} {sadly}, {sad} but {good}.",
    "{N} looked at the {A} {T} once more and nodded {softly}.",
    "\"I understand,\" said {N}, and {his} {fur} {part} {droop}.",
)  # fmt: skip
CONSOLE = (
    "\"But sit with me {spot}, and we will share {food},\" said the {J}.",
    "the {J} gave {N} {food} instead, and they sat {spot}.",
    "\"Come on {weekday}, {N}, and I will {use} it for you {spot},\" said the {J}.",
    "then the {J} {used} the {T} {spot}, and {N} watched.",
    "\"You may come every {weekday} and help me {use} it {spot},\" said the {J} {softly}.",
)  # fmt: skip
REFUSED = (
    "{N} did not get the {A} {T}, but {he} was happy to have {food} and a {age} friend.",
    "so {N} went home {sadly} without the {T}, but with {food} and a {heart} heart.",
    "the {A} {T} stayed {spot} with the {J}, and {N} was {glad} and {glad} all the same.",
    "so the {T} stayed {near} the {building} with the {J}, but {N} had {food} and a {age} friend.",
    "{N} had to live without the {A} {T}, but not without {food} or a {age} friend.",
)


@dataclass
class Story:
    """A finished story: its text, the skeleton of each sentence, and the facts it was made from."""

    text: str
    skeletons: list[str]
    facts: dict[str, str] = field(default_factory=dict)


class Teller:
    """Tells story after story; remembers the word sequences it has used, to use others next time."""

    def __init__(self, seed: int = SEED, span: int = 8, tries: int = 100):
        self.random = random.Random(seed)
        self.span, self.tries = span, tries
        self.used: set[tuple[str, ...]] = set()

    def pick(self, options):
        """One of `options`; only random() is used, which every Python version draws alike."""
        return options[int(self.random.random() * len(options))]

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def phrase(self, template: str, facts: dict[str, str]) -> str:
        """The skeleton of a template: alternatives chosen, PHRASES opened, slots of facts and WORDS left."""
        while True:
            chosen = re.sub(r"\[([^\[\]]*)\]", lambda m: self.pick(m[1].split("|")), template)
            chosen = re.sub(
                r"\{(\w+)\}", lambda m: self.pick(PHRASES[m[1]]) if m[1] in PHRASES else m[0], chosen
            )
            if chosen == template:
                return re.sub(r" {2,}", " ", chosen)
            template = chosen

    def fill(self, skeleton: str, facts: dict[str, str], said: set[str]) -> tuple[str, set[str]]:
        """The sentence of a skeleton, and its fillers: none twice in a story while there are others."""
        new: set[str] = set()

        def filler(match: re.Match) -> str:
            slot = match[1]
            if slot in facts:
                return facts[slot]
            word = ""
            for _ in range(8):
                word = self.pick(WORDS[slot])
                if word not in said and word not in new:
                    break
            new.add(word)
            return word

        return tidy(re.sub(r"\{(\w+)\}", filler, skeleton)), new

    def sentence(
        self, templates, facts: dict[str, str], before: list[str], said: set[str]
    ) -> tuple[str, str]:
        """A sentence (and its skeleton) whose word sequences are new, counted from the words `before` on."""
        best = None
        for _ in range(self.tries):
            skeleton = self.phrase(self.pick(templates), facts)
            text, fillers = self.fill(skeleton, facts, said)
            after = before[-(self.span - 1) :] + words(text)
            stale = sum(gram in self.used for gram in grams(after, self.span))
            if best is None or stale < best[0]:
                best = stale, text, skeleton, fillers, after
            if not stale:
                break
        _, text, skeleton, fillers, after = best
        said |= fillers
        self.used.update(grams(after, self.span))
        before[:] = after
        return text, skeleton

    def facts(self) -> dict[str, str]:
        """Who, what and how: everything that must stay the same through a story."""
        he = self.pick(("he", "she"))
        hero = self.pick(NAMES[he])
        kind = CAST[he][hero]
        thing = self.pick(tuple(KIND_OF_THING))
        group = KIND_OF_THING[thing]
        adjective = self.pick(ADJECTIVES["food" if group == "food" else "thing"])
        use, used = USES[thing]
        facts = dict(N=hero, K=kind, T=thing, A=adjective, use=use, used=used)
        facts |= dict(zip(("he", "him", "his"), PRONOUNS[he]))
        facts |= {slot: self.pick(WORDS[slot]) for slot in SETTING}
        facts["season"] = next(season for season, months in SEASONS.items() if facts["month"] in months)
        if self.chance(0.17):
            return facts | dict(J=OWNERS[thing], obstacle="owner", ending="refused")
        if group == "food":
            options = FOOD_OBSTACLES
        else:
            options = [o for o in OBSTACLES if o != ("broken" if group == "soft" else "torn")]
        obstacle = self.pick(tuple(options))
        tool = next(
            iter(OBSTACLES[obstacle]["tools"])
        )  # the helper's own; the checker knows the other remedies too
        return facts | dict(
            J=HELPERS[obstacle],
            obstacle=obstacle,
            R=tool,
            ending="met",
            alone="yes" if self.chance(0.2) else "",
        )

    def plan(self, facts: dict[str, str]) -> list[list[tuple[str, ...]]]:
        """Paragraphs of sentences to tell, each as the templates to choose from."""
        more = self.pick(
            (DETAIL, REASON, FEEL, ASK, PLEA, JOY, *[None] * 8)
        )  # at most one sentence beyond the bones

        def extra(*templates):
            return [t for t in templates if t is more]

        first = [INTRO, *extra(DETAIL), WISH, REFRAIN, *extra(REASON)]
        if facts["ending"] == "refused":
            second = [
                OWNER,
                REFRAIN_HELP,
                REQUEST,
                REFUSE,
                *([ACCEPT] if more is FEEL else []),
                *([CONSOLE] if more in (ASK, PLEA) else []),
            ]
            return [first, second, [REFUSED, REFRAIN_NO, *([JOY_TOGETHER] if more is JOY else []), CLOSING]]
        song = [REFRAIN_END] * self.chance(0.4)
        obstacle = OBSTACLES[facts["obstacle"]]
        second = [FIND, obstacle["trouble"], *extra(FEEL)]
        if facts["alone"]:
            work = tuple(t for t in obstacle["work"] if "{J}" not in t and "they" not in t)
            closing = tuple(t for t in CLOSING if "{J}" not in t and "they" not in t)
            return [first, [*second, ALONE], [work, MET, *song, *extra(JOY), closing]]
        third = [obstacle["work"], self.pick((MET, THANKS)), *song, *extra(JOY), CLOSING]
        return [first, [*second, HELPER, *extra(ASK), PLEA, OFFER], third]

    def story(self) -> Story:
        """The next story."""
        facts = self.facts()
        chosen = dict(facts)
        if "R" in facts:
            tools = OBSTACLES[facts["obstacle"]]
            chosen["aR"] = tools["tools"][facts["R"]]
        before: list[str] = []
        said: set[str] = {facts["A"]}
        paragraphs, skeletons = [], []
        for templates in self.plan(facts):
            sentences = []
            for options in templates:
                if (
                    not sentences
                ):  # a name has a space before it everywhere, so that it is the same token everywhere
                    options = [t for t in options if not t.startswith("{N}")]
                opened = tuple(self.open(t, facts) for t in options)
                text, skeleton = self.sentence(opened, facts, before, said)
                sentences.append(text)
                skeletons.append(skeleton)
            paragraphs.append(" ".join(sentences))
        return Story("\n\n".join(paragraphs), skeletons, facts)

    def open(self, template: str, facts: dict[str, str]) -> str:
        """Put in the phrases that belong to this story's obstacle and tool."""
        if "R" not in facts:
            return template
        obstacle = OBSTACLES[facts["obstacle"]]
        template = template.replace("{where}", self.pick(obstacle["where"])).replace(
            "{plea}", self.pick(obstacle["plea"])
        )
        return template.replace("{aR}", obstacle["tools"][facts["R"]])


# The wish comes back as a refrain; in between stand slots, so that the words around it differ each time.
REFRAIN = (
    "{spot}, {he} sang {softly}, \"A {A} {T} for {N}, for {N}!\"",
    "{he} sang {softly} {spot}, \"A {A} {T} for {N}!\"",
    "{his} {nature} {kin} said {softly}, \"A {A} {T} for {N}, dear {N}!\"",
    "{often}, {he} sang {softly}, \"A {A} {T} for {N}!\"",
    "on a {plain} {seat} {spot}, {he} wrote, \"A {A} {T} for {N}!\"",
)  # fmt: skip
REFRAIN_HELP = (
    "\"A {A} {T} for {N}, dear {N}?\" asked the {J} {softly}.",
    "\"So, a {A} {T} for {N},\" said the {J} and put down {bag}.",
    "\"A {A} {T} for {N},\" said the {J} {softly}. \"Let me think for {number} minutes.\"",
    "\"Yes, a {A} {T} for {N},\" said the {J}, {age} as ever.",
)  # fmt: skip
REFRAIN_END = (
    "{number} times {he} sang {spot}, \"A {A} {T} for {N}!\"",
    "{spot}, {he} sang {softly}, \"A {A} {T} for {N}, for {N}!\"",
    "{his} {nature} {kin} said {softly}, \"A {A} {T} for {N}, dear {N}!\"",
    "all along the {look} {road} {he} sang, \"A {A} {T} for {N}!\"",
    "from the {look} {building} came a {weather} song, \"A {A} {T} for {N}!\"",
)  # fmt: skip
REFRAIN_NO = (
    "on that {weather} {hour} there was no {A} {T} for {N}, but there was {food}.",
    "with {food} in {his} {fur} paws, {he} sang {softly}, \"No {A} {T} for {N}!\"",
    "{spot}, {he} sang {softly}, \"No {A} {T} for {N}, but {food}!\"",
    "{his} {nature} {kin} said {softly}, \"No {A} {T} for {N}, but a {age} friend!\"",
)  # fmt: skip
JOY_TOGETHER = (
    "{often}, the {J} {used} the {T}, and {N} {habit}.",
    "the {J} {used} the {A} {T} {spot}, and {N} was {glad}.",
    "{N} {habit} for the {J} and heard about {hobby}.",
)


def tidy(text: str) -> str:
    """Capital letters where sentences begin, and `an` before a vowel's sound."""
    text = with_articles(text)
    return re.sub(r'(^"?|[.!?] "?)([a-z])', lambda m: m[1] + m[2].upper(), text)


def words(text: str) -> list[str]:
    """The lowercased words of a text; punctuation and line ends do not count."""
    return re.findall(r"[a-z']+", text.lower())


def grams(sequence: list[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words."""
    return [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]


def stories(count: int = COUNT, seed: int = SEED) -> Iterator[Story]:
    """`count` stories; the same ones for the same seed on every Python version."""
    teller = Teller(seed)
    for _ in range(count):
        yield teller.story()


def repeated(texts: list[str], n: int = 8) -> float:
    """Share of n-word positions (inside a text) whose lowercased word sequence also stands elsewhere in the texts."""
    counts: dict[tuple[str, ...], int] = {}
    for text in texts:
        for gram in grams(words(text), n):
            counts[gram] = counts.get(gram, 0) + 1
    positions = sum(counts.values())
    return sum(c for c in counts.values() if c > 1) / positions if positions else 0.0


def make(count: int = COUNT, seed: int = SEED) -> tuple[str, dict[str, str]]:
    """The text of datasets/stories.txt, and what was measured on it (see the functions that measure)."""
    told = list(stories(count, seed))
    texts = [story.text for story in told]
    lengths = sorted(len(words(text)) for text in texts)
    blocks = [told[i : i + 1000] for i in range(0, len(told), 1000)]
    skeletons = [
        len({s for story in block for s in story.skeletons}) for block in blocks if len(block) == 1000
    ]
    measured = {
        "stories": f"{count:,} (seed {seed})",
        "words": f"{sum(lengths):,}; {lengths[0]} to {lengths[-1]} a story, median {lengths[len(lengths) // 2]}",
        "word types": f"{len({word for text in texts for word in words(text)}):,}",
        "distinct sentence skeletons per 1,000 stories": ", ".join(f"{n:,}" for n in skeletons)
        or "fewer than 1,000 stories",
        "8-word sequences repeated": f"{repeated(texts, 8):.2%}",
        "12-word sequences repeated": f"{repeated(texts, 12):.2%}",
    }
    return "".join(f"{text}\n{SEPARATOR}\n" for text in texts), measured


def vocabulary() -> frozenset[str]:
    """Every lowercased word that the tables above can put into a story, names left out."""
    texts: list[str] = [*KINDS, *KIND_OF_THING, *SEASONS]
    tables = (INTRO, DETAIL, WISH, REASON, FIND, FEEL, HELPER, ASK, PLEA, OFFER, ALONE, MET, THANKS, JOY, CLOSING, OWNER,
              REQUEST, REFUSE, ACCEPT, CONSOLE, REFUSED, JOY_TOGETHER, REFRAIN, REFRAIN_HELP, REFRAIN_END, REFRAIN_NO)  # fmt: skip
    for table in (
        *tables,
        *WORDS.values(),
        *PHRASES.values(),
        *ADJECTIVES.values(),
        *USES.values(),
        *PRONOUNS.values(),
    ):
        texts += table
    for obstacle in OBSTACLES.values():
        texts += [
            *obstacle["where"],
            *obstacle["trouble"],
            *obstacle["plea"],
            *obstacle["tools"].values(),
            *obstacle["work"],
        ]
        texts += obstacle["tools"]
    texts += [f"{day}s" for day in WORDS["weekday"]]
    return frozenset(words(re.sub(r"\{\w+\}", " ", " . ".join(texts)))) | {"an"}
