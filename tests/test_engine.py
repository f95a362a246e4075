"""The engine: same answers in process and in a worker, several visitors at once, and what happens when things break."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llm import engine, generate, lora, paths, worker
from llm.checkpoint import load_model, save_model
from llm.config import ModelConfig, SampleConfig
from llm.model import GPT
from llm.prompts import Written
from llm.tokenizer import ByteTokenizer, CharTokenizer

BYTE = ByteTokenizer()


def made(seed: int = 0, **fields) -> GPT:
    torch.manual_seed(seed)
    shape = dict(vocab_size=257, context_length=64, n_layer=2, n_head=4, n_kv_head=2, n_embd=32)
    model = GPT(ModelConfig(**{**shape, **fields}))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    return model.eval()


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """Two models, `tiny` and `other`; every engine of these tests reads them."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_HOME", str(home))
        patch.setenv("OMP_NUM_THREADS", "1")
        save_model(paths.models() / "tiny", made(), BYTE, "# tiny\n")
        save_model(paths.models() / "other", made(seed=1), BYTE, "# other\n")
        yield home


@pytest.fixture(scope="module")
def remote(home):
    made = engine.Remote()
    yield made
    made.close()


@pytest.fixture(scope="module")
def inline(home):
    return engine.Inline()


@pytest.fixture(params=["remote", "inline"])
def either(request):
    return request.getfixturevalue(request.param)


def text_of(one: engine.Engine, *arguments, row: int = 0, **more) -> str:
    return "".join(s["text"] for steps in one.generate(*arguments, **more) for s in steps if s["row"] == row)


def expected(model: str, prompt: str, config: SampleConfig) -> str:
    loaded, encoding = load_model(paths.model_folder(model))
    return generate.complete(loaded, encoding, [prompt], config)[0]


LONG = SampleConfig(max_new_tokens=100_000, stop_at_eot=False)


# --- answers


