"""A backend in a package of its own: found by its entry point, built with our build hook, no change in core.

It overrides three ops, one in each form, and adds one option. It is installed into a temporary environment
that sees the packages of this one.
"""

from __future__ import annotations

import json
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("thirdparty") / "acme"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs `paravirt` of the temporary environment, in a folder without a plugins.toml."""
    try:
        metadata.distribution("paravirt")
    except metadata.PackageNotFoundError:
        pytest.skip("paravirt is not installed here (`make test` installs it), so no build hook can be found")
    folder = tmp_path_factory.mktemp("acme")
    unbuilt = shutil.ignore_patterns("*.o", "*.stamp", "__pycache__")
    package = shutil.copytree(SOURCE, folder / "package", ignore=unbuilt)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    own, = (folder / "venv").glob("lib/python*/site-packages")
    outer = "".join(f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages())
    (own / "outer.pth").write_text(outer)
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index",
         "--no-build-isolation", "--disable-pip-version-check", str(package)],
        check=True, timeout=120)
    empty = folder / "empty"
    empty.mkdir()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(python), "-m", "paravirt.cli", *words], text=True, capture_output=True, cwd=empty,
                              stdin=subprocess.DEVNULL, timeout=120)

    return run


def test_it_is_listed_with_its_option(command: Command) -> None:
    done = command("plugins")
    assert done.returncode == 0, done.stderr
    assert any(line.split()[:3] == ["acme", "acme", "acme"] and line.endswith("loaded")
               for line in map(str.rstrip, done.stdout.splitlines())), done.stdout
    assert "acme: -o greeting" in done.stdout and "what the backend says" in done.stdout


def test_it_boots_the_reference_kernel(command: Command, tmp_path: Path) -> None:
    done = command("boot", "--backend", "acme", "-o", "greeting=good morning", "--count-ops", "--json",
                   str(tmp_path / "acme.json"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("acme says good morning\n")
    assert "Booting paravirtualized kernel on acme" in done.stdout
    record = json.loads((tmp_path / "acme.json").read_text())
    assert record["backend"] == "acme" and record["outcome"]["kind"] == "poweroff"
    assert record["counts"]["ops"]["read_cr2"] > 100 and record["counts"]["ops"]["clts"] > 0
    assert record["counts"]["ops"]["set_wallclock"] == record["counts"]["backend"]["acme.set_wallclock"] > 0


def test_its_ops_are_told_apart(command: Command) -> None:
    done = command("ops", "--backend", "acme")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "bytes 90 0f 06" in rows["clts"] and rows["clts"].rstrip().endswith("90 0f 06")
    assert "acme_read_cr2 ops.S" in rows["read_cr2"] and "direct call" in rows["read_cr2"]
    assert "host function" in rows["set_wallclock"] and "AcmeOps.set_wallclock" in rows["set_wallclock"]
    assert "native_write_cr3" in rows["write_cr3"]


def test_its_option_is_checked(command: Command) -> None:
    done = command("boot", "-q", "--backend", "acme", "-o", "greetign=hi")
    assert done.returncode == 2
    assert done.stderr == ("paravirt: options of backend 'acme': greetign: unknown; did you mean 'greeting'?\n")
    assert "greeting: string should have at least 1 character" in command(
        "boot", "-q", "--backend", "acme", "-o", "greeting=").stderr
