"""What the form does as it opens: after two minutes on two cores the model tells stories that keep the grammar's rules."""

import re
import statistics
import time

import pytest

from llm import checkpoint, corpora, dispatch, files, generate, paths
from llm.config import RunConfig, SampleConfig, TrainConfig, to_dict
from llm.corpora import stories, story_check
from llm.runs import Run

BUDGET = 120  # seconds of training, two threads
SAMPLES = 100


def sequences(text, n=12):
    words = re.findall(r"[a-z']+", text.lower())
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def trained_for_two_minutes(seed):
    """The run that Start makes, started as Start does, and stopped when its updates have taken the budget."""
    run = Run.create("train", to_dict(RunConfig(train=TrainConfig(seed=seed))), name=f"seed{seed}")
    assert dispatch.Local().start(run)
    deadline = time.time() + 4 * BUDGET
    while run.status() == "running" and time.time() < deadline:
        last = run.last_event()
        if last["kind"] == "step" and last["seconds"] >= BUDGET:
            run.request_stop()
        time.sleep(0.2)
    assert run.status() in ("finished", "stopped"), run.last_event()
    return run


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_default_training_tells_stories_of_its_own(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    text = files.read_text(corpora.path("stories")).text
    known = {s for story in text.split(stories.SEPARATOR) for s in sequences(story)}
    passed, copied, bits, steps = [], [], [], []
    for seed in range(3):
        run = trained_for_two_minutes(seed)
        bits.append([e["bits_per_byte"] for e in run.events() if e["kind"] == "evaluate"][-1])
        steps.append(run.last_event()["step"])
        model, encoding = checkpoint.load_model(paths.model_folder(run.name))
        texts = generate.complete(
            model, encoding, [""] * SAMPLES, SampleConfig(max_new_tokens=400, seed=seed)
        )
        passed.append(sum(story_check.check(text.strip()).ok for text in texts))
        written = [s for text in texts for s in sequences(text)]
        copied.append(sum(s in known for s in written) / len(written))
    print(
        f"of {SAMPLES} samples {passed} keep the rules; 12-word copies {copied}; bits per byte {bits}; steps {steps}"
    )
    assert statistics.median(passed) >= 60
    assert statistics.median(copied) <= 0.05