def test_importing_the_engine_imports_no_torch():
    code = (
        "import sys, llm.engine; bad = {'torch', 'numpy', 'gradio'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_operation_can_be_asked_for():
    for name in worker.OPERATIONS:
        assert callable(getattr(engine.Engine, name)) and callable(worker.operation(name)), name
    with pytest.raises(ValueError, match="frobnicate"):
        worker.operation("frobnicate")


def test_info(either):
    found = either.info("tiny")
    assert found["parameters"] == sum(p.numel() for p in made().parameters())
    assert found["config"]["context_length"] == 64 and found["encoding"]["eot_id"] == 256


def test_score_is_the_models_log_probability(either):
    text = "Hello, world"
    found, ids = either.score("tiny", text=text), BYTE.encode(text)
    logits = made()(torch.tensor([ids])).detach()[0].log_softmax(-1)
    assert found["ids"] == ids and found["logprobs"][0] is None and found["dropped"] == 0
    assert found["logprobs"][1:] == pytest.approx(
        [float(logits[t, ids[t + 1]]) for t in range(len(ids) - 1)], abs=1e-4
    )
    assert "".join(found["texts"]) == text
    assert either.score("tiny", text="")["logprobs"] == []
    assert either.score("tiny", text="x" * 100)["dropped"] == 36


def test_explain_is_that_of_generate(either):
    config = SampleConfig(top_k=5, temperature=0.5)
    found = either.explain("tiny", text="Hello", config=config, after=[65], top=7, also=[200])
    ids = [*BYTE.encode("Hello"), 65]
    direct = generate.explain(generate.next_logits(made(), ids), ids, config, BYTE, 7, [200])
    assert [row["id"] for row in found["rows"]] == [row["id"] for row in direct["rows"]]
    for mine, row in zip(found["rows"], direct["rows"]):
        assert mine["probability"] == pytest.approx(row["probability"], rel=1e-4)
    assert found["kept"] == direct["kept"] and found["kept"]["top_k"] == 5


def test_trace_answers_with_arrays(either):
    found = either.trace("tiny", text="Hello")
    arrays = [value for value in found.values() if isinstance(value, np.ndarray)]
    assert arrays and not any(isinstance(value, torch.Tensor) for value in found.values())


@pytest.mark.parametrize(
    "config", [SampleConfig(temperature=0, max_new_tokens=30), SampleConfig(seed=4, top_p=0.9)]
)
def test_text_is_that_of_generate(either, config):
    assert text_of(either, "tiny", ["Hello"], config) == expected("tiny", "Hello", config)


def test_several_prompts_and_several_settings(either):
    config = SampleConfig(seed=3, max_new_tokens=20)
    steps = [s for batch in either.generate("tiny", ["a", "b"], config) for s in batch]
    for r, prompt in enumerate("ab"):
        own = SampleConfig(seed=3 + r, max_new_tokens=20)
        assert "".join(s["text"] for s in steps if s["row"] == r) == expected("tiny", prompt, own)
    two = [SampleConfig(seed=3, max_new_tokens=20), SampleConfig(seed=3, max_new_tokens=12, temperature=0.1)]
    steps = [s for batch in either.generate("tiny", ["a", "a"], two) for s in batch]
    for r, own in enumerate(two):
        assert "".join(s["text"] for s in steps if s["row"] == r) == expected("tiny", "a", own)


def test_ids_forced_tokens_and_alternatives_pass_through(either):
    config = SampleConfig(max_new_tokens=5)
    steps = [
        s
        for batch in either.generate("tiny", [[72, 73]], config, alternatives=3, forced=[65, 66])
        for s in batch
    ]
    assert [s["id"] for s in steps[:2]] == [65, 66] and len(steps) == 5
    assert all(len(s["top"]) == 3 for s in steps) and steps[-1]["finish"] == "length"


def test_no_new_tokens_ends_at_once(either):
    assert list(either.generate("tiny", ["a"], SampleConfig(max_new_tokens=0))) == []


def test_special_strings_are_text_unless_asked(either):
    config = SampleConfig(max_new_tokens=1)
    for special in (False, True):
        steps = next(either.generate("tiny", ["<|endoftext|>"], config, special=special))
        ids = BYTE.encode("<|endoftext|>", special=special)
        logits = generate.next_logits(made(), ids).log_softmax(-1)
        assert steps[0]["logprob"] == pytest.approx(float(logits[steps[0]["id"]]), abs=1e-4)


# --- what is refused


def test_sentences_arrive_word_for_word(either, home):
    with pytest.raises(ValueError, match="no model called 'nobody'"):
        either.info("nobody")
    with pytest.raises(ValueError, match="cannot be used"):
        either.info("../tiny")
    with pytest.raises(ValueError, match="nobody"):
        next(either.generate("nobody", ["a"], LONG))
    with pytest.raises(ValueError, match="no token 999"):
        next(either.generate("tiny", [[999]], LONG))
    assert either.info("tiny")["config"]["n_layer"] == 2  # and it goes on


def test_half_written_and_mismatched_models_are_said(either, home, request):
    name = f"broken-{request.node.callspec.id}"
    folder = paths.models() / name
    save_model(folder, made(), BYTE, "")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="cut short or damaged"):
        either.info(name)
    (folder / "model.safetensors").write_bytes(weights)
    assert either.info(name)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        either.info(name)
    CharTokenizer("abc").save(folder)
    with pytest.raises(ValueError, match="do not belong together"):
        either.info(name)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="not written to its end"):
        either.info(name)


def test_a_model_of_nan_ends_its_own_streams_only(either, request):
    sick = made()
    with torch.no_grad():
        sick.norm.weight.fill_(float("nan"))
    name = f"sick-{request.node.callspec.id}"
    save_model(paths.models() / name, sick, BYTE, "")
    healthy = either.generate("tiny", ["a"], LONG)
    next(healthy)
    with pytest.raises(ValueError, match="not finite"):
        list(either.generate(name, ["a"], LONG))
    next(healthy)
    healthy.close()


def test_our_own_mistakes_are_no_sentence_for_the_reader(either):
    with pytest.raises((RuntimeError, TypeError)):
        either.score("tiny", wrong_argument=1)
    assert either.info("tiny")


