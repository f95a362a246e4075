"""What a class does together, as routes of the page: names, lessons' answers, predictions, the teacher's word, the wall, hand-ins.

All of them know the visitor by the signed cookie. Those under `lab/teach` are the teacher's. Bodies are JSON, which another site
cannot send with the visitor's cookies.
"""

from __future__ import annotations

import io
import json
import logging
import urllib.parse
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from llm import classroom, dispatch, engine, handin, lessons, logbook, modes, race
from llm.config import SampleConfig
from llm.runs import Run, all_runs
from ui import login, monitor
from ui.owner import TEACHER, Visitor, cookie_line, owner, teacher_mark, teacher_token

log = logging.getLogger("llm-lab")
BODY = 20_000  # bytes of a request
LINES = 60  # of the log that a teacher sees
SHOWN = 12  # tokens of a model's distribution beside the guesses
Asked = dict[str, Any]


# --- what visitors ask


def now(visitor: Visitor, asked: Asked) -> Any:
    """A visitor says where they are, and hears what is new: their name, what the teacher shows and asks."""
    name = classroom.heard(
        visitor,
        text(asked, "tab", 40),
        text(asked, "lesson", 80),
        whole(asked, "step"),
        text(asked, "error", 300),
    )
    shown, number = classroom.told("follow")
    return {
        "name": name, "teacher": visitor.teacher, "follow": {"number": number, "query": shown}, "poll": poll_for(visitor),
        "paused": dispatch.paused(), "login": login.wanted(), "race": classroom.told("race")[0] is not None,
    }  # fmt: skip


def poll_for(visitor: Visitor) -> Any:
    """The open question as a visitor may see it: guesses and truth only after the reveal."""
    found = classroom.poll()
    if found is None:
        return None
    found["mine"] = classroom.guessed(visitor, found["id"])
    if not found["revealed"]:
        found["guesses"], found["truth"] = {}, None
    return found


def name(visitor: Visitor, asked: Asked) -> Any:
    """A visitor says what they are called. Raises ValueError where names are those of logins."""
    if login.wanted():
        raise ValueError("Your name is that of your login.")
    return {"name": classroom.rename(visitor, text(asked, "name", 200))}


def answer(visitor: Visitor, asked: Asked) -> Any:
    """A visitor answers the question of a lesson's step, and hears what is said after it."""
    lesson = lessons.get(text(asked, "lesson", 80))
    number = whole(asked, "step")
    if not 1 <= number <= len(lesson.steps):
        raise ValueError(f"{lesson.title} has {len(lesson.steps)} steps.")
    step, said = lesson.steps[number - 1], text(asked, "text", classroom.LONGEST + 1)
    if step.choices and said not in step.choices:
        raise ValueError("Choose one of the answers.")
    classroom.answer(visitor, lesson.name, number, said)
    right = said == step.choices[step.answer - 1] if step.answer else None
    told = {
        "right": right,
        "reveal": step.reveal,
        "answer": step.choices[step.answer - 1] if step.answer else "",
    }
    if step.predict:
        given = [
            one["answer"]
            for one in classroom.answers()
            if (one["lesson"], one["step"]) == (lesson.name, number)
        ]
        guesses = {text: given.count(text) for text in given}
        truth = distribution(step.predict["model"], step.predict["text"], list(guesses))
        told |= {"model": step.predict["model"], "guesses": guesses, "given": len(given), "truth": truth}
    return told


def guess(visitor: Visitor, asked: Asked) -> Any:
    """A visitor commits to an answer of the open question."""
    classroom.guess(visitor, whole(asked, "id"), text(asked, "text", 200))
    return poll_for(visitor)


def listed(visitor: Visitor, asked: Asked) -> Any:
    """All lessons, and at which of their questions the visitor has answered; for the teacher also the files that are none, and why."""
    done: dict[str, int] = {}
    for one in classroom.answers(visitor):
        done[one["lesson"]] = done.get(one["lesson"], 0) + 1
    rows = [
        {
            "name": one.name, "title": one.title, "summary": one.summary, "minutes": one.minutes, "steps": len(one.steps),
            "questions": sum(bool(step.ask) for step in one.steps), "answered": done.get(one.name, 0), "link": one.link(1),
        }
        for one in map(lessons.get, lessons.names())
    ]  # fmt: skip
    may_mend = visitor.teacher or not modes.is_shared()
    return {"lessons": rows, "refused": list(lessons.refused().values()) if may_mend else []}


def board(visitor: Visitor, asked: Asked) -> Any:
    """How the race stands."""
    rules, _ = classroom.told("race")
    if rules is None:
        return {"rules": None, "rows": []}
    names = {one["id"]: one["name"] for one in classroom.people()}
    return {
        "rules": rules,
        "rows": race.standing(rules, names),
        "link": "?" + urllib.parse.urlencode(race.form(rules)),
    }


