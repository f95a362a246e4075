"""The Windows tab without a browser: what it draws is what training would read, and every refusal is a sentence."""

import re
import types
from dataclasses import replace

import numpy as np
import pytest

from llm import corpora, data, tokenizer
from llm.config import RunConfig, TrainConfig
from llm.objectives import Pretrain
from ui.figures import windows as figures
from ui.tabs import windows as tab

LONG = "the cat sat on the mat and looked at the moon " * 4


def settings(**changed) -> list:
    """The values of the widgets, in the order of `look`."""
    values = dict(
        source=tab.PASTED, text=LONG, dataset="", encoding="byte", context=8, stride=8, batch=2, shuffle=False,
        seed=0, drop_last=True, share=0.25, begin="stride",
    )  # fmt: skip
    assert set(changed) <= set(values)
    return list((values | changed).values())


def plain(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def asked(**detail) -> types.SimpleNamespace:
    return types.SimpleNamespace(_data=detail)


def drawn(at: int = 0, step: int = 0, **changed) -> list[str]:
    return list(tab.draw(*settings(**changed), at, step))


# ---- Counts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, context, stride", [(40, 8, 8), (41, 8, 8), (40, 8, 3), (40, 8, 11), (9, 8, 1)])
def test_counts_are_those_of_every_window_written_out(n, context, stride):
    text = "".join(chr(97 + i % 26) for i in range(n))
    told = tab.facts(*settings(text=text, context=context, stride=stride, share=0))
    starts = [s for s in range(0, n, stride) if s + context + 1 <= n]  # the last target needs a token too
    inputs = {p for s in starts for p in range(s, s + context)}
    assert told["train"]["windows"] == len(starts)
    assert told["never_inputs"] == n - len(inputs)
    assert told["never_targets"] == n - len({p + 1 for p in inputs})
    assert told["validation"] == {"tokens": 0, "windows": 0, "batches": 0}


def test_drop_last_leaves_out_the_smaller_batch_of_training_only():
    kept, dropped = (tab.facts(*settings(batch=4, drop_last=drop)) for drop in (False, True))
    windows = kept["train"]["windows"]
    assert windows % 4 and dropped["train"]["windows"] == windows
    assert (
        kept["train"]["batches_per_epoch"] == -(-windows // 4)
        and dropped["train"]["batches_per_epoch"] == windows // 4
    )
    assert kept["validation"] == dropped["validation"]
    assert f"{windows % 4} window" in plain(drawn(batch=4)[1])


def test_split_is_that_of_training():
    told = tab.facts(*settings(share=0.3))
    train, validation = data.split(np.arange(told["tokens"]), 0.3)
    assert (told["train"]["tokens"], told["validation"]["tokens"]) == (len(train), len(validation))
    bar = drawn(share=0.3)[1]
    assert f"{len(train)} tokens" in plain(bar) and f"{len(validation)} tokens" in plain(bar)
    widths = [float(w) for w in re.findall(r"flex:([\d.]+)", bar)]
    assert widths[0] == pytest.approx(len(train) / told["tokens"], abs=1e-4)


# ---- Pictures --------------------------------------------------------------------------------------------------


def test_every_token_on_screen_names_the_windows_that_hold_it():
    laid = drawn(stride=3, share=0)[2]
    for p, said in re.findall(r"data-p='(\d+)' data-w='([^']*)'", laid):
        p, n = int(p), len(LONG)
        holding = [k for k in range(n) if k * 3 <= p < k * 3 + 8 and k * 3 + 8 < n]
        assert said == (f"t{holding[0]}-{holding[-1]}" if holding else "")


def test_the_chosen_token_tells_both_roles():
    _, _, _, first, _ = drawn(at=0)
    assert "As a target Never" in plain(first) and "window 0, place 0: its target is h" in plain(first)
    _, _, _, boundary, _ = drawn(at=8)  # first input of window 1, last target of window 0
    assert re.findall(r"data-window='(\d+)'", boundary) == ["1", "0"]
    assert "window 0, place 7" in plain(boundary)


def test_the_batch_is_what_training_reads():
    values = settings(shuffle=True, seed=5, batch=3)
    found = tab.look(*values)
    step = found.batches.per_epoch + 1  # in the second pass
    numbers = data.Batches(len(found.train), 3, True, 5, True).numbers(step)
    inputs, targets = found.train.inputs_and_targets(numbers)
    html = tab._batch(found, step)
    assert re.findall(r"<tr class='x' data-r='(\d+)'", html) == [str(k) for k in numbers]
    for kind, rows in (("x", inputs), ("y", targets)):
        cells = re.findall(
            rf"<td class='{kind}' data-c='\d+'><span class='win-chip' translate='no'>(.*?)</span></td>", html
        )
        assert [plain(c).replace("·", " ") for c in cells] == [chr(i) for row in rows for i in row]
    assert (inputs[:, 1:] == targets[:, :-1]).all()
    assert "in pass 1" in plain(html) and f"training step {step}" in plain(html)


def test_a_click_moves_the_token_or_the_batch_and_leaves_the_rest():
    values = settings()
    at, step, laid, chosen, batch = tab.choose(asked(index=8), *values, 0, 0)
    assert at == 8 and "token 8" in plain(chosen)
    assert all(isinstance(other, dict) for other in (step, laid, batch))  # skipped
    _, step, _, _, batch = tab.choose(asked(step=2), *values, 8, 0)
    assert step == 2 and "Batch 2" in plain(batch)
    at, _, laid, _, _ = tab.choose(asked(index=tab.PAGE + 5), *settings(text=LONG * 3), 0, 0)
    assert f"data-p='{tab.PAGE + 5}'" in laid and "data-p='0'" not in laid
    assert tab.choose(asked(index=10**9), *values, 0, 0)[0] == len(LONG) - 1


def test_foreign_text_is_escaped_in_every_picture():
    nasty = "<img src=x onerror=alert(1)>\"'&" * 3
    for encoding in ("char", "gpt2"):
        pictures = "".join(drawn(text=nasty, encoding=encoding, context=4, stride=2, share=0))
        assert "<img" not in pictures and "&lt;" in pictures


def test_tokens_are_shown_whole_or_as_bytes():
    assert figures.shown(b" a\n") == "·a⏎"
    assert figures.shown("🔥".encode()[:2]) == "f0 9f"
    assert "\ufffd" not in "".join(drawn(text="🔥 fire 🔥 " * 9, encoding="gpt2", context=4, share=0))


# ---- What is refused, and what is said -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed, said",
    [
        (dict(text=""), "text is empty"),
        (dict(stride=0), "stride of 0 never moves forward"),
        (dict(stride=-2), "stride of -2 never moves forward"),
        (dict(context=0), "context_length is 0; the smallest value is 1"),
        (dict(batch=0), "batch_size is 0; the smallest value is 1"),
        (dict(context=None), "Fill in the context length"),
        (dict(context=2.5), "whole number, not 2.5"),
        (dict(stride=float("inf")), "whole number, not inf"),
        (dict(share=0.95), "0.95; the largest value is 0.9"),
        (dict(share=None), "Fill in the validation share"),
        (dict(source=tab.DATASET), "Choose a dataset"),
        (dict(source=tab.DATASET, dataset="no-such"), "no-such"),
        (dict(encoding="no-such"), "no-such"),
        (dict(text="x" * (tab.LONGEST_PASTE + 1)), "50,001 characters"),
    ],
)
def test_a_refusal_is_a_sentence_in_place_of_the_pictures(changed, said):
    told, *pictures = drawn(**changed)
    assert "lab-error" in told and said in plain(told)
    assert pictures == [""] * 4


def test_a_text_shorter_than_a_window_says_what_there_is_and_what_is_needed():
    told, counts, laid, chosen, batch = drawn(text="abcdefgh", share=0)
    assert "The training part has 8 tokens; one window of 8 needs 9." in plain(told)
    assert batch == "" and "data-p='7'" in laid and "Never: no window holds it." in plain(chosen)
    assert "lab-warning" in told and "Of the 8 training tokens, 8 are never an input" in plain(counts)
    assert "needs 9" not in plain(drawn(text="abcdefghi", share=0)[0])


def test_no_validation_window_is_na_not_a_number():
    assert "n/a – no validation batch (no tokens are kept for it)" in plain(drawn(share=0)[0])
    assert "n/a – no validation batch (1 token, and one window needs 9)" in plain(
        drawn(text="x" * 20, share=0.05)[0]
    )
    assert "n/a" not in plain(drawn()[0])


def test_a_batch_larger_than_the_windows_is_said():
    told, _, _, _, batch = drawn(batch=500)
    assert "There is no whole batch" in plain(told) and batch == ""
    assert "no whole batch" not in plain(drawn(batch=500, drop_last=False)[0])


def test_a_stride_beyond_the_window_names_the_gap():
    assert "2 tokens are skipped" in plain(drawn(stride=10)[0])


def test_a_character_outside_a_char_vocabulary_is_named(home):
    folder = home / "tokenizers" / "letters"
    folder.mkdir(parents=True)
    tokenizer.CharTokenizer("abc ").save(folder)
    told, *pictures = drawn(text="abc zebra abc abc", encoding="letters")
    assert "lab-error" in told and "'z'" in plain(told).replace("&#x27;", "'") and pictures == [""] * 4


def test_half_a_surrogate_pair_is_drawn_not_an_error():
    told, counts, *_ = drawn(text="a\ud83db" * 9, encoding="gpt2", share=0)
    assert "lab-error" not in told and "win-summary" in counts


# ---- Datasets --------------------------------------------------------------------------------------------------


def test_the_shipped_stories_are_cut_as_the_train_tab_would():
    source, dataset, encoding, context, stride, batch, share, shuffle, begin = tab.shipped_stories()
    run = RunConfig()
    assert (source, dataset.value, context, batch, share, shuffle, begin) == (
        tab.DATASET, run.dataset, run.model.context_length, run.train.batch_size, run.train.validation_fraction,
        run.train.shuffle, run.train.windows,
    )  # fmt: skip
    assert stride == (run.train.stride or context) and encoding.value in tokenizer.names()


def test_uploads_and_pastes_become_datasets(tmp_path):
    path = tmp_path / "my text.txt"
    path.write_bytes("one\r\ntwo\r\n".encode("utf-16") * 9)
    source, box = tab.keep_upload(str(path))
    assert source == tab.DATASET and box.value == "my-text" and "my-text" in corpora.names()
    told, counts, *_ = drawn(source=tab.DATASET, dataset="my-text", encoding="char", share=0)
    assert "UTF-16" in plain(told) and "win-summary" in counts
    assert tab.keep_paste(LONG, "mine")[1].value == "mine"
    assert corpora.path("mine").read_text() == LONG
    picture = tmp_path / "picture.txt"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    with pytest.raises(ValueError, match="PNG"):
        tab.keep_upload(str(picture))


def test_the_worked_example_is_calm_and_shows_every_kind_of_token():
    names = ("source", "text", "encoding", "context", "stride", "batch", "share", "shuffle", "begin")
    told, counts, laid, chosen, html = drawn(**dict(zip(names, tab.worked_example(), strict=True)))
    assert told == "" and counts and chosen and html
    assert re.search(r"class='wt [^']*\bni\b", laid) and re.search(r"class='wt [^']*\bnt\b", laid)
    assert "validation from here" in laid


def test_by_document_the_tab_draws_the_windows_that_train_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_HOME", str(tmp_path))
    told = settings(
        source=tab.DATASET, dataset="stories", encoding="stories-1280", context=256, begin="documents"
    )
    found = tab.look(*told)
    config = RunConfig(train=TrainConfig(validation_fraction=0.25, batch_size=2, shuffle=False))
    trained = Pretrain(replace(config, model=replace(config.model, context_length=256)), found.encoding)
    assert found.train.starts.tolist() == trained.windows.starts.tolist()
    assert found.validation.starts.tolist() == trained.validation_windows.starts.tolist()
    inputs, targets = trained.batch(3)
    picture = tab._batch(found, 3)
    for row, line in zip((*inputs, *targets), ("x", "x", "y", "y")):
        first = figures.chip(found.encoding.token_bytes(int(row[0])))
        assert re.search(
            rf"<td class='{line}' data-c='0'><span class='win-chip' translate='no'>{re.escape(first)}</span>",
            picture,
        )
    begun = [int(trained.windows.starts[k]) for k in trained.batches.numbers(3)]
    assert re.findall(r"<button type='button' data-go='(\d+)'>window", picture) == [str(p) for p in begun]
    one = drawn(begin="documents", stride=3)
    assert "one document" in plain(one[0])
    assert one[1:] == drawn(begin="stride", stride=8)[1:]  # side by side, whatever the stride was
