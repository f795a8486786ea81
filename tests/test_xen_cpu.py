"""What a paravirtual kernel's CPU does, seen from inside: bounce frames, iret, upcalls, emulated instructions.

A small kernel in ring 1 (guests/xen_cpu.S) does one thing and logs the traps that come of it. What must hold is what
a real Xen was seen to do: frames and flags, the event mask, who may execute what, and what ends the domain. Both
engines, with and without the library in C, must say the same.

Ref: Xen arch/x86/x86_64/compat/entry.S, arch/x86/pv/iret.c, emul-priv-op.c.
"""

from __future__ import annotations

import functools
import re
import struct
from typing import NamedTuple

import pytest

from paravirt.build import toolchain
from paravirt.build.guestcode import assemble_step
from paravirt.image.elf import ElfImage, load_elf
from paravirt.machine import accel
from paravirt.machine.outcome import GuestExit, Outcome
from paravirt_xen.platform.domain import Domain
from tests.kernels import SOURCES, WORK
from tests.xendomain import BASE, TEXT, image_guest, xen_notes_of

LINK = ("-m", "elf_i386", "-static", "--build-id=none", "-z", "noexecstack", "--no-dynamic-linker", "--omagic",
        f"-Ttext={TEXT:#x}", f"--entry={TEXT:#x}")
ENGINES = {"fast": (), "no library in C": ("platform",), "portable": tuple(accel.NAMES)}
RECORD = struct.Struct("<8I")
NONE = 0xFFFFFFFF
EVENT = 0x100
RING1_CS, RING1_DS, RING3_CS, RING3_DS = 0xE019, 0xE021, 0xE02B, 0xE033
MASKED, UNMASKED = 0x10000, 0
IF = 0x200


class Trap(NamedTuple):
    """What a handler found."""

    vector: int
    error: int
    eip: int
    cs: int
    eflags: int
    esp: int
    ss: int
    cr2: int


class Run(NamedTuple):
    outcome: Outcome
    traps: list[Trap]
    results: tuple[int, ...]


@functools.cache
def linked() -> ElfImage:
    path = WORK / "xen_cpu.elf"
    step = assemble_step(SOURCES / "xen_cpu.S", WORK / "xen_cpu.o")
    toolchain.make([step])
    toolchain.link([step.output], path, LINK)
    return load_elf(path)


def symbol(name: str) -> int:
    address = linked().symbols.address(name)
    assert address is not None, name
    return address


@functools.cache
def run(entry: str, engine: str = "fast") -> Run:
    """Run the kernel from `entry` to its end."""
    image = linked()
    segments = image.segments
    start = min(segment.vaddr for segment in segments)
    data = bytearray(max(segment.vaddr + segment.memsz for segment in segments) - start)
    for segment in segments:
        data[segment.vaddr - start : segment.vaddr - start + segment.filesz] = segment.data
    with image_guest(xen_notes_of(bytes(data), entry=symbol(entry)), ENGINES[engine]) as backend:
        domain = backend.domain
        for va in (symbol("user_text"), symbol("user_stack_end") - 4096):
            at = domain.l1_entry_address(va)
            assert at is not None
            domain.ram.write_u64(at, domain.ram.quads[at >> 3] | 4)
        make_gdt(domain)
        domain.machine.max_instructions = 1_000_000
        with pytest.raises(GuestExit) as end:
            domain.machine.run()
        used = domain.read_u32(symbol("next")) - symbol("log")
        traps = [Trap(*record) for record in RECORD.iter_unpack(domain.read(symbol("log"), used))] if used else []
        results = struct.unpack("<16I", domain.read(symbol("results"), 64))
    return Run(end.value.outcome, traps, results)


