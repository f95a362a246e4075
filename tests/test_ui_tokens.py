"""The Tokens tab without a browser: handlers called with plain values, pictures as pure functions."""

import csv
import io
import itertools
import json
import re
import time
import urllib.parse

import pytest

from llm import bpe, paths, tokenizer
from llm.runs import Run
from ui.figures import tokens as figures
from ui.tabs import tokens as tab


def shown(text: str, encoding: str = "gpt2", specials: str = tab.AS_TEXT) -> dict:
    return json.loads(tab.show(text, encoding, specials))


def facts(payload: dict) -> dict:
    return {key: value for _, value, key in payload["facts"]}


def sentences(payload: dict) -> str:
    return " ".join(text for _, text in payload["notes"])


def visible_text(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html)


# ---- What the view is given ------------------------------------------------------------------------------------


def test_counts_are_of_the_text_and_bytes_rebuild_it():
    text = "naïve 🔥 text\n"
    for encoding in ("byte", "char", "gpt2", "cl100k_base", "o200k_base"):
        payload = shown(text, encoding)
        assert b"".join(bytes.fromhex(payload["vocab"][str(id)]) for id in payload["ids"]) == text.encode()
        told = facts(payload)
        assert (
            told["count"] == str(len(payload["ids"])) and told["characters"] == "13" and told["bytes"] == "17"
        )
        assert told["ratio"] == f"{17 / len(payload['ids']):.2f}"
    assert facts(shown(text, "byte"))["count"] == "17" and facts(shown(text, "char"))["count"] == "13"


def test_tokens_that_share_a_character_are_one_group():
    payload = shown("a🔥b", "byte")
    assert payload["groups"] == [["", 0, 0], ["🔥", 1, 4], ["", 5, 5]]
    payload = shown("漢字", "gpt2")
    assert [group[0] for group in payload["groups"]] == ["漢", "字"]
    assert shown("plain words", "gpt2")["groups"] == [["", 0, 0], ["", 1, 1]]


def test_neighbouring_shared_characters_are_groups_of_their_own():
    assert [group[0] for group in shown("🔥🔥é", "byte")["groups"]] == ["🔥", "🔥", "é"]


def test_how_specials_were_read_is_said():
    text = "one<|endoftext|>two"
    plain, special = shown(text), shown(text, specials=tab.AS_SPECIAL)
    assert 50256 not in plain["ids"] and "is read as plain text" in sentences(plain)
    assert special["ids"].count(50256) == 1 and "is read as a special token" in sentences(special)
    assert special["specials"] == [50256] and plain["specials"] == []
    assert facts(plain)["mode"] == "as plain text" and facts(special)["mode"] == "as special tokens"
    assert shown(text, "char")["ids"] != shown(text, "char", tab.AS_SPECIAL)["ids"]
    assert facts(shown(text, "char", tab.AS_SPECIAL))["count"] == "7"
    assert "read as" not in sentences(shown("no such string"))


def test_a_trailing_space_is_kept_and_hinted_at():
    payload = shown("Question: ")
    assert payload["vocab"][str(payload["ids"][-1])] == "20" and "ends with a space" in sentences(payload)
    assert "ends with a space" not in sentences(shown("Question:"))
    assert "ends with a space" not in sentences(shown("Question: ", "byte"))


def test_carriage_returns_are_counted_and_noted():
    text = "ab\nbc\nca\n"
    payload = shown(text.replace("\n", "\r\n"))
    assert "3 carriage returns" in sentences(payload) and payload["ids"].count(201) == 3
    assert "carriage" not in sentences(shown(text))
    assert facts(shown(text, "char"))["vocabulary"] == "4"
    assert facts(shown(text.replace("\n", "\r\n"), "char"))["vocabulary"] == "5"


