"""The Finetune tab's controls and its Data room: what is said of rows, and that its pictures hold what training gets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from llm import corpora, paths, prompts, rows, tokenizer
from llm.tuning_defaults import defaults
from tests.test_hub import ROW_FILES, TRAIN, server  # noqa: F401 - a fixture
from ui import tune_rows as room
from ui.figures import tune_rows as figures
from ui.tabs import finetune as tab

MODEL = "story-llama"
NO_COLUMNS = [""] * room.FIELDS
GOOD = [
    {"instruction": "Name a colour.", "input": None, "output": "Red."},
    {"instruction": "Say it again.", "input": "The fox ran.", "output": "The fox ran. " * 3},
    {"instruction": "Name a fruit.", "input": "", "output": "A pear."},
]


def source(origin=room.ABOVE, objective="instruct", dataset=None, uploaded=None, pasted="", fetched=""):
    return [origin, objective, dataset, uploaded, pasted, fetched]


def pasted(value) -> list:
    return source(room.PASTE, pasted=value if isinstance(value, str) else json.dumps(value))


def choices(asked, drop=False, validation=0.05, test=0.1, kind="", columns=()) -> list:
    return [*asked, kind, drop, validation, test, *columns, *[""] * (room.FIELDS - len(columns))]


def drawn(asked, **named) -> list:
    return room.drawn(None, *choices(asked, **named))


def words(html) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).strip()


def kept(value, name, objective="instruct") -> str:
    """Rows that are pasted and kept, as a student does it; their name."""
    chosen, dataset, told = room.keep(None, name, *choices(pasted(value)))
    assert chosen == objective and dataset["value"] in dataset["choices"] and dataset["value"] in told
    return dataset["value"]


# ---- The controls above the rooms --------------------------------------------------------------------------------


def test_each_objective_has_its_own_datasets():
    classes = kept([dict(text=t, label=t[0]) for t in ("ab", "ac", "ba", "bc")], "letters", "classify")
    pairs = kept([dict(prompt="Hi", chosen="Hello.", rejected="No.")], "pairs", "prefer")
    orders = kept(GOOD, "orders")
    text = kept("One story.\n<|endoftext|>\nAnother one.", "tales", "pretrain")
    for name, objective in (
        (classes, "classify"),
        (pairs, "prefer"),
        (orders, "instruct"),
        (text, "pretrain"),
    ):
        assert [o for o in tab.OBJECTIVES if name in tab.datasets(o)] == [objective]


def test_what_fits_stays_and_the_rest_is_replaced():
    name = kept(GOOD, "orders")
    dataset, style, mask, packing, length = tab.fitting("instruct", MODEL, name, "chatml")
    assert (dataset["value"], style["value"]) == (name, "chatml")
    assert style["visible"] and mask["visible"] and packing["visible"] and length["visible"]
    dataset, style, mask, packing, length = tab.fitting("classify", MODEL, name, "chatml")
    assert dataset["value"] == defaults("classify").dataset and name not in dataset["choices"]
    assert not style["visible"] and not mask["visible"] and not packing["visible"] and length["visible"]
    assert not tab.fitting("pretrain", MODEL, name, "chatml")[3]["visible"]


def test_a_template_of_its_own_is_offered_where_the_model_has_one(tmp_path):
    import shutil

    folder = paths.models() / "talker"
    shutil.copytree(paths.model_folder(MODEL), folder)
    assert tab.OWN not in tab.styles("talker")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    assert tab.OWN in tab.styles("talker")
    assert tab.fitting("instruct", MODEL, "instructions", "own")[1]["value"] == "plain"
    assert tab.fitting("instruct", "talker", "instructions", "own")[1]["value"] == "own"
    assert tab.styles("no-such-model") == tab.styles(None)


# ---- What is in the rows -----------------------------------------------------------------------------------------


def test_the_shipped_rows_are_the_worked_example():
    asked = source(dataset="instructions")
    summary, _, split, _, download, keep = drawn(asked)
    stored = json.loads(corpora.row_path("instructions").read_text())
    assert f"rows to learn from {len(stored):,}" in words(summary)
    for part in ("train", "validation", "test", "unseen"):
        n = sum(row["split"] == part for row in stored)
        assert f"{part} {n:,} rows" in words(split)
    assert "No held-out row stands in train too" in split
    assert not download["visible"] and not keep["interactive"]


def test_columns_are_guessed_and_can_be_changed():
    table = [
        dict(question="Name a colour.", response="Red.", remark="Blue."),
        dict(question="Name a fruit.", response="Pear.", remark="Plum."),
    ]
    asked = pasted(table)
    kind, *columns = room.opened(None, *asked)
    assert kind["value"] == "instruction"
    assert [box["value"] for box in columns[:3]] == ["question", "", "response"]
    assert not columns[6]["visible"]
    assert "Columns: instruction from question, output from response." in words(drawn(asked)[0])
    mapped = dict(kind="instruction", columns=["question", "", "remark"])
    assert "output from remark" in words(drawn(asked, **mapped)[0])
    shown = room.row_drawn(
        None, MODEL, "plain", 0, 2, *asked, "instruction", "question", "", "remark", *[""] * 4
    )
    assert "Plum" in words(shown).replace(" ", "") and "Pear" not in words(shown).replace(" ", "")


def test_a_field_set_to_not_used_is_not_guessed_again():
    asked = pasted([dict(instruction="Say it.", input="SECRET", output="It.")])
    shown = room.row_drawn(
        None, MODEL, "plain", 0, 1, *asked, "instruction", "instruction", "", "output", *[""] * 4
    )
    assert "SECRET" not in re.sub(r"<[^>]+>", "", shown)
    seen = room.looked_at(room.found(None, *asked), "instruct", "instruction", ["instruction", "", "output"])
    _, made = room.written_whole(
        room.found(None, *asked), seen, room.run_of("instruct", MODEL, "", "plain", True, False, 0)
    )
    assert made[0].source["input"] == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[\n{"instruction": "a", "output": "b"},\n{"instruction": "a" "output": "b"}]', "breaks at line 3"),
        ("text,label\na,x\nb,x\n", "All 2 rows have the label &#x27;x&#x27;"),
        ("", "Paste rows first"),
        ('[{"apple": 1, "pear": 2}]', "of no known kind"),
        ('[{"instruction": "a"}]', "of no known kind"),
    ],
)
def test_what_cannot_be_used_at_all_is_one_sentence(text, sentence):
    summary, remarks, *_, keep = drawn(pasted(text))
    assert sentence in summary + remarks and not keep["interactive"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (dict(instruction="Name the opposite."), "output is missing"),
        (dict(instruction=" ", output="x"), "instruction is empty"),
        (dict(prompt="a", chosen="same", rejected="same"), "chosen and rejected are the same answer"),
        (dict(messages=[dict(role="wizard", content="a")]), "has the role 'wizard'"),
    ],
)
def test_a_bad_row_is_named_with_its_reason_and_can_be_taken_away(row, reason):
    good = {
        "instruction": dict(instruction="Name a colour.", output="Red."),
        "prompt": dict(prompt="Hi", chosen="Hello.", rejected="No."),
        "messages": dict(messages=[dict(role="user", content="a"), dict(role="assistant", content="b")]),
    }
    asked = pasted([good[next(iter(row))], row])
    summary, _, _, out, download, keep = drawn(asked)
    assert "left out 1" in words(summary) and keep["interactive"]
    assert words(out).count("2 ") and reason.replace("'", "&#x27;") in words(out)
    line = json.loads(Path(download["value"]).read_text())
    assert line["row"] == 2 and reason in line["reason"] and line.items() >= row.items()
    assert reason.replace("'", "&#x27;") in room.row_drawn(
        None, MODEL, "plain", 0, 2, *asked, "", *NO_COLUMNS
    )


def test_foreign_text_is_escaped():
    evil = "<img src=x onerror=alert(1)>"
    asked = pasted([{"instruction": evil, "output": evil, evil: 1}, {"instruction": evil}])
    drawings = [*drawn(asked)[:4], room.row_drawn(None, MODEL, "plain", 0, 1, *asked, "", *NO_COLUMNS)]
    name = kept([{"instruction": evil, "output": evil}] * 3, "evil")
    drawings += [room.batch_drawn("instruct", MODEL, name, "plain", True, False, 0, 1)]
    assert any("&lt;" in drawing for drawing in drawings)
    assert not any("<img" in drawing for drawing in drawings)


def test_repeats_are_counted_and_left_out():
    again = [GOOD[0], {**GOOD[0], "output": "  RED. "}, GOOD[2], {**GOOD[2], "output": "Plum."}]
    html = words(room.repeated(None, *pasted(again), "", *NO_COLUMNS))
    assert "said before 1" in html and "same question, other answer 1" in html
    assert "rows to learn from 4" in words(drawn(pasted(again))[0])
    summary, remarks, *_ = drawn(pasted(again), drop=True)
    assert "rows to learn from 3" in words(summary) and "1 repeated rows are left out" in remarks


def test_leaks_into_the_held_out_rows_are_counted():
    table = [{**GOOD[0], "split": part} for part in ("train", "validation", "test")]
    split = words(drawn(pasted(table))[2])
    assert split.count("1 of them also in train") == 2


def test_rows_are_kept_with_the_split_that_was_shown():
    table = [dict(instruction=f"Say {n}.", output=f"It is {n}.") for n in range(20)]
    _, dataset, _ = room.keep(None, "numbers", *choices(pasted(table), validation=0.2, test=0.25))
    stored = [json.loads(line) for line in corpora.row_path(dataset["value"]).open()]
    assert [sum(row["split"] == part for row in stored) for part in ("train", "validation", "test")] == [
        11,
        4,
        5,
    ]
    shown = words(drawn(source(dataset=dataset["value"]))[2])
    assert "train 11 rows" in shown and "validation 4 rows" in shown and "test 5 rows" in shown
    config = room.run_of("instruct", MODEL, dataset["value"], "plain", True, False, 0)
    assert {name: len(part) for name, part in room.tuning.examples_of(config).parts.items()} == dict(
        train=11, validation=4, test=5
    )


@pytest.mark.parametrize("share", [0.5, -0.1, None, "a"])
def test_a_share_that_is_none_is_refused_in_words(share):
    assert "Validation is a share" in drawn(pasted(GOOD), validation=share)[0]


def test_nothing_is_kept_of_what_cannot_be_trained_on():
    with pytest.raises(ValueError, match="needs at least two classes"):
        room.keep(None, "x", *choices(pasted("text,label\na,x\nb,x\n")))
    with pytest.raises(ValueError, match="kept already"):
        room.keep(None, "x", *choices(source(dataset="instructions")))


def test_a_file_is_read_again_when_it_has_changed(tmp_path):
    import os

    path = tmp_path / "mine.csv"
    path.write_text("instruction,output\na,b\n")
    asked = source(room.FILE, uploaded=str(path))
    assert "rows to learn from 1" in words(drawn(asked)[0])
    path.write_text("instruction,output\na,b\nc,d\n")
    os.utime(path, ns=(1, 1))
    assert "rows to learn from 2" in words(drawn(asked)[0])


# ---- The pictures against what training gets ---------------------------------------------------------------------


def test_lengths_are_those_of_what_is_trained_on():
    name = kept(GOOD, "orders")
    asked = [*source(dataset=name), "", *NO_COLUMNS]
    config = room.run_of("instruct", MODEL, name, "plain", True, False, 0)
    examples = [e for part in room.tuning.examples_of(config).parts.values() for e in part]
    longest = max(len(e.texts[0]) - 1 for e in examples)
    html, cut = room.measured(None, MODEL, "plain", 0, *asked)
    assert f"the longest {longest}" in words(html) and "nothing is cut" in cut
    html, cut = room.measured(None, MODEL, "plain", longest - 2, *asked)
    found = room.tuning.examples_of(room.run_of("instruct", MODEL, name, "plain", True, False, longest - 2))
    assert found.truncated == [2] and f"2 {longest} {longest - 2} cut at its end" in words(cut)


def test_a_prompt_that_fills_the_limit_is_named_as_training_names_it():
    name = kept([GOOD[0], GOOD[2], GOOD[1]], "orders")
    examples = room.tuning.examples_of(room.run_of("instruct", MODEL, name, "plain", True, False, 0)).parts[
        "train"
    ]
    begin = int(
        next(e for e in examples if e.row == 3).texts[0].answer.argmax()
    )  # tokens of the longest prompt
    found = room.tuning.examples_of(room.run_of("instruct", MODEL, name, "plain", True, False, begin - 1))
    assert [row for row, _ in found.rejected] == [3]
    _, cut = room.measured(None, MODEL, "plain", begin - 1, *source(dataset=name), "", *NO_COLUMNS)
    assert f"3 its prompt alone fills the {begin - 1} tokens" in words(cut)
    drawing = room.row_drawn(None, MODEL, "plain", begin - 1, 3, *source(dataset=name), "", *NO_COLUMNS)
    assert " 0 of them learnt" in words(drawing) and "do not fit and are cut off" in drawing


@pytest.mark.parametrize("style", [*prompts.STYLES])
def test_a_row_shows_every_token_and_what_is_learned(style):
    asked = pasted(GOOD)
    folder = paths.model_folder(MODEL)
    encoding = tokenizer.load(folder)
    manner = prompts.manner(style, folder, encoding)
    row = rows.check(rows.read(json.dumps(GOOD))).good[1]
    (written,) = prompts.write(manner, encoding, [prompts.conversation(row, manner.joint)])
    html = room.row_drawn(None, MODEL, style, 0, 2, *asked, "", *NO_COLUMNS)
    body = html.partition("class='ft-text'")[2]
    spans = re.findall(r"<span class='([^']*)'>(.*?)</span>", body)
    assert len(spans) == len(written)
    assert ["ft-learned" in kind for kind, _ in spans] == written.answer.tolist()
    assert f"{len(written)} tokens, {int(written.answer[1:].sum())} of them learnt" in words(html)


def cells(html: str, kind: str) -> list[list[int]]:
    """The ids in the lines of inputs ("x") or targets ("y") of a drawn batch."""
    lines = re.findall(rf"<tr class='{kind}'>(.*?)</tr>", html)
    return [[int(id) for id in re.findall(r">(-?\d+)</(?:small|td)>", line)] for line in lines]


@pytest.mark.parametrize(
    ("objective", "dataset", "masked"),
    [("instruct", "instructions", True), ("instruct", "instructions", False)],
)
def test_the_batch_is_the_one_that_trains(objective, dataset, masked):
    """Against the objective of the loop itself, for the batches of several steps."""
    from dataclasses import replace

    from llm.objectives import OBJECTIVES
    from ui.plans import shape_of

    config = replace(room.run_of(objective, MODEL, dataset, "plain", masked, False, 0), model=shape_of(MODEL))
    loop = OBJECTIVES[objective](config, tokenizer.load(paths.model_folder(MODEL)))
    for number in (1, 2, 30):
        inputs, targets = loop.batch(number - 1)
        html = room.batch_drawn(objective, MODEL, dataset, "plain", masked, False, 0, number)
        assert cells(html, "x") == inputs[: room.DRAWN].tolist()
        assert cells(html, "y") == targets[: room.DRAWN].tolist()
        assert f"{int((targets != -100).sum()):,} count for the loss" in words(html)


def test_packed_rows_are_drawn_as_they_train():
    from dataclasses import replace

    from llm.objectives import Instruct
    from ui.plans import shape_of

    config = room.run_of("instruct", MODEL, "instructions", "plain", True, True, 0)
    loop = Instruct(replace(config, model=shape_of(MODEL)), tokenizer.load(paths.model_folder(MODEL)))
    for number in (1, 7):
        inputs, targets, positions = loop.batch(number - 1)
        html = room.batch_drawn("instruct", MODEL, "instructions", "plain", True, True, 0, number)
        assert cells(html, "x") == inputs[: room.DRAWN].tolist()
        assert cells(html, "y") == targets[: room.DRAWN].tolist()
        first = re.search(r"<tr class='x'>(.*?)</tr>", html)[1].split("<td ")[1:]
        begins = [place for place, cell in enumerate(first) if "ft-begin" in cell]
        real = [place for place, cell in enumerate(first) if "ft-pad" not in cell]
        assert begins == [place for place in real if positions[0, place] == 0] and begins[0] == 0
        assert f"They lie in {len(inputs)} lines" in words(html)
        assert f"{int((targets != -100).sum()):,} count for the loss" in words(html)


def test_a_pair_is_drawn_side_by_side_and_as_it_trains():
    from dataclasses import replace

    from llm.objectives import Prefer
    from ui.plans import shape_of

    table = [dict(prompt=f"Say {n}.", chosen=f"It is {n}.", rejected="No, I will not.") for n in range(12)]
    name = kept(table, "pairs", "prefer")
    config = replace(room.run_of("prefer", MODEL, name, "plain", True, False, 0), model=shape_of(MODEL))
    inputs, targets = Prefer(config, tokenizer.load(paths.model_folder(MODEL))).pairs(
        room.picked(config, room.tuning.examples_of(config), 0)
    )
    html = room.batch_drawn("prefer", MODEL, name, "plain", True, False, 0, 1)
    assert cells(html, "x") == inputs.flatten(0, 1)[: room.DRAWN].tolist()
    assert cells(html, "y") == targets.flatten(0, 1)[: room.DRAWN].tolist()
    row = room.row_drawn(
        None, MODEL, "plain", 0, 1, *source(objective="prefer", dataset=name), "", *NO_COLUMNS
    )
    assert "Row 1, chosen" in row and "Row 1, rejected" in row


def test_a_classifier_reads_the_last_real_token():
    from dataclasses import replace

    from llm.objectives import Classify
    from ui.plans import shape_of

    table = [dict(text="word " * (1 + n % 5) + str(n), label="ab"[n % 2]) for n in range(40)]
    name = kept(table, "words", "classify")
    config = replace(room.run_of("classify", MODEL, name, "plain", True, False, 0), model=shape_of(MODEL))
    inputs, last, labels = Classify(config, tokenizer.load(paths.model_folder(MODEL))).batch(0)
    html = room.batch_drawn("classify", MODEL, name, "plain", True, False, 0, 1)
    assert cells(html, "x") == inputs[: room.DRAWN].tolist() and not cells(html, "y")
    read = [
        re.findall(r"<td class='([^']*)'", line) for line in re.findall(r"<tr class='x'>(.*?)</tr>", html)
    ]
    assert [["ft-read" in kind for kind in line].index(True) for line in read] == last[: room.DRAWN].tolist()
    for label in labels[: room.DRAWN].tolist():
        assert f"is to say {'ab'[label]}." in html


def test_the_first_end_of_text_is_kept_as_a_target_and_the_filling_is_not():
    ids = [np.array([5, 6, 7, 0]), np.array([5, 0])]
    texts = [prompts.Written(one, np.array([False] + [True] * (len(one) - 1))) for one in ids]
    inputs, targets = prompts.padded(texts, 0)
    lines = [figures.Line("r", x.tolist(), y.tolist(), len(t) - 1) for x, y, t in zip(inputs, targets, texts)]
    html = figures.batch(lines, {i: str(i) for i in range(8)}, 2, "", 0)
    assert cells(html, "y") == [[6, 7, 0], [0, -100, -100]]
    assert html.count("ft-end") == 2  # one a row: the end that each is to learn


def test_steps_go_through_all_rows_also_those_left_out():
    asked = [*pasted([GOOD[0], {"instruction": "a"}, GOOD[2]]), "", *NO_COLUMNS]
    assert [room.stepped(None, 1, n, *asked) for n in (1, 2, 3)] == [2, 3, 1]
    assert [room.stepped(None, -1, n, *asked) for n in (1, 2, 3)] == [3, 1, 2]


def test_text_has_no_prompts_and_says_so():
    asked = source(objective="pretrain", dataset="verse")
    assert "windows" in room.batch_drawn("pretrain", MODEL, "verse", "plain", True, False, 0, 1)
    assert "windows" in room.measured(None, MODEL, "plain", 0, *asked, "", *NO_COLUMNS)[0]
    assert "Plain text" in drawn(asked)[0]


def test_a_model_that_has_gone_is_said_in_place():
    for html in (
        room.batch_drawn("instruct", "no-such-model", "instructions", "plain", True, False, 0, 1),
        room.row_drawn(None, "no-such-model", "plain", 0, 1, *pasted(GOOD), "", *NO_COLUMNS),
        room.measured(None, "no-such-model", "plain", 0, *pasted(GOOD), "", *NO_COLUMNS)[0],
    ):
        assert "no-such-model" in html and "lab-warning" in html


# ---- The Hub -----------------------------------------------------------------------------------------------------


def test_rows_come_from_the_hub_and_are_kept(server):  # noqa: F811
    files, told, button = room.listed_on_hub("https://huggingface.co/datasets/org/rows", "")
    assert files["value"] == TRAIN and button["interactive"] and "Licence: mit" in told
    said = list(room.fetch(None, "org/rows", TRAIN, ""))
    assert f"{TRAIN}: 0 bytes of 2.0 MB" in said[0][0] and "is here" in said[-1][0]
    asked = source(room.HUB, fetched=said[-1][1])
    assert f"rows to learn from {ROW_FILES[TRAIN].count(b'{'):,}" in words(drawn(asked)[0])
    _, dataset, _ = room.keep(None, "from-hub", *choices(asked, drop=True))
    assert len(corpora.row_path(dataset["value"]).read_text().splitlines()) == 1


def test_the_hub_refuses_in_words(server):  # noqa: F811
    import gradio as gr

    assert "The Hub has no dataset org/nothing" in room.listed_on_hub("org/nothing", "")[1]
    assert "is no repository of the Hub" in room.listed_on_hub("../../etc/passwd", "")[1]
    assert "It is gated" in room.listed_on_hub("org/closed", "")[1]
    with pytest.raises(gr.Error, match="accept its terms"):
        list(room.fetch(None, "org/closed", TRAIN, ""))


@pytest.mark.parametrize("fetched", ["", "{}", "[1]", '{"repo": "../..", "revision": "main", "file": "a"}'])
def test_what_was_fetched_cannot_be_made_up(fetched):
    html = drawn(source(room.HUB, fetched=fetched))[0]
    assert "Enter the id" in html or "no repository of the Hub" in html
