"""The exact commands with which other tools open what was exported here."""

from __future__ import annotations

import json
import shlex
from typing import NamedTuple


class Recipe(NamedTuple):
    """How one tool opens an export: where its commands are typed, and the commands."""

    tool: str
    where: str  # shell, Python, JavaScript; "" where the text is words
    text: str


PROMPT = "Long ago, a"
QUESTION = "Tell me a story about an otter."


def recipes(format: str, name: str, prompt: str = PROMPT, context: int = 256) -> list[Recipe]:
    """The recipes of a format. `name` is what the download is called without its ending; a folder is unpacked as it.

    context: tokens that the model knows; servers must be told when it is short.
    """
    said, file = shlex.quote(prompt), shlex.quote(f"{name}.gguf")
    folder = shlex.quote(f"./{name}")
    return {
        "hf": [
            Recipe("transformers", "Python", TRANSFORMERS.format(folder=f"./{name}", prompt=prompt)),
            Recipe("vLLM", "shell", f"vllm serve {folder} --max-model-len {context}"),
            Recipe("TGI", "shell", TGI.format(name=shlex.quote(name), context=context, less=max(context - 1, 1))),
            Recipe("NeMo AutoModel", "Python", NEMO.format(folder=f"./{name}")),
            Recipe("Train it further in this lab", "shell", f"python -m llm.convert.bring {shlex.quote(name)} --source {folder}"),
        ],
        "gguf": [
            Recipe("llama.cpp", "shell", f"llama-cli -m {file} -p {said} -n 60 -no-cnv\nllama-server -m {file} -c {context}"),
            Recipe("Ollama", "shell, with the Modelfile that can be fetched too", f"ollama create {shlex.quote(name.lower())} -f {shlex.quote(name)}.Modelfile\nollama run {shlex.quote(name.lower())} {said}"),
            Recipe("llamafile", "shell", f"llamafile -m {file} -p {said} -n 60"),
            Recipe("llama-cpp-python", "Python", LLAMA_CPP.format(name=name, prompt=prompt, context=context)),
            Recipe("GPT4All", "", f"Copy {name}.gguf into the folder that Settings, Application, Download Path names; it is then listed under Models."),
            Recipe("Jan", "", f"Settings, Model Providers, Llama.cpp, Import: choose {name}.gguf."),
        ],
        "litgpt": [
            Recipe("LitGPT", "shell", f"litgpt generate {folder} --prompt {said} --max_new_tokens 60\nlitgpt chat {folder}"),
            Recipe("LitGPT, train it further", "shell", f"litgpt finetune_full {folder} --data JSON --data.json_path my_data.json"),
        ],
        "onnx": [
            Recipe("transformers.js", "JavaScript", TRANSFORMERS_JS.format(name=name, prompt=prompt)),
            Recipe("onnxruntime", "Python", ONNX.format(name=name, prompt=prompt)),
        ],
        "notebook": [
            Recipe("Jupyter", "shell", f"jupyter lab {shlex.quote(name + '.ipynb')}"),
        ],
    }[format]  # fmt: skip


def over_http(address: str, name: str, prompt: str = PROMPT, chats: bool = False) -> list[Recipe]:
    """How the running lab at `address` is asked for a model without an export; `chats` where it answers messages."""
    path, asked = ("chat/completions", CHAT) if chats else ("completions", COMPLETE)
    said = {"messages": [{"role": "user", "content": prompt}]} if chats else {"prompt": prompt}
    body = shlex.quote(json.dumps({"model": name, **said, "max_tokens": 60}, ensure_ascii=False))
    return [
        Recipe("curl", "shell", CURL.format(url=shlex.quote(f"{address}/v1/{path}"), body=body)),
        Recipe("openai", "Python", asked.format(address=f"{address}/v1", name=name, prompt=prompt)),
    ]


CURL = """curl {url} \\
  -H 'Content-Type: application/json' -d {body}"""

COMPLETE = """from openai import OpenAI

client = OpenAI(base_url={address!r}, api_key="none")
print(client.completions.create(model={name!r}, prompt={prompt!r}, max_tokens=60).choices[0].text)"""

CHAT = """from openai import OpenAI

client = OpenAI(base_url={address!r}, api_key="none")
message = {{"role": "user", "content": {prompt!r}}}
print(client.chat.completions.create(model={name!r}, messages=[message], max_tokens=60).choices[0].message.content)"""

TRANSFORMERS = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({folder!r})
model = AutoModelForCausalLM.from_pretrained({folder!r})
inputs = tokenizer({prompt!r}, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=60)[0]))"""

TGI = """docker run --gpus all --shm-size 1g -p 8080:80 -v "$PWD"/{name}:/model \\
  ghcr.io/huggingface/text-generation-inference:latest --model-id /model --max-total-tokens {context} --max-input-tokens {less}"""

NEMO = """from nemo_automodel import NeMoAutoModelForCausalLM

model = NeMoAutoModelForCausalLM.from_pretrained({folder!r})"""

LLAMA_CPP = """from llama_cpp import Llama

model = Llama("{name}.gguf", n_ctx={context})
print(model({prompt!r}, max_tokens=60)["choices"][0]["text"])"""

TRANSFORMERS_JS = """import {{ pipeline, env }} from '@huggingface/transformers';

env.allowRemoteModels = false;
env.localModelPath = './';
const generate = await pipeline('text-generation', '{name}', {{ dtype: 'fp32' }});
console.log(await generate({prompt!r}, {{ max_new_tokens: 60, do_sample: false }}));"""

ONNX = """import numpy as np, onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{name}/tokenizer.json")
session = onnxruntime.InferenceSession("{name}/model.onnx")
ids = tokenizer.encode({prompt!r}).ids
for _ in range(20):  # always the likeliest token
    (logits,) = session.run(None, {{"input_ids": np.array([ids])}})
    ids.append(int(logits[0, -1].argmax()))
print(tokenizer.decode(ids))"""
