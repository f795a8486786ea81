"""Runs the ``paravirt`` command for tests: in a process of its own, or in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paravirt.cli import main

ROOT = Path(__file__).resolve().parent.parent
HALT = b"\xfa\xf4\x90\x90"  # cli; hlt


def environment(*folders: Path) -> dict[str, str]:
    places = [*folders, ROOT, *(ROOT / "backends" / name for name in ("native", "xen", "vmi"))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200"}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "paravirt.cli", *map(str, arguments)]


def paravirt(*arguments: object, folders: tuple[Path, ...] = (), stdin: bytes = b"",
             cwd: Path = ROOT) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    result = subprocess.run(command(*arguments), input=stdin, capture_output=True, timeout=240, cwd=cwd,
                            env=environment(*folders), check=False)
    assert b"Traceback" not in result.stderr, result.stderr.decode()
    return result


class Here:
    """The command in this process, which is faster than in one of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        self._monkeypatch.setattr(sys, "argv", ["paravirt", *map(str, arguments)])
        self._monkeypatch.setenv("COLUMNS", "200")
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        output = self._capfd.readouterr()
        status = end.value.code or 0
        assert isinstance(status, int)
        return status, output.out, output.err


def record(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text())
    assert isinstance(data, dict)
    return data
