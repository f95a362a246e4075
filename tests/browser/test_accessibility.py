"""The page by axe-core (WCAG 2.1 AA): names for screen readers, roles, contrast, what keys reach; light and dark."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

import app
from ui.tabs import evaluate, finetune, models

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
# an empty plot of Gradio's has a label and no role; colours of code are darkened by a filter, which axe does not see
LEFT_OUT = {"exclude": [[".empty"], [".cm-content"]]}
ROOMS = {"evaluate": evaluate.ROOMS, "finetune": finetune.ROOMS, "models": models.ROOMS}


def violations(page) -> list[str]:
    """What axe-core finds, one line for each element: rule, element, why."""
    found = Axe().run(page, context=LEFT_OUT, options=RULES).response["violations"]
    return [
        f"{one['id']}: {' '.join(map(str, node['target']))}: {node['html'][:160]}: {node['failureSummary'].splitlines()[-1].strip()}"
        for one in found
        for node in one["nodes"]
    ]


def cases():
    """Tab, room and theme. Each tab in one of the themes is looked at every time, the rest among the slow tests."""
    for place, tab in enumerate(app.TABS):
        for room in (None, *ROOMS.get(tab, ())):
            for theme in ("light", "dark"):
                is_quick = room is None and theme == ("light", "dark")[place % 2]
                yield pytest.param(tab, room, theme, marks=() if is_quick else pytest.mark.slow)


@pytest.mark.parametrize(("tab", "room", "theme"), cases())
def test_axe_finds_nothing(page, tab, room, theme):
    page.add_init_script(f"localStorage.setItem('lab-theme', '{theme}')")
    page.goto(f"/?tab={tab}" + (f"&{tab}.room={room}" if room else ""))
    page.wait_for_function(
        f"window.lab?.drawn.has('{tab}')", timeout=90_000
    )  # the first one finds a cold server
    page.wait_for_timeout(1000)  # colours that fade in
    assert page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
    assert violations(page) == []


def test_axe_sees_what_is_wrong(open_tab):
    page = open_tab("arena")
    page.wait_for_function("window.lab.drawn.has('arena')")
    page.evaluate(
        "document.querySelector('#tab-arena').insertAdjacentHTML('beforeend', '<button></button><p style=\"color: #ccc; background: #fff\">pale</p>')"
    )
    assert {one.split(":")[0] for one in violations(page)} == {"button-name", "color-contrast"}
