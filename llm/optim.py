"""The optimizers: AdamW, or Muon for the matrices beside it, and the learning rate of every step."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from llm.config import TrainConfig
from llm.lora import in_adapter
from llm.model import GPT
from llm.muon import Muon


def learning_rate(update: int, config: TrainConfig) -> float:
    """The rate of update number 1, 2, ..., max_steps.

    Rises in a line to the peak at `warmup_steps`, then falls to `min_learning_rate` at `max_steps`: along half a
    cosine (Loshchilov & Hutter 2017, eq. 5), along a line, or not at all.
    """
    peak, least = config.learning_rate, config.min_learning_rate
    if update < config.warmup_steps:
        return peak * update / config.warmup_steps
    if config.schedule == "constant":
        return peak
    done = (update - config.warmup_steps) / (config.max_steps - config.warmup_steps)
    if config.schedule == "linear":
        return peak + (least - peak) * done
    return least + (peak - least) * (1 + math.cos(math.pi * done)) / 2


class AdamW(torch.optim.AdamW):
    """torch's AdamW with its fused step called straight away: its own way there imports torch's compiler, 1.5 s of every start."""

    @torch.no_grad()
    def step(self) -> None:
        """m and v follow the gradient g and g^2; w -= lr * (m' / (sqrt(v') + eps) + decay * w), m' and v' without their start at 0."""
        for group in self.param_groups:
            alike: dict[tuple[torch.device, torch.dtype], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.device, p.dtype].append(p)
            for parameters in alike.values():
                state = [self.memory(p) for p in parameters]
                steps = [one["step"] for one in state]
                torch._foreach_add_(steps, 1)
                torch._fused_adamw_(
                    parameters, [p.grad for p in parameters], [one["exp_avg"] for one in state],
                    [one["exp_avg_sq"] for one in state], [], steps, lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1],
                    weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
                )  # fmt: skip

    def memory(self, p: nn.Parameter) -> dict[str, Tensor]:
        """What is remembered of a parameter, under the names that torch gives it."""
        if not self.state[p]:
            self.state[p] = {
                "step": torch.zeros((), device=p.device), "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
            }  # fmt: skip
        return self.state[p]


for _name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
    # each would import torch's compiler when it is first called, only to say that it is not to be compiled; we never compile it
    if _plain := getattr(getattr(torch.optim.Optimizer, _name), "__wrapped__", None):
        setattr(_plain, "__dynamo_disable", _plain)


def adamw(parameters: list[nn.Parameter], config: TrainConfig) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019) that pulls matrices towards zero and leaves norms and biases alone."""
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=1e-8, fused=True)


def muon_and_adamw(model: GPT, config: TrainConfig, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the embeddings, the output matrix, norms, biases and adapters.

    What stands still gets no optimizer. An adapter's matrices are narrow by design: to make them orthogonal would undo
    what they learn together.
    """
    chosen = {
        p
        for name, p in model.blocks.named_parameters()
        if p.requires_grad and p.dim() == 2 and not in_adapter(name)
    }
    inside = [p for p in model.blocks.parameters() if p in chosen]
    rest = [p for p in model.parameters() if p.requires_grad and p not in chosen]
    if not inside:
        return [adamw(rest, config)]
    heads, D = model.config.n_head, model.config.head_dim
    rows = (heads * D, model.config.kv_heads * D, model.config.kv_heads * D)  # of q, k and v
    parts = {block.attention.qkv.weight: rows for block in model.blocks}
    muon = Muon(
        inside, config.matrix_learning_rate, weight_decay=config.weight_decay, parts=parts, dtype=dtype
    )
    return [muon, adamw(rest, config)]


def optimizers(model: GPT, config: TrainConfig, number_format: str = "fp32") -> list[torch.optim.Optimizer]:
    """The optimizers that `config` names; each group remembers the peak of its learning rate as "peak"."""
    if config.optimizer == "muon":
        dtype = torch.bfloat16 if number_format == "bf16" else torch.float32
        found = muon_and_adamw(model, config, dtype)
    else:
        found = [adamw([p for p in model.parameters() if p.requires_grad], config)]
    for group in (group for optimizer in found for group in optimizer.param_groups):
        group["peak"] = group["lr"]
    return found


def set_rate(found: list[torch.optim.Optimizer], update: int, config: TrainConfig) -> float:
    """Give every group its learning rate for this update, all along one schedule; returns AdamW's."""
    rate = learning_rate(update, config)
    share = rate / config.learning_rate if config.learning_rate else 0.0
    for group in (group for optimizer in found for group in optimizer.param_groups):
        group["lr"] = group["peak"] * share
    return rate


def clip(model: nn.Module, longest: float) -> float:
    """Shorten all gradients together to length `longest` if they are longer (0: never); return the length before."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of shares: over all processes
    if longest:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), longest, norm)
    return float(norm)
