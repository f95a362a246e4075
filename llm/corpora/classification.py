"""Two sets of short texts with their classes from a seeded generator: asking or telling, and five topics.

A text is one or two sentences, put together from wordings, their fillers, and openings and endings that every class shares,
so that no single word gives a class away. Half of the test rows use wordings that training never saw.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from llm import duplicates
from llm.corpora.draw import Draw

SEED = 13
SPLITS = {
    # rows of each class in each part
    "classification-two": {"train": 240, "validation": 30, "test": 80},
    "classification-five": {"train": 112, "validation": 16, "test": 32},
}
HELD = 4  # a quarter of the wordings of each class, those whose number leaves no rest, is for the test only
FARTHEST = 400  # rows that are thrown away in turn before the wordings count as used up

Row = dict[str, str]
Frames = dict[str, tuple[str, ...]]

NAMES = ("Mia", "Nora", "Clara", "Tilly", "Rosie", "Willa", "Pip", "Bruno", "Otto", "Hugo", "Felix", "Toby")
WHEN = ("on Monday", "on Tuesday", "on Wednesday", "on Friday", "on Saturday", "on Sunday", "in the morning", "at noon", "in the evening", "before supper",
        "after lunch", "at six", "at nine", "before the bell", "after the rain")  # fmt: skip

# --- asking or telling

DOINGS = tuple(
    tuple(part.strip() for part in doing.split("|"))
    for doing in (
        "bring|brought|the ladder, the lamp, a spoon, your drum, some wood", "close|closed|the gate, the window, the barn", "open|opened|the shop, the gate, the letter",
        "wash|washed|the cups, the windows, my coat", "sweep|swept|the floor, the step, the yard", "feed|fed|the hens, the cat, the ducks, the goat",
        "carry|carried|the basket, the boxes, the flour", "write|wrote|a letter to Nora, a list, a card for uncle Tom", "paint|painted|the fence, the boat, the door",
        "mend|mended|the kite, the roof, the old clock", "bake|baked|a cake, two loaves, a pie for the fair", "fetch|fetched|the rope, a bucket, the milk",
        "find|found|the key, my other glove, the map", "cut|cut|the bread, the grass, the ribbon", "hold|held|the rope, the horse, my hat",
        "read|read|the story, the letter, a book to Pip", "make|made|some tea, soup for six, a fire", "count|counted|the eggs, the sheep, the chairs",
        "pick|picked|the apples, some daisies, the pears", "water|watered|the beans, the roses", "sell|sold|the old cart, the eggs, three kites",
        "buy|bought|some bread, a stamp, milk and butter", "show|showed|us the garden, Mia the way, everybody the new boat", "tell|told|Otto the news, the twins a story",
        "wait|waited|at the mill, for the bus, by the bridge", "help|helped|Rosie, the farmer, my sister", "call|called|the doctor, your mother, the smith",
        "take|took|the early train, the dog home, the boxes away", "send|sent|a parcel, the photos, word to Clara", "sing|sang|at the party, the first song",
    )
)  # fmt: skip
# {v} does, {p} did, {o} what, {t} when, {n} who, {m} the reader, {k} somebody else. Both classes say I, you, please, can, could, would and ask back.
ASKING_OR_TELLING: Frames = {
    "asking": (
        "can you {v} {o} {t}?", "could you {v} {o} {t}, please?", "please {v} {o} {t}.", "would you {v} {o} {t}?",
        "{v} {o} {t}, will you?", "I need you to {v} {o} {t}.", "I would be glad if you {p} {o} {t}.", "do not forget to {v} {o} {t}.",
        "may I ask you to {v} {o} {t}?", "{v} {o} {t}.", "we wish you would {v} {o} {t}.", "who of you can {v} {o} {t} for me?",
        "I could not {v} {o}, so please do it {t}.", "it would be kind if you {p} {o} {t}.", "you must {v} {o} {t}, I cannot.", "I asked {n} to {v} {o}, but could you do it {t}?",
        "help me {v} {o} {t}.", "will somebody {v} {o} {t}?", "I want you and {n} to {v} {o} {t}.", "I cannot {v} {o} {t}, can {n}?",
    ),
    "telling": (
        "I can {v} {o} {t}.", "{n} said please, so I {p} {o} {t}.", "I {p} {o} {t}.", "would you believe it, {n} {p} {o} {t}!",
        "you {p} {o} {t}, and I was glad.", "we will {v} {o} {t}.", "{n} could not {v} {o} {t}.", "I did not forget to {v} {o} {t}.",
        "can you believe that {n} {p} {o} {t}?", "{n} asked me to {v} {o}, and I did it {t}.", "it was kind that you {p} {o} {t}.", "you need not {v} {o} {t}, {n} can do it.",
        "I wish I could {v} {o} {t}, but I am ill.", "{n} and I want to {v} {o} {t}.", "who would have thought that {n} would {v} {o}?", "{n} must {v} {o} {t}, not you.",
        "I would {v} {o} {t}, but {n} will do it.", "somebody {p} {o} {t}, it was {n}.", "{n} helped me {v} {o} {t}.", "could it be that {n} {p} {o} {t}? Yes, I saw it.",
    ),
}  # fmt: skip
OPENINGS = (
    "",
    "",
    "",
    "hello, ",
    "hello {m}, ",
    "dear {m}, ",
    "good morning, ",
    "by the way, ",
    "{m}, ",
    "so, ",
    "well, ",
)
# What stands before or after in both classes: nothing is asked in it.
BESIDE = (
    "", "", "", "it is cold today.", "thank you for the cake.", "{k} is here too.", "the roof is wet.", "I am at the mill.", "we had a long day.", "see you soon.", "all is well here.",
    "the bus was late again.", "you were right about the road.", "{k} will come {t2}.", "I hope you are well.", "my phone was off.", "greetings from {k}.",
)  # fmt: skip


def asking_or_telling(frame: str, draw: Draw) -> str:
    """A chat message: an opening, what is asked or told, and a sentence beside it."""
    verb, past, things = draw.pick(DOINGS)
    name, other, third = draw.sample(NAMES, 3)
    slots = {"v": verb, "p": past, "o": draw.pick(things.split(", ")), "n": name, "m": other, "k": third}
    slots |= {"t": draw.pick(WHEN), "t2": draw.pick(WHEN)}
    said = [frame, draw.pick(BESIDE)]
    if draw.chance(0.4):
        said.reverse()
    return written(draw.pick(OPENINGS) + " ".join(part for part in said if part), slots)


# --- five topics

TOPICS: Frames = {
    "weather": (
        "{n} looked up: {sky} over {place}, and then {fall}.", "{fall} fell on {place} {t}.", "it was {feel} {t}, with {sky}.", "there was {sky} all day, but no {fall}.",
        "after so much {fall} came {sky}.", "nobody had expected {fall} {t}.", "{sky} {t}, {feel} at night.", "it stayed {feel}, with {fall} over {place}.",
        "first {fall}, then {sky}: {n} wrote it down.", "they say that {fall} is on its way to {place}.", "{n} likes it {feel}, with a little {fall}.", "how {feel} it was {t}!",
    ),
    "food": (
        "{n} stirred {dish} and put {spice} into it.", "{dish} with {spice} stood on the table {t}.", "we had {dish}, and it tasted {taste}.", "there was {dish} for everybody, with {spice}.",
        "without {spice}, {dish} is not so {taste}.", "nobody had eaten {dish} as {taste} as that.", "{dish} {t}, {taste} and hot.", "{n} burned {dish}, so we ate {spice}.",
        "first {dish}, then {spice}: {n} was full.", "they say that {spice} makes {dish} {taste}.", "{n} likes it {taste}, with a little {spice}.", "how {taste} {dish} was {t}!",
    ),
    "animals": (
        "{n} saw {beast} with its young in {lair}.", "{beast} {move} across {place} {t}.", "it was {beast}, and it {move} away {t}.", "there were tracks of {beast}, but {n} saw only {beast2}.",
        "without a sound, {beast} {move} out of {lair}.", "nobody had seen {beast} there before.", "{beast} {t}, {beast2} at night.", "{n} kept still while {beast} {move} past.",
        "first {beast}, then {beast2}: {n} counted them.", "they say that {beast} sleeps in {lair}.", "{n} likes {beast} more than {beast2}.", "how fast {beast} {move} away {t}!",
    ),
    "travel": (
        "{n} packed {bag} and took {ride} to {far}.", "{ride} to {far} left {t}.", "we went by way of {far}, and {ride} was {late}.", "there was {ride} to {far}, but no seat for {n}.",
        "without {bag}, {n} got into {ride}.", "nobody had told us that {ride} goes no further than {far}.", "{ride} {t}, {far} at night.", "{n} lost {bag} on the way to {far}.",
        "first {ride}, then on foot: {n} came to {far}.", "they say that {ride} to {far} is {late}.", "{n} likes {far}, but not {ride}.", "how {late} {ride} was {t}!",
    ),
    "school": (
        "{n} wrote {task} and gave it to {who}.", "{who} handed back {task} {t}.", "we had {lesson}, and {who} was {mood}.", "there was {lesson} for everybody, and {task} too.",
        "without {task}, {n} sat in {lesson}.", "nobody had finished {task} in {lesson}.", "{lesson} {t}, {task} at night.", "{n} forgot {task}, and {who} was {mood}.",
        "first {lesson}, then {task}: {n} was tired.", "they say that {who} is {mood} in {lesson}.", "{n} likes {lesson}, but not {task}.", "how {mood} {who} was {t}!",
    ),
}  # fmt: skip
FILLERS = {
    # no content word stands under two topics
    "sky": "a grey sky, bright sunshine, a rainbow, thick mist, a clear blue sky, thunder, a storm, lightning, a pale sun, fog, a black cloud, haze",
    "fall": "rain, snow, hail, drizzle, sleet, frost, icy rain, wet snow, fine drizzle",
    "feel": "windy, freezing, mild, stormy, cloudy, sunny, humid, chilly, breezy, foggy, below zero, hot and dry",
    "dish": "the soup, a pie, the porridge, an omelette, a stew, a salad, a roast, the rice, a pudding, the sauce, an apple cake, the broth",
    "spice": "honey, salt, butter, pepper, jam, parsley, cream, cheese, cinnamon, garlic, sugar, lemon, mustard",
    "taste": "sweet, sour, salty, spicy, delicious, bitter, crisp, tender, creamy, fresh",
    "beast": "a fox, an owl, a hedgehog, an otter, a badger, a deer, a beaver, a frog, a swan, a squirrel, a heron, a lizard, a mole, a goose",
    "beast2": "a mouse, a crow, a toad, a bat, a robin, an ant, a spider, a snail, a bee, a hare, a trout, a moth",
    "move": "ran, crept, rushed, fled, slipped, hurried, moved, darted",
    "lair": "a den, the burrow, a hollow tree, the reeds, a thicket, the hedge, the undergrowth, a heap of leaves",
    "bag": "a suitcase, the tickets, a rucksack, the passport, the map, two trunks, a tent",
    "ride": "the train, a ferry, the night bus, a plane, the steamer, a coach, the express, a sailing ship",
    "far": "the coast, the capital, the border, the islands, Paris, the harbour, Rome, Lisbon, the far north, Vienna",
    "late": "late, full, cancelled, on time, slow, two hours late, empty, crowded",
    "task": "an essay, the sums, the homework, a spelling test, the exercise, a report, the poem, an exam, the drawing",
    "lesson": "maths, history, the reading lesson, geography, music class, science, grammar, art, the first lesson, chemistry",
    "who": "the teacher, the headmaster, the professor, the tutor, the new teacher, the librarian, our form teacher, the music master",
    "mood": "strict, patient, pleased, cross, absent, attentive, fair, noisy, curious",
    "place": "the hill, the village, the meadow, the river, the garden, the roofs, the road, the valley",
}  # fmt: skip
FILLERS = {slot: tuple(words.split(", ")) for slot, words in FILLERS.items()}
AROUND = (
    "", "", "", "{m} told me so.", "{m} was there too.", "I wrote it down {t2}.", "so it was {t2} as well.", "we talked about it {t2}.", "{m} laughed.", "that was all {t2}.",
    "nobody was surprised.", "it will be the same {t2}.",
)  # fmt: skip


def topic(frame: str, draw: Draw) -> str:
    """A sentence on one topic, and one that would fit any."""
    name, other = draw.sample(NAMES, 2)
    slots = {slot: draw.pick(words) for slot, words in FILLERS.items()}
    slots |= {"t": draw.pick(WHEN), "t2": draw.pick(WHEN), "n": name, "m": other}
    return written(f"{frame} {draw.pick(AROUND)}".strip(), slots)


def written(template: str, slots: dict[str, str]) -> str:
    """The slots filled (an opening and a sentence beside the frame have slots, too), a capital where a sentence begins."""
    text = template.format_map(slots)
    return re.sub(r"(^|[.!?] )([a-z])", lambda m: m[1] + m[2].upper(), text)


# --- the sets

SETS: dict[str, tuple[Frames, Callable[[str, Draw], str]]] = {
    "classification-two": (ASKING_OR_TELLING, asking_or_telling),
    "classification-five": (TOPICS, topic),
}


def rows(name: str, seed: int = SEED) -> list[Row]:
    """The rows of a set in a mixed order: every class as often as the others, no row nearly the same as another one."""
    frames, write = SETS[name]
    draw = Draw(seed)
    seen: list[frozenset[str]] = []
    found: list[Row] = []
    for split, count in SPLITS[name].items():
        for i in range(count):
            for label, wordings in frames.items():
                held = [frame for j, frame in enumerate(wordings) if j % HELD == HELD - 1]
                known = [frame for frame in wordings if frame not in held]
                options = held if split == "test" and i % 2 else known
                text = _new(lambda options=options: write(draw.pick(options), draw), seen)
                found.append({"text": text, "label": label, "split": split})
    return draw.shuffled(found)


def _new(write: Callable[[], str], seen: list[frozenset[str]]) -> str:
    """A text that is not nearly the same as one in `seen`, which it joins."""
    for _ in range(FARTHEST):
        text = write()
        pieces = duplicates.pieces(text)
        if all(duplicates.overlap(pieces, other) < duplicates.NEAR for other in seen):
            seen.append(pieces)
            return text
    raise ValueError("The wordings are used up: ask for fewer rows.")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|[?!]", text.lower())


def single_word(found: Sequence[Row]) -> tuple[str, float]:
    """The word (or mark) by which most rows are told right: one class where it stands, one where it does not."""
    total = Counter(row["label"] for row in found)
    having: dict[str, Counter[str]] = {}
    for row in found:
        for word in set(words(row["text"])):
            having.setdefault(word, Counter())[row["label"]] += 1

    def right(word: str) -> int:
        return max(having[word].values()) + max((total - having[word]).values(), default=0)

    best = max(sorted(having), key=right)
    return best, right(best) / len(found)


def bag_of_words(train: Sequence[Row], test: Sequence[Row]) -> float:
    """Accuracy on `test` of naive Bayes over the words of `train` (add-one smoothing), which knows nothing of their order."""
    counts: dict[str, Counter[str]] = {}
    prior = Counter(row["label"] for row in train)
    for row in train:
        counts.setdefault(row["label"], Counter()).update(words(row["text"]))
    kinds = len({word for counter in counts.values() for word in counter})

    def score(label: str, text: str) -> float:
        total = sum(counts[label].values()) + kinds
        return math.log(prior[label]) + sum(
            math.log((counts[label][word] + 1) / total) for word in words(text)
        )

    right = sum(
        max(sorted(counts), key=lambda label: score(label, row["text"])) == row["label"] for row in test
    )
    return right / len(test)


def measure(name: str, found: Sequence[Row], seed: int) -> dict[str, str]:
    """What the card says of a set."""
    parts = {split: [row for row in found if row["split"] == split] for split in SPLITS[name]}
    classes = list(SETS[name][0])
    sets = {split: [duplicates.pieces(row["text"]) for row in part] for split, part in parts.items()}
    nearest = max(duplicates.overlap(a, b) for a in sets["test"] + sets["validation"] for b in sets["train"])
    lengths = {
        label: [len(row["text"].split()) for row in found if row["label"] == label] for label in classes
    }
    word, share = single_word(found)
    return {
        "rows": f"{len(found):,} (seed {seed}): " + ", ".join(f"{len(part)} {split}" for split, part in parts.items()),
        "classes": f"{', '.join(classes)}: every one {len(found) // len(classes)} times, in the same share of each part",
        "wordings": ", ".join(f"{len(frames)} {label}" for label, frames in SETS[name][0].items()) + f"; every {HELD}th only in half of the test rows",
        "words a text, by class": ", ".join(f"{label} {sum(n) / len(n):.1f}" for label, n in lengths.items()),
        "word types": f"{len({word for row in found for word in words(row['text'])}):,}",
        "best rule by a single word": f"{share:.1%} right ({word!r}); guessing: {1 / len(classes):.0%}",
        "naive Bayes over the words, test rows": f"{bag_of_words(parts['train'], parts['test']):.1%} right",
        "held-out row most similar to one for training": f"{nearest:.2f} (near duplicates begin at {duplicates.NEAR})",
    }  # fmt: skip


def make(seed: int = SEED) -> dict[str, tuple[str, dict[str, str]]]:
    """The text of the two CSV files, and what was measured on each."""
    made = {}
    for name in SETS:
        found = rows(name, seed)
        out = io.StringIO()
        writer = csv.DictWriter(out, ("text", "label", "split"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        made[name] = out.getvalue(), measure(name, found, seed)
    return made
