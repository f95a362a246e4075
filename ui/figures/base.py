"""What all pictures share: escaping, colours, tables, number formats."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

# Okabe-Ito subset with 3:1 contrast on both themes; base.css has the same values as --lab-train ...
SERIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
DASHES = ["solid", "dash", "dot", "dashdot"]
MARKERS = ["circle", "square", "diamond", "triangle-up"]
TRAIN, VALIDATION = SERIES[0], SERIES[1]


def escape(text: object) -> str:
    """`text` safe inside HTML and inside quoted attributes. Every foreign text passes here."""
    return html.escape(str(text), quote=True)


def number(value: float | int | None, digits: int = 4) -> str:
    """A number for reading: thousands separated, `digits` significant ones, "-" when absent, infinity as a sign."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e6):
        return f"{value:.{digits - 1}e}".replace("-", "−")
    before = math.floor(math.log10(size)) + 1 if size else 1  # digits before the point, negative below 0.1
    return f"{value:,.{max(digits - before, 0)}f}".replace("-", "−")


def count(value: float) -> str:
    """A large count with its unit letter: 124439808 -> "124 M"."""
    for limit, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {letter}"
    return f"{value:.3g}"


def size(n_bytes: float) -> str:
    """Bytes for reading: 1536 -> "1.5 KB"."""
    for limit, unit in ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "KB")):
        if n_bytes >= limit:
            return f"{n_bytes / limit:.1f} {unit}"
    return f"{int(n_bytes)} bytes"


def duration(seconds: float | None) -> str:
    """Seconds for reading: 75 -> "1 min 15 s"."""
    if seconds is None or math.isnan(seconds) or math.isinf(seconds):
        return "–"
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds / 86400:.1f} days"


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "", numeric: Iterable[int] = ()
) -> str:
    """An HTML table of escaped cells that scrolls sideways when narrow; columns in `numeric` are right-aligned."""
    numeric = set(numeric)

    def cells(values: Sequence[object], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=num' if i in numeric else ''}>{escape(value)}</{tag}>"
            for i, value in enumerate(values)
        )

    head = f"<thead><tr>{cells(header, 'th')}</tr></thead>"
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<div class='lab-scroll' tabindex='0'><table class='lab-table'>{title}{head}<tbody>{body}</tbody></table></div>"


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Name and value side by side as small cards (escaped)."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f"<dl class='lab-facts'>{items}</dl>"


def message(text: str, kind: str = "note") -> str:
    """One sentence in a box; `kind` is note, warning or error."""
    role = "alert" if kind == "error" else "note"
    return f"<div class='lab-message lab-{escape(kind)}' role='{role}'>{escape(text)}</div>" if text else ""


def utf16(text: str) -> int:
    """The length of a text as a browser counts it."""
    return len(text.encode("utf-16-le")) // 2
