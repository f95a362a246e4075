"""The Models tab as a student uses it: choose, draw, add up, bring a model in, take one away, read the catalogue."""

from __future__ import annotations

import re
import shutil
import urllib.parse
import urllib.request
import zipfile

import pytest
from safetensors.torch import load_file

from llm import catalogue, checkpoint, paths

TABS = "attention playground models"  # what the page is built with


@pytest.fixture
def models(open_tab):
    """The tab with its first model drawn."""
    page = open_tab("models")
    wait_total(page, 708_480)
    return page


def wait_total(page, parameters: int) -> None:
    """Wait until the cards show this many parameters, and the pieces drawn add up to it ("49,152 × 3" is a product)."""
    page.wait_for_function(
        """(n) => {
          const value = (text) => text.replaceAll(',', '').split('×').map(Number).reduce((a, b) => a * b);
          const pieces = [...document.querySelectorAll('#models-flow .md-much b')].map((b) => value(b.textContent));
          const card = document.querySelector('#models-totals dd')?.textContent ?? '';
          return card === n.toLocaleString('en') && pieces.length > 4 && pieces.reduce((a, b) => a + b) === n;
        }""",
        arg=parameters,
    )


def wait_cache(page, n_bytes: int) -> None:
    """Wait until the KV cache is said to take this many bytes."""
    page.wait_for_function(
        "n => document.querySelector('#models-cache')?.textContent === n", arg=f"{n_bytes:,}"
    )


def enter(page, room: str) -> None:
    page.click(f"#models-room label:has-text('{room}')")


def choose_file_source(page, folder) -> None:
    """Upload all files of a folder and wait until they have been looked at."""
    page.set_input_files("#models-upload input[type=file]", [str(path) for path in sorted(folder.iterdir())])
    page.wait_for_selector("#models-found .md-map, #models-found .lab-error")


def finished(page, name: str) -> None:
    """Wait until the card of this import or export says how it ended."""
    card = f".tf-card[data-run='{name}']"
    page.wait_for_function(
        "c => ['finished', 'failed', 'stopped', 'crashed'].includes(document.querySelector(c)?.dataset.status)",
        arg=card, timeout=90_000,
    )  # fmt: skip
    assert page.get_attribute(card, "data-status") == "finished", page.inner_text(card)


def test_it_opens_alive_with_a_model_taken_apart(models):
    block = models.inner_text("#models-flow .md-block > header")
    assert "Block × 3" in block and "3 × 181,504 = 544,512" in block
    wait_cache(models, 2 * 3 * 2 * 32 * 256 * 2)  # 2 L K D T numbers of 2 bytes
    models.wait_for_selector("#models-cache-curve .js-plotly-plot .scatterlayer .trace")
    row = models.inner_text("#models-present tr.lab-chosen")
    assert "story-llama" in row and "708,480" in row and "MIT" in row
    memory = models.locator("#models-totals dd").all_inner_texts()
    assert memory[1:5] == ["2.7 MB", "1.4 MB", "691.9 KB", "345.9 KB"]  # 708,480 x 4, 2, 1, 1/2 bytes


def test_the_cache_follows_the_number_format(models):
    models.click("#models-cache-format label:has-text('fp32')")
    wait_cache(models, 2 * 3 * 2 * 32 * 256 * 4)
    models.wait_for_function("location.search.includes('models.cache=fp32')")


def test_another_model_is_chosen_and_opened_elsewhere(models):
    models.click("#models-present [data-name='verse-char'][data-action='choose']")
    wait_total(models, 57_504)
    models.wait_for_function("location.search.includes('models.model=verse-char')")
    models.click("#models-about [data-name='verse-char@0000010']")
    models.wait_for_selector("#models-about h3:has-text('verse-char@0000010')")
    link = models.get_attribute("#models-about a:has-text('Write with it')", "href")
    models.goto(f"/{link}")
    models.wait_for_selector("#playground-generate", state="visible")
    models.wait_for_function(
        "document.querySelector('#playground-model input')?.value === 'verse-char@0000010'"
    )


def test_every_tensor_is_listed_with_its_real_shape(models):
    models.click("button:has-text('Every tensor')")
    table = models.locator("#models-tensors table")
    table.wait_for()
    rows = [row.split("\t") for row in table.inner_text().splitlines()[1:]]
    stored = load_file(paths.shipped_models() / "story-llama" / "model.safetensors")
    shown = {name: tuple(int(n.replace(",", "")) for n in shape.split("×")) for name, shape, *_ in rows}
    assert shown == {name: tuple(tensor.shape) for name, tensor in stored.items()}


