"""The view of a tab: which of its widgets stand in the address bar, and what is drawn once they are restored.

A tab's `build(view)` says `view.keep("text", box)` for each widget that a link or a reload shall bring back, and
`view.on_load(draw, outputs, inputs)` for what is to be drawn then. The query string is the only store:
`?tab=tokens&tokens.text=Hello`. Values equal to the default and texts beyond 1,500 characters stay out of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import gradio as gr

VALUES = {"change", "input", "release"}  # events that say: the value is another
LONGEST = 1500  # characters of one value in the address bar; shell.js has the same limit


def parse(text: str, component: gr.components.Component) -> Any:
    """The value of `component` that stands as `text` in the query string. Raises ValueError when it is not one."""
    if len(text) > LONGEST:
        raise ValueError("That value is too long for a link.")
    if isinstance(component, gr.Checkbox):
        return {"true": True, "false": False}[text] if text in ("true", "false") else _refuse(text)
    if isinstance(component, (gr.Number, gr.Slider)):
        value = json.loads(text)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            _refuse(text)
        low, high = component.minimum, component.maximum
        return value if (low is None or value >= low) and (high is None or value <= high) else _refuse(text)
    if isinstance(component, (gr.CheckboxGroup, gr.Dropdown)) and (
        getattr(component, "multiselect", None) or isinstance(component, gr.CheckboxGroup)
    ):
        values, allowed = json.loads(text), {value for _, value in component.choices}
        return values if isinstance(values, list) and set(values) <= allowed else _refuse(text)
    if isinstance(component, (gr.Radio, gr.Dropdown)):
        allowed = {str(value): value for _, value in component.choices}
        return allowed[text] if text in allowed else _refuse(text)
    return text


def _refuse(text: str) -> Any:
    raise ValueError(f"{text[:80]!r} is not a value of this setting.")


@dataclass
class Kept:
    """One widget that stands in the query string as `key`."""

    key: str
    component: gr.components.Component
    restore: Callable[[str | None], Any] | None

    def update(self, text: str | None) -> Any:
        """What the widget becomes when the page opens with `text` (None: the link does not name it)."""
        if self.restore:
            return self.restore(text)
        if text is None:
            return gr.skip()
        try:
            return parse(text, self.component)
        except (ValueError, TypeError):
            return gr.skip()  # an old or edited link: the default stays


@dataclass
class View:
    """What one tab keeps and draws. `tab` is its name in the address bar, `item` its gr.Tab."""

    tab: str
    item: gr.Tab
    kept: list[Kept] = field(default_factory=list)
    draws: list[tuple[Callable, Any, Any, bool]] = field(default_factory=list)
    refreshed: list[tuple[gr.components.Component, Callable[[Any], Any]]] = field(default_factory=list)

    def keep(
        self,
        key: str,
        component: gr.components.Component,
        restore: Callable[[str | None], Any] | None = None,
    ) -> None:
        """Hold the value of `component` in the query string as `<tab>.<key>`.

        `restore(text)` may give the update at page load instead (text is None when the link does not name the key):
        pickers use it, because their choices are read from the disk at that moment.
        """
        self.kept.append(Kept(f"{self.tab}.{key.removeprefix(self.tab + '.')}", component, restore))

    def on_load(self, fn: Callable, outputs: Any = None, inputs: Any = None, slow: bool = False) -> None:
        """Call `fn(*inputs)` once, when the tab is first shown, after its widgets are restored.

        `fn` may take a gr.Request too. Several are called one after the other, in the order given, so that the first
        one, what the tab opens with, has the machine to itself. `slow`: takes seconds, and waits in the queue for them.
        """
        self.draws.append((fn, outputs, inputs, slow))

    def refresh(self, component: gr.components.Component, fn: Callable[[Any], Any]) -> None:
        """Set `component` to `fn(its value)` each time the tab is chosen: pickers read the disk again."""
        self.refreshed.append((component, fn))

    def on_select(self, fn: Callable, outputs: Any = None, inputs: Any = None) -> None:
        """Call `fn(*inputs)` each time the tab is chosen again (to read the disk again); `on_load` is for the first."""
        self.again.change(fn, inputs, outputs, api_visibility="private", show_progress="hidden", queue=False)

    @cached_property
    def again(self) -> gr.Number:
        """How often the tab was chosen since its first drawing was done; its change is an event to listen to.

        A tab is chosen while it is drawn, too. A handler called then would read widgets that do not hold yet what the
        link names, and its answer may come last.
        """
        times = gr.Number(0, visible="hidden", elem_classes="lab-hidden")
        count = f"(times) => window.lab.drawn.has({json.dumps(self.tab)}) ? times + 1 : times"
        self.item.select(None, times, times, js=count, api_visibility="private")
        return times


def restored(view: View, query: dict[str, str]) -> list[Any]:
    """One update a kept widget of this tab, from the query string."""
    return [kept.update(query.get(kept.key)) for kept in view.kept]


def all_fresh(functions: Sequence[Callable[[Any], Any]]) -> Callable[..., list[Any]]:
    """One handler that calls each function with its own value."""
    if len(functions) == 1:  # Gradio takes a list from a handler of one output as that output's value
        return functions[0]
    return lambda *values: [fn(value) for fn, value in zip(functions, values)]


def connect(demo: gr.Blocks, tabs: gr.Tabs, views: Sequence[View]) -> None:
    """Wire all views: restore and draw a tab when it is first shown, write changes to the address bar.

    A tab that is never opened costs nothing: Gradio's page searches its whole tree for every widget it is told of.
    """
    names = [view.tab for view in views]
    ready = gr.State(False)
    # check boxes and no gr.State: of a State the browser learns only through the queue, a second way to the server
    shown = [gr.Checkbox(False, visible="hidden", elem_classes="lab-hidden") for _ in views]

    def begin(chosen: str, request: gr.Request) -> list[Any]:
        query = dict(request.query_params)
        linked = query.get("tab") in names
        first = query["tab"] if linked else chosen if chosen in names else names[0]
        return [gr.Tabs(selected=first) if linked else gr.skip(), True, *(name == first for name in names)]

    chosen = gr.Textbox(visible=False)
    demo.load(
        begin,
        chosen,
        [tabs, ready, *shown],
        js="() => [window.lab?.onScreen() ?? '']",
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    ).then(
        None,
        shown,
        shown,
        js=f"(...seen) => window.lab.restored({json.dumps(names)}, seen)",
        api_visibility="private",
    )
    for view, seen in zip(views, shown):
        view.item.select(
            lambda now, is_ready, was, tab=view.tab: bool(was or (is_ready and now == tab)),
            [chosen, ready, seen],
            seen,
            js=f"(...values) => [window.lab.select({json.dumps(view.tab)}), ...values.slice(1)]",
            api_visibility="private",
            show_progress="hidden",
            queue=False,
        )
        if view.refreshed:
            boxes = [component for component, _ in view.refreshed]
            view.on_select(all_fresh([fn for _, fn in view.refreshed]), boxes, boxes)

        def restore(request: gr.Request, view: View = view) -> Any:
            updates = restored(view, dict(request.query_params))
            return (
                updates[0] if len(updates) == 1 else updates
            )  # of one output Gradio takes a list as its value

        components = [kept.component for kept in view.kept]
        drawn = seen.change(
            restore, None, components, api_visibility="private", show_progress="hidden", queue=False
        )
        # values are read when an event begins, so the waiting is an event of its own (of the browser alone)
        made = f"async () => {{ await window.lab.made({json.dumps(view.tab)}); }}"
        drawn = drawn.then(None, None, None, js=made, api_visibility="private")
        for fn, outputs, inputs, slow in view.draws:
            drawn = drawn.then(
                fn, inputs, outputs, api_visibility="private", show_progress="minimal", queue=slow
            )
        drawn.then(
            None,
            None,
            None,
            js=f"() => {{ window.lab.drawn.add({json.dumps(view.tab)}); }}",
            api_visibility="private",
        )
        for kept in view.kept:
            default = kept.component.value if kept.restore is None else None
            kept.component.change(
                None,
                kept.component,
                None,
                js=f"(value) => {{ window.lab.keep({json.dumps(kept.key)}, value, {json.dumps(default)}); }}",
                api_visibility="private",
            )
    last_value_counts(demo)
    repeat_alone(demo)


def last_value_counts(demo: gr.Blocks) -> None:
    """Ask handlers of changed values once more when the value has changed while they ran.

    Gradio's default for events other than `change` is "once": what a visitor chooses while the answer to the choice
    before is still on its way would be dropped, and the page would show what belongs to another value.
    """
    for fn in demo.fns.values():
        if fn.fn is not None and fn.trigger_mode == "once" and {event for _, event in fn.targets} & VALUES:
            fn.trigger_mode = "always_last"


def repeat_alone(demo: gr.Blocks) -> None:
    """Give every handler that follows the last of quick changes an event of its own.

    Asked again while it runs, such a handler is repeated afterwards, and Gradio's page then repeats all handlers of
    that event: two widgets with handlers in common repeat each other without end. Behind an empty step of the browser
    a handler repeats alone, and the handlers of one event run side by side instead of one after the other.
    """
    handlers = [fn for fn in demo.fns.values() if fn.fn is not None and fn.trigger_after is None]
    sharing = Counter(tuple(target) for fn in handlers for target in fn.targets)
    for fn in handlers:
        if fn.trigger_mode != "always_last" or all(sharing[tuple(target)] == 1 for target in fn.targets):
            continue
        assert not fn.collects_event_data, f"{fn.name} needs its event."
        first, _ = demo.default_config.set_event_trigger(
            [],
            None,
            None,
            None,
            js="() => []",
            trigger_mode="multiple",
            queue=False,
            api_visibility="private",
        )
        first.targets, fn.targets = fn.targets, []
        fn.trigger_after = first._id


def spare_the_browser(demo: gr.Blocks, first: gr.components.Component) -> None:
    """Name fewer widgets in events. `first` is the one that stands first in the page.

    For each that an event names Gradio's page searches its whole tree, when the page opens and whenever an event begins or ends: for
    the beginner of what follows another event, which has none; and for what shows the progress, where it is hidden.
    """
    for fn in demo.fns.values():
        if fn.trigger_after is not None:
            fn.targets = []
        if fn.show_progress == "hidden":
            fn.show_progress_on = [first]
