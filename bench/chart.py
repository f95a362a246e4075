"""A picture of curves for the documents: two rows of small charts, logarithmic both ways, as SVG."""

from __future__ import annotations

import math
from html import escape

WIDE, HIGH, LEFT, TOP = 250, 170, 62, 40
COLOURS = {"FLOPs": "#0072B2", "bandwidth": "#D55E00", "encoding": "#009E73"}
ROWS = (("seconds", 1), ("megabytes", 2))
Point = tuple[float, float, float, str]  # what grows, seconds, bytes, the limit it meets


def curves(series: dict[str, list[Point]]) -> str:
    """One column for each thing that grows: seconds above, memory below; a mark's colour says the limit it meets."""
    parts = []
    for column, (name, points) in enumerate(series.items()):
        for line, (unit, place) in enumerate(ROWS):
            values = [point[place] / (1 if place == 1 else 1e6) for point in points]
            parts.append(
                chart([p[0] for p in points], values, [p[3] for p in points], name, unit, column, line)
            )
    width, height = LEFT + len(series) * (WIDE + LEFT), TOP + 2 * (HIGH + 60)
    key = "".join(
        f"<circle cx='{LEFT + 120 * i}' cy='14' r='5' fill='{colour}'/><text x='{LEFT + 10 + 120 * i}' y='18'>{escape(name)}</text>"
        for i, (name, colour) in enumerate(COLOURS.items())
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' font-family='sans-serif' font-size='12' "
        f"role='img'><rect width='100%' height='100%' fill='#fff'/>{key}{''.join(parts)}</svg>\n"
    )


def chart(
    xs: list[float], ys: list[float], limits: list[str], name: str, unit: str, column: int, line: int
) -> str:
    """One chart at its place in the picture."""
    left, top = LEFT + column * (WIDE + LEFT), TOP + line * (HIGH + 60)
    across, up = scale(xs, left, left + WIDE), scale(ys, top + HIGH, top)
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in zip(xs, ys))
    marks = "".join(
        f"<circle cx='{across(x):.1f}' cy='{up(y):.1f}' r='4' fill='{COLOURS[met]}'><title>{short(x)}: {y:.3g} {unit}, "
        f"{met}</title></circle>"
        for x, y, met in zip(xs, ys, limits)
    )
    ticks = "".join(
        f"<text x='{across(x):.1f}' y='{top + HIGH + 16}' text-anchor='middle' fill='#444'>{short(x)}</text>"
        for x in xs
    )
    sides = "".join(
        f"<text x='{left - 6}' y='{up(y) + 4:.1f}' text-anchor='end' fill='#444'>{y:.3g}</text>"
        for y in (min(ys), max(ys))
    )
    return (
        f"<rect x='{left}' y='{top}' width='{WIDE}' height='{HIGH}' fill='none' stroke='#bbb'/>"
        f"<text x='{left}' y='{top - 6}' font-weight='bold'>{escape(unit)} by {escape(name)}</text>"
        f"<polyline points='{path}' fill='none' stroke='#888'/>{marks}{ticks}{sides}"
    )


def scale(values: list[float], first: int, last: int):
    """A function from a value to its place, logarithmic, with a little room at both ends."""
    low, high = math.log(min(values)), math.log(max(values))
    room = 0.08 * ((high - low) or 1.0)
    low, high = low - room, high + room
    return lambda value: first + (math.log(value) - low) / (high - low) * (last - first)


def short(value: float) -> str:
    """1,500,000 as 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}"
