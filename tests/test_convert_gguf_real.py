"""GGUF against the real things: SmolLM2 from PyPI, transformers beside us, and llama.cpp itself reading what we write.

llama.cpp comes from llama-cpp-python in an interpreter of its own, named by $LLAMA_CPP_PYTHON (else this one, if it has
it): `pip install llama-cpp-python` builds it in ten minutes or so.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import gguf as library
import numpy as np
import pytest
import torch

from llm import checkpoint, data, paths, tokenizer
from llm.config import ModelConfig
from llm.convert import gguf, gguf_header, gguf_tokenizer
from llm.model import GPT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parent.parent
TEXT = "The quick grey cat climbs over the old wall. The wall was warm in the sun while the cat slept on it for a while."


def child(code: str, *arguments: str, python: str = sys.executable, given: dict | None = None) -> dict:
    """What a Python process of its own prints as JSON on its last line."""
    done = subprocess.run(
        [python, "-c", code, *arguments],
        cwd=ROOT,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def opened(path: Path) -> GPT:
    source = gguf.look(path)
    source.check()
    return checkpoint.fill(checkpoint.empty_model(source.config), source.read(), path.name).eval()


def logits(model: GPT, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]))[0]


def mean_loss(model: GPT, ids: list[int]) -> float:
    return torch.nn.functional.cross_entropy(logits(model, ids)[:-1], torch.tensor(ids[1:])).item()


def greedy(model: GPT, ids: list[int], count: int) -> list[int]:
    ids = list(ids)
    for _ in range(count):
        ids.append(int(logits(model, ids)[-1].argmax()))
    return ids[-count:]


# ---- SmolLM2 --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm_encoding(smollm, tmp_path_factory) -> tokenizer.Tokenizer:
    folder = tmp_path_factory.mktemp("encoding")
    for name, content in gguf.look(smollm).files.items():
        (folder / name).write_bytes(content)
    return tokenizer.load(folder)


def test_smollm2_opens_and_says_paris(smollm, smollm_encoding):
    """Quantised Q4_1 under a name that says otherwise, no output matrix, 9 heads on 3: the model's known answers."""
    source = gguf.look(smollm)
    source.check()
    config = source.config
    assert source.parameters() == sum(config.parameters().values()) == 134_515_008
    assert (
        config.tie_embeddings and config.context_length == 8192 and (config.n_head, config.kv_heads) == (9, 3)
    )
    assert not source.unmatched() and source.facts["licence"] == "apache-2.0"
    model = opened(smollm)
    ids = smollm_encoding.encode("The capital of France is")
    assert ids == [504, 3575, 282, 4649, 314]
    chances = logits(model, ids)[-1].log_softmax(-1)
    best = [(smollm_encoding.decode([int(id)]), float(chances[id])) for id in chances.topk(2).indices]
    assert [text for text, _ in best] == [" Paris", " the"]
    assert [chance for _, chance in best] == pytest.approx([-0.258, -2.741], abs=0.005)
    answer = greedy(model, ids, 12)
    assert answer == [7042, 30, 198, 198, 504, 2988, 314, 42, 216, 34, 32, 33]
    print(
        f"The capital of France is{smollm_encoding.decode(answer)!r}; {best[0][0]!r} has log-probability {best[0][1]:.3f}."
    )


def test_smollm2_reads_rows_in_the_right_order(smollm, smollm_encoding, monkeypatch):
    """Left as they lie, the rows of q and k still give a sentence, of twice the perplexity."""
    ids = smollm_encoding.encode(TEXT)
    right = math.exp(mean_loss(opened(smollm), ids))
    monkeypatch.setattr(gguf, "halves", lambda rows, heads: rows)
    wrong = math.exp(mean_loss(opened(smollm), ids))
    print(f"Perplexity of a text: {right:.2f}; with rows in llama.cpp's order {wrong:.2f}.")
    assert wrong > 1.5 * right


