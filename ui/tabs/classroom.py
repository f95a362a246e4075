"""Class: how to join, the race, and for the teacher the wall, the queue, questions to all, and lessons of their own."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from llm import classroom, lessons
from ui import pickers
from ui.figures.base import escape, message
from ui.owner import here
from ui.parts import intro, plain_errors, section
from ui.view import View

SCRIPT = Path(__file__).parents[1] / "js" / "classroom.js"


def add_lesson(upload: str | None) -> str:
    """Keep a teacher's file as a lesson. Raises ValueError with what is wrong in it."""
    if not here().teacher:
        raise ValueError(
            "Only the teacher adds lessons: open the teacher's link, which the lab printed as it started."
        )
    if not upload:
        raise ValueError("Choose a Markdown file first.")
    with open(upload, "rb") as file:
        made = lessons.keep(Path(upload).name, file.read(lessons.LARGEST + 1))
    return (
        f"{message(f'{made.title} is a lesson now, of {len(made.steps)} steps.')}"
        f"<p><a href='{escape(made.link(1))}'>Open it</a></p>"
    )


def build(view: View) -> None:
    """Lay out the tab and wire it."""
    intro(
        "Everyone who has opened the lab, with runs of their own; what the teacher shows is shown to all.",
        "Say what you are called, at the top, and open the first lesson.",
    )
    gr.HTML(
        "<div class='cl-room'></div>", padding=False, apply_default_css=False, elem_id="class-room",
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
    )  # fmt: skip
    with gr.Accordion("For the teacher: ask the class", open=False, elem_classes="lab-quiet cl-teacher"):
        section(
            "Predict, then reveal",
            "All commit to an answer; then the guesses stand beside what the model finds likely.",
        )
        with gr.Row():
            model = pickers.model_picker(view, "model", min_width=150)
            prompt = gr.Textbox("Long ago, a", label="Text whose next token is guessed (empty: no model takes part)", max_lines=3, elem_id="class-prompt", scale=3)  # fmt: skip
        question = gr.Textbox(
            "Which token comes next?", label="Question", max_lines=1, elem_id="class-question"
        )
        choices = gr.Textbox(
            "",
            label="Answers to choose from, one a line (empty: free text)",
            lines=2,
            max_lines=8,
            elem_id="class-choices",
        )
        ask = gr.Button("Ask the class", variant="primary", elem_id="class-ask", size="sm")
    with gr.Accordion(
        "For the teacher: a lesson of your own", open=False, elem_classes="lab-quiet cl-teacher"
    ):
        upload = gr.File(label="Markdown with front matter, as in lessons/", file_types=[".md"], type="filepath", height=110, elem_id="class-upload")  # fmt: skip
        add = gr.Button("Add this lesson", size="sm", elem_id="class-add")
        said = gr.HTML(padding=False, elem_id="class-added")

    def begin(model: str, prompt: str, question: str, choices: str) -> None:
        if not here().teacher:
            raise ValueError("Only the teacher asks the class.")
        listed = [one for one in (choices or "").split("\n") if one.strip()]
        classroom.ask(question or "", listed, model if prompt else "", prompt or "")

    quiet = dict(api_visibility="private", show_progress="hidden", queue=False)
    ask.click(plain_errors(begin), [model, prompt, question, choices], None, **quiet)
    add.click(plain_errors(add_lesson), upload, said, **quiet)
    view.keep("prompt", prompt)