def test_the_catalogue_narrows_sorts_and_draws(models):
    enter(models, "Catalogue")
    models.wait_for_selector(".md-catalogue tbody tr")
    assert models.locator(".md-catalogue tbody tr").count() == sum(
        e.kind == "model" for e in catalogue.entries()
    )
    models.fill(".md-find", "pythia")
    models.wait_for_function("document.querySelectorAll('.md-catalogue tbody tr').length === 8")
    models.click(".md-sort[data-sort='parameters']")  # from the smallest first to the largest first
    names = models.locator(".md-catalogue tbody tr").evaluate_all(
        "rows => rows.map((row) => row.dataset.name)"
    )
    assert names[0] == "Pythia 12B" and names[-1] == "Pythia 70M"
    models.fill(".md-find", "")
    models.check(".md-only input")
    opened = models.locator(".md-catalogue tbody tr").evaluate_all(
        "rows => rows.map((row) => row.dataset.name)"
    )
    assert set(opened) == {e.name for e in catalogue.entries() if e.kind == "model" and e.opens}
    models.click(".md-catalogue tr[data-name='Pythia 70M'] [data-action='draw']")
    wait_total(models, 70_426_624)
    models.wait_for_function("location.search.includes('models.of=Pythia+70M')")


def test_the_catalogue_of_datasets_has_a_source_for_each(models):
    enter(models, "Catalogue")
    models.click(".md-catalogue [data-kind='dataset']")
    count = sum(e.kind == "dataset" for e in catalogue.entries())
    models.wait_for_function(
        "n => document.querySelectorAll('.md-catalogue tbody tr').length === n", arg=count
    )
    links = models.locator(".md-catalogue tbody tr a").evaluate_all("all => all.map((a) => a.href)")
    assert len(links) == count and all(link.startswith("http") for link in links)


def test_a_pasted_config_is_drawn_or_refused_in_words(open_tab):
    page = open_tab("models", **{"models.of": "a config.json that I paste"})
    page.wait_for_selector("#models-config textarea", state="visible")
    page.fill("#models-config textarea", '{"model_type": "mamba"}')
    page.wait_for_selector("#models-title .lab-error:has-text(\"of the family 'mamba'\")")
    page.fill(
        "#models-config textarea",
        '{"model_type":"gpt2","vocab_size":50257,"n_positions":1024,"n_embd":768,"n_layer":12,"n_head":12}',
    )
    wait_total(page, 124_439_808)


