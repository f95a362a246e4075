"""The page in Spanish: nothing of ours is left in English, foreign text stays as it is; in English nothing is watched."""

from __future__ import annotations

import functools
import json
import re

import pytest

from ui import language, texts

SPANISH = language.catalogue("es")
TABS_AT_ONCE = (
    "tokens",
    "windows",
    "attention",
    "train",
    "finetune",
    "playground",
    "evaluate",
    "arena",
    "models",
)
# Every text and label that is shown, but for what is marked as foreign, code, and lists of names.
SHOWN = """() => {
  const found = [], foreign = (e) => { const m = e.closest('[translate], .notranslate'); return Boolean(m) && m.getAttribute('translate') !== 'yes'; };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const home = node.nodeType === 3 ? node.parentElement : node;
    if (foreign(home) || home.closest('script, style, code, pre, .cm-editor, [role=listbox], .token, .md-catalogue td')) continue;
    if (node.nodeType === 3) { if (!home.closest('textarea')) found.push(node.data); }
    else for (const name of ['aria-label', 'title', 'placeholder', 'alt']) if (node.hasAttribute(name)) found.push(node.getAttribute(name));
  }
  return [...new Set(found.map((text) => text.replace(/\\s+/g, ' ').trim()).filter((text) => /[A-Za-z]{2}/.test(text)))];
}"""
# What Gradio holds of parts that nobody has opened: labels, help, choices and buttons as they are, HTML laid out for a moment.
NEVER_OPENED = """async () => {
  const place = document.body.appendChild(document.createElement('div'));
  const put = (text) => { if (typeof text === 'string' && text) place.append(Object.assign(document.createElement('p'), { textContent: text })); };
  for (const { type, props } of window.gradio_config.components) {
    if (type === 'html' && typeof props.value === 'string') place.insertAdjacentHTML('beforeend', `<div>${props.value}</div>`);
    for (const text of [type === 'button' ? props.value : '', props.label, props.info, props.placeholder]) put(text);
    if (type !== 'dropdown') for (const [name, value] of props.choices ?? []) if (name !== value) put(name);
  }
  await new Promise((go) => setTimeout(go));
  const found = (SHOWN)();
  place.remove();
  return found;
}""".replace("SHOWN", SHOWN)
IN_DIALOG = "() => [...document.querySelectorAll('dialog :is(h2, p, label, legend)')].map((e) => e.textContent.trim())"
SAME = {"NeMo AutoModel", "s − max"}  # a product's name, a formula
# Whether a page has the observer of language.js: of the whole document, of texts and attributes.
WATCHED = """window.watched = 0; const observe = MutationObserver.prototype.observe;
MutationObserver.prototype.observe = function (target, options) {
  if (target === document.documentElement && options.characterData && options.attributes) window.watched++;
  return observe.call(this, target, options);
};"""


@functools.cache
def ours() -> tuple[set[str], dict[str, list[re.Pattern]]]:
    """The texts of the source; those with something put in as patterns, by a word of theirs, when they say three words themselves."""
    known, forms = texts.everything(), {}
    for text in known:
        words = re.findall(r"(?<![\x00\w])[a-z]{3,}(?![\x00\w])", text)
        if texts.HOLE in text and len(words) >= 3:
            form = re.compile(".+".join(map(re.escape, text.split(texts.HOLE))), re.S)
            forms.setdefault(max(words, key=len), []).append(form)
    return known, forms


def left_in_english(shown: list[str]) -> list[str]:
    """What of these is English of ours: a key that was not replaced, or a sentence of the source without an entry."""
    known, forms = ours()
    there = set(SPANISH.values())
    return [
        text
        for text in shown
        if text
        and text not in there | SAME
        and (
            text in SPANISH
            or (text in known and len(text.split()) > 1)
            or any(
                form.fullmatch(text)
                for word in set(re.findall(r"[a-z]+", text))
                for form in forms.get(word, ())
            )
        )
    ]


def open_spanish(page, query: str) -> None:
    page.goto(f"/?lang=es&{query}")
    page.wait_for_selector("button[role=tab][aria-selected=true]")


