"""Every VMI call does what the CPU's instruction would, wherever it is answered.

What must hold: ROM code, library and exit table give the same registers and memory; with ``-o trap=all`` too. What a
guest asks wrongly is an exception at its own CALL, a VMI error, or the end of the guest with a sentence; nothing the
guest does raises in the host. What waits in the queue is made up for before anybody can see that it waited.

Ref: platform/calls.py; Intel SDM vol. 2 for the instructions.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paravirt.machine import layout
from paravirt.machine.outcome import End
from paravirt_vmi.platform.calls import CALLS, Home
from tests.vmifuzz import Fuzzer
from tests.vmimachine import (
    CODE,
    CODE_HIGH,
    DATA_HIGH,
    FREE,
    GDT,
    IDT,
    KERNEL_CS,
    KERNEL_DS,
    STACK,
    TSS_SELECTOR,
    USER_CS,
    USER_DS,
    Vmi,
    vmi,
)

GP, PF, NP = 13, 14, 11
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("fast", {}), ("fast", {"trap": "all"}), ("no-platform", {}), ("portable", {}), ("portable", {"trap": "all"})]
each_form = pytest.mark.parametrize(("engine", "options"), FORMS, ids=lambda value: str(value))
ALARM_PERIODIC = 0x100

# What each call is tried with: EAX, EDX, ECX, stack words; and the EAX and EDX that it leaves where they are known.
TRIED: dict[str, tuple[int, int, int, tuple[int, ...], int | None, int | None]] = {
    "CPUID": (1, 0, 0, (), 0x6E8, None),
    "WRMSR": (0x1234, 0, 0x175, (), None, None),
    "RDMSR": (0, 0, 0x174, (), 0, 0),
    "SetGDT": (FREE, 0, 0, (), None, None),
    "SetLDT": (0, 0, 0, (), None, None),
    "SetIDT": (FREE + 16, 0, 0, (), None, None),
    "SetTR": (TSS_SELECTOR, 0, 0, (), None, None),
    "GetGDT": (FREE + 64, 0, 0, (), None, None),
    "GetLDT": (5, 0, 0, (), 0, None),
    "GetIDT": (FREE + 72, 0, 0, (), None, None),
    "GetTR": (5, 0, 0, (), 0, None),
    "WriteGDTEntry": (GDT, 20, 0xFFFF, (CODE_HIGH,), None, None),
    "WriteLDTEntry": (FREE + 128, 2, 0xFFFF, (DATA_HIGH | 3 << 13,), None, None),
    "WriteIDTEntry": (IDT, 30, KERNEL_CS << 16 | 0x100, (0x8E00,), None, None),
    "UpdateKernelStack": (KERNEL_DS, STACK - 64, 0, (), None, None),
    "SetCR0": (0x19, 0, 0, (), None, None),
    "SetCR2": (0x12345678, 0, 0, (), None, None),
    "SetCR3": (0x300000, 0, 0, (), None, None),
    "SetCR4": (0x10, 0, 0, (), None, None),
    "GetCR0": (0, 0, 0, (), 0x11, None),
    "GetCR2": (9, 0, 0, (), 0, None),
    "GetCR3": (9, 0, 0, (), 0, None),
    "GetCR4": (9, 0, 0, (), 0, None),
    "WBINVD": (0, 0, 0, (), None, None),
    "SetDR": (3, 0xABCD, 0, (), None, None),
    "GetDR": (3, 0, 0, (), 0, None),
    "RDTSC": (0, 0, 0, (), None, 0),
    "CLTS": (0, 0, 0, (), None, None),
    "EnableInterrupts": (7, 8, 9, (), 7, 8),
    "DisableInterrupts": (7, 8, 9, (), 7, 8),
    "GetInterruptMask": (7, 8, 9, (), 0, 8),
    "SetInterruptMask": (0x200, 8, 9, (), 0x200, 8),
    "SetPxE": (0x1067, FREE + 256, 1, (), None, None),
    "SetPxELong": (0x2067, 1, FREE + 264, (1,), None, None),
    "UpdatePxE": (FREE + 256, 1, 0, (), None, None),
    "UpdatePxELong": (FREE + 256, 1, 0, (), None, None),
    "AllocatePage": (5, 0x41, 0, (0, 0), None, None),
    "ReleasePage": (5, 0x41, 0, (), None, None),
    "InvalPage": (0xC0000000, 0, 0, (), None, None),
    "FlushTLB": (3, 0, 0, (), None, None),
    "SetLinearMapping": (1, 0xC0000000, 16, (4,), None, None),
    "INL": (0, 0x9990, 0, (), 0xFFFFFFFF, None),
    "INB": (0x12345600, 0x9990, 0, (), 0x123456FF, None),
    "INW": (0x12340000, 0x9990, 0, (), 0x1234FFFF, None),
    "INSL": (0, 0x9990, 3, (), None, None),
    "INSB": (0, 0x9990, 3, (), None, None),
    "INSW": (0, 0x9990, 3, (), None, None),
    "OUTL": (1, 0x9990, 0, (), 1, 0x9990),
    "OUTB": (1, 0x80, 0, (), 1, 0x80),
    "OUTW": (1, 0x9990, 0, (), 1, 0x9990),
    "OUTSL": (0, 0x9990, 3, (), None, None),
    "OUTSB": (0, 0x9990, 3, (), None, None),
    "OUTSW": (0, 0x9990, 3, (), None, None),
    "SetIOPLMask": (0x3000, 0, 0, (), None, None),
    "SetInitialAPState": (FREE, 1, 0, (), None, None),
    "APICWrite": (0xB0, 0, 0, (), None, None),
    "APICRead": (0x30, 0, 0, (), 0xFFFFFFFF, None),
    "GetCycleFrequency": (0, 0, 0, (), 1_000_000_000, 0),
    "GetCycleCounter": (2, 1, 0, (), 0, 0),
    "SetAlarm": (ALARM_PERIODIC, 0, 1, (1000, 0), None, None),
    "CancelAlarm": (0, 0, 0, (), 0, None),
    "GetWallclockTime": (0, 0, 0, (), None, None),
    "WallclockUpdated": (1, 0, 0, (), 0, None),
    "SetLazyMode": (1, 0, 0, (), None, None),
}
ENDS = {"IRET", "SYSEXIT", "Halt", "Reboot", "Shutdown", "RDPMC"}  # do not come back, or not at once
PASSES_TIME = {"RDTSC", "GetWallclockTime"}


def prepare(guest: Vmi) -> None:
    """What the pointers above lead to."""
    guest.ram.write(FREE, struct.pack("<HI", 255, GDT) + bytes(10) + struct.pack("<HI", 255, IDT))


def left(guest: Vmi, name: str) -> dict[str, object]:
    """What a call left, without what only the monitor sees."""
    vcpu, m = guest.vcpu, guest.monitor
    registers = [vcpu.reg(r) for r in (layout.EBX, layout.ESI, layout.EDI, layout.ESP)]
    row = next(call for call in CALLS if call.name == name)
    results = [] if name in PASSES_TIME else [vcpu.reg(layout.EAX)] if row.result in ("eax", "al", "ax") else \
        list(guest.result()) if row.result else []
    return {
        "registers": registers, "results": results, "faults": guest.faults(), "cpl": vcpu.cpl,
        "cr": [vcpu.cr(0), m.word("cr2"), vcpu.cr(3), vcpu.cr(4)], "dr3": int(vcpu.state.quads[layout.DR + 3]),
        "words": [m.word(word) for word in ("cr0", "cr3", "cr4", "esp1", "ss1", "flag", "lazy")],
        "tables": [vcpu.table(at)[:3] for at in (layout.GDTR, layout.IDTR, layout.LDTR)],
        "segments": [vcpu.segment(index)[:3] for index in range(6)], "tr": m.tr, "iopl": m.iopl,
        "memory": guest.ram.read(GDT, 0x2000) + guest.ram.read(FREE, 0x1000), "linear": m.linear,
        "frames": bytes(m.frames[:16]), "alarms": {index: alarm.period for index, alarm in m.alarms.items()},
    }


def tried(guest: Vmi, name: str) -> dict[str, object]:
    eax, edx, ecx, stack, want_eax, want_edx = TRIED[name]
    prepare(guest)
    outcome = guest.call(name, eax, edx, ecx, stack, edi=FREE + 512, esi=FREE + 600)
    assert outcome.end is End.HALT and not guest.faults(), f"{name}: {outcome} {guest.faults()}"
    got = guest.result()
    assert want_eax is None or got[0] == want_eax, f"{name}: EAX {got[0]:#x}"
    assert want_edx is None or got[1] == want_edx, f"{name}: EDX {got[1]:#x}"
    return left(guest, name)


def test_every_call_is_tried() -> None:
    assert set(TRIED) | ENDS == {call.name for call in CALLS if call.home not in (Home.ABSENT, Home.NOTHING)}


@pytest.mark.parametrize("name", TRIED)
def test_the_same_in_the_rom_in_c_and_in_python(name: str) -> None:
    states = []
    for engine, options in FORMS:
        with vmi(engine, **options) as guest:
            states.append(tried(guest, name))
    for (engine, options), state in zip(FORMS[1:], states[1:], strict=True):
        different = {key for key in state if state[key] != states[0][key]}
        assert not different, f"{name} on {engine} {options}: {different} differ"


def test_descriptors_are_raised() -> None:
    with vmi() as guest:
        guest.call("WriteGDTEntry", GDT, 20, 0xFFFF, (CODE_HIGH,))
        assert guest.vcpu.read_u32(GDT + 164) == CODE_HIGH | 1 << 13
        guest.call("WriteGDTEntry", GDT, 20, 0xFFFF, (DATA_HIGH | 3 << 13,))
        assert guest.vcpu.read_u32(GDT + 164) == DATA_HIGH | 3 << 13, "DPL 3 stays"
        guest.call("WriteGDTEntry", GDT, 20, 0xFFFF, (0x8900,))
        assert guest.vcpu.read_u32(GDT + 164) == 0x8900, "system descriptors too"


# ---------------------------------------------------------------------- asked wrongly

WRONG: list[tuple[str, int, int, int, tuple[int, ...], int]] = [
    ("SetLDT", TSS_SELECTOR, 0, 0, (), GP),
    ("SetLDT", 0xFFF8, 0, 0, (), GP),
    ("SetTR", 0, 0, 0, (), GP),
    ("SetTR", KERNEL_CS, 0, 0, (), GP),
    ("SetTR", 0x84, 0, 0, (), GP),
    ("SetCR4", 0xFFFFFFFF, 0, 0, (), GP),
    ("RDMSR", 0, 0, 0xDEAD, (), GP),
    ("WRMSR", 0, 0, 0xDEAD, (), GP),
    ("WRMSR", 0, 1, 0xC0000080, (), GP),
    ("SetDR", 8, 0, 0, (), GP),
    ("GetDR", 0xFFFFFFFF, 0, 0, (), GP),
    ("RDPMC", 0, 0, 0, (), GP),
]


@each_form
@pytest.mark.parametrize(("name", "eax", "edx", "ecx", "stack", "vector"), WRONG)
def test_a_fault_comes_at_the_call(engine: str, options: dict[str, Any], name: str, eax: int, edx: int, ecx: int,
                                   stack: tuple[int, ...], vector: int) -> None:
    with vmi(engine, **options) as guest:
        code = guest.calling(name, eax, edx, ecx, stack)
        outcome = guest.run_code(code)
        assert outcome.end is End.HALT and guest.faults() == {vector: 1}
        frame = guest.vcpu.read(guest.vcpu.esp, 16)
        _, eip, cs, flags = struct.unpack("<4I", frame)
        assert eip == CODE + len(code) - 3 - 5, "EIP is at the CALL, which could be done again"
        assert cs == KERNEL_CS | 1 and not flags & 0x3200


ENDED = [
    ("AllocatePage", 0x400, 0x41, 0, (0, 0), "page frame 0x400 lies behind the end of memory"),
    ("AllocatePage", 5, 0x43, 0, (0, 0), "name no type of page table"),
    ("AllocatePage", 5, 0x48, 0, (0, 0), "name no type of page table that this CPU has"),
    ("AllocatePage", 5, 0x51, 0, (0, 0), "do not fit the paging mode"),
    ("AllocatePage", 5, 0x81, 0, (0, 0), "are not all known"),
    ("AllocatePage", 5, 0x62, 4, (768, 257), "cannot be cloned"),
    ("ReleasePage", 0xFFFFFFFF, 1, 0, (), "lies behind the end of memory"),
    ("SetLinearMapping", 4, 0, 1, (0,), "there is no slot 4"),
    ("SetLinearMapping", 0, 0xC0000000, 0x40001, (0,), "leave the address space"),
    ("SetLazyMode", 3, 0, 0, (), "there is no mode 3"),
    ("MachineToPhysical", 0, 0, 0, (), "a call that nobody documented"),
    ("SetCallbacks", 0, 0, 0, (), "a call that nobody documented"),
]


@each_form
@pytest.mark.parametrize(("name", "eax", "edx", "ecx", "stack", "words"), ENDED)
def test_what_no_monitor_can_do_ends_the_guest(engine: str, options: dict[str, Any], name: str, eax: int, edx: int,
                                               ecx: int, stack: tuple[int, ...], words: str) -> None:
    with vmi(engine, **options) as guest:
        outcome = guest.call(name, eax, edx, ecx, stack)
        assert outcome.end is End.CRASH and words in outcome.reason and outcome.reason.startswith("VMI ")


@pytest.mark.parametrize("engine", ["fast", "no-platform"])
def test_a_page_has_one_type_at_a_time(engine: str) -> None:
    with vmi(engine) as guest:
        assert guest.call("AllocatePage", 5, 0x41, 0, (0, 0)).end is End.HALT
        assert guest.call("AllocatePage", 5, 0x01, 0, (0, 0)).end is End.HALT, "once more, as the same"
        assert guest.call("ReleasePage", 5, 0x01).end is End.HALT
        assert guest.call("AllocatePage", 5, 0x42, 0, (0, 0)).end is End.HALT
        outcome = guest.call("AllocatePage", 5, 0x41, 0, (0, 0))
        assert outcome.reason == ("VMI AllocatePage: page frame 0x5 is announced as page table, and is page directory "
                                  "still: it was not released")


def test_ways_to_the_end() -> None:
    for name, eax, end in (("Reboot", 0, End.REBOOT), ("Reboot", 1, End.REBOOT), ("Shutdown", 0, End.HALT)):
        with vmi() as guest:
            outcome = guest.call(name, eax)
            assert outcome.end is end and "asked VMI" in outcome.reason


@each_form
def test_a_second_init_is_refused(engine: str, options: dict[str, Any]) -> None:
    with vmi(engine, **options) as guest:
        code = b"\xb8" + struct.pack("<I", guest.monitor.base + 0x80) + b"\xff\xd0"
        assert guest.run_code(code).end is End.HALT
        assert guest.vcpu.reg(layout.EAX) == 1 and guest.vcpu.cpl == 1


@pytest.mark.parametrize("engine", ["fast", "no-platform"])
@pytest.mark.parametrize("control, count", [(2, 1), (0, 0), (0xD0002, 0)], ids=["instruction", "off", "data"])
def test_breakpoints_fire(engine: str, control: int, count: int) -> None:
    """DR0 at the instruction behind the calls, which nobody writes."""
    with vmi(engine) as guest:
        def calls(target: int) -> bytes:
            first = guest.calling("SetDR", 0, target)
            return first + guest.calling("SetDR", 7, control, at=CODE + len(first))

        code = calls(CODE + len(calls(0)))
        guest.run_code(code + b"\x90")
        assert guest.faults().get(1, 0) == count
        assert guest.vcpu.debug_register(6) & 0xF == count


# ---------------------------------------------------------------------- deferral

@pytest.mark.parametrize("engine", ["fast", "no-platform", "portable"])
def test_calls_wait_in_cpu_mode(engine: str) -> None:
    with vmi(engine) as guest:
        m = guest.monitor
        before = guest.vcpu.cr(3)
        guest.run_calls(("SetLazyMode", 2), ("SetCR3", 0x300000), ("SetDR", 1, 0x777), ("GetCR3",))
        assert (m.byte("queued"), guest.vcpu.cr(3)) == (2, before), "nothing has happened yet"
        assert guest.vcpu.reg(layout.EAX) == 0x300000, "but the guest cannot see that"
        guest.call("SetLazyMode", 0)
        assert (m.byte("queued"), guest.vcpu.cr(3)) == (0, 0x300000)
        assert int(guest.vcpu.state.quads[layout.DR + 1]) == 0x777
        counts = guest.guest.all_counts()
        assert (counts["vmi.deferred"], counts["vmi.queue_flushes"]) == (2, 1)
        assert "vmi.trap.SetCR3" not in counts


@pytest.mark.parametrize("engine", ["fast", "no-platform"])
@pytest.mark.parametrize("name", ["InvalPage", "FlushTLB", "SetCR0"])
def test_whoever_needs_them_makes_up_for_them(engine: str, name: str) -> None:
    with vmi(engine) as guest:
        guest.run_calls(("SetLazyMode", 2), ("SetCR3", 0x300000), (name, 0x11))
        assert guest.vcpu.cr(3) == 0x300000 and not guest.monitor.byte("queued")


@pytest.mark.parametrize("engine", ["fast", "no-platform"])
def test_a_full_queue_is_emptied(engine: str) -> None:
    with vmi(engine) as guest:
        guest.run_calls(("SetLazyMode", 2), *(("SetDR", 2, value) for value in range(40)), ("SetLazyMode", 0))
        assert int(guest.vcpu.state.quads[layout.DR + 2]) == 39
        assert guest.guest.all_counts()["vmi.deferred"] == 40


@given(st.binary(min_size=256, max_size=256), st.integers(0, 255))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_queue_at_all(queue: bytes, length: int) -> None:
    """The guest can write the shared page: a queue of nonsense ends it with a sentence, or does what it says."""
    with vmi() as guest:
        m = guest.monitor
        guest.ram.write(m.page_at + 0x100, queue)
        m.set_byte("queued", length)
        outcome = guest.call("SetLazyMode", 0)
        assert outcome.end is End.HALT or outcome.reason.startswith("VMI deferral: "), outcome


# ---------------------------------------------------------------------- anything at all

WORDS = st.integers(0, 0xFFFFFFFF) | st.sampled_from([
    0, 1, 2, 3, 5, 0x41, 0x60, 0x80, 0x200, 0x3000, FREE, GDT, 0x3FFFFC, 0x400000, 0xFFFFFFFC])


@given(call=st.sampled_from(CALLS), words=st.tuples(*[WORDS] * 5), form=st.sampled_from(FORMS))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_call_with_any_words(call: Any, words: tuple[int, ...], form: tuple[str, dict[str, Any]]) -> None:
    engine, options = form
    with vmi(engine, **options) as guest:
        eax, edx, ecx, *stack = words
        outcome = guest.call(call.name, eax, edx, ecx & 0xFFFF if call.name.startswith(("INS", "OUTS")) else ecx, stack)
        assert outcome.end is not End.ERROR and outcome.reason


@given(code=st.binary(min_size=1, max_size=64), page=st.binary(max_size=64), form=st.sampled_from(FORMS))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_code_in_ring_1(code: bytes, page: bytes, form: tuple[str, dict[str, Any]]) -> None:
    engine, options = form
    with vmi(engine, **options) as guest:
        guest.ram.write(guest.monitor.page_at + 0x80, page)
        outcome = guest.run_code(code)
        assert outcome.end is not End.ERROR and outcome.reason


def test_one_call_after_the_other() -> None:
    """What ``make fuzz`` does for longer."""
    fuzzer = Fuzzer(seed=3)
    try:
        fuzzer.run(300)
    except Exception as error:
        pytest.fail(f"{fuzzer.last}: {error!r}")
    assert fuzzer.ends["halt"] > 200


@pytest.mark.parametrize("engine", ["fast", "no-platform", "portable"])
def test_the_way_to_ring_3_and_back(engine: str) -> None:
    """IRET with a user's frame; a user's HLT is #GP, on the stack that UpdateKernelStack gave."""
    user = 0x28000
    with vmi(engine) as guest:
        guest.ram.write(user, b"\xf4")
        guest.call("UpdateKernelStack", KERNEL_DS, STACK + 0x1000)
        frame = (user, USER_CS, 0x202, 0x29000, USER_DS)
        outcome = guest.call("IRET", stack=frame)
        assert outcome.end is End.HALT and guest.faults() == {GP: 1}
        words = struct.unpack("<6I", guest.vcpu.read(STACK + 0x1000 - 24, 24))
        assert words == (0, user, USER_CS, words[3], 0x29000, USER_DS) and words[3] & 0x3200 == 0x200
        assert not guest.monitor.flag, "an interrupt gate clears the guest's flag"


@pytest.mark.parametrize("engine", ["fast", "no-platform", "portable"])
def test_an_iret_that_cannot_be_done_faults_at_its_call(engine: str) -> None:
    with vmi(engine) as guest:
        code = guest.calling("IRET", stack=(0x1000, 0xFFF3, 2))
        assert guest.run_code(code).end is End.HALT
        assert guest.faults() == {GP: 1}
        error, eip = struct.unpack("<2I", guest.vcpu.read(guest.vcpu.esp, 8))
        assert (error, eip) == (0xFFF0, CODE + len(code) - 3 - 5)


@pytest.mark.parametrize("engine", ["fast", "no-platform", "portable"])
def test_a_selector_without_its_ring_is_made_good(engine: str) -> None:
    with vmi(engine) as guest:
        there = 0x28000
        guest.ram.write(there, b"\xfa\xf4")
        outcome = guest.call("IRET", stack=(there, KERNEL_CS, 2))
        assert outcome.end is End.HALT and not guest.faults()
        assert guest.vcpu.segment(layout.CS).selector == KERNEL_CS | 1
