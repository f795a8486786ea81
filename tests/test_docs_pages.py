"""The pages of docs/ are true: their commands run, their Python is valid, what is generated is up to date.

What must hold: each ``console`` block runs in order, in a fresh folder, and prints what the page says (``...`` stands
for anything); each Python block runs, tests in it pass on every backend; links lead somewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.commandline import ROOT
from tests.kernels import kernel
from tests.venvs import fresh
from tools.pages import PAGES

DOCS = ROOT / "docs"
ALL = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(path: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(path.read_text()) if name == language]


def sessions(path: Path) -> Iterator[tuple[str, str]]:
    """Commands of a page with what each must print."""
    for block in blocks(path, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def pattern(output: str) -> str:
    """Expected output as a regular expression; a line of ``...`` alone is any number of lines."""
    lines = []
    for line in output.splitlines():
        if line == "...":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(r"\s*" + r".*?".join(re.escape(part) for part in line.strip().split("...")) + r"\s*?\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin`` of a fresh environment that sees this one's packages."""
    folder = tmp_path_factory.mktemp("docs") / "venv"
    fresh(folder)
    for name, words in {"paravirt": "paravirt.cli", "pytest": "pytest -p no:cacheprovider",
                        "pip": f"pip --python {folder}/bin/python --disable-pip-version-check"}.items():
        script = folder / "bin" / name
        runner = sys.executable if name == "pip" else f"{folder}/bin/python"
        script.write_text(f'#!/bin/sh\nexec {runner} -m {words} "$@"\n')
        script.chmod(0o755)
    return folder / "bin"


@pytest.mark.parametrize("page", [page for page in ALL if blocks(page, "console")], ids=lambda page: page.stem)
def test_commands_do_what_the_page_says(page: Path, path: Path, tmp_path: Path) -> None:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    variables |= {"PATH": f"{path}:{os.environ['PATH']}", "COLUMNS": "200", "KERNEL": str(kernel("ends", "power_off")),
                  "PIP_NO_INDEX": "1"}
    for command, output in sessions(page):
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=variables, text=True, timeout=300,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert done.returncode == 0, f"$ {command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        assert re.fullmatch(pattern(output), done.stdout), f"$ {command}\n{done.stdout[-3000:]}"


@pytest.mark.parametrize("page", [page for page in ALL if blocks(page, "python")], ids=lambda page: page.stem)
def test_python_runs(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page, "python")):
        if "def test_" in block:
            file = tmp_path / f"test_page_{number}.py"
            file.write_text(block)
            done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
                                   str(file)], cwd=tmp_path, text=True, capture_output=True, timeout=300, check=False,
                                  env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        else:
            module = ModuleType("page")
            sys.modules["page"] = module
            exec(compile(block, str(page), "exec"), vars(module))


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run: make pages"


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    assert {page.name for page in ALL} - {"README.md"} == set(re.findall(r"\((\w[\w-]*\.md)\)", index))
