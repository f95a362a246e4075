"""The Models tab without a browser: what is listed and drawn, imports looked at, exports refused, what strangers may not."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from llm import anatomy, catalogue, check, checkpoint, convert, dispatch, hub, inventory, paths, tokenizer
from llm.config import FORMATS, ExportConfig, ImportConfig, ModelConfig, to_dict
from llm.convert import EXPORTERS
from llm.model import GPT
from llm.runs import Run
from ui import exports, imports, recipes, shelf, transfers
from ui.figures import models as figures
from ui.figures import transfers as lists
from ui.owner import COOKIE, sign
from ui.tabs import models as tab

TINY = ModelConfig(vocab_size=1280, context_length=32, n_layer=2, n_head=4, n_kv_head=2, n_embd=16)


def visitor(name: str):
    """A request as Gradio hands it over, with the signed cookie of this visitor."""
    return SimpleNamespace(cookies={COOKIE: sign(name)}, query_params={})


def click(action: str, name: str):
    """A click on a button that carries an action and a name."""
    return SimpleNamespace(_data={"action": action, "name": name})


@pytest.fixture
def queued(monkeypatch):
    """Runs only wait: no process is started."""
    monkeypatch.setattr(dispatch, "pump", lambda: [])


@pytest.fixture
def shared(monkeypatch):
    """The page as on a Space."""
    monkeypatch.setenv("SPACE_ID", "someone/lab")


def made(name: str, config: ModelConfig = TINY, **source) -> Path:
    """A model directory with random weights; `source` goes into its source.json."""
    folder = paths.models() / name
    checkpoint.save_model(folder, GPT(config), tokenizer.get("stories-1280"), "")
    if source:
        (folder / "source.json").write_text(json.dumps({"version": 1, **source}), encoding="utf-8")
    return folder


def text(html: str) -> str:
    """HTML as its words."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


# --- what is present -------------------------------------------------------------------------------------------------


def test_the_table_lists_the_built_in_models_and_marks_the_chosen_one():
    table, about = tab.look(visitor("me"), "story-llama")
    assert "708,480" in table and "791,680" in table and "57,504" in table
    chosen = re.search(r"<tr class='lab-chosen'.*?</tr>", table, re.DOTALL)[0]
    assert "choose story-llama" in chosen and "4 heads on 2 key/value heads" in chosen
    assert "playground.model=story-llama" in about and "train.start_from=story-llama" in about
    assert "delete" not in about


def test_a_model_that_has_gone_gives_way_to_the_one_the_page_opens_with():
    for name in ("never-there", "../../etc", ""):
        assert tab.settled(visitor("me"), name) == tab.corrected(visitor("me"), name) == "story-llama"
        assert tab.look(visitor("me"), name) == tab.look(visitor("me"), "story-llama")


def test_a_model_that_is_there_is_not_chosen_once_more():
    assert tab.corrected(visitor("me"), "verse-char") == gr.skip()


def test_a_kept_step_can_be_chosen_and_drawn():
    assert tab.act(visitor("me"), "story-llama", "GPT-2", click("choose", "verse-char@0000010")) == [
        "verse-char@0000010", tab.CHOSEN,
    ]  # fmt: skip
    about = tab.look(visitor("me"), "verse-char@0000010")[1]
    assert "attention.model=verse-char%400000010" in about
    assert "aria-pressed='true'>0000010" in about and "start_from" not in about
    assert "Train from it" in tab.look(visitor("me"), "verse-char")[1]


def test_strange_names_are_only_text():
    folder = made("mine", rows=[], container="<img src=x onerror=alert(1)>", origin="</td><script>")
    (folder / "README.md").write_text("- licence: <b>x</b>", encoding="utf-8")
    table = tab.look(visitor("me"), "mine")[0]
    assert "<img" not in table and "<script" not in table and "<b>x" not in table
    assert "&lt;img src=x" in table


