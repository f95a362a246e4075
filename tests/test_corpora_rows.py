"""The shipped rows for fine-tuning are what their generators make, their cards are true, and their answers are right."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from llm import corpora, duplicates, paths, rows
from llm.corpora import (
    articles,
    classification,
    instructions,
    lexicon,
    preferences,
    stories,
    story_check,
    tasks,
)
from llm.corpora.draw import Draw

ROOT = Path(__file__).resolve().parent.parent
MAKERS = {"instructions": instructions, "classification": classification, "preferences": preferences}


def shipped(name: str) -> list[dict[str, str]]:
    """The rows of a file as they stand there, read by the standard library alone."""
    text = corpora.row_path(name).read_text(encoding="utf-8")
    if corpora.row_path(name).suffix == ".csv":
        return list(csv.DictReader(text.splitlines()))
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


ASKED = shipped("instructions")
PAIRS = shipped("preferences")


def of(family: str) -> list[tuple[str, str, str]]:
    """(instruction, input, output) of every row of a family."""
    found = [(r["instruction"], r["input"], r["output"]) for r in ASKED if r["family"] == family]
    assert len(found) >= 40
    return found


# The files and their cards --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[str, dict[str, str]]]:
    return {name: found for maker in MAKERS.values() for name, found in maker.make().items()}


@pytest.mark.parametrize("name", corpora.ROWS)
def test_made_again_they_are_the_same_bytes(made, name):
    assert corpora.row_path(name).read_bytes() == made[name][0].encode("utf-8")


@pytest.mark.parametrize("name", corpora.ROWS)
def test_the_card_states_what_is_measured(made, name):
    file = corpora.ROWS[name]["file"]
    card = (paths.shipped_datasets() / "README.md").read_text(encoding="utf-8").split(f"## {file}\n")[1]
    card = " ".join(card.split("\n## ")[0].split())
    data = corpora.row_path(name).read_bytes()
    maker = corpora.ROWS[name]["made_by"]
    assert f"python -m llm.corpora {maker} --seed {MAKERS[maker].SEED}" in card
    assert f"{len(data):,} bytes, SHA-256 `{hashlib.sha256(data).hexdigest()}`" in card
    for what, value in made[name][1].items():
        assert f"- {what}: {value}" in card


@pytest.mark.parametrize("name", corpora.ROWS)
def test_every_row_can_be_trained_on(name):
    checked = rows.check(rows.read(corpora.row_path(name)))
    assert checked.kind == corpora.ROWS[name]["kind"]
    assert (len(checked.good), checked.rejected, checked.problems) == (len(shipped(name)), [], [])
    parts = rows.split(checked.good).parts
    assert all(parts[part] for part in ("train", "validation", "test"))
    assert not any(rows.leaks(parts).values())
    found = rows.repeats(checked.good)
    assert found.exact == [] and found.contradictions == []


@pytest.mark.parametrize("name", corpora.ROWS)
def test_no_held_out_row_is_nearly_one_for_training(made, name):
    (said,) = [value for what, value in made[name][1].items() if "most similar" in what]
    assert 0 < float(said.split()[0]) < duplicates.NEAR


def test_another_seed_gives_other_rows():
    assert classification.rows("classification-two", 1) != classification.rows("classification-two", 2)


def test_the_same_whatever_the_hash_seed():
    """Sets have another order in every process: none may reach the rows."""
    code = (
        "import hashlib\nfrom llm.corpora import classification, instructions\n"
        "from llm.corpora import preferences as p\nfrom llm.corpora.draw import Draw\nfrom llm.corpora.stories import Teller\n"
        "families = [instructions.learned(name, Draw(1)) for name in ('spelling', 'categories', 'counting')]\n"
        "found = [classification.rows('classification-five'), families, p.kinder(Teller(1), Draw(1), 6)]\n"
        "print(hashlib.sha256(repr(found).encode()).hexdigest())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": seed, "PATH": ""}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1 and len(told.pop()) == 65


def test_only_random_is_drawn():
    """Other methods of random.Random changed between versions of Python."""
    for module in (*MAKERS.values(), tasks, sys.modules[Draw.__module__]):
        source = Path(module.__file__).read_text(encoding="utf-8")
        assert set(re.findall(r"\brandom\.(\w+)", source)) <= {"Random", "random"}


def test_draw_is_fair_and_seeded():
    draw = Draw(3)
    counts = Counter(draw.pick("abcd") for _ in range(8000))
    assert set(counts) == set("abcd") and max(counts.values()) - min(counts.values()) < 400
    orders = Counter("".join(draw.shuffled("abc")) for _ in range(6000))
    assert len(orders) == 6 and max(orders.values()) - min(orders.values()) < 250
    assert Draw(5).shuffled(range(50)) == Draw(5).shuffled(range(50)) != list(range(50))
    assert sorted(draw.sample(range(9), 20)) == list(range(9)) and len(set(draw.sample(range(9), 4))) == 4


# Instructions: every answer that follows from a rule, worked out again -----------------------------------------------------

VALUE = {word: number for number, word in enumerate(lexicon.NUMBERS)}


def numbers(text: str) -> list[int]:
    return [VALUE[word] for word in re.findall(r"[a-z]+", text.lower()) if word in VALUE]


def test_one_question_has_one_answer():
    answers = defaultdict(set)
    for row in ASKED:
        answers[row["instruction"].casefold(), row["input"].casefold()].add(row["output"])
    assert all(len(found) == 1 for found in answers.values())


def test_a_third_has_an_input_and_all_families_are_there():
    assert 0.3 < sum(bool(row["input"]) for row in ASKED) / len(ASKED) < 0.4
    assert {row["family"] for row in ASKED} == {*tasks.FAMILIES, *tasks.UNSEEN}
    for row in ASKED:
        assert (row["split"] == "unseen") == (row["family"] in tasks.UNSEEN)
        assert row["output"] == row["output"].strip() != ""


def test_sums_are_right():
    for instruction, given, output in of("arithmetic"):
        asked = f"{instruction} {given}".lower()
        found = numbers(asked)
        if re.search("twice|double|two times", asked):
            want = 2 * found[-1]
        elif re.search("plus|add|together|make|find|count on", asked):
            want = sum(found[:2])
        else:
            assert re.search("minus|away|gone|subtract|lose|count back", asked), asked
            want = max(found) - min(found)
        assert VALUE[output] == want, asked


def test_sorted_is_sorted():
    for instruction, given, output in of("sorting"):
        asked, answer = f"{instruction} {given}", output.split(", ")
        if answer[0] in lexicon.DAYS:
            want = sorted(answer, key=lexicon.DAYS.index)
        elif answer[0] in VALUE:
            down = re.search("large to small|largest first|high to low|largest, next|with the largest", asked)
            want = sorted(answer, key=VALUE.get, reverse=bool(down))
        else:
            want = sorted(answer)
        assert answer == want and all(word in asked for word in answer), asked


def test_what_comes_after_and_before():
    circles = [
        (lexicon.DAYS, True),
        (lexicon.MONTHS, True),
        (lexicon.SEASONS, True),
        (lexicon.NUMBERS, False),
    ]
    for instruction, given, output in of("order"):
        asked = (
            f"{instruction.replace(' one', '')} {given}"
            if given or "which one" in instruction
            else instruction
        )
        names, circle = next(
            c for c in circles if output in c[0] and any(re.search(rf"\b{n}\b", asked) for n in c[0])
        )
        step = 1 if "after" in asked else -1
        (known,) = [name for name in names if re.search(rf"\b{name}\b", asked)]
        at = names.index(known) + step
        assert output == names[at % len(names) if circle else at], asked


def test_letters_and_words_are_counted():
    for instruction, given, output in of("counting"):
        if given:
            counted = given
        elif ": " in instruction:
            counted = instruction.split(": ")[1]
        else:
            counted = next(w for w in re.findall(r"\w+", instruction) if w in lexicon.REGULAR_NOUNS)
        asked_letters = counted in lexicon.REGULAR_NOUNS
        assert VALUE[output] == (len(counted) if asked_letters else len(counted.split())), instruction


def plural(noun: str) -> str:
    """English spelling of a regular plural; the irregular ones are a list of their own here."""
    irregular = dict(mouse="mice", goose="geese", child="children", foot="feet", tooth="teeth", man="men", woman="women",
                     sheep="sheep", deer="deer", fish="fish", leaf="leaves", loaf="loaves", knife="knives", wolf="wolves",
                     shelf="shelves", scarf="scarves")  # fmt: skip
    if noun in irregular:
        return irregular[noun]
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return noun + "es"
    return noun[:-1] + "ies" if re.search(r"[^aeiou]y$", noun) else noun + "s"


def test_plurals_follow_the_spelling_rules():
    nouns = {*lexicon.REGULAR_NOUNS, *lexicon.PLURALS}
    for instruction, given, output in of("plurals"):
        noun = given or next(w for w in re.findall(r"[a-z]+", instruction)[::-1] if w in nouns)
        assert output == plural(noun), instruction


def test_regular_pasts_follow_the_spelling_rules():
    for verb in lexicon.REGULAR_VERBS:
        past = tasks.regular_past(verb)
        assert past.endswith("ed")
        if verb in ("stop", "hop", "hug", "nod"):  # one short vowel before one consonant: doubled
            assert past == verb + verb[-1] + "ed"
        elif verb.endswith("e"):
            assert past == verb + "d"
        elif verb in ("carry", "cry", "dry"):
            assert past == verb[:-1] + "ied"
        else:
            assert past == verb + "ed"
    assert not set(lexicon.REGULAR_VERBS) & set(lexicon.PAST)


def test_opposites_are_opposites_of_each_other():
    pairs = lexicon.OPPOSITES
    words = [*pairs, *pairs.values()]
    assert len(words) == len(set(words))
    back = pairs | {b: a for a, b in pairs.items()}
    for instruction, given, output in of("opposites"):
        word = (
            given or re.search(r"(?:of|[Nn]ot|word) (?:the word )?(\w+)[ ?.]*(?:but|into|$)", instruction)[1]
        )
        assert back[output] == word, instruction


def test_a_misspelling_is_one_slip_away_from_one_known_word():
    right = {word.lower() for word in lexicon.SPELLED}
    for instruction, given, output in of("spelling"):
        words = re.findall(r"[A-Za-z]+", given or instruction)
        slips = [w for w in words if w.lower() not in right and sorted(set(w)) and output in fixes(w)]
        assert slips, (instruction, given)
        (slip,) = set(slips)
        assert {w for w in fixes(slip) if w.lower() in right} == {output}


def fixes(slip: str) -> set[str]:
    """Every known word of which `slip` could be a slip: letters swapped, one left out, one doubled."""
    return {word for word in lexicon.SPELLED if slip in tasks.misspelled(word)}


def test_slips_of_a_short_word():
    assert tasks.misspelled("cat") == ["ct", "cta"] and "catt" not in tasks.misspelled("cat")
    assert "appple" in tasks.misspelled("apple") and "apple" not in tasks.misspelled("apple")


def test_a_corrected_sentence_differs_in_one_place():
    for instruction, given, output in of("grammar"):
        wrong = (given or instruction.split(": ", 1)[1]).split()
        right = output.split()
        assert len(wrong) == len(right) and sum(a != b for a, b in zip(wrong, right)) == 1, output
    for said, noun in re.findall(r"\b([Aa]n?) (\w+)", " ".join(output for _, _, output in of("grammar"))):
        assert said.lower() == articles.article(noun)


def test_the_article_follows_the_sound():
    for word in (
        "useful",
        "unicorn",
        "uniform",
        "usual",
        "European",
        "one",
        "ewe",
        "house",
        "yellow",
        "bear",
    ):
        assert articles.article(word) == "a", word
    for word in (
        "umbrella",
        "unkind",
        "uninvited",
        "ugly",
        "usher",
        "hour",
        "honest",
        "heir",
        "egg",
        "only",
        "Owl",
    ):
        assert articles.article(word) == "an", word
    assert articles.with_articles("A owl saw a useful box in a hour") == "An owl saw a useful box in an hour"


def test_questions_have_the_words_of_the_sentence():
    for instruction, given, output in of("questions"):
        said = given or instruction.split(": ", 1)[1]
        assert output.endswith("?") and sorted(output.lower()[:-1].split()) == sorted(
            said.lower()[:-1].split()
        )
        assert output.split()[0].lower() in ("is", "was", *lexicon.ABLE)


def test_polite_orders_are_the_order_with_please():
    for instruction, given, output in of("politeness"):
        order = (given or instruction.split(": ", 1)[1]).rstrip(".").lower()
        assert output.lower() in (f"please {order}.", f"could you {order}, please?")
        assert output.startswith("Could") == bool(re.search("question|could you", instruction))


def test_answers_about_a_story_stand_in_it():
    told = [story.text for story in stories.stories(500)]
    for _, given, output in of("story questions"):
        words = output.removeprefix("the ").removeprefix("a ").removeprefix("an ")
        assert re.search(rf"\b{words}\b", given), given
        assert any(given in story for story in told)


def test_the_last_word_is_the_last_word():
    for instruction, given, output in of("last word"):
        assert re.search(rf"\b{output}\W*$", given or instruction)


def test_groups_and_rhymes_name_one_of_those_offered():
    groups = {word: group for group, words in lexicon.CATEGORIES.items() for word in words}
    assert len(groups) == sum(len(words) for words in lexicon.CATEGORIES.values())
    for instruction, given, output in of("categories"):
        word = given or next(w for w in re.findall(r"[a-z]+", instruction)[::-1] if w in groups)
        assert groups[word] == output, instruction
    for instruction, given, output in of("rhymes"):
        assert re.search(rf"\b{output}\b", given or instruction)


# Classes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", classification.SETS)
def test_classes_are_balanced_in_every_part(name):
    found = shipped(name)
    labels = set(classification.SETS[name][0])
    for split, count in classification.SPLITS[name].items():
        assert Counter(row["label"] for row in found if row["split"] == split) == dict.fromkeys(labels, count)
    order = [row["label"] for row in found]
    assert max(len(list(run)) for _, run in itertools.groupby(order)) < 20  # mixed
    mean = {
        label: sum(len(r["text"]) for r in found if r["label"] == label) / order.count(label)
        for label in labels
    }
    assert max(mean.values()) < 1.25 * min(mean.values())


@pytest.mark.parametrize("name", classification.SETS)
def test_half_of_the_test_rows_use_wordings_that_training_never_saw(name):
    frames, _ = classification.SETS[name]

    def used(wording: str, part: list[dict[str, str]]) -> int:
        bits = [re.escape(bit) for bit in re.split(r"\{\w+\}", wording.lower()) if bit.strip()]
        return sum(bool(re.search(".+".join(bits), row["text"].lower())) for row in part)

    found = shipped(name)
    train = [row for row in found if row["split"] == "train"]
    test = [row for row in found if row["split"] == "test"]
    for label, wordings in frames.items():
        long = [w for w in wordings[classification.HELD - 1 :: classification.HELD] if len(w.split()) > 6]
        for wording in long:
            assert not used(wording, [row for row in train if row["label"] == label]), wording
        assert (
            sum(used(w, [row for row in test if row["label"] == label]) for w in long) > 0 or len(long) == 0
        )


def test_no_single_word_tells_the_class():
    for name, guess, most in (("classification-two", 0.5, 0.7), ("classification-five", 0.2, 0.4)):
        word, share = classification.single_word(shipped(name))
        assert guess < share <= most, word


def test_measures_on_rows_made_by_hand():
    told = [("red cat", "a"), ("red dog", "a"), ("blue cat", "b"), ("blue red", "b")]
    found = [dict(text=text, label=label) for text, label in told]
    assert classification.single_word(found) == ("blue", 1.0)
    assert classification.bag_of_words(found, found) == 1.0
    assert classification.bag_of_words(found[:3], [dict(text="blue cat", label="a")]) == 0.0
    fresh = [dict(text="no word of it", label="a"), dict(text="nor of this", label="b")]
    assert classification.bag_of_words(found, fresh) == 0.5  # nothing but the prior: one class for both


def test_a_used_up_wording_is_said():
    with pytest.raises(ValueError, match="used up"):
        classification._new(
            lambda: "always the same text", [duplicates.pieces("always the same text")]
        )  # fmt: skip


# Preferences ------------------------------------------------------------------------------------------------------------


def test_reasons_are_balanced_and_length_tells_nothing():
    for split, count in preferences.SPLITS.items():
        part = [row for row in PAIRS if row["split"] == split]
        assert Counter(row["why"] for row in part) == dict.fromkeys(preferences.REASONS, count)
    for why in preferences.REASONS:
        part = [row for row in PAIRS if row["why"] == why]
        assert 0.45 <= preferences.longer(part) <= 0.55
        chosen, rejected = (sum(len(row[side].split()) for row in part) for side in ("chosen", "rejected"))
        assert abs(chosen - rejected) < 0.02 * chosen
    assert preferences.single_word(PAIRS)[1] < 0.62


def test_no_story_of_the_preferences_was_told_before():
    shipped_text = corpora.path("stories").read_text(encoding="utf-8")
    beginnings = {row["prompt"] for row in PAIRS}
    assert len(beginnings) == len(PAIRS)
    assert not any(row["prompt"].split("\n\n")[1] in shipped_text for row in PAIRS)


def test_a_fitting_ending_speaks_of_the_hero_and_the_other_does_not():
    names = set(story_check.NAME_PRONOUN)
    part = [row for row in PAIRS if row["why"] == "more fitting"]
    for row in part:
        heroes = names & set(re.findall(r"\w+", row["prompt"]))
        assert names & set(re.findall(r"\w+", row["chosen"])) == heroes
        assert not names & set(re.findall(r"\w+", row["rejected"])) & heroes
    assert Counter(row["chosen"] for row in part) == Counter(row["rejected"] for row in part)  # no word tells


def test_a_finished_ending_makes_a_whole_story_and_the_other_breaks_off():
    for row in PAIRS:
        if row["why"] == "finished":
            assert re.search(r'[.!?]"?$', row["chosen"]) and not re.search(r'[.!?,]"?$', row["rejected"])
        else:
            assert re.search(r'[.!?]"?$', row["chosen"]) and re.search(r'[.!?]"?$', row["rejected"])


def test_kind_and_rude_begin_alike_and_differ():
    for row in PAIRS:
        if row["why"] == "kinder":
            first = story_check.sentences(row["chosen"])[0].text
            assert row["rejected"].startswith(first) and row["chosen"] != row["rejected"]
            assert "{" not in row["chosen"] + row["rejected"] + row["prompt"]


def test_measures_on_pairs_made_by_hand():
    def pair(chosen: str, rejected: str) -> dict[str, str]:
        return dict(chosen=chosen, rejected=rejected)

    assert preferences.longer([pair("abc", "ab"), pair("a", "b"), pair("a", "bc"), pair("ab", "c")]) == 0.625
    found = [pair("yes sir", "no sir"), pair("yes", "well"), pair("no yes", "no"), pair("hm", "no")]
    assert preferences.single_word(found) == ("yes", 0.875)  # three of four, the fourth is a guess


# The command --------------------------------------------------------------------------------------------------------------


def test_the_command_writes_the_rows(tmp_path):
    seed = str(random.Random(1).randrange(100))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "llm.corpora", "classification", "--seed", seed, "--out", str(tmp_path / folder)],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"rows: 700 (seed {seed})" in done.stdout and "best rule by a single word" in done.stdout
    for name in ("classification-two.csv", "classification-five.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes() != (paths.shipped_datasets() / name).read_bytes()


def test_a_folder_that_is_not_there_is_said(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "llm.corpora", "classification", "--out", str(tmp_path / "nowhere")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "nowhere" in done.stderr and "Traceback" not in done.stderr


def test_names_and_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_HOME", str(tmp_path))
    assert corpora.row_names() == list(corpora.ROWS)
    (paths.datasets() / "mine.jsonl").write_text('{"text": "a"}\n')
    (paths.datasets() / ".half.jsonl").write_text("")
    (paths.datasets() / "preferences.jsonl").write_text("{}")  # the shipped name stays the shipped file
    assert corpora.row_names() == [*corpora.ROWS, "mine"]
    assert corpora.row_path("mine") == paths.datasets() / "mine.jsonl"
    assert corpora.row_path("preferences") == paths.shipped_datasets() / "preferences.jsonl"
    for wrong in ("../mine", "nothing", "/etc/passwd", ""):
        with pytest.raises(ValueError):
            corpora.row_path(wrong)