def make_gdt(domain: Domain) -> None:
    """Call gates to gate_handler: 0x20 for ring 3, with one parameter; 0x28 for ring 1, with none."""
    handler = symbol("gate_handler")
    low, high = RING1_CS << 16 | handler & 0xFFFF, handler & 0xFFFF0000 | 0x8C00
    domain.write(symbol("gdt") + 0x20, struct.pack("<4I", low, high | 3 << 13 | 1, low, high | 1 << 13))
    mfn = domain.machine_address(symbol("gdt")) >> 12
    domain.write(symbol("results"), struct.pack("<I", mfn))
    assert domain.dispatcher.call(14, [symbol("gdt"), mfn << 12 | 1, 0, 2, 0]) == 0
    assert domain.dispatcher.call(2, [symbol("results"), 512, 0, 0, 0]) == 0
    domain.write(symbol("results"), bytes(4))


def ended(entry: str, engine: str) -> Run:
    found = run(entry, engine)
    assert found.outcome.end.word == "poweroff", found
    return found


def only(entry: str, engine: str) -> Trap:
    found = ended(entry, engine)
    assert len(found.traps) == 1, found
    return found.traps[0]


each_engine = pytest.mark.parametrize("engine", ENGINES)


@each_engine
@pytest.mark.parametrize(("entry", "vector", "error"), [
    ("divide_error", 0, NONE), ("breakpoint", 3, NONE), ("undefined", 6, NONE), ("page_fault", 14, 2),
    ("selector_fault", 13, 0x1234), ("no_handler", 13, 0x92 * 8 + 2), ("sysenter_instruction", 13, 0),
    ("syscall_instruction", 6, NONE), ("forced_prefix_alone", 6, NONE), ("unknown_msr", 13, 0),
    ("forbidden_cr0", 13, 0), ("port_without_iopl", 13, 0), ("cli_without_iopl", 13, 0), ("nested_task_iret", 10, 0),
])  # fmt: skip
def test_exceptions_in_ring_1(entry: str, vector: int, error: int, engine: str) -> None:
    trap = only(entry, engine)
    assert (trap.vector, trap.error) == (vector, error)
    assert trap.cs == RING1_CS | MASKED  # the mask of the start
    assert not trap.eflags & (IF | 0x3000)
    assert bool(trap.eflags & 0x4000) == (entry == "nested_task_iret")
    assert trap.ss & 0xFFFF == RING1_DS
    if entry == "page_fault":
        assert trap.cr2 == 0xD0000004


@each_engine
def test_the_faulting_instruction_is_where_eip_says(engine: str) -> None:
    """``int n`` without a handler is a fault at the instruction, a break point a trap behind it."""
    trap, image = only("no_handler", engine), linked()
    assert image.read(trap.eip, 2) == b"\xcd\x92"
    assert image.read(only("breakpoint", engine).eip - 1, 1) == b"\xcc"
    assert image.read(only("sysenter_instruction", engine).eip, 2) == b"\x0f\x34"
    assert image.read(only("syscall_instruction", engine).eip, 2) == b"\x0f\x05"
    assert image.read(only("forced_prefix_alone", engine).eip, 5) == b"\x0f\x0bxen"


@each_engine
def test_the_event_mask_in_frames(engine: str) -> None:
    """The frame has the mask that was, also as IF turned round; a handler may mask events or not."""
    for entry in ("masked_trap", "unmasked_trap"):
        trap = only(entry, engine)
        assert trap.cs == RING1_CS | UNMASKED
        assert trap.eflags & IF
        assert trap.error == NONE


@each_engine
def test_traps_from_ring_3(engine: str) -> None:
    """On the kernel's stack, with the mask of the iret that went there. What ring 3 may not reach is #GP."""
    traps = ended("from_ring_3", engine).traps
    assert [(trap.vector, trap.error) for trap in traps] == [
        (0x80, NONE), (13, 0x90 * 8 + 2), (13, 0x82 * 8 + 2), (14, 6), (13, 0), (13, 0)]
    names = ["user_int80", "user_int90", "user_int82", "user_fault", "user_sysenter", "user_hlt"]
    for trap, name in zip(traps, names, strict=True):
        assert trap.eip == symbol(name) + (2 if name == "user_int80" else 0)
        assert (trap.cs & 0xFFFF, trap.ss & 0xFFFF) == (RING3_CS, RING3_DS)
        assert trap.esp == symbol("user_stack_end")
        assert trap.eflags & IF
    assert traps[3].cr2 == 0xD0000008


