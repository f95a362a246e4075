"""Preferences from a seeded generator: how a story begins, and two endings, of which one is kinder, more fitting, or finished.

The stories are new ones of the grammar in stories.py. Both endings of a row are nearly equally long, and most words of the one
stand in the other too, or as often in the preferred endings of other rows.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from llm import duplicates
from llm.corpora import stories, story_check
from llm.corpora.draw import Draw

SEED = 24
SPLITS = {"train": 240, "validation": 20, "test": 40}  # rows of each reason
LONGEST = (
    150  # words of a prompt with an ending: with 256 tokens of context, room is left for a chat template
)

TRIES = 4  # sentences among which the teller takes one with new word sequences: the shipped stories have more

Row = dict[str, str]

# Kind and rude, made of nearly the same words. The slots are those of the stories.
MANNERS = (
    ('"It is yours as well, dear {J}," said {N}.', '"It is not yours, you old {J}," said {N}.'),
    ("{N} gave many thanks and took {food} to the {J}.", "{N} gave few thanks and took {food} from the {J}."),
    ('"Do not go away, {J}," said {N}. "I like you."', '"Go away, {J}," said {N}. "I do not like you."'),
    ('the {J} asked to see the {T}, and {N} said, "Yes, you first!"', 'the {J} asked to see the {T}, but {N} said, "Later, not you!"'),
    ("{N} ate {food} {spot} and laughed with the {J}.", "{N} ate {food} {spot} and laughed at the {J}."),
    ("that night {N} opened the door and let the {J} in.", "that night {N} slammed the door and let the {J} wait."),
    ('{N} took the {R} back to the {J} and said, "That was a great help."', '{N} threw the {R} back at the {J} and said, "That was hardly a help."'),
    ('"Without you I would be sad," {he} told the {J}.', '"Without you I would be glad," {he} told the {J}.'),
    ("{N} let the {J} {use} it first.", "{N} never let the {J} {use} it."),
    ('"You were clever and kind," said {N} to the {J}.', '"You were clumsy and slow," said {N} to the {J}.'),
    ("{N} waited for the {J}, and they went home together.", "{N} ran from the {J} and went home without thanks."),
    ('"Next time I will surely help you," said {N}.', '"Next time I will never help you," said {N}.'),
    ("the {J} was tired, so {N} carried {bag}.", "the {J} was tired, but {N} dropped {bag}."),
    ("{N} sang a song for the {J} {spot}.", "{N} made much fun of the {J} {spot}."),
)  # fmt: skip


def told(teller: stories.Teller) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(beginning, ending, facts) of stories in which somebody helps; the beginning goes as far as the offer of help."""
    while True:
        story = teller.story()
        if story.facts["ending"] != "met" or story.facts["alone"]:
            continue
        first, second, ending = story.text.split("\n\n")
        sentences = [sentence.text for sentence in story_check.sentences(first)]
        wish = next(
            (i for i, said in enumerate(sentences) if re.search(rf"\ban? {story.facts['A']}\b", said)), 0
        )
        beginning = f"{' '.join(sentences[: wish + 1])}\n\n{second}"
        if wish and len(f"{beginning} {ending}".split()) <= LONGEST:
            yield beginning, ending, story.facts


def filled(template: str, facts: dict[str, str], teller: stories.Teller, slots: dict[str, str]) -> str:
    """A sentence: the alternatives of the template chosen by the teller, then the slots filled."""
    return stories.tidy(re.sub(r"\{(\w+)\}", lambda m: (slots | facts)[m[1]], teller.phrase(template, facts)))


def fillers(draw: Draw) -> dict[str, str]:
    return {slot: draw.pick(words) for slot, words in stories.WORDS.items()}


def kinder(teller: stories.Teller, draw: Draw, count: int) -> list[Row]:
    """After the help: thanks and friendship, or not. Three sentences, each the kind or the rude one of a pair."""
    found = []
    for (beginning, ending, facts), _ in zip(told(teller), range(count)):
        work = story_check.sentences(ending)[0].text
        kind_is_longer = draw.chance(0.5)
        while True:
            pairs = [(pair, fillers(draw)) for pair in draw.sample(MANNERS, 3)]
            kind, rude = (
                " ".join([work, *(filled(pair[side], facts, teller, slots) for pair, slots in pairs)])
                for side in (0, 1)
            )
            if len(kind) != len(rude) and (len(kind) > len(rude)) == kind_is_longer:
                break
        found.append(_row(beginning, kind, rude, "kinder"))
    return found


