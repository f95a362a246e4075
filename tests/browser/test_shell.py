"""The shell in Chromium: tabs, address bar, theme, narrow screens, identity."""

from __future__ import annotations

import urllib.parse

import app


def query(page) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(page.url).query))


def selected(page) -> str:
    return page.get_attribute("#lab-tabs > .tab-wrapper [role=tab][aria-selected=true]", "data-tab-id")


def wait_selected(page, name: str) -> None:
    page.wait_for_selector(f"#tab-{name}-button[aria-selected=true]")


def test_every_tab_opens_from_its_link_and_by_click(new_page):
    page = new_page()
    page.goto("/")
    wait_selected(page, next(iter(app.TABS)))
    assert page.inner_text("h1") == "LLM Lab"
    for name, (title, _) in app.TABS.items():
        page.click(f"#tab-{name}-button")
        wait_selected(page, name)
        assert page.inner_text(f"#tab-{name}-button") == title
        page.wait_for_selector(f"#tab-{name} .lab-intro", state="visible")
        if name != next(iter(app.TABS)):
            page.wait_for_function(f"new URLSearchParams(location.search).get('tab') === '{name}'")
    page.goto("/?tab=train")
    page.problems.clear()  # Gradio prints that leaving cut off its requests
    wait_selected(page, "train")
    page.wait_for_timeout(1500)  # late events of the first tab must not change it back
    assert selected(page) == "train" and query(page)["tab"] == "train"


def test_a_reload_brings_back_what_was_set(new_page):
    page = new_page()
    page.goto("/?tab=train")
    wait_selected(page, "train")
    steps = page.locator("#train-max_steps input")
    steps.fill("77")
    steps.blur()
    page.wait_for_function("new URLSearchParams(location.search).get('train.max_steps') === '77'")
    page.wait_for_function("document.querySelector('#train-start')?.innerText === 'Start training'")
    page.wait_for_timeout(500)
    page.reload()
    wait_selected(page, "train")
    page.problems.clear()  # Gradio prints that the reload cut off its requests
    page.wait_for_function("document.querySelector('#train-max_steps input')?.value === '77'")
    page.locator("#train-max_steps input").fill("1600")  # the default leaves the address bar
    page.locator("#train-max_steps input").blur()
    page.wait_for_function("!new URLSearchParams(location.search).has('train.max_steps')")


def test_a_broken_link_opens_the_page_with_defaults(new_page):
    page = new_page()
    page.goto("/?tab=nowhere&train.max_steps=banana&train.run=..%2F..%2Fetc&train.schedule=%3Cscript%3E")
    wait_selected(page, next(iter(app.TABS)))
    page.click("#tab-train-button")
    page.wait_for_selector("#train-max_steps input", state="visible")
    assert page.input_value("#train-max_steps input") == "1600"


def test_the_theme_switch_is_kept(new_page):
    page = new_page()
    page.goto("/?tab=train")
    page.wait_for_selector("#lab-theme")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.click("#lab-theme")
    page.wait_for_function("document.body.classList.contains('dark')")
    page.wait_for_function(f"{background} !== '{light}'")
    page.wait_for_function("document.querySelector('#train-start')?.innerText === 'Start training'")
    page.reload()
    page.wait_for_function("document.body.classList.contains('dark')")
    page.problems.clear()  # Gradio prints that the reload cut off its requests


def test_a_narrow_screen_scrolls_only_down(new_page):
    page = new_page(width=390)
    page.goto("/?tab=train")
    wait_selected(page, "train")
    page.wait_for_selector("#train-start", state="visible")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tabs = page.locator("#lab-tabs > .tab-wrapper [role=tab]")
    tops = {round(tabs.nth(i).bounding_box()["y"]) for i in range(tabs.count())}
    assert len(tops) == 1  # one row that scrolls sideways
    page.click(f"#tab-{list(app.TABS)[-1]}-button")
    wait_selected(page, list(app.TABS)[-1])


def test_each_browser_has_an_identity_that_scripts_cannot_read(new_page):
    page, other = new_page(), new_page()
    for one in (page, other):
        one.goto("/")
    first, second = ({c["name"]: c for c in one.context.cookies()}["lab_owner"] for one in (page, other))
    assert first["value"] != second["value"] and first["httpOnly"] and first["sameSite"] == "Lax"
    assert "lab_owner" not in page.evaluate("document.cookie")
    page.reload()
    assert {c["name"]: c["value"] for c in page.context.cookies()}["lab_owner"] == first["value"]


def test_back_and_forward_go_from_tab_to_tab_and_from_room_to_room(open_tab):
    page = open_tab("windows")
    page.wait_for_function("window.lab.drawn.has('windows')")
    page.click("#tab-models-button")
    page.wait_for_function("window.lab.drawn.has('models')")
    page.get_by_label("Catalogue", exact=True).check()
    page.wait_for_function("new URLSearchParams(location.search).get('models.room') === 'catalogue'")
    page.get_by_label("Endpoints", exact=True).check()
    page.wait_for_function("new URLSearchParams(location.search).get('models.room') === 'endpoints'")
    page.go_back()
    page.wait_for_function("document.querySelector('#models-room input:checked').value === 'catalogue'")
    page.wait_for_function("new URLSearchParams(location.search).get('models.room') === 'catalogue'")
    page.go_back()
    page.wait_for_function("document.querySelector('#models-room input:checked').value === 'anatomy'")
    page.go_back()
    wait_selected(page, "windows")
    assert query(page)["tab"] == "windows"
    page.go_forward()
    wait_selected(page, "models")
    page.wait_for_timeout(800)
    assert query(page)["tab"] == "models"
    page.go_forward()
    page.wait_for_function("document.querySelector('#models-room input:checked').value === 'catalogue'")
    assert selected(page) == "models"


def test_an_open_tab_keeps_no_connection(page):
    """A browser has six to one server: with one a tab, the sixth tab would wait for ever."""
    waiting = set()
    page.on("request", lambda one: waiting.add(one))
    page.on("requestfinished", lambda one: waiting.discard(one))
    page.on("requestfailed", lambda one: waiting.discard(one))
    page.goto("/?tab=train")
    page.wait_for_function("window.lab?.drawn.has('train')", timeout=90_000)
    for _ in range(20):  # the monitor asks and is answered again and again: some moment has nothing under way
        page.wait_for_timeout(250)
        if not waiting:
            return
    raise AssertionError([request.url for request in waiting])
