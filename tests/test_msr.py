"""Model-specific registers: those that the CPU has keep what is written, all others raise #GP(0) at the instruction.

Kernels find out by #GP which registers there are. The public interface cannot give that: without the seam
unknown registers read as zero, which is tested too, so that the difference stays known.
Ref: Intel SDM vol. 4, table 2-2; vol. 2B, RDMSR.
"""

from __future__ import annotations

import pytest

from paravirt.machine import accel
from tests.snippet import ENGINES, start

READ, WRITE, BOTH = 0, 1, 2
CHECKED = tuple(name for name, off in ENGINES.items() if not {"state", "msrs"} & set(off))
ZERO = tuple(name for name in ENGINES if name not in CHECKED)
KEPT = {"SYSENTER_CS": 0x174, "SYSENTER_ESP": 0x175, "SYSENTER_EIP": 0x176, "PAT": 0x277}
UNKNOWN = {"MTRRcap": 0xFE, "perf counter": 0xC1, "x2APIC ID": 0x802, "LSTAR": 0xC0000082, "FS base": 0xC0000100,
           "nothing": 0x12345678, "no index at all": 0xFFFFFFFF}


def access(engine: str, msr: int, how: int, value: int = 0) -> tuple[int, list[int], int]:
    """(EDX:EAX afterwards, vectors, TSC afterwards)."""
    arguments = [msr, how, value & 0xFFFFFFFF, value >> 32]
    with start("msr", engine, arguments=arguments) as guest:
        guest.finish()
        low, high, tsc_low, tsc_high, end = guest.results(5)
        assert end == 1
        for record in guest.log():
            assert (record.vector, record.error) == (13, 0)
            assert record.eip in (guest.symbol("here"), guest.symbol("there")), "exact EIP"
        return high << 32 | low, guest.vectors(), tsc_high << 32 | tsc_low


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("msr", KEPT.values(), ids=list(KEPT))
def test_registers_that_the_cpu_has(engine: str, msr: int) -> None:
    assert access(engine, msr, BOTH, 0x0406)[:2] == (0x0406, [])


@pytest.mark.parametrize("engine", CHECKED)
@pytest.mark.parametrize("msr", UNKNOWN.values(), ids=list(UNKNOWN))
def test_all_others_raise_gp(engine: str, msr: int) -> None:
    assert access(engine, msr, READ)[:2] == (0x22222222_11111111, [13]), "nothing is changed"
    assert access(engine, msr, WRITE, 5)[1] == [13]


@pytest.mark.parametrize("engine", ZERO)
def test_without_the_seam_unknown_ones_read_as_zero(engine: str) -> None:
    assert access(engine, UNKNOWN["perf counter"], READ)[:2] == (0, [])


@pytest.mark.parametrize("engine", CHECKED)
def test_the_tsc_is_one(engine: str) -> None:
    value, vectors, tsc = access(engine, 0x10, READ)
    assert vectors == [] and 0 < value < tsc < value + 10_000
    value, vectors, tsc = access(engine, 0x10, BOTH, 7 << 40)
    assert vectors == [] and 7 << 40 <= value < tsc < (7 << 40) + 10_000


@pytest.mark.parametrize("engine", CHECKED)
def test_what_linux_asks_of_any_p6(engine: str) -> None:
    assert access(engine, 0x1B, READ)[:2] == (0xFEE00100, []), "a local APIC that is switched off"
    for msr in (0x17, 0x2A, 0x8B, 0x1D9):
        assert access(engine, msr, BOTH, 0)[:2] == (0, [])


def test_other_engines_of_the_process_are_left_alone() -> None:
    with start("msr", "fast"), start("msr", "portable", arguments=[0xC1, READ, 0, 0]) as other:
        assert other.finish().vectors() == []
    assert "msrs" in accel.NAMES
