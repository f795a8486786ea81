"""The Xen Test Framework's tests for 32-bit PV guests, run as they are.

What must hold: each says SUCCESS, or SKIP where what it tests is absent from this hypervisor as from many a real one.
Those that cannot pass here stand in LEFT_OUT with the reason.

Ref: https://xenbits.xen.org/docs/xtf/. The images lie in $PARAVIRT_GUESTS/xtf, as their own make builds them.
"""

from __future__ import annotations

import pytest

from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.options import BootOptions
from tests.realguests import guest_file

SUCCESS, SKIP = "SUCCESS", "SKIP"
RESULTS = {
    "argo": SKIP, "cpuid": SUCCESS, "cpuid-faulting": SKIP, "example": SUCCESS, "livepatch-priv-check": SUCCESS,
    "msr": SUCCESS, "selftest": SUCCESS, "xsa-122": SUCCESS, "xsa-183": SUCCESS, "xsa-185": SUCCESS,
    "xsa-188": SUCCESS, "xsa-194": SUCCESS, "xsa-213": SUCCESS, "xsa-259": SUCCESS, "xsa-260": SUCCESS,
    "xsa-286": SUCCESS, "xsa-298": SUCCESS, "xsa-317": SUCCESS, "xsa-339": SUCCESS,
}
LEFT_OUT = {
    "debug-regs": "not finished, by its own word: it reads an MSR that a PV guest has not",
    "memop-seg": "Unicorn's CPU lets null segments be used",
    "xsa-296": "one vcpu",
}


def result(name: str, command_line: str = "") -> str:
    """What a test says in its last line."""
    output = bytearray()
    kernel = guest_file(f"xtf/test-pv32pae-{name}")
    record = boot(kernel, BootOptions(backend="xen", append=command_line, timeout=60), Console(output.extend))
    assert record.outcome.kind == "poweroff", record.outcome.reason
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.startswith("Test result: ")]
    assert lines, output
    return lines[-1].removeprefix("Test result: ").strip()


@pytest.mark.parametrize("name", RESULTS)
def test_result(name: str) -> None:
    assert result(name) == RESULTS[name]


@pytest.mark.parametrize("way", ["hypercall", "vmassist"])
def test_the_virtual_iopl_by_either_way(way: str) -> None:
    assert result("pv-iopl", way) == SUCCESS
