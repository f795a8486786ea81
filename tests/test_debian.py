"""A real kernel and a real user space: Debian's i386 Linux with busybox, its shell fed through the console.

What must hold: a kernel that was made for real hardware boots unmodified, its user space does what it is told, its
restart ends the run; and all of it, several thousand million instructions, interrupts included, is repeatable.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
VMLINUZ, INITRD = ROOT / "guests" / "vmlinuz", ROOT / "guests" / "initrd.gz"
MISSING = [path.name for path in (VMLINUZ, INITRD) if not path.exists()]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"guests/ has no {' and no '.join(MISSING)}: make guests")

COMMANDS = b"""\
cat /proc/cmdline
echo $((6 * 7)) | sed 's/^/answer-/'
(echo from; echo a; echo subshell) | sort | tr '\\n' '-'; echo
head -c 1000000 /dev/zero | sha1sum
grep -c processor /proc/cpuinfo
dmesg | grep -c -i -e 'oops' -e 'kernel bug'
exit
"""


class Run(NamedTuple):
    """What one boot printed and recorded."""

    status: int
    console: str
    said: str
    record: dict[str, Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two boots at the same time."""
    folder = tmp_path_factory.mktemp("debian")
    (folder / "commands").write_bytes(COMMANDS)
    places = (ROOT, *(ROOT / "backends" / name for name in ("native", "xen", "vmi")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    processes = []
    for number in range(2):
        with (folder / "commands").open("rb") as commands:
            processes.append(subprocess.Popen(
                [sys.executable, "-m", "paravirt.cli", "boot", str(VMLINUZ), "--backend", "native", "--initrd",
                 str(INITRD), "--append", "console=ttyS0 quiet", "--memory", "128M", "--timeout", "120", "-q",
                 "--json", str(folder / f"record{number}")],
                stdin=commands, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=ROOT))
    found = []
    for number, process in enumerate(processes):
        out, err = process.communicate()
        record = json.loads((folder / f"record{number}").read_text())
        found.append(Run(process.returncode, out.decode("utf-8", "replace").replace("\r", ""), err.decode(), record))
    return found


def test_it_ends_with_a_restart(runs: list[Run]) -> None:
    run = runs[0]
    assert run.status == 0, run.said
    assert run.record["outcome"]["kind"] == "reboot"
    assert run.record["exit_code"] == 0
    assert run.said.startswith("paravirt: reboot: the guest reset the machine by ") and run.said.count("\n") == 1
    assert "reboot: Restarting system" in run.console


def test_user_space_did_as_told(runs: list[Run]) -> None:
    lines = runs[0].console.split("\n")
    assert "console=ttyS0 quiet" in lines
    assert "answer-42" in lines
    assert "a-from-subshell-" in lines
    assert "bef3595266a65a2ff36b700a75e8ed95c68210b6  -" in lines  # SHA-1 of a million zero bytes
    at = next(number for number, line in enumerate(lines) if line.endswith("# grep -c processor /proc/cpuinfo"))
    assert lines[at + 1] == "1"
    at = next(number for number, line in enumerate(lines) if "# dmesg | grep" in line)
    assert lines[at + 1] == "0"


def test_the_record_tells_what_happened(runs: list[Run]) -> None:
    record = runs[0].record
    counts = record["counts"]
    assert record["instructions"] > 10**9
    assert record["virtual_ns"] > record["instructions"]
    assert counts["exceptions"]["14"] > 100  # page faults
    assert counts["interrupts"] > 100
    assert counts["port_io"] > len(runs[0].console)
    assert record["host"]["late_input"] == 0


def test_two_runs_are_equal(runs: list[Run]) -> None:
    assert runs[0].console == runs[1].console
    records = [{key: value for key, value in run.record.items() if key != "host"} for run in runs]
    assert records[0] == records[1]
