"""`paravirt new-backend NAME` makes a package that works from the first minute.

What must hold: it installs with pip in an environment that has paravirt, its ops.S is assembled, its tests pass; its
table names every op; a bad name or a folder that is there already is one line, and nothing is overwritten. That it
conforms is tried by docs/writing-a-backend.md (test_docs_pages.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from paravirt.hookspecs import op_infos
from paravirt.scaffold.make import make_backend, table
from tests.commandline import Here
from tests.venvs import fresh, run, run_pytest


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh environment with the new backend installed."""
    folder = tmp_path_factory.mktemp("scaffold")
    return fresh(folder / "venv", make_backend("first_try", folder))


def folder_of(python: Path) -> Path:
    return python.parent.parent.parent


def test_it_boots(python: Path) -> None:
    done = run(python, folder_of(python), "paravirt.cli", "boot", "-q", "--backend", "first_try", "-o",
               "greeting=good morning")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("good morning\n")
    assert "selftest: vdso ok" in done.stdout


def test_its_own_tests_pass(python: Path) -> None:
    done = run_pytest(python, folder_of(python), "paravirt-first_try/tests")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_its_table_names_every_op() -> None:
    source = table("x", "X")
    for name in op_infos():
        assert f"\n    {name} = " in source, name
    compile(source, "table.py", "exec")
    assert max(map(len, source.splitlines())) <= 120


@pytest.mark.parametrize("name", ["", "Acme", "two words", "../up", "class", "1st", "a-b", "ünder"])
def test_a_bad_name_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
                                name: str) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, said = Here(monkeypatch, capfd)("new-backend", name)
    assert status == 2 and said.count("\n") == 1 and "new-backend" in said
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    here = Here(monkeypatch, capfd)
    assert here("new-backend", "mine")[0] == 0
    (tmp_path / "paravirt-mine" / "README.md").write_text("changed")
    status, _, said = here("new-backend", "mine")
    assert status == 2 and said == "paravirt: paravirt-mine: File exists\n"
    assert (tmp_path / "paravirt-mine" / "README.md").read_text() == "changed"
    shutil.rmtree(tmp_path / "paravirt-mine")
