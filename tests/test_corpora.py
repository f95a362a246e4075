"""The shipped texts are what their generators make, and the checker tells good stories from spoiled ones."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llm import corpora, paths
from llm.corpora import stories, story_check, verse

ROOT = Path(__file__).resolve().parent.parent
TOLD = list(stories.stories(400))


@pytest.fixture(scope="module")
def shipped() -> str:
    return corpora.path("stories").read_text(encoding="utf-8")


def documents(text: str) -> list[str]:
    return [part.strip("\n") for part in text.split(stories.SEPARATOR) if part.strip()]


# The files ------------------------------------------------------------------------------------------------------------


def test_stories_are_the_generator_s_bytes(shipped):
    assert shipped.startswith("".join(f"{story.text}\n{stories.SEPARATOR}\n" for story in TOLD))
    assert len(documents(shipped)) == stories.COUNT
    assert 2_000_000 <= len(shipped.encode()) <= 4_000_000


def test_verse_is_the_generator_s_bytes():
    assert corpora.path("verse").read_text(encoding="utf-8") == verse.make()[0]


@pytest.mark.parametrize("name", corpora.TEXTS)
def test_the_card_states_size_and_hash_of_the_file(name):
    data = corpora.path(name).read_bytes()
    section = (
        (paths.shipped_datasets() / "README.md")
        .read_text(encoding="utf-8")
        .split(f"## {corpora.TEXTS[name]['file']}")[1]
    )
    section = section.split("\n## ")[0]
    assert hashlib.sha256(data).hexdigest() in section
    assert f"{len(data):,} bytes" in section
    assert f"python -m llm.corpora {name}" in section


def test_no_code_in_datasets():
    assert not list(paths.shipped_datasets().rglob("*.py"))


def test_the_same_on_every_python():
    """Only random.random() may be drawn: other methods of random.Random changed between versions."""
    for module in (stories, verse):
        source = Path(module.__file__).read_text(encoding="utf-8")
        assert set(re.findall(r"random\.(\w+)", source)) <= {"Random", "random"}
    code = "from llm.corpora import stories; print(''.join(s.text for s in stories.stories(30)))"
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1] and told[0].startswith(TOLD[0].text)


# What was promised of the stories ---------------------------------------------------------------------------------------


def test_repeated_counts_by_hand():
    assert stories.repeated(["a b c", "b c d"], 2) == 2 / 4  # ab bc | bc cd: the two bc
    assert stories.repeated(["one two", "three four"], 2) == 0
    assert stories.repeated(["A, b! a b"], 2) == 2 / 3  # ab ba ab: within one text as well


def test_word_sequences_hardly_repeat(shipped):
    assert stories.repeated(documents(shipped), 8) <= 0.02


def test_many_sentence_skeletons():
    teller = stories.Teller()
    assert len({skeleton for _ in range(1000) for skeleton in teller.story().skeletons}) >= 500


def test_a_skeleton_has_no_filler_left():
    fillers = set(stories.WORDS["building"]) | set(stories.KINDS) | set(story_check.NAME_PRONOUN)
    for story in TOLD[:50]:
        for skeleton in story.skeletons:
            assert not fillers & set(re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", "", skeleton)))


def test_tables_do_not_contradict_each_other():
    tools = [tool for parts in stories.OBSTACLES.values() for tool in parts["tools"]]
    assert len(tools) == len(set(tools))
    assert not set(tools) & set(stories.KIND_OF_THING)
    assert not {name.lower() for name in story_check.NAME_PRONOUN} & stories.vocabulary()
    assert set(stories.OBSTACLES) | {"owner"} == set(story_check.CUES)


# The checker --------------------------------------------------------------------------------------------------------------


def test_shipped_stories_pass(shipped):
    told = documents(shipped)[::4]
    good = sum(story_check.check(story).ok for story in told)
    assert good >= 0.995 * len(told)


def ends(text: str) -> list[int]:
    return [m.end() for m in re.finditer(r'[.!?]"?(?=\s)', text)]


def middle(text: str) -> int:
    return min(ends(text), key=lambda at: abs(at - len(text) / 2))


def second_half_of_another(story, other, rng):
    return story.text[: middle(story.text)] + other.text[middle(other.text) :]


def name_replaced(story, other, rng):
    hero = story.facts["N"]
    new = rng.choice([name for name in story_check.NAME_PRONOUN if name != hero])
    at = [m.start() for m in re.finditer(hero, story.text)]
    return story.text[: at[len(at) // 2]] + story.text[at[len(at) // 2] :].replace(hero, new)


def remedy_of_another_trouble(story, other, rng):
    if story.facts["obstacle"] == "owner":
        return None
    tool = rng.choice([t for t, obstacle in story_check.TOOLS.items() if obstacle != story.facts["obstacle"]])
    return re.sub(rf"\b{story.facts['R']}\b", tool, story.text)


def last_paragraph_dropped(story, other, rng):
    return story.text.rsplit("\n\n", 1)[0]


def last_sentence_dropped(story, other, rng):
    return story.text[: ends(story.text)[-1]]


def cut_off(story, other, rng):
    return " ".join(story.text.split(" ")[: -rng.randint(2, 9)])


def another_wish(story, other, rng):
    thing = rng.choice([t for t in stories.KIND_OF_THING if t != story.facts["T"]])
    return re.sub(rf"\b{story.facts['T']}\b", thing, story.text, count=1)


def another_thing_got(story, other, rng):
    before, after = story.text.rsplit("\n\n", 1)
    thing = rng.choice([t for t in stories.KIND_OF_THING if t != story.facts["T"]])
    return before + "\n\n" + re.sub(rf"\b{story.facts['T']}\b", thing, after)


def other_pronoun(story, other, rng):
    swap = {"he": "she", "him": "her", "his": "her", "she": "he", "her": "his"}
    at = middle(story.text)
    changed = re.sub(r"\b(he|him|his|she|her)\b", lambda m: swap[m[1]], story.text[at:])
    return story.text[:at] + changed if changed != story.text[at:] else None


def words_shuffled(story, other, rng):
    words = story.text.split(" ")
    rng.shuffle(words)
    return " ".join(words)


def words_shuffled_in_sentences(story, other, rng):
    """The hardest one: capitals, full stops and quotation marks stay where they were."""

    def shuffled(match: re.Match) -> str:
        words = re.findall(r"[A-Za-z']+", match[0])
        words[0] = words[0] if words[0] in story_check.NAME_PRONOUN else words[0].lower()
        rng.shuffle(words)
        return re.sub(r"[A-Za-z']+", lambda _: words.pop(), match[0])

    return stories.tidy(re.sub(r'[^.!?"\n]+', lambda m: shuffled(m) if m[0].strip() else m[0], story.text))


def sentences_shuffled(story, other, rng):
    told = [sentence.text for sentence in story_check.sentences(story.text)]
    rng.shuffle(told)
    return " ".join(told)


SPOILERS = [
    second_half_of_another, name_replaced, remedy_of_another_trouble, last_paragraph_dropped, last_sentence_dropped, cut_off,
    another_wish, another_thing_got, other_pronoun, words_shuffled, words_shuffled_in_sentences, sentences_shuffled,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda f: f.__name__)
def test_spoiled_stories_are_rejected(spoil):
    rng = random.Random(3)
    spoiled = [t for a, b in itertools.pairwise(TOLD) if (t := spoil(a, b, rng)) and t != a.text]
    assert len(spoiled) > 150
    rejected = sum(not story_check.check(text).ok for text in spoiled)
    assert rejected >= 0.95 * len(spoiled)


GOOD = """There once was a small, brave otter called Nora, who lived behind the mill. "I wish I had a red kite," said Nora.