@pytest.fixture
def tiny_llama(tmp_path):
    """A Hugging Face folder with a small random Llama, as transformers writes it, and that model."""
    transformers = pytest.importorskip("transformers")
    shape = transformers.LlamaConfig(
        vocab_size=1280, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(shape).eval()
    model.save_pretrained(tmp_path / "tiny")
    shutil.copy(paths.shipped_datasets() / "encodings" / "stories-1280" / "tokenizer.json", tmp_path / "tiny")
    return tmp_path / "tiny", model


def test_a_model_is_brought_in_used_and_deleted(open_tab, server, tiny_llama):
    import torch

    folder, theirs = tiny_llama
    page = open_tab("models", **{"models.room": "bring"})
    page.wait_for_selector("#models-look", state="visible")
    choose_file_source(page, folder)
    assert "21 tensors: 21 used, 0 not needed, 0 not matched" in page.inner_text("#models-found .lab-message")
    assert page.locator("#models-found .md-map tbody tr").count() == 21
    page.fill("#models-import-name textarea, #models-import-name input", "tiny-llama")
    page.wait_for_function("document.querySelector('#models-import').innerText === 'Import it as tiny-llama'")
    page.click("#models-import")
    finished(page, "tiny-llama")
    model, _ = checkpoint.load_model(server.home / "models" / "tiny-llama")
    idx = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.allclose(model(idx), theirs(idx).logits, atol=1e-4)
    page.wait_for_selector("#models-present [data-name='tiny-llama']")
    page.click("#models-present [data-name='tiny-llama']")
    enter(page, "Anatomy")
    wait_total(page, theirs.num_parameters())
    page.click("button:has-text('Every tensor')")
    page.wait_for_selector("#models-tensors .md-map")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#models-about [data-action='delete']")
    page.wait_for_selector("#models-present [data-name='tiny-llama']", state="detached")
    assert not (server.home / "models" / "tiny-llama").exists()
    assert not (server.home / "runs" / "tiny-llama").exists()  # the name is free again


def test_a_tab_chosen_again_shows_what_came_meanwhile(models, server):
    models.wait_for_function("window.lab.drawn.has('models')")
    shutil.copytree(paths.shipped_models() / "verse-char", server.home / "models" / "meanwhile")
    models.click("#tab-attention-button")
    models.wait_for_selector("#attention-weight")
    models.click("#tab-models-button")
    models.wait_for_selector("#models-present [data-name='meanwhile']")
    shutil.rmtree(server.home / "models" / "meanwhile")


def test_a_folder_without_its_weights_is_refused_and_leaves_nothing(open_tab, server, tiny_llama):
    folder, _ = tiny_llama
    (folder / "model.safetensors").unlink()
    page = open_tab("models", **{"models.room": "bring"})
    page.wait_for_selector("#models-look", state="visible")
    choose_file_source(page, folder)
    assert re.search("safetensors|weights", page.inner_text("#models-found .lab-error"))
    assert page.is_disabled("#models-import")
    assert not list((server.home / "models").glob("*tiny*")) if (server.home / "models").exists() else True


def test_a_model_is_taken_away_and_opened_by_transformers(open_tab, server, tmp_path):
    import torch

    transformers = pytest.importorskip("transformers")

    page = open_tab("models", **{"models.room": "take"})
    page.wait_for_function(
        "document.querySelector('#models-export')?.innerText === 'Write story-llama as Hugging Face folder'"
    )
    assert "2.7 MB" in page.inner_text("#models-export-plan")
    assert "vllm serve ./story-llama --max-model-len 256" in page.inner_text("#models-recipes")
    page.wait_for_selector("#models-http .tf-recipe")
    assert f"{server.url}/v1/completions" in page.inner_text("#models-http")
    page.click("#models-export")
    page.wait_for_selector(".tf-card")
    name = page.get_attribute(".tf-card", "data-run")
    finished(page, name)
    with page.expect_download() as download:
        page.click(f".tf-card[data-run='{name}'] .tf-fetch")
    download.value.save_as(tmp_path / "model.zip")
    whole = (tmp_path / "model.zip").read_bytes()
    address = f"{server.url}/lab/download/{name}"
    request = urllib.request.Request(address, headers={"Range": "bytes=1000000-"})
    with urllib.request.urlopen(request, timeout=30) as rest:  # a cut download goes on
        assert rest.status == 206 and rest.read() == whole[1_000_000:]
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        archive.extractall(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "story-llama").eval()
    model, encoding = checkpoint.load_model(paths.shipped_models() / "story-llama")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "story-llama")
    text = "Long ago, a proud badger named Willa"
    assert tokenizer(text)["input_ids"] == encoding.encode(text)
    idx = torch.tensor([encoding.encode(text)])
    with torch.no_grad():
        assert torch.allclose(theirs(idx).logits, model(idx), atol=1e-4)
    page.on("dialog", lambda dialog: dialog.accept())
    page.click(f".tf-card[data-run='{name}'] [data-action='delete']")
    page.wait_for_selector(f".tf-card[data-run='{name}']", state="detached")
    assert not (server.home / "runs" / name).exists()


def test_what_a_format_cannot_hold_is_said_with_the_reason(open_tab):
    page = open_tab("models", **{"models.room": "take", "models.model": "verse-char"})
    page.wait_for_selector("#models-export-plan .lab-error")
    assert "cuts texts into chars, and other tools have no file for that" in page.inner_text(
        "#models-export-plan"
    )
    assert page.is_disabled("#models-export")
    page.click("#models-present [data-name='story-gpt2']")
    page.wait_for_function(
        "document.querySelector('#models-export')?.innerText.startsWith('Write story-gpt2')"
    )
    page.click("#models-format label:has-text('LitGPT')")
    page.wait_for_selector("#models-export-plan .lab-error")
    assert "position is learned" in page.inner_text("#models-export-plan")


def test_a_link_brings_back_room_and_drawing(open_tab):
    page = open_tab("models", **{"models.of": "Qwen3 0.6B", "models.cache": "int8"})
    wait_total(page, 596_049_920)
    wait_cache(page, 2 * 28 * 8 * 128 * 40_960 * 1)
    enter(page, "Bring")
    page.wait_for_function("location.search.includes('models.room=bring')")
    page.click("#models-from label:has-text('Hub')")
    page.fill("#models-hub-search textarea, #models-hub-search input", "SmolLM2")
    page.click("#models-hub-go")
    page.wait_for_selector("#models-hub-results .lab-message")
    assert "Hub is switched off" in page.inner_text("#models-hub-results")  # tests run with HF_HUB_OFFLINE
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(page.url).query)
    assert query["models.of"] == ["Qwen3 0.6B"]


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_screen_scrolls_only_down(new_page, dark):
    page = new_page(width=390, dark=dark)
    page.goto("/?tab=models")
    page.wait_for_selector("#models-flow .md-piece")
    for room in ("Take", "Bring", "Catalogue", "Anatomy"):
        enter(page, room)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, room
