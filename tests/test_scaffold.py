"""`paravirt new-backend NAME` makes a package that works from the first minute.

What must hold: it installs with pip in an environment that has paravirt, its ops.S is assembled, its tests pass, the
conformance suite finds no op that fails; its table names every op; a bad name or a folder that is there already is
one line, and nothing is overwritten.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest

from paravirt.hookspecs import op_infos
from paravirt.scaffold.make import make_backend, table
from tests.commandline import Here


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh virtual environment that sees this one's packages, with the new backend installed."""
    try:
        metadata.distribution("paravirt")
    except metadata.PackageNotFoundError:
        pytest.skip("paravirt is not installed here (`make test` installs it), so no build hook can be found")
    folder = tmp_path_factory.mktemp("scaffold")
    package = make_backend("first_try", folder)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    own, = (folder / "venv").glob("lib/python*/site-packages")
    places = [path for path in sys.path if path.endswith("site-packages")]
    (own / "outer.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in places))
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
                    "--no-index", "--no-build-isolation", "--disable-pip-version-check", str(package)],
                   check=True, timeout=120)
    return python


def run(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    folder = python.parent.parent.parent
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return subprocess.run([str(python), "-m", *words], text=True, capture_output=True, cwd=folder, timeout=300,
                          stdin=subprocess.DEVNULL, env=environment)


def test_it_boots(environment: Path) -> None:
    done = run(environment, "paravirt.cli", "boot", "-q", "--backend", "first_try", "-o", "greeting=good morning")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("good morning\n")
    assert "selftest: vdso ok" in done.stdout


def test_its_own_tests_pass(environment: Path) -> None:
    done = run(environment, "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "paravirt-first_try/tests")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_it_conforms(environment: Path) -> None:
    done = run(environment, "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--pyargs",
               "paravirt.conformance", "--paravirt-backend", "first_try")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    totals = done.stdout[done.stdout.index("backend first_try") :]
    assert " pass" in totals and " fail" not in totals and " missing" not in totals


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
