"""The reference kernel on Xen's ops is the same kernel as on native ones.

What must hold: it passes its self-test and leaves native's end state and console, on both engines, with every choice of
the guest side, patched or not; what hypercalls it made, and in batches of which size, stands in the record.

Ref: backends/xen/paravirt_xen/table.py, ops.S.
"""

from __future__ import annotations

import struct
from collections import Counter
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest

from paravirt.api import NOP, Guest, OpTable, hookimpl
from paravirt.boot_sequence import boot
from paravirt.compare.rules import normalise
from paravirt.console import Console
from paravirt.hookspecs.tables import TABLES
from paravirt.options import BootOptions
from paravirt.record import Record
from paravirt.testing.boots import Stopped, boot_to_rest_init
from paravirt.testing.fixtures import OpRecorder
from paravirt_xen.plugin import Xen
from paravirt_xen.table import XenOps, XenOptions

MEMORY = 16 << 20
FLAG_OPS = ("save_fl", "restore_fl", "irq_disable", "irq_enable")
SITES = {10, 13, 19, 26}


@cache
def run(backend: str, choice: str = "", **options: Any) -> tuple[Record, bytes]:
    """:param choice: NAME=VALUE of the backend's own options."""
    output = bytearray()
    name, _, value = choice.partition("=")
    given = BootOptions(backend=backend, memory=MEMORY, timeout=300, options={name: value} if name else {}, **options)
    record = boot(None, given, Console(output.extend))
    return record, bytes(output)


@pytest.mark.parametrize("options", [
    {}, {"choice": "multicall=off"}, {"replace_paravirt": False}, {"engine": "portable"},
], ids=["default", "multicall=off", "unpatched", "portable"])
def test_the_kernel_is_the_one_that_it_is_natively(options: dict[str, Any]) -> None:
    native, native_console = run("native")
    record, console = run("xen", **options)
    assert record.outcome.kind == "poweroff", record.outcome.reason
    assert record.end_state == native.end_state
    assert normalise(console, paravirt=True) == normalise(native_console, paravirt=True)
    assert b"Booting paravirtualized kernel on Xen" in console and b"FAILED" not in console


def test_without_a_place_for_the_vcpu_info_only_a_bad_return_looks_different() -> None:
    """The iret hypercall reports a bad frame as a fault of the program, not of the kernel's IRET."""
    native, native_console = run("native")
    record, console = run("xen", choice="vcpu_info=off")
    assert record.end_state == native.end_state
    lines = zip(normalise(native_console, paravirt=True), normalise(console, paravirt=True), strict=True)
    different = [(a, b) for a, b in lines if a != b]
    assert all("bad frame for the return" in a and "general protection fault" in b for a, b in different)
    assert len(different) == 3


def test_the_record_tells_the_sizes_of_batches() -> None:
    counts = run("xen")[0].counts.backend
    batches = {int(key.rpartition(".")[2]): count for key, count in counts.items() if key.startswith("xen.batch.")}
    assert sum(batches.values()) == counts["xen.hypercall.multicall"]
    inner = sum(count for key, count in counts.items() if key.startswith("xen.multicall."))
    assert sum(size * count for size, count in batches.items()) == inner
    assert max(batches) <= 32 and {4, 5, 8} <= set(batches)
    alone = run("xen", choice="multicall=off")[0].counts.backend
    assert not [key for key in alone if key.startswith(("xen.batch", "xen.multicall", "xen.hypercall.multicall"))]


def test_two_runs_are_equal() -> None:
    output = bytearray()
    again = boot(None, BootOptions(backend="xen", memory=MEMORY), Console(output.extend))
    record, console = run("xen")
    assert (again.repeatable(), bytes(output)) == (record.repeatable(), console)


def test_flag_ops_stand_in_place_of_their_calls() -> None:
    found: Counter[tuple[str, bool]] = Counter()
    slots: list[str] = []

    def look(stopped: Stopped) -> None:
        for site in stopped.kernel.call_sites:
            name = TABLES["paravirt_ops"].words[site.type]
            if name in FLAG_OPS:
                inline = stopped.ops.slots[name].inline
                assert site.length in SITES and inline is not None
                found[name, stopped.kernel.read(site.address, site.length).startswith(inline)] += 1
        slots.extend(stopped.ops.slots[name].where for name in (*FLAG_OPS, "read_cr2", "iret", "set_pte", "alloc_pt"))

    boot_to_rest_init(look, BootOptions(backend="xen", memory=MEMORY))
    assert slots == [*(f"xen_{name}_direct ops.S" for name in (*FLAG_OPS, "read_cr2", "iret")), "xen_set_pte ops.S",
                     "xen_alloc_pt ops.S"], "what the slots hold once call sites are patched"
    assert all(found[name, True] for name in FLAG_OPS)
    # Entry code has sites of Linux's length: too short for a look at what is pending.
    assert {name for (name, inline), count in found.items() if not inline and count} == {"irq_enable"}


