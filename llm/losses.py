"""Losses as sums with counts, divided once at the end: then padding, parts of a batch and processes cannot bend a curve."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100  # a target that does not count


@dataclass(frozen=True)
class Tally:
    """A sum of losses in nats and over how many targets it was taken; further sums over the same targets by name."""

    total: Tensor  # scalar
    count: int
    sums: dict[str, Tensor] = field(default_factory=dict)  # scalars without gradients: right answers, rewards

    @property
    def mean(self) -> float:
        """Mean loss a target, or nan when nothing counted."""
        return float(self.total) / self.count if self.count else float("nan")

    def __add__(self, other: Tally) -> Tally:
        sums = {name: self.sums[name] + other.sums[name] for name in self.sums}
        return Tally(self.total + other.total, self.count + other.count, sums)


def next_token(logits: Tensor, targets: Tensor) -> Tally:
    """Cross-entropy of the true next tokens: sum of -log softmax(logits)[target].

    logits (B, T, V), targets (B, T) with IGNORED where nothing counts. Bengio et al. 2003, eq. of section 2.
    """
    total = F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return Tally(total, int((targets != IGNORED).sum()))


def classes(logits: Tensor, labels: Tensor) -> Tally:
    """Cross-entropy of the true classes, and how many of them were the likeliest. logits (B, K), labels (B,)."""
    total = F.cross_entropy(logits.float(), labels, reduction="sum")
    return Tally(total, len(labels), {"accuracy": (logits.detach().argmax(-1) == labels).float().sum()})


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax(logits)[target] of each target, 0 where it is IGNORED. logits (..., V), targets (...) -> (...), in nats."""
    found = F.cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return -found.view(targets.shape)


def sequence_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """log pi(y | x) of each text: the sum over its targets. logits (B, T, V), targets (B, T) -> (B,), never above 0."""
    return token_logprobs(logits, targets).sum(-1)


def preference(
    policy: Tensor,
    reference: Tensor,
    lengths: Tensor,
    beta: float,
    kind: str = "dpo",
    label_smoothing: float = 0.0,
) -> Tally:
    """The loss of pairs of answers, with their rewards: beta log (pi / pi of the reference).

    policy, reference (B, 2): log pi(y | x) of the chosen and the rejected answer; lengths (B, 2): their tokens. `kind` is
    one of PREFERENCES. The sums are reward_chosen, reward_rejected, reward_margin and reward_accuracy (pairs whose chosen
    answer has the larger reward).
    """
    ratios = policy - reference
    losses = PREFERENCES[kind](ratios, lengths, beta, label_smoothing)
    chosen, rejected = (beta * ratios.detach()).unbind(1)
    sums = {
        "reward_chosen": chosen.sum(),
        "reward_rejected": rejected.sum(),
        "reward_margin": (chosen - rejected).sum(),
        "reward_accuracy": (chosen > rejected).float().sum(),
    }
    return Tally(losses.sum(), len(policy), sums)


def dpo(ratios: Tensor, lengths: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """-log sigmoid(beta (ratio of the chosen - ratio of the rejected)) of each pair. ratios (B, 2) -> (B,).

    Rafailov et al. 2023, eq. 7. With smoothing e it is -(1 - e) log sigmoid(margin) - e log sigmoid(-margin): a share e of pairs is believed to be
    the wrong way round (Mitchell 2023, conservative DPO).
    """
    margins = beta * (ratios[:, 0] - ratios[:, 1])
    return -(1 - label_smoothing) * F.logsigmoid(margins) - label_smoothing * F.logsigmoid(-margins)


def ipo(ratios: Tensor, lengths: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """(ratio of the chosen - ratio of the rejected - 1 / (2 beta))^2 of each pair: they shall differ, but no further.

    Azar et al. 2023, eq. 17, with ratios a token, so that long answers count like short ones (as in that paper's
    experiments, say its authors by way of TRL). (B, 2) -> (B,).
    """
    each = ratios / lengths
    return (each[:, 0] - each[:, 1] - 1 / (2 * beta)).square()


PREFERENCES = {"dpo": dpo, "ipo": ipo}


def worked_out(logits: Tensor, target: int, top: int = 5) -> dict[str, object]:
    """One position's loss in single steps: logits (V,) -> softmax -> probability of the target -> -log of it.

    Gives the target's logit, the log of the sum of exp(logits), the probability, the loss in nats and the `top`
    likeliest ids with their logits and probabilities.
    """
    logits = logits.float()
    log_sum = torch.logsumexp(logits, dim=-1)
    probabilities = torch.exp(logits - log_sum)
    best = torch.topk(logits, min(top, len(logits)))
    return {
        "target": target,
        "logit": float(logits[target]),
        "log_sum_exp": float(log_sum),
        "probability": float(probabilities[target]),
        "loss": float(log_sum - logits[target]),
        "top": [
            {"id": int(i), "logit": float(value), "probability": float(probabilities[i])}
            for value, i in zip(best.values, best.indices)
        ],
    }
