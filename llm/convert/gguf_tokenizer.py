"""The tokenizer of a GGUF file, which is a part of its metadata, as a tokenizer.json, and back again."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from llm import paths
from llm.tokenizer import (
    CL100K_SPLIT,
    EOT,
    GPT2_SPLIT,
    O200K_SPLIT,
    merge_steps,
    ranks_of_vocab,
)

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # llama.cpp's kinds of tokens
QWEN_SPLIT = CL100K_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")  # every digit by itself
TEKKEN_SPLIT = O200K_SPLIT.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace(r"\p{N}{1,3}", r"\p{N}")
# How llama.cpp cuts a text before it merges: the patterns, one after the other, and whether a piece that is itself a
# token is taken whole. The first of two names with the same meaning is the one that is written.
PRE_TOKENIZERS: dict[str, tuple[tuple[str, ...], bool]] = {
    "gpt-2": ((GPT2_SPLIT,), False),
    "olmo": ((GPT2_SPLIT,), False),
    "mpt": ((GPT2_SPLIT,), False),
    "phi-2": ((GPT2_SPLIT,), False),
    "smollm": ((r"\p{N}", GPT2_SPLIT), False),
    "starcoder": ((r"\p{N}", GPT2_SPLIT), False),
    "llama-bpe": ((CL100K_SPLIT,), True),
    "llama3": ((CL100K_SPLIT,), True),
    "llama-v3": ((CL100K_SPLIT,), True),
    "dbrx": ((CL100K_SPLIT,), False),
    "smaug-bpe": ((CL100K_SPLIT,), False),
    "qwen2": ((QWEN_SPLIT,), False),
    "deepseek-r1-qwen": ((QWEN_SPLIT,), False),
    "gpt-4o": ((O200K_SPLIT,), False),
    "tekken": ((TEKKEN_SPLIT,), True),
    "default": ((r"[\p{P}\$\+<=>\^~\|]+", GPT2_SPLIT, r"\p{N}+", "[0-9][0-9][0-9]"), False),
}
COMPOSES = ("qwen2",)  # the original puts a letter and its accent together first (NFC)
ADDS_BOS = ("llama-bpe", "llama3", "llama-v3", "tekken")  # unless the file says otherwise
NAMED = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id", "pad_token": "padding_token_id"}  # fmt: skip
ABSENT_SCORE = -1e6  # of a token that no merge makes: below every one that a merge does


# ---- In -----------------------------------------------------------------------------------------------------------


def files_of(settings: Mapping[str, Any], rows: int) -> tuple[dict[str, bytes], list[str]]:
    """tokenizer.json, tokenizer_config.json and generation_config.json from a GGUF's metadata, and notes for a person.

    rows: how many ids the model knows. The files are none when the GGUF has no tokenizer. Raises ValueError when the
    tokenizer is damaged, does not fit the model, or is of a kind not known here.
    """
    kind = settings.get("tokenizer.ggml.model")
    if kind in (None, "none"):
        return {}, ["The file has no tokenizer: choose an encoding that belongs to this model."]
    if kind not in ("gpt2", "llama"):
        raise ValueError(
            f"The file's tokenizer is of the kind {str(kind)[:40]!r}: gpt2 (byte-level BPE) and llama (SentencePiece BPE) "
            "are the ones known here."
        )
    tokens, types, notes = _tokens(settings, rows)
    makes = _byte_level if kind == "gpt2" else _sentencepiece
    document, more = makes(settings, tokens, types)
    named = _named(settings, len(tokens), kind)
    config = _config(settings, tokens, named, kind)
    document["post_processor"] = _around(config, named)
    contents = {
        "tokenizer.json": document,
        "tokenizer_config.json": config,
        "generation_config.json": _generation(settings, len(tokens), named),
    }
    files = {name: json.dumps(found, ensure_ascii=False).encode("utf-8") for name, found in contents.items()}
    return files, notes + more


def _list(settings: Mapping[str, Any], key: str, kinds: type | tuple[type, ...], length: int = 0) -> list:
    found = settings.get(f"tokenizer.ggml.{key}")
    if not isinstance(found, list) or not all(isinstance(value, kinds) for value in found):
        raise ValueError(f"The file's tokenizer is damaged: tokenizer.ggml.{key} is missing or no list.")
    if length and len(found) != length:
        raise ValueError(
            f"The file's tokenizer is damaged: tokenizer.ggml.{key} has {len(found):,} entries for {length:,} tokens."
        )
    return found


def _tokens(settings: Mapping[str, Any], rows: int) -> tuple[list[str], list[int], list[str]]:
    """Texts and kinds of the tokens that have a row in the embedding; rows at the end without a text are left out."""
    tokens = [text or f"[EMPTY_{id}]" for id, text in enumerate(_list(settings, "tokens", str))]
    types = [NORMAL] * len(tokens)
    if "tokenizer.ggml.token_type" in settings:
        types = _list(settings, "token_type", int, len(tokens))
    notes = []
    surplus = types[rows:]
    if surplus and all(kind in (CONTROL, USER_DEFINED, UNUSED) for kind in surplus):
        notes.append(f"{len(surplus)} added tokens without a row in the embedding were left out.")
    elif surplus:
        raise ValueError(
            f"The tokenizer has {len(tokens):,} tokens and the embedding {rows:,} rows: they do not belong together."
        )
    tokens, types = tokens[:rows], types[:rows]
    while types and types[-1] == UNUSED:
        tokens.pop()
        types.pop()
    if not tokens:
        raise ValueError("The file's tokenizer has no tokens.")
    if len(ids := {text: id for id, text in enumerate(tokens)}) != len(tokens):
        twice = next(text for id, text in enumerate(tokens) if ids[text] != id)
        raise ValueError(f"The file's tokenizer is damaged: the token {twice[:40]!r} stands in it twice.")
    return tokens, list(types), notes


def _byte_level(
    settings: Mapping[str, Any], tokens: list[str], types: list[int]
) -> tuple[dict[str, Any], list[str]]:
    name = settings.get("tokenizer.ggml.pre")
    notes = []
    if name is None:
        name = "default"
        notes.append(
            "The file does not say how its tokenizer cuts a text: llama.cpp's default is taken, which may not be the one the "
            "model was trained with."
        )
    if not isinstance(name, str) or name not in PRE_TOKENIZERS:
        raise ValueError(
            f"The file's tokenizer cuts a text in the way {str(name)[:40]!r} (tokenizer.ggml.pre); the ways known here are "
            f"{', '.join(PRE_TOKENIZERS)}."
        )
    cuts, whole = PRE_TOKENIZERS[name]
    vocab = {text: id for id, text in enumerate(tokens)}
    document = _document(tokens, types, vocab, _byte_level_merges(settings, vocab))
    document["model"]["ignore_merges"] = whole
    document["normalizer"] = {"type": "NFC"} if name in COMPOSES else None
    document["pre_tokenizer"] = _cutting(cuts)
    document["decoder"] = _byte_signs(True)
    return document, notes


def _byte_level_merges(settings: Mapping[str, Any], vocab: Mapping[str, int]) -> list[list[str]]:
    merges = []
    for line in _list(settings, "merges", str):
        cut = line.find(" ", 1)
        left, right = line[:cut], line[cut + 1 :]
        if cut < 0 or left not in vocab or right not in vocab or left + right not in vocab:
            raise ValueError(f"The file's tokenizer is damaged: {line[:40]!r} is no merge of its tokens.")
        merges.append([left, right])
    return merges


def _byte_signs(regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": regex}


def _cutting(cuts: tuple[str, ...]) -> dict[str, Any]:
    """The pre-tokenizer that cuts by these patterns in turn, then writes bytes as visible characters."""
    if cuts == (GPT2_SPLIT,):  # the one that is built in
        return _byte_signs(True)
    parts = [
        {"type": "Split", "pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False} for cut in cuts
    ]
    return {"type": "Sequence", "pretokenizers": [*parts, _byte_signs(False)]}


def _document(
    tokens: list[str], types: list[int], vocab: dict[str, int], merges: list[list[str]]
) -> dict[str, Any]:
    """A tokenizer.json of the BPE kind, its added tokens filled in."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": id, "content": text, **plain, "special": kind != USER_DEFINED}
        for id, (text, kind) in enumerate(zip(tokens, types))
        if kind in (CONTROL, UNKNOWN, USER_DEFINED)
    ]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    model |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {**model, "vocab": vocab, "merges": merges},
    }


