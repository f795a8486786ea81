"""How a PC's loader starts a kernel: Linux's 32-bit boot protocol, for bzImage and ELF kernels.

The loader puts the kernel at 1 MiB, fills the zero page (struct boot_params) and enters the kernel in
flat 32-bit protected mode, paging and interrupts off, ESI at the zero page. Nothing of the firmware is
called. `plan_linux` decides what lies where; whoever has a machine carries the plan out.

Ref: Linux Documentation/arch/x86/boot.rst, "32-bit Boot Protocol", and zero-page.rst.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from paravirt.errors import ImageError
from paravirt.image.bzimage import HEADER, LOW_LIMIT, BzImage
from paravirt.image.elf import ElfImage

PAGE = 4096
BOOT_CS, BOOT_DS = 0x10, 0x18

# The loader's own places below 1 MiB; the kernel has read them before it uses that memory.
ZERO_PAGE = 0x10000
GDT = 0x11000
COMMAND_LINE = 0x20000

BDA_EBDA_SEGMENT, BDA_MEMORY_KIB = 0x40E, 0x413
LOW_RAM_END = 0x9FC00  # where the extended BIOS data area starts: 639 KiB
FIRMWARE = 0xF0000

# What firmware leaves in the BIOS data area, and a kernel may look at: where low memory ends.
BIOS_DATA = (
    (BDA_EBDA_SEGMENT, (LOW_RAM_END >> 4).to_bytes(2, "little")),
    (BDA_MEMORY_KIB, (LOW_RAM_END >> 10).to_bytes(2, "little")),
)

E820_RAM, E820_RESERVED = 1, 2
E820_ENTRY = struct.Struct("<QQI")

# An ELF kernel brings no header: what a loader of protocol 2.04 would have found. From 2.07 on the kernel
# would also read hardware_subarch, which tells it that it is on bare hardware; absent means the same.
ELF_PROTOCOL = 0x204
ELF_COMMAND_LINE_SIZE = 2047
ELF_INITRD_MAX = 0x37FFFFFF
LOADER_UNKNOWN = 0xFF


class E820(NamedTuple):
    """A range of physical memory as the firmware reports it: bytes, and E820_RAM or E820_RESERVED."""

    start: int
    length: int
    type: int


@dataclass(frozen=True)
class BootPlan:
    """The first moment of a kernel on a bare PC. Addresses are physical; memory not written is zero.

    :ivar writes: (address, bytes), which do not overlap.
    :ivar entry: EIP. The general registers that are not named here are 0.
    :ivar esi: the zero page.
    :ivar eax: a multiboot loader's magic; :ivar ebx: its information.
    :ivar cs: selector of CS; :ivar ds: of the other segment registers.
    :ivar gdt: the descriptors, also among the writes, at `gdt_address`.
    :ivar initrd: address and bytes.
    """

    writes: tuple[tuple[int, bytes], ...] = field(repr=False)
    entry: int
    esi: int
    gdt: bytes
    gdt_address: int
    initrd: tuple[int, int] | None
    command_line: str
    eax: int = 0
    ebx: int = 0
    cs: int = BOOT_CS
    ds: int = BOOT_DS


def pc_e820(memory: int) -> tuple[E820, ...]:
    """The memory map of a PC with `memory` bytes of RAM, ascending. Holes are for devices."""
    low = (
        E820(0, LOW_RAM_END, E820_RAM),
        E820(LOW_RAM_END, 0xA0000 - LOW_RAM_END, E820_RESERVED),
        E820(FIRMWARE, LOW_LIMIT - FIRMWARE, E820_RESERVED),
    )
    return (*low, E820(LOW_LIMIT, memory - LOW_LIMIT, E820_RAM)) if memory > LOW_LIMIT else low


def boot_params(image: ElfImage | BzImage | None, *, command_line: str, memory: int,
                initrd: tuple[int, int] | None = None) -> bytes:
    """The zero page, 4096 bytes, with the command line at `COMMAND_LINE`.

    :param image: a bzImage brings its setup header; for others one is made up.
    :param memory: bytes of RAM; :param initrd: physical address and bytes.
    :raises ImageError: if the command line does not suit the kernel.
    """
    _encode_command_line(image, command_line)
    page = bytearray(PAGE)
    extended = max(0, memory - LOW_LIMIT) >> 10
    # Text mode 3 of a VGA: 80 columns, 25 lines, characters of 16 lines; the cursor on the last line.
    struct.pack_into("<BBHHBB", page, 0, 0, 24, min(extended, 0xFFFF), 0, 3, 80)
    struct.pack_into("<BBH", page, 0x0E, 25, 1, 16)
    struct.pack_into("<I", page, 0x1E0, extended)
    if isinstance(image, BzImage):
        page[HEADER : HEADER + len(image.header)] = image.header
    else:
        struct.pack_into("<H", page, 0x1FE, 0xAA55)
        struct.pack_into("<4sH", page, 0x202, b"HdrS", ELF_PROTOCOL)
        page[0x211] = 1  # loaded high
        struct.pack_into("<I", page, 0x22C, ELF_INITRD_MAX)
    struct.pack_into("<H", page, 0x1FA, 0xFFFF)  # vid_mode "normal": leave the mode that is set
    page[0x210] = LOADER_UNKNOWN
    struct.pack_into("<II", page, 0x218, *(initrd or (0, 0)))
    struct.pack_into("<I", page, 0x228, COMMAND_LINE)
    ranges = pc_e820(memory)
    page[0x1E8] = len(ranges)
    for number, entry in enumerate(ranges):
        E820_ENTRY.pack_into(page, 0x2D0 + number * E820_ENTRY.size, *entry)
    return bytes(page)


def plan_linux(image: ElfImage | BzImage, *, memory: int, command_line: str = "",
               initrd: bytes | None = None) -> BootPlan:
    """Decide what a loader writes, and where the kernel starts.

    :param memory: bytes of RAM from physical address 0.
    :raises ImageError: if kernel, command line or initrd do not fit; it says how much is needed.
    """
    text = _encode_command_line(image, command_line)
    if isinstance(image, BzImage):
        kernel, entry, end = _place_bzimage(image)
        initrd_max = image.initrd_addr_max
    else:
        kernel, entry, end = _place_elf(image)
        initrd_max = ELF_INITRD_MAX
    if end > memory:
        raise too_little(image.path, "the kernel needs", end, memory)
    placed = _place_initrd(image, initrd, end, memory, initrd_max) if initrd else None
    gdt = struct.pack("<4Q", 0, 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF)
    writes = [
        *BIOS_DATA,
        (ZERO_PAGE, boot_params(image, command_line=command_line, memory=memory, initrd=placed)),
        (GDT, gdt),
        (COMMAND_LINE, text),
        *kernel,
    ]
    if placed and initrd:
        writes.append((placed[0], initrd))
    return BootPlan(tuple(writes), entry, ZERO_PAGE, gdt, GDT, placed, command_line)


def _place_elf(image: ElfImage) -> tuple[list[tuple[int, bytes]], int, int]:
    """Writes, physical entry and end of an ELF kernel."""
    first = image.segments[0]
    if first.paddr < LOW_LIMIT:
        raise ImageError(f"{image.path}: p_paddr {first.paddr:#x}: the kernel wants memory below 1 MiB, which is the "
                         "loader's and the firmware's; is it a kernel for a bare PC?")
    # Linux writes the physical address into e_entry, most others the virtual one.
    entry = image.entry
    if not any(segment.paddr <= entry < segment.paddr + segment.memsz for segment in image.segments):
        physical = image.physical(entry)
        if physical is None:
            raise ImageError(f"{image.path}: e_entry {entry:#x} lies in no loadable segment")
        entry = physical
    return [(segment.paddr, segment.data) for segment in image.segments if segment.data], entry, image.physical_end


def _place_bzimage(image: BzImage) -> tuple[list[tuple[int, bytes]], int, int]:
    """Writes, entry and end of a bzImage: the end of the memory that it uses before it reads the memory map."""
    load = LOW_LIMIT if image.relocatable else image.code32_start
    kernel = image.kernel
    # A kernel that is loaded below its preferred address moves itself there to unpack.
    aligned = load + -load % image.kernel_alignment if image.relocatable and image.kernel_alignment else load
    run = max(aligned, image.pref_address)
    return [(load, kernel)], load, max(load + len(kernel), run + image.init_size)


def _place_initrd(image: ElfImage | BzImage, initrd: bytes, end: int, memory: int,
                  limit: int) -> tuple[int, int]:
    """As high as the kernel can reach it: what lies low would be in the way of the kernel's early memory."""
    size = len(initrd)
    address = (min(memory, limit + 1) - size) & -PAGE
    lowest = page_up(end)
    if address < lowest:
        if lowest + size > limit + 1:
            raise ImageError(f"{image.path}: initrd_addr_max {limit:#x}: an initrd of {size} bytes does not fit "
                             f"between the kernel's end {end:#x} and that")
        raise too_little(image.path, f"kernel and initrd ({size} bytes) need", lowest + size, memory)
    return address, size


def _encode_command_line(image: ElfImage | BzImage | None, command_line: str) -> bytes:
    """The bytes with their NUL, checked against what the kernel and the loader's place can take."""
    path = "command line" if image is None else f"{image.path}: command line"
    text = command_line.encode("utf-8", "surrogateescape")
    limit = image.cmdline_size if isinstance(image, BzImage) else ELF_COMMAND_LINE_SIZE
    limit = min(limit, LOW_RAM_END - COMMAND_LINE - 1)
    if len(text) > limit:
        raise ImageError(f"{path}: {len(text)} bytes; the kernel takes {limit} (cmdline_size)")
    if b"\0" in text:
        raise ImageError(f"{path}: it contains a NUL")
    return text + b"\0"


def page_up(address: int) -> int:
    """The next page boundary, if it is none."""
    return address + PAGE - 1 & -PAGE


def too_little(path: Path, what: str, size: int, memory: int) -> ImageError:
    """The error of a machine with `memory` bytes where `size` are wanted; `what` ends with the verb."""
    return ImageError(f"{path}: memory: {what} {(size + (1 << 20) - 1) >> 20} MiB, the machine has {memory / 2**20:g}")