def test_deleting_asks_whose_it_is(shared):
    made("theirs", owner="ann", rows=[])
    ann, bob = visitor("ann"), visitor("bob")
    assert tab.settled(ann, "theirs") == "theirs" and "delete theirs" in tab.look(ann, "theirs")[1]
    assert tab.settled(bob, "theirs") == "story-llama"  # he does not even see it
    assert "theirs" not in tab.look(bob, "story-llama")[0]
    with pytest.raises(ValueError, match="no model called 'theirs'"):
        tab.act(bob, "story-llama", "", click("delete", "theirs"))
    with pytest.raises(ValueError, match="story-llama is not yours"):
        tab.act(ann, "story-llama", "", click("delete", "story-llama"))
    assert tab.act(ann, "theirs", "GPT-2", click("delete", "theirs")) == ["story-llama", "GPT-2"]
    assert "theirs" not in tab.look(ann, "story-llama")[0] and not (paths.models() / "theirs").exists()


def test_a_model_without_an_owner_is_anyones_at_home_and_nobodys_on_a_space(monkeypatch):
    made("mine")
    assert shelf.may_delete(inventory.read("mine"), visitor("me"))
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    assert not shelf.may_delete(inventory.read("mine"), visitor("me"))


def test_the_public_list_has_the_same_numbers(monkeypatch):
    made("mine")
    listed = {row["name"]: row for row in tab.models()}
    assert listed["story-llama"]["parameters"] == 708_480 and listed["story-llama"]["context"] == 256
    assert listed["mine"]["parameters"] == anatomy.parameters(TINY)
    json.dumps(list(listed.values()))
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    assert "mine" not in {row["name"] for row in tab.models()}


# --- anatomy ---------------------------------------------------------------------------------------------------------


def drawn(of=tab.CHOSEN, pasted="", chosen="story-llama", number_format="bf16"):
    return tab.draw(visitor("me"), chosen, of, pasted, number_format)


def sum_of_parts(flow: str) -> int:
    """The parameters of the pieces as the picture shows them, "49,152 × 3" read as a product."""
    total = 0
    for shown in re.findall(r"class='md-much'><b>([^<]+)</b>", flow):
        factors = [int(n.replace(",", "")) for n in shown.split("×")]
        total += factors[0] * (factors[1] if len(factors) > 1 else 1)
    return total


def test_the_anatomy_of_story_llama():
    _, flow, totals, _, _, said, curve, cells, weights = drawn()
    assert sum_of_parts(flow) == 708_480
    assert [re.search(r"[\w ]+$", p)[0] for p in re.findall(r"data-part='([^']+)'", flow)] == [
        "token embedding", "norm1", "attention", "norm2", "mlp", "final norm", "output",
    ]  # fmt: skip
    assert "1,280 × 128" in flow and "256 × 128" in flow and "344 × 128" in flow
    assert "708,480" in totals and "2.7 MB" in totals  # 4 bytes each
    assert "2 · 3 · 2 · 32 · 256 · 2" in said and ">196,608<" in said
    assert list(curve.data[0].x)[-1] == 256 and curve.data[0].y[-1] == 192  # KB
    assert "29 tensors" in text(weights) or "tensors, 708,480 numbers" in text(weights)
    assert "196,608" in cells and "393,216" in cells


@pytest.mark.parametrize("entry", [e for e in catalogue.entries() if e.config], ids=lambda e: e.name)
def test_every_shaped_row_of_the_catalogue_is_drawn_and_sums_up(entry):
    flow = drawn(entry.name)[1]
    assert sum_of_parts(flow) == entry.parameters


def test_sliding_windows_are_counted_in_words_and_in_the_curve():
    *_, said, curve, _, _ = drawn("Gemma 3 1B")
    by_hand = 2 * 1 * 256 * 2 * (4 * 32_768 + 22 * 512)  # 22 of 26 layers slide over 512 tokens
    assert f">{by_hand:,}<" in said
    assert len(curve.data) == 2 and curve.data[0].name == "without windows"
    assert curve.data[0].y[-1] > 5 * curve.data[1].y[-1]
    assert len(drawn("Llama 3 8B")[6].data) == 1


def test_a_parallel_block_adds_once_and_a_serial_one_twice():
    assert drawn("Pythia 70M")[1].count("class='md-add'") == 1
    assert drawn("OLMo 2 1B")[1].count("class='md-add'") == 2