def _sentencepiece(
    settings: Mapping[str, Any], tokens: list[str], types: list[int]
) -> tuple[dict[str, Any], list[str]]:
    """Spaces become ▁, the pair whose token has the best score is merged first, what is left falls back to bytes."""
    scores = _list(settings, "scores", (int, float))[: len(tokens)]
    if len(scores) != len(tokens):
        raise ValueError(
            f"The file's tokenizer is damaged: {len(scores):,} scores for {len(tokens):,} tokens."
        )
    vocab = {text: id for id, text in enumerate(tokens)}
    mergeable = {text for text, kind in zip(tokens, types) if kind == NORMAL}
    document = _document(tokens, types, vocab, pairs_by_score(tokens, scores, mergeable))
    document["model"] |= {
        "byte_fallback": BYTE in types,
        "fuse_unk": True,
        "unk_token": tokens[types.index(UNKNOWN)] if UNKNOWN in types else None,
    }
    spaced = settings.get("tokenizer.ggml.add_space_prefix", True) is not False
    to_mark = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    to_space = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    decoders = [to_space, {"type": "ByteFallback"}, {"type": "Fuse"}]
    normalizers = [to_mark]
    if spaced:
        normalizers.insert(0, {"type": "Prepend", "prepend": "▁"})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    document["normalizer"] = {"type": "Sequence", "normalizers": normalizers}
    document["decoder"] = {"type": "Sequence", "decoders": decoders}
    return document, []


