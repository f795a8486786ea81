"""Whatever a guest does, its run ends with one outcome: the right kind, exit status, place and a sentence.

A hostile guest may fault for ever without a block of code being entered, run where no memory is, or sleep with
nothing to wake it. None of that may hang the host, raise anything but the outcome, or cost the record. The same
holds for random bytes as code, on the accelerated and on the portable engine.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paravirt.boot_sequence import boot
from paravirt.options import BootOptions
from paravirt.record import Record
from tests.elfmaker import Load, make_elf
from tests.kernels import BASE, address, kernel, raw_kernel

ENGINES = ("auto", "portable")
MEMORY = 16 << 20
KINDS = {"poweroff", "reboot", "halt", "debug-exit", "crash", "idle", "timeout", "limit"}


class Ending(NamedTuple):
    """How a guest of ends.S must end. `place`: a symbol that `eip` belongs to, or the very address."""

    entry: str
    kind: str
    status: int
    reason: str
    place: str | int = ""


ENDS = (
    Ending("power_off", "poweroff", 0, "the guest powered the machine off"),
    Ending("debug_exit", "debug-exit", 0x2A, "the guest wrote 0x2a to the debug-exit port"),
    Ending("debug_exit_zero", "debug-exit", 0, "the guest wrote 0x0 to the debug-exit port"),
    Ending("debug_exit_long", "debug-exit", 3, "the guest wrote 0x7fffff03 to the debug-exit port"),
    Ending("wraps", "debug-exit", 42, "the guest wrote 0x2a to the debug-exit port"),
    Ending("reset_i8042", "reboot", 0, "the guest reset the machine by i8042"),
    Ending("reset_port92", "reboot", 0, "the guest reset the machine by port92"),
    Ending("reset_pci", "reboot", 0, "the guest reset the machine by pci"),
    Ending("reset_triple", "reboot", 0, "triple fault with an empty IDT: the guest's way to reset"),
    Ending("halt", "halt", 0, "the guest halted with interrupts off"),
    Ending("halt_in_loop", "halt", 0, "the guest halted with interrupts off"),
    Ending("triple_fault", "crash", 70, "triple fault"),
    Ending("triple_fault_stack", "crash", 70, "triple fault"),
    Ending("triple_fault_handler", "crash", 70, "triple fault", "ud_handler"),
    Ending("jump_to_nowhere", "crash", 70, "the guest executes code where there is no memory", 0x40000000),
    Ending("call_to_nowhere", "crash", 70, "the guest executes code where there is no memory", 0x50000123),
    Ending("fall_off_ram", "crash", 70, "the guest executes code where there is no memory", 0xFFFFFC),
    Ending("paged_nowhere", "crash", 70, "the guest executes code where there is no memory"),
    Ending("task_gate", "crash", 70, "t"),  # a triple fault, or that the portable form cannot do task gates
    Ending("wait_for_nothing", "idle", 70, "the guest waits for an interrupt that no device will raise"),
    Ending("wait_for_timer", "idle", 70, "nothing but timer interrupts for 20 virtual seconds"),
)
# What must not hang, and a symbol of the loop where a run of it may be stopped ("": anywhere).
STORMS = (
    "spin", "spin_store", "ud_returns", "bp_returns", "de_returns", "software_interrupts", "ud_is_handler",
    "ud_is_handler_fixed_stack", "pf_returns", "pf_in_handler", "single_step", "gp_returns",
    "long_rep", "long_rep_in", "changes_itself", "polls_time", "polls_port",
)


def run(path: Path, engine: str = "auto", *, timeout: float | None = 20.0, limit: int | None = None,
        memory: int = MEMORY, idle_limit: float = 600.0) -> Record:
    return boot(path, BootOptions(backend="native", memory=memory, engine=engine, timeout=timeout,
                                  max_instructions=limit, idle_limit=idle_limit))


def check(record: Record) -> None:
    """What holds for every run."""
    assert record.outcome.reason.strip()
    assert "\n" not in record.outcome.reason
    assert record.outcome.eip is not None
    assert len(record.state_hash) == 64
    assert json.loads(record.to_json())["outcome"]["kind"] == record.outcome.kind


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("ending", ENDS, ids=lambda ending: ending.entry)
def test_ends(ending: Ending, engine: str) -> None:
    record = run(kernel("ends", ending.entry), engine, idle_limit=20.0)
    check(record)
    outcome = record.outcome
    assert (outcome.kind, record.exit_code) == (ending.kind, ending.status), outcome
    assert outcome.reason.startswith(ending.reason)
    if isinstance(ending.place, int):
        assert outcome.eip == ending.place
    else:
        symbol = ending.place or ending.entry
        assert outcome.symbol.partition("+")[0] == symbol
        assert outcome.eip is not None and 0 <= outcome.eip - address("ends", symbol) < 0x80
    assert record.engine is not None
    assert record.engine.name == {"auto": "accelerated", "portable": "portable"}[engine]


def test_no_symbol_for_an_address_outside_the_kernel() -> None:
    assert run(kernel("ends", "jump_to_nowhere")).outcome.symbol == ""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("storm", STORMS)
def test_timeout_ends_what_never_ends(storm: str, engine: str) -> None:
    record = run(kernel("storms", storm), engine, timeout=0.1)
    check(record)
    assert (record.outcome.kind, record.exit_code) == ("timeout", 124)
    assert record.outcome.reason == "0.1 seconds of wall time are over"
    assert record.host.wall_seconds < 2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("storm", STORMS)
def test_instruction_limit_ends_what_never_ends(storm: str, engine: str) -> None:
    record = run(kernel("storms", storm), engine, limit=5000)
    check(record)
    assert (record.outcome.kind, record.exit_code) == ("limit", 124)
    assert record.outcome.reason == "5000 instructions have run"
    assert record.instructions >= 5000
    if engine == "auto":  # stops between blocks
        assert record.instructions < 5100


@pytest.mark.parametrize("engine", ENGINES)
def test_a_storm_without_an_instruction_is_a_crash(engine: str) -> None:
    """A fetch that faults into a fetch that faults: no limit on instructions could end it."""
    record = run(kernel("storms", "pf_without_a_block"), engine, limit=100_000, timeout=None)
    check(record)
    assert (record.outcome.kind, record.exit_code) == ("crash", 70)
    assert record.outcome.reason == "exception 14 for ever: 200000 in a row, and no instruction runs"
    assert record.outcome.eip == 0x00800000
    assert record.counts.exceptions["14"] >= 200_000
    assert record.virtual_ns >= 500 * 199_999


@pytest.mark.parametrize("storm", ["ud_returns", "pf_in_handler", "software_interrupts", "single_step"])
def test_a_limited_storm_is_repeatable(storm: str) -> None:
    runs = [run(kernel("storms", storm), limit=20_000) for _ in range(2)]
    assert runs[0].repeatable() == runs[1].repeatable()


# Bytes that matter more often than chance would have it: ports, control registers, descriptor tables, loops.
SPICE = st.sampled_from([
    b"\xf4", b"\xfa", b"\xfb", b"\xcc", b"\xcd\x80", b"\xcf", b"\x0f\x0b", b"\x0f\x01\x18", b"\x0f\x22\xc0",
    b"\x0f\x20\xc0\x0d\x00\x00\x00\x80\x0f\x22\xc0", b"\x0f\x22\xd8", b"\x0f\x22\xe0", b"\x0f\x00\xd8", b"\x0f\x34",
    b"\x0f\x35", b"\x0f\x30", b"\x0f\x32", b"\x0f\xa2", b"\x0f\x31", b"\xec", b"\xee", b"\xf3\x6d", b"\xf3\xab",
    b"\xe6\xf4", b"\xe6\x64", b"\xea\0\0\0\0\x33\0", b"\xcb", b"\x8e\xd0", b"\x8e\xd8", b"\x9d", b"\xf0", b"\x66",
    b"\x67", b"\xeb\xfe", b"\xff\xe0", b"\xff\xd0", b"\xdb\xe3", b"\x0f\xae\x00", b"\x0f\x05", b"\x0f\x01\xd0",
])
CODE = st.lists(st.one_of(SPICE, st.binary(min_size=1, max_size=12)), min_size=1, max_size=40).map(b"".join)


# A descriptor table register, a stack, and an IDT whose gates lead back into the code, or anywhere.
SET_UP = b"\x0f\x01\x1d\x00\x08\x11\x00" b"\xbc\x00\x00\x13\x00"  # lidt [0x110800]; mov esp, 0x130000
IDT = 0x110000
GATE_TYPES = st.sampled_from([0x8E, 0x8E, 0x8E, 0x8F, 0xEE, 0xEF, 0x86, 0x87, 0x85, 0x0E, 0x00])
GATES = st.tuples(st.integers(0, 60), st.sampled_from([0x10, 0x10, 0x10, 0x10, 0x13, 0x18, 0, 0x28]), GATE_TYPES)
# Segments, tasks, returns and flags, which say how deep a fault may nest.
DEEP_SPICE = st.sampled_from([
    b"\x0f\x00\xd8", b"\x0f\x00\xd0", b"\xcf", b"\xcb", b"\x0f\x0b", b"\xcc", b"\xcd\x08", b"\xcd\x0d", b"\xce",
    b"\x9d\xcf", b"\x68\x02\x40\x00\x00\x9d\xcf", b"\x68\x02\x00\x02\x00\x9d", b"\x68\x02\x01\x00\x00\x9d",
    b"\xc8\x10\x00\x1f", b"\x61", b"\x8e\xd0", b"\xbc\xff\xff\xff\xff", b"\xbc\x02\x00\x00\x00", b"\x0f\x22\xd8",
    b"\xb8\x01\x00\x00\x80\x0f\x22\xc0", b"\xb8\x30\x00\x00\x00\x0f\x22\xe0", b"\xff\x2b", b"\xff\x1b",
    b"\x0f\x01\x1b", b"\x0f\x01\x13", b"\xf3\xa4", b"\x0f\xae\x0b", b"\x0f\xc7\x0b", b"\xdd\x23",
])
DEEP_CODE = st.lists(st.one_of(DEEP_SPICE, SPICE, st.binary(min_size=1, max_size=8)), min_size=1,
                     max_size=30).map(b"".join)
fuzz = settings(max_examples=25, deadline=None, derandomize=True, database=None,
                suppress_health_check=[HealthCheck.function_scoped_fixture])


def check_random(path: Path, engine: str) -> None:
    record = run(path, engine, limit=50_000, timeout=5.0, memory=2 << 20)
    check(record)
    assert record.outcome.kind in KINDS
    assert record.exit_code in range(256)


@pytest.mark.parametrize("engine", ENGINES)
@fuzz
@given(code=CODE)
def test_random_code_ends_with_an_outcome(tmp_path: Path, engine: str, code: bytes) -> None:
    check_random(raw_kernel(tmp_path / "random", code), engine)


@pytest.mark.parametrize("engine", ENGINES)
@fuzz
@given(code=DEEP_CODE, gates=st.lists(GATES, min_size=1, max_size=32))
def test_random_code_with_an_idt_ends_with_an_outcome(
        tmp_path: Path, engine: str, code: bytes, gates: list[tuple[int, int, int]]) -> None:
    idt = b"".join(
        struct.pack("<HHBBH", BASE + len(SET_UP) + offset & 0xFFFF, selector, 0, kind, BASE >> 16)
        for offset, selector, kind in (gates * 256)[:256])
    path = tmp_path / "random"
    path.write_bytes(make_elf([Load(BASE, SET_UP + code, BASE),
                               Load(IDT, idt + struct.pack("<HI", len(idt) - 1, IDT), IDT)], entry=BASE))
    check_random(path, engine)
