"""Judges any text by the rules of the story grammar: who, what was wished, what was in the way, how it ended, and its sentences."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cache

from llm.corpora import stories
from llm.corpora.articles import article

# What a text says when this is in the way of the wish; `owner`: the wished thing belongs to somebody else.
CUES = {
    "high": r"high|reach|reached",
    "water": r"swim|river|lake|stream|canal|pond|water|island",
    "locked": r"lock|locked",
    "dark": r"dark",
    "deep": r"bottom|too deep|deep down|deep hole|as deep as|the hole|pit|a well|the well",
    "buried": r"buried|heap|dug",
    "broken": r"broken|cracked|pieces",
    "torn": r"torn",
    "heavy": r"heavy",
    "price": r"coins?|price|costs?",
    "lost": r"lost",
    "thorns": r"thorns?|thorny",
    "dirty": r"dirty|dirt|covered in",
    "frozen": r"frozen|ice",
    "tangled": r"tangled|knots?",
    "owner": r"owned|owner|must keep|cannot give",
}
WISHING = r"want|wants|wanted|wish|wishes|wished|longed|dreamed|hoped"
HAVING = r"have|has|had|held|holds|took|takes|got|gets|hugged|carried|owns"
REFUSING = r"did not get|without the|stayed (?:[a-z]+ )*with|never got|never had"
CLOSING = (
    r"that night|that \w+ evening|from that \w+ on|ever after|to this day|sun went down|walked home|slept|fell asleep|"
    r"(until|when) the (stars|moon|first star|evening star|fireflies)"
)
TOOLS = {tool: obstacle for obstacle, parts in stories.OBSTACLES.items() for tool in parts["tools"]}
NAME_PRONOUN = {name: he for he, names in stories.NAMES.items() for name in names}
PRONOUN = {word: he for he, forms in stories.PRONOUNS.items() for word in forms}
PRONOUN |= {"himself": "he", "herself": "she", "hers": "she"}
ADJECTIVES = sorted({word for words in stories.ADJECTIVES.values() for word in words})

# Word classes for the local rules of English that a broken sentence offends.
DETERMINERS = frozenset(["a", "an", "the", "his", "my", "your", "their", "our", "its", "every"])
PREPOSITIONS = frozenset(
    [
        "of",
        "at",
        "from",
        "into",
        "for",
        "with",
        "to",
        "under",
        "behind",
        "beside",
        "onto",
        "through",
        "among",
        "around",
        "across",
        "after",
    ]
)
CONJUNCTIONS = frozenset(["and", "but", "or", "because", "that", "when", "while", "if", "than"])
SUBJECTS = frozenset(["he", "she", "they", "i", "we"])
AUXILIARIES = frozenset(["was", "were", "is", "are", "had", "has", "could", "would", "did", "will", "am"])


@dataclass(frozen=True)
class Verdict:
    """`ok`, or what is wrong, each in a plain sentence."""

    ok: bool
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Sentence:
    """A sentence: all of it, and what of it stands outside quotation marks."""

    text: str
    outside: str

    def has(self, pattern: str) -> bool:
        return re.search(rf"\b(?:{pattern})\b", self.text, re.IGNORECASE) is not None

    def names(self, outside: bool = False) -> list[str]:
        return [
            w for w in re.findall(r"[A-Za-z]+", self.outside if outside else self.text) if w in NAME_PRONOUN
        ]


@cache
def known_words() -> frozenset[str]:
    """The words the story language knows."""
    return (
        stories.vocabulary()
        | frozenset(PRONOUN)
        | frozenset(["they", "them", "their", "we", "us", "our", "its"])
    )


def sentences(text: str) -> list[Sentence]:
    """Split at full stops, question and exclamation marks that a capital letter or the end follows."""
    found = []
    for paragraph in re.split(r"\n\s*\n|\n", text):
        quoted, start = False, 0
        outside: list[str] = []
        for i, character in enumerate(paragraph):
            if character == '"':
                quoted = not quoted
            outside.append(" " if quoted or character == '"' else character)
            end = re.match(r'"?(?=\s+"?[A-Z]|\s*$)', paragraph[i + 1 :]) if character in ".!?" else None
            ends_quote = character == '"' and i and paragraph[i - 1] in ".!?" and not quoted
            if ends_quote:
                end = re.match(r"(?=\s+\"?[A-Z]|\s*$)", paragraph[i + 1 :])
            if end and not (character in ".!?" and paragraph[i + 1 : i + 2] == '"' and quoted):
                found.append(Sentence(paragraph[start : i + 1].strip(), "".join(outside[start : i + 1])))
                start = i + 1
        if paragraph[start:].strip():
            found.append(Sentence(paragraph[start:].strip(), "".join(outside[start:])))
    return found


def check(text: str) -> Verdict:
    """Whether a text, by whomever, is a coherent story of the grammar; every failure is said in plain words."""
    text = text.replace(stories.SEPARATOR, "").strip()
    told = sentences(text)
    if not told:
        return Verdict(False, ("There is no text.",))
    failures = [*_form(text, told)]
    cast, problems = _cast(told)
    failures += problems
    if cast:
        failures += _pronouns(told, cast)
        failures += _plot(told, cast)
    return Verdict(not failures, tuple(dict.fromkeys(failures)))


def _form(text: str, told: list[Sentence]) -> list[str]:
    """Length, quotation marks, capitals, full stops, known words, and word order where a rule can see it."""
    failures = []
    count = len(stories.words(text))
    if not 50 <= count <= 260:
        failures.append(f"A story has 50 to 260 words; this text has {count}.")
    for paragraph in re.split(r"\n\s*\n|\n", text):
        if paragraph.count('"') % 2:
            failures.append(f"A quotation mark is not closed: {paragraph[-60:]!r}.")
        if re.search(r'\w"\w|\s"\s|[a-z]"(\s|$)', paragraph):
            failures.append(f"A quotation mark stands in the wrong place: {paragraph[:60]!r}.")
    if re.search(r"[^A-Za-z' ,.!?:\"\n]", text):
        failures.append("There are signs that a story does not use.")
    seen = set()
    for sentence in told:
        failures += _sentence_form(sentence)
        if sentence.text in seen:
            failures.append(f"This sentence comes twice: {sentence.text!r}.")
        seen.add(sentence.text)
    return failures


def _sentence_form(sentence: Sentence) -> list[str]:
    """What is wrong with one sentence by itself."""
    text, failures = sentence.text, []
    if not re.match(r'"?[A-Z]', text):
        failures.append(f"A sentence does not begin with a capital letter: {text[:60]!r}.")
    if not re.search(r'[.!?]"?$', text):
        failures.append(f"A sentence is cut off: {text[-60:]!r}.")
    tokens = re.findall(r"[A-Za-z']+|[,.!?:]", text)
    unknown = [
        t for t in tokens if t[0].isalpha() and t not in NAME_PRONOUN and t.lower() not in known_words()
    ]
    failures += [f"{word!r} is not a word of the story language." for word in unknown]
    size = sum(t[0].isalpha() for t in tokens)
    if not 2 <= size <= 40:
        failures.append(f"A sentence has {size} words: {text[:60]!r}.")
    capitals = (
        NAME_PRONOUN.keys() | set(stories.WORDS["weekday"]) | set(stories.WORDS["month"]) | {"I", "Lane"}
    )
    capitals |= {f"{day}s" for day in stories.WORDS["weekday"]}
    for before, word in zip(
        re.findall(r"[A-Za-z']+|[,.!?:\"]", text), re.findall(r"[A-Za-z']+|[,.!?:\"]", text)[1:]
    ):
        if word[0].isupper() and word not in capitals and before not in '".!?:':
            failures.append(f"A capital letter stands inside a sentence: {word!r}.")
    for first, second in itertools.pairwise(tokens):
        if not fits(first, second):
            failures.append(f"{first!r} cannot stand before {second!r}: {text[:80]!r}.")
    return failures


def fits(first: str, second: str) -> bool:
    """Whether two neighbouring words (or a word and a sign) may follow each other in English, as far as a few rules see."""
    a, b = first.lower(), second.lower()
    mark = not b[0].isalpha()
    if a == b:
        return False
    if a in ("a", "an") and not mark and a != article(b):
        return False
    if a in DETERMINERS:
        return not (
            mark
            or b in DETERMINERS | PREPOSITIONS | CONJUNCTIONS | SUBJECTS | AUXILIARIES
            or second in NAME_PRONOUN
        )
    if a in ("of", "from", "into", "for", "with", "at", "and", "but", "because", "or"):
        return not (mark or (b in AUXILIARIES and a not in ("and", "but")))
    if a in SUBJECTS:
        return not (mark or b in DETERMINERS | PREPOSITIONS | SUBJECTS or second in NAME_PRONOUN)
    if first in NAME_PRONOUN:
        return second not in NAME_PRONOUN
    return True


def _cast(told: list[Sentence]) -> tuple[dict[str, str], list[str]]:
    """Name -> kind of creature, in order of appearance; nobody may appear without having been introduced."""
    cast: dict[str, str] = {}
    failures = []
    kinds = "|".join(stories.KINDS)
    for sentence in told:
        for name in sentence.names():
            introduced = re.search(
                rf"\b{name} the (?P<a>{kinds})\b|\b(?P<b>{kinds}) (?:called|named) {name}\b|"
                rf"\b{name}(?:,| was) an? (?:[a-z]+,? (?:and )?)*?(?P<c>{kinds})\b|"
                rf"\b[Tt]he (?:[a-z]+ )?(?P<d>{kinds}) (?:who lived|in this story)\b.* was called {name}\b",
                sentence.text,
            )
            kind = introduced and next(k for k in introduced.groupdict().values() if k)
            if name not in cast:
                if not kind:
                    failures.append(f"{name} appears without having been introduced.")
                cast[name] = kind or ""
            elif kind and cast[name] and kind != cast[name]:
                failures.append(f"{name} was a {cast[name]} and becomes a {kind}.")
    if not cast:
        return {}, ["Nobody in this text has a name."]
    hero = next(iter(cast))
    if not any(hero in s.names() for s in told[:2]):
        failures.append(f"{hero} appears too late to be the hero.")
    if not any(hero in s.names() for s in told[-4:]):
        failures.append(f"{hero} is gone at the end.")
    nameless: list[str] = []
    for sentence in told:
        for kind in re.findall(rf"\b({kinds})\b", sentence.text):
            if kind in cast.values() or kind in nameless:
                continue
            if not re.search(rf"\b[Aa]n? (?:[a-z]+,? (?:and )?)?(?:[a-z]+ )?{kind}\b", sentence.outside):
                failures.append(f"The {kind} turns up without having been introduced.")
            nameless.append(kind)
    if len(cast) + len(nameless) > 3:
        failures.append(f"Too many characters for one story: {', '.join([*cast, *nameless])}.")
    return {**cast, **{f"the {kind}": kind for kind in nameless}}, failures


def _pronouns(told: list[Sentence], cast: dict[str, str]) -> list[str]:
    """he or she must be somebody already introduced; in a sentence that names one person outside quotes, that person."""
    failures = []
    met: set[str] = set()
    for sentence in told:
        met |= set(sentence.names())
        named = set(sentence.names(outside=True))
        allowed = {NAME_PRONOUN[name] for name in (named if len(named) == 1 else met)}
        for word in re.findall(r"[a-z]+", sentence.outside.lower()):
            if word in PRONOUN and PRONOUN[word] not in allowed:
                whom = " and ".join(sorted(named or met)) or "anybody"
                failures.append(f"{word!r} does not fit {whom}: {sentence.text[:80]!r}.")
    return failures


def _first(told: list[Sentence], pattern: str, start: int = 0) -> int | None:
    return next((i for i in range(start, len(told)) if told[i].has(pattern)), None)


def _plot(told: list[Sentence], cast: dict[str, str]) -> list[str]:
    """Wish, obstacle, remedy and ending: in this order, about the same thing, and fitting each other."""
    hero = next(iter(cast))
    wish = next((i for i, s in enumerate(told) if s.has(WISHING) and _things(s)), None)
    if wish is None:
        return ["No wish for a thing is stated."]
    thing = _things(told[wish])[0]
    failures = _same_thing(told, thing)
    if not any(hero in s.names() for s in told[max(0, wish - 1) : wish + 2]):
        failures.append(f"It is not {hero} who makes the wish.")
    if _first(told, thing) != wish:
        failures.append(f"The {thing} is there before anybody wished for it.")
    if wish > 5:
        failures.append("The wish comes too late.")
    obstacles = {name: at for name, cue in CUES.items() if (at := _first(told, cue)) is not None}
    others = [name for name in cast if name != hero]
    if "owner" not in obstacles and others and (at := _first(told, _belongs(others))) is not None:
        obstacles["owner"] = at
    if not obstacles:
        return [*failures, "Nothing is in the way of the wish."]
    if len(obstacles) > 1:
        failures.append(f"Several things are in the way at once: {', '.join(sorted(obstacles))}.")
    obstacle, at = min(obstacles.items(), key=lambda item: item[1])
    if at <= wish:
        failures.append("What is in the way comes before the wish.")
    if obstacle == "owner":
        return failures + _refused(told, hero, others, thing, at)
    return failures + _remedied(told, hero, others, thing, obstacle, at)


def _belongs(others: list[str]) -> str:
    """Pattern for "belonged to" one of these: a name, or a creature without one."""
    who = [other.replace("the ", r"(?:a|an|the) (?:[a-z]+,? ){0,2}") for other in others]
    return rf"belong(?:ed|s) to (?:{'|'.join(who)})"


def _things(sentence: Sentence) -> list[str]:
    return [w for w in stories.words(sentence.text) if w in stories.KIND_OF_THING]


def _same_thing(told: list[Sentence], thing: str) -> list[str]:
    """The wished thing stays the thing wished: its name, its look, and what one does with it."""
    failures = []
    looks: list[str] = []
    for sentence in told:
        failures += [
            f"A {t} turns up, but the wish was for a {thing}." for t in _things(sentence) if t != thing
        ]
        looks += re.findall(rf"\b({'|'.join(ADJECTIVES)}) (?:{thing}|one)\b", sentence.text)
        for verb in re.findall(
            rf"\b([a-z]+) (?:the|a|an|my|his|her|your) (?:[a-z]+ )?{thing}\b", sentence.text
        ):
            if any(verb in use for use in stories.USES.values()) and verb not in stories.USES[thing]:
                failures.append(f"One does not {verb} a {thing}.")
    if len(set(looks)) > 1:
        failures.append(f"The {thing} is {' and then '.join(dict.fromkeys(looks))}.")
    if sum(thing in _things(s) for s in told) < 3:
        failures.append(f"The {thing} is forgotten.")
    return failures


def _remedied(
    told: list[Sentence], hero: str, others: list[str], thing: str, obstacle: str, at: int
) -> list[str]:
    """A fitting remedy after the obstacle, used on the thing; then the hero has it; then the story closes."""
    failures = []
    used = {w: i for i, s in enumerate(told) for w in stories.words(s.text) if w in TOOLS}
    if not used:
        return [f"Nothing is done about it: {obstacle}."]
    failures += [f"A {t} is no remedy when the trouble is: {obstacle}." for t in used if TOOLS[t] != obstacle]
    if len(used) > 1:
        failures.append(f"The remedy changes: {', '.join(used)}.")
    tool = next(iter(used))
    where = [i for i, s in enumerate(told) if s.has(tool)]
    if where[0] < at:
        failures.append(f"The {tool} comes before the trouble.")
    work = next((i for i in where[1:] if told[i].has(thing)), None)
    if work is None:
        return [*failures, f"The {tool} is never used on the {thing}."]
    got = rf"{hero}\b.*\b({HAVING})\b.*\b{thing}|have my (\w+ )?{thing}|belong(s|ed) to {hero}|{thing} belongs to you"
    met = next((i for i in range(len(told) - 1, work, -1) if told[i].has(got) and told[i].has(thing)), None)
    if met is None:
        return [*failures, f"It is not told that {hero} got the {thing}."]
    if any(s.has(REFUSING) for s in told) or (others and any(s.has(_belongs(others)) for s in told)):
        failures.append(f"The {thing} is both got and refused.")
    return failures + _closes(told, met)


def _refused(told: list[Sentence], hero: str, others: list[str], thing: str, at: int) -> list[str]:
    """Somebody else owns the thing, says no kindly and why; the hero goes without it; then the story closes."""
    failures = []
    if not others:
        return [f"Nobody is there to whom the {thing} belongs."]
    tools = {w for s in told for w in stories.words(s.text) if w in TOOLS}
    if tools:
        failures.append(f"A {', '.join(sorted(tools))} does not help when the thing is somebody's own.")
    no = _first(told, "must keep|cannot give", at)
    if no is None:
        return [*failures, f"Nobody says why {hero} cannot have the {thing}."]
    ends = next(
        (i for i in range(len(told) - 1, no, -1) if told[i].has(REFUSING) and told[i].has(thing)), None
    )
    if ends is None:
        return [*failures, f"It is not told that {hero} goes without the {thing}."]
    if any(s.has(rf"belong(s|ed) to {hero}|have my (\w+ )?{thing}") for s in told):
        failures.append(f"The {thing} is both got and refused.")
    return failures + _closes(told, ends)


def _closes(told: list[Sentence], outcome: int) -> list[str]:
    if len(told) - 1 <= outcome or not told[-1].has(CLOSING):
        return ["The story has no closing sentence."]
    return []
