"""Runs small guests on every form of the engine.

A snippet is one file of tests/snippets over the kernel of kernel.inc. `start` gives a machine with it in
memory and a PC's exits, without devices; the snippet leaves records in a log and words in its results.

Ref: Intel SDM vol. 3A, 4.3 and 4.4 (page tables).
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from paravirt.build import toolchain
from paravirt.build.guestcode import assemble_step
from paravirt.image.elf import ElfImage, load_elf
from paravirt.image.linux import BOOT_CS, BOOT_DS
from paravirt.machine import accel
from paravirt.machine.core import Machine
from paravirt.machine.exits import ExitTable
from paravirt.machine.outcome import End, GuestExit, Outcome
from paravirt.machine.ram import Ram
from paravirt.pc import PC_EXITS, enter_protected_mode

SOURCES = Path(__file__).resolve().parent / "snippets"
BUILT = SOURCES.parent.parent / "build" / "snippets"
LINK = ("-m", "elf_i386", "-static", "-N", "--build-id=none", "-Ttext=0x10000")

ENGINES: Mapping[str, tuple[str, ...]] = {
    "fast": (),
    "portable": tuple(accel.NAMES),
    **{f"no-{name}": (name,) for name in accel.NAMES},
}
C_DELIVERY = tuple(name for name in ENGINES if name not in ("portable", "no-state", "no-delivery"))
BLOCK_CLOCK = tuple(name for name in ENGINES if name not in ("portable", "no-state", "no-clock"))
each_engine = pytest.mark.parametrize("engine", ENGINES)

MEMORY = 4 << 20
IRQ = 0x30
PARAMS, RESULTS, LOG, TABLES = 0x6000, 0x7000, 0x8000, 0x100000
USER_STACK, TSS_STACK, STACK = 0x40000, 0x50000, 0x60000
KERNEL_CS, KERNEL_DS, USER_CS, USER_DS = 0x08, 0x10, 0x1B, 0x23
CR0_WP, CR0_PG, CR4_PSE, CR4_PAE, CR4_PGE, EFER_NX = 1 << 16, 1 << 31, 1 << 4, 1 << 5, 1 << 7, 1 << 11
NX, WATCHDOG = 1 << 63, 20_000_000


class Record(NamedTuple):
    """What an exception or interrupt found: the words of kernel.inc's log."""

    vector: int
    error: int
    eip: int
    cs: int
    eflags: int
    cr2: int
    esp: int
    ss: int


class Paging(NamedTuple):
    """Control registers to switch paging on with."""

    cr0: int = 0
    cr3: int = 0
    cr4: int = 0
    efer: int = 0


class _Plan(NamedTuple):
    """The part of a boot plan that `enter_protected_mode` uses."""

    writes: tuple[tuple[int, bytes], ...]
    entry: int
    esi: int
    gdt: bytes
    gdt_address: int
    eax: int = 0
    ebx: int = 0
    cs: int = BOOT_CS
    ds: int = BOOT_DS


@functools.cache
def assemble() -> Path:
    """Assemble and link all snippets that changed; returns their folder."""
    sources = sorted(SOURCES.glob("*.S"))
    toolchain.make([assemble_step(source, BUILT / f"{source.stem}.o") for source in sources])
    toolchain.make([toolchain.link_step([BUILT / f"{s.stem}.o"], BUILT / f"{s.stem}.elf", LINK) for s in sources])
    return BUILT


@functools.cache
def image(name: str) -> ElfImage:
    """The snippet tests/snippets/NAME.S."""
    return load_elf(assemble() / f"{name}.elf")


