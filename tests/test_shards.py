"""A text in shards: each window once a pass, no more on the disk than allowed, resumable, over HTTP too."""

import http.server
import random
import threading
from dataclasses import replace

import numpy as np
import pytest

from llm import data, job, objectives, paths, shards, tokenizer, train
from llm.config import ModelConfig, RunConfig, TrainConfig, to_dict
from llm.runs import Run

BYTE = tokenizer.get("byte")
HOW = TrainConfig(
    batch_size=4, max_steps=40, warmup_steps=2, validation_fraction=0.3, threads=1, precision="fp32"
)


def made(n=4, words=400, listing="far"):
    """A list of n shards and the texts in them, the last one for validation."""
    chosen = random.Random(3)
    texts = []
    for k in range(n):
        text = (
            " ".join(chosen.choice(["the", "old", "fox", "owl", f"shard{k}"]) for _ in range(words + 50 * k))
            + "\n"
        )
        (paths.datasets() / f"part{k}.txt").write_text(text)
        texts.append(text)
    lines = ["# parts of a text", *(f"part{k}.txt" for k in range(n)), ""]
    (paths.datasets() / f"{listing}.shards").write_text("\n".join(lines))
    return texts


def test_a_pass_has_every_window_of_every_shard_once_and_the_last_shard_validates():
    texts = made()
    found = shards.Shards("far", BYTE, 16, replace(HOW, stride=16, drop_last=False))
    wanted = []
    for text in texts[:-1]:
        ids = BYTE.encode(text)
        wanted += [tuple(ids[s : s + 16]) for s in range(0, len(ids) - 16, 16)]
    steps = sum(found.count(k) for k in range(3))
    for epoch in range(2):
        rows = [tuple(row) for step in range(steps) for row in found.batch(epoch * steps + step)[0]]
        assert sorted(rows) == sorted(wanted)
    inputs, targets = found.batch(0)
    assert (inputs[:, 1:] == targets[:, :-1]).all()
    assert found.validation.ids.tolist() == BYTE.encode(texts[-1])
    first, second = ([tuple(found.batch(e * steps)[0][0]) for e in (k, k)] for k in (0, 1))
    assert first[0] == first[1] and first != second  # the same every time, and another order each pass


def test_no_more_lies_on_the_disk_than_allowed(monkeypatch):
    made(n=8, words=2000)
    monkeypatch.setenv("LLM_SHARDS_MB", "0.06")
    found = shards.Shards("far", BYTE, 16, HOW)
    steps = sum(found.count(k) for k in range(7))
    for step in range(0, steps, 7):
        found.batch(step)
        found.ahead[1].result()
        kept = sum(file.stat().st_size for file in shards.folder().glob("*.bin"))
        largest = max(file.stat().st_size for file in shards.folder().glob("*.bin"))
        assert kept <= 60_000 + 2 * largest  # the one in use and the one that comes next stay in any case
    assert len(list(shards.folder().glob("*.bin"))) < 8


def run_of(name, **settings):
    config = RunConfig(
        dataset="far", tokenizer="byte", sample_tokens=0, prompts=(),
        model=ModelConfig(n_layer=1, n_head=2, n_embd=16, context_length=16),
        train=replace(HOW, max_steps=160, eval_every=80, checkpoint_every=50, **settings),
    )  # fmt: skip
    return Run.create("train", to_dict(config), name=name)


def losses(run):
    return [event["loss"] for event in run.events() if event["kind"] == "step"]


def test_a_run_on_shards_learns_and_goes_on_exactly_where_it_was(monkeypatch):
    made()
    monkeypatch.setenv("LLM_SHARDS_MB", "0.001")
    whole, broken = run_of("whole"), run_of("broken")
    assert job.guarded(whole, train.work) == 0, whole.last_event()
    assert losses(whole)[-1] < 0.8 * losses(whole)[0] and "last_event" not in whole.last_event()
    start = next(event for event in whole.events() if event["kind"] == "start")
    assert start["shards"] == 3 and "3 shards" in start["notes"][0]
    really = train.update

    def stopped(state, *rest):
        if state.step == 77:
            raise OSError(28, "No space left on device")
        return really(state, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(train, "update", stopped)
        assert job.guarded(broken, train.work) == 1
    for kept in shards.folder().glob("*"):
        kept.unlink()  # on another machine nothing of the shards is there
    broken.request_resume()
    assert job.guarded(broken, train.work) == 0
    assert losses(broken) == losses(whole)


def served(folder, breaks=0):
    """A server of a folder's files; the first `breaks` answers break off in the middle."""
    left = [breaks]

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=str(folder))

        def do_GET(self):
            if left[0]:
                left[0] -= 1
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(b"half")
                return
            super().do_GET()

        def log_message(self, *given):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


def test_shards_come_over_http_and_nothing_but_their_ids_stays(monkeypatch, tmp_path):
    texts = made(n=3)
    monkeypatch.setattr(shards.time, "sleep", lambda seconds: None)
    for k in range(3):
        (paths.datasets() / f"part{k}.txt").rename(tmp_path / f"part{k}.txt")
    server, address = served(tmp_path, breaks=2)
    (paths.datasets() / "web.shards").write_text("".join(f"{address}/part{k}.txt\n" for k in range(3)))
    found = shards.Shards("web", BYTE, 16, HOW)
    assert found.validation.ids.tolist() == BYTE.encode(texts[2])
    found.batch(0)
    found.fetching.shutdown()
    assert not list(shards.folder().glob("*.part"))
    server.shutdown()
    server.server_close()
    for kept in shards.folder().glob("*"):
        kept.unlink()
    with pytest.raises(ValueError, match=r"part2\.txt cannot be had"):
        shards.Shards("web", BYTE, 16, HOW)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("part0.txt\n", "lists 1 shards: at least 2"),
        ("part0.txt\nftp://x/y\n", "neither a file nor an https address"),
        ("part0.txt\nhttp://localhost.example.org/y\n", "neither a file nor an https address"),
        ("part0.txt\nnowhere.txt\n", "nowhere.txt is not there"),
        ("part0.txt\nodd.txt\n", "no plain text in UTF-8"),
        ("short.txt\npart0.txt\n", "No shard of bad has a whole batch of 4 windows of 16 tokens"),
    ],
)
def test_a_bad_list_is_said(lines, said):
    made()
    (paths.datasets() / "odd.txt").write_bytes(b"caf\xe9 \x00")
    (paths.datasets() / "short.txt").write_text("short")
    (paths.datasets() / "bad.shards").write_text(lines)
    config = RunConfig(dataset="bad", tokenizer="byte", model=ModelConfig(context_length=16), train=HOW)
    with pytest.raises(ValueError, match=said):
        objectives.made(config, BYTE)
    with pytest.raises(ValueError, match="no list of shards called 'none'"):
        shards.listed("none")


def test_a_shard_counts_the_same_however_it_is_asked():
    made()
    found = shards.Shards("far", BYTE, 16, HOW)
    for shard in range(3):
        ids = np.array(BYTE.encode((paths.datasets() / f"part{shard}.txt").read_text()))
        assert found.count(shard) == len(data.Windows(ids, 16)) // 4
    assert [found.place(step) for step in (0, 1)] == [(found.order(0)[0], 0, 0), (found.order(0)[0], 0, 1)]
