"""From logits to text: which token comes next, and the stream of steps that a text is made of.

The order is fixed, here and on the page: repetition penalty, temperature, top-k, top-p, min-p, then the kept tokens'
probabilities are made to sum to 1 and one token is drawn. What a filter drops gets the logit minus infinity, which
softmax turns into probability 0.

Shapes: B texts side by side, V vocabulary. Every function on logits takes (V,) or (B, V).
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import random
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from llm import decode, paths, quantised, recorded
from llm.config import SampleConfig, add_flags, from_flags
from llm.model import GPT, KVCache, Tapped
from llm.tokenizer import StreamDecoder, Tokenizer

GREEDY_BELOW = 1e-6  # temperatures under this take the likeliest token: dividing by them would overflow
EXACT = 1e-6  # probabilities closer than this count as equal: float32 cannot tell them apart
PRE_CUT = 1024  # top-p looks at this many likeliest tokens before it sorts the whole vocabulary
ROWS = 32  # texts that are decoded together at most


# --- the steps from logits to probabilities, in their order


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make the tokens in `seen` (bool, as logits) less likely, each once however often it stands in the text.

    Keskar et al. 2019, section 4.1, divides by the penalty; that would favour tokens whose logit is negative, so
    those are multiplied. The prompt's tokens count as seen too.
    """
    if penalty == 1:
        return logits
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """logits / temperature: below 1 the likely become likelier. At 0 only the likeliest is left (the first of equals)."""
    if temperature < GREEDY_BELOW:
        best = logits.argmax(-1, keepdim=True)
        return torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k likeliest tokens (Fan et al. 2018). 0, or k beyond the vocabulary, keeps all."""
    if k == 0 or k >= logits.shape[-1]:
        return logits
    return keep_largest(logits, torch.full_like(logits[..., :1], k, dtype=torch.long))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens whose probability reaches p (Holtzman et al. 2020, eq. 2 and 3).

    The token that crosses p belongs to it; where the sum is p exactly, no further one does. At least one is kept.
    """
    if p >= 1:
        return logits
    total = logits.logsumexp(-1, keepdim=True)
    ordered = logits.topk(min(PRE_CUT, logits.shape[-1])).values
    held = (ordered - total).exp().double()
    if (held.sum(-1) < p).any():  # rare: the few likeliest nearly always hold p between them
        ordered = logits.sort(descending=True).values
        held = (ordered - total).exp().double()
    before = held.cumsum(-1) - held  # what the likelier ones hold
    k = (before < p - EXACT).sum(-1, keepdim=True).clamp(min=1)
    return keep_above(logits, ordered.gather(-1, k - 1), k)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Keep the tokens with at least min_p times the probability of the likeliest (Nguyen et al. 2024)."""
    if min_p == 0:
        return logits
    edge = logits.amax(-1, keepdim=True) + math.log(min_p)
    return logits.masked_fill(logits < edge - EXACT, -torch.inf)


def keep_largest(logits: Tensor, k: Tensor) -> Tensor:
    """Keep the k (..., 1) largest; of equal ones at the edge those with the lower ids."""
    return keep_above(logits, logits.topk(int(k.max())).values.gather(-1, k - 1), k)


def keep_above(logits: Tensor, edge: Tensor, k: Tensor) -> Tensor:
    """Keep the k (..., 1) largest, the smallest of which is `edge` (..., 1)."""
    kept = logits >= edge
    if (kept.sum(-1, keepdim=True) == k).all():
        return logits.masked_fill(~kept, -torch.inf)
    above, level = logits > edge, logits == edge  # several are the k-th largest
    room = k - above.sum(-1, keepdim=True)
    return logits.masked_fill(~(above | (level & (level.cumsum(-1) <= room))), -torch.inf)


STEPS: dict[str, Callable[[Tensor, Tensor, SampleConfig], Tensor]] = {
    "penalty": lambda logits, seen, config: penalise(logits, seen, config.repetition_penalty),
    "temperature": lambda logits, seen, config: at_temperature(logits, config.temperature),
    "top_k": lambda logits, seen, config: keep_top_k(logits, config.top_k),
    "top_p": lambda logits, seen, config: keep_top_p(logits, config.top_p),
    "min_p": lambda logits, seen, config: keep_min_p(logits, config.min_p),
}


def probabilities(logits: Tensor, seen: Tensor, config: SampleConfig) -> Tensor:
    """What the next token is drawn from: all steps in order, then softmax. Dropped tokens have exactly 0."""
    if config.temperature < GREEDY_BELOW:  # the later steps have nothing to drop
        best = penalise(logits, seen, config.repetition_penalty).argmax(-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    ids = None
    for name, step in STEPS.items():
        if name == "top_k" and (found := shortlist(logits, config.top_k)):
            logits, ids = found  # from here on only these count: the later steps have less to look at
        else:
            logits = step(logits, seen, config)
    chances = torch.softmax(logits, -1)
    return chances if ids is None else chances.new_zeros(seen.shape).scatter(-1, ids, chances)


def shortlist(logits: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """The logits (..., k) that top-k keeps and their ids, in the order of the ids; None where it saves little, or some tie at the edge."""
    if not 0 < k <= min(PRE_CUT, logits.shape[-1] // 4):
        return None
    values, ids = logits.topk(k + 1)
    if (values[..., k] == values[..., k - 1]).any():
        return None
    ids = ids[..., :k].sort(-1).values
    return logits.gather(-1, ids), ids


def draw(probabilities: Tensor, u: Tensor) -> Tensor:
    """The ids (..., 1) at the points u (..., 1) in [0, 1): the tokens lie side by side, each as wide as it is probable."""
    ends = probabilities.cumsum(-1, dtype=torch.float64)
    total = ends[..., -1:]
    point = torch.minimum(
        u.double() * total, torch.nextafter(total, torch.zeros_like(total))
    )  # never the very end
    return torch.searchsorted(ends, point, right=True)


def checked(logits: Tensor) -> Tensor:
    """`logits` when they are all finite. Raises ValueError otherwise."""
    if not torch.isfinite(logits.sum(-1)).all():  # one that is not finite makes its row's sum so
        raise ValueError(
            "The model gave logits that are not finite numbers (NaN or infinite), so no next token can be drawn: its "
            "weights are damaged or its training diverged. Choose another model or an earlier checkpoint."
        )
    return logits


@functools.lru_cache(maxsize=16)
def known_ids(encoding: Tokenizer, vocab_size: int) -> Tensor:
    """(V,) bool: the ids that stand for a token; a model's padded rows and an encoding's gaps do not."""

    def is_token(id: int) -> bool:
        try:
            return bool(encoding.token_bytes(id)) or True
        except ValueError:
            return False

    return torch.tensor([is_token(id) for id in range(vocab_size)])


def shown(encoding: Tokenizer, id: int) -> str:
    """The text of one token for a table; bytes that are only a part of a character as \\xNN."""
    return encoding.token_bytes(id).decode("utf-8", errors="backslashreplace")


def explain(
    logits: Tensor,
    seen: Iterable[int],
    config: SampleConfig,
    encoding: Tokenizer | None = None,
    top: int = 20,
    also: Sequence[int] = (),
) -> dict[str, Any]:
    """The way from logits (V,) to probabilities, written out by the functions that sample.

    Returns `rows` (the `top` likeliest tokens and those in `also`), each with id, text, seen, logit, after penalty and
    after temperature (logits), `softmax` (the probability with no filter yet), then top_k, top_p, min_p: the probability
    once that filter has dropped tokens and the rest sums to 1; None where the token is dropped. The last of them is
    `probability`, what is drawn from. `kept` counts the tokens left after each step. Raises ValueError for NaN.
    """
    logits = checked(logits.float())
    V = logits.shape[-1]
    if encoding is not None:
        logits = logits.masked_fill(~known_ids(encoding, V), -torch.inf)
    mask = torch.zeros(V, dtype=torch.bool)
    mask[[id for id in set(seen) if id < V]] = True
    after, now = {"logit": logits}, logits
    for name, step in STEPS.items():
        after[name] = now = step(now, mask, config)
    chances = {name: torch.softmax(after[name], -1) for name in ("temperature", "top_k", "top_p", "min_p")}
    # by what is drawn from; what is dropped follows in the order of its penalised logit
    order = sorted(
        after["penalty"].topk(min(top, V)).indices.tolist(), key=lambda id: (-now[id], -after["penalty"][id])
    )
    listed = [id for id in dict.fromkeys([*order, *also]) if after["logit"][id] > -torch.inf]
    rows = []
    for id in listed:
        row = dict(id=id, text=None if encoding is None else shown(encoding, id), seen=bool(mask[id]))
        row |= {name: number(after[name][id]) for name in ("logit", "penalty", "temperature")}
        row |= {"softmax" if name == "temperature" else name: share(p[id]) for name, p in chances.items()}
        rows.append(row | {"probability": float(chances["min_p"][id])})
    kept = {name: int((tensor > -torch.inf).sum()) for name, tensor in after.items()}
    return dict(rows=rows, kept=kept, order=list(STEPS))


def number(value: Tensor) -> float | None:
    """One finite logit; None for a dropped token."""
    return float(value) if value > -torch.inf else None


def share(value: Tensor) -> float | None:
    """One probability; None for a dropped token."""
    return float(value) if value > 0 else None


# --- one text in the making


class Step(NamedTuple):
    """One new token of one text."""

    row: int  # which of the prompts
    id: int
    text: str  # what can be shown now: whole characters that no stop string can take back
    piece: str  # the token's own share of the text: the characters that it completes
    logprob: (
        float  # natural logarithm of the model's own probability, before penalty, temperature and filters
    )
    chance: float  # the probability it was drawn with, after them
    top: tuple[tuple[int, str, float], ...]  # the model's likeliest tokens here: id, text, probability
    finish: str | None  # None while it goes on; then "eot", "stop" or "length"
    dropped: int  # tokens at the start of the text that the model no longer sees, dropped at this step
    gone: int  # how many of the new tokens it no longer sees, in all
    note: str  # a sentence for the reader when something was dropped or put in front, else ""


class Row:
    """A text that grows: its ids, its random numbers, what of it may be shown, and when it ends."""

    def __init__(
        self, number: int, prompt: Sequence[int], config: SampleConfig, model: GPT, encoding: Tokenizer,
        forced: Sequence[int] = (), alternatives: int = 0, ends: Collection[int] = (),
    ):  # fmt: skip
        """`ends` are ids that end a text like the encoding's end-of-text: the end of an answer, in a chat.

        Raises ValueError for an empty prompt where the encoding has no end-of-text, and for ids without a token.
        """
        self.ends = {*ends, encoding.eot_id}
        self.number, self.config, self.encoding, self.alternatives = number, config, encoding, alternatives
        self.forced, self.made, self.held, self.finish = list(forced), 0, "", None
        self.ids, self.dropped, self.note = started(prompt, model.config.context_length, encoding)
        self.begin = self.dropped  # the model reads ids[begin:]
        for id in (*self.ids, *self.forced):
            encoding.token_bytes(id)
        self.seen = torch.zeros(model.config.vocab_size, dtype=torch.bool)
        self.seen[self.ids] = True
        self.random = random.Random(config.seed)
        self.decoder = StreamDecoder(encoding, continues=len(prompt) > 0)
        self.rules = replace(
            config, seed=0, stop=(), max_new_tokens=0
        )  # rows of equal rules are filtered together

    def slide(self, context_length: int) -> list[int]:
        """The context is full: drop its older half. Returns the tokens the model is to read again."""
        kept = (context_length + 1) // 2
        self.dropped = len(self.ids) - kept - self.begin
        self.begin += self.dropped
        self.note = (
            f"The text reached the model's context of {context_length} tokens: the oldest {self.dropped} it still saw "
            f"were dropped, and it goes on from the last {kept}."
        )
        return self.ids[self.begin :]

    def next_id(self, drawn: int) -> int:
        """The token drawn, or the one that was asked for at this place."""
        return self.forced[self.made] if self.made < len(self.forced) else drawn

    def add(self, id: int, logprob: float, chance: float, top: tuple[tuple[int, str, float], ...]) -> Step:
        """Take one more token; the Step says what of the text is now certain."""
        self.ids.append(id)
        self.seen[id] = True
        self.made += 1
        ended = self.config.stop_at_eot and id in self.ends
        piece = "" if ended else self.decoder.push(id)
        text, stopped = self.certain(piece, final=ended or self.made >= self.config.max_new_tokens)
        if ended or stopped:
            self.finish = "eot" if ended else "stop"
        elif self.made >= self.config.max_new_tokens:
            self.finish = "length"
        gone = max(self.begin - (len(self.ids) - self.made), 0)
        step = Step(
            self.number, id, text, piece, logprob, chance, top, self.finish, self.dropped, gone, self.note
        )
        self.dropped, self.note = 0, ""
        return step

    def certain(self, piece: str, final: bool) -> tuple[str, bool]:
        """(what can be shown, whether a stop string was met). Text that may begin a stop string is held back.

        Bytes of a character that the end cuts off are never shown.
        """
        self.held += piece
        stops = [text for text in self.config.stop if text]
        met = [at for text in stops if (at := self.held.find(text)) >= 0]
        begun = [n for text in stops for n in range(1, len(text)) if self.held.endswith(text[:n])]
        if met:
            end = min(met)
        elif final:
            end = len(self.held)
        else:
            end = len(self.held) - max(begun, default=0)
        released, self.held = self.held[:end], self.held[end:]
        return released, bool(met)


def started(prompt: Sequence[int], context_length: int, encoding: Tokenizer) -> tuple[list[int], int, str]:
    """(ids to begin with, how many of them do not fit the context, a sentence about it).

    Raises ValueError for an empty prompt when the encoding has no end-of-text to start from.
    """
    if not prompt:
        if encoding.eot_id is None:
            raise ValueError(
                "The prompt is empty and this encoding has no end-of-text to start from: type a prompt."
            )
        return [encoding.eot_id], 0, "The prompt is empty, so the text starts after an end-of-text token."
    dropped = max(len(prompt) - context_length, 0)
    note = (
        f"The prompt has {len(prompt)} tokens and the model sees {context_length}: the first {dropped} were dropped."
        if dropped
        else ""
    )
    return list(prompt), dropped, note


def prompt_ids(
    encoding: Tokenizer, text: str, special: bool = False, begin_id: int | None = None
) -> list[int]:
    """The ids of a prompt, with `begin_id` in front exactly once where the model wants its texts to begin with it.

    See `llm.chat.read`, which knows the id. Raises ValueError for a text that the encoding cannot write.
    """
    ids = encoding.encode(text, special=special)
    return ids if begin_id is None or ids[:1] == [begin_id] else [begin_id, *ids]


# --- many texts at once


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off inside; each part's mode as it was before afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


class Batch:
    """Texts decoded together, each in its own row of one cache. A text may join or leave between any two steps."""

    def __init__(self, model: GPT, encoding: Tokenizer, rows: int = ROWS):
        self.model, self.encoding, self.most = model, encoding, rows
        self.known = known_ids(encoding, model.config.vocab_size)
        self.unknown = ~self.known
        self.parts = list(model.modules())  # walking the tree at every step would cost a tenth of it
        self.places = [part for part in self.parts if isinstance(part, Tapped)]
        self.decoder = recorded.decoder(model)
        self.rows: list[
            Row
        ] = []  # rows[i] lives in row i of the cache, which has read all its ids but the last
        self.waiting: list[Row] = []
        self.cache: KVCache | None = None

    def join(self, row: Row) -> None:
        """Begin `row` at the next step, or when there is room."""
        if row.config.max_new_tokens > 0:
            self.waiting.append(row)

    @torch.inference_mode()
    def leave(self, row: Row) -> None:
        """Forget `row`; its place is free at once. A row that has already ended is no longer here."""
        if row in self.waiting:
            self.waiting.remove(row)
        elif row in self.rows:
            place, last = self.rows.index(row), len(self.rows) - 1
            if (
                place != last and self.cache is not None
            ):  # the last row moves into the gap, so that the rows in use stay side by side
                for kept in (self.cache.keys, self.cache.values):
                    kept[:, place] = kept[:, last]
                self.cache.lengths[place] = self.cache.lengths[last]
            self.rows[place] = self.rows[last]
            self.rows.pop()

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, Step]]:
        """One more token for every text. Raises ValueError when the logits are not finite."""
        context_length = self.model.config.context_length
        with evaluating(self.model) if any(part.training for part in self.parts) else nullcontext():
            while self.waiting and len(self.rows) < self.most:
                self.rows.append(self.waiting.pop(0))
                self.read(len(self.rows) - 1)
            for place, row in enumerate(self.rows):
                if len(row.ids) - row.begin > context_length:
                    row.slide(context_length)
                    self.read(place)
            if not self.rows:
                return []
            if not self.model.config.causal:
                return self.taken(torch.stack([self.reread(row) for row in self.rows]))
            self.make_room(len(self.rows), max(len(row.ids) - row.begin for row in self.rows))
            last = torch.tensor([row.ids[-1:] for row in self.rows], device=self.model.device)
            cache = part(self.cache, 0, len(self.rows))
            watched = any(part.watched for part in self.places)
            logits = self.model(last, cache)[:, -1] if watched else self.decoder.step(last, cache)
        return self.taken(logits)

    def reread(self, row: Row) -> Tensor:
        """(V,): the logits after a text that is read anew: where tokens see what follows, each new one changes all."""
        idx = torch.tensor([row.ids[row.begin :]], device=self.model.device)
        return self.model.output(self.model.hidden(idx)[:, -1])[0]

    def taken(self, logits: Tensor) -> list[tuple[Row, Step]]:
        """Draw from logits (B, V), and let go of the rows that end. Raises ValueError when they are not finite."""
        logits = logits.float().cpu()
        steps = self.choose(checked(logits).masked_fill(self.unknown, -torch.inf))
        for row in [row for row in self.rows if row.finish]:
            self.leave(row)
        return steps

    def read(self, place: int) -> None:
        """Fill a row of the cache with all of its text that the model sees, but the last token."""
        row = self.rows[place]
        if not self.model.config.causal:  # nothing of it can be kept
            return
        ids = row.ids[row.begin : -1]
        self.make_room(len(self.rows), len(ids) + 1)
        self.cache.lengths[place] = 0
        if ids:
            self.model.hidden(
                torch.tensor([ids], device=self.model.device), part(self.cache, place, place + 1)
            )

    def make_room(self, rows: int, length: int) -> None:
        """A larger cache when `rows` of `length` tokens do not fit: twice as large, so that it seldom happens."""
        had_rows, had_length = (
            (0, 0) if self.cache is None else (self.cache.keys.shape[1], self.cache.keys.shape[3])
        )
        if rows <= had_rows and length <= had_length:
            return
        rows = had_rows if rows <= had_rows else min(max(2 * had_rows, rows), self.most)
        context_length = self.model.config.context_length
        length = had_length if length <= had_length else min(max(2 * had_length, length, 64), context_length)
        larger = KVCache(self.model.config, rows, length, like=decode.cache_type(self.model))
        if self.cache is not None:
            larger.keys[:, :had_rows, :, :had_length] = self.cache.keys
            larger.values[:, :had_rows, :, :had_length] = self.cache.values
            larger.lengths[:had_rows] = self.cache.lengths
        self.cache = larger

    def choose(self, logits: Tensor) -> list[tuple[Row, Step]]:
        """Draw each row's next token from its logits (B, V) by its own rules and its own random numbers."""
        u = torch.tensor([[row.random.random()] for row in self.rows], dtype=torch.float64)
        seen = torch.stack([row.seen for row in self.rows])
        groups: dict[SampleConfig, list[int]] = {}
        for place, row in enumerate(self.rows):
            groups.setdefault(row.rules, []).append(place)
        if len(groups) == 1:
            chances = probabilities(logits, seen, self.rows[0].rules)
        else:
            chances = torch.empty_like(logits)
            for rules, places in groups.items():
                chances[places] = probabilities(logits[places], seen[places], rules)
        greedy = all(rules.temperature < GREEDY_BELOW for rules in groups)
        drawn = (chances.argmax(-1) if greedy else draw(chances, u)[:, 0]).tolist()
        ids = [row.next_id(id) for row, id in zip(self.rows, drawn)]
        at = torch.tensor(ids)[:, None]
        total = logits.logsumexp(-1)
        logprobs = (logits.gather(-1, at)[:, 0] - total).tolist()
        chance = chances.gather(-1, at)[:, 0].tolist()
        tops = self.likeliest(logits, total)
        return [(row, row.add(*values)) for row, *values in zip(self.rows, ids, logprobs, chance, tops)]

    def likeliest(self, logits: Tensor, total: Tensor) -> list[tuple[tuple[int, str, float], ...]]:
        """For each row the tokens that the model itself finds likeliest, as many as the row asks for."""
        most = min(max(row.alternatives for row in self.rows), int(self.known.sum()))
        if not most:
            return [()] * len(self.rows)
        values, indices = logits.topk(most)
        shares = (values - total[:, None]).exp().tolist()
        return [
            tuple((id, shown(self.encoding, id), p) for id, p in zip(ids[: row.alternatives], ps))
            for row, ids, ps in zip(self.rows, indices.tolist(), shares)
        ]


