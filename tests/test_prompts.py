"""Prompt styles: the published forms, what is learned of them, and what becomes of rows that do not fit."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import decoders, pre_tokenizers

from llm import chat, paths, prompts, tokenizer
from llm.config import RunConfig, TuneConfig
from llm.prompts import IGNORED, Written, conversation, lines, manner, packed, padded, write

BYTE = tokenizer.get("byte")
ROW = {"instruction": "Name the opposite.", "input": "hot", "output": "cold"}
PLAIN = {"instruction": "Name a colour.", "output": "Red."}
# by hand, after the published forms: Stanford Alpaca's prompt (in the book's single spelling), Phi-3's and ChatML's model cards
FORMS = {
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nName the opposite.\n\n### Input:\nhot\n\n### Response:\n"
    ),
    "phi3": "<|user|>\nName the opposite.\nhot<|end|>\n<|assistant|>\n",
    "chatml": "<|im_start|>user\nName the opposite.\nhot<|im_end|>\n<|im_start|>assistant\n",
    "plain": "User: Name the opposite.\nhot\nAssistant:",
    "bare": "Name the opposite.\nhot",
}


def written(style, row, encoding=BYTE, folder=None):
    found = manner(style, folder, encoding)
    (one,) = write(found, encoding, [conversation(row, found.joint)])
    return one


@pytest.mark.parametrize("style", list(FORMS))
def test_the_prompt_is_the_published_one_and_the_answer_with_its_end_is_learned(style):
    one = written(style, ROW)
    prompt, answer = (BYTE.decode(one.ids[mask].tolist()) for mask in (~one.answer, one.answer))
    assert prompt == FORMS[style]
    assert answer == (" cold" if style == "plain" else "cold") + "<|endoftext|>"
    assert one.ids[-1] == BYTE.eot_id


@pytest.mark.parametrize("style", list(FORMS))
def test_the_model_is_asked_with_the_very_ids_it_was_taught_with(style):
    encoding = tokenizer.get("stories-1280")
    found = manner(style, None, encoding)
    talk = conversation(ROW, found.joint)
    (one,) = write(found, encoding, [talk])
    assert prompts.prompt_ids(found, encoding, talk[:-1]) == one.ids[~one.answer].tolist()
    if style in chat.TEMPLATES:  # what the Playground asks with
        folder = paths.shipped_models() / "story-llama"
        assert (
            chat.prompt(folder, tokenizer.load(folder), talk[:-1], style).ids == one.ids[~one.answer].tolist()
        )


@pytest.mark.parametrize("missing", [{}, {"input": ""}, {"input": None}])
def test_a_row_without_input_has_no_section_for_it(missing):
    assert written("alpaca", PLAIN | missing).ids.tolist() == written("alpaca", PLAIN).ids.tolist()
    assert "Input" not in BYTE.decode(written("alpaca", PLAIN).ids.tolist())


def test_of_a_conversation_every_answer_is_learned_and_nothing_else():
    talk = {"messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "And?"}, {"role": "assistant", "content": "Bye"},
    ]}  # fmt: skip
    one = written("alpaca", talk)
    assert BYTE.decode(one.ids[one.answer].tolist()) == "HoBye<|endoftext|>"
    assert BYTE.decode(one.ids[~one.answer].tolist()).startswith("Be brief.\n\n### Instruction:\nHi")
    tokens = prompts.coloured(manner("alpaca", None, BYTE), BYTE, talk["messages"])
    assert "".join(text for text, _, _ in tokens) == BYTE.decode(one.ids.tolist())
    by_role = {}
    for text, role, learned in tokens:
        by_role[role] = by_role.get(role, "") + text
        assert learned == (role in ("assistant", "end"))
    assert (by_role["system"], by_role["user"], by_role["assistant"]) == ("Be brief.", "HiAnd?", "HoBye")
    assert by_role["end"] == "<|endoftext|>"


# --- a model's own template ------------------------------------------------------------------------------------------

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def chatty(tmp_path):
    """The directory of a model whose encoding has the tokens of ChatML."""
    folder = tmp_path / "chatty"
    folder.mkdir()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    kit = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    kit.pre_tokenizer, kit.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    kit.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
    kit.save(str(folder / "tokenizer.json"))
    said = {
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "chat_template": TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def test_with_its_own_template_the_ids_are_those_of_transformers(chatty):
    encoding = tokenizer.load(chatty)
    one = written("own", ROW, encoding, chatty)
    talk = conversation(ROW, "\n")
    theirs = transformers.AutoTokenizer.from_pretrained(chatty)
    whole = theirs.apply_chat_template(talk, tokenize=True, return_dict=False)
    prompt = theirs.apply_chat_template(
        talk[:-1], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert one.ids.tolist() == whole[: len(one.ids)]  # but for the line break after the last turn
    assert one.answer.tolist() == [False] * len(prompt) + [True] * (len(one.ids) - len(prompt))
    assert theirs.decode(one.ids[one.answer]) == "cold<|im_end|>"


def test_special_tokens_in_a_row_stay_letters(chatty):
    encoding = tokenizer.load(chatty)
    sly = {"instruction": "Say <|im_end|>", "output": "a <|im_start|> b"}
    one = written("own", sly, encoding, chatty)
    specials = [encoding.special_tokens[t] for t in ("<|im_start|>", "<|im_end|>")]
    assert [id for id in one.ids.tolist() if id in specials] == [
        specials[0],
        specials[1],
        specials[0],
        specials[1],
    ]
    answer = one.ids[one.answer].tolist()
    assert encoding.decode(answer[:-1]) == "a <|im_start|> b" and not set(answer[:-1]) & set(specials)


def test_a_template_that_hides_an_answer_rejects_the_row(chatty):
    said = json.loads((chatty / "tokenizer_config.json").read_text())
    said["chat_template"] = "{% for m in messages %}{{ m.content | upper + '<|im_end|>' }}{% endfor %}"
    (chatty / "tokenizer_config.json").write_text(json.dumps(said))
    assert "template" in written("own", ROW, tokenizer.load(chatty), chatty)


def test_a_template_that_refuses_a_row_says_so_and_keeps_the_others(chatty):
    said = json.loads((chatty / "tokenizer_config.json").read_text())
    said["chat_template"] = (
        "{% if messages[0].content == 'bad' %}{{ raise_exception('not that') }}{% endif %}" + TEMPLATE
    )
    (chatty / "tokenizer_config.json").write_text(json.dumps(said))
    encoding = tokenizer.load(chatty)
    found = manner("own", chatty, encoding)
    talks = [conversation({"instruction": text, "output": "x"}, "\n") for text in ("good", "bad", "good")]
    first, second, third = write(found, encoding, talks)
    assert "not that" in second and first.ids.tolist() == third.ids.tolist()


def test_a_model_without_a_template_says_so():
    folder = paths.shipped_models() / "story-llama"
    with pytest.raises(ValueError, match="no chat template"):
        manner("own", folder, tokenizer.load(folder))
    with pytest.raises(ValueError, match="alpaca"):
        manner("nosuch", None, BYTE)


# --- the batch -------------------------------------------------------------------------------------------------------


def text(ids, answer=None):
    return Written(np.array(ids), np.array([True] * len(ids) if answer is None else answer))


def test_padding_keeps_the_first_end_of_text_as_a_target():
    eot = 99
    inputs, targets = padded([text([5, 6, 7, eot]), text([8, eot]), text([4, 3, eot])], eot)
    assert inputs.tolist() == [[5, 6, 7], [8, eot, eot], [4, 3, eot]]
    assert targets.tolist() == [[6, 7, eot], [eot, IGNORED, IGNORED], [3, eot, IGNORED]]


def test_prompts_are_masked_or_learned():
    row = text([1, 2, 3, 4], [False, False, True, True])
    assert padded([row], 0)[1].tolist() == [[IGNORED, 3, 4]]
    assert padded([row], 0, mask_prompt=False)[1].tolist() == [[2, 3, 4]]


def test_texts_share_lines_the_longest_first():
    assert lines([5, 3, 3, 2, 2, 5], 5) == [[0], [5], [1, 3], [2, 4]]
    assert lines([4], 4) == [[0]] and lines([], 4) == []
    draw = np.random.default_rng(0)
    for _ in range(20):
        lengths = draw.integers(1, 40, size=30).tolist()
        shared = lines(lengths, 40)
        assert sorted(n for line in shared for n in line) == list(range(30))
        assert all(sum(lengths[n] for n in line) <= 40 for line in shared)
        assert len(shared) <= 11 / 9 * math.ceil(sum(lengths) / 40) + 1


def test_packed_rows_lie_end_to_end_and_each_counts_from_nought():
    eot = 99
    texts = [text([8, eot]), text([1, 2, 3, eot], [False, False, True, True]), text([4, 5, eot])]
    inputs, targets, positions = packed(texts, eot)
    assert inputs.tolist() == [[1, 2, 3], [4, 5, 8]]
    assert targets.tolist() == [[IGNORED, 3, eot], [5, eot, eot]]
    assert positions.tolist() == [[0, 1, 2], [0, 1, 0]]
    assert packed(texts, eot, most=6)[2].tolist() == [
        [0, 1, 2],
        [0, 1, 0],
    ]  # as full as one line, and narrower
    assert packed(texts, eot, mask_prompt=False)[1].tolist() == [[2, 3, eot], [5, eot, eot]]
    uneven = [text([1] * 6), *(text([2] * 4) for _ in range(3))]  # 5, 3, 3, 3: 8 wide is 16 places, 5 wide 20
    assert packed(uneven, eot, most=9)[2].tolist() == [[*range(5), *range(3)], [*range(3), *range(3), 0, 0]]
    inputs, targets, positions = packed([text([7, 7, 7, 7, eot]), text([1, 2, eot])], eot)
    assert (inputs.tolist()[1], targets.tolist()[1]) == ([1, 2, eot, eot], [2, eot, IGNORED, IGNORED])
    assert positions.tolist()[1] == [0, 1, 0, 0]


# --- from a dataset --------------------------------------------------------------------------------------------------


def dataset(rows, name="mine"):
    (paths.datasets() / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def run(objective="instruct", **tune):
    return RunConfig(
        dataset="mine",
        tokenizer="byte",
        objective=objective,
        tune=TuneConfig(**({"prompt_style": "plain"} | tune)),
    )


def examples(config, most=64):
    return prompts.examples(config, BYTE, None, most)


def test_rows_are_split_apart_and_keep_their_numbers():
    dataset([{"instruction": f"Say {i}", "output": str(i)} for i in range(40)])
    found = examples(run())
    assert {name: len(part) for name, part in found.parts.items()} == {
        "train": 34,
        "validation": 2,
        "test": 4,
    }
    numbers = [example.row for part in found.parts.values() for example in part]
    assert sorted(numbers) == list(range(1, 41)) and found.rejected == []
    short = examples(run(max_length=24))  # of "Say 10" to "Say 39" the last token is cut off
    assert [e.row for e in short.parts["test"]] == [
        e.row for e in found.parts["test"]
    ]  # nobody changes sides


def test_a_split_of_the_file_is_kept():
    dataset(
        [
            {"instruction": f"Say {i}", "output": str(i), "split": s}
            for i, s in enumerate(["train", "train", "test", "unseen"])
        ]
    )
    assert {name: len(part) for name, part in examples(run()).parts.items() if part} == {
        "train": 2,
        "test": 1,
        "unseen": 1,
    }


def test_what_does_not_fit_is_cut_or_rejected_in_words_never_silent():
    dataset([
        {"instruction": "word " * 30, "output": "lost"},  # its prompt alone fills the context
        {"instruction": "short", "output": "long " * 30},
        {"instruction": "short", "output": "fine"},
        {"instruction": "empty", "output": "  "},
    ])  # fmt: skip
    found = examples(run())
    assert [row for row, _ in found.rejected] == [1, 4] and found.truncated == [2]
    assert "no answer token is left" in found.rejected[0][1] and "64" in found.rejected[0][1]
    assert "empty" in found.rejected[1][1]
    kept = {example.row: example.texts[0] for part in found.parts.values() for example in part}
    assert (
        len(kept[2]) == 65 and kept[2].ids[-1] != BYTE.eot_id
    )  # 64 inputs; its end is not learned where it is cut
    assert any("rows are not used" in note for note in found.notes) and any(
        "were cut" in note for note in found.notes
    )
    shorter = [e.texts[0] for part in examples(run(max_length=25)).parts.values() for e in part]
    assert sorted(len(text) for text in shorter) == [26, 26]  # 22 of the prompt and the first 4 of the answer


def test_nothing_left_to_train_on_is_said_with_the_first_reason():
    dataset([{"instruction": "word " * 30, "output": "lost"}] * 3)
    with pytest.raises(ValueError, match=r"None of the 3 rows.*Row 1: no answer token is left"):
        examples(run())


def test_equal_answers_are_no_preference():
    dataset([
        {"prompt": "Which?", "chosen": "this", "rejected": "that"},
        {"prompt": "Which?", "chosen": "same", "rejected": "same"},
        {"prompt": "Which?", "chosen": "same at first, " * 5 + "a", "rejected": "same at first, " * 5 + "b"},
    ])  # fmt: skip
    found = examples(run("prefer"))
    assert [example.row for example in found.parts["train"]] == [1]
    assert [row for row, _ in found.rejected] == [2, 3] and "in the tokens that fit" in found.rejected[1][1]
    chosen, rejected = found.parts["train"][0].texts
    assert BYTE.decode(chosen.ids.tolist()) == "User: Which?\nAssistant: this<|endoftext|>"
    assert BYTE.decode(rejected.ids[rejected.answer].tolist()) == " that<|endoftext|>"


def test_classes_are_numbered_and_long_texts_cut():
    dataset([{"text": "good " * (20 if i == 3 else 1), "label": "yes" if i % 2 else "no"} for i in range(8)])
    found = examples(run("classify"))
    assert found.labels == ["no", "yes"] and found.truncated == [4]
    by_row = {example.row: example for part in found.parts.values() for example in part}
    assert [by_row[n].label for n in (1, 2, 3, 4)] == [0, 1, 0, 1] and len(by_row[4].texts[0]) == 64


def test_labels_of_one_class_are_refused():
    dataset([{"text": f"good {i}", "label": "yes"} for i in range(8)])
    with pytest.raises(ValueError, match="at least two classes"):
        examples(run("classify"))


def test_rows_of_another_kind_are_refused_with_what_is_missing():
    dataset([{"text": "good", "label": "yes"}, {"text": "bad", "label": "no"}])
    with pytest.raises(ValueError, match="output"):
        examples(run())
    with pytest.raises(ValueError, match="chosen"):
        examples(run("prefer"))


def test_an_encoding_without_end_of_text_is_noted():
    letters = tokenizer.get("char", "abcdefghijklmnopqrstuvwxyz UA:\nS0123456789")
    dataset([{"instruction": "say", "output": "so"}, {"instruction": "say", "output": "é"}])
    found = prompts.examples(run(), letters, None, 64)
    assert any("no end-of-text" in note for note in found.notes)
    assert [row for row, _ in found.rejected] == [2]  # a character the encoding lacks
    assert replace(found).parts["train"][0].texts[0].answer[-1]
