"""Models behind HTTP: where they are, what they need, and their answers as a stream, with every failure in a sentence.

An endpoint is an address, a model there and perhaps a key. Keys lie apart from everything else (a file that only its user
can read, or an environment variable that is named), and go to the host they were saved for and nowhere else. One client
library, any-llm, speaks to all servers; it is imported when the first endpoint is asked.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import json
import math
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from llm import modes, paths, versions
from llm.config import SampleConfig

CONNECT_SECONDS, FIRST_SECONDS, QUIET_SECONDS, ALL_SECONDS = 10, 120, 30, 300  # until a server is given up
LONGEST_WAIT, RETRIES = 20, 2  # seconds that a server may ask to wait, and how often it is asked again
VERSION, KEYS_VERSION = 1, 2  # of NAME.json, of keys
MOST_BYTES = 8_000_000  # of one reply
TOP = 5  # alternatives asked for with each token
LONGEST_KEY = 400


@dataclass(frozen=True)
class Preset:
    """A kind of server and where it usually listens."""

    title: str
    kind: str  # openai, anthropic or litgpt: how it is spoken to
    address: str
    needs_key: bool = False
    start: str = ""  # how a person starts it


PRESETS = {
    "openai": Preset("OpenAI", "openai", "https://api.openai.com/v1", True),
    "anthropic": Preset("Anthropic", "anthropic", "https://api.anthropic.com", True),
    "vllm": Preset("vLLM", "openai", "http://127.0.0.1:8000/v1", start="vllm serve MODEL"),
    "ollama": Preset("Ollama", "openai", "http://127.0.0.1:11434/v1", start="ollama serve"),
    "llamacpp": Preset(
        "llama.cpp's server", "openai", "http://127.0.0.1:8080/v1", start="llama-server -m MODEL.gguf"
    ),
    "gpt4all": Preset("GPT4All", "openai", "http://127.0.0.1:4891/v1", start="its local server, switched on in Settings"),
    "llamafile": Preset("llamafile", "openai", "http://127.0.0.1:8080/v1", start="./MODEL.llamafile --server"),
    "jan": Preset("Jan", "openai", "http://127.0.0.1:1337/v1", start="its local API server, switched on in Settings"),
    "litgpt": Preset("LitGPT (/predict)", "litgpt", "http://127.0.0.1:8000", start="litgpt serve CHECKPOINT"),
    "litgpt-openai": Preset(
        "LitGPT (OpenAI's way)", "openai", "http://127.0.0.1:8000/v1", start="litgpt serve CHECKPOINT --openai_spec true"
    ),
    "lab": Preset("another LLM Lab", "openai", "http://127.0.0.1:7860/v1", start="python app.py"),
    "other": Preset("any other that speaks OpenAI's way", "openai", ""),
}  # fmt: skip


@dataclass(frozen=True)
class Endpoint:
    """One endpoint; what is saved of it is all but `trial`, a key that is tried before it is kept apart."""

    name: str
    preset: str
    address: str
    model: str
    owner: str = ""
    price_in: float | None = None  # dollars for a million tokens read, where somebody entered it
    price_out: float | None = None  # and for a million written
    trial: str = field(default="", repr=False)

    @property
    def kind(self) -> str:
        return PRESETS[self.preset].kind

    @property
    def host(self) -> str:
        return host_of(self.address)


@dataclass(frozen=True)
class Piece:
    """A bit more of an answer."""

    text: str = ""
    tokens: tuple[dict[str, Any], ...] = ()  # where known: text, probability, top [[text, probability], ...]
    end: str = ""  # "" while it goes on; then why it ended: stop, length, stopped
    usage: dict[str, Any] | None = (
        None  # prompt_tokens, completion_tokens, cost (dollars, None where unknown)
    )


# --- addresses


def hosted() -> bool:
    """Whether strangers use this page (a Space)."""
    return modes.is_shared()


def checked_address(address: str, kind: str = "openai") -> str:
    """The address as it is called, whichever way it was typed. Raises ValueError for one that cannot be or may not be used.

    host:8000, http://host:8000/, .../v1, .../v1/ and .../v1/chat/completions all mean the same server.
    """
    text = (address or "").strip()
    if not text:
        raise ValueError("Enter the server's address, such as http://127.0.0.1:8000/v1.")
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"The port in {text[:120]!r} is no number from 0 to 65535.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in text):
        raise ValueError(f"{text[:120]!r} is no web address: it looks like http://127.0.0.1:8000/v1.")
    if parts.username or parts.password:
        raise ValueError("Leave the name and password out of the address: a key goes into its own box.")
    path = parts.path.rstrip("/")
    for tail in ("/chat/completions", "/completions", "/models", "/messages", "/predict"):
        path = path.removesuffix(tail)
    if kind == "openai" and not path:
        path = "/v1"
    if kind in ("anthropic", "litgpt"):
        path = path.removesuffix("/v1")
    if hosted() and parts.scheme != "https":
        raise ValueError("On a shared page only https addresses can be asked: the key would travel readable.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return urlunsplit((parts.scheme, f"{host}:{port}" if port else host, path, "", ""))


def host_of(address: str) -> str:
    """Scheme, host and port: what a key belongs to."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def resolved(host: str, port: int) -> str:
    """The IP address behind a name, checked where strangers use the page: it must be a public one.

    The connection goes to this very IP, so that a second look at the name cannot give another. Raises ValueError.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise ValueError(f"There is no host called {host}: check the address.") from None
    addresses = [ipaddress.ip_address(row[4][0].partition("%")[0]) for row in found]
    if hosted() and not all(address.is_global for address in addresses):
        raise ValueError(f"{host} lies inside a private network, which a shared page does not ask.")
    return str(addresses[0])


# --- what is saved


def _folder():
    folder = paths.home() / "endpoints"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def names(owner: str | None = None) -> list[str]:
    """The saved endpoints that `owner` may use; all with None."""
    found = []
    for file in sorted(_folder().glob("*.json")):
        with suppress(ValueError):
            one = get(file.stem)
            if owner is None or not hosted() or one.owner == owner:
                found.append(one.name)
    return found


def get(name: str, owner: str | None = None) -> Endpoint:
    """The endpoint of this name. Raises ValueError when there is none, or it is somebody else's."""
    file = _folder() / f"{paths.checked_name(name, 'endpoint')}.json"
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        versions.check(stored.pop("version", None), VERSION, file)
        found = Endpoint(**stored)
    except FileNotFoundError:
        raise ValueError(f"There is no endpoint called {name!r}: save one in the Models tab.") from None
    except versions.Unknown:
        raise
    except (OSError, ValueError, TypeError, AttributeError):
        raise ValueError(f"The endpoint {name} cannot be read: save it again.") from None
    if owner is not None and hosted() and found.owner != owner:
        raise ValueError(f"There is no endpoint called {name!r}: save one in the Models tab.")
    return found