def test_an_unknown_kind_of_engine_is_refused(monkeypatch):
    monkeypatch.setenv("LLM_ENGINE", "steam")
    with pytest.raises(ValueError, match="steam"):
        engine.get()
    monkeypatch.setenv("LLM_ENGINE", "inline")
    assert isinstance(engine.get(), engine.Inline) and engine.get() is engine.get()


# --- models in memory


def test_a_model_changed_on_the_disk_is_read_again(either, request):
    name = f"changing-{request.node.callspec.id}"
    save_model(paths.models() / name, made(seed=5), BYTE, "")
    config = SampleConfig(temperature=0, max_new_tokens=20)
    before = text_of(either, name, ["a"], config)
    running = either.generate(name, ["a"], config)
    first = next(running)[0]["text"]
    save_model(paths.models() / name, made(seed=6), BYTE, "")
    after = text_of(either, name, ["a"], config)
    assert after != before and after == expected(name, "a", config)
    assert (
        first + "".join(s["text"] for steps in running for s in steps) == before
    )  # it goes on with what it began


def test_memory_is_bounded_and_the_longest_unused_goes():
    size = sum(p.numel() * 4 for p in made().parameters())
    small = worker.Worker(most_bytes=int(2.5 * size))
    for seed, name in enumerate(("one", "two", "three")):
        save_model(paths.models() / name, made(seed), BYTE, "")
    small.get("one"), small.get("two"), small.get("one"), small.get("three")
    assert [found.folder.name for found in small.loaded] == ["one", "three"]
    small.begin(lambda kind, value: None, "one", ["a"], LONG)
    small.get("two"), small.get("three")
    assert [found.folder.name for found in small.loaded] == ["one", "three"]  # a model in use stays
    nothing = worker.Worker(most_bytes=1)
    assert nothing.get("one") is nothing.get("one")  # larger than the bound: kept until another is asked for


# --- many visitors


