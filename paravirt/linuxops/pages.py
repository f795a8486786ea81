"""Where a platform lets the framework put code behind a Linux kernel's op slots, and when.

The pages must be in every address space of the guest, executable to its kernel and to nobody else, and no part of
the memory that the kernel counts as its own. On a PC they lie in the firmware's area below 1 MiB, which the memory
map reserves and the kernel maps with the rest of low memory. A hypervisor has pages of its own above the guest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paravirt.errors import PluginError
from paravirt.image.elf import ElfImage
from paravirt.link import Area

if TYPE_CHECKING:
    from paravirt.guest import Guest
    from paravirt.machine.ram import Ram

PAGE = 4096
STUB_BYTES = 8
FIRST_SLOT_STUB = 256  # in the page of stubs: below are those of host functions (calls.py)
MAX_SLOTS = 256
PC_PAGES = range(0xF2000, 0xFA000, PAGE)
PC_MOMENT = "i386_start_kernel"


@dataclass(frozen=True)
class StubPages:
    """Room for stubs and for an assigned table's code: the first page is for stubs, the rest for code and data.

    :ivar virtual: address of the first page in the guest; the others follow.
    :ivar frames: physical addresses of the pages, in that order.
    :ivar moments: functions of the kernel, by symbol. Whenever one is entered, the slots are looked at: the first
        time when the kernel has filled its tables, later where it changes some. No op may be called before the
        first, or it is missed.
    :ivar writable: whether the kernel may write there, so that an assigned table's guest code may have data.
    :ivar patched: the kernel patches its call sites here in a way that leaves them indirect, or counts elsewhere.
    """

    virtual: int
    frames: Sequence[int]
    moments: Sequence[str]
    writable: bool = True
    patched: bool = False

    def write(self, ram: Ram, address: int, data: bytes) -> None:
        """Store `data` at virtual `address`, whatever the guest's page tables say."""
        while data:
            page, offset = divmod(address - self.virtual, PAGE)
            span = min(len(data), PAGE - offset)
            ram.write(self.frames[page] + offset, data[:span])
            address, data = address + span, data[span:]

    def slot_stub(self, number: int) -> int:
        """Virtual address of the stub of slot `number`."""
        return self.virtual + STUB_BYTES * (FIRST_SLOT_STUB + number)

    @property
    def gate_bytes(self) -> int:
        """Of the page of stubs, what the host functions have."""
        return STUB_BYTES * FIRST_SLOT_STUB

    def contains(self, address: int) -> bool:
        return self.virtual <= address < self.virtual + PAGE * len(self.frames)

    def areas(self) -> tuple[Area, Area]:
        """Room for an assigned table's code, and for its data."""
        rest = len(self.frames) - 1
        data = rest // 4 if self.writable else 0
        code = Area(self.virtual + PAGE, PAGE * (rest - data), "code")
        return code, Area(code.address + code.size, PAGE * data, "data")


def pc_stub_pages(guest: Guest, moments: Sequence[str] = (PC_MOMENT,)) -> StubPages:
    """The pages on a PC, for a kernel that maps low memory where it maps itself.

    :raises PluginError: the kernel has none of the functions of `moments`.
    """
    image = guest.kernel.image
    address = guest.kernel.symbols.address(moments[0])
    segment = image.segment(address) if isinstance(image, ElfImage) and address is not None else None
    if segment is None:
        raise PluginError(f"{image.path}: the kernel has no function {moments[0]}, at which its op tables are complete")
    return StubPages(segment.vaddr - segment.paddr + PC_PAGES.start, PC_PAGES, moments)
