"""Kernels become guests of VMI by themselves, and leave behind what they leave on bare hardware.

What must hold: the reference kernel passes its self-test with native's end state whatever the ROM answers, however its
call sites are patched and on every form of the engine; a ROM where nobody can find it leaves it on bare hardware; slots
hold what GetRelocationInfo said. Linux 2.6.32 says that it runs on vmi, uses the VMI clock, and prints in user space
what it prints natively. Two runs are equal. Linux is looked for in $PARAVIRT_GUESTS, since it cannot be fetched.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from paravirt.boot_sequence import boot
from paravirt.config import config_path, load_config
from paravirt.conformance.case import Verdict, run_case
from paravirt.conformance.suite import all_cases
from paravirt.console import Console
from paravirt.guest import KernelInfo
from paravirt.image import load_image
from paravirt.machine.outcome import crash
from paravirt.options import BootOptions
from paravirt.plugins import load_plugins
from paravirt.record import Record
from paravirt_vmi.platform.calls import CALLS, Home
from paravirt_vmi.table import FETCH, FILL, JUMP, WRAP
from tests.realguests import guest_file

OPTIONAL = ",".join(call.name for call in CALLS if not call.needed)
# Linux cannot do without where CPUID has SEP: its slot holds an address that is none until SYSEXIT is answered.
LINUX_OPTIONAL = ",".join(call.name for call in CALLS if not call.needed and call.name != "SYSEXIT")
PORTABLE: dict[str, Any] = {"engine": "portable"}


def run(kernel: Path | None = None, backend: str = "vmi", on_end: Any = None, initrd: Path | None = None,
        **settings: Any) -> tuple[Record, str]:
    output = bytearray()
    data = initrd.read_bytes() if initrd is not None else None
    options = BootOptions(backend=backend, timeout=300, initrd=data, **settings)
    record = boot(kernel, options, Console(output.extend), on_end=on_end or (lambda guest, record: None))
    return record, output.decode("utf-8", "replace").replace("\r", "")


@pytest.fixture(scope="module")
def native() -> Record:
    return run(backend="native")[0]


@pytest.mark.parametrize("settings", [
    {}, {"replace_paravirt": False}, {"options": {"trap": "all"}}, {"options": {"deferral": "false"}},
    {"options": {"none": OPTIONAL}}, {"options": {"none": "UpdatePxELong,AllocatePage,CancelAlarm,WriteGDTEntry"}},
    {"options": {"base": "0xc0000"}}, {"no_accel": ("platform",)}, PORTABLE,
], ids=lambda settings: ",".join(f"{key}={value}" for key, value in settings.items())[:60])
def test_the_reference_kernel_ends_as_natively(native: Record, settings: dict[str, Any]) -> None:
    record, console = run(**settings)
    assert record.outcome.kind == "poweroff", record.outcome.reason
    assert record.end_state == native.end_state
    assert "VMI: Found paravirt VMI monitor, API version 3.0, ROM version 1.0" in console
    assert "Booting paravirtualized kernel on vmi" in console and "FAILED" not in console


def test_two_runs_are_equal() -> None:
    first, second = (run(append="noselftest")[0] for _ in range(2))
    assert first.repeatable() == second.repeatable()


def test_the_hypervisors_addresses_are_left_free() -> None:
    record, _ = run(options={"virtual_top": "0xfc000000"}, append="noselftest")
    assert record.outcome.kind == "poweroff"
    mappings = str(record.end_state)
    assert not re.search(r"\bf[c-f][0-9a-f]{6}\b", mappings)


def test_slots_hold_what_the_rom_answered() -> None:
    seen: dict[str, str] = {}

    def look(guest: Any, record: Record) -> None:
        seen.update({name: slot.where for name, slot in guest.ops.slots.items()})

    run(on_end=look, append="noselftest", options={"none": "GetCR2,SetTR,UpdatePxELong,AllocatePage"})
    assert seen["clts"].startswith("VMI CLTS 0xc00d") and seen["read_cr2"].startswith("native_read_cr2"), "NONE keeps"
    assert seen["load_tr_desc"].startswith("native_") and seen["set_ldt"] == "vmi_set_ldt ops.S"
    assert seen["pte_update"] == "nop" and seen["set_pte"] == "vmi_set_pte ops.S" and seen["alloc_pt"] == "nop"
    assert seen["io_delay"] == "vmi_nop ops.S", "NOP is an empty function"
    assert seen["iret"] == "vmi_iret ops.S" and seen["irq_enable_sysexit"].startswith("VMI SYSEXIT")


def test_the_tables_name_calls_and_ops_that_exist() -> None:
    names = {call.name for call in CALLS if call.home is not Home.ABSENT}
    fetched = {call for calls, _ in FETCH for call in calls}
    assert set(FILL) | set(WRAP) | set(JUMP) | fetched <= names


def test_calls_are_counted_where_their_code_begins() -> None:
    record, _ = run(count_ops=True, append="noselftest")
    counts, ops = record.counts.backend, record.counts.ops
    assert counts["vmi.call.GetRelocationInfo"] == len(CALLS)
    for call, op in (("IRET", "iret"), ("CLTS", "clts"), ("SetLazyMode", "set_lazy_mode"), ("GetCR2", "read_cr2")):
        assert counts.get(f"vmi.call.{call}", 0) >= ops.get(op, 0) - 1, call
    assert counts["vmi.call.SetCR3"] > counts.get("vmi.trap.SetCR3", 0), "some waited"
    every, _ = run(count_ops=True, append="noselftest", options={"trap": "all"})
    for name, count in every.counts.backend.items():
        if name.startswith("vmi.call.") and name != "vmi.call.GetRelocationInfo":
            assert every.counts.backend[name.replace("call", "trap")] == count, name


def test_conformance() -> None:
    results = [run_case(each, "vmi") for each in all_cases()]
    wrong = [f"{each.op} {each.case}: {each.detail}" for each in results
             if each.verdict not in (Verdict.PASS, Verdict.NOT_APPLICABLE)]
    assert not wrong
    passed = {each.op for each in results if each.verdict is Verdict.PASS}
    assert len(passed) == 99


def test_ends_of_the_guest() -> None:
    for append, kind in (("panic", "crash"), ("reboot", "reboot"), ("halt", "halt"), ("oops", "crash"),
                         ("doublefault", "crash")):
        record, _ = run(append=f"noselftest {append}")
        assert record.outcome.kind == kind, f"{append}: {record.outcome}"
    assert crash("as ever").outcome.exit_code == 70


def test_probing(tmp_path: Path) -> None:
    plugins = load_plugins(load_config(config_path(None)))
    linux = guest_file("vmlinuz")
    answer = plugins.probe(plugins.backends["vmi"], KernelInfo.of(load_image(linux)))
    assert answer.answer.value == "yes" and "bzImage" in answer.reason


# ---------------------------------------------------------------------- Linux

USER = re.compile(r"^INIT-RUN.*?^USERSPACE-OK$", re.DOTALL | re.MULTILINE)


def user_lines(console: str) -> str:
    found = USER.search(re.sub(r"^\[ *\d+\.\d+\] ", "", console, flags=re.MULTILINE))
    assert found is not None, console[-2000:]
    return found.group()


def linux(image: str, backend: str = "vmi", tests: str = "core,io,debug", **settings: Any) -> tuple[Record, str]:
    kernel, initrd = guest_file(f"kernels/{image}"), guest_file("initrd-run.gz")
    return run(kernel, backend, initrd=initrd, append=f"console=ttyS0 gtest={tests}", **settings)


@pytest.mark.parametrize("image", ["up/bzImage", "up/vmlinux", "smp/bzImage"])
def test_linux_runs_as_natively(image: str) -> None:
    record, console = linux(image)
    assert (record.outcome.kind, record.exit_code) == ("reboot", 0), record.outcome.reason
    for line in ("VMI: Found paravirt VMI monitor, API version 3.0, ROM version 1.0",
                 "Booting paravirtualized kernel on vmi [deprecated]", "vmi: registering clock event vmi-timer",
                 "Switching to clocksource vmi-timer"):
        assert line in console
    counts = record.counts.backend
    assert sum(count for name, count in counts.items() if name.startswith("vmi.emulated.")) <= 10
    other, native_console = linux(image, "native")
    assert user_lines(console) == user_lines(native_console)
    assert record.instructions <= 1.05 * other.instructions


@pytest.mark.parametrize("settings", [{"options": {"trap": "all"}}, {"no_accel": ("platform",)},
                                      {"options": {"none": LINUX_OPTIONAL}}], ids=["trap", "no-platform", "none"])
def test_linux_however_it_is_answered(settings: dict[str, Any]) -> None:
    record, console = linux("up/bzImage", tests="core", **settings)
    assert record.outcome.kind == "reboot", record.outcome.reason
    assert user_lines(console) == user_lines(linux("up/bzImage", "native", tests="core")[1])


def test_linux_makes_many_different_calls() -> None:
    record, _ = linux("up/vmlinux", tests="none", count_ops=True)
    assert sum(name.startswith("vmi.call.") for name in record.counts.backend) >= 25
    assert record.counts.ops["set_pte_at"] > 100 and record.counts.ops_counted == "all"