def pairs_by_score(tokens: list[str], scores: list[float], mergeable: Collection[str]) -> list[list[str]]:
    """Every pair of tokens that joined is a token, the best score first, then by the ids of the two."""
    ids = {text: id for id, text in enumerate(tokens) if text in mergeable}
    found = []
    for text, id in ids.items():
        pairs = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        local = [(ids[left], ids[right]) for left, right in pairs if left in ids and right in ids]
        found += [(-scores[id], id, *pair) for pair in sorted(local)]
    return [[tokens[left], tokens[right]] for _, _, left, right in sorted(found, key=lambda pair: pair[0])]


def _named(settings: Mapping[str, Any], n_tokens: int, kind: str) -> dict[str, int]:
    """The ids of the tokens with a role: bos_token, eos_token, unk_token, pad_token, those that there are."""
    # as llama.cpp has it
    absent = {"bos_token": 1, "eos_token": 2, "unk_token": 0} if kind == "llama" else {}
    found = {name: settings.get(f"tokenizer.ggml.{key}", absent.get(name)) for name, key in NAMED.items()}
    return {name: id for name, id in found.items() if isinstance(id, int) and 0 <= id < n_tokens}


def _config(
    settings: Mapping[str, Any], tokens: list[str], named: Mapping[str, int], kind: str
) -> dict[str, Any]:
    """tokenizer_config.json: tokens with a role, whether a text gets them around it, the chat template."""
    adds = kind == "llama" or settings.get("tokenizer.ggml.pre") in ADDS_BOS
    config = {name: tokens[id] for name, id in named.items()}
    config |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": settings.get("tokenizer.ggml.add_bos_token", adds) is True,
        "add_eos_token": settings.get("tokenizer.ggml.add_eos_token") is True,
    }
    if isinstance(template := settings.get("tokenizer.chat_template"), str):
        config["chat_template"] = template
    return config


def _generation(settings: Mapping[str, Any], n_tokens: int, named: Mapping[str, int]) -> dict[str, Any]:
    """generation_config.json: where a text begins and ends; the end of a turn ends it too."""
    found: dict[str, Any] = {f"{name}_id": id for name, id in named.items() if name != "unk_token"}
    turn = settings.get("tokenizer.ggml.eot_token_id")
    if isinstance(turn, int) and 0 <= turn < n_tokens and turn != (end := named.get("eos_token")):
        found["eos_token_id"] = turn if end is None else [end, turn]
    return found


def _around(config: Mapping[str, Any], named: Mapping[str, int]) -> dict[str, Any] | None:
    """The post-processor that puts the begin and end tokens around a text, where the file asks for them."""
    added = [name for name in ("bos_token", "eos_token") if config[f"add_{name}"] and name in named]
    if not added:
        return None
    parts = {name: {"SpecialToken": {"id": config[name], "type_id": 0}} for name in added}
    single = [parts.get("bos_token"), {"Sequence": {"id": "A", "type_id": 0}}, parts.get("eos_token")]
    single = [part for part in single if part]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            config[name]: {"id": config[name], "ids": [named[name]], "tokens": [config[name]]}
            for name in added
        },
    }


# ---- Out ----------------------------------------------------------------------------------------------------------


