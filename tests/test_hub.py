"""The Hub against a server of our own on this machine that answers as huggingface.co does: files, ranges, gates, commits."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
import urllib.parse

import pytest
from huggingface_hub import constants

from llm import hub, paths

GOOD, READER = "hf_goodgoodgood", "hf_readreadread"  # may write; may only read
COMMIT, NEWER = "a" * 40, "b" * 40
WEIGHTS = bytes(range(256)) * 12_000  # 3,072,000 bytes: a few blocks
FILES = {
    "config.json": b'{"model_type": "llama", "hidden_size": 64}',
    "tokenizer.json": b'{"model": {"type": "BPE"}}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"a pickle",
    "original/consolidated.00.pth": b"another pickle",
    "modeling_evil.py": b"import os",
    "README.md": b"---\nlicense: mit\n---\n",
}


ROW_FILES = {  # of a repository of rows
    "data/test-00000-of-00001.jsonl": b'{"instruction": "a", "output": "b"}\n',
    "data/train-00000-of-00001.jsonl": b'{"instruction": "Name a colour.", "output": "Red."}\n' * 40_000,
    "README.md": b"---\nlicense: mit\n---\n",
    "loader.py": b"import os",
}


class FakeHub:
    """The few answers of the Hub that huggingface_hub asks for, and a list of what was asked with which token."""

    def __init__(self):
        self.repos = {
            "org/tiny": dict(files=FILES, gated=False, private=False),
            "org/gated": dict(files=FILES, gated="manual", private=False),
            "org/secret": dict(files=FILES, gated=False, private=True),
            "org/ggufs": dict(
                files={"a-Q4_0.gguf": b"GGUF1", "b-Q8_0.gguf": b"GGUF22"}, gated=False, private=False
            ),
            "org/pickles": dict(
                files={"config.json": b"{}", "pytorch_model.bin": b"x"}, gated=False, private=False
            ),
            "org/other": dict(files={"notes.txt": b"x"}, gated=False, private=False),
        }
        self.rows = {
            "org/rows": dict(files=ROW_FILES, gated=False, private=False),
            "org/closed": dict(files=ROW_FILES, gated="manual", private=False),
            "org/pictures": dict(
                files={"a.png": b"x", "README.md": b"", "dataset_infos.json": b"{}"},
                gated=False,
                private=False,
            ),
        }
        self.commit, self.cut, self.ranges, self.wrong = COMMIT, None, True, False
        self.asked: list[tuple[str, str, str, str]] = []  # method, path, token, range
        self.made: dict[str, dict] = {}
        self.stored: dict[str, bytes] = {}
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                owner.answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = handle_any

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    # --- what is answered

    def answer(self, request) -> None:
        path, _, query = request.path.partition("?")
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.asked.append(
            (request.command, urllib.parse.unquote(path), token, request.headers.get("Range") or "")
        )
        if token and token not in (GOOD, READER):
            return self.refuse(request, 401, "", "Invalid credentials in Authorization header")
        if path == "/api/models":
            return self.send(request, self.listing(urllib.parse.parse_qs(query)))
        if path == "/api/whoami-v2":
            return (
                self.send(request, {"name": "alice", "type": "user"})
                if token
                else self.refuse(request, 401, "", "")
            )
        if path == "/api/validate-yaml":
            return self.send(request, {"warnings": [], "errors": []})
        if path == "/api/repos/create":
            return self.create(request, token, json.loads(body))
        if path.startswith("/api/models/"):
            return self.api(request, path.removeprefix("/api/models/"), token, body)
        if path.startswith("/api/datasets/"):
            return self.api(request, path.removeprefix("/api/datasets/"), token, body, self.rows)
        if "/info/lfs/objects/batch" in path:
            return self.batch(request, json.loads(body))
        if path.startswith("/store/"):
            self.stored[path.removeprefix("/store/")] = body
            return self.send(request, {})
        repo, _, rest = path[1:].partition("/resolve/")
        repos = self.rows if repo.startswith("datasets/") else self.repos
        repo = repo.removeprefix("datasets/")
        revision, _, name = rest.partition("/")
        if not self.may(request, repo, token, repos):
            return None
        if revision not in ("main", self.commit):
            return self.refuse(request, 404, "RevisionNotFound", "no such revision")
        name = urllib.parse.unquote(name)
        if name not in repos[repo]["files"]:
            return self.refuse(request, 404, "EntryNotFound", "no such file")
        return self.file(request, repos[repo]["files"][name])

    def may(self, request, repo: str, token: str, repos: dict | None = None) -> bool:
        about = (self.repos if repos is None else repos).get(repo)
        if about is None or (about["private"] and not token):
            self.refuse(request, 404 if token else 401, "RepoNotFound", "Repository not found")
            return False
        if about["gated"] and token != GOOD and "/resolve/" in request.path:
            self.refuse(request, 403 if token else 401, "GatedRepo", "Access to this model is restricted")
            return False
        return True

    def listing(self, query: dict) -> list[dict]:
        wanted = query.get("search", [""])[0].lower()
        assert query["pipeline_tag"] == ["text-generation"] and query["sort"] == ["downloads"]
        rows = [
            dict(
                id=name, modelId=name, downloads=1000 - i, likes=i, gated=about["gated"], private=about["private"],
                tags=["license:mit", "text-generation"], config={"model_type": "llama"},
                safetensors={"parameters": {"F32": 1234}, "total": 1234}, lastModified="2025-01-02T03:04:05.000Z",
            )
            for i, (name, about) in enumerate(self.repos.items())
            if wanted in name and not about["private"]
        ]  # fmt: skip
        return rows[: int(query["limit"][0])]

    def api(self, request, rest: str, token: str, body: bytes, repos: dict | None = None) -> None:
        repos = self.repos if repos is None else repos
        parts = rest.split("/")
        repo, action = "/".join(parts[:2]), parts[2:]
        if action[:1] == ["preupload"]:
            sent = json.loads(body)["files"]
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["size"] > 100_000 else "regular",
                    "shouldIgnore": False,
                }
                for f in sent
            ]
            return self.send(request, {"files": modes})
        if action[:1] == ["commit"]:
            for line in body.splitlines():
                said = json.loads(line)
                if said["key"] == "file":
                    self.made[repo]["files"][said["value"]["path"]] = base64.b64decode(
                        said["value"]["content"]
                    )
                if said["key"] == "lfsFile":
                    self.made[repo]["files"][said["value"]["path"]] = self.stored[said["value"]["oid"]]
            return self.send(request, {"commitUrl": f"{self.url}/{repo}/commit/1", "commitOid": "c" * 40})
        if not self.may(request, repo, token, repos):
            return None
        if action[:1] == ["revision"] and action[1] not in ("main", self.commit):
            return self.refuse(request, 404, "RevisionNotFound", "no such revision")
        about = repos[repo]
        listed = [
            {
                "rfilename": name,
                "size": len(data),
                **(
                    {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1}}
                    if len(data) > 1000
                    else {}
                ),
            }
            for name, data in about["files"].items()
        ]
        known = dict(id=repo, modelId=repo, sha=self.commit, gated=about["gated"], private=about["private"])
        more = dict(tags=["license:mit"], downloads=5, siblings=listed, config={"model_type": "llama"})
        return self.send(request, known | more)

    def create(self, request, token: str, said: dict) -> None:
        if token != GOOD:
            return self.refuse(request, 403, "", "You don't have the rights to create a model")
        name = f"{said.get('organization') or 'alice'}/{said['name']}"
        self.made[name] = {
            "private": said.get("private", said.get("visibility") == "private"),
            "files": {},
            "said": said,
        }
        return self.send(request, {"url": f"{self.url}/{name}"})

    def batch(self, request, said: dict) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.url}/store/{one['oid']}"}}}
            for one in said["objects"]
        ]
        return self.send(request, {"transfer": "basic", "objects": objects})

    def file(self, request, data: bytes) -> None:
        asked = request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if self.wrong:
            data = data[::-1]
        request.send_response(206 if start else 200)
        request.send_header("ETag", '"x"')
        request.send_header("X-Repo-Commit", self.commit)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        request.wfile.write(data[start : self.cut])
        if self.cut is not None and self.cut < len(data):
            request.close_connection = True
            request.wfile.flush()

    def send(self, request, value) -> None:
        text = json.dumps(value).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    def refuse(self, request, status: int, code: str, message: str) -> None:
        request.send_response(status)
        if code:
            request.send_header("X-Error-Code", code)
        request.send_header("X-Error-Message", message)
        request.send_header("Content-Length", "0")
        request.end_headers()


@pytest.fixture
def server(monkeypatch, tmp_path):
    fake = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield fake
    fake.http.shutdown()
    fake.http.server_close()


def fetched(repo: str, *arguments: str, **named: str) -> list[tuple[str, int, int]]:
    return list(hub.download(repo, *arguments, **named))


def leftovers() -> list[str]:
    return [str(p) for p in paths.home().rglob("*") if GOOD.encode() in str(p).encode()] + [
        str(p) for p in paths.home().rglob("*") if p.is_file() and GOOD.encode() in p.read_bytes()
    ]


# ---- Asking ------------------------------------------------------------------------------------------------------


def test_search_gives_plain_rows(server):
    found = hub.search("tiny")
    assert found == [
        dict(
            id="org/tiny", organisation="org", downloads=1000, likes=0, gated=False, licence="mit", family="llama",
            parameters=1234, updated="2025-01-02",
        )
    ]  # fmt: skip
    assert len(hub.search("", limit=3)) == 3 and hub.search("nothing like it") == []


def test_info_says_what_there_is(server):
    about = hub.info("org/tiny")
    assert (about["revision"], about["licence"], about["family"], about["gated"]) == (
        COMMIT,
        "mit",
        "llama",
        False,
    )
    sizes = {file["name"]: file["size"] for file in about["files"]}
    assert sizes == {name: len(data) for name, data in FILES.items()}
    assert hub.config("org/tiny") == {"model_type": "llama", "hidden_size": 64}


@pytest.mark.parametrize("token", ["", GOOD])
def test_an_unknown_model_and_revision(server, token):
    with pytest.raises(ValueError, match=r"no model org/nothing that you may see \(40[14]\)"):
        hub.info("org/nothing", token=token)
    with pytest.raises(ValueError, match="no such revision"):
        hub.info("org/tiny", "v9", token=token)
    with pytest.raises(ValueError, match="no such file"):
        hub.config("org/ggufs", token=token)


@pytest.mark.parametrize(
    "source",
    [
        "hf:../x",
        "hf:a/b/c",
        "hf:",
        "hf:a/../b",
        "hf:-x/y",
        "hf:a/b@..",
        "hf:a/b@x y",
        "hf:http://x/y",
        "hf:a--b/c",
    ],
)
def test_an_id_is_never_a_path_or_an_address(source):
    with pytest.raises(ValueError, match=r"no repository of the Hub|no revision"):
        hub.parse(source)


def test_ids_as_people_write_them():
    assert hub.parse("hf:org/name") == ("org/name", "main")
    assert hub.parse("hf:gpt2@refs/pr/1") == ("gpt2", "refs/pr/1")
    assert hub.parse("hf:https://huggingface.co/org/name/tree/main") == ("org/name", "main")


# ---- Which files -------------------------------------------------------------------------------------------------


def test_only_what_an_import_needs(server):
    wanted = [file["name"] for file in hub.needed(hub.info("org/tiny"))]
    assert wanted == ["config.json", "tokenizer.json", "README.md", "model.safetensors"]
    assert [file["name"] for file in hub.needed(hub.info("org/ggufs"), "b-Q8_0.gguf")] == ["b-Q8_0.gguf"]


def test_a_sharded_model_comes_whole_and_once():
    names = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    names += ["model.safetensors.index.json", "consolidated.safetensors"]
    about = {"id": "o/n", "gguf": [], "files": [dict(name=name, size=1, sha256=None) for name in names]}
    assert [file["name"] for file in hub.needed(about)] == ["config.json", names[3], *names[1:3]]


@pytest.mark.parametrize(
    ("repo", "sentence"),
    [
        ("org/ggufs", r"has 2 GGUF files: choose one of a-Q4_0.gguf \(0 MB\), b-Q8_0.gguf"),
        ("org/pickles", "only in pytorch_model.bin, a pickle"),
        ("org/other", "no weights that this lab opens"),
    ],
)
def test_what_cannot_be_opened_is_not_fetched(server, repo, sentence):
    with pytest.raises(ValueError, match=sentence):
        fetched(repo)
    assert not any("/resolve/" in path for _, path, _, _ in server.asked)


# ---- Fetching ----------------------------------------------------------------------------------------------------


def test_a_download_with_progress_then_no_network(server):
    seen = fetched("org/tiny")
    total = sum(
        len(FILES[name]) for name in ("config.json", "tokenizer.json", "README.md", "model.safetensors")
    )
    done = [done for _, done, _ in seen]
    assert done == sorted(done) and seen[-1] == ("model.safetensors", total, total)
    assert len({row[0] for row in seen}) == 4 and len(seen) > 6
    place = hub.present("org/tiny")
    assert (place / "model.safetensors").read_bytes() == WEIGHTS
    assert not (place / "pytorch_model.bin").exists() and not (place / "modeling_evil.py").exists()
    server.asked.clear()
    assert fetched("org/tiny") == [] and server.asked == []
    assert hub.commit("org/tiny") == COMMIT
    hub.forget("org/tiny")
    with pytest.raises(ValueError, match="not downloaded yet"):
        hub.present("org/tiny")


def test_one_chosen_gguf_is_one_file(server):
    fetched("org/ggufs", file="b-Q8_0.gguf")
    assert hub.present("org/ggufs", file="b-Q8_0.gguf").read_bytes() == b"GGUF22"
    with pytest.raises(ValueError, match="no file"):
        fetched("org/ggufs", file="../../secret")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on(server, ranges):
    server.cut = 1_500_000
    with pytest.raises(ValueError, match=r"does not answer|was cut"):
        fetched("org/tiny")
    with pytest.raises(ValueError, match="not downloaded yet"):
        hub.present("org/tiny")
    server.cut, server.ranges = None, ranges
    server.asked.clear()
    fetched("org/tiny")
    assert (hub.present("org/tiny") / "model.safetensors").read_bytes() == WEIGHTS
    asked = {path.rpartition("/")[2]: given for _, path, _, given in server.asked if "/resolve/" in path}
    assert list(asked) == ["model.safetensors"]  # the others were whole
    assert asked["model.safetensors"].startswith("bytes=") and asked["model.safetensors"] != "bytes=0-"


def test_closing_keeps_what_came(server):
    coming = hub.download("org/tiny")
    for name, done, _ in coming:
        if name == "model.safetensors" and done > 1_100_000:
            break
    coming.close()
    (part,) = hub.folder("org/tiny").glob(".*.part")
    assert 0 < part.stat().st_size < len(WEIGHTS)
    fetched("org/tiny")
    assert (hub.present("org/tiny") / "model.safetensors").read_bytes() == WEIGHTS
    assert not list(hub.folder("org/tiny").glob(".*.part"))


def test_parts_of_an_older_commit_are_not_joined_to_a_newer(server):
    server.cut = 1_500_000
    with pytest.raises(ValueError):
        fetched("org/tiny")
    server.cut, server.commit = None, NEWER
    server.repos["org/tiny"] = {
        **server.repos["org/tiny"],
        "files": {**FILES, "model.safetensors": WEIGHTS[::-1]},
    }
    fetched("org/tiny")
    assert (hub.present("org/tiny") / "model.safetensors").read_bytes() == WEIGHTS[::-1]


def test_wrong_bytes_are_thrown_away(server):
    server.wrong = True
    with pytest.raises(ValueError, match=r"model.safetensors did not come as the Hub lists it"):
        fetched("org/tiny")
    server.wrong = False
    hub.forget("org/tiny")
    fetched("org/tiny")


def test_a_full_disk_is_said_with_both_numbers(server, monkeypatch):
    usage = hub.shutil.disk_usage(paths.home().parent)
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: usage._replace(free=hub.SPARE + 1_000_000))
    with pytest.raises(ValueError, match=r"org/tiny needs 3 MB and the disk has 1 MB left"):
        fetched("org/tiny")


def test_two_at_once_do_not_mix(server):
    first = hub.download("org/tiny")
    next(first)
    with pytest.raises(ValueError, match="being downloaded already"):
        fetched("org/tiny")
    list(first)
    assert (hub.present("org/tiny") / "model.safetensors").read_bytes() == WEIGHTS


# ---- Gates and tokens --------------------------------------------------------------------------------------------


def test_a_gated_model_says_what_to_do(server):
    with pytest.raises(
        ValueError, match=r"org/gated is gated: accept its terms at http.*org/gated, make a token at"
    ):
        fetched("org/gated")
    with pytest.raises(ValueError, match="the account of your token may not read it yet"):
        fetched("org/gated", token=READER)
    fetched("org/gated", token=GOOD)
    assert leftovers() == []


def test_a_token_of_the_environment_serves_at_home_only(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", GOOD)
    fetched("org/gated")
    hub.forget("org/gated")
    monkeypatch.setenv("SPACE_ID", "a/b")
    server.asked.clear()
    with pytest.raises(ValueError, match="is gated: accept its terms"):
        fetched("org/gated")
    assert {token for _, _, token, _ in server.asked} == {""}


def test_what_one_visitor_may_have_another_does_not_get(server):
    fetched("org/secret", token=GOOD, owner="visitor1")
    hub.present("org/secret", owner="visitor1")
    for owner in ("visitor2", ""):
        with pytest.raises(ValueError, match="not downloaded yet"):
            hub.present("org/secret", owner=owner)
    with pytest.raises(
        ValueError, match=r"no model org/secret that you may see.*if it is private, put a token"
    ):
        fetched("org/secret", owner="visitor2")


@pytest.mark.parametrize("token", ["hf_wrongwrong", "two words", "hf_\nX-Evil: 1", "é" * 10, "x"])
def test_a_wrong_token_is_never_shown(server, token, capfd):
    for call in (
        lambda: hub.info("org/tiny", token=token),
        lambda: fetched("org/tiny", token=token),
        lambda: hub.search("tiny", token=token),
    ):
        with pytest.raises(
            ValueError, match=r"does not know this token \(401\)|not the form of a token"
        ) as error:
            call()
        assert token not in str(error.value)
    assert token not in "".join(capfd.readouterr())


def test_no_network_and_the_switch(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"http://127.0.0.1:9 does not answer .*is there a network"):
        hub.search("tiny")
    with pytest.raises(ValueError, match="does not answer"):
        fetched("org/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        hub.search("tiny")


# ---- Giving ------------------------------------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path):
    folder = tmp_path / "an-export"
    folder.mkdir()
    (folder / "config.json").write_bytes(FILES["config.json"])
    (folder / "README.md").write_text("# A model\n")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


def test_a_folder_becomes_a_private_repository(server, exported):
    told = []
    assert hub.push(exported, "my-model", GOOD, progress=told.append) == f"{server.url}/alice/my-model"
    made = server.made["alice/my-model"]
    assert made["private"] is True
    assert made["files"] == {file.name: file.read_bytes() for file in exported.iterdir()}
    assert told == ["making alice/my-model", "uploading to alice/my-model"]
    assert leftovers() == []


def test_a_file_becomes_a_public_repository_when_that_is_asked_for(server, exported):
    hub.push(exported / "config.json", "an-org/x", GOOD, private=False)
    assert server.made["an-org/x"]["private"] is False
    assert server.made["an-org/x"]["files"] == {"config.json": FILES["config.json"]}


def test_an_upload_that_broke_off_can_be_done_again(server, exported):
    empty = {".gitattributes": b""}
    server.repos["alice/x"] = dict(files=empty, gated=False, private=True)
    hub.push(exported, "x", GOOD)
    assert len(server.made["alice/x"]["files"]) == 3
    server.repos["alice/x"]["private"] = False  # what should be private does not go where all can read
    with pytest.raises(ValueError, match="is a repository alice/x already"):
        hub.push(exported, "x", GOOD)


def test_a_server_that_is_no_hub(server, monkeypatch):
    monkeypatch.setattr(server, "listing", lambda _: None)
    assert hub.search("x") == []
    monkeypatch.setattr(
        server, "send", lambda request, _: FakeHub.file(server, request, b"<html>log in</html>")
    )
    for call in (lambda: hub.search("x"), lambda: hub.info("org/tiny")):
        with pytest.raises(ValueError, match="does not answer as the Hub does"):
            call()


def test_uploads_that_are_refused(server, exported):
    with pytest.raises(ValueError, match="needs a token that may write"):
        hub.push(exported, "x", "")
    with pytest.raises(ValueError, match=r"may not write to x \(403\)"):
        hub.push(exported, "x", READER)
    with pytest.raises(ValueError, match="is a repository org/tiny already"):
        hub.push(exported, "org/tiny", GOOD)
    with pytest.raises(ValueError, match=r"does not know this token"):
        hub.push(exported, "x", "hf_wrongwrong")
    assert server.made == {}


# ---- Rows --------------------------------------------------------------------------------------------------------


TRAIN = "data/train-00000-of-00001.jsonl"


def test_rows_are_listed_training_first(server):
    about = hub.rows_info("org/rows")
    assert [file["name"] for file in about["files"]] == [TRAIN, "data/test-00000-of-00001.jsonl"]
    assert about["files"][0]["size"] == len(ROW_FILES[TRAIN]) and about["revision"] == COMMIT
    assert about["page"] == f"{server.url}/datasets/org/rows" and about["licence"] == "mit"
    with pytest.raises(ValueError, match="org/pictures has no file of rows that can be read here"):
        hub.rows_info("org/pictures")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("org/rows", "org/rows"),
        (" datasets/org/rows ", "org/rows"),
        ("https://huggingface.co/datasets/org/rows", "org/rows"),
        ("https://huggingface.co/datasets/org/rows/tree/main", "org/rows"),
        ("hf:org/rows@v1", "org/rows@v1"),
    ],
)
def test_ids_of_rows_as_people_write_them(written, meant):
    assert hub.rows_id(written) == meant


@pytest.mark.parametrize("written", ["", "../etc", "org/../rows", "http://127.0.0.1/x", "a b"])
def test_an_id_of_rows_is_never_a_path_or_an_address(written):
    with pytest.raises(ValueError, match="no repository of the Hub"):
        hub.rows_id(written)


def test_a_file_of_rows_comes_with_progress_and_is_read(server):
    from llm import rows

    told = list(hub.download_rows("org/rows", TRAIN))
    size = len(ROW_FILES[TRAIN])
    assert told[0] == (TRAIN, 0, size) and told[-1] == (TRAIN, size, size) and len(told) > 3
    place = hub.present("datasets/org/rows", "main", TRAIN)
    assert place.read_bytes() == ROW_FILES[TRAIN]
    assert len(rows.check(rows.read(place)).good) == 40_000
    asked = len(server.asked)
    assert list(hub.download_rows("org/rows", TRAIN)) == [] and len(server.asked) == asked
    with pytest.raises(ValueError, match="not downloaded yet"):  # a model of the same name is another thing
        hub.present("org/rows", "main", TRAIN)


def test_rows_that_were_cut_go_on(server):
    server.cut = 1_500_000
    with pytest.raises(ValueError, match=r"cut after 1,500,000|does not answer"):
        list(hub.download_rows("org/rows", TRAIN))
    server.cut = None
    told = list(hub.download_rows("org/rows", TRAIN))
    assert told[0][1] == hub.BLOCK and server.asked[-1][3] == f"bytes={hub.BLOCK}-"  # whole blocks are kept
    assert hub.present("datasets/org/rows", "main", TRAIN).read_bytes() == ROW_FILES[TRAIN]


def test_rows_that_cannot_be_had_are_said_in_words(server):
    with pytest.raises(ValueError, match="The Hub has no dataset org/nothing that you may see"):
        hub.rows_info("org/nothing")
    with pytest.raises(
        ValueError, match=r"org/closed is gated: accept its terms at .*/datasets/org/closed, make a token"
    ):
        list(hub.download_rows("org/closed", TRAIN))
    assert list(hub.download_rows("org/closed", TRAIN, token=GOOD)) and not leftovers()
    with pytest.raises(ValueError, match=r"has no file 'loader\.py'"):
        list(hub.download_rows("org/rows", "loader.py"))
    with pytest.raises(ValueError, match=r"has 2\.1 MB; at most 1 MB are taken here"):
        list(hub.download_rows("org/rows", TRAIN, limit=10**6))