@each_engine
def test_iret_hypercall(engine: str) -> None:
    """EAX comes from the frame, the mask from its IF, and ESP is behind it."""
    found = ended("iret_to_ring_1", engine)
    assert not found.traps
    assert found.results[0] == 0x1BADCAFE
    assert found.results[1] == found.results[3]
    assert found.results[2] == 1


@each_engine
def test_iret_delivers_what_is_pending(engine: str) -> None:
    trap = only("iret_delivers_at_once", engine)
    assert (trap.vector, trap.eip) == (EVENT, symbol("iret_target"))
    assert trap.cs == RING1_CS | UNMASKED


@each_engine
def test_iret_to_a_bad_selector_faults_at_its_target(engine: str) -> None:
    trap = only("iret_bad_selector", engine)
    assert (trap.vector, trap.error) == (13, 0x4564)
    assert (trap.eip, trap.cs & 0xFFFF, trap.esp) == (0x2000, 0x4567, 0x1000)


@each_engine
def test_iret_to_virtual_8086_mode_is_general_protection(engine: str) -> None:
    trap = only("iret_to_vm86", engine)
    assert (trap.vector, trap.error, trap.eip, trap.cs) == (13, 0, 0x22, 0x33)
    assert trap.eflags == 0x20246


@each_engine
@pytest.mark.parametrize(("entry", "sentence"), [
    ("iret_to_ring_0", "the iret hypercall wants to return to ring 0"),
    ("iret_no_frame", "the iret hypercall's frame at 0xd0000000 cannot be read"),
    ("own_iret_to_vm86", "in virtual-8086 mode, which an IRET of the guest has entered"),
    ("bad_stack", "exception 3 .* could not be delivered: its frame at 0xcffffff4"),
    ("unregistered", "the guest has no handler for it"),
])
def test_what_no_domain_survives(entry: str, sentence: str, engine: str) -> None:
    outcome = run(entry, engine).outcome
    assert outcome.end.word == "crash" and re.search(sentence, outcome.reason), outcome
    assert outcome.exit_code == 70 and outcome.eip is not None


@each_engine
def test_a_guests_own_iret_leaves_the_mask_alone(engine: str) -> None:
    trap = only("own_iret", engine)
    assert (trap.vector, trap.cs) == (0x80, RING3_CS)


@each_engine
def test_a_call_gate_from_ring_3(engine: str) -> None:
    """To the kernel's stack, with the parameter; the far return takes it from both."""
    found = ended("gate_from_ring_3", engine)
    trap, = found.traps
    assert (trap.vector, trap.eip) == (0x80, symbol("user_gate") + 5 + 7 + 2)
    assert trap.esp == symbol("user_stack_end")
    esp, eip, cs, parameter, outer_esp, ss, own_cs, *_ = found.results
    assert esp == symbol("kernel_stack_end") - 20
    assert (eip, cs, ss, own_cs) == (symbol("user_gate") + 12, RING3_CS, RING3_DS, RING1_CS)
    assert (parameter, outer_esp) == (0x1234, symbol("user_stack_end") - 4)


@each_engine
def test_a_call_gate_from_ring_1(engine: str) -> None:
    found = ended("gate_from_ring_1", engine)
    assert not found.traps
    assert (found.results[0], found.results[2]) == (found.results[3] - 12, RING1_CS)
    assert found.results[7] == 0x77, "and back"


@each_engine
def test_a_gate_that_ring_3_may_not_use(engine: str) -> None:
    trap = only("forbidden_gate", engine)
    assert (trap.vector, trap.error, trap.eip) == (13, 0x28, symbol("user_forbidden_gate"))


@each_engine
def test_upcalls_come_behind_an_exit(engine: str) -> None:
    """Unmasking alone does nothing; the next exit delivers, behind what it did."""
    trap = only("upcall_after_unmasking", engine)
    assert (trap.vector, trap.cs) == (EVENT, RING1_CS | UNMASKED)
    found = ended("upcall_behind_an_exception", engine)
    assert [trap.vector for trap in found.traps] == [EVENT]
    assert found.traps[0].eip == symbol("stubs") + 0x91 * 16


