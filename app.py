"""The page: its table of contents (one line a tab) and how it is served."""

from __future__ import annotations

import argparse
import os
import socket
import threading
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from starlette.middleware import Middleware

from llm import check, dispatch, engine, files
from ui import health, pickers, serve, transfers
from ui.guard import Guard, allowed_hosts, is_loopback
from ui.owner import OwnerCookie
from ui.tabs import arena, attention, evaluate, finetune, models, playground, tokens, train, windows
from ui.theme import theme
from ui.view import View, connect

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

ICON = UI / "icon.svg"
HEADER = f"""<header class="lab-header">
{ICON.read_text(encoding="utf-8").replace("#0f766e", "var(--color-accent)").strip()}
<div><h1>LLM Lab</h1><p>{PURPOSE}</p></div><div class="lab-spring"></div>
<button id="lab-theme" class="lab-switch" type="button" aria-label="Switch between light and dark"><span>Light / dark</span></button>
</header>"""


def chosen_tabs(names: str) -> dict[str, tuple]:
    """The rows of TABS that `names` gives ("tokens playground"), in the page's order; all when it is empty.

    A page of few tabs opens faster: the browser builds every widget of every tab before it shows the first.
    Exits with the list of names when there is one it does not know.
    """
    wanted = names.replace(",", " ").split()
    if unknown := [name for name in wanted if name not in TABS]:
        raise SystemExit(f"LLM_TABS names {' '.join(unknown)}; the tabs are {' '.join(TABS)}.")
    return {name: row for name, row in TABS.items() if not wanted or name in wanted}


def build() -> gr.Blocks:
    """The page as one gr.Blocks: all tabs, or those that $LLM_TABS names."""
    with gr.Blocks(
        title="LLM Lab", analytics_enabled=False, fill_width=True, delete_cache=(3600, 24 * 3600)
    ) as page:
        gr.HTML(HEADER, padding=False, apply_default_css=False, js_on_load=None)
        views = []
        with gr.Tabs(elem_id="lab-tabs", overflow_behavior="wrap") as tabs:
            for name, (title, module) in chosen_tabs(os.environ.get("LLM_TABS", "")).items():
                with gr.Tab(title, id=name, elem_id=f"tab-{name}") as item:
                    view = View(name, item)
                    module.build(view)
                    views.append(view)
        connect(page, tabs, views)
    return page.queue(max_size=200, default_concurrency_limit=8)


demo = build()


def css() -> str:
    """All style sheets of ui/css in name order (base.css first)."""
    files = sorted((UI / "css").glob("*.css"), key=lambda path: (path.stem != "base", path.stem))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def settings(host: str, port: int, hosted: bool = False) -> dict:
    """The arguments of `demo.launch`: loopback and quiet at home, tight when `hosted` (a Space)."""
    hosts = allowed_hosts(host)
    return {
        "server_name": host,
        "server_port": port,
        "theme": theme(),
        "favicon_path": ICON,
        "css": css(),
        # in the head, which runs before the first widget is made: the scripts of widgets use window.lab
        "head": f"<script>({(UI / 'js' / 'shell.js').read_text(encoding='utf-8')})();</script>",
        "run_history": False,
        "ssr_mode": False,
        "footer_links": ["api"],
        "show_error": False,
        "state_session_capacity": 500,
        "max_file_size": files.upload_limit(),
        "app_kwargs": {
            "routes": [*health.ROUTES, *transfers.ROUTES, *serve.routes()],
            "middleware": [
                Middleware(Guard, hosts=hosts, any_address=not is_loopback(host), hosted=hosted),
                Middleware(OwnerCookie, hosted=hosted),
            ],
        },
    }


def main(argv: list[str] | None = None) -> None:
    """`python app.py`: serve the page and open it in the browser."""
    hosted = bool(os.environ.get("SPACE_ID"))
    parser = argparse.ArgumentParser(description=PURPOSE)
    parser.add_argument("--host", default="0.0.0.0" if hosted else "127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", 7860)))
    parser.add_argument("--browser", action=argparse.BooleanOptionalAction, default=not hosted)
    arguments = parser.parse_args(argv)
    port = free_port(arguments.host, arguments.port)
    if port != arguments.port:
        print(f"Port {arguments.port} is taken; the page opens at {port}.")
    dispatch.pump()  # runs that waited when the machine went down
    if dispatch.where() != "local":
        threading.Thread(target=dispatch.keep_pumping, daemon=True).start()
    threading.Timer(5.0, warm_up).start()  # while the first tab is looked at, not before
    demo.launch(inbrowser=arguments.browser, **settings(arguments.host, port, hosted))


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
    """Start the engine with the model that the page opens with; sweep up what broken-off imports left."""
    if name := pickers.first_model():
        engine.get().warm_up(name)
    check.sweep()


if __name__ == "__main__":
    main()
