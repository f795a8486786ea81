"""The multiboot header: how a kernel that is not Linux asks to be started, and files that have nothing else.

Who has a header and is an ELF file is loaded by its segments; who gives addresses in the header (flag 16, the
"a.out kludge") is loaded by these, whatever the file is. Addresses are physical, sizes are bytes.

Ref: Multiboot Specification 0.6.96, 3.1 (OS image format).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from paravirt.errors import ImageError

HEADER_MAGIC = 0x1BADB002
HEADER_RANGE = 8192  # the header lies in these first bytes of the file, at a multiple of 4

PAGE_ALIGN, MEMORY_INFO, VIDEO_MODE, ADDRESSES = 1 << 0, 1 << 1, 1 << 2, 1 << 16
# A loader that does not know one of the low 16 flags has to refuse. The video mode is an exception by custom: it is
# a wish, and a kernel sees in the information that it was not granted.
MANDATORY, KNOWN = 0xFFFF, PAGE_ALIGN | MEMORY_INFO | VIDEO_MODE
_BASIC, _ADDRESSES = struct.Struct("<3I"), struct.Struct("<5I")


class MultibootHeader(NamedTuple):
    """The fields; the five addresses are 0 without flag 16.

    :ivar offset: of the header in the file. :ivar load_end_addr: 0: the whole file. :ivar bss_end_addr: 0: no bss.
    """

    offset: int
    flags: int
    header_addr: int = 0
    load_addr: int = 0
    load_end_addr: int = 0
    bss_end_addr: int = 0
    entry_addr: int = 0

    @property
    def has_addresses(self) -> bool:
        """Whether the header says what is loaded where."""
        return bool(self.flags & ADDRESSES)


class Piece(NamedTuple):
    """A stretch of memory that a kernel takes: `data`, then zeros up to `end`."""

    start: int
    end: int
    data: bytes


@dataclass(frozen=True)
class FlatImage:
    """A kernel in no format that is known here, whose multiboot header says what to do with it."""

    path: Path
    data: bytes = field(repr=False)


def find_multiboot(data: bytes) -> MultibootHeader | None:
    """The header of a file, if it has one: the first with magic and checksum that lies whole in the range."""
    data = data[:HEADER_RANGE]
    magic = HEADER_MAGIC.to_bytes(4, "little")
    at = data.find(magic)
    while 0 <= at <= len(data) - _BASIC.size:
        _, flags, checksum = _BASIC.unpack_from(data, at)
        if at % 4 == 0 and (HEADER_MAGIC + flags + checksum) & 0xFFFFFFFF == 0:
            rest = at + _BASIC.size
            if not flags & ADDRESSES:
                return MultibootHeader(at, flags)
            if rest + _ADDRESSES.size <= len(data):
                return MultibootHeader(at, flags, *_ADDRESSES.unpack_from(data, rest))
        at = data.find(magic, at + 1)
    return None


def check_flags(path: Path, header: MultibootHeader) -> None:
    """:raises ImageError: the kernel asks for what a loader of this version does not know."""
    unknown = header.flags & MANDATORY & ~KNOWN
    if unknown:
        raise ImageError(f"{path}: multiboot flags {header.flags:#x}: the kernel cannot do without {unknown:#x}, which "
                         "this loader does not know")


def piece_at_addresses(path: Path, data: bytes, header: MultibootHeader) -> tuple[Piece, int]:
    """What a header with addresses has loaded, and the entry.

    :raises ImageError: naming the field that does not fit the others or the file. Nothing is copied before.
    """
    start = header.offset - (header.header_addr - header.load_addr)
    if header.load_addr > header.header_addr or start < 0:
        raise ImageError(f"{path}: multiboot load_addr {header.load_addr:#x}: the header at {header.offset:#x} in the "
                         f"file and {header.header_addr:#x} in memory cannot belong to that")
    end = header.load_end_addr or header.load_addr + len(data) - start
    if end < header.load_addr or end - header.load_addr > len(data) - start:
        raise ImageError(f"{path}: multiboot load_end_addr {header.load_end_addr:#x}: from load_addr "
                         f"{header.load_addr:#x} the file has {len(data) - start} bytes")
    if header.bss_end_addr and header.bss_end_addr < end:
        raise ImageError(f"{path}: multiboot bss_end_addr {header.bss_end_addr:#x}: below the end of what is loaded, "
                         f"{end:#x}")
    piece_end = header.bss_end_addr or end
    if not header.load_addr <= header.entry_addr < piece_end:
        raise ImageError(f"{path}: multiboot entry_addr {header.entry_addr:#x}: outside of what is loaded, "
                         f"{header.load_addr:#x} to {piece_end:#x}")
    return Piece(header.load_addr, piece_end, data[start : start + end - header.load_addr]), header.entry_addr