def test_smollm2_keeps_its_chat_template(smollm, smollm_encoding):
    import jinja2

    files = gguf.look(smollm).files
    config = json.loads(files["tokenizer_config.json"])
    assert (config["bos_token"], config["eos_token"], config["add_bos_token"]) == (
        "<|im_start|>",
        "<|im_end|>",
        False,
    )
    text = jinja2.Template(config["chat_template"]).render(
        messages=[{"role": "user", "content": "Hello"}], add_generation_prompt=True
    )
    ids = smollm_encoding.encode(text, special=True)
    assert ids.count(1) == 3 and ids.count(2) == 2  # system, user, and the turn that is to come
    assert smollm_encoding.decode(ids) == text


OURS = """
import json, sys, time
from pathlib import Path
import torch, gguf as _
from llm import checkpoint
from llm.convert import gguf
def memory(kind): return 1024 * int(next(l for l in open("/proc/self/status") if l.startswith(kind)).split()[1])
before, begun = memory("VmRSS"), time.perf_counter()
source = gguf.look(Path(sys.argv[1])); source.check()
model = checkpoint.fill(checkpoint.empty_model(source.config), source.read(), "smollm")
seconds, peak = time.perf_counter() - begun, memory("VmHWM")
ids = json.loads(sys.argv[2])
with torch.no_grad(): last = model(torch.tensor([ids]))[0, -1, :1000].tolist()
print(json.dumps({"seconds": seconds, "before": before, "peak": peak, "logits": last}))
"""
THEIRS = """
import json, os, sys, time
import torch, gguf as _
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama
def memory(kind): return 1024 * int(next(l for l in open("/proc/self/status") if l.startswith(kind)).split()[1])
before, begun = memory("VmRSS"), time.perf_counter()
folder, file = os.path.split(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
seconds, peak = time.perf_counter() - begun, memory("VmHWM")
ids = json.loads(sys.argv[2])
with torch.no_grad(): last = model(torch.tensor([ids])).logits[0, -1, :1000].tolist()
print(json.dumps({"seconds": seconds, "before": before, "peak": peak, "logits": last}))
"""


def test_smollm2_opens_as_fast_as_in_transformers_and_in_little_memory(smollm, smollm_encoding):
    """From the file to a model in fp32, libraries already imported; the better of two runs of each, taking turns."""
    ids = json.dumps(smollm_encoding.encode(TEXT))
    runs = [(child(OURS, str(smollm), ids), child(THEIRS, str(smollm), ids)) for _ in range(2)]
    ours, theirs = ([run[i] for run in runs] for i in (0, 1))
    weights = 4 * 134_515_008
    for name, found in (("LLM Lab", ours), ("transformers", theirs)):
        print(
            f"{name}: {min(run['seconds'] for run in found):.1f} s; memory {max(run['peak'] for run in found) / 1e6:,.0f} MB at "
            f"most, {found[0]['before'] / 1e6:,.0f} MB of them before: the model took "
            f"{max(run['peak'] - run['before'] for run in found) / weights:.2f} times its fp32 weights ({weights / 1e6:,.0f} MB)."
        )
    assert np.allclose(ours[0]["logits"], theirs[0]["logits"], atol=2e-3)
    assert min(run["seconds"] for run in ours) < 1.3 * min(run["seconds"] for run in theirs)
    assert max(run["peak"] - run["before"] for run in ours) < 1.3 * weights


# ---- llama.cpp ------------------------------------------------------------------------------------------------------