def part(cache: KVCache, start: int, end: int) -> KVCache:
    """Rows `start` to `end` of a cache, sharing its memory."""
    view = copy.copy(cache)
    view.keys, view.values, view.lengths = (
        cache.keys[:, start:end],
        cache.values[:, start:end],
        cache.lengths[start:end],
    )
    return view


def generate(
    model: GPT,
    encoding: Tokenizer,
    prompts: Sequence[Sequence[int]],
    config: SampleConfig,
    alternatives: int = 0,
    forced: Sequence[int] = (),
    ends: Collection[int] = (),
) -> Iterator[Step]:
    """Continue every prompt (ids), all of them together, and yield each new token as a Step.

    Row r draws as a single text of seed + r would, so no row depends on its neighbours. `forced` are ids the texts begin
    with instead of drawn ones; `alternatives` asks for that many of the likeliest tokens in each Step; `ends` are ids that
    end a text beside the encoding's end-of-text. A prompt beyond the context keeps its end; a text that fills the context
    goes on from its newer half; both are said in a Step's note.
    Raises ValueError for an empty prompt without an end-of-text to start from, and when the logits are not finite.
    """
    batch = Batch(quantised.smaller(model, config.weights), encoding)
    for r, prompt in enumerate(prompts):
        own = replace(config, seed=(config.seed + r) % 2**31)
        batch.join(Row(r, prompt, own, model, encoding, forced, alternatives, ends))
    while batch.rows or batch.waiting:
        for _, step in batch.step():
            yield step


