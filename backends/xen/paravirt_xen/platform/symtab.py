"""The symbol table behind a kernel that asks for it by its note BSD_SYMTAB, for a debugger of its own.

Right behind the kernel lies a number of bytes, then an ELF file of that size with nothing but three section headers:
none, the symbols, their names. (BSD kernels find their symbols so, whoever has loaded them.)

Ref: Xen common/libelf/libelf-loader.c (elf_load_bsdsyms); System V ABI, "Object Files".
"""

from __future__ import annotations

import struct

EHDR_BYTES, SHDR = 52, struct.Struct("<10I")
E_VERSION, E_PHOFF, E_EHSIZE, E_SHOFF, E_SHENTSIZE, E_SHNUM = 20, 28, 40, 32, 46, 48
SHT_SYMTAB, SHT_STRTAB = 2, 3
SH_TYPE, SH_OFFSET, SH_SIZE, SH_LINK = 1, 4, 5, 6  # indices of words
SYMTAB, STRTAB = 1, 2  # the sections' numbers
# As Xen lays it out, which leaves room for an ELF file of 64 bits: from the ELF header on.
SECTION_HEADERS, FIRST_SECTION = 64, 256
SIZE_BYTES = 4


def bsd_symbols(data: bytes) -> bytes:
    """What lies behind the kernel at the next address that is a multiple of 4; empty without usable symbols.

    :param data: the kernel's file, an ELF32 file.
    """
    headers = _section_headers(data)
    symtab = next((header for header in headers if header[SH_TYPE] == SHT_SYMTAB), None)
    if symtab is None or symtab[SH_LINK] >= len(headers):
        return b""
    strtab = headers[symtab[SH_LINK]]
    symbols, names = _contents(data, symtab), _contents(data, strtab)
    if strtab[SH_TYPE] != SHT_STRTAB or symbols is None or names is None:
        return b""
    symbols = symbols.ljust(-(-len(symbols) // 4) * 4, b"\0")
    symtab[SH_OFFSET], symtab[SH_LINK] = FIRST_SECTION, STRTAB
    strtab[SH_OFFSET] = FIRST_SECTION + len(symbols)
    table = bytes(SHDR.size) + SHDR.pack(*symtab) + SHDR.pack(*strtab)
    file = (_header(data).ljust(SECTION_HEADERS, b"\0") + table).ljust(FIRST_SECTION, b"\0") + symbols + names
    return len(file).to_bytes(SIZE_BYTES, "little") + file


def _section_headers(data: bytes) -> list[list[int]]:
    offset, = struct.unpack_from("<I", data, E_SHOFF)
    size, count = struct.unpack_from("<HH", data, E_SHENTSIZE)
    if size != SHDR.size or offset + size * count > len(data):
        return []
    return [list(SHDR.unpack_from(data, offset + size * index)) for index in range(count)]


def _contents(data: bytes, header: list[int]) -> bytes | None:
    start, size = header[SH_OFFSET], header[SH_SIZE]
    return data[start : start + size] if start + size <= len(data) else None


def _header(data: bytes) -> bytes:
    """The kernel's own ELF header, for another file."""
    header = bytearray(data[:EHDR_BYTES])
    struct.pack_into("<I", header, E_VERSION, 1)
    struct.pack_into("<II", header, E_PHOFF, 0, SECTION_HEADERS)
    struct.pack_into("<6H", header, E_EHSIZE, EHDR_BYTES, 0, 0, SHDR.size, STRTAB + 1, 0)
    return bytes(header)