class Guest:
    """A machine with a snippet in it."""

    def __init__(self, name: str, engine: str, *, memory: int = MEMORY, table: ExitTable = PC_EXITS,
                 paging: Paging | None = None, arguments: Iterable[int] = ()) -> None:
        self.image = image(name)
        self.machine = Machine(memory, ENGINES[engine])
        self.machine.connect(table)
        self.machine.max_instructions = WATCHDOG
        self.vcpu, self.ram = self.machine.vcpu, self.machine.ram
        words = [*(paging or Paging()), *arguments]
        gdt = struct.pack("<4Q", 0, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
        writes = [(segment.paddr, segment.data) for segment in self.image.segments]
        writes += [(PARAMS, struct.pack(f"<{len(words)}I", *words)), (0x5000, gdt)]
        plan = _Plan(tuple(writes), self.image.entry, 0, gdt, 0x5000)
        enter_protected_mode(self.vcpu, plan)  # type: ignore[arg-type]

    def switch_paging_on(self, paging: Paging) -> None:
        """Let the snippet start with these control registers, for tables that stand in memory by now."""
        self.ram.write(PARAMS, struct.pack("<4I", *paging))

    def symbol(self, name: str) -> int:
        """Address of a global label of the snippet."""
        address = self.image.symbols.address(name)
        assert address is not None, f"the snippet has no global label {name}"
        return address

    def run(self) -> Outcome:
        """Run to the end of the run."""
        with pytest.raises(GuestExit) as caught:
            self.machine.run()
        outcome: Outcome = caught.value.outcome
        return outcome

    def finish(self) -> Guest:
        """Run to the snippet's own end: HLT with interrupts off."""
        outcome = self.run()
        assert outcome.end is End.HALT, f"{outcome.end.word}: {outcome.reason} at {outcome.eip:#x}; {self.log()}"
        return self

    def result(self, index: int) -> int:
        return int(self.ram.words[RESULTS // 4 + index])

    def results(self, count: int) -> list[int]:
        return [self.result(index) for index in range(count)]

    def log(self) -> list[Record]:
        """The records so far, in order."""
        end = self.ram.words[self.symbol("log_next") // 4]
        return [Record(*fields) for fields in struct.iter_unpack("<8I", self.ram.read(LOG, max(0, end - LOG)))]

    def vectors(self) -> list[int]:
        return [record.vector for record in self.log()]

    def left(self) -> str:
        """SHA-256 over memory and the registers that a program can see, time left out."""
        digest = hashlib.sha256(self.ram.bytes)
        vcpu = self.vcpu
        digest.update(repr([[vcpu.reg(r) for r in range(8)], vcpu.eip, vcpu.eflags, vcpu.cpl,
                            [vcpu.cr(i) for i in (0, 2, 3, 4)], [vcpu.segment(i) for i in range(6)]]).encode())
        return digest.hexdigest()


class Line:
    """An interrupt controller of one line, at ports 80h and 81h: a write to the first raises INTR, one to the second
    lowers it. It is lowered too when the CPU asks for the vector.

    :ivar taken: virtual times of those questions.
    """

    def __init__(self, guest: Guest) -> None:
        self.machine = guest.machine
        self.taken: list[int] = []
        self.machine.ports.claim(0x80, 2, self, "line")
        self.machine.acknowledge = self.acknowledge

    def acknowledge(self) -> int:
        self.taken.append(self.machine.engine.now())
        self.machine.interrupt_line(False)
        return IRQ

    def read(self, offset: int) -> int:
        return 0

    def write(self, offset: int, value: int) -> None:
        self.machine.interrupt_line(offset == 0)

    def state(self) -> dict[str, object]:
        return {}

    def reset(self) -> None:
        self.taken.clear()

    def every(self, period: int) -> None:
        """Raise INTR at each multiple of `period` nanoseconds."""
        def tick() -> None:
            self.machine.interrupt_line(True)
            timeline.call_at((timeline.now() // period + 1) * period, tick)

        timeline = self.machine.timeline
        timeline.call_at(period, tick)


@contextmanager
def start(name: str, engine: str = "fast", *, memory: int = MEMORY, table: ExitTable = PC_EXITS,
          paging: Paging | None = None, arguments: Iterable[int] = ()) -> Iterator[Guest]:
    """A machine with snippet `name`, not yet run; it is closed at the end of the block.

    :param paging: None: off.
    :param arguments: words for ARG(0), ARG(1) ... of the snippet.
    """
    guest = Guest(name, engine, memory=memory, table=table, paging=paging, arguments=arguments)
    try:
        yield guest
    finally:
        guest.machine.close()


def left_behind(name: str, engine: str) -> str:
    """`Guest.left` after the whole snippet."""
    with start(name, engine) as guest:
        return guest.finish().left()


def two_level(ram: Ram, *, base: int = TABLES, wp: bool = True) -> Paging:
    """Two-level tables that map all of RAM at itself, for every ring, by 4 KB pages.

    Directory at `base`, page tables behind it.
    """
    for table in range(-(-ram.size >> 22)):
        ram.write_u32(base + 4 * table, base + 4096 * (1 + table) | 7)
        pages = (table << 22 | index << 12 | 7 for index in range(1024))
        ram.write(base + 4096 * (1 + table), struct.pack("<1024I", *pages))
    return Paging(CR0_PG | (CR0_WP if wp else 0), base, CR4_PSE)


def pae(ram: Ram, *, base: int = TABLES, wp: bool = True, nx: bool = True) -> Paging:
    """PAE tables that map all of RAM at itself, for every ring, by 4 KB pages.

    Directory pointers at `base`, one page directory behind it, page tables behind that.
    """
    ram.write_u64(base, base + 4096 | 1)
    for table in range(-(-ram.size >> 21)):
        ram.write_u64(base + 4096 + 8 * table, base + 4096 * (2 + table) | 7)
        pages = (table << 21 | index << 12 | 7 for index in range(512))
        ram.write(base + 4096 * (2 + table), struct.pack("<512Q", *pages))
    return Paging(CR0_PG | (CR0_WP if wp else 0), base, CR4_PAE | CR4_PSE, EFER_NX if nx else 0)