# --- what the teacher asks


def follow(query: str) -> None:
    """Show a view to all: a query string of this page."""
    if not isinstance(query, str) or len(query) > 8_000 or (query and not query.startswith("?")):
        raise ValueError("A view is the part of the address from the question mark on.")
    classroom.say("follow", query)


def ask(asked: Asked) -> None:
    """Open a question to the class."""
    choices = asked.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
        raise ValueError("The answers to choose from are a list of texts.")
    classroom.ask(text(asked, "ask", 500), [one for one in choices if one.strip()], text(asked, "model", 200), text(asked, "prompt", 2000))  # fmt: skip


def reveal(asked: Asked) -> None:
    """Show the class its guesses, and beside them what the model finds likely."""
    found = classroom.poll()
    if found is None:
        raise ValueError("No question is open.")
    truth = distribution(found["model"], found["prompt"], list(found["guesses"])) if found["model"] else None
    classroom.reveal(found["id"], truth)


def distribution(model: str, prompt: str, guesses: list[str]) -> list[dict[str, Any]]:
    """The likeliest next tokens of a prompt and their probabilities (of the model itself, at temperature 1), largest first."""
    rows = engine.get().explain(model, text=prompt, config=SampleConfig(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0), top=200)["rows"]  # fmt: skip
    wanted = {one.strip() for one in guesses}
    kept = [row for i, row in enumerate(rows) if i < SHOWN or row["text"].strip() in wanted]
    return [{"text": row["text"], "probability": row["probability"]} for row in kept]


def limits(asked: Asked) -> None:
    """Change what each visitor may have."""
    modes.change(**{key: value for key, value in asked.items() if key != "do"})


def stop(asked: Asked) -> None:
    """Stop a run of somebody."""
    Run.open(text(asked, "run", 80)).request_stop("The teacher stopped it.")


def clear(asked: Asked) -> None:
    """Clear the room: stop all runs of visitors and forget names, answers and questions; with `delete` their runs go, too."""
    for run in all_runs():
        if run.meta["owner"] in ("", "terminal", "local"):
            continue
        if run.status() in ("waiting", "running"):
            run.request_stop("The teacher cleared the room.")
        elif asked.get("delete") is True:
            run.delete()
    classroom.forget_all()


def begin_race(asked: Asked) -> None:
    """Start a race under one token budget."""
    classroom.say("race", race.rules(text(asked, "dataset", 80), whole(asked, "tokens")))


TEACH: dict[str, Callable[[Asked], Any]] = {
    "follow": lambda asked: follow(text(asked, "query", 8_001)),
    "release": lambda asked: classroom.say("follow", None),
    "ask": ask,
    "reveal": reveal,
    "close": lambda asked: classroom.close((classroom.poll() or {"id": 0})["id"]),
    "pause": lambda asked: dispatch.pause(),
    "resume": lambda asked: dispatch.pause(False),
    "limits": limits,
    "stop": stop,
    "clear": clear,
    "race": begin_race,
    "race_over": lambda asked: classroom.say("race", None),
}


def teach(visitor: Visitor, asked: Asked) -> Any:
    """One of TEACH, for the teacher only."""
    if not visitor.teacher:
        raise PermissionError(
            "Only the teacher may do this: open the teacher's link, which the lab printed as it started."
        )
    if asked.get("do") not in TEACH:
        raise ValueError(f"{str(asked.get('do'))[:40]!r} is not known; a teacher may {', '.join(TEACH)}.")
    TEACH[asked["do"]](asked)
    return wall(visitor, {})


def wall(visitor: Visitor, asked: Asked) -> Any:
    """Everyone who is here: where they are, their newest run, their last error; and the limits and the queue."""
    if not visitor.teacher:
        raise PermissionError("Only the teacher sees the wall.")
    newest: dict[str, Run] = {}
    statuses = []
    for run in all_runs():
        newest.setdefault(run.meta["owner"], run)
        statuses.append(run.status())
    answered: dict[str, int] = {}
    for one in classroom.answers():
        answered[one["person"]] = answered.get(one["person"], 0) + 1
    rows = []
    for one in classroom.people():
        run = newest.get(one["id"])
        rows.append(
            {
                **{key: one[key] for key in ("name", "tab", "lesson", "step", "error")},
                "away": one["away"] > classroom.HERE, "answers": answered.get(one["id"], 0), "run": about(run) if run else None,
            }
        )  # fmt: skip
    found = classroom.poll()
    return {
        "people": rows, "running": statuses.count("running"), "waiting": statuses.count("waiting"), "paused": dispatch.paused(),
        "limits": [{"name": key, "said": said, "value": getattr(modes.limits(), key)} for key, said in modes.SAID.items()],
        "poll": found, "follow": classroom.told("follow")[0], "race": classroom.told("race")[0],
    }  # fmt: skip