def test_a_page_is_spanish_and_foreign_text_stays(page):
    open_spanish(page, "tab=tokens&tokens.text=Stop%0AText")
    page.wait_for_selector(".tk-text .tk-token >> nth=2")
    assert page.evaluate("document.documentElement.lang") == "es"
    # tokens that are words of the page stay what they are, while the page's own words do not
    tokens = page.locator(".tk-text .tk-token").all_inner_texts()
    assert [tokens[0], tokens[-1]] == ["Stop", "Text"] and (SPANISH["Stop"], SPANISH["Text"]) == (
        "Parar",
        "Texto",
    )
    assert page.locator("#tab-tokens label span").first.inner_text() == "Texto"
    shown = set(page.evaluate(NEVER_OPENED)) | set(page.evaluate(SHOWN))
    for button in ("lab-share", "lab-lessons"):
        page.locator(f"#{button}").click()
        page.wait_for_selector("dialog.lab-dialog h2")
        shown |= set(page.evaluate(IN_DIALOG))
        page.locator(".lab-close").click()
    assert {"Barridos", "Comparte lo que ves", "Bloques del transformer"} <= shown
    assert len(shown) > 400, "the page was hardly looked at"
    assert not left_in_english(sorted(shown))


def test_the_check_for_english_finds_some():
    sentences = ["Start training", "The text has 3 characters; up to 9 are shown here. Cut it down."]
    assert left_in_english([*sentences, "Empezar a entrenar", "Willa"]) == sentences


@pytest.mark.slow  # each tab takes seconds where all of them stand in one page
@pytest.mark.parametrize("tab", TABS_AT_ONCE)
def test_every_tab_with_its_rooms_is_spanish(page, tab):
    open_spanish(page, f"tab={tab}")
    page.wait_for_selector(f"#tab-{tab} .block >> nth=0")
    page.wait_for_timeout(1500)
    shown = set(page.evaluate(SHOWN))
    for room in page.locator(f"#tab-{tab} .lab-rooms label").all():
        room.click()
        page.wait_for_timeout(1000)
        shown |= set(page.evaluate(SHOWN))
    for more in page.locator(f"#tab-{tab} button.label-wrap:not(.open)").all():
        if more.is_visible():
            more.click()
    page.wait_for_timeout(1500)
    shown |= set(page.evaluate(SHOWN))
    assert len(shown) > 60, "the tab was hardly looked at"
    assert not left_in_english(sorted(shown))


def test_errors_are_spanish_and_a_name_in_them_stays(page):
    open_spanish(page, "tab=windows&windows.stride=0")
    page.get_by_text("elige 1 o más").first.wait_for()


def test_in_english_nothing_is_watched_or_fetched_and_the_switch_works_on_a_phone(new_page):
    page = new_page(width=390, height=800)
    page.add_init_script(WATCHED)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/lab/language/" in request.url else None)
    page.goto("/?tab=tokens")
    page.wait_for_selector("#tokens-rows", state="attached")
    assert page.evaluate("[window.watched, document.documentElement.lang]") == [0, "en"] and not asked
    assert page.get_by_role("tab", name="Windows").count() == 1
    switch = page.get_by_label("Language")
    box = switch.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] >= 30
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    with page.expect_navigation():
        switch.select_option("es")
    page.get_by_role("tab", name="Ventanas").wait_for()
    assert page.evaluate("[window.watched, document.documentElement.lang]") == [1, "es"] and len(asked) == 1
    assert "tab=tokens" in page.url and "lang=" not in page.url
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.reload()
    page.get_by_role("tab", name="Ventanas").wait_for()
    assert page.get_by_label("Idioma").input_value() == "es"
    assert json.loads(page.evaluate("JSON.stringify(localStorage.getItem('lab-language'))")) == "es"
    took = page.evaluate("""() => {  // 2,000 new texts, none of ours: what a page pays at most for looking
      const place = document.body.appendChild(document.createElement('div')), began = performance.now();
      for (let i = 0; i < 2000; i++) place.append(Object.assign(document.createElement('span'), { textContent: `The fox ${i} of the model saw a red kite and ${i} tokens` }));
      return new Promise((go) => queueMicrotask(() => { const ms = performance.now() - began; place.remove(); go(ms); }));
    }""")
    assert took < 1500  # 60 ms where it was written