def check(folder: Path) -> dict[str, Any]:
    """The tokenizer.json of a model directory. Raises ValueError when it is of a kind that GGUF does not know."""
    document = _json(folder / "tokenizer.json")
    if "lab" in document:
        raise ValueError(
            f"The encoding of {paths.called(folder)} has single {document['lab']['kind']}s as tokens, and GGUF knows no such one: train "
            "a model with a byte-level BPE encoding to take it to llama.cpp."
        )
    if (kind := document["model"].get("type")) != "BPE":
        raise ValueError(
            f"The encoding of {paths.called(folder)} is of the kind {kind}; only BPE goes into a GGUF file."
        )
    return document


def settings_of(folder: Path, rows: int) -> tuple[dict[str, Any], list[str]]:
    """The tokenizer of a model directory as GGUF metadata, padded to the `rows` of the embedding, and notes.

    Raises ValueError when llama.cpp has no tokenizer that gives the same ids.
    """
    document = check(folder)
    added = {token["content"]: token for token in document.get("added_tokens") or []}
    vocab = document["model"]["vocab"] | {text: token["id"] for text, token in added.items()}
    if max(vocab.values()) >= rows:
        raise ValueError(
            f"The encoding of {paths.called(folder)} has ids up to {max(vocab.values()):,} and its model {rows:,} rows."
        )
    tokens, types = [f"[PAD{id}]" for id in range(rows)], [UNUSED] * rows
    for text, id in vocab.items():
        tokens[id] = text
        types[id] = NORMAL if text not in added else CONTROL if added[text]["special"] else USER_DEFINED
    settings: dict[str, Any] = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    by_bytes = (document.get("decoder") or {}).get("type") == "ByteLevel"
    more, notes = (_write_byte_level if by_bytes else _write_sentencepiece)(
        document, tokens, types, folder.name
    )
    return {**settings, **more, **_roles(document, vocab, folder)}, notes


def _roles(document: Mapping[str, Any], vocab: Mapping[str, int], folder: Path) -> dict[str, Any]:
    """Which tokens begin and end a text, whether they are put there, and the chat template."""
    config = _json(folder / "tokenizer_config.json")
    texts = {name: config.get(name) for name in NAMED}
    texts = {name: text.get("content") if isinstance(text, dict) else text for name, text in texts.items()}
    ids = {name: vocab[text] for name, text in texts.items() if text in vocab}
    if "eos_token" not in ids:
        if EOT not in vocab:
            raise ValueError(
                f"The encoding of {paths.called(folder)} has no token that ends a text, and llama.cpp needs one."
            )
        ids["eos_token"] = vocab[EOT]
    ids.setdefault("bos_token", ids["eos_token"])  # llama.cpp would take token number 11
    found: dict[str, Any] = {f"tokenizer.ggml.{NAMED[name]}": id for name, id in ids.items()}
    after = document.get("post_processor") or {}
    around = {
        token for part in after.get("processors") or [after] for token in part.get("special_tokens") or {}
    }
    for name in ("bos_token", "eos_token"):
        added = config.get(f"add_{name}", bool(texts[name]) and texts[name] in around)
        found[f"tokenizer.ggml.add_{name}"] = bool(added)
    turns = _json(folder / "generation_config.json").get("eos_token_id")
    if isinstance(turns, list) and (ends := [id for id in turns if id != ids["eos_token"]]):
        found["tokenizer.ggml.eot_token_id"] = ends[0]
    if template := chat_template(folder):
        found["tokenizer.chat_template"] = template
    return found


