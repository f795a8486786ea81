"""Figures as text: a table for the terminal, and the same in Markdown for the docs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.runner import OURS, QEMU
from benchmarks.suite import Figure, geometric_mean

BEGIN, END = "<!-- results: written by python -m benchmarks -->", "<!-- end of results -->"
GROUPS = {
    "cpu": "CPU kernels", "trip": "Round trips", "boot": "Boots of real kernels", "memory": "Memory",
    "start": "Start-up",
}
HEADER = ("", "paravirt", "QEMU", "ratio", "ratio, CPU time", "")
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def quantity(value: float | None, group: str) -> str:
    """Seconds with a fitting unit, or bytes as MiB; three digits."""
    if value is None:
        return "-"
    if group == "memory":
        return f"{value / 2**20:.0f} MiB"
    scale, unit = next((pair for pair in UNITS if value >= pair[0]), UNITS[-1])
    return f"{value / scale:.3g} {unit}"


def ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def rows(figures: Sequence[Figure], group: str) -> list[tuple[str, ...]]:
    """The group's table without its header; the mean last, where a mean says something."""
    chosen = [figure for figure in figures if figure.group == group]
    found: list[tuple[str, ...]] = [
        (figure.name, quantity(figure.wall[OURS], group), quantity(figure.wall.get(QEMU), group), ratio(figure.ratio),
         ratio(figure.cpu_ratio), figure.what)
        for figure in chosen
    ]
    if group == "cpu" and chosen and all(figure.ratio for figure in chosen):
        means = [geometric_mean([value or 1.0 for value in column]) for column in (
            [figure.ratio for figure in chosen], [figure.cpu_ratio for figure in chosen])]
        found.append(("geometric mean", "", "", *map(ratio, means), "of the worst variants"))
        for variant in chosen[0].variants:
            means = [geometric_mean([figure.variants[variant][i] for figure in chosen]) for i in (0, 1)]
            found.append(("", "", "", *map(ratio, means), f"of {variant}"))
    return found


def plain(figures: Sequence[Figure]) -> str:
    """All groups for a terminal, columns aligned."""
    lines = []
    for group, title in GROUPS.items():
        table = [HEADER, *rows(figures, group)]
        if len(table) == 1:
            continue
        widths = [max(len(row[column]) for row in table) for column in range(len(HEADER))]
        lines.append(title)
        for row in table:
            numbers = "  ".join(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True))
            lines.append(f"  {row[0]:{widths[0]}}  {numbers}  {row[-1]}".rstrip())
        lines.append("")
    return "\n".join(lines)


def markdown(figures: Sequence[Figure], about: Sequence[str]) -> str:
    """All groups for the docs. :param about: lines on how it was measured."""
    lines = [*about, ""]
    for group, title in GROUPS.items():
        found = rows(figures, group)
        if found:
            lines += [f"### {title}", "", f"| {' | '.join(HEADER)} |", "|---|--:|--:|--:|--:|---|"]
            lines += [f"| {' | '.join(row)} |" for row in found]
            lines.append("")
    return "\n".join(lines)


def fill(page: Path, text: str) -> None:
    """Put `text` between the page's two marks. :raises ValueError: when it has none."""
    old = page.read_text()
    if BEGIN not in old or END not in old:
        raise ValueError(f"{page}: no place for the results")
    before, rest = old.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
