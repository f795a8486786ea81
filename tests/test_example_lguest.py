"""A backend that somebody else could have written: examples/paravirt-lguest, a distribution of its own.

What must hold: it is written against `paravirt.api` alone, in at most 500 lines of code, and no file of the framework
knows it; installed into a fresh environment it is found by its entry point, its tests pass, and the conformance suite
finds no op that fails.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.commandline import ROOT
from tests.venvs import fresh, run, run_pytest

EXAMPLE = ROOT / "examples" / "paravirt-lguest"
LINES = 500
COMMENT = re.compile(r'/\*.*?\*/|""".*?"""|^\s*(#(?!\s*define|\s*include)|//).*?$', re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lguest")
    unbuilt = shutil.ignore_patterns("*.o", "*.stamp", "__pycache__")
    return fresh(folder / "venv", shutil.copytree(EXAMPLE, folder / "package", ignore=unbuilt))


def test_it_is_short() -> None:
    files = [path for path in (EXAMPLE / "paravirt_lguest").iterdir() if path.suffix in (".py", ".S")]
    assert len(files) >= 4
    code = [line for path in files for line in COMMENT.sub("", path.read_text()).splitlines() if line.strip()]
    assert 200 < len(code) <= LINES


def test_it_imports_the_api_alone() -> None:
    for path in (EXAMPLE / "paravirt_lguest").glob("*.py"):
        for module in re.findall(r"^(?:from|import) (paravirt\S*)", path.read_text(), re.MULTILINE):
            assert module == "paravirt.api" or module.startswith("paravirt_lguest"), f"{path.name}: {module}"


def test_no_file_of_the_framework_knows_it() -> None:
    for folder in ("paravirt", "backends", "guest"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".c", ".h", ".S", ".in", ".toml"):
                assert "lguest" not in path.read_text().lower(), path


def test_its_tests_pass(python: Path) -> None:
    done = run_pytest(python, python.parent, str(EXAMPLE / "tests"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_it_is_found_and_agrees_with_native(python: Path) -> None:
    done = run(python, python.parent, "paravirt.cli", "compare", "--backends", "native,lguest", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("native, lguest: agree\n")


def test_it_conforms(python: Path) -> None:
    done = run_pytest(python, python.parent, "--pyargs", "paravirt.conformance", "--paravirt-backend", "lguest")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    report = done.stdout[done.stdout.index("backend lguest") :]
    assert " fail" not in report and " missing" not in report
