"""The Hugging Face Hub: search, facts of a repository, download of what an import needs, push of an export.

A token is used for the call it is given to and is never stored, logged or shown. Where none is given, HF_TOKEN or the login
of this machine serves at home, and nobody's on a shared page.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llm import modes, paths

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUB = "https://huggingface.co"
BLOCK = 2**20  # bytes received at once: often enough for a progress bar and for a stop
TIMEOUT = 30  # seconds without a byte
PART = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?")  # one half of a repository's id
REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,99}")
TOKEN = re.compile(r"[!-~]{8,200}")
SPARE = 200 * 10**6  # bytes of the disk that stay free
TEXTS = (  # what is taken along besides the weights, where it is there
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", "adapter_config.json", "README.md",
)  # fmt: skip
MOST_TEXT = 200 * 10**6  # bytes that one of them may have
DATASETS = "datasets/"  # what stands before the id of a repository of rows, here as in its address
ROW_FILES = (".parquet", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt")  # what `llm.tables` reads
NO_ROWS = (
    "dataset_infos.json",
    "dataset_info.json",
    "state.json",
    "requirements.txt",
)  # such names, no rows in them


def hosted() -> bool:
    """Whether strangers use this lab (a Space)."""
    return modes.is_shared()


def endpoint() -> str:
    """The address of the Hub: $HF_ENDPOINT, else huggingface.co."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def page(repo: str) -> str:
    """The page of a repository, for people."""
    return f"{endpoint()}/{repo}"


def parse(source: str) -> tuple[str, str]:
    """(repository, revision) of "hf:ORGANISATION/NAME[@REVISION]"; the revision is "main" where none is said.

    Raises ValueError for anything else, so that an id can never be a path or an address.
    """
    repo, _, revision = source.removeprefix("hf:").partition("@")
    if repo.startswith(f"{HUB}/"):  # copied from the address bar
        repo = "/".join(repo.removeprefix(f"{HUB}/").split("/")[:2])
    checked_repo(repo)
    if revision and (not REVISION.fullmatch(revision) or ".." in revision):
        raise ValueError(f"{revision[:60]!r} is no revision: take a branch, a tag or a commit.")
    return repo, revision or "main"


def checked_repo(repo: str) -> str:
    """`repo` if it has the form of a repository's id. Raises ValueError with that form."""
    halves = repo.split("/")
    sound = len(halves) in (1, 2) and all(PART.fullmatch(half) for half in halves)
    if not sound or ".." in repo or "--" in repo:
        raise ValueError(
            f"{repo[:100]!r} is no repository of the Hub: write ORGANISATION/NAME, such as HuggingFaceTB/SmolLM2-135M."
        )
    return repo


# ---- Asking ------------------------------------------------------------------------------------------------------


def search(text: str, limit: int = 20, token: str = "") -> list[dict[str, Any]]:
    """Models that make text and have `text` in their name, the most downloaded first; None where the Hub does not say.

    Each is id, organisation, downloads, likes, gated, licence, family, parameters, updated (YYYY-MM-DD). Raises
    ValueError when the Hub cannot be asked.
    """
    asked = {
        "search": text.strip()[:100],
        "pipeline_tag": "text-generation",
        "sort": "downloads",
        "limit": max(1, min(limit, 100)),
        "expand": ["downloads", "likes", "gated", "tags", "config", "safetensors", "lastModified"],
    }
    with asking("of that name", token):
        # one page, asked once: the client's own list_models tries for 20 seconds where there is no network
        found = _get(f"{endpoint()}/api/models", token, asked).json()
    found = found if isinstance(found, list) else []
    return [_row(model) for model in found if isinstance(model, dict) and isinstance(model.get("id"), str)]


def _row(model: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": model["id"],
        "organisation": model["id"].split("/")[0] if "/" in model["id"] else None,
        "downloads": model.get("downloads"),
        "likes": model.get("likes"),
        "gated": bool(model["gated"]) if "gated" in model else None,
        "licence": _licence(model.get("tags")),
        "family": _family(model.get("config")),
        "parameters": (model.get("safetensors") or {}).get("total"),
        "updated": (model.get("lastModified") or "")[:10] or None,
    }


