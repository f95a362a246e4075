"""A model behind HTTP as a student meets it: this very page's /v1, tested, saved, then asked in the Playground."""

from __future__ import annotations

import urllib.parse

from llm import speakers
from llm.config import SampleConfig

TABS = "models playground"


def test_a_server_is_tested_saved_and_asked(open_tab, server, monkeypatch):
    monkeypatch.setenv("LLM_ENGINE", "inline")
    page = open_tab("models")
    page.click("#models-room label:has-text('Endpoints')")
    page.wait_for_selector("#endpoints-preset input")
    page.fill("#endpoints-address input, #endpoints-address textarea", f"{server.url}/v1")
    page.fill("#endpoints-name input, #endpoints-name textarea", "self")
    page.fill("#endpoints-model input, #endpoints-model textarea", "nobody")
    page.click("#endpoints-test")
    page.wait_for_function(
        "document.querySelector('#endpoints-said')?.textContent.includes(\"no model 'nobody'\")"
    )
    page.fill("#endpoints-model input, #endpoints-model textarea", "story-instruct")
    page.click("#endpoints-test")
    page.wait_for_function("document.querySelector('#endpoints-said')?.textContent.includes('story-gpt2')")
    page.click("#endpoints-save")
    page.wait_for_function("document.querySelector('#endpoints-list')?.textContent.includes('self')")

    asked = "What is the opposite of hot?"
    query = {
        "tab": "playground",
        "playground.model": "endpoint:self",
        "playground.prompt": asked,
        "playground.temperature": 0,
    }
    page.goto("/?" + urllib.parse.urlencode(query | {"playground.max_new_tokens": 12}))
    page.wait_for_function(  # an endpoint is not asked before somebody presses the button
        "document.querySelector('#playground-command')?.textContent.includes('llm.speakers endpoint:self')"
    )
    page.click("#playground-generate")
    how = SampleConfig(temperature=0, max_new_tokens=12)
    expected, _ = speakers.answer("story-instruct", [{"role": "user", "content": asked}], how)
    page.wait_for_function(
        "text => document.querySelector('#playground-text-a .pg-new')?.textContent === text", arg=expected
    )
    page.wait_for_function(
        "document.querySelector('#playground-out').textContent.includes('The server counts')"
    )
