"""The report: one page that needs nothing but itself. Everything in it may come from a guest, and is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from paravirt.compare import svg
from paravirt.compare.costs import Row
from paravirt.compare.result import Comparison
from paravirt.hookspecs import MODULES
from paravirt.hookspecs._spec import INFO
from paravirt.record import MarkRecord, Record

STYLE = """
body { font: 14px/1.45 sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .15em .7em; border-bottom: 1px solid #ddd }
td + td, th + th { text-align: right; font-variant-numeric: tabular-nums } th { text-align: left }
.key { margin-right: 1.2em } .key::before { content: ""; display: inline-block; width: .8em; height: .8em;
margin-right: .4em; background: var(--key) } .agree { color: #276b2b } .differ { color: #a11 }
pre { background: #f4f4f4; padding: .6em; overflow-x: auto } svg { max-width: 100%; height: auto }
"""
NUMBERED = re.compile(r"(?P<name>.+)\.(?P<number>\d+)$")


def page(comparison: Comparison) -> str:
    """The HTML document."""
    title = f"paravirt compare: {comparison.kernel}"
    return "\n".join([
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">', f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style></head><body>", f"<h1>{escape(title)}</h1>", *_verdict(comparison),
        "<h2>Costs of a run</h2>", table(comparison.costs), *_plots(comparison),
        *(["<h2>Ops</h2>", table(comparison.ops)] if comparison.ops else []), "</body></html>", ""])


def _verdict(comparison: Comparison) -> Iterable[str]:
    failed = [run for run in comparison.runs if run.problem]
    if comparison.agree:
        yield f'<p class="agree">{escape(", ".join(comparison.backends))} agree.</p>'
    for run in failed:
        yield f'<p class="differ">{escape(run.name)} failed: {escape(run.problem)}</p>'
    for each in comparison.differences:
        line = f", line {each.line}" if each.line else ""
        yield f'<p class="differ">{escape(each.backend)} differs: {escape(each.what)}{line}</p>'
        yield f"<pre>{escape(each.expected)}\n{escape(each.got)}</pre>"
        if each.ops:
            yield f"<p>Ops: {escape(', '.join(each.ops))}</p>"


def table(rows: Sequence[Row]) -> str:
    """Rows of figures as a table."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *names))
    body = "".join(
        f"<tr><td>{escape(row.name)}</td>" + "".join(f"<td>{_cell(row.values.get(name))}</td>" for name in names)
        + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: int | float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _plots(comparison: Comparison) -> Iterable[str]:
    plain = {run.name: run.record for run in comparison.runs if run.kind == "plain" and run.record is not None}
    counted = {run.name: run.record for run in comparison.runs if run.kind == "counted" and run.record is not None}
    yield f"<p>{svg.legend(list(plain))}</p>"
    if comparison.lmbench:
        yield "<h2>Virtual time of an operation, ns</h2>"
        yield svg.bars("virtual time of an operation", operation_times(comparison))
        yield table(lmbench_rows(comparison))
    yield "<h2>Traps over time</h2>"
    yield svg.lines("traps over time", {name: trap_timeline(record) for name, record in plain.items()}, "ms")
    histograms = {name: values for name, record in plain.items() for name, values in _histograms(name, record)}
    for name, values in histograms.items():
        yield f"<h2>{escape(name)}</h2>"
        yield svg.bars(name, {size: {"": number} for size, number in values.items()}, common=True)
    if counted:
        groups = list(dict.fromkeys(group for record in counted.values() for group in op_mix(record)))
        yield "<h2>Ops by group</h2>"
        yield f"<p>{svg.legend(groups)}</p>"
        yield svg.stacked("ops by group", {
            name: {group: mix.get(group, 0) for group in groups}
            for name, mix in ((name, op_mix(record)) for name, record in counted.items())})
        yield "<h2>Page-table pages over time</h2>"
        yield f"<p>{svg.legend(list(counted))}</p>"
        yield svg.lines("page-table pages", {name: growth(record) for name, record in counted.items()}, "ms")


def operation_times(comparison: Comparison) -> dict[str, dict[str, float]]:
    """Operation -> backend -> virtual ns of one."""
    names = list(dict.fromkeys(each.name for found in comparison.lmbench.values() for each in found))
    return {name: {backend: each.each("virtual_ns") for backend, found in comparison.lmbench.items() for each in found
                   if each.name == name} for name in names}


def lmbench_rows(comparison: Comparison) -> list[Row]:
    """Virtual ns and traps of an operation, and the ratio to the first backend."""
    rows = []
    backends = list(comparison.lmbench)
    for name in operation_times(comparison):
        found = {backend: next((each for each in comparison.lmbench[backend] if each.name == name), None)
                 for backend in backends}
        first = found[backends[0]]
        values: dict[str, int | float | None] = {}
        for backend, each in found.items():
            values[f"{backend}: ns"] = each.each("virtual_ns") if each else None
            values[f"{backend}: traps"] = each.each("traps") if each else None
            if backend != backends[0] and each is not None and first is not None and first.each("virtual_ns"):
                values[f"{backend}: ratio"] = each.each("virtual_ns") / first.each("virtual_ns")
        rows.append(Row(name=name, values=values))
    return rows


def trap_timeline(record: Record) -> list[tuple[float, float]]:
    """(virtual ms, traps so far) of each sample and of the end."""
    points = [(sample.virtual_ns / 1e6, float(sample.counts.traps)) for sample in record.samples]
    return [*points, (record.virtual_ns / 1e6, float(record.counts.traps))]


def growth(record: Record) -> list[tuple[float, float]]:
    """(virtual ms, page-table pages announced and not released) of each sample."""
    return [(sample.virtual_ns / 1e6, float(_pages(sample))) for sample in record.samples]


def _pages(sample: MarkRecord) -> int:
    ops = sample.counts.ops
    return sum(ops.get(f"alloc_{level}", 0) - ops.get(f"release_{level}", 0) for level in ("pt", "pd"))


def op_mix(record: Record) -> dict[str, int]:
    """Calls by the group of the hook specification that the op is of."""
    group = {name: module.__name__.rpartition(".")[2] for module in MODULES
             for name, value in vars(module).items() if hasattr(value, INFO)}
    mix: dict[str, int] = {}
    for name, number in record.counts.ops.items():
        mix[group.get(name, "other")] = mix.get(group.get(name, "other"), 0) + number
    return dict(sorted(mix.items()))


def _histograms(backend: str, record: Record) -> Iterable[tuple[str, Mapping[str, int]]]:
    """What the backend counts by a number, batches by their size for instance."""
    found: dict[str, dict[int, int]] = {}
    for key, value in record.counts.backend.items():
        if match := NUMBERED.fullmatch(key):
            found.setdefault(match["name"], {})[int(match["number"])] = value
    for name, values in found.items():
        yield f"{backend}: {name}", {str(number): values[number] for number in sorted(values)}


__all__ = ["growth", "lmbench_rows", "op_mix", "operation_times", "page", "table",
           "trap_timeline"]