def newest_lines(visitor: Visitor, asked: Asked) -> Any:
    """The newest lines of the lab's log, for the teacher only."""
    if not visitor.teacher:
        raise PermissionError("Only the teacher reads the log.")
    return {"lines": logbook.newest(LINES)}


def about(run: Run) -> dict[str, Any]:
    """A run in a row of the wall."""
    found = {
        "name": run.name,
        "kind": run.meta["kind"],
        "status": run.status(),
        "step": None,
        "max_steps": None,
        "loss": None,
    }
    if found["kind"] == "train":
        one = monitor.summary(run)
        found |= {"step": one["step"], "max_steps": one["max_steps"], "loss": one["val_loss"]}
    end = run.last_event()
    return found | {"message": (end or {}).get("message", "") if found["status"] == "failed" else ""}


# --- the routes


def text(asked: Asked, key: str, most: int) -> str:
    """A text of a request, cut to `most` characters; "" where there is none."""
    value = asked.get(key)
    return value[:most] if isinstance(value, str) else ""


def whole(asked: Asked, key: str) -> int:
    """A whole number of a request from 0 on; 0 where there is none."""
    value = asked.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**15 else 0


def answered(status: int, value: Any) -> Response:
    return Response(json.dumps(value), status, {"cache-control": "no-store"}, "application/json")


def route(path: str, act: Callable[[Visitor, Asked], Any]) -> Route:
    """A route that answers JSON with JSON; refused with a sentence in {"error": ...}."""

    async def handle(request: Request) -> Response:
        if not request.headers.get("content-type", "").startswith("application/json"):
            return answered(415, {"error": "The body is JSON."})
        body = await request.body()
        try:
            asked = json.loads(body) if len(body) <= BODY else None
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return answered(400, {"error": "The body is one JSON object of at most 20,000 bytes."})
        try:
            return answered(200, await run_in_threadpool(act, owner(request), asked))
        except PermissionError as error:
            log.info("refused %s: %s", path, error)
            return answered(403, {"error": str(error)})
        except ValueError as error:
            return answered(400, {"error": str(error)})
        except Exception as error:
            return answered(500, {"error": logbook.numbered(path, error)})

    return Route(path, handle, methods=["POST"])


async def become_teacher(request: Request) -> Response:
    """The teacher's link: shows the token once, which the cookie then stands for."""
    import hmac

    given = request.path_params["token"]
    home = f"{request.scope.get('root_path', '')}/?tab=class"
    if modes.mode() != "class" or not hmac.compare_digest(given.encode(), teacher_token().encode()):
        return Response(
            "This link is not the teacher's, or the lab is not run for a class.", 403, media_type="text/plain"
        )
    answer = RedirectResponse(home, 303)
    answer.headers.append("set-cookie", cookie_line(TEACHER, teacher_mark(owner(request)), hosted=False))
    return answer


async def qr(request: Request) -> Response:
    """A text of at most 1,200 characters as a QR code (SVG)."""
    import segno

    wanted = request.query_params.get("text", "")
    if not 0 < len(wanted) <= 1200:
        return Response("The text of a QR code has 1 to 1,200 characters.", 400, media_type="text/plain")
    drawn = io.BytesIO()
    segno.make(wanted, micro=False).save(
        drawn, kind="svg", scale=6, border=3, dark="#1c2530", light="#ffffff"
    )
    return Response(drawn.getvalue(), media_type="image/svg+xml")


async def hand_in(request: Request) -> Response:
    """The visitor's answers and runs as one file."""
    made = await run_in_threadpool(handin.made, str(owner(request)))
    name = f'attachment; filename="hand-in-{made["file"]}.json"'
    return Response(json.dumps(made, indent=1, ensure_ascii=False), headers={"content-disposition": name, "cache-control": "no-store"}, media_type="application/json")  # fmt: skip


ROUTES = [
    *(route(f"/lab/{path}", act) for path, act in {
        "now": now, "name": name, "answer": answer, "guess": guess, "lessons": listed, "board": board, "teach": teach, "wall": wall, "log": newest_lines,
    }.items()),
    Route("/lab/qr", qr, methods=["GET"]),
    Route("/lab/hand-in", hand_in, methods=["GET"]),
    Route("/teacher/{token}", become_teacher, methods=["GET"]),
]  # fmt: skip