def checked(endpoint: Endpoint) -> Endpoint:
    """The endpoint with its address as it is called. Raises ValueError for what cannot be used."""
    paths.checked_name(endpoint.name, "endpoint")
    if endpoint.preset not in PRESETS:
        raise ValueError(f"{endpoint.preset!r} is no kind of server; there are {', '.join(PRESETS)}.")
    if len(endpoint.model) > 200 or "\n" in endpoint.model:
        raise ValueError("The model's name has at most 200 characters, on one line.")
    return replace(
        endpoint,
        address=checked_address(endpoint.address, PRESETS[endpoint.preset].kind),
        model=endpoint.model.strip(),
    )


def save(endpoint: Endpoint, key: str = "") -> Endpoint:
    """Keep an endpoint, and its key apart from it; an empty key keeps the one saved for the same host.

    Raises ValueError for a key that is none, and for a name that belongs to somebody else.
    """
    endpoint = checked(endpoint)
    if _is_anothers(endpoint):
        raise ValueError(f"The name {endpoint.name} is taken: choose another name.")
    if key := checked_key(key):
        _keep(endpoint.name, {"host": endpoint.host, "key": key})
    with paths.replacing(_folder() / f"{endpoint.name}.json") as temporary:
        stored = {"version": VERSION, **asdict(endpoint), "trial": ""}
        temporary.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    return endpoint


def _is_anothers(endpoint: Endpoint) -> bool:
    """Whether the name belongs to another visitor of a shared page. Raises ValueError when a later lab has saved it."""
    try:
        return get(endpoint.name).owner != endpoint.owner and hosted()
    except versions.Unknown:
        raise
    except ValueError:
        return False


def delete(name: str, owner: str | None = None) -> None:
    """Forget an endpoint and its key. Raises ValueError as `get`."""
    endpoint = get(name, owner)
    (_folder() / f"{endpoint.name}.json").unlink(missing_ok=True)
    _keep(endpoint.name, None)


