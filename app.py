"""The page: its table of contents (one line a tab) and how it is served."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from starlette.middleware import Middleware

from llm import check, disk, dispatch, engine, files, logbook, modes, tokenizer, zero
from ui import allowed, health, keeping, language, lesson_bar, login, pickers, room, serve, transfers
from ui.guard import Guard, allowed_hosts, is_loopback
from ui.owner import OwnerCookie, teacher_token
from ui.tabs import (
    arena,
    attention,
    classroom,
    evaluate,
    finetune,
    models,
    playground,
    tokens,
    train,
    windows,
)
from ui.theme import theme
from ui.view import View, connect, spare_the_browser

UI = Path(__file__).resolve().parent / "ui"
PURPOSE = "Follow a language model from text to tokens, windows, attention, training and sampling."

TABS = {  # name in the address bar: title, module
    "tokens": ("Tokens", tokens),
    "windows": ("Windows", windows),
    "attention": ("Attention", attention),
    "train": ("Train", train),
    "finetune": ("Finetune", finetune),
    "playground": ("Playground", playground),
    "evaluate": ("Evaluate", evaluate),
    "arena": ("Arena", arena),
    "models": ("Models", models),
}
CLASS_TABS = {"class": ("Class", classroom)}  # where the lab is run for a class

ICON = UI / "icon.svg"
HEADER = f"""<header class="lab-header">
{ICON.read_text(encoding="utf-8").replace("#0f766e", "var(--color-accent)").strip()}
<div><h1>LLM Lab</h1><p>{PURPOSE}</p></div><div class="lab-spring"></div>
<button id="lab-follow" class="lab-switch lab-plain" type="button" hidden><span>Show my view to all</span></button>
<button id="lab-name" class="lab-switch lab-plain" type="button" title="Say what you are called" hidden><span translate="no"></span></button>
<button id="lab-lessons" class="lab-switch lab-plain" type="button"><span>Lessons</span></button>
<button id="lab-share" class="lab-switch lab-plain" type="button"><span>Share</span></button>
{language.switch()}
<button id="lab-theme" class="lab-switch" type="button" aria-label="Switch between light and dark"><span>Light / dark</span></button>
</header>"""


def chosen_tabs(names: str) -> dict[str, tuple]:
    """The rows of TABS that `names` gives ("tokens playground"), in the page's order; all when it is empty.

    A page of few tabs opens faster: the browser builds every widget of every tab before it shows the first.
    Exits with the list of names when there is one it does not know.
    """
    wanted = names.replace(",", " ").split()
    present = TABS | (CLASS_TABS if modes.mode() == "class" else {})
    if unknown := [name for name in wanted if name not in present]:
        raise SystemExit(f"LLM_TABS names {' '.join(unknown)}; the tabs are {' '.join(present)}.")
    return {name: row for name, row in present.items() if not wanted or name in wanted or name in CLASS_TABS}


class Page(gr.Blocks):
    """gr.Blocks without the connection that Gradio keeps open for as long as a tab is.

    A browser has six connections to one server, so the sixth tab would wait for ever. That a tab was closed is seen by the stream of
    its answer; what a session holds is small, and goes with the oldest of `state_session_capacity`.
    """

    def get_config_file(self, *given, **named) -> dict:
        """As Gradio's, which the browser reads."""
        return super().get_config_file(*given, **named) | {"connect_heartbeat": False}


def build() -> gr.Blocks:
    """The page as one gr.Blocks: all tabs, or those that $LLM_TABS names."""
    with Page(
        title="LLM Lab", analytics_enabled=False, fill_width=True, delete_cache=(3600, 24 * 3600)
    ) as page:
        header = gr.HTML(
            HEADER, padding=False, apply_default_css=False, js_on_load="window.lab.showLanguage(element);"
        )
        if kept := keeping.line():
            gr.HTML(kept, padding=False, apply_default_css=False, js_on_load=None)
        lesson = gr.HTML("", padding=False, apply_default_css=False, js_on_load=None, elem_id="lab-lesson")
        views = []
        with gr.Tabs(elem_id="lab-tabs", overflow_behavior="wrap") as tabs:
            for name, (title, module) in chosen_tabs(os.environ.get("LLM_TABS", "")).items():
                with gr.Tab(title, id=name, elem_id=f"tab-{name}") as item:
                    view = View(name, item)
                    module.build(view)
                    views.append(view)
        connect(page, tabs, views)
        known = lesson_bar.selectors(views)

        def over(request: gr.Request) -> str:
            query = dict(request.query_params)
            return lesson_bar.hidden(query, known) + lesson_bar.bar(query, known)

        page.load(over, None, lesson, api_visibility="private", show_progress="hidden", queue=False)
        spare_the_browser(page, header)
    allowed.authorise(page)
    return page.queue(max_size=200, default_concurrency_limit=8)


