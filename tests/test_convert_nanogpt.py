"""nanoGPT checkpoints, and the reading of files of torch.save: the same logits, and nothing in a pickle is ever run."""

import pickle
import random
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from llm import checkpoint, paths, tokenizer
from llm.convert import nanogpt, torch_file

ROOT = Path(__file__).resolve().parent.parent
SHAPE = dict(n_layer=2, n_head=3, n_embd=24, block_size=16, vocab_size=257)


class Attention(nn.Module):
    """nanoGPT's layout, written anew from its description: fused q, k, v; nn.Linear; one switch for all biases."""

    def __init__(self, n_embd, n_head, bias):
        super().__init__()
        self.n_head = n_head
        self.c_attn, self.c_proj = (
            nn.Linear(n_embd, 3 * n_embd, bias=bias),
            nn.Linear(n_embd, n_embd, bias=bias),
        )

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.n_head, -1).transpose(1, 2) for t in self.c_attn(x).split(C, dim=2))
        scores = q @ k.transpose(-2, -1) / (C // self.n_head) ** 0.5
        scores = scores.masked_fill(torch.ones(T, T).tril() == 0, float("-inf"))
        return self.c_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    def __init__(self, n_embd, n_head, bias):
        super().__init__()
        self.ln_1, self.ln_2 = (nn.LayerNorm(n_embd, bias=bias) for _ in range(2))
        self.attn = Attention(n_embd, n_head, bias)
        self.mlp = nn.ModuleDict(
            dict(
                c_fc=nn.Linear(n_embd, 4 * n_embd, bias=bias), c_proj=nn.Linear(4 * n_embd, n_embd, bias=bias)
            )
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x))))


class NanoGPT(nn.Module):
    def __init__(self, n_layer, n_head, n_embd, block_size, vocab_size, bias=True, tied=True):
        super().__init__()
        self.transformer = nn.ModuleDict(
            dict(
                wte=nn.Embedding(vocab_size, n_embd),
                wpe=nn.Embedding(block_size, n_embd),
                h=nn.ModuleList(Block(n_embd, n_head, bias) for _ in range(n_layer)),
                ln_f=nn.LayerNorm(n_embd, bias=bias),
            )
        )
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        if tied:
            self.transformer.wte.weight = self.lm_head.weight
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn_like(p) / 4)

    def forward(self, idx):
        x = self.transformer.wte(idx) + self.transformer.wpe(torch.arange(idx.shape[1]))
        for block in self.transformer.h:
            x = block(x)
        return self.lm_head(self.transformer.ln_f(x))


def made(bias=True, tied=True, **changed):
    torch.manual_seed(5)
    return NanoGPT(**(SHAPE | changed), bias=bias, tied=tied).eval()


def saved(path, model, args=None, **more):
    """A checkpoint as nanoGPT's train.py writes it, compiled model and optimizer included."""
    shape = SHAPE if args is None else args
    state = {f"_orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters())
    held = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "iter_num": 10,
        "best_val_loss": torch.tensor(1.5),
    }
    torch.save({**held, "config": {"dataset": "x"}, **({"model_args": shape} if shape else {}), **more}, path)
    return path


def opened(source):
    """The model that a Source describes."""
    source.check()
    model = checkpoint.fill(checkpoint.empty_model(source.config), source.read(), "the test")
    return model.eval()


