"""How likely a model finds a text: every token scored once, through windows that slide over it.

found = text_score(model, encoding, "Long ago, a fox ...", window=128, stride=64)
found["perplexity"], found["bits_per_byte"], found["scored"]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from llm import chat, checkpoint, corpora, data, files, paths, quantised
from llm.config import WEIGHTS
from llm.distributed import best_device
from llm.generate import evaluating, prompt_ids, shown
from llm.model import GPT
from llm.runs import perplexity
from llm.tokenizer import Tokenizer

MOST_LOGITS = 2**25  # numbers that a batch may hold at once: 128 MiB in fp32
MOST_TOKENS = 8192  # of the windows read side by side


class Window(NamedTuple):
    """The model reads ids[begin:end] and is scored on those from `first` on: those no earlier window scored."""

    begin: int
    end: int
    first: int


def windows(n: int, window: int, stride: int) -> list[Window]:
    """The windows over a text of `n` tokens, each `stride` tokens after the one before.

    A smaller stride gives each token more text before it, and costs more work. A token with nothing before it in its
    window cannot be scored: the text's first one, and with a stride as long as the window the first one of each window.
    Raises ValueError for lengths that would leave tokens out.
    """
    if window < 2:
        raise ValueError(
            f"A window of {window} tokens has no token with another one before it: choose 2 or more."
        )
    if stride < 1 or stride > window:
        raise ValueError(
            f"The stride is {stride}: choose from 1 to the window's {window} tokens, or tokens would be left out."
        )
    found, done = [], 0
    for begin in range(0, max(n - 1, 0), stride):
        end = min(begin + window, n)
        found.append(Window(begin, end, max(done, begin + 1)))
        done = end
        if end == n:
            break
    return [one for one in found if one.first < one.end]


class Scores(NamedTuple):
    """What a model thought of each token of a text: (N,) each; NaN, 0 and -1 where a token is not scored."""

    logprobs: np.ndarray  # natural logarithm of the token's probability
    ranks: np.ndarray  # 1: the model found it the likeliest of all
    best: np.ndarray  # the id that it found the likeliest
    best_logprobs: np.ndarray


@torch.inference_mode()
def score_ids(model: GPT, ids: Sequence[int], window: int, stride: int) -> Scores:
    """Score every token of a text once. Raises ValueError for a window beyond the model's context."""
    T = model.config.context_length
    if window > T:
        raise ValueError(
            f"The window is {window} tokens and the model sees {T} at once: choose {T} or fewer."
        )
    n = len(ids)
    text = torch.as_tensor(np.asarray(ids, dtype=np.int64), device=model.device)
    found = Scores(np.full(n, np.nan), np.zeros(n, np.int64), np.full(n, -1), np.full(n, np.nan))
    with evaluating(model):
        for group in batches(windows(n, window, stride)):
            rows = torch.stack([text[one.begin : one.end] for one in group])  # (B, T)
            asked = max(one.end - one.first for one in group)  # the last `asked` tokens are scored
            hidden, targets = model.hidden(rows[:, :-1])[:, -asked:], rows[:, -asked:]
            parts = compared(model, hidden, targets)
            for row, one in enumerate(group):
                for whole, part in zip(found, parts):
                    whole[one.first : one.end] = part[row, asked - (one.end - one.first) :]
    return found


