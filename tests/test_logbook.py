"""The log: errors and what the queue did, readable by the teacher alone, and no secret in it whichever way one gets there."""

import base64
import json
import logging
import multiprocessing
import os
import stat
import subprocess
import sys
import time
from urllib.parse import quote

import gradio as gr
import pytest

from llm import backup, dispatch, endpoints, logbook, modes, paths
from llm.runs import Run
from tests.test_ui_room import in_class, said, teacher, visitor  # noqa: F401
from ui import allowed, owner
from ui.parts import plain_errors

log = logging.getLogger("llm-lab")
CANARY = "wombat-0815-cinnamon"


@pytest.fixture
def book(home):
    """The log of a page that has started; the logger is as before afterwards."""
    before = (list(log.handlers), log.level, log.propagate)
    logbook.start()
    yield home / "lab.log"
    log.handlers, log.propagate = before[0], before[2]
    log.setLevel(before[1])


def texts():
    return [one["text"] for one in logbook.newest()]


# --- what stands in it


def test_errors_warnings_and_news_are_lines(book, capsys):
    log.info("run poem begins")
    log.warning("the disk is %s", "nearly full")
    try:
        raise KeyError("a-name")
    except KeyError:
        log.exception("error %s in %s", "ab12cd", "tokens")
    found = logbook.newest()
    assert [one["level"] for one in found] == ["error", "warning", "info"]
    assert found[0]["text"] == "error ab12cd in tokens" and "KeyError: 'a-name'" in found[0]["details"]
    assert found[1]["text"] == "the disk is nearly full" and abs(found[1]["time"] - time.time()) < 60
    assert len(book.read_text().splitlines()) == 3 and stat.S_IMODE(os.stat(book).st_mode) == 0o600
    assert "\n" not in json.loads(book.read_text().splitlines()[0])["text"]


def test_a_text_cannot_forge_a_line_and_a_broken_one_is_left_out(book):
    # not through the logger: pytest keeps what it says, and a report cannot hold half of a character
    logbook.write("info", 'a\n{"time": 1, "level": "error", "text": "forged"}\x00\ud800', "", 1.0)
    with open(book, "ab") as f:
        f.write(b'{"time": 1, "lev')
    log.info("after")  # its line is joined to the broken one, as a killed writer leaves it
    log.info("well")
    assert texts()[0] == "well" and texts()[-1].startswith("a\n{") and "forged" not in texts()


def test_it_turns_the_page_and_keeps_three_files(book, home):
    for number in range(1000):
        log.info("%05d %s", number, "x" * 3900)
    files = sorted(path.name for path in home.glob("lab.log*"))
    assert files == ["lab.log", "lab.log.1", "lab.log.2"]
    assert all((home / name).stat().st_size <= logbook.MOST for name in files)
    assert (home / "lab.log.2").stat().st_size > 0.9 * logbook.MOST
    found = logbook.newest(400)
    assert [int(one["text"][:5]) for one in found] == list(
        range(999, 599, -1)
    )  # over the turned page, none missing


def writes(home, who):
    os.environ["LLM_HOME"] = str(home)
    for number in range(150):
        logbook.write("info", f"{who} {number} {'x' * 3900}", "", 1.0)


def test_several_processes_write_whole_lines(home, monkeypatch):
    home.mkdir()
    monkeypatch.setattr(logbook, "FILES", 9)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=writes, args=(home, who)) for who in "abcd"]
    [one.start() for one in workers]
    [one.join() for one in workers]
    lines = [line for path in home.glob("lab.log*") for line in path.read_text().splitlines()]
    seen = {tuple(json.loads(line)["text"].split()[:2]) for line in lines}
    assert len(lines) == 600 and len(seen) == 600  # none lost, none torn