def complete(model: GPT, encoding: Tokenizer, prompts: Sequence[str], config: SampleConfig) -> list[str]:
    """The whole continuation of each prompt as text."""
    texts = [""] * len(prompts)
    for step in generate(model, encoding, [encoding.encode(prompt) for prompt in prompts], config):
        texts[step.row] += step.text
    return texts


def next_logits(model: GPT, ids: Sequence[int]) -> Tensor:
    """(V,): the logits of the token that follows `ids`, of which the model reads the last context_length."""
    with torch.inference_mode(), evaluating(model):
        idx = torch.tensor([list(ids)[-model.config.context_length :]], device=model.device)
        return model.output(model.hidden(idx)[:, -1])[0].float().cpu()


# --- the terminal


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m llm.generate --model NAME --prompt "..."`: the new text on standard output, remarks on the other."""
    parser = argparse.ArgumentParser(
        prog="python -m llm.generate", description="Continue a text with a model."
    )
    parser.add_argument("--model", required=True, help="name of a model directory")
    parser.add_argument("--prompt", default="", help="text to continue; empty starts from end-of-text")
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="NAME=STRENGTH",
        help="an adapter on the model, from 0 (its base) to 2, 1 as it was trained; may be given several times",
    )
    parser.add_argument(
        "--special", action="store_true", help="read strings like <|endoftext|> as special tokens"
    )
    parser.add_argument(
        "--forced", default="", help="token ids the new text begins with, separated by commas"
    )
    parser.add_argument(
        "--explain", type=int, default=0, metavar="N", help="print a table of N next tokens instead"
    )
    chats = parser.add_argument_group("chat", "the prompt as a message, through the model's chat template")
    chats.add_argument("--chat", action="store_true", help="answer the prompt instead of continuing it")
    chats.add_argument("--system", default="", help="system message, said before everything else")
    chats.add_argument(
        "--history",
        default="[]",
        metavar="JSON",
        help='turns so far: [{"role": "user", "content": "..."}, ...]',
    )
    chats.add_argument(
        "--template", default="", help="plain, alpaca or chatml instead of the model's own template"
    )
    chats.add_argument(
        "--show_prompt", action="store_true", help="print what the model reads, on standard error"
    )
    add_flags(parser, SampleConfig)
    given = parser.parse_args(arguments)
    try:
        run(given)
    except ValueError as error:
        sys.exit(f"{error}")


def run(given: argparse.Namespace) -> None:
    """What `main` does with its flags. Raises ValueError."""
    from llm import chat, dial, lora, tuned
    from llm.checkpoint import load_model

    config = from_flags(SampleConfig, given)
    forced = [int(id) for id in given.forced.split(",")] if given.forced else []
    folder = paths.model_folder(given.model)
    manners = chat.read(folder)
    strengths = tuned.parsed(given.adapter)
    base = tuned.below(given.model) if strengths else given.model
    model, encoding = load_model(paths.model_folder(base))
    if strengths:
        model = dial.dialled(model, base, strengths)
        model = model if config.weights == "fp32" else lora.merged(model)
    if given.chat:
        found = chat.prompt(folder, encoding, messages_of(given), given.template)
        prompt, config = found.ids, replace(config, stop=(*config.stop, *found.stops))
    else:
        prompt = prompt_ids(encoding, given.prompt, given.special, manners.begin_id)
        if manners.begins:
            print(f"[{manners.begins} stands in front, as this model's texts begin with it]", file=sys.stderr)
    if given.show_prompt:
        print("".join(shown(encoding, id) for id in prompt), f"[{len(prompt)} tokens]", file=sys.stderr)
    if given.explain:
        ids, *_ = started(prompt, model.config.context_length, encoding)
        model = quantised.smaller(model, config.weights)
        print_table(explain(next_logits(model, ids + forced), ids + forced, config, encoding, given.explain))
        return
    start, made, finish = time.perf_counter(), 0, "length"
    for step in generate(model, encoding, [prompt], config, forced=forced, ends=manners.end_ids):
        made, finish = made + 1, step.finish
        print(step.text, end="", flush=True)
        if step.note:
            print(f"\n[{step.note}]", file=sys.stderr)
    print(flush=True)
    seconds = time.perf_counter() - start
    ending = {
        "eot": "the model ended the text",
        "stop": "a stop string was met",
        "length": "max_new_tokens reached",
    }
    print(f"[{made} tokens, {made / max(seconds, 1e-9):.0f} a second; {ending[finish]}]", file=sys.stderr)


def messages_of(given: argparse.Namespace) -> list[dict[str, str]]:
    """The conversation that the flags describe. Raises ValueError when the history is no list of turns."""
    from llm import chat

    try:
        history = json.loads(given.history)
    except ValueError:
        history = None
    if not isinstance(history, list):
        raise ValueError('--history takes turns as JSON: [{"role": "user", "content": "..."}, ...].')
    return chat.conversation(given.system, history, given.prompt)


def print_table(table: dict[str, Any]) -> None:
    """The table of `explain` as text, numbers to four digits; a dash where a token was dropped."""
    columns = ["id", "text", "logit", "penalty", "temperature", "softmax", "top_k", "top_p", "min_p"]
    print("  ".join(f"{name:>11}" for name in columns))
    for row in table["rows"]:
        cells = [repr(row[c]) if c == "text" else "-" if row[c] is None else row[c] for c in columns]
        print("  ".join(f"{cell:11.4f}" if isinstance(cell, float) else f"{cell!s:>11}" for cell in cells))
    kept = ", ".join(f"{name} {n}" for name, n in table["kept"].items())
    print(f"tokens left after each step: {kept}")


if __name__ == "__main__":
    main()