def _licence(tags: list[str] | None) -> str | None:
    return next((tag.removeprefix("license:") for tag in tags or [] if tag.startswith("license:")), None)


def _family(theirs: Any) -> str | None:
    return theirs.get("model_type") if isinstance(theirs, dict) else None


def info(repo: str, revision: str = "", token: str = "") -> dict[str, Any]:
    """What the Hub says of a repository, its files with their sizes included.

    Keys: id, revision (the commit), gated, private, licence, family, parameters, downloads, page, gguf (names), files
    (each name, size in bytes, sha256 or None). Raises ValueError, with what to do, when it cannot be had.
    """
    repo, revision = parse(f"{repo}@{revision}" if revision else repo)
    with asking(repo, token):
        found = api(token).model_info(repo, revision=revision, files_metadata=True)
        files = [
            {
                "name": file.rfilename,
                "size": file.size or 0,
                "sha256": file.lfs.sha256 if file.lfs else None,
            }
            for file in found.siblings or []
        ]
    return {
        "id": found.id,
        "revision": found.sha,
        "gated": bool(found.gated),
        "private": bool(found.private),
        "licence": _licence(found.tags),
        "family": _family(found.config),
        "parameters": getattr(found.safetensors, "total", None),
        "downloads": found.downloads,
        "page": page(found.id),
        "gguf": sorted(file["name"] for file in files if file["name"].endswith(".gguf")),
        "files": files,
    }


def rows_id(source: str) -> str:
    """The id of a repository of rows as people write it: ORGANISATION/NAME, with datasets/ or the Hub's address before it.

    Raises ValueError for anything else.
    """
    plain = source.strip().removeprefix("hf:").removeprefix(f"{HUB}/").removeprefix(DATASETS)
    repo, revision = parse(f"{HUB}/{plain}" if plain.count("/") > 1 and "@" not in plain else plain)
    return f"{repo}@{revision}" if revision != "main" else repo


def rows_info(repo: str, revision: str = "", token: str = "") -> dict[str, Any]:
    """What the Hub says of a repository of rows: id, revision (the commit), gated, licence, page, and files.

    files are those that `llm.tables` reads, training rows first (each name, size in bytes, sha256 or None). Raises
    ValueError, with what to do, when it cannot be had or holds no such file.
    """
    repo, revision = parse(f"{repo}@{revision}" if revision else repo)
    with asking(DATASETS + repo, token):
        found = api(token).dataset_info(repo, revision=revision, files_metadata=True)
    files = [
        {"name": file.rfilename, "size": file.size or 0, "sha256": file.lfs.sha256 if file.lfs else None}
        for file in found.siblings or []
        if file.rfilename.lower().endswith(ROW_FILES) and Path(file.rfilename).name not in NO_ROWS
    ]
    if not files:
        raise ValueError(
            f"{DATASETS}{repo} has no file of rows that can be read here ({', '.join(ROW_FILES)}): {page(DATASETS + repo)} "
            "lists what it has."
        )
    return {
        "id": found.id,
        "revision": found.sha,
        "gated": bool(found.gated),
        "licence": _licence(found.tags),
        "page": page(DATASETS + found.id),
        "files": sorted(files, key=lambda file: ("train" not in file["name"].lower(), file["name"])),
    }


def config(repo: str, revision: str = "", token: str = "") -> dict[str, Any]:
    """The config.json of a repository, for a look at the model's shape before any weight is fetched. Raises ValueError."""
    repo, revision = parse(f"{repo}@{revision}" if revision else repo)
    with asking(repo, token):
        response = _get(_address(repo, revision, "config.json"), token)
        text = response.content
    if len(text) > 1_000_000:
        raise ValueError(f"The config.json of {repo} has {len(text):,} bytes: that is no config.")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"The config.json of {repo} is no JSON.") from None
    if not isinstance(found, dict):
        raise ValueError(f"The config.json of {repo} holds no settings.")
    return found