def test_a_full_disk_is_no_fault_of_the_page(book, monkeypatch):
    monkeypatch.setattr(
        logbook, "opened", lambda: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    log.warning("still here")


# --- no secrets


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "HF_TOKEN", "MY_SECRET", "db_password", "LLM_TEACHER", "SOMEKEYS"]
)
@pytest.mark.parametrize(
    "spelled",
    [
        lambda value: value,
        lambda value: f"{{'authorization': {value!r}}}",
        lambda value: f"https://x.org/?q={quote(value, safe='')}",
        lambda value: base64.b64encode(value.encode()).decode(),
        lambda value: json.dumps(value),
    ],
)
def test_what_the_environment_keeps_is_never_in_it(book, home, monkeypatch, name, spelled):
    value = f'{CANARY} "é\\'
    monkeypatch.setenv(name, value)
    log.error("it said %s", spelled(value))
    try:
        raise RuntimeError(spelled(value))
    except RuntimeError:
        log.exception("an error")
    told = book.read_text() + json.dumps(logbook.newest())
    assert (
        CANARY not in told
        and quote(CANARY) not in told
        and base64.b64encode(CANARY.encode()).decode()[:20] not in told
    )
    assert told.count("[secret]") >= 4


@pytest.mark.parametrize("mode", ["local", "space"])
def test_keys_of_endpoints_on_disk_or_in_memory(book, monkeypatch, mode):
    monkeypatch.setenv("LLM_MODE", mode)
    monkeypatch.setattr(endpoints, "_in_memory", {})
    monkeypatch.setattr(endpoints, "_is_anothers", lambda endpoint: False)
    monkeypatch.setattr(endpoints, "checked", lambda endpoint: endpoint)
    endpoints.save(
        endpoints.Endpoint(name="far", preset="vllm", address="https://a.org/v1", model="m"), CANARY
    )
    log.error("the server at a.org refused %s", CANARY)
    assert CANARY not in book.read_text() and "refused [secret]" in texts()[0]


def test_the_teachers_token_and_cookies(book, in_class, monkeypatch):  # noqa: F811
    monkeypatch.delenv("LLM_TEACHER")
    token, cookie = owner.teacher_token(), owner.sign("ab" * 16)
    log.warning("GET /teacher/%s %s", token, token)
    log.warning(
        "headers: {'cookie': 'lab_owner=%s; lab_teacher=%s', 'host': 'x'}",
        cookie,
        owner.teacher_mark("ab" * 16),
    )
    log.warning("%s and %s and %s", cookie, "ab" * 16, owner.teacher_mark("x"))
    told = book.read_text()
    for secret in (token, cookie, "ab" * 16, cookie.partition(".")[2], owner.teacher_mark("x")):
        assert secret not in told


@pytest.mark.parametrize(
    "text",
    [
        "key sk-abcDEF1234567890", "hf_abcDEF1234567890", "Authorization: Bearer abc.DEF-123456", "bearer abcdef123456",
        "Authorization: Basic abcDEF1234567890", "x-api-key: abcDEF1234567890", "ghp_abcDEF1234567890",
        "api_key='abcDEF1234567890'", '{"apiKey": "abcDEF1234567890"}', "password=abcDEF1234567890", "hub_token: abcDEF1234567890",
        "https://me:abcDEF1234567890@x.org/", "Set-Cookie: a=abcDEF1234567890; Path=/", "AKIAABCDEF1234567890",
        "AIzaabcDEF1234567890abcDEF123456", "eyJabcDEF1234.abcDEF1234567890.x", "-----BEGIN RSA PRIVATE KEY-----\nabcDEF1234567890\n",
        "xoxb-abcDEF1234567890",
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_goes_too(book, text):
    log.error("before %s", text)
    assert "[secret]" in texts()[0] and texts()[0].startswith("before ")
    for part in ("abcDEF", "ABCDEF", "abc.DEF", "abcdef"):
        assert part not in book.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "error ab12cd in build.<locals>.start", "run stories-1201-0408 ended: finished. Finished at step 1,600.",
        "run poem ended: failed. The model has 60 tokens, max_tokens=60 and top_k=50", "refused /lab/wall: Only the teacher sees the wall.",
        "the janitor removed cache/ids-0123456789abcdef01234567.bin (can be made again, 1.0 MB)", "The tokenizer of key-words has 257 ids",
    ],
)  # fmt: skip
def test_plain_sentences_stay_as_they_are(book, text):
    log.warning("%s", text)
    assert texts() == [text]