def test_a_pasted_config_is_drawn():
    theirs = json.dumps(catalogue.find("SmolLM2 135M").config)
    assert "134,515,008" in drawn(tab.PASTED, theirs)[2]
    ours = (paths.shipped_models() / "story-gpt2" / "config.json").read_text(encoding="utf-8")
    assert "791,680" in drawn(tab.PASTED, ours)[2]
    assert sum_of_parts(drawn(tab.PASTED, tab.CONFIG_EXAMPLE)[1]) == anatomy.parameters(
        tab.config_of(tab.CONFIG_EXAMPLE)
    )


@pytest.mark.parametrize(
    ("pasted", "sentence"),
    [
        ("", "Paste a config.json first"),
        ("{", "That is no JSON"),
        ("[1]", "begins with { and ends with }"),
        ('{"model_type": "mamba"}', "of the family 'mamba'; the families opened here are llama"),
        ('{"model_type": "llama"}', "has no vocab_size"),
        ('{"context_length": 8, "n_embd": 16}', "says no vocab_size"),
        ('{"context_length": 8, "depth": 16}', "no setting called depth"),
        ("[" * 100_000, "no JSON"),
        ("x" * 300_000, "300,000 characters"),
        ('{"context_length": 8, "vocab_size": 9, "n_layer": 20000}', "the largest value is 256"),
    ],
)
def test_a_config_that_cannot_be_drawn_says_why_in_its_place(pasted, sentence):
    title, flow, *_ = drawn(tab.PASTED, pasted)
    assert sentence.replace("'", "&#x27;") in title and "lab-error" in title and flow == ""


def test_a_damaged_model_says_so():
    (made("broken") / "config.json").write_text("{", encoding="utf-8")
    assert "missing or damaged" in drawn(chosen="broken")[0]
    assert "missing or damaged" in tab.look(visitor("me"), "broken")[0]


def test_the_weight_map_counts_and_calls_out_what_has_no_place():
    rows = [
        ["a.weight", "token_embedding.weight", [4, 2], "F32", "same"],
        ["a.bias", "", [9], "F32", "the causal mask: made anew here"],
        ["odd", "", [3], "F32", ""],
    ]
    html = figures.weight_map(rows, 8)
    assert "3 tensors: 1 used, 1 not needed, 1 not matched. 8 parameters; the formula says 8." in text(html)
    assert "lab-error" in html and html.count("md-lost") == 1
    assert "lab-note" in figures.weight_map(rows[:2], 8)
    assert "lab-error" in figures.weight_map(rows[:2], 9)


# --- the catalogue ---------------------------------------------------------------------------------------------------


def test_the_browser_gets_every_row_without_its_config():
    answer = tab.lab_catalogue({})
    rows = {row["name"]: row for row in answer["rows"]}
    assert len(rows) == len(catalogue.entries()) and re.fullmatch(r"\d{4}-\d\d-\d\d", answer["dated"])
    assert (
        rows["GPT-2"]["opens"] and rows["GPT-2"]["repo"] == "openai-community/gpt2" and rows["GPT-2"]["drawn"]
    )
    assert not rows["BLOOM"]["opens"] and rows["BLOOM"]["repo"] == ""
    assert rows["Tiny Shakespeare"]["opens"] and rows["Tiny Shakespeare"]["repo"] == ""
    assert len(json.dumps(answer)) < 60_000


def test_a_click_in_the_catalogue_draws_or_brings():
    assert tab.from_catalogue(click("draw", "Pythia 70M"))[:2] == ["Pythia 70M", "anatomy"]
    assert tab.from_catalogue(click("bring", "EleutherAI/pythia-70m"))[1:] == [
        "bring",
        "EleutherAI/pythia-70m",
        "hub",
    ]
    assert tab.from_catalogue(click("draw", "<script>"))[0] == gr.skip()


