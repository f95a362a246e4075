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


def in_both_themes(page, tab: str) -> list[str]:
    page.wait_for_function(f"window.lab.drawn.has('{tab}')")
    page.wait_for_timeout(1000)  # colours that fade in
    found = violations(page)
    page.click("#lab-theme")
    page.wait_for_timeout(1000)
    return found + [f"dark: {one}" for one in violations(page)]


@pytest.mark.parametrize("tab", app.TABS)
def test_axe_finds_nothing_in_a_tab(open_tab, tab):
    assert in_both_themes(open_tab(tab), tab) == []


@pytest.mark.slow
@pytest.mark.parametrize(("tab", "room"), [(tab, room) for tab, rooms in ROOMS.items() for room in rooms])
def test_axe_finds_nothing_in_a_room(open_tab, tab, room):
    assert in_both_themes(open_tab(tab, **{f"{tab}.room": room}), tab) == []


def test_axe_sees_what_is_wrong(open_tab):
    page = open_tab("arena")
    page.wait_for_function("window.lab.drawn.has('arena')")
    page.evaluate(
        "document.querySelector('#tab-arena').insertAdjacentHTML('beforeend', '<button></button><p style=\"color: #ccc; background: #fff\">pale</p>')"
    )
    assert {one.split(":")[0] for one in violations(page)} == {"button-name", "color-contrast"}