def fitting(teller: stories.Teller, draw: Draw, count: int) -> list[Row]:
    """The ending of this story, or of another one: two by two the rows have each other's ending."""
    known = sorted(
        (next(told(teller)) for _ in range(2 * count)), key=lambda found: (len(found[1].split()), found)
    )
    found: list[Row] = []
    while len(found) < count:
        beginning, ending, facts = known.pop(0)
        i = next(
            i
            for i, (_, _, other) in enumerate(known)
            if all(other[slot] != facts[slot] for slot in ("N", "T", "J"))
        )
        other_beginning, other_ending, _ = known.pop(i)
        found.append(_row(beginning, ending, other_ending, "more fitting"))
        found.append(_row(other_beginning, other_ending, ending, "more fitting"))
    return found


def finished(teller: stories.Teller, draw: Draw, count: int) -> list[Row]:
    """A whole ending, or a slower one that breaks off where the other one is at its end."""
    found = []
    while len(found) < count:
        beginning, ending, facts = next(told(teller))
        first, *rest = [sentence.text for sentence in story_check.sentences(ending)]
        more = filled(draw.pick(stories.JOY), facts, teller, fillers(draw))
        words = f"{first} {' '.join([*rest[:-1], more, rest[-1]])}".split(" ")
        # in the middle of a sentence, as often a little before as after the length of the whole one
        broken = [
            " ".join(words[:cut])
            for cut in range(8, len(words))
            if not re.search(r'[.!?,]"?$', words[cut - 1])
        ]
        before = [text for text in broken if len(text) < len(ending)]
        after = broken[len(before) :]
        if len(after) > 1:
            found.append(_row(beginning, ending, before[-1] if draw.chance(0.5) else after[0], "finished"))
    return found


def _row(prompt: str, chosen: str, rejected: str, why: str) -> Row:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "why": why}


REASONS = {"kinder": kinder, "more fitting": fitting, "finished": finished}


def rows(seed: int = SEED) -> list[Row]:
    """All rows in a mixed order: every reason as often as the others in each part, and every prompt another story."""
    teller, draw = stories.Teller(seed, tries=TRIES), Draw(seed)
    found = []
    for split, count in SPLITS.items():
        for make_rows in REASONS.values():
            found += [row | {"split": split} for row in make_rows(teller, draw, count)]
    return draw.shuffled(found)


def longer(found: Sequence[Row]) -> float:
    """How often the chosen answer has more characters than the other one; equal ones count half."""
    return sum((len(r["chosen"]) > len(r["rejected"])) + (len(r["chosen"]) == len(r["rejected"])) / 2 for r in found) / len(found)  # fmt: skip


def single_word(found: Sequence[Row]) -> tuple[str, float]:
    """The word by which most pairs are told right (chosen is the one that has it, or has it not) and the share, undecided
    pairs counted half."""
    score: Counter[str] = Counter()
    for row in found:
        chosen, rejected = set(stories.words(row["chosen"])), set(stories.words(row["rejected"]))
        score.update(chosen - rejected)
        score.subtract(rejected - chosen)
    best = max(sorted(score), key=lambda word: abs(score[word]))
    return best, 0.5 + abs(score[best]) / 2 / len(found)


def make(seed: int = SEED) -> dict[str, tuple[str, dict[str, str]]]:
    """The text of datasets/preferences.jsonl, and what was measured on it."""
    found = rows(seed)
    counts = Counter(row["split"] for row in found)
    train = [duplicates.pieces(row["prompt"]) for row in found if row["split"] == "train"]
    tested = [duplicates.pieces(row["prompt"]) for row in found if row["split"] != "train"]
    nearest = max(duplicates.overlap(a, b) for a in tested for b in train)
    n = {side: sum(len(row[side].split()) for row in found) / len(found) for side in ("prompt", "chosen", "rejected")}  # fmt: skip
    word, share = single_word(found)
    measured = {
        "rows": f"{len(found):,} (seed {seed}): " + ", ".join(f"{counts[name]:,} {name}" for name in SPLITS),
        "reasons": ", ".join(f"{sum(row['why'] == why for row in found)} {why}" for why in REASONS),
        "words": f"prompt {n['prompt']:.1f}, chosen {n['chosen']:.1f}, rejected {n['rejected']:.1f} in the mean",
        "the longer answer is the chosen one": f"{longer(found):.1%} of the pairs (equal ones half): "
        + ", ".join(f"{longer([row for row in found if row['why'] == why]):.1%} {why}" for why in REASONS),
        "best rule by a single word": f"{share:.1%} right ({word!r}); guessing: 50%",
        "held-out prompt most similar to one for training": f"{nearest:.2f} (near duplicates begin at {duplicates.NEAR})",
    }
    return {"preferences": ("".join(json.dumps(row) + "\n" for row in found), measured)}
