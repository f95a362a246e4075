"""Share, lessons and class: who may ask what, what the routes answer, what a link hides, that shipped lessons fit the page."""

import json
from html import unescape

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import app
from llm import classroom, dispatch, lessons, modes, owned, paths
from llm.runs import Run
from ui import allowed, lesson_bar, owner, pickers, room
from ui.guard import Guard
from ui.parts import Choice
from ui.view import parse


@pytest.fixture(scope="module")
def views():
    """The page's views, built for a class."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_MODE", "class")
        connect = app.connect
        patch.setattr(
            app, "connect", lambda page, tabs, found: (seen.extend(found), connect(page, tabs, found))
        )
        app.build()
    return seen


@pytest.fixture
def in_class(monkeypatch, home):
    monkeypatch.setenv("LLM_MODE", "class")
    monkeypatch.setenv("LLM_TEACHER", "the-token")
    monkeypatch.setattr(dispatch.Local, "start", lambda self, run: False)
    return home


def visitor(**headers) -> TestClient:
    """A browser of its own."""
    served = owner.OwnerCookie(Starlette(routes=room.ROUTES))
    return TestClient(served, raise_server_exceptions=False, follow_redirects=False)


def teacher() -> TestClient:
    client = visitor()
    assert client.get("/teacher/the-token").status_code == 303
    return client


def identity(client: TestClient) -> str:
    return owner.verified(client.cookies[owner.COOKIE])


def said(client: TestClient, path: str, status: int = 200, **body):
    answer = client.post(f"/lab/{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_every_shipped_lesson_fits_the_page(views, home):
    kept = {one.key: one for view in views for one in view.kept}
    known = lesson_bar.selectors(views)
    for name in lessons.names():
        for number, step in enumerate(lessons.get(name).steps, 1):
            where = f"{name}, step {number}"
            assert step.tab in {view.tab for view in views}, where
            for key, value in step.values.items():
                if key in ("attention.layer", "attention.head"):  # kept by the picture itself
                    continue
                assert key in kept, f"{where}: {key}"
                if kept[key].restore is None:
                    parse(value, kept[key].component)
                elif isinstance(kept[key].component, gr.Dropdown) and kept[key].component.choices:
                    update = kept[key].restore(value)
                    assert update["value"] == value, f"{where}: {key}"
            assert set(step.hide) | ({step.at} if step.at else set()) <= set(known), where


def test_the_bar_shows_a_step_and_never_its_answer(home):
    assert lesson_bar.bar({}) == ""
    html = unescape(lesson_bar.bar({"lesson": "tokens", "step": "1"}))
    step = lessons.get("tokens").steps[0]
    assert (
        "1 of 4" in html
        and step.ask in html
        and step.reveal not in html
        and "rel='next'" in html
        and "rel='prev'" not in html
    )
    assert "4 of 4" in lesson_bar.bar({"lesson": "tokens", "step": "99"})
    assert "Next lesson: Windows" in lesson_bar.bar({"lesson": "tokens", "step": "4"})
    assert "lab/hand-in" in lesson_bar.bar({"lesson": "break-it", "step": "5"})
    for bad in ({"lesson": "<b>"}, {"lesson": "tokens", "step": "<i>"}):
        assert "<b>" not in lesson_bar.bar(bad) and "<i>" not in lesson_bar.bar(bad)


def test_a_teachers_markdown_cannot_bring_scripts(home):
    text = "---\nsteps:\n  - tab: tokens\n    look: <img src=x onerror=1>\n---\n## <script>1</script>\n\n<script>alert(1)</script> [x](javascript:alert(1))\n"
    lessons.keep("bad.md", text.encode())
    html = lesson_bar.bar({"lesson": "bad", "step": "1"})
    assert "<script" not in html and "<img" not in html and 'href="javascript' not in html


def test_a_link_hides_what_it_names_and_nothing_else():
    known = {"header": ".lab-header", "tokens.text": "#tokens-text"}
    assert lesson_bar.hidden({"hide": "header,tokens.text,}body{"}, known) == "<style>.lab-header, #tokens-text { display: none !important; }</style>"  # fmt: skip
    assert lesson_bar.hidden({"hide": "</style><script>"}, known) == lesson_bar.hidden({}, known) == ""


def test_only_the_token_makes_a_teacher_and_only_in_a_class(in_class, monkeypatch):
    student = visitor()
    assert student.get("/teacher/wrong").status_code == 403 and not said(student, "now")["teacher"]
    for path, body in (("teach", {"do": "pause"}), ("wall", {})):
        said(student, path, 403, **body)
    chief = teacher()
    assert said(chief, "now")["teacher"] and said(chief, "wall")["people"]
    student.cookies.set(owner.TEACHER, chief.cookies[owner.TEACHER])  # another's mark is worth nothing
    assert not said(student, "now")["teacher"]
    monkeypatch.setenv("LLM_TEACHER", "another")
    assert not said(chief, "now")["teacher"]
    monkeypatch.setenv("LLM_TEACHER", "the-token")
    monkeypatch.setenv("LLM_MODE", "space")
    assert not said(chief, "now")["teacher"] and chief.get("/teacher/the-token").status_code == 403


def test_the_teacher_shows_asks_and_holds_back(in_class):
    chief, ada, bob = teacher(), visitor(), visitor()
    said(ada, "name", name="Ada")
    assert "already" in said(bob, "name", 400, name="ada")["error"]
    said(chief, "teach", do="follow", query="?tab=train")
    assert said(ada, "now")["follow"] == {"number": 1, "query": "?tab=train"}
    said(chief, "teach", do="release")
    assert said(ada, "now", tab="tokens", lesson="tokens", step=2, error="oh")["follow"] == {
        "number": 2,
        "query": None,
    }
    for bad in ("https://elsewhere.org", "javascript:1", "?" + "x" * 9000):
        said(chief, "teach", 400, do="follow", query=bad)
    said(chief, "teach", do="ask", ask="Which?", choices=["up", "down", " "])
    id = said(ada, "now")["poll"]["id"]
    assert said(ada, "guess", id=id, text="up")["mine"] == "up"
    assert (
        said(bob, "now")["poll"]["guesses"] == {} and said(bob, "now")["poll"]["given"] == 1
    )  # not before the reveal
    said(chief, "teach", do="reveal")
    assert said(bob, "now")["poll"]["guesses"] == {"up": 1}
    said(bob, "guess", 400, id=id, text="down")
    said(ada, "now", tab="tokens", lesson="tokens", step=2, error="oh")
    row = next(one for one in said(chief, "wall")["people"] if one["name"] == "Ada")
    assert (row["lesson"], row["step"], row["error"], row["away"]) == ("tokens", 2, "oh", False)
    said(chief, "teach", do="pause")
    assert dispatch.paused() and said(ada, "now")["paused"]
    said(chief, "teach", do="limits", waiting=2)
    assert modes.limits().waiting == 2
    said(chief, "teach", 400, do="limits", waiting=-2)
    said(chief, "teach", 400, do="explode")


def test_a_guess_stands_beside_the_models_distribution(in_class):
    ada = visitor()
    told = said(ada, "answer", lesson="sampling", step=1, text="fox")
    shares = [row["probability"] for row in told["truth"]]
    assert (
        told["guesses"] == {"fox": 1}
        and told["model"] == "story-llama"
        and shares == sorted(shares, reverse=True)
    )
    assert 0 < sum(shares) <= 1 + 1e-6 and len(shares) >= room.SHOWN


def test_answers_are_kept_and_judged(in_class):
    ada = visitor()
    assert said(ada, "answer", lesson="tokens", step=1, text="1")["right"] is True
    told = said(ada, "answer", lesson="tokens", step=2, text="It counts letters")
    assert told["right"] is False and told["answer"].startswith("It has never merged") and told["reveal"]
    assert said(ada, "answer", lesson="windows", step=3, text="to measure")["right"] is None
    said(ada, "answer", 400, lesson="tokens", step=1, text="of my own")
    said(ada, "answer", 400, lesson="tokens", step=77, text="1")
    said(ada, "answer", 400, lesson="../x", step=1, text="1")
    assert next(one for one in said(ada, "lessons")["lessons"] if one["name"] == "tokens")["answered"] == 2
    made = ada.get("/lab/hand-in").json()
    assert len(made["answers"]) == 3 and identity(ada) not in json.dumps(made)
    assert visitor().get("/lab/hand-in").json()["answers"] == []


def test_the_teacher_is_told_of_a_file_that_is_no_lesson(in_class):
    lessons.own().mkdir(parents=True)
    (lessons.own() / "mine.md").write_text("hello")
    assert (
        "front matter" in said(teacher(), "lessons")["refused"][0]
        and said(visitor(), "lessons")["refused"] == []
    )


def test_clearing_the_room_stops_runs_and_forgets(in_class):
    chief, ada = teacher(), visitor()
    said(ada, "name", name="Ada")
    run = Run.create("train", {"dataset": "stories"}, identity(ada), "of-ada")
    mine = Run.create("train", {"dataset": "stories"}, "terminal", "of-terminal")
    said(chief, "teach", do="clear")
    assert (
        run.status() == "stopped"
        and "cleared the room" in run.last_event()["message"]
        and mine.status() == "waiting"
    )
    assert [one["name"] for one in classroom.people()] == []
    said(chief, "teach", do="clear", delete=True)
    assert not run.path.exists() and mine.path.exists()


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"a": "' + b"x" * 20_001 + b'"}', b"null"])
def test_a_bad_body_is_a_sentence(in_class, body):
    client = visitor()
    for path in ("now", "name", "answer", "guess", "teach", "wall", "lessons", "board"):
        answer = client.post(f"/lab/{path}", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400 and "JSON object" in answer.json()["error"]
    assert client.post("/lab/now", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


@pytest.mark.parametrize("value", [None, True, -1, 1.5, 10**30, [], {}, "\x00", "\ud800"])
def test_odd_values_are_no_fault_of_the_lab(in_class, value):
    client = visitor()
    for path in ("now", "name", "answer", "guess", "teach", "wall", "lessons", "board"):
        keys = ("tab", "lesson", "step", "error", "name", "text", "id", "do", "query")
        answer = client.post(f"/lab/{path}", content=json.dumps(dict.fromkeys(keys, value)), headers={"content-type": "application/json"})  # fmt: skip
        assert answer.status_code < 500, (path, answer.text)


def test_a_qr_code_is_a_picture_of_its_text(in_class):
    client = visitor()
    answer = client.get("/lab/qr", params={"text": "http://10.0.0.5:7860/?tab=tokens"})
    assert (
        answer.status_code == 200
        and answer.headers["content-type"].startswith("image/svg")
        and b"<svg" in answer.content
    )
    for bad in ("", "x" * 1201):
        assert client.get("/lab/qr", params={"text": bad}).status_code == 400


# --- whose is what


def test_models_and_texts_of_others_are_neither_listed_nor_used(in_class):
    config = {"dataset": "stories"}
    run = Run.create("train", config, "ada", "of-ada")
    for name in ("config.json", "model.safetensors"):
        run.model_folder.mkdir(exist_ok=True)
        (run.model_folder / name).write_text("{}")
    (paths.datasets() / "diary.txt").write_text("dear diary")
    owned.claim("diary", "ada")
    ada, bob, chief = owner.Visitor("ada"), owner.Visitor("bob"), owner.Visitor("chief")
    chief.teacher = True
    for name in ("of-ada", "of-ada@10", "story-llama+of-ada"):
        assert owner.may_open(name, ada) and owner.may_open(name, chief) and not owner.may_open(name, bob), (
            name
        )
    assert owner.may_open("story-llama", bob) and owner.may_open("never-heard-of", bob)
    assert (
        owner.may_read("diary", ada) and owner.may_read("diary", chief) and not owner.may_read("diary", bob)
    )
    assert owner.may_read("stories", bob)
    assert "of-ada" not in pickers.model_names() and "diary" not in pickers.dataset_names()
    run.share()
    assert owner.may_open("of-ada", bob) and owner.may_see(run, bob) and not owner.may_use("ada", bob)
    run.share(False)
    assert not owner.may_see(run, bob)
    owned.claim("diary", "bob")  # brings the same text
    assert owner.may_read("diary", bob) and owner.may_read("diary", ada)


class Asking:
    """What Gradio tells a handler of the browser."""

    def __init__(self, who):
        self.cookies = {owner.COOKIE: owner.sign(who)}


def called(fn, who, *values):
    from gradio.context import LocalContext

    token = LocalContext.request.set(Asking(who))
    try:
        return fn(*values)
    finally:
        LocalContext.request.reset(token)


def test_a_handler_is_refused_names_that_are_not_the_visitors(in_class):
    owned.claim("diary", "ada")
    with gr.Blocks() as page:
        first, which = gr.Textbox(), allowed.gate(Choice([], multiselect=True), owner.may_read)

        def plain(text, names):
            return text

        def asks(request: gr.Request, text, names):
            return request

        def rest(request: gr.Request, *values):
            return values

        def stream(text: str, request: gr.Request, names):
            yield text

        for fn in (plain, asks, rest, stream):
            first.change(fn, [first, which], first)
    allowed.authorise(page)
    at = {
        "plain": ("t", ["diary"]),
        "asks": (None, "t", ["diary"]),
        "rest": (None, "t", ["diary"]),
        "stream": ("t", None, ["diary"]),
    }
    for event in page.fns.values():
        values = at[event.fn.__name__]
        run = (lambda *given, fn=event.fn: list(fn(*given))) if event.fn.__name__ == "stream" else event.fn
        called(run, "ada", *values)
        with pytest.raises(gr.Error, match="There is nothing called diary"):
            called(run, "bob", *values)
        called(run, "bob", *(["stories"] if isinstance(one, list) else one for one in values))


def test_every_picker_of_the_page_is_gated(views):
    """A dropdown of models, texts or rows that no rule guards would give whatever is named to whoever names it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_MODE", "class")
        page = app.build()
    words = (
        "model",
        "dataset",
        "encoding",
        "policy",
        "reference",
        "start_from",
        "arena-who",
        "judge-a",
        "judge-b",
        "old_dataset",
    )
    boxes = [one for one in page.blocks.values() if isinstance(one, gr.Dropdown) and any(str(one.elem_id or "").endswith(w) for w in words)]  # fmt: skip
    assert len(boxes) >= 20
    free = [one.elem_id for one in boxes if getattr(one, "lab_rule", None) is None]
    assert free == []