def test_visitors_share_the_worker_and_get_their_own_text(either):
    configs = [SampleConfig(seed=n, max_new_tokens=25, temperature=0.5 + n / 10) for n in range(12)]
    found: dict[int, str] = {}

    def visit(n: int) -> None:
        found[n] = text_of(either, ("tiny", "other")[n % 2], [f"visitor {n}"], configs[n])

    threads = [threading.Thread(target=visit, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for n in range(12):
        assert found[n] == expected(("tiny", "other")[n % 2], f"visitor {n}", configs[n])


def test_an_operation_does_not_wait_for_the_end_of_a_text(either):
    with contextlib.closing(either.generate("tiny", ["a"], LONG)) as running:
        next(running)
        start = time.monotonic()
        assert either.score("tiny", text="abc")["ids"] == [97, 98, 99]
        assert time.monotonic() - start < 2
        next(running)


def test_closing_a_stream_frees_its_place_at_once(either):
    running = [either.generate("tiny", ["a"], LONG) for _ in range(worker.ROWS)]  # all places taken
    for one in running:
        next(one)
    for one in running:
        one.close()
    start = time.monotonic()
    assert text_of(either, "tiny", ["a"], SampleConfig(max_new_tokens=3))
    assert time.monotonic() - start < 2
    if isinstance(either, engine.Inline):
        assert not either.worker.busy
        assert not any(found.batches for found in either.worker.loaded)
    else:
        assert not either.child.waiting


def test_more_texts_than_places_wait(either):
    running = [either.generate("tiny", ["a"], LONG) for _ in range(worker.ROWS)]
    for one in running:
        next(one)
    late = []
    thread = threading.Thread(
        target=lambda: late.append(text_of(either, "tiny", ["b"], SampleConfig(max_new_tokens=3)))
    )
    thread.start()
    if isinstance(either, engine.Remote):
        thread.join(0.5)
        assert not late
    running[0].close()
    if isinstance(either, engine.Inline):
        next(running[1])
    thread.join(10)
    assert late == [expected("tiny", "b", SampleConfig(max_new_tokens=3))]
    for one in running:
        one.close()


# --- the process


def test_a_dead_worker_is_said_and_replaced(remote):
    running = remote.generate("tiny", ["a"], LONG)
    next(running)
    first = remote.child.process.pid
    os.kill(first, signal.SIGKILL)
    with pytest.raises(ValueError, match=r"want of memory.*Try again"):
        list(running)
    assert remote.info("tiny")["config"]["n_layer"] == 2
    assert remote.child.process.pid != first


def test_the_worker_ends_with_its_page():
    code = (
        "from llm import engine; e = engine.Remote(); e.call('info', 'tiny');"
        "print(e.child.process.pid, flush=True); g = e.generate('tiny', ['a'], __import__('llm.config').config"
        ".SampleConfig(max_new_tokens=100000, stop_at_eot=False)); next(g); import time; time.sleep(60)"
    )
    page = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(page.stdout.readline())
    os.kill(pid, 0)
    page.kill()
    page.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and alive(pid):
        time.sleep(0.05)
    assert not alive(pid)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_warming_up_starts_it_before_the_first_request(home):
    cold = engine.Remote()
    cold.warm_up("tiny")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (cold.child is None or cold.child.waiting):
        time.sleep(0.05)
    start = time.monotonic()
    assert cold.info("tiny")
    assert time.monotonic() - start < 1.0
    cold.warm_up("nobody")  # nobody is told; the request will say so
    with pytest.raises(ValueError, match="nobody"):
        cold.info("nobody")
    cold.close()


def test_another_home_gets_another_worker(tmp_path, monkeypatch):
    moving = engine.Remote()
    assert moving.info("tiny")
    monkeypatch.setenv("LLM_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="tiny"):
        moving.info("tiny")
    moving.close()


# --- adapters: one base in memory, dialled by each request


def adapted(name: str, base: str, model: GPT, seed: int, **settings) -> GPT:
    """Leave what a LoRA training of `base` leaves: <run>/adapter and, merged, <run>/model. Returns the merged model."""
    lora.add(model, lora.Settings(rank=4, alpha=8.0, **settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part, values in model.named_parameters():
            if part.endswith(".B"):
                values.copy_(torch.randn(values.shape, generator=generator) * 0.1)
    lora.save(model, paths.runs() / name / "adapter", base=base)
    plain = lora.merged(model)
    save_model(paths.runs() / name / "model", plain, BYTE, "")
    return plain


@pytest.fixture(scope="module")
def adapters(home):
    """`loud` and `shy` on the model `tiny`, `foreign` on `wide`, and `cousin` on other weights of the shape of `tiny`."""
    save_model(paths.models() / "wide", made(seed=4, n_embd=48), BYTE, "")
    return {
        "loud": adapted("loud", "tiny", made(), 1),
        "shy": adapted("shy", "tiny", made(), 2, modules=("q", "v", "down")),
        "foreign": adapted("foreign", "wide", made(seed=4, n_embd=48), 3),
        "cousin": adapted("cousin", "other", made(seed=1), 4),
    }


def logits_of(one: engine.Engine, strengths: dict | None, model: str = "tiny") -> list[float]:
    found = one.explain(model, text="Hello", config=SampleConfig(), top=257, adapters=strengths)
    return [row["logit"] for row in sorted(found["rows"], key=lambda row: row["id"])]


def by_hand(*shares: tuple[GPT, float]) -> list[float]:
    """The logits of W + sum of strength * (W' - W): what dialled adapters add up to."""
    base = made()
    with torch.no_grad():
        for name, values in base.named_parameters():
            values += sum(s * (dict(other.named_parameters())[name] - values) for other, s in shares)
    return generate.next_logits(base, BYTE.encode("Hello")).tolist()


def test_a_dial_goes_from_the_base_to_the_tuned_model_and_beyond(either, adapters):
    assert logits_of(either, {"loud": 0.0}) == logits_of(either, None)
    assert logits_of(either, {"loud": 1}) == pytest.approx(logits_of(either, None, "loud"), abs=1e-4)
    for strength in (0.3, 1.0, 2.0):
        expected_ = by_hand((adapters["loud"], strength))
        assert logits_of(either, {"loud": strength}) == pytest.approx(expected_, abs=1e-4)
        assert logits_of(either, {"loud": strength}, "loud") == pytest.approx(expected_, abs=1e-4)
    assert logits_of(either, {"loud": 2}) != pytest.approx(logits_of(either, {"loud": 1}), abs=0.01)


def test_adapters_of_one_base_are_mixed(either, adapters):
    wanted = by_hand((adapters["loud"], 0.5), (adapters["shy"], 1.5))
    for model in ("tiny", "loud", "shy"):
        assert logits_of(either, {"loud": 0.5, "shy": 1.5}, model) == pytest.approx(wanted, abs=1e-4)
    assert logits_of(either, {"shy": 1}) == pytest.approx(logits_of(either, None, "shy"), abs=1e-4)
    alone = generate.next_logits(made(), BYTE.encode("Hello")).tolist()
    assert logits_of(either, None) == pytest.approx(alone, abs=1e-5)  # threads add in another order


def test_texts_of_other_strengths_do_not_disturb_each_other(either, adapters):
    """Ten at the same time, of five settings, each as it is alone."""
    config = SampleConfig(temperature=0, max_new_tokens=20, stop_at_eot=False)
    settings = [None, {"loud": 0.5}, {"loud": 2.0}, {"shy": 1.0}, {"loud": 1.0, "shy": 1.0}]
    alone = [text_of(either, "tiny", ["Hello"], config, adapters=one) for one in settings]
    assert len(set(alone)) > 3
    running = [
        (n % 5, either.generate("tiny", ["Hello"], config, adapters=settings[n % 5])) for n in range(10)
    ]
    found = [["", n] for n, _ in running]
    for _ in range(20):  # a step of each in turn, so that all grow side by side
        for text, (_, steps) in zip(found, running):
            text[0] += "".join(step["text"] for step in next(steps, []))
    for text, (_, steps) in zip(found, running):
        text[0] += "".join(step["text"] for batch in steps for step in batch)
    assert [text for text, _ in found] == [alone[n] for _, n in found]
    assert text_of(either, "tiny", ["Hello"], config) == alone[0] == expected("tiny", "Hello", config)


def test_an_adapter_of_another_base_is_refused_in_words(either, adapters):
    with pytest.raises(ValueError, match=r"foreign cannot be put on tiny.*another model.*128.*tiny 88"):
        logits_of(either, {"foreign": 1.0})
    with pytest.raises(ValueError, match="cousin was made on other, and tiny has other weights"):
        logits_of(either, {"loud": 1.0, "cousin": 1.0})
    with pytest.raises(ValueError, match="no adapter called 'nobody'"):
        logits_of(either, {"nobody": 1.0})
    with pytest.raises(ValueError, match=r"loud goes from 0 to 2, not 2\.5"):
        next(either.generate("tiny", ["a"], LONG, adapters={"loud": 2.5}))
    assert logits_of(either, {"loud": 1}) == pytest.approx(logits_of(either, None, "loud"), abs=1e-4)


def test_the_base_is_read_once_and_only_the_adapters_come_on_top(adapters):
    one = worker.Worker()
    plain = one.get("tiny")
    before = plain.size
    for strengths in ({"loud": 1.0}, {"shy": 0.5}, {"loud": 0.2, "shy": 2.0}):
        assert one.dialled("tiny", strengths)[0] is plain and one.dialled("loud", strengths)[0] is plain
    rank, config = 4, plain.model.config
    added = lora.parameters(config, lora.Settings(rank)) + lora.parameters(
        config, lora.Settings(rank, modules=("q", "v", "down"))
    )
    assert plain.size == before + 4 * added and len(one.loaded) == 1
    shared = {p.data_ptr() for p in plain.model.parameters()}
    own = [p for name, p in plain.adapted.named_parameters() if not lora.in_adapter(name)]
    assert {p.data_ptr() for p in own} == shared


def test_an_adapter_that_was_written_again_is_read_again(either, adapters, request):
    name = f"learning-{request.node.callspec.id}"
    adapted(name, "tiny", made(), 7)
    before = logits_of(either, {name: 1.0})
    running = either.generate("tiny", ["a"], LONG, adapters={name: 1.0})
    next(running)
    adapted(name, "tiny", made(), 8)
    assert logits_of(either, {name: 1.0}) == pytest.approx(logits_of(either, None, name), abs=1e-4)
    assert logits_of(either, {name: 1.0}) != pytest.approx(before, abs=0.01)
    assert next(running)  # it goes on with what it began
    running.close()


def test_other_operations_see_the_dialled_model(either, adapters):
    dialled = either.trace("tiny", text="Hello", adapters={"loud": 1.0})
    merged = either.trace("loud", text="Hello")
    assert [(id, p) for id, _, _, p in dialled["next"]] == [
        (id, pytest.approx(p, abs=1e-4)) for id, _, _, p in merged["next"]
    ]
    scores = either.score("tiny", text="Hello", adapters={"loud": 1.0})["logprobs"]
    assert scores[1:] == pytest.approx(either.score("loud", text="Hello")["logprobs"][1:], abs=1e-4)


def test_the_terminal_dials_as_the_engine_does(either, adapters, capsys):
    flags = ["--prompt=Hello", "--temperature=0", "--max_new_tokens=12"]
    config = SampleConfig(temperature=0, max_new_tokens=12)
    generate.main(["--model", "tiny", "--adapter", "loud=1.5", "--adapter", "shy", *flags])
    wanted = text_of(either, "tiny", ["Hello"], config, adapters={"loud": 1.5, "shy": 1.0})
    assert capsys.readouterr().out == wanted + "\n"
    for words, sentence in (
        (["--adapter", "loud=much"], "NAME=STRENGTH"),
        (["--adapter", "foreign=1"], "cannot be put on tiny"),
        (["--adapter", "loud=3"], "from 0 to 2"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            generate.main(["--model", "tiny", *words, *flags])


def test_turning_the_dial_answers_at_once(remote, adapters):
    """On the model that the page opens with: a new table and a new first token within 200 ms."""
    encoding = load_model(paths.shipped_models() / "story-llama")[1]
    model = load_model(paths.shipped_models() / "story-llama")[0]
    lora.add(model, lora.Settings(rank=8))
    with torch.no_grad():
        for part, values in model.named_parameters():
            if part.endswith(".B"):
                values.normal_(std=0.05)
    lora.save(model, paths.runs() / "quick" / "adapter", base="story-llama")
    ids, one = encoding.encode("Long ago, a proud badger"), SampleConfig(max_new_tokens=1)
    ask = {"text": ids, "config": one}
    remote.explain("story-llama", adapters={"quick": 1.0}, **ask)  # loads the model and puts the adapter on
    tables, tokens = [], []
    for turn in range(8):
        start = time.perf_counter()
        remote.explain("story-llama", adapters={"quick": turn / 4}, **ask)
        tables.append(time.perf_counter() - start)
        start = time.perf_counter()
        next(remote.generate("story-llama", [ids], one, adapters={"quick": turn / 4}))
        tokens.append(time.perf_counter() - start)
    assert sorted(tables)[4] < 0.2 and sorted(tokens)[4] < 0.2


def test_a_classifier_and_a_pair_are_asked_through_the_engine(either, home):
    folder = paths.models() / f"tells-{id(either)}"
    save_model(folder, made(), BYTE, "")
    weight = torch.randn(2, 32, generator=torch.Generator().manual_seed(5))
    save_file({"weight": weight}, folder / "classifier.safetensors")
    (folder / "classifier.json").write_text('{"labels": ["no", "yes"], "max_length": 64}')
    found = either.classify(folder.name, folder=str(folder), texts=["Hello", "bye"])
    for text, chances in zip(("Hello", "bye"), found["probabilities"]):
        last = made().hidden(torch.tensor([BYTE.encode(text)]))[0, -1]
        assert chances == pytest.approx((weight @ last).softmax(-1).tolist(), abs=1e-5)
    text = Written(np.array([72, 101, 108, 108]), np.array([False, False, True, True]))
    score = either.score("tiny", text=[72, 101, 108, 108])["logprobs"]
    assert either.seen_pair("tiny", text=text) == pytest.approx(score[2:], abs=1e-4)
