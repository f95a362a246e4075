"""Every setting of the lab, declared once: command-line flags, forms and JSON files are derived from these dataclasses."""

from __future__ import annotations

import argparse
import math
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any


def knob(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    advanced: bool = False,
) -> Any:
    """A dataclass field that knows its help text, range and choices: the one place a setting is written."""
    return field(
        default=default, metadata=dict(help=help, low=low, high=high, choices=choices, advanced=advanced)
    )


@dataclass(frozen=True)
class Knob:
    """What a form or a command line needs to know of one field."""

    name: str
    kind: type  # int, float, str, bool or tuple (of strings)
    default: Any
    help: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    advanced: bool


def knobs(cls: type) -> list[Knob]:
    """The knobs of a config dataclass in order, nested configs left out."""
    hints = typing.get_type_hints(cls)  # field.type is only a string here
    found = []
    for f in fields(cls):
        kind = typing.get_origin(hints[f.name]) or hints[f.name]
        if f.metadata and not is_dataclass(kind):
            found.append(Knob(name=f.name, kind=kind, default=f.default, **f.metadata))
    return found


def _check_ranges(config: Any) -> None:
    """Raise ValueError for the first knob whose value has the wrong type, range or choice."""
    for k in knobs(type(config)):
        value = getattr(config, k.name)
        if k.kind is float and type(value) is int:
            value = float(value)
            object.__setattr__(config, k.name, value)
        if k.kind is tuple and isinstance(value, list):
            value = tuple(value)
            object.__setattr__(config, k.name, value)
        if type(value) is not k.kind:
            raise ValueError(f"{k.name} must be of type {k.kind.__name__}, not {value!r}.")
        if k.kind is float and not math.isfinite(value):
            raise ValueError(f"{k.name} must be a finite number, not {value}.")
        if k.choices and value not in k.choices:
            raise ValueError(f"{k.name} must be one of {', '.join(k.choices)}, not {value!r}.")
        if k.low is not None and value < k.low:
            raise ValueError(f"{k.name} is {value}; the smallest value is {k.low}.")
        if k.high is not None and value > k.high:
            raise ValueError(f"{k.name} is {value}; the largest value is {k.high}.")


def _nearest_divisors(n: int, wanted: int) -> str:
    below = max((d for d in range(1, n + 1) if n % d == 0 and d <= wanted), default=1)
    above = min((d for d in range(1, n + 1) if n % d == 0 and d >= wanted), default=n)
    return f"{below}" if below == above else f"{below} or {above}"