def test_names_under_a_tunnel_are_let_in_only_there():
    guard = Guard(None, hosts=frozenset({"localhost", ".gradio.live"}))
    assert (
        guard.knows("abc.gradio.live")
        and not guard.knows("gradio.live.evil.org")
        and not guard.knows("evilgradio.live")
    )


def test_a_run_is_shared_with_all_and_stays_its_owners(in_class):
    from ui.tabs.train import ROOM

    run = Run.create("train", {"dataset": "stories", "train": {"max_steps": 10}}, "ada", "of-ada")

    class Click:
        def __init__(self, action):
            self._data = {"action": action, "name": "of-ada"}

    ada, bob = Asking("ada"), Asking("bob")
    with pytest.raises(ValueError, match="no run called"):
        ROOM.act(bob, "", "", Click("share"))
    assert "of-ada" not in ROOM.look(bob, "of-ada", "")[2]
    assert "shared with all" in ROOM.act(ada, "of-ada", "", Click("share"))[4]
    _, _, history, stopper, _ = ROOM.look(bob, "of-ada", "")
    assert "of-ada" in history and "data-action='delete'" not in history and not stopper["visible"]
    for action in ("delete", "share"):
        with pytest.raises(ValueError, match="no run called"):
            ROOM.act(bob, "of-ada", "", Click(action))
    for act in (ROOM.stop, ROOM.resume):
        with pytest.raises(ValueError, match="no run called"):
            act(bob, "of-ada", "")
    ROOM.act(ada, "of-ada", "", Click("share"))
    assert not run.shared() and "of-ada" not in ROOM.look(bob, "of-ada", "")[2]


def test_a_lesson_shows_no_picture_and_no_html_and_keeps_its_links(home):
    text = "![seen](http://there.invalid/a.png) <img src=x> [more](https://there.invalid)"
    lessons.keep("far", f"---\ntitle: Far\nsteps:\n  - tab: tokens\n---\n## One\n{text}\n".encode())
    html = lesson_bar.bar({"lesson": "far", "step": "1"})
    assert "<img" not in html and "&lt;img src=x&gt;" in html
    assert '<a href="https://there.invalid">more</a>' in html