def same_logits(source, model, vocab_size=257):
    ids = torch.randint(0, vocab_size, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(opened(source)(ids), model(ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_the_same_logits(tmp_path, bias, tied):
    model = made(bias, tied)
    args = {**SHAPE, "bias": bias, "dropout": 0.2}
    source = nanogpt.look(saved(tmp_path / "ckpt.pt", model, args), "byte")
    assert source.config.tie_embeddings == tied and source.config.bias == source.config.qkv_bias == bias
    assert source.unmatched() == [] and source.facts["steps"] == "10"
    same_logits(source, model)


def test_a_folder_and_a_matrix_stored_twice(tmp_path):
    model = made()
    state = {
        name: tensor.clone() for name, tensor in model.state_dict().items()
    }  # the tie as two equal matrices
    state["transformer.h.0.attn.bias"] = torch.ones(1, 1, 16, 16).tril()  # the mask that early versions kept
    torch.save({"model": state, "model_args": SHAPE}, tmp_path / "ckpt.pt")
    source = nanogpt.look(tmp_path, "byte")
    how = {row.theirs: (row.ours, row.how) for row in source.rows}
    assert how["lm_head.weight"] == ("", "the token embedding once more")
    assert how["transformer.h.0.attn.bias"] == ("", "the causal mask: made anew here")
    assert how["transformer.h.1.mlp.c_fc.weight"] == ("blocks.1.mlp.up.weight", "same")
    same_logits(source, model)


def test_a_plain_state_dict_tells_all_but_the_heads(tmp_path):
    model = made(n_embd=128, n_head=2)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    source = nanogpt.look(tmp_path / "weights.pt", "byte")
    assert any("2 heads are assumed" in note for note in source.notes)
    same_logits(source, model)
    save_file({k: t.clone() for k, t in model.state_dict().items()}, tmp_path / "weights.safetensors")
    same_logits(nanogpt.look(tmp_path / "weights.safetensors", "byte", n_head=2), model)
    narrow = made()
    torch.save(narrow.state_dict(), tmp_path / "narrow.pt")
    with pytest.raises(ValueError, match=r"n_head.*width of 24 is no multiple of 64"):
        nanogpt.look(tmp_path / "narrow.pt", "byte")
    same_logits(nanogpt.look(tmp_path / "narrow.pt", "byte", n_head=3), narrow)


# ---- The encoding ---------------------------------------------------------------------------------------------------


def encoding_of(source, tmp_path):
    place = tmp_path / "read"
    place.mkdir()
    (place / "tokenizer.json").write_bytes(source.files["tokenizer.json"])
    return tokenizer.load(place)


def test_gpt2s_vocabulary_with_padding(tmp_path):
    args = {**SHAPE, "vocab_size": 50_304, "n_embd": 6}
    source = nanogpt.look(saved(tmp_path / "ckpt.pt", made(vocab_size=50_304, n_embd=6), args))
    assert any("47 rows of padding follow the 50,257 ids" in note for note in source.notes)
    text = "Long ago, a fox."
    assert encoding_of(source, tmp_path).encode(text) == tokenizer.get("gpt2").encode(text)


def test_characters(tmp_path):
    args = {**SHAPE, "vocab_size": 5}
    path, model = tmp_path / "ckpt.pt", made(vocab_size=5)
    saved(path, model, args)
    (tmp_path / "meta.pkl").write_bytes(b"not looked at")
    with pytest.raises(
        ValueError, match=r"5 token ids.*meta\.pkl, a pickle that is not opened: say which encoding"
    ):
        nanogpt.look(path)
    (paths.datasets() / "five.txt").write_text("abc\n cab\n")
    source = nanogpt.look(path, "char:five")
    assert encoding_of(source, tmp_path).encode("\n abc") == [0, 1, 2, 3, 4]
    assert any("meta.pkl lies beside it and was not opened" in note for note in source.notes)
    (paths.datasets() / "four.txt").write_text("abc\n")
    with pytest.raises(ValueError, match="4 ids and the model 5"):
        nanogpt.look(path, "char:four")
    with pytest.raises(ValueError, match="257 ids and the model 5"):
        nanogpt.look(path, "byte")
    saved(
        path, model, args, itos={0: "e", 1: "d", 2: "c", 3: "b", 4: "a"}
    )  # as some variants of it keep them
    (tmp_path / "read" / "tokenizer.json").unlink()
    (tmp_path / "read").rmdir()
    assert encoding_of(nanogpt.look(path), tmp_path).encode("abcde") == [4, 3, 2, 1, 0]


def test_a_tokenizer_beside_the_checkpoint(tmp_path):
    tokenizer.get("stories-1280").save(tmp_path)
    source = nanogpt.look(saved(tmp_path / "ckpt.pt", made(vocab_size=1280), {**SHAPE, "vocab_size": 1280}))
    assert encoding_of(source, tmp_path).vocab_size == 1280


# ---- What does not fit ----------------------------------------------------------------------------------------------


def without(model, *names):
    return {name: tensor for name, tensor in model.state_dict().items() if name not in names}


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({**SHAPE, "n_layer": 3}, "model_args says that n_layer is 3 and the tensors or you say 2"),
        ({**SHAPE, "vocab_size": "many"}, "vocab_size is 'many': it should be a whole number"),
        ({**SHAPE, "use_rmsnorm": True}, r"settings that nanoGPT does not have \(use_rmsnorm = True\)"),
        ({**SHAPE, "n_head": 5}, "5 heads do not divide a width of 24"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, args, sentence):
    with pytest.raises(ValueError, match=sentence):
        nanogpt.look(saved(tmp_path / "ckpt.pt", made(), args), "byte")


def test_tensors_that_do_not_fit(tmp_path):
    path, model = tmp_path / "ckpt.pt", made()
    torch.save({"model": without(model, "transformer.h.1.attn.c_attn.bias"), "model_args": SHAPE}, path)
    with pytest.raises(ValueError, match=r"h\.1\.attn\.c_attn\.bias is missing"):
        nanogpt.look(path, "byte")
    torch.save({**model.state_dict(), "transformer.h.0.attn.extra.weight": torch.ones(3)}, path)
    with pytest.raises(ValueError, match=r"transformer\.h\.0\.attn\.extra\.weight is unknown"):
        nanogpt.look(path, "byte", n_head=3)
    torch.save({**model.state_dict(), "transformer.h.0.mlp.c_fc.weight": torch.ones(24, 96)}, path)
    with pytest.raises(ValueError, match=r"c_fc\.weight is 24 x 96, not 96 x 24"):
        nanogpt.look(path, "byte", n_head=3)
    torch.save({**model.state_dict(), "transformer.h.19999.ln_1.weight": torch.ones(24)}, path)
    with pytest.raises(ValueError, match="count 20,000 layers"):
        nanogpt.look(path, "byte", n_head=3)
    torch.save({"weights": 3}, path)
    with pytest.raises(ValueError, match="holds no weights by name: its keys are weights"):
        nanogpt.look(path, "byte")


# ---- Files of torch.save --------------------------------------------------------------------------------------------


class Bomb:
    """Opened by pickle.load, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_checkpoint_without_biases_of_q_k_v_is_one_without_them_unless_it_says_otherwise(tmp_path):
    model = made()
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.bias = None
    source = nanogpt.look(saved(tmp_path / "quiet.pt", model, {}), encoding="byte", n_head=3)
    assert source.config.bias and not source.config.qkv_bias
    idx = torch.randint(0, 257, (1, 12))
    assert torch.allclose(opened(source)(idx), model(idx), atol=1e-5)
    with pytest.raises(ValueError, match=r"c_attn\.bias is missing"):
        nanogpt.look(saved(tmp_path / "cut.pt", model, SHAPE | {"bias": True}), encoding="byte")


def zipped(path, pickled, **files):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ckpt/data.pkl", pickled)
        for name, content in files.items():
            archive.writestr(f"ckpt/data/{name}", content)
    return path


def test_a_pickle_in_disguise_is_not_run(tmp_path):
    canary = tmp_path / "canary"
    torch.save({"model": made().state_dict(), "other": Bomb(canary)}, tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"a\.pt asks for '(_?io|builtins)\.open' as it is opened.*stays closed"
    ):
        nanogpt.look(tmp_path / "a.pt", "byte")
    for name in ("b.pt", "b.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb(canary)))
        with pytest.raises(ValueError, match=r"pickle.*closed"):
            nanogpt.look(tmp_path / name, "byte")
    torch.save(Bomb(canary), tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="plain pickle"):
        nanogpt.look(tmp_path / "c.pt", "byte")
    assert not canary.exists()
    pickle.loads(pickle.dumps(Bomb(canary)))
    assert canary.exists()  # so it would have


TENSOR = "ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI{}\ntQ"


@pytest.mark.parametrize(
    ("pickled", "sentence"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", None),  # a memo of 2^31 places: C's reader would set them all aside
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.", "damaged"),  # bytes of a terabyte
        (b"\x80\x02(i__main__\nx\n.", "damaged"),
        (b"\x80\x02\x82\x01.", "damaged"),  # the registry of extensions
        (b"\x80\x02}", "damaged"),
        (b"(dp0\n.", "holds no weights"),
        (f"{TENSOR.format(4)}I0\n(I4\nt(I1\ntI00\n}}tR.".encode(), "no weights by name|holds a Stub"),
        (f"{TENSOR.format(400)}I0\n(I400\nt(I1\ntI00\n}}tR.".encode(), "take 1,600 bytes, and it has 16"),
        (
            f"{TENSOR.format(4)}I0\n(I1000000\nI1000000\nt(I0\nI0\ntI00\n}}tR.".encode(),
            "damaged",
        ),  # one number, stretched
        (f"{TENSOR.format(4)}I2\n(I4\nt(I1\ntI00\n}}tR.".encode(), "damaged"),
        (f"{TENSOR.format(4)}I0\n(I-4\nt(I1\ntI00\n}}tR.".encode(), "damaged"),
    ],
)
def test_broken_pickles(tmp_path, pickled, sentence):
    path = zipped(tmp_path / "ckpt.pt", pickled, **{"0": bytes(16)})
    with pytest.raises(ValueError, match=sentence or "no weights"):
        nanogpt.look(path, "byte")


def test_archives_that_are_none(tmp_path):
    whole = saved(tmp_path / "ckpt.pt", made()).read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.pt is cut short or damaged"):
        nanogpt.look(cut, "byte")
    other = tmp_path / "other.pt"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"none that torch.save wrote"):
        nanogpt.look(other, "byte")
    with zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ckpt/data.pkl", bytes(50_000_000))
    with pytest.raises(ValueError, match="compressed zip"):
        nanogpt.look(other, "byte")
    zipped(other, bytes(torch_file.MOST_PICKLE + 1))
    with pytest.raises(ValueError, match="at most 4,194,304 are read"):
        nanogpt.look(other, "byte")
    end = whole.rindex(b"PK\x05\x06")
    other.write_bytes(whole[: end + 12] + struct.pack("<I", 2**31) + whole[end + 16 :])
    with pytest.raises(ValueError, match="table of contents"):
        nanogpt.look(other, "byte")
    other.write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"no file of torch.save"):
        nanogpt.look(other, "byte")


def test_whatever_is_changed_in_a_file_is_said_in_words(tmp_path):
    """Bytes of the table of contents, of the pickle and of anything else, changed at random."""
    shape = dict(n_layer=1, n_head=1, n_embd=2, block_size=2, vocab_size=257)
    torch.manual_seed(5)
    model = NanoGPT(**shape)
    state = {
        name: tensor.clone() for name, tensor in model.state_dict().items()
    }  # the tie has to be looked at
    path = tmp_path / "ckpt.pt"
    torch.save({"model": state, "model_args": shape}, path)
    whole, dice = path.read_bytes(), random.Random(1)
    likely = [*range(whole.index(b"PK\x01\x02"), len(whole)), *range(whole.index(b"\x80\x02"), 2000)]
    said = 0
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(dice.choice((1, 2, 8))):
            changed[dice.choice(likely) if dice.random() < 0.9 else dice.randrange(len(whole))] = (
                dice.randrange(256)
            )
        path.write_bytes(changed)
        try:
            list(nanogpt.look(path, "byte", n_head=1).read())
        except ValueError as error:  # anything else fails the test
            said += 1
            assert "ckpt.pt" in str(error) or re.match(
                "model_args|The tensor|[a-z._0-9]+ should be", str(error)
            ), error
    assert 200 < said < 400


def test_looking_needs_no_torch(tmp_path):
    path = saved(tmp_path / "ckpt.pt", made())
    code = (
        "import sys; from pathlib import Path; from llm.convert import nanogpt;"
        f"source = nanogpt.look(Path({str(path)!r}), 'byte'); print(len(source.rows), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["29", "False"], done.stderr