def needed(about: dict[str, Any], file: str = "") -> list[dict[str, Any]]:
    """Which files of `info`'s answer an import takes: the weights in one form, and the small files beside them.

    Raises ValueError when there are no weights that this lab opens, or several GGUF files and none is chosen.
    """
    files = {
        found["name"]: found for found in about["files"] if "/" not in found["name"] or found["name"] == file
    }
    if file:
        if file not in files:
            raise ValueError(f"{about['id']} has no file {file!r}.")
        return [files[file]]
    texts = [files[name] for name in TEXTS if name in files and files[name]["size"] <= MOST_TEXT]
    weights = [found for name, found in files.items() if name.endswith(".safetensors")]
    if "model.safetensors" in files:
        return [*texts, files["model.safetensors"]]
    if "model.safetensors.index.json" in files:
        parts = [found for found in weights if re.fullmatch(r"model-\d+-of-\d+\.safetensors", found["name"])]
        return [*texts, files["model.safetensors.index.json"], *parts]
    if "adapter_config.json" in files and "adapter_model.safetensors" in files:
        return [*texts, files["adapter_model.safetensors"]]
    if len(weights) == 1:
        return [*texts, *weights]
    if len(about["gguf"]) == 1:
        return [found for found in about["files"] if found["name"] == about["gguf"][0]]
    if about["gguf"]:
        named = [
            f"{found['name']} ({found['size'] / 1e6:,.0f} MB)"
            for found in about["files"]
            if found["name"] in about["gguf"]
        ]
        raise ValueError(
            f"{about['id']} has {len(named)} GGUF files: choose one of {', '.join(sorted(named)[:12])}."
        )
    pickles = [name for name in files if name.endswith((".bin", ".pt", ".pth"))]
    if pickles:
        raise ValueError(
            f"{about['id']} has its weights only in {pickles[0]}, a pickle, which can run commands as it is opened: it is not "
            "fetched. Look for a repository with .safetensors or GGUF files."
        )
    raise ValueError(f"{about['id']} has no weights that this lab opens (.safetensors or .gguf).")


# ---- Fetching ----------------------------------------------------------------------------------------------------


def root() -> Path:
    """Where downloads lie until they are imported."""
    folder = paths.cache() / "hub"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def folder(repo: str, revision: str = "main", file: str = "", owner: str = "") -> Path:
    """Where a download lies; every visitor has their own, since not everyone may have every model."""
    chosen = f"-{hashlib.sha256(file.encode()).hexdigest()[:8]}" if file else ""
    asked = quote(revision, safe="").replace("%", "_")
    return (
        root() / f"{repo.replace('/', '--')}@{asked}{chosen}.{paths.checked_name(owner or 'local', 'owner')}"
    )


def present(repo: str, revision: str = "main", file: str = "", owner: str = "") -> Path:
    """The folder, or the one file, of a download that is complete. Raises ValueError when it is not."""
    place = folder(repo, revision, file, owner)
    try:
        plan = json.loads((place / ".plan.json").read_text(encoding="utf-8"))
        whole = all((place / Path(f["name"]).name).stat().st_size == f["size"] for f in plan["files"])
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ValueError(f"{repo} is not downloaded yet.")
    return place / Path(file).name if file else place


def commit(repo: str, revision: str = "main", file: str = "", owner: str = "") -> str:
    """The commit that a download was made of; "" when there is none."""
    try:
        plan = (folder(repo, revision, file, owner) / ".plan.json").read_text(encoding="utf-8")
        return str(json.loads(plan)["revision"])
    except (OSError, ValueError, KeyError):
        return ""


def forget(repo: str, revision: str = "main", file: str = "", owner: str = "") -> None:
    """Remove a download, whole or not."""
    shutil.rmtree(folder(repo, revision, file, owner), ignore_errors=True)


def download(
    repo: str, revision: str = "", file: str = "", token: str = "", owner: str = ""
) -> Iterator[tuple[str, int, int]]:
    """Fetch what an import of `repo` needs; yields (file, bytes done, bytes in all) over all files as it goes on.

    A download that was cut goes on where it stopped, as long as the repository still has the same commit. It may be
    closed at any time. Raises ValueError with what to do: no network, no such model, gated, wrong token, disk full.
    """
    repo, revision = parse(f"{repo}@{revision}" if revision else repo)
    try:
        present(repo, revision, file, owner)
        return
    except ValueError:
        about = info(repo, revision, token)
    yield from _fetch(repo, revision, file, token, owner, about, needed(about, file))


