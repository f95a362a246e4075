"""Names and passwords of a class: nothing answers before, a login is the same visitor in every browser, tries are counted."""

from __future__ import annotations

import stat

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from llm import classroom, logins
from ui import login, room
from ui.owner import OwnerCookie, owner, teacher_token


@pytest.fixture
def in_class(monkeypatch):
    monkeypatch.setenv("LLM_MODE", "class")
    login._wrong.clear()


def browser():
    app = Starlette(
        routes=[
            *login.ROUTES,
            *room.ROUTES,
            Route("/", lambda request: PlainTextResponse(str(owner(request)))),
        ],
        middleware=[Middleware(OwnerCookie), Middleware(login.Door)],
    )
    return TestClient(app, headers={"accept": "text/html"}, follow_redirects=False)


def logged_in(name, password):
    client = browser()
    answer = client.post("/login", data={"name": name, "password": password})
    return client, answer


def test_without_logins_everybody_comes_in(in_class):
    assert browser().get("/").status_code == 200


def test_a_login_is_the_same_visitor_in_every_browser(in_class):
    passwords = {name: logins.add(name) for name in ("Ada", "Bob")}
    stranger = browser()
    assert stranger.get("/").headers["location"] == "/login"
    assert stranger.post("/lab/now", json={}).status_code == 401
    assert "password" in stranger.get("/login").text
    (one, answer), (two, _) = logged_in("Ada", passwords["Ada"]), logged_in("Ada", passwords["Ada"])
    assert (
        answer.status_code == 303
        and one.get("/").text == two.get("/").text == logins.known()["Ada"]["identity"]
    )
    assert one.post("/lab/now", json={}).json()["name"] == "Ada"
    assert "login" in one.post("/lab/name", json={"name": "Bob"}).json()["error"]
    assert logged_in("Bob", passwords["Bob"])[0].get("/").text != one.get("/").text
    one.get("/logout")
    assert one.get("/").headers["location"] == "/login" and two.get("/").status_code == 200
    logins.remove("Ada")
    assert two.get("/").headers["location"] == "/login"
    assert logged_in("Ada", passwords["Ada"])[1].status_code == 403


@pytest.mark.parametrize("wrong", ["", "x", "Ada", "‮", "a" * 500, "\x00"])
def test_wrong_passwords_are_refused_and_counted(in_class, wrong):
    logins.add("Ada", "right-one")
    for _ in range(login.TRIES):
        assert logged_in("Ada", wrong)[1].status_code == 403
    client, answer = logged_in("Ada", "right-one")
    assert answer.status_code == 429 and client.get("/").status_code == 303
    assert logged_in("<b>", wrong)[1].status_code == 403


def test_the_teachers_link_opens_the_door(in_class):
    logins.add("Ada")
    client = browser()
    assert client.get(f"/teacher/{teacher_token()}").status_code == 303
    assert client.get("/").status_code == 200 and client.post("/lab/wall", json={}).status_code == 200
    assert browser().get("/teacher/wrong").status_code == 403


def test_no_password_is_kept(in_class, home):
    password = logins.add("Ada")
    text = logins.file().read_text()
    assert password not in text and stat.S_IMODE(logins.file().stat().st_mode) == 0o600
    assert len(password) >= 12 and logins.check("Ada", password) and not logins.check("Ada", password + "x")
    assert not logins.check("nobody", password)


def test_the_command_makes_lists_and_removes(in_class, capsys):
    logins.main(["Ada", " Bob  B. "])
    printed = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert set(printed) == {"Ada", "Bob B."} and logins.check("Bob B.", printed["Bob B."])
    logins.main(["--remove", "Ada"])
    logins.main(["--list"])
    assert capsys.readouterr().out == "Bob B.\n"
    with pytest.raises(SystemExit, match="no login called 'Eve'"):
        logins.main(["--remove", "Eve"])


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 2, "logins": {}}'])
def test_a_damaged_file_lets_nobody_in(in_class, home, content):
    home.mkdir()
    logins.file().write_text(content)
    assert browser().get("/").status_code == 503
    assert logged_in("Ada", "x")[1].status_code == 503


def test_a_guest_of_earlier_keeps_the_name_and_the_login_its_own(in_class):
    classroom.rename("guest1", "Ada")
    _, answer = logged_in("Ada", logins.add("Ada"))
    assert answer.status_code == 303