LLAMA_CPP = """
import json, sys
import numpy as np
from llama_cpp import Llama
job, found = json.load(sys.stdin), []
for file in job["files"]:
    m = Llama(file, n_ctx=job["context"], logits_all=True, verbose=False, n_threads=1, vocab_only=job.get("vocab_only", False))
    ids = [[m.tokenize(t.encode(), add_bos=False, special=s) for t in job.get("texts", [])] for s in (False, True)]
    answers, losses, last = [], [], []
    for prompt in job.get("prompts", []):
        m.reset()
        m.eval(m.tokenize(prompt.encode(), add_bos=False))
        answers.append([])
        for _ in range(job["count"]):
            answers[-1].append(int(m.scores[m.n_tokens - 1].argmax()))
            m.eval(answers[-1][-1:])
    for row in job.get("score", []):
        m.reset()
        m.eval(row)
        s = m.scores[: len(row)].astype(np.float64)
        s = s - np.log(np.exp(s).sum(-1, keepdims=True))
        losses.append(-float(np.mean([s[i, row[i + 1]] for i in range(len(row) - 1)])))
        last.append(m.scores[: len(row)].astype(float).tolist() if job.get("all") else None)
    found.append({"ids": ids, "answers": answers, "losses": losses, "logits": last})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def llama_cpp() -> str:
    """An interpreter that has llama-cpp-python."""
    python = os.environ.get("LLAMA_CPP_PYTHON", sys.executable)
    done = subprocess.run(
        [python, "-c", "import llama_cpp; print(llama_cpp.__version__)"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        pytest.skip(f"{python} has no llama-cpp-python: name one that does in LLAMA_CPP_PYTHON")
    print(f"llama-cpp-python {done.stdout.strip()}")
    return python


PROMPTS = ["Long ago, a proud badger", "The fox", "One morning a small"]


@pytest.mark.parametrize("name", ["story-llama", "story-gpt2"])
def test_llama_cpp_says_the_same(tmp_path, llama_cpp, name):
    """F16: the same greedy text; Q8_0: a perplexity on text the model was not trained on within 1 %; Q4_0: it opens."""
    model, encoding = checkpoint.load_model(paths.model_folder(name))
    text = (ROOT / "datasets" / "stories.txt").read_text(encoding="utf-8")
    _, held_out = data.split(np.array(encoding.encode(text, special=True)), 0.05)
    windows = [held_out[i : i + 256].tolist() for i in range(0, 16 * 256, 256)]
    kinds = ("f32", "f16", "bf16", "q8_0", "q4_0")
    for kind in kinds:
        gguf.save(name, tmp_path / f"{kind}.gguf", kind)
    given = {
        "files": [str(tmp_path / f"{kind}.gguf") for kind in kinds],
        "context": 256,
        "texts": [text[:2000]],
    }
    given |= {"prompts": PROMPTS, "count": 60, "score": windows}
    found = dict(zip(kinds, child(LLAMA_CPP, python=llama_cpp, given=given)))
    expected = [greedy(model, encoding.encode(prompt), 60) for prompt in PROMPTS]
    ours = math.exp(np.mean([mean_loss(model, window) for window in windows]))
    theirs = {kind: math.exp(np.mean(found[kind]["losses"])) for kind in kinds}
    same = {kind: sum(a == b for a, b in zip(found[kind]["answers"], expected)) for kind in kinds}
    print(f"{name}: perplexity {ours:.4f} here; in llama.cpp:")
    for kind in kinds:
        size = (tmp_path / f"{kind}.gguf").stat().st_size / 1e6
        print(
            f"  {kind:5} {size:5.2f} MB  perplexity {theirs[kind]:.4f} ({theirs[kind] / ours - 1:+.3%})  greedy text the same "
            f"for {same[kind]} of {len(PROMPTS)} prompts"
        )
    for special in (False, True):
        assert all(
            run["ids"][special] == [encoding.encode(text[:2000], special=special)] for run in found.values()
        )
    assert same["f32"] == same["f16"] == len(PROMPTS)
    assert abs(theirs["q8_0"] / ours - 1) < 0.01
    assert abs(theirs["f16"] / ours - 1) < 0.001 and theirs["q4_0"] / ours < 1.1


SHAPES = {  # one model of each architecture and of each thing it may have
    "llama": {"n_kv_head": 2},
    "llama-own-head": {"n_kv_head": 2, "tie_embeddings": False, "head_size": 32},
    "llama-biases": {"bias": True, "qkv_bias": True},
    "llama-linear": {"rope_scaling": "linear", "rope_factor": 4.0},
    "llama-3": {"rope_scaling": "llama3", "rope_factor": 8.0, "rope_original": 64, "rope_theta": 5e5},
    "qwen2": {"qkv_bias": True, "n_kv_head": 2},
    "qwen2-wide": {"qkv_bias": True, "head_size": 32},
    "qwen3": {"qk_norm": "head", "head_size": 32, "n_kv_head": 2},
    "olmo2": {"qk_norm": "width", "norm_position": "output"},
    "gemma3": {
        "qk_norm": "head", "norm_position": "sandwich", "mlp": "geglu", "embedding_scale": True, "sliding_window": 16,
        "global_every": 3, "rope_theta": 1e6, "rope_theta_local": 1e4, "rope_scaling": "linear", "rope_factor": 8.0,
    },
    "gpt2": {"position": "learned", "norm": "layernorm", "mlp": "gelu_tanh", "bias": True, "qkv_bias": True},
    "gpt2-no-biases": {"position": "learned", "norm": "layernorm", "mlp": "gelu_tanh"},
    "gptneox": {"norm": "layernorm", "mlp": "gelu_tanh", "bias": True, "qkv_bias": True, "parallel": True, "rope_share": 0.25},
    "gptneox-in-turn": {"norm": "layernorm", "mlp": "gelu_tanh", "bias": True, "qkv_bias": True},
}  # fmt: skip


def test_llama_cpp_computes_every_family(tmp_path, llama_cpp):
    """Random models of each family: llama.cpp's logits at every position (its cache is F16) are ours."""
    encoding = tokenizer.load(paths.model_folder("story-llama"))
    ids = encoding.encode("Long ago, a proud badger lived by the river and found a red kite. " * 8)[:120]
    base = {
        "vocab_size": 1280,
        "context_length": 128,
        "n_layer": 4,
        "n_head": 4,
        "n_embd": 64,
        "mlp_hidden": 96,
    }
    made = {}
    for name, values in SHAPES.items():
        torch.manual_seed(1)
        made[name] = model = GPT(ModelConfig(**base | values)).eval()
        with torch.no_grad():
            for p in model.parameters():
                p.normal_(std=0.12) if p.dim() == 2 else p.add_(torch.randn_like(p) * 0.2)
        checkpoint.save_model(paths.models() / name, model, encoding, "")
        gguf.save(name, tmp_path / f"{name}.gguf", "f32")
    given = {
        "files": [str(tmp_path / f"{name}.gguf") for name in made],
        "context": 128,
        "score": [ids],
        "all": True,
    }
    for (name, model), found in zip(made.items(), child(LLAMA_CPP, python=llama_cpp, given=given)):
        expected, theirs = logits(model, ids), torch.tensor(found["logits"][0])
        apart = (theirs - expected).abs().max().item()
        print(f"{name}: logits spread {expected.std():.2f}, at most {apart:.4f} from llama.cpp's")
        assert apart < 0.02 * expected.std(), name


