"""A bar for each ratio, as SVG: no library is needed for rectangles and words.

Ref: W3C, Scalable Vector Graphics (SVG) 1.1, chapters 9 and 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log2

from benchmarks.suite import Figure
from benchmarks.table import GROUPS

WIDTH, LABELS, RIGHT = 760, 200, 60
BAR, GAP, TITLE, TOP, BOTTOM = 14, 6, 28, 40, 30
LOWEST, HIGHEST = 1 / 64, 4.0  # the axis, logarithmic; what lies outside is cut off there, its number is not
COLOURS = {"cpu": "#3b6ea5", "trip": "#6a9f58", "boot": "#b5651d", "memory": "#777777", "start": "#8b5a8c"}
FONT = 'font-family="sans-serif" font-size="12"'


def place(ratio: float) -> float:
    """The x of a ratio, in pixels."""
    bounded = min(max(ratio, LOWEST), HIGHEST)
    return LABELS + (WIDTH - LABELS - RIGHT) * log2(bounded / LOWEST) / log2(HIGHEST / LOWEST)


def plot(figures: Sequence[Figure]) -> str:
    """The SVG document: bars from 1 (as fast as QEMU) to the left for slower, to the right for faster."""
    parts = []
    y = TOP
    for group, title in GROUPS.items():
        chosen = [(figure, figure.ratio) for figure in figures if figure.group == group]
        shown = [(figure, value) for figure, value in chosen if value is not None]
        if not shown:
            continue
        parts.append(f'<text x="8" y="{y + 18}" {FONT} font-weight="bold">{escape(title)}</text>')
        y += TITLE
        for figure, value in shown:
            left, right = sorted((place(value), place(1.0)))
            parts.append(f'<text x="{LABELS - 8}" y="{y + 11}" text-anchor="end" {FONT}>{escape(figure.name)}</text>')
            parts.append(f'<rect x="{left:.1f}" y="{y}" width="{max(right - left, 1):.1f}" height="{BAR}" '
                         f'fill="{COLOURS[group]}"/>')
            parts.append(f'<text x="{right + 5:.1f}" y="{y + 11}" {FONT}>{value:.2f}</text>')
            y += BAR + GAP
    height = y + BOTTOM
    axis = []
    tick = LOWEST
    while tick <= HIGHEST:
        x = place(tick)
        label = f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}"
        axis.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - BOTTOM}" '
                    f'stroke="{"#000000" if tick == 1 else "#dddddd"}"/>')
        axis.append(f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle" {FONT}>{label}</text>')
        tick *= 2
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
            f'<text x="8" y="20" {FONT} font-weight="bold">QEMU\'s time or memory over ours: 1 is equal, '
            f"more is better</text>")
    return "\n".join([head, *axis, *parts, "</svg>", ""])