But the kite was high up on the roof of the old barn. She jumped and jumped, but she could not reach the kite. A kind old owl came by with some bread. "Dear owl, the kite is too high for me," said Nora. "I have a ladder in the shed," said the owl.

They set the ladder under the kite, and Nora climbed up. Then Nora held the red kite in her paws. That night Nora and the owl shared the bread by the fire."""


def test_a_story_in_other_words_passes():
    assert story_check.check(GOOD).failures == ()
    assert all(line not in story.skeletons for story in TOLD for line in GOOD.split("\n\n"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("A kind old owl", "The kind old owl", "The owl turns up without having been introduced."),
        ("and Nora climbed", "and Rosie climbed", "Rosie appears without having been introduced."),
        ("held the red kite in her", "held the red kite in his", "'his' does not fit Nora"),
        ("held the red kite", "held the blue kite", "The kite is red and then blue."),
        ("held the red kite", "held the red drum", "A drum turns up, but the wish was for a kite."),
        ("I have a ladder", "I have a key", "A key is no remedy when the trouble is: high."),
        ("Then Nora held the red kite in her paws. ", "", "It is not told that Nora got the kite."),
        (" That night Nora and the owl shared the bread by the fire.", "", "The story has no closing sentence."),
        ("she could not", "she the could not", "'she' cannot stand before 'the'"),
        ('"I wish', "I wish", "A quotation mark is not closed"),
        ("a small, brave", "an small, brave", "'an' cannot stand before 'small'"),
        ("some bread", "some blorp", "'blorp' is not a word of the story language."),
        ("by the fire.", "by the", "A sentence is cut off"),
        ("I wish I had a red kite", "I see a red kite", "No wish for a thing is stated."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(old, new, said):
    assert old in GOOD
    failures = story_check.check(GOOD.replace(old, new, 1)).failures
    assert any(said in failure for failure in failures), failures


@pytest.mark.parametrize("text", ["", "   ", "Hello.", "\x00" * 10, "<|endoftext|>", "Pip " * 200, '"' * 99])
def test_any_text_gets_a_verdict(text):
    assert not story_check.check(text).ok


# The verse ----------------------------------------------------------------------------------------------------------------


def syllables(word: str) -> int:
    two = {w for scene in verse.SCENES.values() for w in scene["two"]} | set(verse.WORDS["place"])
    return 2 if word in two | {"little", "every", "without"} else 1


def test_verse_has_metre_rhyme_and_no_line_twice():
    stanzas = corpora.path("verse").read_text(encoding="utf-8").strip().split("\n\n")
    lines = [line for stanza in stanzas for line in stanza.split("\n")]
    assert len(lines) == len(set(lines)) >= 3000
    for stanza in stanzas:
        a, b, c, d = (verse.last_word(line) for line in stanza.split("\n"))
        assert (verse.rhymes(a, b) and verse.rhymes(c, d)) or (verse.rhymes(a, c) and verse.rhymes(b, d))
    for line in lines:
        words = re.findall(r"[a-z]+", line.lower())
        assert sum(syllables(w) for w in words) == 8, line
    assert len(set("".join(lines))) <= 45


# Names and the command ------------------------------------------------------------------------------------------------------


def test_names_paths_and_cards(monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_HOME", str(tmp_path))
    assert corpora.names() == ["stories", "verse"]
    (paths.datasets() / "mine.txt").write_text("hello")
    (paths.datasets() / ".hidden.txt").write_text("half a download")
    assert corpora.names() == ["stories", "verse", "mine"]
    assert corpora.path("mine") == paths.datasets() / "mine.txt"
    assert corpora.card("mine") == {"title": "mine", "size": "5 bytes"}
    assert corpora.card("stories")["licence"] == "MIT"
    (paths.datasets() / "the-verdict.txt").write_text("text")
    assert corpora.card("the-verdict")["licence"] == "public domain"
    for wrong in ("../stories", "none.txt", "/etc/passwd"):
        with pytest.raises(ValueError):
            corpora.path(wrong)


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "llm.corpora", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_the_command_makes_and_judges(tmp_path):
    out = tmp_path / "stories.txt"
    made = command("stories", "--count", "40", "--seed", "5", "--out", str(out))
    assert made.returncode == 0, made.stderr
    assert "stories: 40 (seed 5)" in made.stdout and "8-word sequences repeated" in made.stdout
    judged = command("check", str(out))
    assert "40 of 40 stories keep every rule (100.0%)." in judged.stdout
    out.write_text(f"{GOOD}\n{stories.SEPARATOR}\n{GOOD.rsplit(' That night', 1)[0]}\n", encoding="utf-8")
    judged = command("check", str(out), "--each")
    assert (
        "1 of 2 stories" in judged.stdout and "story 2: The story has no closing sentence." in judged.stdout
    )


def test_the_command_says_what_is_wrong():
    for arguments in (("fetch", "nothing"), ("check", "no-such-file.txt")):
        done = command(*arguments)
        assert done.returncode == 1 and "Traceback" not in done.stderr and done.stderr.strip()
