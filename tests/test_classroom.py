"""What a class shares: people, answers, questions with guesses, a race, hand-ins that are checked."""

import csv
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llm import classroom, handin, race
from llm.config import RunConfig, TrainConfig, to_dict
from llm.runs import Run


def test_visitors_have_names_and_places(home):
    assert classroom.heard("abcd1234", "tokens", "windows", 2) == "guest abcd"
    assert classroom.rename("abcd1234", "  Ada \n Lovelace  ") == "Ada Lovelace"
    classroom.heard("abcd1234", "train", error="too large")
    classroom.heard("abcd1234", "train")
    [one] = classroom.people()
    assert (one["name"], one["tab"], one["error"]) == ("Ada Lovelace", "train", "too large") and one[
        "away"
    ] < 5
    with pytest.raises(ValueError, match="called 'ada lovelace' already"):
        classroom.rename("other", "ada lovelace")
    for bad in ("", " \n", "\x00\x07"):
        with pytest.raises(ValueError, match="Type a name"):
            classroom.rename("other", bad)


def test_guesses_are_given_once_and_shown_after_the_reveal(home):
    first = classroom.ask("Next?", [])
    id = classroom.ask("Which?", ["up", "down"], "story-llama", "Long ago, a")
    assert classroom.poll()["id"] == id != first  # the one before is closed
    classroom.guess("a", id, "up")
    for text, sentence in (("up", "already"), ("down", "already")):
        with pytest.raises(ValueError, match=sentence):
            classroom.guess("a", id, text)
    with pytest.raises(ValueError, match="Choose one"):
        classroom.guess("b", id, "sideways")
    classroom.guess("b", id, "down")
    assert classroom.guessed("a", id) == "up" and classroom.guessed("c", id) is None
    classroom.reveal(id, [{"text": " fox", "probability": 0.5}])
    found = classroom.poll()
    assert found["guesses"] == {"up": 1, "down": 1} and found["truth"][0]["probability"] == 0.5
    with pytest.raises(ValueError, match="over"):
        classroom.guess("c", id, "up")
    classroom.close(id)
    assert classroom.poll() is None
    with pytest.raises(ValueError, match="question is empty"):
        classroom.ask("  ", [])


def test_thirty_guess_at_once(home):
    id = classroom.ask("Next?", [])
    with ThreadPoolExecutor(15) as pool:
        list(pool.map(lambda n: classroom.guess(f"p{n}", id, "a" if n % 3 else "b"), range(30)))
    assert classroom.poll()["guesses"] == {"a": 20, "b": 10}


def test_what_the_teacher_says_is_numbered_and_survives(home):
    assert classroom.told("follow") == (None, 0)
    assert classroom.say("follow", "?tab=train") == 1 and classroom.say("follow", None) == 2
    assert classroom.told("follow") == (None, 2)
    classroom.forget_all()
    assert classroom.people() == [] and classroom.told("follow") == (None, 0)


def trained(name, owner, bits, status="finished", dataset="stories", **changes):
    """A run whose log says so."""
    config = RunConfig(
        dataset=dataset, train=TrainConfig(max_steps=100, batch_size=10, warmup_steps=5, **changes)
    )
    run = Run.create("train", to_dict(config), owner, name)
    run.append("step", step=1, loss=7.0)
    run.append("evaluate", step=100, val_loss=2.0 * bits, bits_per_byte=bits)
    if status != "running":
        run.append("end", reason=status, step=100)
    return run


def test_the_race_ranks_the_best_run_of_each_within_the_budget(home):
    rules = race.rules("stories", 100 * 10 * 256)
    assert (
        race.budget(RunConfig(train=TrainConfig(max_steps=100, batch_size=10, warmup_steps=5)))
        == rules["tokens"]
    )
    trained("a-worse", "a", 1.5)
    trained("a-better", "a", 1.2)
    trained("b-best", "b", 1.1, status="stopped")
    trained("c-too-many", "c", 0.5, grad_accumulation=2)
    trained("d-unshifted", "d", 0.0, shift=0)
    trained("e-held-out-less", "e", 0.4, validation_fraction=0.01)
    trained("f-failed", "f", 0.1, status="failed")
    rows = race.standing(rules, {"a": "Ada"})
    assert [(row["rank"], row["who"], row["run"]) for row in rows] == [
        (1, "somebody", "b-best"),
        (2, "Ada", "a-better"),
    ]
    assert rows[0]["tokens"] == rules["tokens"]
    assert race.standing({**rules, "begun": time.time() + 5}, {}) == []  # what began before does not count
    assert "another share" in race.refusal(rules, Run.open("e-held-out-less"))
    with pytest.raises(ValueError, match="at least 1,000"):
        race.rules("stories", 10)
    with pytest.raises(ValueError, match="no text called"):
        race.rules("nothing", 10_000)


def test_a_hand_in_is_checked_against_what_is_kept_here(home, tmp_path, capsys):
    classroom.rename("ada", "Ada")
    classroom.answer("ada", "tokens", 1, "1")
    classroom.answer("ada", "windows", 3, "=to know")
    trained("of-ada", "ada", 1.2, seed=7)
    trained("of-bob", "bob", 1.0)
    made = handin.made("ada")
    assert [one["right"] for one in made["answers"]] == [True, None] and made["person"] != "ada"
    assert [run["name"] for run in made["runs"]] == ["of-ada"] and made["runs"][0]["seed"] == 7
    assert made["runs"][0]["figures"]["bits_per_byte"] == 1.2
    file = tmp_path / "ada.json"
    file.write_text(json.dumps(made))
    with pytest.raises(SystemExit) as ended:
        handin.main([str(file), "--csv", str(tmp_path / "table.csv")])
    assert ended.value.code == 0 and "0 not as kept here" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["check"] for row in rows] == ["as kept here"] * 3 and rows[1]["value"] == "'=to know"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda made: made["runs"][0]["figures"].update(bits_per_byte=0.9), "its log says"),
        (lambda made: made["runs"][0].update(sha256="0" * 64), "its log is another one"),
        (lambda made: made["runs"][0].update(name="gone"), "not here"),
        (lambda made: made["runs"][0].update(name="of-bob"), "the run is somebody else's"),
        (lambda made: made["runs"][0]["config"].update(dataset="verse"), "its settings are others"),
        (lambda made: made["answers"][0].update(answer="5"), "here it is '1'"),
        (lambda made: made["answers"][0].update(step=9), "not here"),
    ],
)
def test_a_changed_hand_in_is_found_out(home, change, sentence):
    classroom.answer("ada", "tokens", 1, "1")
    trained("of-ada", "ada", 1.2)
    trained("of-bob", "bob", 1.0)
    made = json.loads(json.dumps(handin.made("ada")))
    change(made)
    assert sum(sentence in row["check"] for row in handin.checked(made)) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "hand-in", "version": 2}', "\x00"])
def test_what_is_no_hand_in_is_a_sentence(home, tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"x\.json (cannot be read|is no hand-in|is of version 2)"):
        handin.read(file)