def chat_template(folder: Path) -> str:
    """The chat template of a model directory, "" when it has none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = _json(folder / "tokenizer_config.json").get("chat_template") or ""
    if isinstance(found, list):  # several, by name
        found = next((t.get("template") for t in found if t.get("name") == "default"), "")
    return found


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _write_byte_level(
    document: Mapping[str, Any], tokens: list[str], types: list[int], name: str
) -> tuple[dict[str, Any], list[str]]:
    cuts = _cuts(document.get("pre_tokenizer"))
    whole = bool(document["model"].get("ignore_merges"))
    composes = (document.get("normalizer") or {}).get("type")
    same = [pre for pre, (patterns, _) in PRE_TOKENIZERS.items() if patterns == cuts]
    same.sort(key=lambda pre: (pre in COMPOSES) != bool(composes))
    if not same or composes not in (None, "NFC"):
        raise ValueError(
            f"The encoding of {name} cuts a text in a way that llama.cpp has no name for, so it would give other ids there."
        )
    pre = next((pre for pre in same if PRE_TOKENIZERS[pre][1] == whole), same[0])
    merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in document["model"]["merges"]]
    if PRE_TOKENIZERS[pre][1] != whole and (lost := _out_of_reach(tokens, types, merges)):
        raise ValueError(
            f"{len(lost):,} tokens of the encoding of {name}, such as {lost[0]!r}, are not made by its merges, and llama.cpp "
            f"would never use them with its way of cutting {pre!r}."
        )
    if not merges:
        raise ValueError(f"The encoding of {name} has no merges: llama.cpp's BPE needs some.")
    notes = []
    if composes and pre not in COMPOSES:
        notes.append("llama.cpp does not put a letter and its accent together (NFC) as this encoding does.")
    found = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre}
    return {**found, "tokenizer.ggml.merges": [" ".join(pair) for pair in merges]}, notes


def _cuts(pre: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """The patterns by which a byte-level pre-tokenizer cuts in turn; None where it does something else."""
    found = []
    for part in [] if not pre else pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]:
        if part["type"] == "Digits" and part.get("individual_digits"):
            found.append(r"\p{N}")
        elif part["type"] == "Split" and part["behavior"] == "Isolated" and not part["invert"]:
            found.append(part["pattern"].get("Regex"))
        elif part["type"] == "ByteLevel" and not part.get("add_prefix_space"):
            found += [GPT2_SPLIT] if part.get("use_regex", True) else []
        else:
            return None
    return tuple(found)


def _out_of_reach(tokens: list[str], types: list[int], merges: list[tuple[str, ...]]) -> list[str]:
    """The tokens of two bytes or more that the merges do not make of their own bytes."""
    vocab = {text: id for id, (text, kind) in enumerate(zip(tokens, types)) if kind == NORMAL}
    data = {id: token for token, id in ranks_of_vocab(vocab).items()}
    ranks = {(data[vocab[left]], data[vocab[right]]): rank for rank, (left, right) in enumerate(merges)}
    lost = []
    for text, id in vocab.items():
        steps = merge_steps(data[id], lambda left, right: ranks.get((left, right)))
        if len(data[id]) > 1 and not (steps and len(steps[-1].after) == 1):
            lost.append(text)
    return lost


def _write_sentencepiece(
    document: Mapping[str, Any], tokens: list[str], types: list[int], name: str
) -> tuple[dict[str, Any], list[str]]:
    """Scores in place of merges: llama.cpp joins the pair whose token has the best score."""
    spaced = _marks_spaces(document)
    merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in document["model"]["merges"]]
    unknown = document["model"].get("unk_token")
    types = [
        UNKNOWN if text == unknown else BYTE if kind == NORMAL and _is_byte(text) else kind
        for text, kind in zip(tokens, types)
    ]
    tokens = [text.replace("▁", " ") if kind == USER_DEFINED else text for text, kind in zip(tokens, types)]
    normal = {text for text, kind in zip(tokens, types) if kind == NORMAL}
    first: dict[str, int] = {}
    order = [first.setdefault(left + right, rank) for rank, (left, right) in enumerate(merges)]
    scores = [-float(first[text]) if text in normal and text in first else ABSENT_SCORE for text in tokens]
    pairs = {(left, right) for left, right in merges if left + right in normal}
    same = {(left, right) for left, right in pairs_by_score(tokens, scores, normal)} == pairs
    if spaced is None or order != sorted(order) or not same:
        raise ValueError(
            f"The encoding of {name} is neither a byte-level BPE nor one in the manner of SentencePiece: llama.cpp has no "
            "tokenizer that gives the same ids."
        )
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,  # those added to the vocabulary as they stand in a text
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_space_prefix": spaced,
    }, []


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _marks_spaces(document: Mapping[str, Any]) -> bool | None:
    """Whether a text gets a space before it, where spaces become ▁ and nothing else is done; else None."""
    normalizer, pre = document.get("normalizer") or {}, document.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers") or ([normalizer] if normalizer else [])
    kinds = [step["type"] for step in steps]
    marks = all(step["content"] == "▁" for step in steps if step["type"] == "Replace")
    plain = pre.get("type") in (None, "Split") and pre.get("pattern") in (None, {"String": " "})
    if kinds in (["Replace"], ["Prepend", "Replace"]) and marks and plain:
        return "Prepend" in kinds
    if not steps and pre.get("type") == "Metaspace" and pre.get("split") is False:
        return pre.get("prepend_scheme", "always") != "never"
    return None