# --- bringing one in ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_llama(tmp_path):
    """A Hugging Face folder with a small random Llama, as transformers writes it."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "tiny-llama"
    shape = transformers.LlamaConfig(
        vocab_size=1280, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    transformers.LlamaForCausalLM(shape).save_pretrained(folder)
    shutil.copy(paths.shipped_datasets() / "encodings" / "stories-1280" / "tokenizer.json", folder)
    return folder


def looked(kind="files", uploaded=None, repo="", file="", token="", path="", base="", encoding="", n_head=0):
    return imports.look(visitor("me"), kind, uploaded, repo, file, token, path, base, encoding, n_head)


def test_uploaded_files_are_looked_at_and_may_then_be_imported(tiny_llama, queued):
    html, source, name, _ = looked(uploaded=[str(p) for p in tiny_llama.iterdir()])
    assert source.startswith("upload:") and name == "my-model"
    assert "21 tensors: 21 used, 0 not needed, 0 not matched" in text(html)
    assert "model.layers.1.mlp.gate_proj.weight" in html and "blocks.1.mlp.gate.weight" in html
    button, line = imports.ready(source, name, "", imports.NONE, imports.NONE, 0)
    assert button.interactive and button.value == "Import it as my-model"
    assert line == f"python -m llm.convert.bring my-model --source {source}"
    *_, told = imports.start(visitor("me"), source, name, "", "", imports.NONE, imports.NONE, 0)
    run = Run.open("my-model")
    assert run.meta["kind"] == "import" and run.meta["owner"] == "me"
    assert run.config == to_dict(ImportConfig(source=source))
    assert "my-model" in told[1] and "Cancel" in told[1] and told[2].active


def test_a_path_is_looked_at_at_home_only(tiny_llama, monkeypatch):
    html, source, name, _ = looked("path", path=str(tiny_llama))
    assert source == str(tiny_llama) and name == "tiny-llama" and "0 not matched" in text(html)
    monkeypatch.setenv("SPACE_ID", "someone/lab")
    html, source, *_ = looked("path", path=str(tiny_llama))
    assert source == "" and "come from the Hub or as an upload" in html
    assert "path" not in [key for _, key in imports.sources()]
    with pytest.raises(ValueError, match="not from a path"):
        list(imports.start(visitor("me"), str(tiny_llama), "x", "", "", "", "", 0))


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.gguf", b"GGUF", "is no GGUF file|damaged|cut short"),
        ("a.safetensors", b"not a model at all", "begins with a header"),
        ("a.pt", b"\x80\x02cposix\nsystem\n", "pickle"),
        ("notes.txt", b"hello", "is no model|holds no model"),
    ],
)
def test_what_is_no_model_is_one_sentence_and_cannot_be_imported(tmp_path, name, data, sentence):
    (tmp_path / name).write_bytes(data)
    html, source, *_ = looked(uploaded=[str(tmp_path / name)])
    assert source == "" and "lab-error" in html and re.search(sentence, text(html)), text(html)
    assert not imports.ready(source, "x", "", "", "", 0)[0].interactive


def test_uploads_keep_their_names_and_two_of_one_name_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    for folder in (tmp_path, tmp_path / "a"):
        (folder / "config.json").write_text("{}", encoding="utf-8")
    source = imports.staged([str(tmp_path / "config.json")])
    assert [p.name for p in check.allowed(source).iterdir()] == ["config.json"]
    with pytest.raises(ValueError, match=r"Two of the files are called config\.json"):
        imports.staged([str(tmp_path / "config.json"), str(tmp_path / "a" / "config.json")])
    assert len(list(check.uploads().iterdir())) == 1  # nothing half of it stays
    with pytest.raises(ValueError, match="Choose the files first"):
        imports.staged(None)


def test_names_that_are_taken_are_not_offered_and_not_accepted(queued):
    made("tiny")
    assert imports.wish("/home/me/tiny", None, "") == "tiny-2"
    assert imports.wish("hf:org/Some_Model.v1", None, "") == "Some_Model.v1"
    assert imports.wish("hf:org/x", None, "deep/Model-Q4_0.gguf") == "Model-Q4_0"
    assert imports.wish("/tmp/../..", None, "") not in ("", ".", "..")
    label = imports.ready("/home/me/tiny", "tiny", "", "", "", 0)[0].value
    assert label == "A model has that name already."
    with pytest.raises(ValueError, match="A model has that name already"):
        list(imports.start(visitor("me"), "/home/me/tiny", "tiny", "", "", "", "", 0))


def test_a_try_that_ended_makes_room_for_the_next_and_a_strangers_does_not(shared, queued, tmp_path):
    source = imports.staged([str(Path(__file__))])
    first = Run.create("import", to_dict(ImportConfig(source=source)), "ann", "tiny")
    with pytest.raises(ValueError, match="is being imported already"):
        list(imports.start(visitor("ann"), source, "tiny", "", "", "", "", 0))
    first.append("end", reason="failed", step=0, message="It was damaged.")
    with pytest.raises(ValueError, match="no import or export called 'tiny'"):
        list(imports.start(visitor("bob"), source, "tiny", "", "", "", "", 0))
    list(imports.start(visitor("ann"), source, "tiny", "", "", "", "", 0))
    assert Run.open("tiny").status() == "waiting"


def test_what_a_file_lacks_can_be_chosen():
    made("mine")
    bases, encodings = imports.lists()
    assert {"mine", "story-llama", "verse-char@0000010"} <= set(bases["choices"])
    assert {"gpt2", "byte", "char:verse"} <= set(encodings["choices"]) and "char" not in encodings["choices"]
    config = imports.config_of("/x", None, imports.NONE, "char:verse", None)
    assert config == ImportConfig(source="/x", encoding="char:verse")


def test_the_hub_is_looked_at_before_anything_is_fetched(monkeypatch):
    about = {
        "id": "org/tiny", "revision": "abcdef0123456789", "gated": False, "private": False, "licence": "apache-2.0",
        "family": "llama", "parameters": 5, "downloads": 7, "page": "https://huggingface.co/org/tiny", "gguf": [],
        "files": [{"name": "config.json", "size": 500, "sha256": None}, {"name": "model.safetensors", "size": 2**20, "sha256": None}],
    }  # fmt: skip
    monkeypatch.setattr(hub, "info", lambda *_: about)
    monkeypatch.setattr(hub, "config", lambda *_: catalogue.find("SmolLM2 135M").config)
    html, source, name, _ = looked("hub", repo="org/tiny")
    assert source == "hf:org/tiny" and name == "tiny"
    assert "134,515,008" in html and "apache-2.0" in html and "1.0 MB" in html and "abcdef012345" in html
    monkeypatch.setattr(hub, "config", lambda *_: {"model_type": "mamba"})
    html, source, *_ = looked("hub", repo="org/tiny")
    assert source == "" and "of the family &#x27;mamba&#x27;" in html


def test_several_gguf_files_are_a_choice(monkeypatch):
    files = [{"name": f"m-{kind}.gguf", "size": 1000, "sha256": None} for kind in ("q4_0", "q8_0")]
    about = {
        "id": "org/m", "revision": "a", "gated": True, "private": False, "licence": None, "family": None,
        "parameters": None, "downloads": 7, "page": "https://huggingface.co/org/m", "gguf": [f["name"] for f in files],
        "files": files,
    }  # fmt: skip
    monkeypatch.setattr(hub, "info", lambda *_: about)
    html, source, _, choice = looked("hub", repo="org/m")
    assert source == "" and "has 2 GGUF files: choose one" in html and "accept its terms" in html
    assert choice["choices"] == ["", "m-q4_0.gguf", "m-q8_0.gguf"] and choice["visible"]
    _, source, name, _ = looked("hub", repo="org/m", file="m-q8_0.gguf")
    assert source == "hf:org/m" and name == "m-q8_0"


@pytest.mark.parametrize("repo", ["", "../../etc/passwd", "a/b/c", "https://example.org/x", "org/na me"])
def test_what_is_no_repository_is_refused_without_asking_anyone(repo):
    html, source, *_ = looked("hub", repo=repo)
    assert source == "" and "lab-error" in html


def test_a_token_fetches_in_the_page_and_reaches_no_disk(monkeypatch, queued, home):
    token = "hf_canary_of_this_test"
    asked = []

    def download(repo, revision, file, given, owner):
        asked.append((repo, revision, given, owner))
        yield "model.safetensors", 1, 2
        yield "model.safetensors", 2, 2

    monkeypatch.setattr(hub, "download", download)
    told = list(imports.start(visitor("me"), "hf:org/gated", "gated", token, "", "", "", 0))
    assert asked == [("org/gated", "main", token, "me")]
    assert "1 bytes of 2 bytes" in told[0][0] and Run.open("gated").status() == "waiting"
    assert not any(token.encode() in f.read_bytes() for f in home.rglob("*") if f.is_file())


def test_without_a_key_the_run_fetches_and_with_this_machines_login_the_page_does(monkeypatch):
    monkeypatch.setattr(hub, "logged_in", lambda: False)
    assert imports.fetched_here("hf:org/x", "hf_token_of_test") and not imports.fetched_here("hf:org/x", "")
    monkeypatch.setattr(hub, "logged_in", lambda: True)
    assert imports.fetched_here("hf:org/x", "") and not imports.fetched_here("/home/me/x", "")


def test_the_search_shows_what_the_hub_says_as_text_and_a_sentence_without_it(monkeypatch):
    row = {
        "id": "org/<b>x</b>", "organisation": "org", "downloads": 1234, "likes": None, "gated": True,
        "licence": "mit", "family": "llama", "parameters": 134_515_008, "updated": None,
    }  # fmt: skip
    monkeypatch.setattr(hub, "search", lambda *_: [row])
    html = imports.search("x", "")
    assert (
        "org/&lt;b&gt;x" in html
        and "<b>x" not in html
        and "1,234" in html
        and "135 M" in html
        and "gated" in html
    )
    monkeypatch.undo()
    assert "Hub is switched off" in imports.search("x", "")  # tests run with HF_HUB_OFFLINE


# --- taking one away ---------------------------------------------------------------------------------------------------


def test_the_plan_has_size_command_and_recipes():
    told, line, commands, button = exports.plan(visitor("me"), "story-llama", "hf", "bf16")
    size = convert.size("story-llama", "hf", "bf16")
    assert 2 * 708_480 < size < 2 * 708_480 + 100_000 and "1.4 MB" in told
    assert line == "python -m llm.convert.export story-llama-hf-bf16 --model story-llama --dtype bf16"
    assert button.interactive and "transformers" in commands and "./story-llama" in commands


@pytest.mark.parametrize(
    ("model", "format", "sentence"),
    [
        ("verse-char", "hf", "cuts texts into chars, and other tools have no file for that"),
        ("verse-char", "gguf", "has single chars as tokens"),
        ("story-gpt2", "litgpt", "position is learned"),
    ],
)
def test_a_format_that_cannot_hold_the_model_says_which_field_is_in_the_way(model, format, sentence):
    told, line, commands, button = exports.plan(visitor("me"), model, format, "")
    assert sentence in told and "lab-error" in told
    assert not button.interactive and line == "" and commands == ""
    with pytest.raises(ValueError, match=sentence):
        exports.start(visitor("me"), model, format, "")


def test_settings_that_no_family_has_are_named():
    made(
        "odd",
        ModelConfig(vocab_size=1280, context_length=8, n_layer=1, n_head=2, n_embd=16, norm="layernorm"),
    )
    told = exports.plan(visitor("me"), "odd", "hf", "fp32")[0]
    assert "lab-error" in told and re.search("norm|parallel|bias", text(told)), text(told)


def test_numbers_that_a_format_does_not_hold_are_not_offered():
    assert (
        exports.choose_format("onnx")["choices"] == ["fp32"]
        and not exports.choose_format("onnx")["interactive"]
    )
    assert "q8_0" in exports.choose_format("gguf")["choices"]
    assert "q8_0" in exports.plan(visitor("me"), "story-llama", "hf", "q8_0")[0]  # a sentence that names it


def test_an_export_is_a_run_that_is_followed_and_fetched_by_its_owner_alone(shared, queued):
    ann, bob = visitor("ann"), visitor("bob")
    html, timer, _ = exports.start(ann, "story-llama", "hf", "bf16")
    run = Run.open("story-llama-hf-bf16")
    assert run.config == to_dict(ExportConfig("story-llama", "hf", "bf16")) and timer.active
    assert "story-llama-hf-bf16" in html and exports.follow(bob)[0] == ""
    run.append("start", step=0, pid=1)
    run.append("progress", stage="writing the weights", done=5, total=10)
    descriptor = run.lock()
    assert "aria-valuenow='50'" in transfers.follow(ann, "export")[0]
    import os

    os.close(descriptor)
    (run.path / "result").mkdir()
    data = bytes(range(256)) * 40
    (run.path / "result" / "story-llama.zip").write_bytes(data)
    run.append(
        "result",
        format="hf",
        dtype="bf16",
        file="result/story-llama.zip",
        folder="",
        bytes=len(data),
        files=[],
        notes=[],
    )
    run.append("end", reason="finished", step=0, message="")
    assert "lab/download/story-llama-hf-bf16" in exports.follow(ann)[0]

    client = TestClient(Starlette(routes=transfers.ROUTES))
    address = "/lab/download/story-llama-hf-bf16"
    assert client.get(address).status_code == 404
    client.cookies.set(COOKIE, sign("bob"))
    assert client.get(address).status_code == 404
    client.cookies.set(COOKIE, sign("ann"))
    whole = client.get(address)
    assert whole.content == data and "story-llama.zip" in whole.headers["content-disposition"]
    rest = client.get(address, headers={"Range": "bytes=10000-"})  # a cut download goes on
    assert rest.status_code == 206 and rest.content == data[10_000:]
    assert client.get("/lab/download/..%2F..%2Fsecret").status_code == 404
    assert client.get(address + "/Modelfile").status_code == 404  # there is none of this one

    for action in ("stop", "delete"):
        with pytest.raises(ValueError, match="no import or export"):
            transfers.act(bob, "export", click(action, run.name))
    exports.act(ann, click("delete", run.name))
    assert not run.path.exists() and client.get(address).status_code == 404


def test_a_transfer_is_cancelled_before_it_begins_and_then_forgotten(queued):
    me = visitor("me")
    exports.start(me, "story-llama", "hf", "fp32")
    run = Run.open("story-llama-hf-fp32")
    html, timer, _ = exports.act(me, click("stop", run.name))
    assert run.status() == "stopped" and "data-status='stopped'" in html and not timer.active
    assert "Stopped before it began" in html and "Download" not in html
    assert exports.act(me, click("delete", run.name))[0] == "" and not run.path.exists()


def test_a_result_that_points_out_of_its_run_is_not_handed_out(queued, home):
    run = Run.create("export", to_dict(ExportConfig("story-llama")), "me", "e")
    (home / "secret").write_bytes(b"key")
    run.append(
        "result", format="hf", dtype="fp32", file="../../secret", folder="../..", bytes=3, files=[], notes=[]
    )
    run.append("end", reason="finished", step=0, message="")
    assert transfers.result_file(run) is None and exports.pushed_path(run) is None


def test_training_runs_are_no_transfers(queued):
    Run.create("train", {"dataset": "x"}, "me", "t")
    with pytest.raises(ValueError, match="no import or export called 't'"):
        transfers.own("t", visitor("me"))


def test_names_of_exports_do_not_collide(queued):
    for expected in ("story-llama-gguf-fp16", "story-llama-gguf-fp16-2"):
        exports.start(visitor("me"), "story-llama", "gguf", "fp16")
        assert (paths.runs() / expected).is_dir()
    assert exports.name_of(ExportConfig("verse-char@0000010", "hf")) == "verse-char-0000010-hf-fp32"


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_recipes_with_the_name_in_them(format):
    assert set(FORMATS) == set(EXPORTERS)
    for recipe in recipes.recipes(format, "my-model", "It's a", 64):
        assert "my-model" in recipe.text, recipe
        if recipe.where == "shell":
            for line in recipe.text.replace("\\\n", " ").splitlines():
                assert shlex.split(line)
        if recipe.where == "Python":
            compile(recipe.text, recipe.tool, "exec")
    assert "&lt;" in lists.recipes([recipes.Recipe("<b>", "shell", "x")])


@pytest.mark.parametrize(("format", "tool"), [("hf", "transformers"), ("onnx", "onnxruntime")])
def test_the_recipe_does_what_it_says(tmp_path, format, tool):
    """The commands that the page shows, run on what the export wrote: they continue the prompt as the model does here."""
    pytest.importorskip(tool)
    convert.exporter(format).save("story-llama", tmp_path / "story-llama", *convert.numbers(format))
    recipe = next(one for one in recipes.recipes(format, "story-llama") if one.tool == tool)
    done = subprocess.run(
        [sys.executable, "-c", recipe.text], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    model, encoding = checkpoint.load_model(paths.model_folder("story-llama"))
    idx = encoding.encode(recipes.PROMPT)
    import torch

    with torch.no_grad():
        for _ in range(20):
            idx.append(int(model(torch.tensor([idx]))[0, -1].argmax()))
    assert done.stdout.strip().startswith(encoding.decode(idx).strip()), done.stdout


def test_pushing_is_private_unless_asked_and_needs_a_finished_export(monkeypatch, queued, home):
    with pytest.raises(ValueError, match="Write an export first"):
        list(exports.push(visitor("me"), "", "me/x", "hf_token_of_test", False))
    run = Run.create("export", to_dict(ExportConfig("story-llama")), "me", "e")
    with pytest.raises(ValueError, match="Name the repository first"):
        list(exports.push(visitor("me"), "e", " ", "hf_token_of_test", False))
    with pytest.raises(ValueError, match="not there any more"):
        list(exports.push(visitor("me"), "e", "me/x", "hf_token_of_test", False))
    (run.path / "result" / "story-llama").mkdir(parents=True)
    (run.path / "result" / "story-llama.zip").write_bytes(b"x")
    run.append(
        "result",
        format="hf",
        dtype="fp32",
        file="result/story-llama.zip",
        folder="result/story-llama",
        bytes=1,
        files=[],
        notes=[],
    )
    run.append("end", reason="finished", step=0, message="")
    assert exports.pushable(visitor("me")) == ["e"]
    calls = []
    monkeypatch.setattr(hub, "push", lambda *a, **k: calls.append((a, k)) or "https://huggingface.co/me/x")
    *_, (html, token_box) = exports.push(visitor("me"), "e", "me/x", "hf_token_of_test", False)
    assert calls == [((run.path / "result" / "story-llama", "me/x", "hf_token_of_test"), {"private": True})]
    assert "only you may see it" in html and token_box == ""
    list(exports.push(visitor("me"), "e", "me/x", "hf_token_of_test", True))
    assert calls[-1][1] == {"private": False}
    assert not any(b"hf_token_of_test" in f.read_bytes() for f in home.rglob("*") if f.is_file())


def test_a_real_export_is_opened_by_transformers_with_our_logits(home):
    """The whole way: the run's own process, its zip unpacked, the same numbers there as here."""
    import torch

    transformers = pytest.importorskip("transformers")

    exports.start(visitor("me"), "story-llama", "hf", "fp32")
    run = Run.open("story-llama-hf-fp32")
    wait_for_end(run)
    assert run.status() == "finished", run.events()[-1]
    with zipfile.ZipFile(transfers.result_file(run)) as archive:
        archive.extractall(home / "unpacked")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(home / "unpacked" / "story-llama").eval()
    model, encoding = checkpoint.load_model(paths.model_folder("story-llama"))
    idx = torch.tensor([encoding.encode("Long ago, a proud badger")])
    with torch.no_grad():
        assert torch.allclose(theirs(idx).logits, model(idx), atol=1e-4)


def wait_for_end(run: Run) -> None:
    import time

    until = time.monotonic() + 90
    while run.status() in ("waiting", "running") and time.monotonic() < until:
        time.sleep(0.1)


# --- the page process --------------------------------------------------------------------------------------------------


def test_neither_looking_nor_planning_brings_torch_into_the_page():
    code = """
import sys
from ui import exports
from ui.tabs import models as tab
from llm.config import FORMATS
tab.look(None, "story-llama"); tab.draw(None, "story-llama", tab.CHOSEN, "", "bf16"); tab.models(); tab.lab_catalogue({})
for format in FORMATS:
    exports.plan(None, "story-llama", format, "")
    print(format, "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()[1::2]) == {"False"}, done.stdout
