"""The report is one HTML page that needs nothing else and says what the records say.

What must hold: no address outside the page; each plot is an inline SVG whose values are those of the records; what a
guest or a backend wrote is text, never markup.
"""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from paravirt.boot_sequence import boot
from paravirt.compare import html, lmbench
from paravirt.compare.result import Comparison, comparison
from paravirt.compare.runs import Job, Result, Spec
from paravirt.console import Console
from paravirt.options import BootOptions

HOSTILE = '<script src="http://evil.example/"></script>&"\''


class Page(HTMLParser):
    """Elements of the page: marks of each plot, by its title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.plots: dict[str, list[dict[str, str | None]]] = {}
        self._plot: list[dict[str, str | None]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag == "svg":
            self._plot = self.plots.setdefault(str(values["aria-label"]), [])
        elif self._plot is not None and any(name.startswith("data-") for name in values):
            self._plot.append(values)

    def handle_endtag(self, tag: str) -> None:
        if tag == "svg":
            self._plot = None


def result(kind: str, name: str, options: BootOptions) -> Result:
    output = bytearray()
    record = boot(None, options, Console(output.extend))
    counts = replace(record.counts, backend={f"{name}.batch.1": 3, f"{name}.batch.4": 5})
    return Result(Job(kind, Spec(name)), replace(record, counts=counts), bytes(output))


@pytest.fixture(scope="module")
def found() -> Comparison:
    suite = BootOptions(append=lmbench.OPTIONS[1], mark=re.compile(lmbench.OPTIONS[3].encode()), count_ops=True)
    sampled = BootOptions(append="noselftest", sample_ns=10_000_000, count_ops=True)
    results = [result(kind, name, options) for name in ("first", HOSTILE)
               for kind, options in (("plain", sampled), ("counted", sampled), ("suite", suite))]
    return comparison(HOSTILE, ["first", HOSTILE], results, {}, paravirt=True, complete=True)


def test_it_needs_nothing_else(found: Comparison) -> None:
    page = Page(html.page(found))
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe", "object", "embed")]
    for tag, values in page.tags:
        for name, value in values.items():
            assert name not in ("src", "href", "srcset", "action"), (tag, name)
            assert name == "xmlns" or "//" not in str(value) or HOSTILE in str(value), (tag, name, value)
    assert "url(" not in html.STYLE and "@import" not in html.STYLE


def test_plots_hold_the_records_values(found: Comparison) -> None:
    plots = Page(html.page(found)).plots
    plain = {run.name: run.record for run in found.runs if run.kind == "plain"}
    counted = {run.name: run.record for run in found.runs if run.kind == "counted"}
    for title, records, points in (("traps over time", plain, html.trap_timeline),
                                   ("page-table pages", counted, html.growth)):
        drawn = {mark["data-series"]: mark["data-points"] for mark in plots[title]}
        assert set(drawn) == {"first", HOSTILE}
        for name, record in records.items():
            assert record is not None
            text = str(drawn[name])
            values = [float(value) for point in text.split() for value in point.split(",")]
            assert values == pytest.approx([value for point in points(record) for value in point])
    times = {(mark["data-row"], mark["data-series"]): float(str(mark["data-value"]))
             for mark in plots["virtual time of an operation"]}
    assert times == {(operation, backend): value for operation, row in html.operation_times(found).items()
                     for backend, value in row.items()}
    mix = {(mark["data-row"], mark["data-series"]): int(str(mark["data-value"])) for mark in plots["ops by group"]}
    for name, record in counted.items():
        assert record is not None
        assert {group: number for (row, group), number in mix.items() if row == name} == html.op_mix(record)
        assert sum(html.op_mix(record).values()) == sum(record.counts.ops.values())
    batches = {mark["data-row"]: mark["data-value"] for mark in plots["first: first.batch"]}
    assert batches == {"1": "3", "4": "5"}


def test_operations_are_measured_without_the_measuring(found: Comparison) -> None:
    for each in found.lmbench["first"]:
        assert each.counts["virtual_ns"] > 0, each.name
        assert each.counts.get("traps", 0) == each.counts.get("port_io", 0), each.name
    names = [each.name for each in found.lmbench["first"]]
    assert names[0] == "null syscall" and "context switch" in names and "nothing" not in names
