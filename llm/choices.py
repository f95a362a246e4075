"""How likely a model finds continuations of texts: the score behind every multiple-choice benchmark.

    (found,) = continuations(model, [(ids_of("... Answer:"), ids_of(" B"))])
    found.logprob, found.greedy

What several texts begin with (a benchmark's examples) is read once; choices of one token after the same text share one
reading. Rows of unlike length are padded on the right, which no token before the padding can see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llm.generate import evaluating
from llm.model import GPT, KVCache

MOST_TOKENS = 8192  # of the rows read side by side, padding included
MOST_LOGITS = 2**26  # numbers in the logits of one batch
KEY = 16  # first tokens by which texts with the same beginning are found
LEAST_SHARED = 16  # tokens below which reading a beginning apart saves nothing

Ids = Sequence[int]


class Continuation(NamedTuple):
    """What a model thinks of a continuation after its text."""

    logprob: float  # sum over its tokens, natural logarithm
    greedy: bool  # whether each of its tokens is the one the model finds the likeliest
    token_logprobs: tuple[float, ...]


class Row(NamedTuple):
    """What is read for one request: the text and all of the continuation but its last token."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]  # the continuation


def row_of(text: Ids, continuation: Ids, context_length: int) -> Row:
    """The row of one request; of more tokens than the model sees, the last ones are read.

    Raises ValueError for an empty text or continuation, and for one longer than the context.
    """
    if not text or not continuation:
        raise ValueError("A continuation is scored after a text: both need at least one token.")
    if len(continuation) > context_length:
        raise ValueError(
            f"The continuation has {len(continuation)} tokens and the model sees {context_length}: shorten it."
        )
    return Row((*text, *continuation)[:-1][-context_length:], tuple(continuation))


@torch.inference_mode()
def continuations(model: GPT, asked: Sequence[tuple[Ids, Ids]]) -> list[Continuation]:
    """The score of each (text, continuation), in the order they are asked. Raises ValueError as `row_of`, and for a model without a causal mask."""
    if not model.config.causal:
        raise ValueError(
            "This model was broken on purpose: it has no causal mask and has seen the answer it would be asked for. Choose another one."
        )
    rows = [row_of(text, continuation, model.config.context_length) for text, continuation in asked]
    wanted: dict[tuple[int, ...], dict[tuple[int, ...], Continuation | None]] = {}
    for row in rows:  # the same text is read once for all its continuations
        wanted.setdefault(row.ids, {})[row.targets] = None
    with evaluating(model):
        for group in groups(list(wanted)):
            shared = common(group, wanted)
            for batch in batches(group, shared, model.config.vocab_size, wanted):
                score(model, batch, shared, wanted)
    return [wanted[row.ids][row.targets] for row in rows]


def groups(texts: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Texts that begin alike, together."""
    found: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for text in texts:
        found.setdefault(text[:KEY], []).append(text)
    yield from found.values()


def common(texts: Sequence[tuple[int, ...]], wanted: dict) -> int:
    """How many tokens all texts begin with, before those whose outputs are scored; 0 where reading them apart saves nothing."""
    if len(texts) < 2:
        return 0
    first, last = min(texts), max(texts)  # what these two share in alphabetical order, all share
    most = min(len(text) - len(targets) for text in texts for targets in wanted[text])
    n = next((i for i in range(most) if first[i] != last[i]), most)
    return n if n >= LEAST_SHARED else 0


def batches(
    texts: Sequence[tuple[int, ...]], shared: int, vocab_size: int, wanted: dict
) -> Iterator[list[tuple[int, ...]]]:
    """Texts of like length together, as many as memory allows."""
    batch: list[tuple[int, ...]] = []
    for text in sorted(texts, key=len, reverse=True):
        longest = len(batch[0]) if batch else len(text)
        asked = max(len(targets) for one in (*batch, text) for targets in wanted[one])
        rows = len(batch) + 1
        if batch and (rows * (longest - shared) > MOST_TOKENS or rows * asked * vocab_size > MOST_LOGITS):
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


def score(model: GPT, batch: Sequence[tuple[int, ...]], shared: int, wanted: dict) -> None:
    """Read a batch of texts that begin with the same `shared` tokens, and fill in the scores of their continuations."""
    lengths = [len(text) - shared for text in batch]
    width = max(lengths)
    idx = torch.zeros(len(batch), width, dtype=torch.long)
    for r, text in enumerate(batch):
        idx[r, : lengths[r]] = torch.tensor(text[shared:])
    cache = prefix(model, batch[0][:shared], len(batch), shared + width) if shared else None
    hidden = model.hidden(idx.to(model.device), cache)  # (B, width, C)
    for r, text in enumerate(batch):
        for targets in wanted[text]:
            n = len(targets)
            states = hidden[r, lengths[r] - n : lengths[r]]  # before each token of the continuation
            wanted[text][targets] = scored(model.output(states).float(), targets)


def prefix(model: GPT, ids: tuple[int, ...], rows: int, length: int) -> KVCache:
    """A cache of `rows` rows that have all read `ids` already; read once, then copied."""
    like = model.token_embedding.weight
    one = KVCache(model.config, 1, len(ids), like=like)
    model.hidden(torch.tensor([ids], device=model.device), one)
    cache = KVCache(model.config, rows, length, like=like)
    cache.keys[:, :, :, : len(ids)] = one.keys
    cache.values[:, :, :, : len(ids)] = one.values
    cache.lengths[:] = len(ids)
    return cache


def scored(logits: Tensor, targets: tuple[int, ...]) -> Continuation:
    """logits (n, V) before each token of the continuation `targets` (n,) -> its score."""
    logprobs = logits.log_softmax(-1)
    at = torch.tensor(targets, device=logits.device)
    own = logprobs.gather(-1, at[:, None])[:, 0]
    greedy = bool((logprobs.argmax(-1) == at).all())
    values = tuple(own.tolist())
    return Continuation(sum(values), greedy, values)
