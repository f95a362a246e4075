"""The task families of the shipped instructions: how each asks, what it asks about, and the answer by rule or table.

A wording is an instruction with `{slots}`; what follows ` | ` goes into the row's input. A family gives its questions:
each has the fillers of the slots, the wordings that fit it, and its only answer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llm.corpora import lexicon as known
from llm.corpora import stories, verse
from llm.corpora.articles import article
from llm.corpora.draw import Draw


@dataclass(frozen=True)
class Question:
    """What can be asked in several wordings and has one answer."""

    slots: dict[str, str]
    output: str
    wordings: tuple[str, ...]

    def rows(self) -> list[dict[str, str]]:
        """The question in each of its wordings."""
        found = []
        for wording in self.wordings:
            wording = re.sub(r"\ba \{(\w+)\}", lambda m: with_article(self.slots[m[1]]), wording)
            instruction, _, given = wording.partition(" | ")
            instruction = instruction.format_map(self.slots)
            instruction = instruction[0].upper() + instruction[1:]
            found.append(
                {"instruction": instruction, "input": given.format_map(self.slots), "output": self.output}
            )
        return found


def with_article(noun: str) -> str:
    return f"{article(noun)} {noun}"


def sentence(text: str, mark: str = ".") -> str:
    """A capital letter at the start, a mark at the end."""
    return text[0].upper() + text[1:] + mark


# --- words


def opposites(draw: Draw) -> Iterator[Question]:
    wordings = (
        "What is the opposite of {x}?", "Give the opposite of {x}.", "Which word means the opposite of {x}?", "Name the opposite of {x}.",
        "Say the opposite of the word {x}.", "What is the opposite of this word? | {x}", "Find a word that means the opposite. | {x}",
        "Not {x} but the opposite of it: which word?", "Turn the word {x} into its opposite.",
    )  # fmt: skip
    for a, b in known.OPPOSITES.items():
        yield Question({"x": a}, b, wordings)
        yield Question({"x": b}, a, wordings)


def regular_plural(noun: str) -> str:
    return noun + "s"


def plurals(draw: Draw) -> Iterator[Question]:
    wordings = (
        "What is the plural of {x}?", "Give the plural of {x}.", "Write the plural of the word {x}.", "One {x}, two what?",
        "How do you say more than one {x}?", "Make this word plural. | {x}", "Here is one thing. Write the word for many. | {x}",
        "There is one {x}. Now there are many. Many what?",
    )  # fmt: skip
    for noun in known.REGULAR_NOUNS:
        yield Question({"x": noun}, regular_plural(noun), wordings)
    for noun, plural in known.PLURALS.items():
        yield Question({"x": noun}, plural, wordings)


def regular_past(verb: str) -> str:
    """The past of a regular verb of the table: love loved, cry cried, stop stopped, jump jumped."""
    if verb.endswith("e"):
        return verb + "d"
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):
        return verb + verb[-1] + "ed"
    return verb + "ed"


def past_tense(draw: Draw) -> Iterator[Question]:
    wordings = (
        "What is the past tense of {x}?", "Give the past tense of {x}.", "Put the verb {x} in the past.", "Today I {x}. What did I do yesterday? Say the verb.",
        "Write this verb in the past tense. | {x}", "Which form of {x} tells of yesterday?", "Change this verb to the past. | {x}",
        "Name the past form of the verb {x}.",
    )  # fmt: skip
    for verb in known.REGULAR_VERBS:
        yield Question({"x": verb}, regular_past(verb), wordings)
    for verb, past in known.PAST.items():
        yield Question({"x": verb}, past, wordings)


def comparatives(draw: Draw) -> Iterator[Question]:
    wordings = (
        "What is the comparative of {x}?", "Give the form of {x} that compares two things.", "This one is {x}. That one is even more so. What is that one?",
        "Write the comparative of this word. | {x}", "Complete: {x}, and then what with more of it?",
    )  # fmt: skip
    for word, more in known.COMPARATIVES.items():
        yield Question({"x": word}, more, wordings)


def misspelled(word: str) -> list[str]:
    """Slips of the pen: two letters swapped, one left out, one doubled; the first letter stays."""
    found = []
    for i in range(1, len(word) - 1):
        found.append(word[:i] + word[i + 1] + word[i] + word[i + 2 :])
        found.append(word[:i] + word[i + 1 :])
        if word[i] in "lmnprst":
            found.append(word[: i + 1] + word[i:])
    return sorted(set(found) - {word})


def spelling(draw: Draw) -> Iterator[Question]:
    wordings = (
        "Correct the spelling. | {x}", "This word is spelled wrong. Write it right. | {x}", "Spell this word the right way: {x}",
        "How is the word {x} really spelled?", "Mend the spelling of {x}.", "There is a mistake in the word {x}. Write the word without it.",
        "Which word was meant by {x}?",
    )  # fmt: skip
    words = sorted(set(known.SPELLED))
    meant: dict[str, set[str]] = {}
    for word in words:
        for slip in misspelled(word):
            meant.setdefault(slip, set()).add(word)
    real = stories.vocabulary() | {word.lower() for word in words} | set(known.PAST.values())
    for word in words:
        slips = [slip for slip in misspelled(word) if len(meant[slip]) == 1 and slip.lower() not in real]
        for slip in draw.sample(slips, 5):
            yield Question({"x": slip}, word, wordings)


def rhymes(draw: Draw) -> Iterator[Question]:
    wordings = (
        "Which word rhymes with {x}: {a} or {b}?", "Does {x} rhyme with {a} or with {b}?", "Choose the word that rhymes with {x}: {a}, {b}.",
        "Pick the rhyme for {x}. | {a}, {b}", "One of these words rhymes with {x}. Which one? | {a}, {b}",
    )  # fmt: skip
    for _ in range(400):
        group = draw.pick(verse.RHYMES)
        word, rhyme = draw.sample(group, 2)
        other = draw.pick(draw.pick([g for g in verse.RHYMES if g is not group]))
        a, b = draw.shuffled((rhyme, other))
        yield Question({"x": word, "a": a, "b": b}, rhyme, wordings)


def categories(draw: Draw) -> Iterator[Question]:
    group_of = {word: group for group, words in known.CATEGORIES.items() for word in words}
    wordings = (
        "To which group does the word {x} belong?", "Put this word into its group. | {x}", "Which group fits the word {x}: {a} or {b}?",
        "Does {x} belong to {a} or to {b}?", "What kind of word is {x}? Name the group.", "In a list of groups, where would you look for {x}?",
    )  # fmt: skip
    for word, group in group_of.items():
        other = draw.pick([g for g in known.CATEGORIES if g != group])
        a, b = draw.shuffled((group, other))
        yield Question({"x": word, "a": a, "b": b}, group, wordings)


# --- facts, numbers, order


def facts(draw: Draw) -> Iterator[Question]:
    for wordings, answers in known.FACTS.values():
        for x, answer in answers.items():
            yield Question({"x": x}, answer, wordings)


def arithmetic(draw: Draw) -> Iterator[Question]:
    plus = (
        "What is {a} plus {b}?", "Add {a} and {b}.", "How much is {a} and {b} together?", "What do {a} and {b} make?", "Work out the sum. | {a} plus {b}",
        "You have {a} of them and find {b} more. How many are there now?", "Count on from {a} by {b}.",
    )  # fmt: skip
    minus = (
        "What is {a} minus {b}?", "Take {b} away from {a}.", "How much is left of {a} after {b} are gone?", "Subtract {b} from {a}.",
        "Work out what is left. | {a} minus {b}", "You have {a} of them and lose {b}. How many are left?", "Count back from {a} by {b}.",
    )  # fmt: skip
    double = ("What is twice {a}?", "Double the number {a}.", "What do you get for two times {a}?")
    for a, b in itertools.combinations_with_replacement(range(1, 11), 2):
        if a + b > 12:
            continue
        small, large = known.NUMBERS[a], known.NUMBERS[b]
        first, second = draw.shuffled(
            (small, large)
        )  # one order only, so that no test row is a sum turned round
        yield Question({"a": first, "b": second}, known.NUMBERS[a + b], plus)
        yield Question({"a": large, "b": small}, known.NUMBERS[b - a], minus)
    for a in range(1, 7):
        yield Question({"a": known.NUMBERS[a]}, known.NUMBERS[2 * a], double)


def order(draw: Draw) -> Iterator[Question]:
    wordings = (
        "Which {kind} comes right {side} {x}?", "What {kind} is right {side} {x}?", "Name the {kind} {side} {x}.", "Tell me the {kind} that comes {side} {x}.",
        "The {kind} {side} {x} is which one?", "Give the {kind} just {side} this one. | {x}",
    )  # fmt: skip
    circles = {"day": known.DAYS, "month": known.MONTHS, "season": known.SEASONS}
    for kind, names in (circles | {"number": known.NUMBERS[1:13]}).items():
        for first, second in zip(names, [*names[1:], *(names[:1] if kind in circles else [])]):
            yield Question({"kind": kind, "side": "after", "x": first}, second, wordings)
            yield Question({"kind": kind, "side": "before", "x": second}, first, wordings)


def sorting(draw: Draw) -> Iterator[Question]:
    alphabet = (
        "Put these words in the order of the alphabet. | {words}", "Sort the words by the alphabet. | {words}", "Order these words from a to z. | {words}",
        "Sort by the alphabet: {words}.", "From a to z, what is the order of {words}?", "Which order of these words does a dictionary have? | {words}",
    )  # fmt: skip
    upward = (
        "Sort these numbers from small to large. | {words}", "Put the numbers in order, the smallest first. | {words}", "Order from low to high: {words}.", "Which of {words} is smallest, next and largest?",
        "Begin with the smallest number. | {words}",
    )  # fmt: skip
    downward = (
        "Sort these numbers from large to small. | {words}", "Put the numbers in order, the largest first. | {words}", "Order from high to low: {words}.", "Which of {words} is largest, next and smallest?",
        "Begin with the largest number. | {words}",
    )  # fmt: skip
    days = ("Put these days in the order of the week, Monday first. | {words}", "Sort the days as the week has them: {words}.",
            "Which of these days comes first, next and last in the week? | {words}")  # fmt: skip
    for i in range(280):
        if i % 2:
            given = draw.sample(known.REGULAR_NOUNS[:24], 3)
            ways = ((alphabet, sorted(given)),)
        elif i % 8:
            given = draw.sample(known.NUMBERS[1:13], 3)
            upwards = sorted(given, key=known.NUMBERS.index)
            ways = ((upward, upwards), (downward, upwards[::-1]))
        else:
            given = draw.sample(known.DAYS, 3)
            ways = ((days, sorted(given, key=known.DAYS.index)),)
        wordings, ordered = draw.pick(ways)
        if ordered != given:
            yield Question({"words": ", ".join(given)}, ", ".join(ordered), wordings)


NUMBER_OF_LETTERS = (
    "How many letters are in the word {x}?", "Count the letters of {x}.", "How long is the word {x}, in letters?", "Count the letters. | {x}",
    "Say how many letters the word {x} has.",
)  # fmt: skip
NUMBER_OF_WORDS = (
    "How many words are in this sentence? | {s}", "Count the words. | {s}", "Count the words of this: {s}", "Say how many words this sentence has. | {s}",
    "How many words do you read here: {s}",
)  # fmt: skip


def counting(draw: Draw) -> Iterator[Question]:
    for word in known.REGULAR_NOUNS[:40]:
        yield Question({"x": word}, known.NUMBERS[len(word)], NUMBER_OF_LETTERS)
    for _ in range(130):
        said = statement(draw)
        yield Question({"s": said}, known.NUMBERS[len(said.split())], NUMBER_OF_WORDS)


# --- sentences


def statement(draw: Draw) -> str:
    """A plain sentence of three to nine words."""
    if draw.chance(0.4):
        return sentence(" is ".join(described(draw)))
    verb, third, past, rest = draw.pick(known.DOINGS)
    time = f" {draw.pick(known.TIMES)}" if draw.chance(0.4) else ""
    if draw.chance(0.5):
        return sentence(f"{draw.pick(known.SINGLE)} {draw.pick((third, past))} {rest}{time}")
    return sentence(f"{draw.pick(known.MANY)} {draw.pick((verb, past))} {rest}{time}")


def described(draw: Draw) -> tuple[str, str]:
    """A thing and how or where it is; only what can be moved is on tables and under trees."""
    if draw.chance(0.4):
        return draw.pick(known.LANDMARKS), draw.pick(known.STATES)
    return draw.pick(known.MOVABLE), draw.pick(known.STATES + known.PLACES)


def last_word(draw: Draw) -> Iterator[Question]:
    wordings = (
        "What is the last word of this sentence? | {s}", "Copy the last word. | {s}", "With which word does this sentence end? | {s}",
        "Write down only the word at the end: {s}",
    )  # fmt: skip
    for _ in range(150):
        said = statement(draw)
        yield Question({"s": said}, re.findall(r"\w+", said)[-1], wordings)


def grammar(draw: Draw) -> Iterator[Question]:
    wordings = (
        "Correct the grammar. | {s}", "Correct this sentence. | {s}", "There is one mistake in this sentence. Write it right. | {s}",
        "Make this sentence good English. | {s}", "Write the sentence without its mistake: {s}", "Say this the right way: {s}", "What should this sentence be: {s}", "Repeat this without the mistake: {s}",
    )  # fmt: skip
    for i in range(300):
        wrong, right = MISTAKES[i % len(MISTAKES)](draw)
        yield Question({"s": sentence(wrong)}, sentence(right), wordings)


def _agreement(draw: Draw) -> tuple[str, str]:
    """ "He read a book" is right as well, of the past: no doing whose past is the verb itself."""
    verb, third, _, rest = draw.pick([doing for doing in known.DOINGS if doing[0] != doing[2]])
    time = draw.pick(known.TIMES)
    if draw.chance(0.5):
        who = draw.pick(known.SINGLE)
        return f"{who} {verb} {rest} {time}", f"{who} {third} {rest} {time}"
    who = draw.pick(known.MANY)
    return f"{who} {third} {rest} {time}", f"{who} {verb} {rest} {time}"


def _was_or_were(draw: Draw) -> tuple[str, str]:
    state = draw.pick(
        (
            "ready",
            "lost",
            "happy",
            "sad",
            "hungry",
            "at home",
            "in the garden",
            "near the mill",
            "by the fire",
            "late",
        )
    )
    time = draw.pick(("yesterday", "on Sunday", "in the evening", "after supper"))
    if draw.chance(0.5):
        who = draw.pick(known.SINGLE)
        return f"{who} were {state} {time}", f"{who} was {state} {time}"
    who = draw.pick(known.MANY)
    return f"{who} was {state} {time}", f"{who} were {state} {time}"


def _article(draw: Draw) -> tuple[str, str]:
    who, verb = draw.pick(known.SINGLE), draw.pick(("has", "sees", "wants", "found", "drew", "likes"))
    noun = draw.pick(("apple", "egg", "owl", "umbrella", "island", "orange", "uncle", "ant", "otter", "old hat", "drum", "kite", "bell", "melon",
                      "pear", "book", "lamp", "red coat", "big dog", "small boat"))  # fmt: skip
    right, wrong = ("an", "a") if article(noun) == "an" else ("a", "an")
    return f"{who} {verb} {wrong} {noun}", f"{who} {verb} {right} {noun}"


def _irregular(draw: Draw) -> tuple[str, str]:
    """Only verbs whose past by rule is wrong: goed, singed, ..."""
    verb, _, past, rest = draw.pick(
        [d for d in known.DOINGS if d[2] != regular_past(d[0]) and d[0] not in ("read", "ring", "carry")]
    )
    who = draw.pick(known.SINGLE + known.MANY)
    return f"yesterday {who} {regular_past(verb)} {rest}", f"yesterday {who} {past} {rest}"


def _number(draw: Draw) -> tuple[str, str]:
    noun = draw.pick(known.REGULAR_NOUNS[: known.REGULAR_NOUNS.index("song")])  # what can be drawn or found
    who, verb = draw.pick(known.SINGLE), draw.pick(("has", "saw", "found", "drew"))
    start = f"{who} {verb} {draw.pick(known.NUMBERS[2:11])}"
    return f"{start} {noun}", f"{start} {regular_plural(noun)}"


def _pronoun(draw: Draw) -> tuple[str, str]:
    wrong, right = draw.pick((("him", "he"), ("her", "she")))
    _, third, past, rest = draw.pick(known.DOINGS)
    rest = f"{draw.pick((third, past))} {rest} {draw.pick(known.TIMES)}"
    return f"{wrong} {rest}", f"{right} {rest}"


MISTAKES: tuple[Callable[[Draw], tuple[str, str]], ...] = (
    _agreement, _was_or_were, _article, _irregular, _number, _pronoun
)  # fmt: skip


def questions(draw: Draw) -> Iterator[Question]:
    wordings = (
        "Turn this sentence into a question. | {s}", "Make a question of it. | {s}", "Rewrite this as a question. | {s}", "Ask whether this is so. | {s}",
        "Write a question with the same words: {s}", "Turn this into a question: {s}", "Say this as a question: {s}",
    )  # fmt: skip
    for _ in range(220):
        if draw.chance(0.5):
            (who, rest), verb = described(draw), draw.pick(("is", "was"))
        else:
            who, verb = draw.pick(known.SINGLE + known.MANY), draw.pick(known.ABLE)
            doing = draw.pick(known.DOINGS)
            rest = f"{doing[0]} {doing[3]}"
        yield Question(
            {"s": sentence(f"{who} {verb} {rest}")}, sentence(f"{verb} {who} {rest}", "?"), wordings
        )


def politeness(draw: Draw) -> Iterator[Question]:
    please = (
        "Say this politely, with please first. | {s}", "Begin this order with please. | {s}", "Make the order polite with please in front: {s}",
        "Put please before this order: {s}",
    )  # fmt: skip
    could = (
        "Turn this order into a polite question. | {s}", "Ask politely, with could you. | {s}", "Make a kind question of this order: {s}",
        "Say this as a friendly question: {s}",
    )  # fmt: skip
    for verb, rests in known.ORDERS.items():
        for rest in rests:
            slots = {"s": sentence(f"{verb} {rest}")}
            yield Question(slots, f"Please {verb} {rest}.", please)
            yield Question(slots, f"Could you {verb} {rest}, please?", could)


# --- the shipped stories


def story_questions(draw: Draw) -> Iterator[Question]:
    """Questions whose answer stands in a piece of one of the shipped stories; each story gives at most two."""
    for story in stories.stories(500):
        found = [question for ask in ASKED for question in ask(story)]
        yield from draw.sample(found, 2)


def _piece(story: stories.Story, *needed: str, most: int = 2) -> str:
    """The first run of at most `most` sentences in one paragraph that has all the words needed; "" when there is none."""
    for paragraph in story.text.split("\n\n"):
        said = re.findall(r'"?[A-Z][^.!?]*[.!?]"?(?: [a-z][^.!?]*[.!?])*(?=\s|$)', paragraph)
        if '"'.join(said).count('"') % 2 and "".join(said).count('"') % 2:
            continue
        for count, start in itertools.product(range(1, most + 1), range(len(said))):
            piece = " ".join(said[start : start + count])
            if piece.count('"') % 2 == 0 and all(re.search(rf"\b{word}\b", piece) for word in needed):
                return piece
    return ""


def _asked(piece: str, output: str, slots: dict[str, str], *wordings: str) -> list[Question]:
    return [Question({"p": piece} | slots, output, wordings)] if piece and len(piece) < 260 else []


def _wish(story: stories.Story) -> list[Question]:
    f = story.facts
    piece = _piece(story, f["N"], f"a {f['A']} {f['T']}")
    return _asked(
        piece, f"a {f['A']} {f['T']}", {"N": f["N"]},
        "What did {N} want? | {p}", "Which thing does {N} wish for? | {p}", "Read this and name the wish of {N}. | {p}", "What is the wish of {N} here? | {p}",
    )  # fmt: skip


def _creature(story: stories.Story) -> list[Question]:
    f = story.facts
    piece = _piece(story, f["N"], f["K"])
    others = [kind for kind in stories.KINDS if kind != f["K"] and re.search(rf"\b{kind}\b", piece)]
    return _asked(
        "" if others else piece, with_article(f["K"]), {"N": f["N"]},
        "What kind of animal is {N}? | {p}", "Which animal is {N}? | {p}", "Read this and say what animal {N} is. | {p}", "{N} is an animal. Which one? | {p}",
    )  # fmt: skip


def _colour(story: stories.Story) -> list[Question]:
    f = story.facts
    piece = _piece(story, f"{f['A']} {f['T']}")
    return _asked(
        piece if f["A"] in known.CATEGORIES["colours"] else "", f["A"], {"T": f["T"]},
        "What colour is the {T}? | {p}", "What is the colour of the {T} here? | {p}", "Name the colour of the {T}. | {p}", "Read this. What colour has the {T}? | {p}",
    )  # fmt: skip


def _helper(story: stories.Story) -> list[Question]:
    f = story.facts
    piece = _piece(story, f["J"], f["N"])
    others = [
        kind for kind in stories.KINDS if kind not in (f["J"], f["K"]) and re.search(rf"\b{kind}\b", piece)
    ]
    return _asked(
        "" if others or re.search(rf"\b{f['K']}\b", piece) else piece, f"the {f['J']}", {"N": f["N"]},
        "Which animal is with {N}? | {p}", "Besides {N}, who is in this piece? | {p}", "Who else is there with {N}? | {p}", "Name the animal that {N} meets here. | {p}",
    )  # fmt: skip


def _tool(story: stories.Story) -> list[Question]:
    f = story.facts
    if "R" not in f:
        return []
    piece = _piece(story, f["R"], f["T"], most=1)
    tools = {tool for obstacle in stories.OBSTACLES.values() for tool in obstacle["tools"]}
    others = [tool for tool in tools - {f["R"]} if re.search(rf"\b{tool}\b", piece)]
    return _asked(
        "" if others else piece, f"the {f['R']}", {"T": f["T"]},
        "What helped with the {T}? | {p}", "Which tool was used here? | {p}", "Name the thing that helped. | {p}", "With what did they get at the {T}? | {p}",
    )  # fmt: skip


def _hero(story: stories.Story) -> list[Question]:
    f = story.facts
    piece = _piece(story, f["N"], f"(?:{'|'.join(stories.WORDS['nature'])})")
    return _asked(
        piece, f["N"], {},
        "Who is this about? | {p}", "Name the one who is spoken of here. | {p}", "Which name do you read here? | {p}", "Whose story is this? | {p}",
    )  # fmt: skip


ASKED = (_wish, _creature, _colour, _helper, _tool, _hero)

# family: its questions, the rows for training, and the share of its test rows that ask about something training never did
# (the others ask what training asked, in another wording)
FAMILIES: dict[str, tuple[Callable[[Draw], Iterator[Question]], int, float]] = {
    "opposites": (opposites, 260, 0.0),
    "plurals": (plurals, 180, 0.25),
    "past tense": (past_tense, 170, 0.25),
    "spelling": (spelling, 150, 1.0),
    "grammar": (grammar, 150, 1.0),
    "facts": (facts, 230, 0.0),
    "arithmetic": (arithmetic, 180, 0.25),
    "order": (order, 200, 0.0),
    "sorting": (sorting, 110, 1.0),
    "counting": (counting, 120, 0.75),
    "rhymes": (rhymes, 110, 1.0),
    "categories": (categories, 200, 0.0),
    "questions": (questions, 130, 1.0),
    "politeness": (politeness, 110, 1.0),
    "story questions": (story_questions, 220, 1.0),
}
UNSEEN: dict[str, Callable[[Draw], Iterator[Question]]] = {
    # families that training never sees, and the rows of each in the test
    "comparatives": comparatives,
    "last word": last_word,
}