@pytest.mark.parametrize(("append", "kind", "said"), [
    ("reboot", "reboot", "Restarting system."),
    ("halt", "poweroff", "System halted."),
    ("panic", "crash", "Kernel panic - not syncing: asked for on the command line"),
    ("oops", "crash", "BUG: unable to handle kernel NULL pointer dereference at virtual address 00000004"),
    ("panic panic=1", "reboot", "Kernel panic - not syncing"),
])
def test_a_domain_ends_by_telling_the_reason(append: str, kind: str, said: str) -> None:
    record, console = run("xen", append=append)
    assert record.outcome.kind == kind, record.outcome.reason
    assert said.encode() in console
    if kind == "crash":
        assert record.outcome.reason.startswith("kernel panic: ")
    assert record.counts.backend["xen.hypercall.sched_op"] >= 1


def test_sched_clock_leaves_stolen_time_out() -> None:
    """Another domain takes a quarter of the CPU: real time goes on, the scheduler's does not."""
    found: list[int] = []

    def look(stopped: Stopped) -> None:
        engine, ops = stopped.machine.engine, stopped.ops
        clock, now = ops.sched_clock(), engine.now()
        stopped.kernel.udelay(120_000)
        found.extend((ops.sched_clock() - clock, engine.now() - now))
        at = ops.sched_clock(), engine.now()
        ops.safe_halt()  # blocked, which is the domain's own choice
        found.extend((ops.sched_clock() - at[0], engine.now() - at[1]))

    boot_to_rest_init(look, BootOptions(backend="xen", memory=MEMORY, options={"steal": "25"}))
    own, real, own_blocked, real_blocked = found
    assert real >= 120_000_000 and 0.72 * real < own < 0.85 * real
    assert abs(own_blocked - real_blocked) < 0.1 * real_blocked


@pytest.mark.parametrize("backend", ["native", "xen"])
def test_wrappers_see_every_call_of_patched_sites_too(backend: str) -> None:
    names = ("set_lazy_mode", "irq_enable", "set_pte_at", "load_tls", "flush_tlb_single")
    recorder = OpRecorder()(*names)
    given = BootOptions(backend=backend, memory=MEMORY, append="noselftest", plugins=(recorder.plugin,))
    boot(None, given, Console())
    counted = run(backend, append="noselftest", count_ops=True)[0].counts.ops
    assert {name: recorder.counts[name] for name in names} == {name: counted[name] for name in names}


def test_another_table_may_name_these_ops() -> None:
    """As Linux's tables do. This one leaves an op out, which the self-test notices: nobody listens to the debug port
    of a domain, so the kernel ends with a panic, and the domain with a crash."""
    class Ops(XenOps):
        set_iopl_mask = NOP

    class Derived(Xen):
        name = "derived"

        @hookimpl
        def paravirt_install_ops(self, guest: Guest) -> OpTable:
            assert isinstance(guest.options, XenOptions)
            return Ops(guest, lambda: self.domain, guest.options)

    plugin = SimpleNamespace(__name__="derived plugin", paravirt_backends=hookimpl(lambda: (Derived,)))
    output = bytearray()
    record = boot(None, BootOptions(backend="derived", memory=MEMORY, plugins=(plugin,)), Console(output.extend))
    assert (record.outcome.kind, record.outcome.reason) == ("crash", "kernel panic: exit status 1")
    assert b"Exit with status 1." in output and record.exit_code == 70


def test_cpuid_is_the_hypervisors_answer_without_what_a_domain_lacks() -> None:
    def look(stopped: Stopped) -> None:
        page = stopped.kernel.get_page()

        def cpuid(leaf: int) -> tuple[int, ...]:
            stopped.kernel.write(page, struct.pack("<4I", leaf, 0, 0, 0))
            stopped.ops.cpuid(page, page + 4, page + 8, page + 12)
            return struct.unpack("<4I", stopped.kernel.read(page, 16))

        _, ebx, ecx, edx = cpuid(0x40000000)
        assert struct.pack("<3I", ebx, ecx, edx) == b"XenVMMXenVMM"
        assert not cpuid(1)[3] & (1 << 9 | 1 << 22 | 1 << 29), "local APIC, ACPI, thermal monitor"

    outcome = boot_to_rest_init(look, BootOptions(backend="xen", memory=MEMORY))
    assert outcome.end.word == "stopped", outcome.reason