def checked_key(key: str) -> str:
    """A key as it is sent. Raises ValueError, without the key, for what no server takes."""
    key = (key or "").strip()
    if len(key) > LONGEST_KEY or any(not 33 <= ord(c) <= 126 for c in key):
        raise ValueError(
            "This is no key: keys have no blanks, line breaks or letters beyond ASCII, and at most "
            f"{LONGEST_KEY} characters. Copy it again, in one piece."
        )
    return key


_in_memory: dict[str, dict[str, str]] = {}  # keys on a shared page: never on its disk


def _keys() -> dict[str, dict[str, str]]:
    if hosted():
        return _in_memory
    file = _folder() / "keys"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    if isinstance(found.get("version", {}), dict):  # version 1: the endpoints' names and nothing else
        return found
    versions.check(found["version"], KEYS_VERSION, file)
    return found["keys"]


def _keep(name: str, kept: dict[str, str] | None) -> None:
    keys = _keys()
    if kept:
        keys[name] = kept
    else:
        keys.pop(name, None)
    if hosted():
        return
    file = _folder() / "keys"
    temporary = file.with_name(".keys.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as f:
        json.dump({"version": KEYS_VERSION, "keys": keys}, f)
    os.replace(temporary, file)


def all_keys() -> set[str]:
    """Every key that is kept, so that a log can leave them out."""
    with suppress(ValueError):
        return {str(one.get("key", "")) for one in list(_keys().values())} - {""}
    return set()


def key_of(endpoint: Endpoint) -> str:
    """The key saved for this endpoint, if it was saved for the host that it names now; "" where there is none.

    A key that was saved as env:NAME is read from that environment variable, at home only.
    """
    kept = _keys().get(endpoint.name, {})
    key = endpoint.trial or (kept.get("key", "") if kept.get("host") == endpoint.host else "")
    if key.startswith("env:") and not hosted():
        return os.environ.get(key.removeprefix("env:"), "")
    return key


# --- asking


class Refused(Exception):
    """Something that our side of the connection does not allow; its text is the sentence for the reader."""


def transport(module: Any) -> Any:
    """An HTTP client (of httpx or httpx2) that goes to the address that was checked, follows nothing, and reads a limit.

    `module` is the one that the client library uses.
    """

    class Limited(module.AsyncByteStream):
        def __init__(self, inner: Any):
            self.inner, self.count = inner, 0

        async def __aiter__(self):
            async for part in self.inner:
                self.count += len(part)
                if self.count > MOST_BYTES:
                    raise Refused(f"The reply is longer than {MOST_BYTES // 10**6} MB: that is no answer.")
                yield part

        async def aclose(self):
            await self.inner.aclose()

    class Guarded(module.AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            url, host = request.url, request.url.host
            try:
                port = url.port or {"http": 80, "https": 443}[url.scheme]
                ip = await asyncio.get_running_loop().run_in_executor(None, resolved, host, port)
            except ValueError as error:
                raise Refused(str(error)) from None
            request.extensions = {**request.extensions, "sni_hostname": host}
            request.url = url.copy_with(host=ip)
            request.headers["Accept-Encoding"] = "identity"  # so that the limit counts what is read
            answer = await super().handle_async_request(request)
            request.url = url
            if answer.is_redirect:
                raise Refused(
                    "The server sends on to another address, which is not followed: enter that one."
                )
            answer.stream = Limited(answer.stream)
            return answer

    limits = module.Timeout(QUIET_SECONDS, connect=CONNECT_SECONDS, read=FIRST_SECONDS)
    return module.AsyncClient(transport=Guarded(), timeout=limits, follow_redirects=False, trust_env=False)


def client(endpoint: Endpoint) -> Any:
    """The any-llm client of an endpoint. Raises ValueError when the library is not here."""
    try:
        from any_llm import AnyLLM
    except ImportError:
        raise ValueError(
            "Models behind HTTP need the package any-llm-sdk: pip install any-llm-sdk, then start again."
        ) from None
    provider = "anthropic" if endpoint.kind == "anthropic" else "openai"
    http = transport(importlib.import_module(HTTP_LIBRARY[provider]))
    key = key_of(endpoint) or "none"  # servers at home take any
    return AnyLLM.create(provider, api_key=key, api_base=endpoint.address, http_client=http, max_retries=0)


HTTP_LIBRARY = {"openai": "httpx2", "anthropic": "httpx"}  # which one each official client is built on


def speak(
    endpoint: Endpoint,
    messages: Sequence[dict[str, str]],
    how: SampleConfig,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Piece]:
    """Stream an answer. Closing the iterator, or `stopped`, ends the connection.

    Raises ValueError with a sentence that says what is wrong and never holds the key.
    """
    with asyncio.Runner() as runner:
        began = time.monotonic()
        for attempt in range(RETRIES + 1):
            said = False
            stream = answers(endpoint, messages, how)
            try:
                for piece in driven(runner, stream, stopped, began):
                    said = said or bool(piece.text)
                    yield piece
                return
            except GeneratorExit:
                raise
            except Exception as error:  # the boundary to somebody else's server
                wait = retry_after(error)
                if said or attempt == RETRIES or wait is None or wait > LONGEST_WAIT:
                    raise ValueError(sentence(error, endpoint)) from None
                if waited(wait, stopped):
                    yield Piece(end="stopped")
                    return
            finally:
                with suppress(Exception):
                    runner.run(stream.aclose())


def driven(
    runner: asyncio.Runner, stream: AsyncIterator[Piece], stopped: Callable[[], bool], began: float
) -> Iterator[Piece]:
    """The pieces of an asynchronous stream, one after another; between them `stopped` is asked ten times a second."""
    first = True
    while True:
        if stopped():
            yield Piece(end="stopped")
            return
        task = runner.get_loop().create_task(anext(stream, None))
        asked = time.monotonic()
        while not task.done():
            runner.run(asyncio.wait({task}, timeout=0.1))
            now = time.monotonic()
            late = now - asked > (FIRST_SECONDS if first else QUIET_SECONDS) or now - began > ALL_SECONDS
            if (late or stopped()) and not task.done():
                task.cancel()
                runner.run(asyncio.wait({task}))
                if late:
                    raise Refused(too_slow(now - began, first))
                yield Piece(end="stopped")
                return
        piece = task.result()
        if piece is None:
            return
        first = first and not piece.text
        yield piece


def too_slow(seconds: float, first: bool) -> str:
    """What is said of a server that was given up."""
    if first:
        return f"The server has said nothing for {seconds:.0f} seconds: it may be loading a model. Try again later."
    return f"The server stopped in the middle of its answer, or needs too long for it ({seconds:.0f} seconds so far)."


def waited(seconds: float, stopped: Callable[[], bool]) -> bool:
    """Wait; whether it was stopped meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if stopped():
            return True
        time.sleep(0.1)
    return stopped()


async def answers(
    endpoint: Endpoint, messages: Sequence[dict[str, str]], how: SampleConfig
) -> AsyncIterator[Piece]:
    """The answer of an endpoint as pieces, the last one with its end and usage."""
    if endpoint.kind == "litgpt":
        yield await predicted(endpoint, messages, how)
        return
    library = client(endpoint)
    asked = wishes(endpoint, how)
    try:
        stream = await library.acompletion(
            model=endpoint.model, messages=list(messages), stream=True, **asked
        )
    except Exception as error:
        if "logprobs" not in asked or getattr(error, "status_code", None) not in (400, 422):
            raise
        for word in (
            "logprobs",
            "top_logprobs",
        ):  # some servers give no probabilities, and say so by refusing
            asked.pop(word)
        stream = await library.acompletion(
            model=endpoint.model, messages=list(messages), stream=True, **asked
        )
    usage, end = None, ""
    try:
        async for chunk in stream:
            usage = used(endpoint, getattr(chunk, "usage", None)) or usage
            for choice in chunk.choices or []:  # the chunk with the usage has none
                end = choice.finish_reason or end
                text = (choice.delta and choice.delta.content) or ""
                tokens = tuple(token_of(one) for one in (getattr(choice.logprobs, "content", None) or []))
                if text or tokens:
                    yield Piece(text, tokens)
    finally:
        with suppress(Exception):
            await stream.aclose()
        with suppress(Exception):
            await library.client.close()
    if not end:
        raise Refused("The connection ended in the middle of the answer.")
    yield Piece(end={"stop": "stop", "length": "length"}.get(end, end), usage=usage)


BEYOND = {  # settings beyond OpenAI's, as a kind of server calls them
    "vllm": {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"},
    "lab": {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"},
    "llamacpp": {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"},
    "llamafile": {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"},
}


def changed(how: SampleConfig) -> dict[str, Any]:
    """The settings beyond OpenAI's that differ from doing nothing."""
    values = {"top_k": how.top_k, "min_p": how.min_p, "repetition_penalty": how.repetition_penalty}
    return {
        name: value for name, value in values.items() if value != (1 if name == "repetition_penalty" else 0)
    }


def wishes(endpoint: Endpoint, how: SampleConfig) -> dict[str, Any]:
    """The settings as the server knows them; `unheard` tells of the others."""
    asked: dict[str, Any] = {"temperature": how.temperature, "max_tokens": how.max_new_tokens}
    if how.top_p < 1:
        asked["top_p"] = how.top_p
    if how.stop:
        asked["stop"] = list(how.stop)[:4]
    if endpoint.kind == "openai":
        asked |= {"seed": how.seed, "logprobs": True, "top_logprobs": TOP}
        asked["stream_options"] = {"include_usage": True}
        if endpoint.preset != "openai":  # OpenAI's newer name for it is unknown to many others
            known = BEYOND.get(endpoint.preset, {})
            more = {known[name]: value for name, value in changed(how).items() if name in known}
            asked["extra_body"] = {"max_tokens": how.max_new_tokens, **more}
    return asked


def unheard(endpoint: Endpoint, how: SampleConfig) -> list[str]:
    """The settings that this server will not follow, for the page to say so."""
    lost = [name for name in changed(how) if name not in BEYOND.get(endpoint.preset, {})]
    return lost + (["seed"] if endpoint.kind != "openai" and how.seed else [])


def token_of(one: Any) -> dict[str, Any]:
    """A token with its probability and the likeliest others."""
    top = [[other.token, math.exp(other.logprob)] for other in one.top_logprobs or []]
    return {"text": one.token, "probability": math.exp(one.logprob), "top": top}


def used(endpoint: Endpoint, usage: Any) -> dict[str, Any] | None:
    """How many tokens were read and written, and what it cost where the prices are known."""
    if usage is None:
        return None
    read, written = int(usage.prompt_tokens or 0), int(usage.completion_tokens or 0)
    priced = endpoint.price_in is not None and endpoint.price_out is not None
    cost = (read * endpoint.price_in + written * endpoint.price_out) / 1e6 if priced else None
    return {"prompt_tokens": read, "completion_tokens": written, "cost": cost}


async def predicted(endpoint: Endpoint, messages: Sequence[dict[str, str]], how: SampleConfig) -> Piece:
    """LitGPT's own /predict: a prompt in, the whole text out."""
    import httpx2

    async with transport(httpx2) as http:
        asked = {"prompt": messages[-1]["content"]}
        answer = await http.post(f"{endpoint.address}/predict", json=asked)
        if answer.status_code != 200:
            raise Refused(status_sentence(answer.status_code, endpoint))
        try:
            return Piece(str(answer.json()["output"]), end="stop")
        except (ValueError, KeyError, TypeError):
            raise Refused(
                f"{endpoint.address}/predict answered with something that is no LitGPT reply."
            ) from None


# --- what is wrong


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and everything that led to it."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [getattr(one, "original_exception", None), one.__cause__, one.__context__]


def retry_after(error: BaseException) -> float | None:
    """Seconds after which the server may be asked again; None where that is no help."""
    status = next((s for one in chain(error) if (s := getattr(one, "status_code", None))), None)
    if status not in (429, 500, 502, 503, 504, 529):
        return None
    headers = next(
        (r.headers for one in chain(error) if (r := getattr(one, "response", None)) is not None), {}
    )
    said = headers.get("retry-after")
    with suppress(TypeError, ValueError, OverflowError):
        seconds = float(said)
        return max(seconds, 0.0) if math.isfinite(seconds) else math.inf
    if said:
        from email.utils import parsedate_to_datetime

        with suppress(TypeError, ValueError, OverflowError):
            return max(parsedate_to_datetime(said).timestamp() - time.time(), 0.0)
        return math.inf
    return 1.0


def sentence(error: BaseException, endpoint: Endpoint) -> str:
    """What went wrong, and what to do about it; never with the key in it."""
    found = list(chain(error))
    refused = next((one for one in found if isinstance(one, (Refused, ValueError)) and type(one) in (Refused, ValueError)), None)  # fmt: skip
    status = next((s for one in found if isinstance(s := getattr(one, "status_code", None), int)), None)
    names_seen = {type(one).__name__ for one in found}
    if isinstance(refused, Refused):
        text = str(refused)
    elif status:
        text = status_sentence(status, endpoint)
        if status in (429, 503) and (wait := retry_after(error)) and wait > LONGEST_WAIT:
            text += f" It asks to wait {human(wait)}, which is longer than anyone waits here."
    elif names_seen & {"ConnectTimeout", "ConnectError", "ConnectionRefusedError"}:
        start = PRESETS[endpoint.preset].start
        text = f"Nothing answers at {endpoint.address}: the server is not running, or listens elsewhere."
        text += f" Start it with: {start}." if start else ""
    elif names_seen & {"ReadTimeout", "TimeoutError", "APITimeoutError", "PoolTimeout", "WriteTimeout"}:
        text = f"The server at {endpoint.address} has taken the question and says nothing: it was given up."
    elif names_seen & {"RemoteProtocolError", "ReadError", "IncompleteRead"}:
        text = "The connection ended in the middle of the answer."
    elif names_seen & {
        "UnicodeDecodeError",
        "JSONDecodeError",
        "APIResponseValidationError",
        "ValidationError",
    }:
        text = f"The server at {endpoint.address} answered with something that is no reply in its language."
    elif refused is not None:
        text = str(refused)[:300]
    else:
        text = f"The server at {endpoint.address} could not be asked ({type(found[-1]).__name__})."
    key = key_of(endpoint)
    return text.replace(key, "(key)") if key else text


def status_sentence(status: int, endpoint: Endpoint) -> str:
    """What an HTTP status means here."""
    where = f"{endpoint.address}"
    if status in (401, 403):
        has = "The key is wrong" if key_of(endpoint) else "A key is needed"
        return f"{has}: {where} does not let us in ({status}). Enter the key that belongs to this server."
    if status == 404:
        return f"{where} knows no model {endpoint.model!r}, or nothing at this address (404): press Test to see its list."
    if status == 429:
        return f"{where} has had enough questions for now (429)."
    if status in (400, 422):
        return f"{where} does not accept the question ({status}): the model may be no chat model, or a setting out of range."
    if status >= 500:
        return f"{where} has a problem of its own ({status}): see its log, then try again."
    return f"{where} answered with status {status}."


def human(seconds: float) -> str:
    """A long time in words."""
    if not math.isfinite(seconds) or seconds > 1e8:
        return "for years"
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def models_at(endpoint: Endpoint) -> list[str]:
    """The models that the server says it has. Raises ValueError with a sentence when it cannot be asked."""

    async def listed() -> list[str]:
        library = client(endpoint)
        try:
            found = await library.alist_models()
            return sorted(model.id for model in found)
        finally:
            with suppress(Exception):
                await library.client.close()

    if endpoint.kind == "litgpt":
        return []
    with asyncio.Runner() as runner:
        try:
            return runner.run(asyncio.wait_for(listed(), QUIET_SECONDS))
        except Exception as error:  # the boundary to somebody else's server
            raise ValueError(sentence(error, endpoint)) from None


def test(endpoint: Endpoint) -> dict[str, Any]:
    """Try an endpoint: {"models": what it has, "answer": a few words from it, "seconds"}. Raises ValueError saying what is wrong."""
    endpoint = checked(endpoint)
    began = time.monotonic()
    models = models_at(endpoint)
    if models and endpoint.model not in models:
        listed = ", ".join(models[:20]) + (" ..." if len(models) > 20 else "")
        wish = f"has no model {endpoint.model!r}" if endpoint.model else "needs the name of a model"
        raise ValueError(f"{endpoint.address} {wish}; it has: {listed}.")
    how = SampleConfig(max_new_tokens=16, temperature=0.0)
    said = "".join(piece.text for piece in speak(endpoint, [{"role": "user", "content": "Say hello."}], how))
    return {"models": models, "answer": said, "seconds": time.monotonic() - began}


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m llm.endpoints [NAME]`: the saved endpoints, or whether one of them works."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not given:
            print(
                "\n".join(f"{n}: {get(n).address} {get(n).model}" for n in names())
                or "No endpoint is saved yet."
            )
            return
        found = test(get(given[0]))
    except ValueError as error:
        sys.exit(f"{error}")
    print(f"{given[0]} answers in {found['seconds']:.1f} s: {found['answer']!r}")


if __name__ == "__main__":
    main()