def download_rows(
    repo: str, file: str, revision: str = "", token: str = "", owner: str = "", limit: int | None = None
) -> Iterator[tuple[str, int, int]]:
    """Fetch one file of a repository of rows, as `download` does it; `present(DATASETS + repo, ...)` says where it lies.

    limit: bytes that it may have. Raises ValueError like `download`, and for a file that is not there or too large.
    """
    repo, revision = parse(f"{repo}@{revision}" if revision else repo)
    what = DATASETS + repo
    try:
        present(what, revision, file, owner)
        return
    except ValueError:
        about = rows_info(repo, revision, token)
    files = [one for one in about["files"] if one["name"] == file]
    if not files:
        raise ValueError(f"{what} has no file {file[:80]!r}: choose one of those that are listed.")
    if limit is not None and files[0]["size"] > limit:
        raise ValueError(
            f"{file} has {files[0]['size'] / 1e6:,.1f} MB; at most {limit / 1e6:,.0f} MB are taken here: choose a smaller file."
        )
    yield from _fetch(what, revision, file, token, owner, about, files)


def _fetch(
    repo: str,
    revision: str,
    file: str,
    token: str,
    owner: str,
    about: dict[str, Any],
    files: list[dict[str, Any]],
) -> Iterator[tuple[str, int, int]]:
    """Receive `files` of a repository into its folder; yields (file, bytes done, bytes in all)."""
    place = folder(repo, revision, file, owner)
    place.mkdir(exist_ok=True)
    with _alone(place, repo):
        if commit(repo, revision, file, owner) not in ("", about["revision"]):
            for old in place.iterdir():  # parts of another version
                if old.name != ".lock":
                    old.unlink()
        _write_plan(place, about, files)
        total = sum(wanted["size"] for wanted in files)
        check_disk(total - sum(_have(place, wanted) for wanted in files), repo)
        done = 0
        for wanted in files:
            name = wanted["name"]
            with asking(repo, token):
                for own in _receive(_address(repo, about["revision"], name), place, wanted, token):
                    yield name, done + own, total
            done += wanted["size"]


def _write_plan(place: Path, about: dict[str, Any], files: list[dict[str, Any]]) -> None:
    plan = {"id": about["id"], "revision": about["revision"], "licence": about["licence"], "files": files}
    with paths.replacing(place / ".plan.json") as temporary:
        temporary.write_text(json.dumps(plan), encoding="utf-8")


def check_disk(needed: int, what: str) -> None:
    """Raise ValueError with both numbers when the disk has not `needed` bytes left for `what`."""
    free = shutil.disk_usage(paths.home()).free - SPARE
    if needed > free:
        raise ValueError(
            f"{what} needs {needed / 1e6:,.0f} MB and the disk has {max(free, 0) / 1e6:,.0f} MB left in {paths.home()}: free "
            "some space, or set LLM_HOME to another disk."
        )


@contextmanager
def _alone(place: Path, repo: str):
    """One download of one thing at a time: two would write the same file."""
    with open(place / ".lock", "a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{repo} is being downloaded already: wait for that, or stop it first."
            ) from None
        yield


def _part(place: Path, wanted: dict[str, Any]) -> tuple[Path, Path]:
    """(the file, what there is of it while it comes). Folders of the repository are left out: one is asked for at most."""
    name = Path(wanted["name"]).name
    return place / name, place / f".{name}.part"


def _have(place: Path, wanted: dict[str, Any]) -> int:
    """Bytes of a file that are here."""
    return next((path.stat().st_size for path in _part(place, wanted) if path.is_file()), 0)


def _receive(address: str, place: Path, wanted: dict[str, Any], token: str) -> Iterator[int]:
    """One file, from where an earlier try was cut; yields its bytes so far. It is in its place at the end, and checked."""
    path, part = _part(place, wanted)
    if path.is_file() and path.stat().st_size == wanted["size"]:
        yield wanted["size"]
        return
    have = part.stat().st_size if part.is_file() else 0
    if have > wanted["size"]:
        part.unlink()
        have = 0
    if have < wanted["size"] or not have:
        yield have
        with (
            _streamed(address, token, have) as response,
            open(part, "ab" if response.status_code == 206 else "wb") as f,
        ):
            done = have if response.status_code == 206 else 0
            for block in response.iter_bytes(BLOCK):
                done += len(block)
                if done > wanted["size"]:
                    break
                f.write(block)
                yield done
    _verify(part, wanted)
    with open(part, "rb") as f:
        os.fsync(f.fileno())
    os.replace(part, path)
    yield wanted["size"]


