"""Host functions meet the guest: arguments, results, faults, and what a wrapper may do.

An op is one instruction to the guest. A bad pointer is a fault at the stub and the op runs again when the guest
has mended it, so demand paging works; what cannot be mended is the guest's own oops, never a traceback.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest

from paravirt.boot_sequence import boot
from paravirt.calls import Calls
from paravirt.console import Console
from paravirt.forms import hookimpl
from paravirt.options import BootOptions
from paravirt.record import Record
from tests.mutants import backend_plugin

USER_STACK_BELOW = 0xBFFF8000  # in init's stack area, far below anything it has touched
NOWHERE = 0xDEAD0000


def run(**ops: object) -> tuple[Record, str]:
    output = bytearray()
    options = BootOptions(backend="mutant", plugins=(backend_plugin(ops),), memory=32 << 20)
    return boot(None, options, Console(output.extend)), output.decode("utf-8", "replace")


def test_a_fault_is_mended_by_the_guest_and_the_op_runs_again() -> None:
    seen: list[str] = []

    @hookimpl
    def dup_mmap(self: Any, oldmm: int, mm: int) -> None:
        seen.append("tried")
        assert self.guest.machine.vcpu.read(USER_STACK_BELOW, 4, user=True) == bytes(4)
        seen.append("done")

    record, console = run(dup_mmap=dup_mmap)
    assert record.outcome.kind == "poweroff", console[-1500:]
    assert seen[:3] == ["tried", "tried", "done"], "the first fork faults once, and only once"
    assert seen.count("done") == record.counts.ops["dup_mmap"] - (seen.count("tried") - seen.count("done"))


def test_a_fault_that_the_guest_cannot_mend_is_its_oops() -> None:
    @hookimpl
    def dup_mmap(self: Any) -> None:
        self.guest.machine.vcpu.write_u32(NOWHERE, 1)

    record, console = run(dup_mmap=dup_mmap)
    assert record.outcome.kind == "crash"
    assert record.outcome.reason.startswith("kernel panic: ")
    assert "dead0000" in console
    assert record.outcome.eip is not None and record.outcome.symbol.startswith("gate_page"), record.outcome


def test_a_fault_goes_to_the_kernels_fix_up() -> None:
    """Where the kernel's exception table has the stub, a bad pointer is no oops: the caller goes on behind it."""
    @hookimpl
    def arch_setup(self: Any) -> None:
        guest = self.guest
        vcpu, note = guest.machine.vcpu, guest.kernel.note
        rows = [note.ex_table + 8 * row for row in range(note.ex_table_entries)]
        spare = next(row for row in rows if vcpu.read(row, 8) == bytes(8))
        stub = Calls.stub_at(note.gate_page, guest.ops.slots["dup_mmap"].number)
        vcpu.write(spare, struct.pack("<II", stub, stub + 2))  # its ret

    tried: list[int] = []

    @hookimpl
    def dup_mmap(self: Any, mm: int) -> None:
        tried.append(mm)
        self.guest.machine.vcpu.write_u32(NOWHERE, 1)

    record, console = run(arch_setup=arch_setup, dup_mmap=dup_mmap)
    assert record.outcome.kind == "poweroff", console[-1500:]
    assert len(tried) == record.counts.ops["dup_mmap"] > 10, "once for each fork"
    assert "BUG" not in console


@pytest.mark.parametrize("result", [0, 1, 0xFFFFFFFF, -1, 0x1_2345_6789])
def test_results_are_cut_to_the_width_of_the_op(result: int) -> None:
    """get_debugreg returns 32 bits; the self-test compares what it gets."""
    @hookimpl
    def get_debugreg(self: Any) -> int:
        return result

    _, console = run(get_debugreg=get_debugreg)
    assert f"dr0-3 FAILED (got {result & 0xFFFFFFFF:x}," in console


def test_64_bit_arguments_and_results() -> None:
    seen: list[int] = []

    @hookimpl
    def make_pte(self: Any, pte: int) -> int:
        seen.append(pte)
        return pte

    record, _ = run(make_pte=make_pte)
    assert record.outcome.kind == "poweroff"
    assert any(pte >> 63 for pte in seen), "NX is bit 63"
    assert all(pte < 1 << 64 for pte in seen)


def test_a_host_function_may_end_the_run() -> None:
    from paravirt.api import End, GuestExit, Outcome

    @hookimpl
    def banner(self: Any) -> None:
        raise GuestExit(Outcome(End.POWEROFF, "the backend had enough"))

    record, _ = run(banner=banner)
    assert (record.outcome.kind, record.outcome.reason) == ("poweroff", "the backend had enough")
