"""The pytest plugin: options and fixtures for tests of backends and kernels.

Found by pytest through the entry point ``paravirt``. ``--paravirt-backend NAME`` (it may be repeated) chooses the
backends; without it every installed one that can boot the reference kernel is used.

* ``backend``: the name of a backend; a test that asks for it runs once for each.
* ``machine``: a bare `paravirt.Machine` of 16 MiB, closed behind the test.
* ``boot``: boots a kernel on the test's backend: ``record = boot(append="panic")``; takes what `BootOptions` takes,
  and `kernel`. The console's output is in ``boot.output``.
* ``op_recorder``: a plugin that notes each call of the ops it is told to: ``op_recorder("write_cr3")``, then
  ``boot(plugins=(op_recorder.plugin,))``; ``op_recorder.calls`` are names with arguments.
* ``on_each_backend``: runs a snippet of guest code on each backend and compares what it leaves:
  ``on_each_backend("b8 01 00 00 00")``; it gives the `State`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from paravirt.conformance.case import Result, Verdict
from paravirt.conformance.suite import PROPERTY, report
from paravirt.machine.core import Machine
from paravirt.testing.boots import backend_names
from paravirt.testing.fixtures import Boot, OpRecorder, State, compare_on

OPTION = "--paravirt-backend"
MACHINE_BYTES = 16 << 20


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("paravirt")
    group.addoption(OPTION, action="append", default=[], metavar="NAME", dest="paravirt_backend",
                    help="test this backend (may be repeated); default: every installed one that boots")


def chosen_backends(config: pytest.Config) -> list[str]:
    """Those of the command line, else all that are installed and can boot."""
    given: list[str] = config.getoption("paravirt_backend")
    return given or backend_names()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames and "backend" not in _own_parameters(metafunc):
        metafunc.parametrize("backend", chosen_backends(metafunc.config), indirect=True)


def _own_parameters(metafunc: pytest.Metafunc) -> set[str]:
    """Names that the test's own marks give values to."""
    names: set[str] = set()
    for mark in metafunc.definition.iter_markers("parametrize"):
        given = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
        names |= set(given.replace(",", " ").split()) if isinstance(given, str) else set(given)
    return names


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The conformance suite's report: a table for each backend that it ran on."""
    found: dict[str, list[Result]] = {}
    for reports in terminalreporter.stats.values():
        for each in reports:
            for name, row in getattr(each, "user_properties", ()):
                if name == PROPERTY and each.when == "call":
                    backend, op, case, verdict, detail = row
                    found.setdefault(backend, []).append(Result(op, case, Verdict(verdict), detail))
    for backend, results in sorted(found.items()):
        terminalreporter.section(f"paravirt conformance: backend {backend}")
        for line in report(results):
            terminalreporter.write_line(line)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """Name of a backend; the test runs once for each that is chosen."""
    name: str = request.param
    return name


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine without devices or kernel."""
    with Machine(MACHINE_BYTES) as made:
        yield made


@pytest.fixture
def boot(backend: str) -> Boot:
    """Boots on the test's backend."""
    return Boot(backend)


@pytest.fixture
def op_recorder() -> OpRecorder:
    """Notes calls of ops."""
    return OpRecorder()


@pytest.fixture
def on_each_backend(request: pytest.FixtureRequest) -> Callable[..., State]:
    """Runs guest code on every chosen backend; fails if they leave different states."""
    names = chosen_backends(request.config)
    return lambda code, **registers: compare_on(names, code, **registers)