def _verify(part: Path, wanted: dict[str, Any]) -> None:
    """Raise ValueError when the bytes are not those that the Hub lists; a wrong file is thrown away, a short one kept."""
    size = part.stat().st_size
    if size < wanted["size"]:
        raise ValueError(
            f"The download of {wanted['name']} was cut after {size:,} of {wanted['size']:,} bytes: start it again to go on."
        )
    if wanted["sha256"]:
        with open(part, "rb") as f:
            digest = hashlib.sha256()
            while block := f.read(BLOCK):
                digest.update(block)
        if digest.hexdigest() != wanted["sha256"]:
            part.unlink()
            raise ValueError(
                f"{wanted['name']} did not come as the Hub lists it (another SHA-256): it was thrown away, try again."
            )


def _address(repo: str, revision: str, name: str) -> str:
    from huggingface_hub import hf_hub_url

    kind = "dataset" if repo.startswith(DATASETS) else "model"
    return hf_hub_url(
        repo.removeprefix(DATASETS), name, repo_type=kind, revision=revision, endpoint=endpoint()
    )


def _headers(token: str) -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers

    return {
        **build_hf_headers(token=credentials(token), library_name="llm-lab"),
        "Accept-Encoding": "identity",
    }


def _get(address: str, token: str, asked: dict[str, Any] | None = None) -> Any:
    """A small answer as a response. Raises the errors of huggingface_hub."""
    from huggingface_hub.utils import get_session, hf_raise_for_status

    response = get_session().get(
        address, params=asked, headers=_headers(token), timeout=TIMEOUT, follow_redirects=True
    )
    hf_raise_for_status(response)
    return response


@contextmanager
def _streamed(address: str, token: str, start: int):
    """The bytes of a file from `start` on (status 206), or all of them where the server does not know ranges (200).

    The authorisation is left out when the Hub sends us on to another server (the client does that).
    """
    from huggingface_hub.utils import get_session, hf_raise_for_status

    headers = _headers(token) | ({"Range": f"bytes={start}-"} if start else {})
    with get_session().stream(
        "GET", address, headers=headers, timeout=TIMEOUT, follow_redirects=True
    ) as response:
        hf_raise_for_status(response)
        if response.status_code == 206 and not _begins_at(response, start):
            raise ValueError(f"The server sent another part of {address} than was asked for: try again.")
        yield response


def _begins_at(response: Any, start: int) -> bool:
    return response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0] == str(start)


# ---- Giving ------------------------------------------------------------------------------------------------------


def push(
    source: Path, repo: str, token: str, private: bool = True, progress: Callable[[str], None] | None = None
) -> str:
    """Put the files of a folder (or one file) into a new repository of the visitor's account; returns its page.

    repo: NAME or ORGANISATION/NAME. Raises ValueError when it exists already, or when the token may not write.
    """
    checked_repo(repo)
    if not (token or logged_in()):
        raise ValueError(
            f"Uploading needs a token that may write: make one at {endpoint()}/settings/tokens and put it into the field "
            "(it is used once and not kept), or set HF_TOKEN before the lab is started."
        )
    hub = api(token)
    with asking(repo, token, writing=True):
        if "/" not in repo:
            repo = f"{hub.whoami()['name']}/{repo}"
        if progress:
            progress(f"making {repo}")
        if hub.repo_exists(repo) and not _unused(hub, repo, private):
            raise ValueError(
                f"There is a repository {repo} already, and nothing in it is replaced: choose another name."
            )
        hub.create_repo(repo, private=private, exist_ok=True)
        if progress:
            progress(f"uploading to {repo}")
        about = {"repo_id": repo, "commit_message": "Made by LLM Lab"}
        if source.is_dir():
            hub.upload_folder(folder_path=source, **about)
        else:
            hub.upload_file(path_or_fileobj=source, path_in_repo=source.name, **about)
    return page(repo)