@each_engine
def test_a_multicall_of_many(engine: str) -> None:
    """The guest gets to run in between, and calls again by itself; every entry has its result."""
    found = ended("long_multicall", engine)
    assert not found.traps
    assert found.results[:4] == (0, 0x40011, 0, 0x40011)


@each_engine
def test_a_multicall_goes_on_behind_failures_and_ends_with_iret(engine: str) -> None:
    found = ended("mixed_multicall", engine)
    assert not found.traps
    minus = 1 << 32
    assert found.results[:7] == (0x1BADCAFE, minus - 22, minus - 22, minus - 38, minus - 38, 0x1BADCAFE, 77)


@each_engine
def test_a_multicall_with_a_bad_list(engine: str) -> None:
    assert ended("torn_multicall", engine).results[:3] == ((1 << 32) - 14, 0, 0x40011)


@each_engine
def test_privileged_instructions_are_emulated(engine: str) -> None:
    found = ended("registers", engine)
    assert not found.traps
    cr0, cr4, cr3, cr2, with_ts, without, dr2, efer, leaf, ebx, edx, ecx, *_ = found.results
    assert (cr0, cr4) == (0x80050033, 0x660)
    assert cr3 & 0xFFF == 0 and cr3 != 0
    assert cr2 == 0xABCD
    assert (with_ts, without) == (cr0 | 8, cr0)
    assert dr2 == 0x12345678
    assert efer == 0x800
    assert (leaf, ebx) == (0x40000005, 0x566E6558)
    assert not edx & (1 << 3 | 1 << 11 | 1 << 13) and edx & 1 << 6  # no PSE, SEP, PGE; PAE
    assert ecx & 1 << 31


@each_engine
def test_ports_float_for_who_may_ask(engine: str) -> None:
    found = ended("ports_with_iopl", engine)
    assert not found.traps
    assert found.results[:6] == (0xFF, 0xFFFFFFFF, 0, 6, 0xFFFFFFFF, 5)


@each_engine
def test_a_fault_of_an_emulated_instruction_is_the_guests(engine: str) -> None:
    trap = only("string_to_nowhere", engine)
    assert (trap.vector, trap.error, trap.cr2) == (14, 2, 0xD0000000 - 2)


@each_engine
def test_halting_unmasks_and_waits(engine: str) -> None:
    trap = only("halt", engine)
    assert (trap.vector, trap.cs) == (EVENT, RING1_CS | UNMASKED)


@each_engine
def test_single_steps_over_emulated_instructions(engine: str) -> None:
    trap = only("single_step_over_emulation", engine)
    assert trap.vector == 1
    assert linked().read(trap.eip - 2, 2) == b"\x0f\x06"


@pytest.mark.parametrize("engine", ["fast", "no library in C"])
def test_a_data_breakpoint(engine: str) -> None:
    """Set by an emulated MOV; a trap behind the store. (The portable engine's CPU has none.)"""
    trap = only("data_breakpoint", engine)
    assert (trap.vector, trap.eip) == (1, symbol("behind_the_store"))


@pytest.mark.parametrize("engine", ["fast", "no library in C"])
def test_an_instruction_breakpoint(engine: str) -> None:
    """A fault in front of the instruction, unless RF is set in the frame that returns to it, whichever iret that is."""
    trap = only("instruction_breakpoint", engine)
    assert (trap.vector, trap.eip) == (1, symbol("broken"))
    assert ended("instruction_breakpoint", engine).results[0] == 3


@pytest.mark.parametrize("entry", ["from_ring_3", "registers", "iret_delivers_at_once", "ports_with_iopl",
                                   "long_multicall", "mixed_multicall", "torn_multicall"])
def test_all_engines_say_the_same(entry: str) -> None:
    expected = run(entry, "fast")
    for engine in ENGINES:
        assert run(entry, engine) == expected, engine


def test_the_kernel_lies_where_the_tests_say() -> None:
    assert BASE < symbol("divide_error") < symbol("user_text")
