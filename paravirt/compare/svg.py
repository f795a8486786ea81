"""Plots as inline SVG: bars, stacked bars, lines. Every mark carries its value, so that a plot can be read back.

Ref: W3C, Scalable Vector Graphics (SVG) 1.1, chapters 9 and 10; HTML, "Embedding custom non-visible data".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 260, 170, 34, 12, 90
BAR, GAP, GROUP_GAP = 12, 3, 12
COLOURS = ("#3b6ea5", "#b5651d", "#6a9f58", "#8b5a8c", "#c44e52", "#777777", "#937860", "#4c9a9a", "#d4a72c", "#2f4b7c")
TICKS = 4


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _open(height: float, title: str) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
            f'height="{height:.0f}" role="img" aria-label="{escape(title)}" font-family="sans-serif" font-size="11">')


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, fill: str, **data: object) -> str:
    words = "".join(f' data-{key}="{escape(str(value))}"' for key, value in data.items())
    tip = ", ".join(str(value) for value in data.values())
    return (f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"{words}>'
            f"<title>{escape(tip)}</title></rect>")


def legend(names: Sequence[str]) -> str:
    """Names with the colours that the plots give them."""
    return " ".join(f'<span class="key" style="--key:{colour(index)}">{escape(name)}</span>'
                    for index, name in enumerate(names))


def bars(title: str, values: Mapping[str, Mapping[str, float]], unit: str = "", *, common: bool = False) -> str:
    """A group of bars a row, a bar a series.

    :param common: one scale for all rows; else each has its own, since rows may differ by thousands.
    :param values: row -> series -> value; the order of series is that of the first row.
    """
    series = list(dict.fromkeys(name for row in values.values() for name in row))
    parts, y = [], float(TOP)
    largest = max((value for by_series in values.values() for value in by_series.values()), default=0)
    for row, by_series in values.items():
        most = (largest if common else max(by_series.values(), default=0)) or 1
        middle = y + (BAR + GAP) * len(by_series) / 2 + 3
        parts.append(_text(LEFT - 8, middle, row, "end"))
        for name, value in by_series.items():
            width = max(value, 0) / most * (WIDTH - LEFT - RIGHT)
            parts.append(_rect(LEFT, y, width, BAR, colour(series.index(name)), row=row, series=name, value=value))
            parts.append(_text(LEFT + width + 5, y + BAR - 2, f"{value:,.10g} {unit}".rstrip()))
            y += BAR + GAP
        y += GROUP_GAP
    return "\n".join([_open(y, title), *parts, "</svg>"])


def stacked(title: str, values: Mapping[str, Mapping[str, float]]) -> str:
    """One bar a row, divided among parts; all rows have one scale."""
    names = list(dict.fromkeys(part for row in values.values() for part in row))
    most = max((sum(row.values()) for row in values.values()), default=0) or 1
    drawn, y = [], float(TOP)
    for row, parts in values.items():
        drawn.append(_text(LEFT - 8, y + 15, row, "end"))
        x = float(LEFT)
        for part, value in parts.items():
            width = value / most * (WIDTH - LEFT - RIGHT)
            drawn.append(_rect(x, y, width, 20, colour(names.index(part)), row=row, series=part, value=value))
            x += width
        drawn.append(_text(x + 5, y + 15, f"{sum(parts.values()):,}"))
        y += 32
    return "\n".join([_open(y, title), *drawn, "</svg>"])


def _round(most: float) -> float:
    """The end of an axis: the next 1, 2, 4 or 8 times a power of ten, so that its ticks are short numbers."""
    if most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= most)


def lines(title: str, series: Mapping[str, Sequence[tuple[float, float]]], x_unit: str) -> str:
    """A line a series over a common scale.

    :param series: name -> points (x, y), with x ascending. Each line has its points in ``data-points``.
    """
    most_x = _round(max((x for points in series.values() for x, _ in points), default=0))
    most_y = _round(max((y for points in series.values() for _, y in points), default=0))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = []
    for tick in range(TICKS + 1):
        x, y = LEFT + wide * tick / TICKS, HEIGHT - BOTTOM - high * tick / TICKS
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{most_y * tick / TICKS:,.10g}", "end"))
        parts.append(_text(x, HEIGHT - BOTTOM + 16, f"{most_x * tick / TICKS:,.10g} {x_unit}", "middle"))
    for index, (name, points) in enumerate(series.items()):
        drawn = " ".join(f"{LEFT + wide * x / most_x:.1f},{HEIGHT - BOTTOM - high * y / most_y:.1f}" for x, y in points)
        data = escape(" ".join(f"{x:.10g},{y:.10g}" for x, y in points))
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour(index)}" stroke-width="1.5" '
                     f'data-series="{escape(name)}" data-points="{data}"/>')
    return "\n".join([_open(HEIGHT, title), *parts, "</svg>"])
