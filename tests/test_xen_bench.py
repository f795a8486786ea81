"""The benchmark of a Xen domain's exits measures what it says.

What must hold: its guest does each thing as often as it is told, on both engines, and ends by itself; what it counts
shows that. How long it takes is nobody's business here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import xen
from paravirt import boot_sequence
from paravirt.console import Console
from paravirt.options import BootOptions
from paravirt.record import Record

TIMES = 7
COUNTED = {
    "hypercall round trip (xen_version)": "xen.hypercall.xen_version",
    "update_va_mapping": "xen.hypercall.update_va_mapping",
    "event to itself: send, upcall, iret": "xen.hypercall.event_channel_op",
}


@pytest.fixture(scope="module")
def kernel() -> Path:
    return xen.build()


def run(kernel: Path, case: int, count: int, engine: str) -> Record:
    options = BootOptions(backend="xen", memory=16 << 20, append=f"{case} {count}", engine=engine, timeout=60)
    record = boot_sequence.boot(kernel, options, Console())
    assert record.outcome.kind == "poweroff", record.outcome.reason
    return record


@pytest.mark.parametrize("engine", ["auto", "portable"])
@pytest.mark.parametrize("name", xen.CASES)
def test_each_case_is_done_as_often_as_asked(kernel: Path, name: str, engine: str) -> None:
    case = xen.CASES[name][0]
    once, more = run(kernel, case, 1, engine), run(kernel, case, 1 + TIMES, engine)
    if name in COUNTED:
        assert more.counts.backend[COUNTED[name]] - once.counts.backend[COUNTED[name]] == TIMES
    if "int 0x80" in name:
        assert more.counts.exceptions["128"] - once.counts.exceptions["128"] == TIMES
    if engine == "auto":
        assert more.instructions > once.instructions