if __name__ == "__main__" and "--mode" in sys.argv[:-1]:  # the page is built for its mode
    os.environ["LLM_MODE"] = sys.argv[sys.argv.index("--mode") + 1]

demo = build()


def css() -> str:
    """All style sheets of ui/css in name order (base.css first)."""
    files = sorted((UI / "css").glob("*.css"), key=lambda path: (path.stem != "base", path.stem))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def scripts(reachable: str = "") -> str:
    """What runs before the page is made: the shell, language, then share, lessons and class; `reachable`: where others find the lab."""
    shell, room_script = ((UI / "js" / name).read_text(encoding="utf-8") for name in ("shell.js", "room.js"))
    about = f"window.lab.reachable = {json.dumps(reachable)};"
    return f"<script>({shell})(); {language.script()}; {about} ({room_script})({json.dumps(modes.mode())});</script>"


def settings(host: str, port: int, hosted: bool = False, reachable: str = "", tunnel: bool = False) -> dict:
    """The arguments of `demo.launch`: loopback and quiet at home, tight when `hosted` (a Space)."""
    hosts = allowed_hosts(host) | ({".gradio.live"} if tunnel else frozenset())
    return {
        "server_name": host,
        "server_port": port,
        "theme": theme(),
        "favicon_path": ICON,
        "css": css(),
        # in the head, which runs before the first widget is made: the scripts of widgets use window.lab
        "head": scripts(reachable),
        "run_history": False,
        "ssr_mode": False,
        "footer_links": ["api"],
        "show_error": False,
        "state_session_capacity": 500,
        "max_file_size": files.upload_limit(),
        "app_kwargs": {
            "routes": [
                *health.ROUTES,
                *keeping.ROUTES,
                *language.ROUTES,
                *login.ROUTES,
                *transfers.ROUTES,
                *room.ROUTES,
                *serve.routes(),
            ],
            "middleware": [
                Middleware(Guard, hosts=hosts, any_address=not is_loopback(host), hosted=hosted),
                Middleware(OwnerCookie, hosted=hosted),
                Middleware(login.Door),
            ],
        },
    }


def main(argv: list[str] | None = None) -> None:
    """`python app.py`: serve the page and open it in the browser."""
    hosted, shared = bool(os.environ.get("SPACE_ID")), modes.is_shared()
    parser = argparse.ArgumentParser(description=PURPOSE)
    parser.add_argument(
        "--mode",
        choices=modes.LIMITS,
        default=modes.mode(),
        help="who uses it: one person, a class, strangers",
    )
    parser.add_argument("--host", default="0.0.0.0" if shared else "127.0.0.1", help="address to listen at")
    parser.add_argument(
        "--share",
        action="store_true",
        help="an address on gradio.live too, for a class outside of this network",
    )
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", 7860)))
    parser.add_argument("--browser", action=argparse.BooleanOptionalAction, default=not hosted)
    arguments = parser.parse_args(argv)
    port = free_port(arguments.host, arguments.port)
    if port != arguments.port:
        print(f"Port {arguments.port} is taken; the page opens at {port}.")
    try:
        limited = bool(disk.quota())
        modes.limits()
    except ValueError as error:
        raise SystemExit(f"{error}") from None
    logbook.start()
    logbook.log.info("the lab has started: mode %s, %s:%d", modes.mode(), arguments.host, port)
    if zero.is_here():
        zero.install()
    dispatch.pump()  # runs that waited when the machine went down
    if dispatch.where() != "local" or shared or limited:
        threading.Thread(target=dispatch.keep_pumping, daemon=True).start()
    threading.Timer(5.0, warm_up).start()  # while the first tab is looked at, not before
    reachable = ""
    if modes.mode() == "class":
        host = lan_address() if not is_loopback(arguments.host) else "127.0.0.1"
        reachable = f"http://{host}:{port}/"
        print(
            f"For the class: {reachable}\nFor the teacher alone: {reachable}teacher/{teacher_token()}",
            flush=True,
        )
    demo.launch(
        inbrowser=arguments.browser,
        share=arguments.share,
        **settings(arguments.host, port, hosted, reachable, arguments.share),
    )


def lan_address() -> str:
    """This machine's address in its network; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of nobody (RFC 5737): only the route is looked up
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def free_port(host: str, first: int) -> int:
    """The first free port of the ten from `first` on. Exits with a sentence when all are taken."""
    for port in range(first, first + 10):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return port
            except OSError:
                continue
    raise SystemExit(f"The ports {first} to {first + 9} are all taken: choose another one with --port.")


def warm_up() -> None:
    """Start the engine with the model that the page opens with, read the first encoding; sweep up what broken-off imports left."""
    tokenizer.get("gpt2")  # what the Tokens tab opens with
    if name := pickers.first_model():
        engine.get().warm_up(name)
    check.sweep()


if __name__ == "__main__":
    main()