def vocabulary(path: Path, settings: dict) -> Path:
    """A GGUF of nothing but a tokenizer."""
    writer = library.GGUFWriter(path, "llama")
    adds = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
    for name, value in settings.items():
        (writer.add_array if isinstance(value, list) else adds[type(value)])(name, value)
    for add in (writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length):
        add(8)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


SIGNS = [
    "a",
    "B",
    " ",
    "  ",
    "\n",
    "\r\n",
    "1",
    "23",
    "é",
    "'s",
    "'T",
    "!",
    "--",
    "中",
    "日本",
    "🦊",
    "$",
    "\t",
    "Ж",
    "ß",
    "_",
    "/",
    "½",
    "٣",
]


def test_llama_cpp_cuts_texts_the_same(tmp_path, llama_cpp):
    """GPT-2's vocabulary under each name of a way to cut: the ids of llama.cpp are those of the file made from it."""
    import random

    document = tokenizer.get("gpt2")._as_json()["model"]
    tokens = [*sorted(document["vocab"], key=document["vocab"].get), "<|user|>", "[TOOL]"]
    kinds = [*[gguf_tokenizer.NORMAL] * 50256, *[gguf_tokenizer.CONTROL] * 2, gguf_tokenizer.USER_DEFINED]
    chance = random.Random(0)
    texts = ["".join(chance.choice(SIGNS) for _ in range(25)) for _ in range(200)]
    texts += [
        "It's 1234567 o'clock; THEY'LL say:  x=y+3*[4];{}  \r\n",
        "<|user|>hi [TOOL] there",
        "हिन्दी ภาษาไทย עברית العربية",
    ]
    files = {}
    for pre in gguf_tokenizer.PRE_TOKENIZERS:
        settings = {
            "model": "gpt2",
            "pre": pre,
            "tokens": tokens,
            "token_type": kinds,
            "eos_token_id": 50256,
            "bos_token_id": 50256,
        }
        settings["merges"] = [" ".join(pair) for pair in document["merges"]]
        files[pre] = vocabulary(
            tmp_path / f"{pre}.gguf", {f"tokenizer.ggml.{key}": value for key, value in settings.items()}
        )
    given = {
        "files": [str(file) for file in files.values()],
        "context": 8,
        "texts": texts,
        "vocab_only": True,
    }
    for (pre, file), found in zip(files.items(), child(LLAMA_CPP, python=llama_cpp, given=given)):
        (tmp_path / pre).mkdir()
        made, _ = gguf_tokenizer.files_of(gguf_header.read_header(file).settings, len(tokens))
        for name, content in made.items():
            (tmp_path / pre / name).write_bytes(content)
        ours = tokenizer.load(tmp_path / pre)
        for special in (False, True):
            assert found["ids"][special] == [ours.encode(text, special) for text in texts], pre
    print(f"{len(texts)} texts have the same ids under {len(files)} names.")