@dataclass(frozen=True)
class ModelConfig:
    """The shape and the behaviours of a decoder-only transformer. Zero means "derived" where the help says so."""

    vocab_size: int = knob(
        0, "Token ids the model knows; 0 takes the encoding's", low=0, high=1_000_000, advanced=True
    )
    context_length: int = knob(256, "Tokens the model sees at once", low=1, high=131_072)
    n_layer: int = knob(3, "Transformer blocks", low=1, high=256)
    n_head: int = knob(4, "Attention heads a block", low=1, high=256)
    n_kv_head: int = knob(
        0, "Key/value heads a block (grouped-query attention); 0 means as many as heads", low=0, high=256
    )
    head_size: int = knob(
        0, "Numbers in a head's q, k and v; 0 means width / heads", low=0, high=1024, advanced=True
    )
    n_embd: int = knob(128, "Width: numbers that describe a token", low=1, high=32_768)
    position: str = knob(
        "rope", "How a token knows its place", choices=("learned", "sinusoidal", "rope", "none")
    )
    rope_theta: float = knob(10_000.0, "RoPE base: larger turns more slowly", low=1, high=1e9, advanced=True)
    rope_share: float = knob(
        1.0, "Share of a head's numbers that RoPE turns; the rest stays", low=0.01, high=1, advanced=True
    )
    rope_scaling: str = knob(
        "none", "RoPE slowed down for texts longer than those first trained on: all pairs alike, or as Llama 3 does",
        choices=("none", "linear", "llama3"), advanced=True,
    )  # fmt: skip
    rope_factor: float = knob(1.0, "RoPE scaling: how many times slower", low=1, high=1000, advanced=True)
    rope_low: float = knob(
        1.0, "Llama 3 scaling: pairs that turn less often than this in the original context are slowed down fully",
        low=0, high=1000, advanced=True,
    )  # fmt: skip
    rope_high: float = knob(
        4.0, "Llama 3 scaling: pairs that turn more often than this in the original context stay as they are",
        low=0, high=1000, advanced=True,
    )  # fmt: skip
    rope_original: int = knob(
        8192, "Llama 3 scaling: the original context", low=1, high=10_000_000, advanced=True
    )
    rope_theta_local: float = knob(
        0.0, "RoPE base of layers with a sliding window, unscaled; 0 takes that of all layers", low=0, high=1e9,
        advanced=True,
    )  # fmt: skip
    sliding_window: int = knob(
        0,
        "Tokens that a token sees, itself and those before it; 0 sees all",
        low=0,
        high=1_000_000,
        advanced=True,
    )
    global_every: int = knob(
        0,
        "Every n-th layer sees all in spite of the sliding window; 0: none does",
        low=0,
        high=256,
        advanced=True,
    )
    qk_norm: str = knob(
        "none", "RMSNorm of q and k: of each head, or over all heads at once", choices=("none", "head", "width"),
        advanced=True,
    )  # fmt: skip
    score_size: float = knob(
        0.0,
        "Scores q.k are divided by the square root of this; 0 means the head size",
        low=0,
        high=1e6,
        advanced=True,
    )
    causal: bool = knob(
        True, "A token looks only back; off breaks the model on purpose: it reads the answer instead of learning to guess it",
        advanced=True,
    )  # fmt: skip
    embedding_scale: bool = knob(
        False, "Multiply token vectors by the square root of the width", advanced=True
    )
    parallel: bool = knob(
        False, "Attention and MLP read the same stream and are added to it together", advanced=True
    )
    norm: str = knob("rmsnorm", "Normalisation", choices=("layernorm", "rmsnorm"))
    norm_position: str = knob(
        "pre", "Normalise each part of a block: before it; after its sum with the stream; before and after it; only after it",
        choices=("pre", "post", "sandwich", "output"),
    )  # fmt: skip
    norm_eps: float = knob(1e-5, "Added to the variance before the square root", low=0, high=1, advanced=True)
    mlp: str = knob(
        "swiglu", "The block's feed-forward part", choices=("swiglu", "geglu", "gelu", "gelu_tanh", "relu")
    )
    mlp_hidden: int = knob(
        0, "Width inside the MLP; 0 means 4 x width (SwiGLU: 8/3 x width, in steps of 8)", low=0, high=262_144
    )
    bias: bool = knob(False, "Biases in the output, MLP and LayerNorm parts", advanced=True)
    qkv_bias: bool = knob(False, "Biases on q, k and v", advanced=True)
    tie_embeddings: bool = knob(True, "Use the token embedding as the output matrix too", advanced=True)
    dropout: float = knob(0.0, "Share of values zeroed while training", low=0, high=0.95, advanced=True)

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.head_size == 0 and self.n_embd % self.n_head:
            low = max(self.n_embd // self.n_head, 1) * self.n_head
            raise ValueError(
                f"{self.n_head} heads do not divide a width of {self.n_embd}: choose "
                f"{_nearest_divisors(self.n_embd, self.n_head)} heads, or a width of {low} or {low + self.n_head}."
            )
        if self.n_head % self.kv_heads:
            raise ValueError(
                f"{self.kv_heads} key/value heads cannot be shared evenly by {self.n_head} heads: choose "
                f"{_nearest_divisors(self.n_head, self.kv_heads)} key/value heads."
            )
        if self.position == "rope" and (self.head_dim % 2 or self.rope_size < 2):
            raise ValueError(
                f"RoPE turns pairs of numbers, so the head size must be even, not {self.head_dim}, and its share hold at "
                "least one pair: change the width, the number of heads or the head size."
            )
        if self.rope_scaling == "llama3" and self.rope_high <= self.rope_low:
            raise ValueError(
                f"rope_high is {self.rope_high:g} and rope_low {self.rope_low:g}: the first must be the larger one."
            )
        if self.parallel and self.norm_position != "pre":
            raise ValueError(
                f"Attention and MLP in parallel need norms before them (pre), not {self.norm_position}."
            )

    @property
    def kv_heads(self) -> int:
        return self.n_kv_head or self.n_head

    @property
    def head_dim(self) -> int:
        return self.head_size or self.n_embd // self.n_head

    @property
    def rope_size(self) -> int:
        """Numbers of a head that RoPE turns: whole pairs."""
        return 2 * int(self.rope_share * self.head_dim / 2 + 1e-9)

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies by a gate."""
        return self.mlp in ("swiglu", "geglu")

    @property
    def hidden(self) -> int:
        if self.mlp_hidden:
            return self.mlp_hidden
        return 8 * max(1, round(self.n_embd / 3)) if self.gated else 4 * self.n_embd

    def slides(self, layer: int) -> bool:
        """Whether this layer (0, 1, ...) sees only a sliding window."""
        return bool(self.sliding_window) and not (self.global_every and (layer + 1) % self.global_every == 0)

    def parameters(self) -> dict[str, int]:
        """Number of weights by part, by formula; a tied output matrix counts once (as the token embedding)."""
        C, D, H = self.n_embd, self.head_dim, self.hidden
        norm = C * (2 if self.norm == "layernorm" and self.bias else 1)
        rows = (self.n_head + 2 * self.kv_heads) * D
        attention = C * rows + self.qkv_bias * rows + self.n_head * D * C + self.bias * C
        qk_norm = {"none": 0, "head": 2 * D, "width": (self.n_head + self.kv_heads) * D}[self.qk_norm]
        matrices = 3 if self.gated else 2
        mlp = matrices * C * H + self.bias * ((matrices - 1) * H + C)
        return {
            "token embedding": self.vocab_size * C,
            "position embedding": self.context_length * C if self.position == "learned" else 0,
            "attention": self.n_layer * attention,
            "mlp": self.n_layer * mlp,
            "norms": self.n_layer * ((4 if self.norm_position == "sandwich" else 2) * norm + qk_norm)
            + (norm if self.norm_position != "post" else 0),
            "output": 0 if self.tie_embeddings else self.vocab_size * C,
        }


@dataclass(frozen=True)
class TrainConfig:
    """How a model learns: batches, steps, learning rate, and when to look at it."""

    max_steps: int = knob(1600, "Updates of the weights", low=1, high=10_000_000)
    batch_size: int = knob(8, "Windows a step", low=1, high=65_536)
    grad_accumulation: int = knob(
        1,
        "Parts a batch is worked through in: the same result in less memory",
        low=1,
        high=4096,
        advanced=True,
    )
    windows: str = knob(
        "documents", "Where windows begin: at each document of a text that has several, or at every stride",
        choices=("documents", "stride"), advanced=True,
    )  # fmt: skip
    stride: int = knob(
        0,
        "Tokens from one window's start to the next; 0 means the context length",
        low=0,
        high=131_072,
        advanced=True,
    )
    optimizer: str = knob(
        "muon", "What turns gradients into steps: muon for the matrices inside the blocks, or adamw, the common one, for all",
        choices=("muon", "adamw"), advanced=True,
    )  # fmt: skip
    learning_rate: float = knob(4e-3, "Peak learning rate (AdamW)", low=0, high=10)
    matrix_learning_rate: float = knob(
        0.02, "Peak learning rate of the matrices inside the blocks (Muon)", low=0, high=10, advanced=True
    )
    min_learning_rate: float = knob(
        2e-4, "Learning rate at the end of the decay", low=0, high=10, advanced=True
    )
    warmup_steps: int = knob(
        50, "Steps in which the learning rate rises", low=0, high=1_000_000, advanced=True
    )
    schedule: str = knob(
        "cosine",
        "What the learning rate does after warm-up",
        choices=("cosine", "linear", "constant"),
        advanced=True,
    )
    weight_decay: float = knob(0.02, "Pull of the matrices towards zero", low=0, high=10, advanced=True)
    beta1: float = knob(0.9, "AdamW: memory of the gradient", low=0, high=0.9999, advanced=True)
    beta2: float = knob(0.98, "AdamW: memory of its square", low=0, high=0.99999, advanced=True)
    grad_clip: float = knob(1.0, "Longest gradient allowed; 0 is off", low=0, high=1e6, advanced=True)
    validation_fraction: float = knob(
        0.05, "Share of the text, at its end, kept for validation", low=0, high=0.9, advanced=True
    )
    eval_every: int = knob(200, "Steps between evaluations", low=1, high=1_000_000)
    eval_batches: int = knob(
        8, "Validation batches an evaluation; 0 takes all of them", low=0, high=1_000_000, advanced=True
    )
    checkpoint_every: int = knob(
        200, "Steps between checkpoints on the disk", low=1, high=1_000_000, advanced=True
    )
    keep_checkpoints: bool = knob(
        False, "Keep a copy of the model at steps 0, 1, 3, 10, 30, 100, ... to compare later", advanced=True
    )
    shuffle: bool = knob(True, "Draw the windows of each pass in a new order", advanced=True)
    drop_last: bool = knob(True, "Leave out the last, smaller batch of each pass", advanced=True)
    precision: str = knob(
        "auto", "Number format of the arithmetic; auto takes bf16 where the machine is fast in it",
        choices=("auto", "fp32", "bf16"), advanced=True,
    )  # fmt: skip
    seed: int = knob(0, "Where all randomness starts from", low=0, high=2**31 - 1)
    threads: int = knob(
        0, "Processor threads; 0 takes this run's share of the machine", low=0, high=1024, advanced=True
    )
    compile: bool = knob(
        False, "Compile the blocks first (torch.compile): meant for long runs on a GPU, where nobody has measured it; slower on the processors tried",
        advanced=True,
    )  # fmt: skip
    processes: int = knob(
        1, "Processes of this machine that share the work (torchrun starts them)", low=1, high=1024, advanced=True
    )  # fmt: skip
    sharding: str = knob(
        "none", "With several processes: each holds the whole model, or a share of every weight, gradient and average (full)",
        choices=("none", "full"), advanced=True,
    )  # fmt: skip
    patience: int = knob(
        0, "Stop after this many evaluations in a row without a better validation loss; 0 is off", low=0, high=10_000,
        advanced=True,
    )  # fmt: skip
    shift: int = knob(
        1, "A token's target stands so many places after it; 0 breaks training on purpose: each token is its own target", low=0,
        high=1, advanced=True,
    )  # fmt: skip
    keep_best: bool = knob(
        False,
        "The model that is kept is the one with the lowest validation loss, not the last one",
        advanced=True,
    )

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.schedule != "constant" and self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"The warm-up takes {self.warmup_steps} of {self.max_steps} steps, so the learning rate would never "
                "decay: use fewer warm-up steps than steps, or the constant schedule."
            )
        if self.min_learning_rate > self.learning_rate and self.schedule != "constant":
            raise ValueError(
                f"The final learning rate {self.min_learning_rate:g} lies above the peak {self.learning_rate:g}: lower it."
            )
        if self.batch_size % self.grad_accumulation:
            raise ValueError(
                f"A batch of {self.batch_size} cannot be cut into {self.grad_accumulation} equal parts: choose "
                f"{_nearest_divisors(self.batch_size, self.grad_accumulation)} parts."
            )


LORA_MODULES = ("all", "q", "k", "v", "qkv", "out", "gate", "up", "down", "output")  # where adapters can sit


@dataclass(frozen=True)
class TuneConfig:
    """How a model that exists already is changed: which of its weights learn, and what rows become."""

    trained: str = knob(
        "all", "What learns: all weights; the last blocks and the final norm; or a small adapter beside frozen ones (LoRA)",
        choices=("all", "last", "lora"),
    )  # fmt: skip
    last_blocks: int = knob(1, "Blocks that learn when only the last ones do", low=1, high=256)
    lora_rank: int = knob(8, "LoRA: numbers between its two matrices (r)", low=1, high=4096)
    lora_alpha: float = knob(16.0, "LoRA: how strongly it speaks (alpha)", low=0.001, high=100_000)
    lora_dropout: float = knob(
        0.0, "LoRA: share of its inputs zeroed while training", low=0, high=0.95, advanced=True
    )
    lora_scaling: str = knob(
        "alpha/r", "LoRA: what the product of its matrices is multiplied by (paper and PEFT; some books; rank-stabilised)",
        choices=("alpha/r", "alpha", "alpha/sqrt(r)"), advanced=True,
    )  # fmt: skip
    lora_dora: bool = knob(
        False, "DoRA: learn the length of each row of a matrix apart from its direction", advanced=True
    )
    lora_modules: tuple[str, ...] = knob(
        ("all",),
        f"LoRA: matrices that get an adapter, of {', '.join(LORA_MODULES)} (all: every one inside the blocks)",
    )
    prompt_style: str = knob(
        "alpaca", "How an instruction is written down for the model; bare adds no words; own is its own chat template",
        choices=("alpaca", "phi3", "chatml", "plain", "bare", "own"),
    )  # fmt: skip
    mask_prompt: bool = knob(True, "Learn the answers only, not the prompts before them")
    packing: bool = knob(
        False, "Instructions: lay short rows end to end in one line of a batch, each seeing only itself"
    )
    max_length: int = knob(
        0,
        "Tokens of a row at most, longer ones are cut; 0 takes the model's context",
        low=0,
        high=131_072,
        advanced=True,
    )
    preference_loss: str = knob("dpo", "Loss on pairs of answers", choices=("dpo", "ipo"))
    beta: float = knob(
        0.1, "Preferences: how firmly the model is held to where it began", low=0.0001, high=100
    )
    label_smoothing: float = knob(
        0.0, "Preferences: share of pairs believed to be the wrong way round", low=0, high=0.49, advanced=True
    )
    questions: tuple[str, ...] = knob(
        (),
        "Instructions that the model answers at each evaluation; empty takes rows it does not learn from",
        advanced=True,
    )
    old_dataset: str = knob(
        "",
        "Text whose loss is measured at each evaluation too: what is forgotten while something new is learnt",
        advanced=True,
    )

    def __post_init__(self) -> None:
        _check_ranges(self)
        unknown = [name for name in self.lora_modules if name not in LORA_MODULES]
        if unknown or not self.lora_modules:
            raise ValueError(
                f"lora_modules takes any of {', '.join(LORA_MODULES)}, and at least one"
                + (f"; there is no {', '.join(unknown)}." if unknown else ".")
            )
        if self.label_smoothing and self.preference_loss != "dpo":
            raise ValueError(
                f"label_smoothing is a part of the dpo loss; with {self.preference_loss} it must be 0, not {self.label_smoothing}."
            )


WEIGHTS = ("fp32", "bf16", "int8", "int4")  # what llm.quantised knows


@dataclass(frozen=True)
class SampleConfig:
    """How the next token is chosen from the model's probabilities, and when to stop."""

    temperature: float = knob(
        0.7, "Logits are divided by it; 0 always takes the likeliest token", low=0, high=100
    )
    top_k: int = knob(0, "Keep only the k likeliest tokens; 0 is off", low=0, high=10_000_000)
    top_p: float = knob(1.0, "Keep the likeliest tokens until they hold this much probability", low=0, high=1)
    min_p: float = knob(
        0.0, "Drop tokens below this share of the likeliest token's probability", low=0, high=1
    )
    repetition_penalty: float = knob(
        1.0, "Makes tokens already in the text less likely; 1 is off", low=0.01, high=100
    )
    max_new_tokens: int = knob(200, "Tokens to add at most", low=0, high=100_000)
    seed: int = knob(0, "The same seed gives the same text", low=0, high=2**31 - 1)
    stop: tuple[str, ...] = knob((), "Texts that end the generation")
    stop_at_eot: bool = knob(True, "End at the end-of-text token", advanced=True)
    weights: str = knob(
        "fp32", "What each weight is kept as while texts are written: 4 bytes, 2 (bf16), in the matrices 1 (int8) or a half (int4)",
        choices=WEIGHTS,
    )  # fmt: skip

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True)
class RunConfig:
    """One training: on what, from where, with which model and settings."""

    dataset: str = knob("stories", "Text to learn from: a name from the list of datasets")
    tokenizer: str = knob("stories-1280", "Encoding of the text (a start from a model takes the model's)")
    start_from: str = knob("", "Model to go on from; empty starts from random weights")
    objective: str = knob(
        "pretrain", "What is learnt: a text, answers to instructions, classes of texts, or which of two answers people chose",
        choices=("pretrain", "instruct", "classify", "prefer"), advanced=True,
    )  # fmt: skip
    prompts: tuple[str, ...] = knob(
        ("Long ago, a",), "Texts the model continues at each evaluation", advanced=True
    )
    sample_tokens: int = knob(
        80, "Tokens of each such continuation; 0 is off", low=0, high=2000, advanced=True
    )
    model: ModelConfig = field(default_factory=lambda: ModelConfig(**PRESETS["0.7M  story teller"]))
    train: TrainConfig = field(default_factory=TrainConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.tune.trained == "lora" and not self.start_from:
            raise ValueError(
                "LoRA changes a model that has learned something already: name one to start from."
            )
        if self.tune.packing and self.objective != "instruct":
            raise ValueError(
                f"Packing lays rows of instructions end to end; with the objective {self.objective} leave it off."
            )


@dataclass(frozen=True)
class BPEConfig:
    """One encoding to learn: byte-pair merges of a text."""

    dataset: str = knob("stories", "Text to learn the merges from")
    vocab_size: int = knob(
        1024, "Ids of the encoding: 256 bytes, the merges and <|endoftext|>", low=257, high=200_000
    )

    def __post_init__(self) -> None:
        _check_ranges(self)


JUDGE_PROMPT = (
    "You compare two answers to one instruction.\n\nInstruction:\n{instruction}\n\nAnswer A:\n{a}\n\nAnswer B:\n{b}\n\n"
    "Which answer is better: more correct, more helpful, to the point? A longer answer is not better for its length, nor the "
    "first for being first. Reply with [[A]], [[B]] or [[tie]] and nothing else."
)


@dataclass(frozen=True)
class JudgeConfig:
    """Two who answer the same instructions, and a judge who compares their answers. Names as `llm.speakers` lists them."""

    a: str = knob("", "Who is judged: a model, NAME@STEP, BASE+ADAPTER or endpoint:NAME")
    b: str = knob("", "Whom they are compared with")
    judge: str = knob("", "Who judges; none of the two, if it is to be fair")
    dataset: str = knob("instructions", "Rows with the instructions")
    part: str = knob("test", "Part of the rows: test, validation, train, unseen, ...")
    count: int = knob(40, "Instructions, the first ones of a mixed order", low=1, high=5000)
    swap: bool = knob(
        True, "Ask a second time with the answers in the other order: a judge may like the first one"
    )
    max_new_tokens: int = knob(120, "Tokens of an answer at most", low=1, high=4000)
    temperature: float = knob(0.0, "Of the answers; the judge answers with 0", low=0, high=10)
    seed: int = knob(
        0, "Of the order of the instructions, the answers and the intervals", low=0, high=2**31 - 1
    )
    prompt: str = knob(
        JUDGE_PROMPT,
        "What the judge is told: {instruction}, {a} and {b} stand for the three texts",
        advanced=True,
    )

    def __post_init__(self) -> None:
        _check_ranges(self)
        if missing := [word for word in ("{instruction}", "{a}", "{b}") if word not in self.prompt]:
            raise ValueError(
                f"The judge's prompt must hold {', '.join(missing)}, or the judge sees nothing to judge."
            )


@dataclass(frozen=True)
class BenchmarkConfig:
    """One model on benchmarks of lm-evaluation-harness."""

    model: str = knob("", "Model: a name from the list of models")
    tasks: tuple[str, ...] = knob(
        ("quiz",), "Tasks: quiz (all its subjects), quiz_SUBJECT, or names of the harness, such as mmlu"
    )
    fewshot: int = knob(
        5, "Solved examples before each question; -1 takes what the task says", low=-1, high=100
    )
    limit: int = knob(0, "Questions of each task at most; 0 takes all", low=0, high=1_000_000)
    include: str = knob("", "Folder with task files of one's own, and their data", advanced=True)
    max_new_tokens: int = knob(
        128, "Tokens of an answer at most, where a task has the model write", low=1, high=4000, advanced=True
    )

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True)
class ImportConfig:
    """One model to bring in from elsewhere; the run's name is the name it gets here."""

    source: str = knob("", "Where it lies: a file or folder, hf:ORGANISATION/NAME[@REVISION], or upload:ID")
    file: str = knob("", "Which file of a Hub repository that offers several GGUF files")
    base: str = knob("", "Model that an adapter was trained on: a name from the list of models")
    encoding: str = knob("", "Encoding of a model whose file has none")
    n_head: int = knob(0, "Attention heads of a model whose file does not say; 0: it says", low=0, high=256)

    def __post_init__(self) -> None:
        _check_ranges(self)