def compared(model: GPT, hidden: torch.Tensor, targets: torch.Tensor) -> list[np.ndarray]:
    """The four fields of Scores, (B, N) each, of the tokens `targets` (B, N) after `hidden` (B, N, C).

    A large vocabulary is looked at a piece of the text at a time, so that the logits fit into memory.
    """
    size = max(1, MOST_LOGITS // (model.config.vocab_size * len(targets)))
    pieces = []
    for states, wanted in zip(hidden.split(size, 1), targets.split(size, 1)):
        logprobs = model.output(states).float().log_softmax(-1)  # (B, n, V)
        chosen = logprobs.gather(-1, wanted[..., None])
        best_logprob, best = logprobs.max(-1)
        pieces.append((chosen[..., 0], (logprobs > chosen).sum(-1) + 1, best, best_logprob))
    return [torch.cat(parts, 1).cpu().numpy() for parts in zip(*pieces)]


def batches(found: Sequence[Window]) -> Iterator[list[Window]]:
    """Windows that read and score equally many tokens together, so that nothing is padded or done in vain."""
    alike: dict[tuple[int, int], list[Window]] = {}
    for one in found:
        alike.setdefault((one.end - one.begin, one.end - one.first), []).append(one)
    for (length, _), same in alike.items():
        rows = max(1, MOST_TOKENS // length)
        for start in range(0, len(same), rows):
            yield same[start : start + rows]


def totals(logprobs: Sequence[float], lengths: Sequence[int]) -> dict[str, Any]:
    """Loss, perplexity and bits per byte of the scored tokens (logprobs not NaN), whose bytes are `lengths`.

    Sums are divided once: loss = -sum(logprobs) / tokens, perplexity = exp(loss), bits per byte = -sum / ln 2 / bytes.
    The last one can be compared between models with different encodings. All are None where nothing was scored.
    """
    logprobs, lengths = np.asarray(logprobs, float), np.asarray(lengths)
    counted = ~np.isnan(logprobs)
    scored, size, total = int(counted.sum()), int(lengths[counted].sum()), -float(logprobs[counted].sum())
    loss = total / scored if scored else None
    return {
        "loss": loss,
        "perplexity": perplexity(loss),
        "bits_per_byte": total / math.log(2) / size if size else None,
        "scored": scored,
        "bytes": size,
    }


def text_score(
    model: GPT,
    encoding: Tokenizer,
    text: str | Sequence[int],
    window: int = 0,
    stride: int = 0,
    special: bool = False,
    drawn: int = 0,
) -> dict[str, Any]:
    """A whole text under a model: its totals, and what the model thought of each of the first `drawn` tokens.

    `window` 0 is the model's context; `stride` 0 is half the window. Raises ValueError for a text of fewer than two
    tokens, and for lengths that do not fit.
    """
    begun = time.perf_counter()
    ids = encoding.encode(text, special=special) if isinstance(text, str) else list(text)
    if len(ids) < 2:
        raise ValueError(
            f"The text has {len(ids)} token{'s' * (len(ids) != 1)}: at least 2 are needed, as the first has nothing before it."
        )
    window = window or model.config.context_length
    stride = stride or max(window // 2, 1)
    found = score_ids(model, ids, window, stride)
    lengths = data.token_lengths(encoding)[np.asarray(ids)]
    about = dict(
        tokens=len(ids), window=window, stride=stride, windows=len(windows(len(ids), window, stride))
    )
    return {
        **totals(found.logprobs, lengths),
        **about,
        "seconds": time.perf_counter() - begun,
        "drawn": drawn_tokens(encoding, ids, found, drawn),
    }


def drawn_tokens(encoding: Tokenizer, ids: Sequence[int], found: Scores, most: int) -> list[tuple]:
    """(text, log-probability or None, rank, the likeliest token's text, its log-probability) of the first `most` tokens."""
    return [
        (
            shown(encoding, ids[i]),
            None if math.isnan(found.logprobs[i]) else float(found.logprobs[i]),
            int(found.ranks[i]),
            shown(encoding, int(found.best[i])) if found.best[i] >= 0 else "",
            float(found.best_logprobs[i]) if found.best[i] >= 0 else None,
        )
        for i in range(min(most, len(ids)))
    ]


def by_weights(
    model: GPT, encoding: Tokenizer, text: str | Sequence[int], most: int = 512
) -> dict[str, dict[str, Any]]:
    """The first `most` tokens of a text with the weights kept in each way: what smaller weights cost.

    {"fp32": {"loss", "perplexity", "tokens", "same" (share of places whose likeliest token is that of fp32), "bytes"}, ...}.
    Remembered as long as the model is. Raises ValueError for a text of fewer than two tokens.
    """
    ids = (encoding.encode(text) if isinstance(text, str) else list(text))[:most]
    if len(ids) < 2:
        raise ValueError("The text is too short to compare weights on: at least 2 tokens are needed.")
    kept = model.__dict__.setdefault("measured_by_weights", {})
    if tuple(ids) in kept:
        return kept[tuple(ids)]
    found, first = {}, None
    window = min(model.config.context_length, len(ids))
    for weights in WEIGHTS[: 4 if model.device.type == "cpu" else 3]:  # int4 is a processor's
        other = quantised.smaller(model, weights)
        scores = score_ids(other, ids, window, max(window // 2, 1))
        first = scores.best if first is None else first
        sums = totals(scores.logprobs, data.token_lengths(encoding)[np.asarray(ids)])
        found[weights] = {
            "loss": sums["loss"],
            "perplexity": sums["perplexity"],
            "tokens": sums["scored"],
            "same": float((scores.best[1:] == first[1:]).mean()),
            "bytes": quantised.size(other),
        }
    kept[tuple(ids)] = found
    return found


# --- texts, and the terminal


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m llm.scoring MODEL ... --text FILE`: loss, perplexity and bits per byte of models on a text, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m llm.scoring", description=main.__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", metavar="FILE", help="a text file; - reads standard input")
    source.add_argument("--dataset", help="a text of the lab; see --part")
    parser.add_argument("--part", choices=("validation", "all"), default="validation")
    parser.add_argument("--most", type=int, default=0, metavar="N", help="only the first N characters")
    parser.add_argument("--window", type=int, default=0, help="tokens read at once; 0: the model's context")
    parser.add_argument(
        "--stride", type=int, default=0, help="tokens from window to window; 0: half a window"
    )
    parser.add_argument(
        "--special", action="store_true", help="read strings like <|endoftext|> as special tokens"
    )
    parser.add_argument(
        "--by_weights",
        action="store_true",
        help="what bf16, int8 and int4 weights cost on its first 512 tokens",
    )
    given = parser.parse_args(arguments)
    try:
        text = sys.stdin.read() if given.text == "-" else files.read_text(Path(given.text)).text if given.text else None  # fmt: skip
        if text is None:
            text = files.read_text(corpora.path(given.dataset)).text
            text = text if given.part == "all" else files.validation_part(text)
        text = text[: given.most or None]
        score = (
            (lambda name: by_weights(*checkpoint.load_model(paths.model_folder(name)), text))
            if given.by_weights
            else (lambda name: scored_by(name, text, given.window, given.stride, given.special))
        )
        rows = [{"model": name, **score(name)} for name in given.models]
    except (ValueError, OSError) as error:
        sys.exit(f"{error}")
    print(json.dumps(rows, indent=2))


def scored_by(name: str, text: str, window: int, stride: int, special: bool) -> dict[str, Any]:
    """`text_score` of a model by name, loaded here. Raises ValueError."""
    folder = paths.model_folder(name)
    model, encoding = checkpoint.load_model(folder)
    ids = prompt_ids(encoding, text, special, chat.read(folder).begin_id)
    found = text_score(model.to(best_device()), encoding, ids, window, stride)
    del found["drawn"]
    return found


if __name__ == "__main__":
    main()
