"""What the monitor knows of its guest.

One object a machine. The files beside this one are its concerns: each holds functions that get the monitor first,
and calls.py names those that answer a call.

The shared page behind the ROM (layout.py) is the guest's to write as well. What stands there is the guest's own
state, seen by its ROM code without leaving the guest; a guest that writes nonsense there harms itself alone.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from paravirt.api import Guest, PcBoard, crash
from paravirt_vmi.platform.layout import EFLAGS_IF, ROM_BYTES, WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from paravirt.api import GuestExit, LocalApic
    from paravirt_vmi.platform.alarms import Alarm
    from paravirt_vmi.rom import Rom


class Monitor:
    """
    :param rom: what lies at physical `rom_at`, its shared page behind it.

    :ivar active: VMI_Init has been called: the kernel runs in ring 1.
    :ivar base: linear address at which the guest runs the ROM.
    :ivar tr: the guest's task register: selector, base and limit of its TSS. The CPU's own TSS is the shared page's.
    :ivar iopl: what SetIOPLMask gave to ring 3: ports, never the interrupt flag.
    :ivar frames: a byte for each page of RAM: 0, or the level of table that it is announced for.
    :ivar linear: slots of SetLinearMapping: va, pages, pfn.
    """

    def __init__(self, guest: Guest, rom: Rom, rom_at: int) -> None:
        self.guest, self.machine, self.vcpu = guest, guest.machine, guest.machine.vcpu
        self.ram = guest.machine.ram
        self.rom, self.rom_at = rom, rom_at
        self.page_at = rom_at + ROM_BYTES
        self.board: PcBoard
        self.lapic: LocalApic | None = None
        self.active = False
        self.base = 0
        self.tr: tuple[int, int, int] = (0, 0, 0)
        self.iopl = 0
        self.frames = (ctypes.c_uint8 * (self.ram.size >> 12))()  # C has it too
        self.linear: dict[int, tuple[int, int, int]] = {}
        self.alarms: dict[int, Alarm] = {}
        self.interrupt_waits = False
        self.counts: Counter[str] = guest.counts
        self.counted_in_c: Callable[[], Mapping[str, int]] = dict
        self.make_up: Callable[[], None] = lambda: None  # does the calls that wait in the queue
        self.on_change: list[Callable[[], None]] = []  # something that C keeps a copy of has changed

    # ------------------------------------------------------------------ the shared page

    def word(self, name: str) -> int:
        """A word of the shared page."""
        return int(self.ram.words[(self.page_at + WORDS[name]) >> 2])

    def set_word(self, name: str, value: int) -> None:
        self.ram.write_u32(self.page_at + WORDS[name], value)

    def byte(self, name: str) -> int:
        return int(self.ram.bytes[self.page_at + WORDS[name]])

    def set_byte(self, name: str, value: int) -> None:
        self.ram.write(self.page_at + WORDS[name], bytes([value]))

    @property
    def flag(self) -> bool:
        """The guest's interrupt flag."""
        return bool(self.word("flag") & EFLAGS_IF)

    @flag.setter
    def flag(self, value: bool) -> None:
        self.set_word("flag", EFLAGS_IF if value else 0)

    def in_rom(self, linear: int) -> bool:
        """Whether ROM code runs at `linear`."""
        return self.active and self.base <= linear < self.base + ROM_BYTES

    # ------------------------------------------------------------------ what the machine tells

    def interrupt_line(self, level: bool) -> None:
        """The 8259's output."""
        if self.lapic is not None:
            self.lapic.pic_line(level)
        else:
            self.intr(level)

    def intr(self, level: bool) -> None:
        """The CPU's INTR input: ROM code that enables interrupts looks whether one waits."""
        self.interrupt_waits = level
        if self.active:
            self.set_byte("pending", level)
        self.machine.interrupt_line(level)

    def changed(self) -> None:
        """Tell whoever keeps a copy."""
        for tell in self.on_change:
            tell()

    # ------------------------------------------------------------------ ends and counts

    def count(self, key: str) -> None:
        self.counts[f"vmi.{key}"] += 1
        if self.guest.trace is not None:
            self.guest.trace.event("vmi", key)

    def refuse(self, call: str, why: str) -> GuestExit:
        """The guest asks for what no monitor can do; to be raised."""
        return crash(f"VMI {call}: {why}")

    def crosses(self, base: int, length: int) -> bool:
        """Whether a range leaves the 4 GiB of linear addresses."""
        return base + length > 1 << 32


def page_symbols() -> Iterable[tuple[str, int]]:
    """Name and ROM offset of what rom.S calls ``page_NAME``."""
    for name, offset in WORDS.items():
        yield f"page_{name}", ROM_BYTES + offset