FORMATS: dict[str, tuple[str, ...]] = {
    # what a model can be written as: the number formats that it can be written in, the usual one first
    "hf": ("fp32", "bf16", "fp16"),
    "gguf": ("fp16", "bf16", "q8_0", "q4_0", "fp32"),
    "litgpt": ("fp32", "bf16", "fp16"),
    "onnx": ("fp32",),
    "notebook": ("fp32",),
}


@dataclass(frozen=True)
class ExportConfig:
    """One model to write in the format of other tools."""

    model: str = knob("", "Model to write: a name from the list of models")
    format: str = knob("hf", "What it is written as", choices=tuple(FORMATS))
    dtype: str = knob(
        "",
        "Number format of the weights; empty takes the usual one",
        choices=("", "fp32", "bf16", "fp16", "q8_0", "q4_0"),
    )

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.dtype and self.dtype not in FORMATS[self.format]:
            raise ValueError(
                f"The format {self.format} holds {', '.join(FORMATS[self.format])}, not {self.dtype}: choose one of those."
            )

    @property
    def numbers(self) -> str:
        """The number format, worked out."""
        return self.dtype or FORMATS[self.format][0]


PRESETS: dict[str, dict[str, Any]] = {
    # name: the fields of ModelConfig that differ from its defaults
    "0.1M  a blink": dict(n_layer=2, n_head=2, n_kv_head=0, n_embd=48, context_length=64),
    "0.4M  tiny": dict(n_layer=3, n_head=4, n_kv_head=0, n_embd=96, context_length=128),
    "0.7M  story teller": dict(n_kv_head=2, qk_norm="head"),
    "3M  small": dict(n_layer=6, n_head=6, n_kv_head=2, n_embd=192, context_length=256, qk_norm="head"),
    "10M  six layers of 384": dict(n_layer=6, n_head=6, n_kv_head=0, n_embd=384, context_length=256),
    "GPT-2 124M": dict(
        n_layer=12, n_head=12, n_kv_head=0, n_embd=768, context_length=1024, position="learned", norm="layernorm",
        mlp="gelu_tanh", bias=True, qkv_bias=True,
    ),
}  # fmt: skip


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """The inverse of `to_dict`. Raises ValueError for a field that `cls` does not have or a value it refuses."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"{cls.__name__} has no setting called {', '.join(unknown)}.")
    nested = {
        k: from_dict(hints[k], v) if is_dataclass(hints[k]) and isinstance(v, dict) else v
        for k, v in values.items()
    }
    return cls(**nested)


def _nested(cls: type) -> dict[str, type]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls) if is_dataclass(hints[f.name])}


def add_flags(parser: argparse.ArgumentParser, cls: type) -> None:
    """One `--flag` for every knob of `cls` and of the configs inside it; nothing given means the default."""
    group = parser.add_argument_group(cls.__name__, (cls.__doc__ or "").split("\n")[0])
    for k in knobs(cls):
        default = " ".join(k.default) if k.kind is tuple else k.default
        text = f"{k.help} (default: {default})".replace("%", "%%")
        options: dict[str, Any] = dict(default=None, help=text, dest=k.name)
        if k.kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif k.kind is tuple:
            options["action"] = "append"  # one flag a text; an empty one means none
        else:
            options["type"] = k.kind
            if k.choices:
                options["choices"] = k.choices
        group.add_argument(f"--{k.name}", **options)
    for inner in _nested(cls).values():
        add_flags(parser, inner)


def from_flags(cls: type, given: argparse.Namespace, base: Any = None) -> Any:
    """`base` (or the defaults of `cls`) with every flag that was given on the command line."""
    base = base if base is not None else cls()
    changed = {
        k.name: tuple(text for text in value if text) if k.kind is tuple else value
        for k in knobs(cls)
        if (value := getattr(given, k.name, None)) is not None
    }
    inner = {name: from_flags(kind, given, getattr(base, name)) for name, kind in _nested(cls).items()}
    return replace(base, **changed, **inner)


def to_flags(config: Any, base: Any = None) -> list[str]:
    """The flags that give `config` again: only what differs from the defaults of its class (or from `base`)."""
    base = base if base is not None else type(config)()
    flags: list[str] = []
    for k in knobs(type(config)):
        value = getattr(config, k.name)
        if value == getattr(base, k.name):
            continue
        if k.kind is bool:
            flags.append(f"--{k.name}" if value else f"--no-{k.name}")
        elif k.kind is tuple:
            flags += [f"--{k.name}={text}" for text in value or ("",)]
        elif str(value).startswith("-"):
            flags.append(f"--{k.name}={value}")
        else:
            flags += [f"--{k.name}", str(value)]
    for name in _nested(type(config)):
        flags += to_flags(getattr(config, name), getattr(base, name))
    return flags
