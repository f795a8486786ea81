"""What a backend works on: one kernel on one machine.

The lifecycle hooks get it. It says what was asked for (image, command line, options) and gives access to the
machine; what the backend makes of it stays in the backend's own objects.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from paravirt.errors import printable
from paravirt.hookspecs.tables import TABLES
from paravirt.image import BzImage, ElfImage
from paravirt.image.notes import CallSite, ParavirtNote, call_sites, parse_paravirt_note
from paravirt.image.symbols import SymbolTable
from paravirt.machine.core import Machine

if TYPE_CHECKING:
    from pydantic import BaseModel

    from paravirt.console import Console
    from paravirt.ops import Ops
    from paravirt.trace import Trace

END_BLOCK = struct.Struct("<II128sI")
END_MAGIC, END_VERSION = 0x42455650, 1


@dataclass(frozen=True)
class KernelInfo:
    """What is known of a kernel before there is a machine; what a probe looks at.

    :ivar note: the "Paravirt" note of a kernel that takes its op table from a backend, else None.
    """

    image: ElfImage | BzImage
    note: ParavirtNote | None

    @classmethod
    def of(cls, image: ElfImage | BzImage) -> KernelInfo:
        """:raises ImageError: for a note that does not fit."""
        words = {name: len(layout.words) for name, layout in TABLES.items()}
        return cls(image, parse_paravirt_note(image, words) if isinstance(image, ElfImage) else None)

    @cached_property
    def symbols(self) -> SymbolTable:
        return self.image.symbols if isinstance(self.image, ElfImage) else SymbolTable()

    @cached_property
    def call_sites(self) -> tuple[CallSite, ...]:
        if self.note is None or not isinstance(self.image, ElfImage):
            return ()
        return call_sites(self.image, self.note)


@dataclass
class Guest:
    """
    :ivar options: the backend's own options, an instance of its model.
    :ivar console: where the guest's console goes and its input comes from.
    :ivar counts: what the backend counts for the record; keys are its own, values repeatable.
    :ivar more_counts: further such counts, asked whenever the record needs them: what is counted in C or in the guest.
    :ivar count_ops: everything that a backend can count is wanted, what costs time too.
    :ivar vga_text: gives the lines on the text screen now; None if the platform has no screen.
    :ivar trace: takes events of the platform's own, if a trace was asked for.
    :ivar ops: the bound op table, of a paravirt kernel.
    """

    machine: Machine
    kernel: KernelInfo
    options: BaseModel
    console: Console
    command_line: str = ""
    initrd: bytes | None = None
    epoch: int = 0
    count_ops: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    more_counts: list[Callable[[], Mapping[str, int]]] = field(default_factory=list)
    vga_text: Callable[[], list[str]] | None = None
    trace: Trace | None = None
    ops: Ops = field(init=False)

    @property
    def memory(self) -> int:
        """Bytes of RAM that the guest gets."""
        return self.machine.memory

    def all_counts(self) -> dict[str, int]:
        """`counts` and `more_counts` together."""
        total = Counter(self.counts)
        for counts in self.more_counts:
            total.update(counts())
        return dict(total)

    def panic(self) -> tuple[str, int]:
        """Message and EIP that a paravirt kernel left in its end block."""
        note, image = self.kernel.note, self.kernel.image
        if note is None or not isinstance(image, ElfImage):
            return "no message", self.machine.engine.eip
        address = image.physical(note.end_block)
        magic, version, message, eip = END_BLOCK.unpack(self.machine.ram.read(address or 0, END_BLOCK.size))
        if (magic, version) != (END_MAGIC, END_VERSION):
            return "no message", self.machine.engine.eip
        return printable(message.split(b"\0")[0]), eip
