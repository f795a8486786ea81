"""How a multiboot loader starts a kernel: the memory it fills and the information that it leaves.

The kernel is entered in flat 32-bit protected mode, paging and interrupts off, EAX holding the loader's magic and
EBX the address of the information structure: memory sizes and map, command line, and the initrd as the one module.
The loader's own data lies low, or behind the kernel if the kernel is there; the module behind both, since a kernel
that maps a few megabytes maps those.

Ref: Multiboot Specification 0.6.96, 3.2 (machine state), 3.3 (boot information format).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from paravirt.errors import ImageError
from paravirt.image.bzimage import LOW_LIMIT
from paravirt.image.elf import PF_X, ElfImage
from paravirt.image.linux import (
    BIOS_DATA,
    E820_ENTRY,
    LOW_RAM_END,
    ZERO_PAGE,
    BootPlan,
    page_up,
    pc_e820,
    too_little,
)
from paravirt.image.multiboot import FlatImage, MultibootHeader, Piece, check_flags, piece_at_addresses

LOADER_MAGIC = 0x2BADB002
LOADER_NAME = b"paravirt"
# Where custom has them; the specification leaves the selectors open. A kernel may use them until it has its own.
MULTIBOOT_CS, MULTIBOOT_DS = 0x08, 0x10
LOW_RAM_START = 0x500  # behind interrupt vectors and BIOS data
INFO = ZERO_PAGE  # the usual place of the loader's data; a kernel of another protocol has nothing there

_MEMORY, _COMMAND_LINE, _MODULES, _MEMORY_MAP, _LOADER_NAME = 1 << 0, 1 << 2, 1 << 3, 1 << 6, 1 << 9
_INFO_AT, _INFO_BYTES = 32, 88  # in the loader's data: behind the descriptors
_MODULE, _MAP_SIZE = struct.Struct("<4I"), struct.Struct("<I")
_GDT = struct.pack("<3Q", 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF)


def plan_multiboot(image: ElfImage | FlatImage, header: MultibootHeader, *, memory: int, command_line: str = "",
                   initrd: bytes | None = None, initrd_name: str = "initrd") -> BootPlan:
    """Decide what a multiboot loader writes, and where the kernel starts.

    The kernel's command line is the file's name and `command_line`, as loaders have it; the module's string is
    `initrd_name`.

    :param memory: bytes of RAM from physical address 0.
    :raises ImageError: if the header cannot be followed, or kernel, command line or initrd do not fit into RAM.
    """
    path = image.path
    check_flags(path, header)
    if header.has_addresses:
        piece, entry = piece_at_addresses(path, image.data, header)
        pieces: Sequence[Piece] = (piece,)
    elif isinstance(image, ElfImage):
        pieces = [Piece(segment.paddr, segment.paddr + segment.memsz, segment.data) for segment in image.segments]
        entry = _elf_entry(image)
    else:
        raise ImageError(f"{path}: a multiboot header without addresses (flag 16), in a file that is no ELF file")
    for piece in pieces:
        if piece.start < LOW_LIMIT and (piece.start < LOW_RAM_START or piece.end > LOW_RAM_END):
            raise ImageError(f"{path}: the kernel wants memory from {piece.start:#x} to {piece.end:#x}, part of which "
                             "is the firmware's or a device's")
    end = max(piece.end for piece in pieces)
    _check_room(image, end, memory, "the kernel needs")
    texts = _texts(image, command_line, initrd_name)
    size = len(_information(0, memory, texts, None))
    low = all(piece.end <= INFO or piece.start >= INFO + size for piece in pieces) and INFO + size <= LOW_RAM_END
    behind = max(page_up(end), LOW_LIMIT)
    at, behind = (INFO, behind) if low else (behind, page_up(behind + size))
    module = (behind, behind + len(initrd)) if initrd else None
    _check_room(image, module[1] if module else end if low else behind, memory, "kernel, command line and initrd need")
    gdt, information = _GDT, _information(at, memory, texts, module)
    writes = [
        *BIOS_DATA,
        (at, information),
        *((piece.start, piece.data) for piece in pieces if piece.data),
    ]
    if module and initrd:
        writes.append((module[0], initrd))
    return BootPlan(tuple(writes), entry, 0, gdt, at, module and (module[0], module[1] - module[0]), command_line,
                    eax=LOADER_MAGIC, ebx=at + _INFO_AT, cs=MULTIBOOT_CS, ds=MULTIBOOT_DS)


def _elf_entry(image: ElfImage) -> int:
    """e_entry is a virtual address in most files, and a physical one in those whose authors read the document."""
    for segment in image.segments:
        if segment.flags & PF_X and segment.holds(image.entry):
            return image.entry - segment.vaddr + segment.paddr
    if any(segment.paddr <= image.entry < segment.paddr + segment.memsz for segment in image.segments):
        return image.entry
    raise ImageError(f"{image.path}: e_entry {image.entry:#x} lies in no loadable segment")


def _check_room(image: ElfImage | FlatImage, end: int, memory: int, what: str) -> None:
    if end > memory:
        raise too_little(image.path, what, end, memory)


def _texts(image: ElfImage | FlatImage, command_line: str, initrd_name: str) -> tuple[bytes, bytes]:
    """Command line and module string, each with its NUL."""
    whole = f"{image.path} {command_line}" if command_line else str(image.path)
    encoded = [text.encode("utf-8", "surrogateescape") for text in (whole, initrd_name)]
    if any(b"\0" in text for text in encoded):
        raise ImageError(f"{image.path}: command line: it contains a NUL")
    return encoded[0] + b"\0", encoded[1] + b"\0"


def _information(at: int, memory: int, texts: tuple[bytes, bytes], module: tuple[int, int] | None) -> bytes:
    """The loader's own data for address `at`: descriptors, the information structure, and what that points to.

    Its size does not depend on `at` and `module`.
    """
    ranges = pc_e820(memory)
    memory_map = b"".join(_MAP_SIZE.pack(E820_ENTRY.size) + E820_ENTRY.pack(*entry) for entry in ranges)
    map_at = at + _INFO_AT + _INFO_BYTES
    module_at = map_at + len(memory_map)
    command_line_at = module_at + _MODULE.size
    name_at = command_line_at + len(texts[0])
    module_text_at = name_at + len(LOADER_NAME) + 1
    info = bytearray(_INFO_BYTES)
    flags = _MEMORY | _COMMAND_LINE | _MODULES | _MEMORY_MAP | _LOADER_NAME
    struct.pack_into("<3I", info, 0, flags, LOW_RAM_END >> 10, max(0, memory - LOW_LIMIT) >> 10)
    struct.pack_into("<3I", info, 16, command_line_at, 1 if module else 0, module_at)
    struct.pack_into("<2I", info, 44, len(memory_map), map_at)
    struct.pack_into("<I", info, 64, name_at)
    module_entry = _MODULE.pack(*(module or (0, 0)), module_text_at if module else 0, 0)
    descriptors = _GDT.ljust(_INFO_AT, b"\0")
    return b"".join((descriptors, info, memory_map, module_entry, texts[0], LOADER_NAME, b"\0", texts[1]))
