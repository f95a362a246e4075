"""The bar of a lesson over the tabs: where one is, what to look at, the question; and what a link hides on the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from markdown_it import MarkdownIt

from llm import lessons
from ui.figures.base import escape, message
from ui.view import View

PARTS = {  # what a link may hide besides single widgets: name -> CSS selector
    "header": ".lab-header",
    "tabs": "#lab-tabs > .tab-wrapper",
    "intro": ".lab-intro",
    "code": ".lab-code",
    "more": ".lab-quiet",
}
# no HTML, and no pictures: every visitor's browser would fetch them from wherever the file says
markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def selectors(views: Sequence[View]) -> dict[str, str]:
    """Everything that a link can hide: name -> CSS selector; widgets by their key in the address bar."""
    found = dict(PARTS)
    for view in views:
        for kept in view.kept:
            if kept.component.elem_id:
                found[kept.key] = f"#{kept.component.elem_id.replace('.', chr(92) + '.')}"
    return found


def hidden(query: Mapping[str, str], known: Mapping[str, str]) -> str:
    """A style that hides what `hide=a,b` in the address names; names that are not known are left alone."""
    wanted = [known[name] for name in query.get("hide", "").split(",") if name in known]
    return f"<style>{', '.join(wanted)} {{ display: none !important; }}</style>" if wanted else ""


def bar(query: Mapping[str, str], known: Mapping[str, str] | None = None) -> str:
    """The HTML of the bar for the lesson and step that the address names; "" without one."""
    name = query.get("lesson", "")
    if not name:
        return ""
    try:
        lesson = lessons.get(name)
        number = int(query.get("step", "1"))
    except ValueError as error:
        return message(str(error), "warning")
    number = min(max(number, 1), len(lesson.steps))
    step, last = lesson.steps[number - 1], len(lesson.steps)
    names = lessons.names()
    at = names.index(lesson.name) if lesson.name in names else -1
    following = lessons.get(names[at + 1]) if 0 <= at < len(names) - 1 else None
    back = (
        f"<a class='ls-go' href='{escape(lesson.link(number - 1))}' rel='prev'>‹ Previous</a>"
        if number > 1
        else ""
    )
    if number < last:
        on = f"<a class='ls-go ls-next' href='{escape(lesson.link(number + 1))}' rel='next'>Next ›</a>"
    elif following:
        on = f"<a class='ls-go ls-next' href='{escape(following.link(1))}' rel='next'>Next lesson: {escape(following.title)} ›</a>"
    else:
        on = "<a class='ls-go ls-next' href='lab/hand-in' download>Hand in</a>"
    dots = "".join(
        f"<a class='ls-dot{' is-here' if i == number else ''}' href='{escape(lesson.link(i))}' title='{escape(one.title)}' "
        f"aria-label='Step {i}: {escape(one.title)}'{' aria-current=step' if i == number else ''}></a>"
        for i, one in enumerate(lesson.steps, 1)
    )
    place = (known or {}).get(step.at, "")
    lead = (
        f" <button type='button' class='ls-lead' data-at='{escape(place)}'>Go there</button>" if place else ""
    )
    look = f"<p class='ls-look'><b>Look</b> {escape(step.look)}{lead}</p>" if step.look else ""
    body = f"<div class='ls-text'>{markdown.render(step.text)}</div>" if step.text else ""
    return (
        f"<section class='ls-bar' aria-label='Lesson {escape(lesson.title)}' data-lesson='{escape(lesson.name)}' data-step='{number}'>"
        f"<div class='ls-head'><span class='ls-lesson'>{escape(lesson.title)}</span><span class='ls-count'>{number} of {last}</span>"
        f"<nav class='ls-dots' aria-label='Steps'>{dots}</nav><span class='ls-ways'>{back}{on}</span></div>"
        f"<h2>{escape(step.title)}</h2>{body}{look}{question(lesson, number)}</section>"
    )


def question(lesson: lessons.Lesson, number: int) -> str:
    """The form of a step's question; what is said after the answer stays on the server until then."""
    step = lesson.steps[number - 1]
    if not step.ask:
        return ""
    if step.predict:
        asked = escape(json.dumps({"ask": step.ask, **step.predict, "choices": list(step.choices)}))
        return (
            f"<div class='ls-ask' data-predict='{asked}'><p>{escape(step.ask)}</p><p class='ls-token' translate='no'>{escape(step.predict['text'])}<b>?</b></p>"
            "<form class='ls-form'><input name='text' maxlength='100' autocomplete='off' aria-label='Your guess'>"
            "<button type='submit'>Commit</button></form><div class='ls-said' role='status'></div></div>"
        )
    if step.choices:
        fields = "".join(
            f"<button type='button' class='ls-choice' data-choice='{escape(one)}'>{escape(one)}</button>"
            for one in step.choices
        )
        form = f"<div class='ls-choices' role='group' aria-label='Answers'>{fields}</div>"
    else:
        form = (
            "<form class='ls-form'><textarea name='text' rows='2' maxlength='2000' aria-label='Your answer'></textarea>"
            "<button type='submit'>Answer</button></form>"
        )
    return (
        f"<div class='ls-ask'><p>{escape(step.ask)}</p>{form}<div class='ls-said' role='status'></div></div>"
    )
