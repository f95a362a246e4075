"""One more token on a CUDA GPU: the step is recorded once and then replayed by one launch (CUDA graphs).

A small model's step is some hundred operations of a few microseconds each, and to launch them one by one takes the processor longer than
the GPU needs for them. What is recorded are operations on places in memory, so every step has to do the same ones: the whole
cache is in view, and a mask hides what is not there yet (`llm.decode.Shared`, `fixed`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from llm.decode import Decoder, Shared
from llm.model import GPT, KVCache

WARM_UPS = 3  # steps before the recording, in which libraries set themselves up
log = logging.getLogger("llm-lab")


@dataclass(frozen=True)
class Recording:
    """A step of so many texts over one cache. Its tensors are the places that the replay reads and writes."""

    graph: torch.cuda.CUDAGraph
    idx: Tensor  # (B, 1)
    logits: Tensor  # (B, V)
    cache: KVCache  # held, so that its memory is nobody else's


class Recorded(Decoder):
    """`llm.decode.Decoder` by replay; step by step where a recording fails."""

    def __init__(self, model: GPT):
        super().__init__(model)
        self.recordings: dict[tuple, Recording] = {}
        self.fails = False

    def step(self, idx: Tensor, cache: KVCache) -> Tensor:
        """As `Decoder.step`."""
        if self.fails:
            return super().step(idx, cache)
        if self.model.position_embedding is not None:
            self.model.refuse_unlearned(cache.lengths)
        place = cache.keys.data_ptr()
        key = (place, cache.keys.shape)
        if key not in self.recordings:
            # those of this cache, not of the smaller one before
            self.recordings = {k: one for k, one in self.recordings.items() if k[0] == place}
            lengths = cache.lengths.clone()
            try:
                self.recordings[key] = self.record(idx, cache)
            except RuntimeError as error:
                cache.lengths.copy_(lengths)
                log.warning(
                    "a step could not be recorded (%s): tokens are written operation by operation", error
                )
                self.fails = True
                return super().step(idx, cache)
        found = self.recordings[key]
        found.idx.copy_(idx)
        found.graph.replay()
        return found.logits.clone()

    def record(self, idx: Tensor, cache: KVCache) -> Recording:
        """Record a step. The cache is left as it was, but for places that the next step writes anyway."""
        idx, lengths = idx.clone(), cache.lengths.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                self.through(idx, cache, Shared(cache, fixed=True))
                cache.lengths.copy_(lengths)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # nothing is computed in here
            logits = self.through(idx, cache, Shared(cache, fixed=True))
        return Recording(graph, idx, logits, cache)


def decoder(model: GPT) -> Decoder:
    """The quickest way of writing where the model lies."""
    return Recorded(model) if model.device.type == "cuda" else Decoder(model)
