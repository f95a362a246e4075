"""A lesson with a teacher and three students at once, each in a browser of their own, and a server that goes down in the middle."""

import json
import signal
import urllib.parse

import pytest

from llm import lessons
from tests.browser.conftest import start_server, stop_server

TABS = "tokens playground"


@pytest.fixture(scope="module")
def server(tmp_path_factory, port):
    """The lab as a class opens it."""
    home = tmp_path_factory.mktemp("class") / "home"
    home.mkdir()
    (home / "teacher").write_text("token-of-the-teacher")
    running = [start_server(home, "--mode", "class", "--host", "127.0.0.1", port=port, tabs=TABS)]

    def again():
        """The server is pulled out of the wall, and comes back at the same address."""
        running[0].process.send_signal(signal.SIGKILL)
        running[0].process.wait(10)
        running[0] = start_server(home, "--mode", "class", "--host", "127.0.0.1", port=port, tabs=TABS)

    running[0].again = again
    yield running[0]
    stop_server(running[0])


def opened(new_page, query="", **options):
    page = new_page(**options)
    page.goto("/" + query)
    page.wait_for_selector("#lab-name:not([hidden])")
    return page


def named(page, name):
    page.once("dialog", lambda dialog: dialog.accept(name))
    page.click("#lab-name")
    page.wait_for_function(
        "(name) => document.getElementById('lab-name').textContent.includes(name)", arg=name
    )
    return page


def teacher(new_page):
    page = new_page()
    page.goto("/teacher/token-of-the-teacher")
    page.wait_for_selector("#lab-follow:not([hidden])")
    return page


def test_a_lesson_with_three_students_a_teacher_and_a_restart(new_page, server):
    chief = teacher(new_page)
    assert "token-of-the-teacher" not in chief.url
    students = [named(opened(new_page, width=390 if i else 1280, dark=i == 2), name) for i, name in enumerate(("Ada", "Bob", "Cyd"))]  # fmt: skip
    # the teacher shows a view, and lets go
    view = "?" + urllib.parse.urlencode({"tab": "tokens", "tokens.text": "The class looks here"})
    chief.goto("/" + view)
    chief.wait_for_selector("#lab-follow:not([hidden])")
    chief.click("#lab-follow")
    for page in students:
        page.wait_for_url(lambda url: "The+class+looks+here" in url)
        page.wait_for_function(
            "() => document.querySelector('#tokens-text textarea')?.value === 'The class looks here'"
        )
        assert page.evaluate("() => document.body.classList.contains('lab-led')")
    chief.click("#lab-follow")
    for page in students:
        page.wait_for_selector(".lab-toast-note")
    # a question to all; the server goes down before the second has answered
    chief.goto("/?tab=class")
    chief.wait_for_selector(".cl-wall h3")
    chief.click("text=For the teacher: ask the class")
    chief.wait_for_selector("#class-ask", state="visible")
    chief.click("#class-ask")
    students[0].wait_for_selector("#lab-poll input")
    students[0].fill("#lab-poll input", " small")
    students[0].click("#lab-poll form button")
    students[0].wait_for_selector("#lab-poll >> text=You said")
    server.again()
    for page, guess in zip(students[1:], (" small", " fox")):
        page.wait_for_selector("#lab-poll input")
        page.fill("#lab-poll input", guess)
        page.click("#lab-poll form button")
        page.wait_for_selector("#lab-poll >> text=You said")
        assert page.locator("#lab-poll .pl-bar").count() == 0  # nothing is shown before the reveal
    chief.wait_for_selector("#lab-poll >> text=3 have committed")
    chief.click("#poll-reveal")
    for page in students:
        page.wait_for_selector("#lab-poll .pl-bar.is-model")
        rows = page.locator("#lab-poll .is-class").all_text_contents()
        assert rows == ["␣small2", "␣fox1"]
    # answers to a lesson, and the wall
    students[0].goto("/" + lessons.get("tokens").link(1))
    students[0].click(".ls-choice >> text=5")
    students[0].wait_for_selector(".ls-said >> text=Not quite: 1.")
    students[0].click(".ls-next")
    students[0].wait_for_selector(".ls-bar[data-step='2']")
    students[0].go_back()
    students[0].wait_for_selector(".ls-bar[data-step='1']")
    chief.wait_for_selector(".cl-wall td >> text=tokens, step 1")
    names = chief.locator(".cl-wall tbody tr td:first-child").all_text_contents()
    assert {"Ada", "Bob", "Cyd"} <= set(names)
    with students[0].expect_download() as download:
        students[0].evaluate(
            "() => { const a = document.createElement('a'); a.href = 'lab/hand-in'; a.download = ''; a.click(); }"
        )
    made = json.loads(download.value.path().read_text())
    assert made["name"] == "Ada" and [(one["lesson"], one["right"]) for one in made["answers"]] == [
        ("tokens", False)
    ]
    for page in (chief, *students):  # what the browser says of a server that went down
        page.problems[:] = [one for one in page.problems if "net::ERR_" not in one]


def test_share_gives_a_link_that_opens_the_same_view(new_page, server):
    page = opened(
        new_page,
        "?tab=playground&playground.prompt=Hello+share&playground.seed=7&playground.max_new_tokens=5",
    )
    page.wait_for_function(
        "() => document.querySelector('#playground-prompt textarea')?.value === 'Hello share'"
    )
    page.click("#lab-share")
    page.check(".lab-dialog input[value=header]")
    link, frame = page.input_value("#share-link"), page.input_value("#share-embed")
    assert (
        "secret" not in link and frame.startswith('<iframe src="http://127.0.0.1') and "hide=header" in link
    )
    assert page.evaluate(
        "async () => { const i = document.querySelector('.lab-dialog .lab-qr'); await i.decode(); return i.naturalWidth > 100; }"
    )
    other = opened_link(new_page, link)
    other.wait_for_function(
        "() => document.querySelector('#playground-prompt textarea')?.value === 'Hello share'"
    )
    assert other.input_value("#playground-seed input") == "7"
    assert not other.is_visible(".lab-header") and other.is_visible("#lab-tabs")


def opened_link(new_page, link):
    page = new_page()
    page.goto(link)
    return page


def test_predict_stands_beside_the_model_and_lessons_are_listed(new_page, server):
    page = opened(new_page, lessons.get("sampling").link(1), width=390)
    page.fill(".ls-form input", "fox")
    page.click(".ls-form button")
    page.wait_for_selector(".ls-said .pl-bar.is-model")
    shares = page.locator(".ls-said .is-model .pl-told").all_text_contents()
    assert len(shares) >= 12 and all(share.endswith("%") for share in shares)
    page.click("#lab-lessons")
    page.wait_for_selector(".ls-list li")
    assert page.locator(".ls-list li").count() == 9
    assert page.evaluate(
        "() => document.documentElement.scrollWidth <= innerWidth"
    )  # nothing sticks out on a phone