def _unused(hub: HfApi, repo: str, private: bool) -> bool:
    """Whether a repository is as an upload that broke off leaves it: without files, and no more public than wished."""
    about = hub.model_info(repo)
    names = {file.rfilename for file in about.siblings or []}
    return not names - {".gitattributes"} and (bool(about.private) or not private)


# ---- Tokens and errors -------------------------------------------------------------------------------------------


def credentials(token: str) -> str | bool | None:
    """What huggingface_hub is told: this token; else that of this machine at home (None) and no one's on a Space (False).

    Raises ValueError, without showing it, for a token that cannot be one.
    """
    token = token.strip()
    if token and not TOKEN.fullmatch(token):
        raise ValueError(
            "This is not the form of a token of the Hub (hf_ and letters and digits): copy it once more."
        )
    return token or (False if hosted() else None)


def logged_in() -> bool:
    """Whether calls without a token are made in the name of this machine's user: at home, with HF_TOKEN or a login."""
    from huggingface_hub import get_token

    return not hosted() and bool(get_token())


def api(token: str = "") -> HfApi:
    """The Hub's client for one call."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), token=credentials(token), library_name="llm-lab")


@contextmanager
def asking(what: str, token: str = "", writing: bool = False):
    """Turn what the Hub or the network answers into a ValueError that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise ValueError(_gated(what, token)) from None
    except errors.RevisionNotFoundError:
        raise ValueError(
            f"{what} has no such revision: take a branch, a tag or a commit of {page(what)}."
        ) from None
    except errors.EntryNotFoundError:
        raise ValueError(f"{what} has no such file: {page(what)} lists them.") from None
    except errors.OfflineModeIsEnabled:
        raise ValueError(
            "The Hub is switched off (HF_HUB_OFFLINE is set): models can be opened from files meanwhile."
        ) from None
    except errors.HfHubHTTPError as error:
        raise ValueError(_refused(what, token, writing, error.response.status_code)) from None
    except json.JSONDecodeError:
        raise ValueError(
            f"{endpoint()} does not answer as the Hub does: is HF_ENDPOINT right, is there a network?"
        ) from None
    except errors.HFValidationError:
        raise ValueError(f"{what[:100]!r} is no name that the Hub takes.") from None
    except RuntimeError as error:  # of a thread that uploads a large file
        if not writing:
            raise
        raise ValueError(
            f"The upload to {what} broke off: try again. ({type(error.__cause__).__name__})"
        ) from None
    except errors.HTTPError as error:  # the network itself
        raise ValueError(
            f"{endpoint()} does not answer ({type(error).__name__}): is there a network? What came of a download is kept."
        ) from None


def _gated(repo: str, token: str) -> str:
    if not token and not logged_in():
        return (
            f"{repo} is gated: accept its terms at {page(repo)}, make a token at {endpoint()}/settings/tokens, and put it into "
            "the field (it is used once and not kept) or into HF_TOKEN before the lab is started."
        )
    return f"{repo} is gated, and the account of your token may not read it yet: accept its terms at {page(repo)}."


def _refused(what: str, token: str, writing: bool, status: int) -> str:
    """A sentence for an HTTP status."""
    given = bool(token) or logged_in()
    if status == 401 and given:
        return "The Hub does not know this token (401): it may be expired or cut; make a new one and copy it whole."
    if status in (401, 404):
        hint = (
            ""
            if given
            else "; if it is private, put a token that may read it into the field or into HF_TOKEN"
        )
        kind, name = (
            ("dataset", what.removeprefix(DATASETS)) if what.startswith(DATASETS) else ("model", what)
        )
        return f"The Hub has no {kind} {name} that you may see ({status}): look for typing errors{hint}."
    if status == 403:
        right = "write to" if writing else "read"
        return f"Your token may not {right} {what} (403): give it that right at {endpoint()}/settings/tokens."
    if status == 409:
        return f"There is a repository {what} already: choose another name."
    if status == 429:
        return "The Hub asks for a pause (429, too many requests): try again in a few minutes."
    return f"The Hub could not answer for {what} ({status}): try again later."
