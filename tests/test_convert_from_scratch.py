"""State dicts of the book's GPT: the same logits as its own code, and as its layout written anew."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from llm import checkpoint
from llm.convert import from_scratch

CONFIG = dict(vocab_size=257, context_length=16, emb_dim=24, n_heads=3, n_layers=2, drop_rate=0.1)


class Norm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.randn(n)), nn.Parameter(torch.randn(n))

    def forward(self, x):
        return (
            self.scale * (x - x.mean(-1, True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
            + self.shift
        )


class Attention(nn.Module):
    def __init__(self, n, heads, bias):
        super().__init__()
        self.heads = heads
        self.W_query, self.W_key, self.W_value = (nn.Linear(n, n, bias=bias) for _ in range(3))
        self.out_proj = nn.Linear(n, n)
        self.register_buffer("mask", torch.triu(torch.ones(16, 16), diagonal=1))

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (
            w(x).view(B, T, self.heads, -1).transpose(1, 2) for w in (self.W_query, self.W_key, self.W_value)
        )
        scores = (q @ k.transpose(2, 3)).masked_fill(self.mask.bool()[:T, :T], -torch.inf)
        weights = torch.softmax(scores / k.shape[-1] ** 0.5, -1)
        return self.out_proj((weights @ v).transpose(1, 2).reshape(B, T, C))


class Curve(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


class Part(nn.Module):
    def __init__(self, n, heads, bias):
        super().__init__()
        self.att = Attention(n, heads, bias)
        self.ff = nn.ModuleDict({"layers": nn.Sequential(nn.Linear(n, 4 * n), Curve(), nn.Linear(4 * n, n))})
        self.norm1, self.norm2 = Norm(n), Norm(n)

    def forward(self, x):
        x = x + self.att(self.norm1(x))
        return x + self.ff.layers(self.norm2(x))


class Book(nn.Module):
    """The layout of chapter 4, by its description."""

    def __init__(self, c):
        super().__init__()
        n = c["emb_dim"]
        self.tok_emb, self.pos_emb = nn.Embedding(c["vocab_size"], n), nn.Embedding(c["context_length"], n)
        self.trf_blocks = nn.Sequential(*[Part(n, c["n_heads"], c["qkv_bias"]) for _ in range(c["n_layers"])])
        self.final_norm, self.out_head = Norm(n), nn.Linear(n, c["vocab_size"], bias=False)

    def forward(self, idx):
        x = self.tok_emb(idx) + self.pos_emb(torch.arange(idx.shape[1]))
        return self.out_head(self.final_norm(self.trf_blocks(x)))


def model_of(kind, **changed):
    """The book's own class, its faster one, or the layout written anew."""
    torch.manual_seed(3)
    config = {**CONFIG, "qkv_bias": False, **changed}
    if kind == "anew":
        return Book(config).eval()
    book = pytest.importorskip(
        "llms_from_scratch.ch04", reason="the package llms-from-scratch is not installed"
    )
    return getattr(book, kind)(config).eval()


def same_logits(source, model):
    source.check()
    ours = checkpoint.fill(checkpoint.empty_model(source.config), source.read(), "the test").eval()
    ids = torch.randint(0, 257, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), model(ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("kind", ["anew", "GPTModel", "GPTModelFast"])
def test_the_same_logits(tmp_path, kind, qkv_bias):
    model = model_of(kind, qkv_bias=qkv_bias)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    source = from_scratch.look(tmp_path / "model.pth", "byte", n_head=3)
    assert source.config.qkv_bias == qkv_bias and source.unmatched() == []
    same_logits(source, model)


def test_as_chapter_5_saves_it_and_as_safetensors(tmp_path):
    model = model_of("anew", emb_dim=128, n_heads=2)
    optimizer = torch.optim.AdamW(model.parameters())
    held = {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    torch.save(held, tmp_path / "model_and_optimizer.pth")
    source = from_scratch.look(tmp_path / "model_and_optimizer.pth", "byte")
    assert any("2 heads are assumed" in note for note in source.notes)
    how = {row.theirs: row.how for row in source.rows}
    assert how["trf_blocks.1.att.mask"] == "the causal mask: made anew here"
    assert how["trf_blocks.1.att.W_key.weight"] == "rows of k"
    same_logits(source, model)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    same_logits(from_scratch.look(tmp_path / "model.safetensors", "byte"), model)


def test_gpt2s_weights_share_one_matrix(tmp_path):
    model = model_of("anew")
    with torch.no_grad():
        model.out_head.weight.copy_(model.tok_emb.weight)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    source = from_scratch.look(tmp_path / "model.pth", "byte", n_head=3)
    assert source.config.tie_embeddings
    same_logits(source, model)
    save_file({k: t.clone() for k, t in model.state_dict().items()}, tmp_path / "model.safetensors")
    assert from_scratch.look(tmp_path / "model.safetensors", "byte", n_head=3).config.tie_embeddings


def test_gpt2s_vocabulary_needs_no_name(tmp_path):
    model = model_of("anew", vocab_size=50_257, emb_dim=6, n_heads=2)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    source = from_scratch.look(tmp_path / "model.pth", n_head=2)
    assert "The vocabulary has 50,257 ids, so the encoding is taken to be GPT-2's." in source.notes
    assert b"<|endoftext|>" in source.files["tokenizer.json"]


def test_what_does_not_fit(tmp_path):
    path, model = tmp_path / "model.pth", model_of("anew")
    state = model.state_dict()
    torch.save(state, path)
    with pytest.raises(
        ValueError, match="257 token ids, and the file does not say what they mean: say which encoding"
    ):
        from_scratch.look(path, n_head=3)
    with pytest.raises(ValueError, match="5 heads do not divide a width of 24"):
        from_scratch.look(path, "byte", n_head=5)
    torch.save({k: t for k, t in state.items() if k != "trf_blocks.1.norm2.shift"}, path)
    with pytest.raises(ValueError, match=r"trf_blocks\.1\.norm2\.bias is missing"):
        from_scratch.look(path, "byte", n_head=3)
    torch.save({"model.layers.0.weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="no GPT of the book's chapters 4 and 5"):
        from_scratch.look(path, "byte")
    torch.save(model, path)  # the whole object instead of its state dict
    with pytest.raises(ValueError, match=r"asks for '.*Book'.*save its state dict alone"):
        from_scratch.look(path, "byte")
    with pytest.raises(ValueError, match=r"There is no file 'nothing\.pth'"):
        from_scratch.look(tmp_path / "nothing.pth", "byte")