@pytest.mark.parametrize("data", [b"ab\nbc\nca\n", b"ab\r\nbc\r\nca\r\n", b"ab\rbc\rca\r"])
def test_a_file_is_read_with_one_kind_of_line_end_and_says_so(data, tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes(data)
    text, told = tab.open_file(str(file))
    assert text == "ab\nbc\nca\n" and bool(told) == (b"\r" in data)


def test_a_file_that_is_no_text_is_refused_in_words(tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(ValueError, match="not a text"):
        tab.open_file(str(file))


def test_empty_odd_and_too_long_texts():
    assert shown("")["ids"] == [] and "Type or paste" in sentences(shown(""))
    assert facts(shown("", "char"))["ratio"] == "–"
    assert "U+FFFD" in sentences(shown("a\ud800"))
    with pytest.raises(ValueError, match="1,000,001 characters"):
        shown("x" * 1_000_001)
    with pytest.raises(ValueError, match="whitespace"):
        shown("x" + " " * 150_000)
    with pytest.raises(ValueError, match="no encoding called 'none'"):
        shown("x", "none")


def test_a_refusal_is_a_sentence_in_the_view():
    payload = json.loads(tab.draw("x" + " " * 150_000, "gpt2", tab.AS_TEXT))
    assert (
        payload["ids"] == []
        and payload["notes"][0][0] == "error"
        and "150,000 whitespace" in sentences(payload)
    )
    assert "no encoding called" in tab.merges("word", "none")
    assert json.loads(tab.draw("fine", "gpt2", tab.AS_TEXT)) == shown("fine")


def test_a_long_text_is_drawn_in_part_and_counted_whole():
    text = "word and word " * 20_000
    began = time.perf_counter()
    payload = shown(text)
    assert time.perf_counter() - began < 3  # a busy machine; 0.2 s on a quiet one
    assert payload["shown"] == tab.SHOWN == payload["groups"][-1][2] + 1 < len(payload["ids"])
    assert facts(payload)["count"] == f"{len(payload['ids']):,}" and "of the whole text" in sentences(payload)


def test_no_tag_of_a_text_stands_in_what_is_sent():
    raw = tab.show("<script>alert(1)</script><!--", "gpt2", tab.AS_TEXT)
    assert "<" not in raw
    assert b"".join(
        bytes.fromhex(json.loads(raw)["vocab"][str(i)]) for i in json.loads(raw)["ids"]
    ).startswith(b"<script>")


def test_the_scripted_answer_is_the_same():
    answer = tab.tokenize("Hello<|endoftext|>", "gpt2", True)
    assert answer["ids"] == [15496, 50256] and answer["special"] == "special tokens"
    assert answer["tokens_hex"][0] == b"Hello".hex() and answer["bytes_per_token"] == 18 / 2
    assert tab.tokenize("", "gpt2")["bytes_per_token"] == 0.0


# ---- Bytes made visible ----------------------------------------------------------------------------------------


def test_nothing_is_invisible_and_nothing_is_a_bare_replacement():
    assert visible_text(figures.visible(b" a\n\t\r")) == "·a⏎⇥␍"
    assert visible_text(figures.visible(b"\xf0\x9f")) == "f0 9f"
    assert visible_text(figures.visible(b"\xa2x\xe5\xad")) == "a2xe5 ad"
    for character in "\x00\u200d\u202e\ufeff\u3000\ufffd":
        assert visible_text(figures.visible(character.encode())) == f"U+{ord(character):04X}"
    assert visible_text(figures.visible("\u0301".encode())) == "◌\u0301"
    assert figures.visible(b"<b>&") == "&lt;b&gt;&amp;"
    for n in range(1, 4):
        assert "\ufffd" not in figures.visible("🔥漢é".encode()[n:-n])


# ---- Merges ----------------------------------------------------------------------------------------------------


def test_the_ladder_ends_in_the_tokens_of_the_encoder():
    html = tab.merges("Hello", "gpt2")
    rungs = re.findall(r"<span class='tk-parts'[^>]*>(.*?)</span></li>", html)
    parts = [
        [
            visible_text(part)
            for part in re.findall(r"<span class='tk-part[^>]*>(.*?)</span>", rung + "</span>")
        ]
        for rung in rungs
    ]
    assert parts[0] == list("Hello") and parts[-1] == ["Hello"]
    assert all(len(before) == len(after) + 1 for before, after in itertools.pairwise(parts))
    assert "15496" in html


def test_merges_of_several_pieces_and_of_encodings_without_any():
    assert tab.merges("two words", "gpt2").count("<section") == 2
    assert "each byte is a token" in tab.merges("word", "byte")
    assert "each character is a token" in tab.merges("word", "char")
    assert "Type a word" in tab.merges("", "gpt2")
    assert "more than 120 bytes" in tab.merges("x" * 121, "gpt2")
    assert "<script>" not in tab.merges("<script>", "gpt2")


# ---- Learning --------------------------------------------------------------------------------------------------


def dataset(text: str = "the cat sat on the mat and the rat sat too. " * 60) -> None:
    (paths.datasets() / "mine.txt").write_text(text, encoding="utf-8")


def test_the_start_button_names_what_is_missing():
    dataset()
    labels = {
        (name, text): tab.missing(name, text)
        for name in ("", "own", "gpt2", "a b", "../x")
        for text in ("", "mine")
    }
    assert labels["own", "mine"] == ""
    assert labels["own", ""] == labels["", ""] == "Choose a text first"
    assert labels["", "mine"] == "Name the encoding first"
    assert labels["gpt2", "mine"] == "That name is taken"
    assert labels["a b", "mine"] == labels["../x", "mine"] == "Name: letters, digits, dots, dashes"
    button, line = tab.ready("own", "mine", 512)
    assert button.interactive and button.value == "Learn the merges"
    assert line == "python -m llm.bpe own --dataset mine --vocab_size 512"


def test_an_encoding_is_learnt_from_the_page_and_can_be_used(monkeypatch):
    dataset()
    with pytest.raises(ValueError, match="Name the encoding first"):
        tab.start("", "mine", 300, None)
    name = tab.start("own", "mine", 300, None)
    with pytest.raises(ValueError, match="taken"):
        tab.start("own", "mine", 300, None)
    deadline = time.monotonic() + 60
    while Run.open(name).status() in ("waiting", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    html, timer, halt, use = tab.follow(name)
    assert Run.open(name).status() == "finished", Run.open(name).events()
    assert not timer.active and not halt.visible and use.visible
    made = tokenizer.get("own")
    assert f"<dd>{made.vocab_size:,}</dd>" in html
    left, right = made.merges()[0]
    assert figures.visible(left + right) in html and "the cat" in made.decode(shown("the cat", "own")["ids"])
    assert html.count("aria-valuenow='100'") == len(bpe.STAGES)


def test_only_its_owner_stops_a_run(monkeypatch):
    run = Run.create("tokenizer", {"dataset": "mine", "vocab_size": 300}, owner="somebody", name="theirs")
    with pytest.raises(ValueError, match="belongs to someone else"):
        tab.stop("theirs", None)
    assert not run.stop_requested()
    mine = Run.create("tokenizer", {"dataset": "mine", "vocab_size": 300}, owner="local", name="mine")
    tab.stop("mine", None)
    assert mine.status() == "stopped"


def test_a_waiting_a_failed_and_a_missing_run_are_told():
    Run.create("tokenizer", {"dataset": "mine"}, owner="local", name="first")
    Run.create("tokenizer", {"dataset": "mine"}, owner="local", name="second")
    assert "1 before it" in tab.follow("second")[0] and tab.follow("second")[1].active
    Run.open("first").append("end", reason="failed", step=0, message="No <b>text</b>.")
    html = tab.follow("first")[0]
    assert "No &lt;b&gt;text&lt;/b&gt;." in html and "<b>text" not in html
    assert "no run called" in tab.follow("gone")[0]
    assert "first 48 merges" in tab.follow("")[0]  # a worked example before anything is learnt


# ---- The duel --------------------------------------------------------------------------------------------------


def test_duel_counts_are_those_of_the_encodings():
    texts = [entry["text"] for entry in tab.duel_texts()]
    counts = tab.duel_counts(texts)
    for name in ("byte", "gpt2", "o200k_base"):
        assert counts[name] == [len(tokenizer.get(name).encode(text)) for text in texts]
    assert counts["char"] == [len(text) for text in texts]


@pytest.mark.parametrize("measure", figures.MEASURES)
def test_the_chart_shows_the_numbers_of_the_table(measure):
    names, sizes = ["English", "other"], [100, 60]
    counts = {"one": [50, 20], "two": [25, 30]}
    figure = figures.duel(names, counts, sizes, measure)
    values = [list(trace.x) for trace in figure.data]
    expected = [[2.0, 3.0], [4.0, 2.0]] if measure == "bytes per token" else [[1.0, 0.4], [1.0, 1.2]]
    assert values == expected and [trace.name for trace in figure.data] == ["one", "two"]
    html = figures.duel_table(names, counts, sizes, measure)
    assert all(f"{value:.2f}" in html for row in expected for value in row)
    link = re.search(r"href='data:text/csv;charset=utf-8,([^']*)'", html).group(1)
    saved = list(csv.reader(io.StringIO(urllib.parse.unquote(link).lstrip("\ufeff"))))
    assert saved[0] == ["text", "bytes", "one", "two"] and saved[2][:2] == ["other", "60"]
    assert [float(row[2]) for row in saved[1:]] == pytest.approx(expected[0])


def test_encodings_that_agree_share_a_mark_and_broken_ones_have_none():
    for name, source in (("twin", "byte"), ("broken", None)):
        folder = paths.tokenizers() / name
        folder.mkdir()
        if source:
            tokenizer.get(source).save(folder)
        else:
            (folder / "tokenizer.json").write_text("{")
    counts = tab.duel_counts(["some text", "漢字"])
    assert "byte (and 1 alike)" in counts and not any("broken" in name for name in counts)


def test_your_text_is_a_row_of_its_own():
    figure, html = tab.duel("bytes per token", "my own <i>words</i>")
    assert "Your text" in figure.data[0].y and "Your text" in html
    figure, _ = tab.duel("tokens against English", "my own words")
    assert "Your text" not in figure.data[0].y and set(figure.data[0].y[:2]) == {"English", "German"}
    assert all(trace.x[0] == 1.0 for trace in figure.data)