def test_a_secret_saved_after_the_line_is_not_shown_any_more(book, monkeypatch):
    log.warning("it said %s", CANARY)
    assert CANARY in texts()[0]
    monkeypatch.setenv("LATER_KEY", CANARY)
    assert "it said [secret]" in texts()


def test_the_terminal_hears_warnings_without_secrets(home, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", CANARY)
    code = (
        "import logging; from llm import logbook; logbook.start(); logbook.start(); log = logging.getLogger('llm-lab');"
        f"log.info('quiet'); log.warning('loud {CANARY}')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True)
    assert done.stderr == "loud [secret]\n" and done.stdout == ""
    assert [one["text"] for one in logbook.newest()] == ["loud [secret]", "quiet"]


# --- who reads it


def test_a_teacher_finds_a_students_error_by_its_number_and_a_student_is_refused(book, in_class):  # noqa: F811
    with gr.Blocks() as page:
        box = gr.Textbox()

        def breaks(text):
            raise RuntimeError(f"the machine said {os.environ['HF_TOKEN']}")

        box.change(plain_errors(breaks), box, box)
    allowed.authorise(page)
    [event] = page.fns.values()
    os.environ["HF_TOKEN"] = CANARY
    try:
        with pytest.raises(gr.Error) as shown:
            event.fn("x")
        number = str(shown.value).split()[-1].strip(".'")
        ada, chief = visitor(), teacher()
        assert said(ada, "log", 403)["error"] == "Only the teacher reads the log."
        lines = said(chief, "log")["lines"]
    finally:
        del os.environ["HF_TOKEN"]
    assert len(number) == 6
    found = next(one for one in lines if number in one["text"])
    assert (
        found["level"] == "error"
        and "the machine said [secret]" in found["details"]
        and CANARY not in json.dumps(lines)
    )
    assert any("refused /lab/log" in one["text"] for one in lines)
    assert set(found) == {"time", "level", "text", "details"} and len(lines) <= 60


@pytest.mark.parametrize("mode", ["local", "space"])
def test_nobody_reads_it_where_nobody_teaches(book, in_class, monkeypatch, mode):  # noqa: F811
    chief = teacher()
    monkeypatch.setenv("LLM_MODE", mode)
    assert said(chief, "log", 403)["error"]


def test_what_a_visitor_may_not_have_is_noted(book, in_class):  # noqa: F811
    modes.change(waiting=1)

    def start():
        Run.create("train", {"dataset": "stories"}, "ada", f"run-{len(list(paths.runs().iterdir()))}")

    handler = plain_errors(start)
    handler()
    with pytest.raises(gr.Error, match="the 1 that one visitor may have"):
        handler()
    with pytest.raises(gr.Error):
        plain_errors(lambda: paths.checked_name("../" + CANARY))()  # what somebody typed is not noted
    assert (
        sum("refused in" in one for one in texts()) == 1
        and "may have" in texts()[0]
        and CANARY not in book.read_text()
    )


def test_runs_of_the_queue_begin_and_end_in_it(book, home, monkeypatch):
    (paths.datasets() / "mine.txt").write_text("A fox sat by the sea.\n" * 20)
    run = Run.create("tokenizer", {"dataset": "mine", "vocab_size": 260}, name="merges")
    dispatch.pump()
    end = time.monotonic() + 60
    while run.status() in ("waiting", "running") and time.monotonic() < end:
        time.sleep(0.1)
    while not any("merges ended" in one for one in texts()) and time.monotonic() < end:
        time.sleep(0.1)
    told = texts()
    assert any(one == "run merges (tokenizer) begins, attempt 1" for one in told), told
    assert sum(one.startswith("run merges ended: finished") for one in told) == 1


def test_a_backup_leaves_it_out(book, tmp_path):
    log.info("x")
    (paths.home() / "lab.log.1").write_text("{}\n")
    (paths.datasets() / "mine.txt").write_text("Mine.\n")
    assert [str(path) for path in backup.contents(paths.home())] == ["datasets/mine.txt"]