def test_smollm2_goes_back_to_llama_cpp(tmp_path, llama_cpp, smollm, smollm_encoding):
    """The imported model written again as F16: llama.cpp gives the ids, the first token and the perplexity of ours."""
    source, model = gguf.look(smollm), opened(smollm)
    folder = paths.models() / "smollm2"
    checkpoint.save_model(folder, model, smollm_encoding, "# SmolLM2\n")
    for name in ("tokenizer_config.json", "generation_config.json"):
        (folder / name).write_bytes(source.files[name])
    gguf.save("smollm2", tmp_path / "smollm2.gguf", "f16")
    ids = smollm_encoding.encode(TEXT)
    prompt = "The capital of France is"
    given = {
        "files": [str(tmp_path / "smollm2.gguf"), str(smollm)],
        "context": 256,
        "texts": [TEXT],
        "score": [ids],
    }
    again, original = child(LLAMA_CPP, python=llama_cpp, given=given | {"prompts": [prompt], "count": 12})
    ours = mean_loss(model, ids)
    print(
        f"Perplexity of a text: {math.exp(ours):.3f} here, {math.exp(again['losses'][0]):.3f} in llama.cpp from our F16 file, "
        f"{math.exp(original['losses'][0]):.3f} from the original Q4_1 file."
    )
    assert again["ids"][0] == original["ids"][0] == [ids]
    assert again["answers"] == [greedy(model, smollm_encoding.encode(prompt), 12)]
    assert again["losses"][0] == pytest.approx(ours, abs=0.005)
    fields = library.GGUFReader(tmp_path / "smollm2.gguf").fields
    before = library.GGUFReader(smollm).fields
    for key in (
        "tokenizer.ggml.pre",
        "tokenizer.chat_template",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.tokens",
    ):
        assert fields[key].contents() == before[key].contents(), key
