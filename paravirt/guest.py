"""What a backend works on: one kernel on one machine.

The lifecycle hooks get it. It says what was asked for (image, command line, options) and gives access to the
machine; what the backend makes of it stays in the backend's own objects.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from paravirt.errors import ImageError, printable
from paravirt.hookspecs.tables import TABLES
from paravirt.image import BzImage, ElfImage, FlatImage
from paravirt.image.multiboot import MultibootHeader, find_multiboot
from paravirt.image.notes import CallSite, ParavirtNote, call_sites, parse_paravirt_note
from paravirt.image.symbols import SymbolTable
from paravirt.machine.core import Machine

if TYPE_CHECKING:
    from pydantic import BaseModel

    from paravirt.console import Console
    from paravirt.ops import Ops
    from paravirt.trace import Trace

END_BLOCK = struct.Struct("<II128sI")
PAGE = 4096
END_MAGIC, END_VERSION = 0x42455650, 1


@dataclass(frozen=True)
class KernelInfo:
    """What is known of a kernel before there is a machine; what a probe looks at.

    :ivar note: the "Paravirt" note of a kernel that takes its op table from a backend, else None.
    """

    image: ElfImage | BzImage | FlatImage
    note: ParavirtNote | None

    @classmethod
    def of(cls, image: ElfImage | BzImage | FlatImage) -> KernelInfo:
        """:raises ImageError: for a note that does not fit."""
        words = {name: len(layout.words) for name, layout in TABLES.items()}
        return cls(image, parse_paravirt_note(image, words) if isinstance(image, ElfImage) else None)

    @cached_property
    def multiboot(self) -> MultibootHeader | None:
        """The multiboot header, of a kernel that is to be started by it.

        Linux has none. A kernel with the note "Paravirt" and a bzImage have a protocol of their own, whatever else
        is in them; and a domain builder looks for Xen's notes alone.
        """
        if self.note is not None or isinstance(self.image, BzImage):
            return None
        return find_multiboot(self.image.data)

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
    :ivar initrd_name: what a multiboot kernel gets as its module's string.
    :ivar counts: what the backend counts for the record; keys are its own, values repeatable.
    :ivar more_counts: further such counts, asked whenever the record needs them: what is counted in C or in the guest.
    :ivar count_ops: everything that a backend can count is wanted, what costs time too.
    :ivar vga_text: gives the lines on the text screen now; None if the platform has no screen.
    :ivar trace: takes events of the platform's own, if a trace was asked for.
    :ivar ops: the bound op table, of a paravirt kernel.
    :ivar machine_frame: the machine's frame of a frame of the kernel's, where a platform numbers them differently.
    """

    machine: Machine
    kernel: KernelInfo
    options: BaseModel
    console: Console
    command_line: str = ""
    initrd: bytes | None = None
    epoch: int = 0
    count_ops: bool = False
    initrd_name: str = "initrd"
    counts: Counter[str] = field(default_factory=Counter)
    more_counts: list[Callable[[], Mapping[str, int]]] = field(default_factory=list)
    vga_text: Callable[[], list[str]] | None = None
    machine_frame: Callable[[int], int] = lambda frame: frame
    trace: Trace | None = None
    ops: Ops = field(init=False)

    @property
    def memory(self) -> int:
        """Bytes of RAM that the guest gets."""
        return self.machine.memory

    def read_image(self, va: int, length: int) -> bytes:
        """Bytes of the kernel's image, as they are in memory now."""
        return b"".join(self.machine.ram.read(at, span) for at, span in self._spans(va, length))

    def write_image(self, va: int, data: bytes) -> None:
        """Store bytes in the kernel's image, before it runs."""
        for at, span in self._spans(va, len(data)):
            self.machine.ram.write(at, data[:span])
            data = data[span:]

    def _spans(self, va: int, length: int) -> Iterator[tuple[int, int]]:
        """The pieces of a range of the image that lie together in machine memory."""
        image = self.kernel.image
        assert isinstance(image, ElfImage)
        while length:
            physical = image.physical(va)
            if physical is None:
                raise ImageError(f"{image.path}: {va:#x} is not in the image")
            span = min(length, PAGE - physical % PAGE)
            yield self.machine_frame(physical // PAGE) * PAGE + physical % PAGE, span
            va, length = va + span, length - span

    def all_counts(self) -> dict[str, int]:
        """`counts` and `more_counts` together."""
        total = Counter(self.counts)
        for counts in self.more_counts:
            total.update(counts())
        return dict(total)

    def panic(self) -> tuple[str, int]:
        """Message and EIP that a paravirt kernel left in its end block."""
        note = self.kernel.note
        if note is None:
            return "no message", self.machine.engine.eip
        magic, version, message, eip = END_BLOCK.unpack(self.read_image(note.end_block, END_BLOCK.size))
        if (magic, version) != (END_MAGIC, END_VERSION):
            return "no message", self.machine.engine.eip
        return printable(message.split(b"\0")[0]), eip
