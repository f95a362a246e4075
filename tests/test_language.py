"""Languages: their files are whole and alive, holes agree, every English text is one of ours, the browser gets them once."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter, defaultdict

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from llm import paths
from ui import language, login, texts

CODES = [code for code in language.languages() if code != "en"]
HOLES = re.compile(r"\{[*#]?\}")
WORDS = re.compile(r"[^\W\d_]+")
# English that other code writes into our page: Gradio and Plotly around their widgets, and the names of months.
NOT_OURS = """Download|Unfold line|Fold line|Plot|Empty value|Checkbox|Number|Radio|Textbox|Dropdown|Loading|Loading...
Gradio footer navigation|Use via API|Download plot as a PNG|Zoom|Pan|Box Select|Lasso Select|Zoom in|Zoom out|Autoscale|Reset axes
Reset to default value|number input for {*}|range slider for {*}|Remove {#}|Drop File Here|- or -|Click to Upload
Click to upload or drop files|File upload|Remove this file|Error|Clear all"""
NOT_OURS = set(NOT_OURS.replace("\n", "|").split("|")) | {
    f"{{#}} {month} {{#}}"
    for month in ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
}

# What the page puts together from words of its own that stand apart in the source.
COMPOSED = [
    "Batch before",
    "Next batch",
    "Next row",
    "forget {}",
    "training {#} at step {#}",
    "{} full turn",
    "{} full turns",
]


@pytest.fixture(scope="module", params=CODES)
def entries(request):
    """One language's file as pairs in their order."""
    text = (language.FOLDER / f"{request.param}.json").read_text(encoding="utf-8")
    return json.loads(text, object_pairs_hook=list)


@pytest.fixture(scope="module")
def source():
    """The texts of the source by each of their words."""
    by_word = defaultdict(list)
    for text in texts.everything():
        for word in set(WORDS.findall(text)):
            by_word[word.lower()].append(text)
    return by_word


@functools.cache
def letters(text: str) -> int:
    return sum(map(len, WORDS.findall(text)))


def is_ours(key: str, source: dict[str, list[str]]) -> bool:
    """Whether a key is a text of the source, a form that an f-string can take, or made of a large part of one."""
    sample = HOLES.sub(texts.HOLE, key)
    words = [word.lower() for word in WORDS.findall(sample)]
    near = {word: source.get(word) or source.get(word.rstrip("s"), ()) for word in words}
    rare = sorted((found for found in near.values() if found), key=len)[:3]
    for text in {text for found in rare for text in found}:
        if text == sample:
            return True
        if letters(text) < 0.6 * letters(sample):
            continue
        plain = re.sub(r"\{\w+\}", texts.HOLE, text).strip(" .,;\0")  # "{name}" is filled by format()
        parts = plain.split(texts.HOLE)
        if not all(part in sample for part in parts) or letters(plain) < 0.6 * letters(sample):
            continue
        if re.search(".*".join(map(re.escape, parts)), sample, re.S):
            return True
    return False


def fixed_words(key: str) -> list[str]:
    """The words of a template that stand whole in every text it fits, as ui/js/language.js counts them."""
    parts, found = HOLES.split(key), []
    for i, part in enumerate(parts):
        part = re.sub(r"^[^\W\d_]+", "", part) if i else part
        found += WORDS.findall(re.sub(r"[^\W\d_]+$", "", part) if i < len(parts) - 1 else part)
    return found


def test_a_file_is_sorted_unique_and_one_entry_a_line(entries):
    keys = [key for key, _ in entries]
    assert keys == sorted(keys)
    assert not [key for key, n in Counter(keys).items() if n > 1]
    assert keys[0] == "" and entries[0][1].strip()  # what the language calls itself
    assert all(key == " ".join(key.split()) and text.strip() for key, text in entries)


@pytest.mark.parametrize("code", CODES)
def test_a_file_is_written_as_it_would_be_written_again(code):
    path = language.FOLDER / f"{code}.json"
    assert path.read_text(encoding="utf-8") == json.dumps(language.catalogue(code), ensure_ascii=False, indent=0) + "\n"  # fmt: skip


def test_every_hole_of_a_text_is_filled_in_its_translation(entries):
    wrong = []
    for key, text in entries:
        n, used = len(HOLES.findall(key)), re.findall(r"\{(\d*)\}", text) if HOLES.search(key) else []
        named = [int(place) for place in used if place]
        if (named and (len(named) != len(used) or set(named) != set(range(n)))) or (
            not named and len(used) != n
        ):
            wrong.append(key)  # fmt: skip
    assert not wrong


def test_a_template_says_something_of_its_own(entries):
    """Without a word it would be looked up by nothing; with many alike behind its rarest word the page would get slow."""
    holed = {key: fixed_words(key) for key, _ in entries if HOLES.search(key)}
    assert not [key for key, words in holed.items() if not words]
    often = Counter(word for words in holed.values() for word in set(words))
    behind = Counter(min(words, key=lambda word: often[word]) for words in holed.values())
    assert behind.most_common(1)[0][1] <= 12


def test_every_entry_is_a_text_of_the_source(entries, source):
    """A text that was changed or removed leaves a dead entry: take it out, or translate what it became."""
    shipped = (paths.shipped_datasets() / "encodings" / "duel.json").read_text(
        encoding="utf-8"
    )  # names of sample texts
    known = {*NOT_OURS, *COMPOSED, ""}
    dead = [
        key
        for key, _ in entries
        if key not in known and not is_ours(key, source) and f'"{key}"' not in shipped
    ]
    assert not dead, dead


def test_the_check_of_dead_entries_finds_one(source):
    assert is_ours("Start training", source) and is_ours(
        "{} models are chosen; {#} at a time are compared here.", source
    )
    assert not is_ours("Begin the teaching", source) and not is_ours(
        "{#} models are eaten; {#} at a time.", source
    )


def test_texts_are_read_from_python_and_scripts_with_markup_taken_apart():
    python = 'def f(x):\n    """Not shown."""\n    return f"<p title=\'So many\'>{x} window{\'\' if x == 1 else \'s\'} <b>in all</b></p>"\n'
    found = [piece for one in texts.python_strings(python) for piece in texts.pieces(one)]
    assert {"So many", "\0 window", "\0 windows", "in all"} <= set(found) and "Not shown." not in found
    script = (
        "// 'not this'\nconst a = `take ${n === 1 ? 'one' : `all ${n}`} now`, b = /['\"]/; f(\"it\\u2019s\");"
    )
    assert {"take \0 now", "one", "all \0", "it’s"} == set(texts.script_strings(script))


def test_english_comes_first_and_has_no_file():
    found = language.languages()
    assert next(iter(found)) == "en" and found["en"] == ("English", "")
    assert found["es"][0] == "Español" and re.fullmatch(r"lab/language/es-[0-9a-f]{12}\.json", found["es"][1])
    assert "Español" in language.switch() and language.script().count(found["es"][1]) == 1
    assert len(language.script()) < 20_000  # what an English page carries along


def test_the_browser_is_told_to_keep_a_file_whose_name_is_its_content():
    client = TestClient(Starlette(routes=language.ROUTES))
    place = "/" + language.languages()["es"][1]
    answer = client.get(place)
    assert answer.json() == language.catalogue("es")
    assert "immutable" in answer.headers["cache-control"] and answer.headers["content-encoding"] == "gzip"
    plain = client.get(place, headers={"accept-encoding": "identity"})
    assert plain.json() == answer.json() and "content-encoding" not in plain.headers
    assert client.get("/lab/language/es-000000000000.json").status_code == 404
    assert client.get("/lab/language/..%2Fes.json").status_code == 404


def test_the_door_lets_languages_through():
    assert login.Door.is_open({"path": "/" + language.languages()["es"][1]})
