"""Small ELF files and bzImages, built in memory, for tests of what reads them.

Ref: System V ABI, "Object Files"; Linux Documentation/arch/x86/boot.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

EHDR, PHDR, SHDR = struct.Struct("<16sHHIIIIIHHHHHH"), struct.Struct("<8I"), struct.Struct("<10I")
SYM = struct.Struct("<IIIBBH")
GLOBAL_FUNC, GLOBAL_OBJECT, LOCAL_FUNC, GLOBAL_LABEL = 0x12, 0x11, 0x02, 0x10


@dataclass(frozen=True)
class Load:
    """A segment to be loaded. `paddr` None: `vaddr` less 0xC0000000. `memsz` None: as long as `data`."""

    vaddr: int
    data: bytes
    paddr: int | None = None
    memsz: int | None = None
    flags: int = 7


@dataclass(frozen=True)
class Sym:
    """A symbol of .symtab; `section` 0 is undefined, 0xfff1 absolute."""

    name: str
    value: int
    size: int = 0
    info: int = GLOBAL_FUNC
    section: int = 1


def note(name: str, kind: int, desc: bytes, descsz: int | None = None) -> bytes:
    """One ELF note; `descsz` makes it claim another size than it has."""
    text = name.encode() + b"\0"
    header = struct.pack("<III", len(text), len(desc) if descsz is None else descsz, kind)
    return header + text.ljust(len(text) + 3 & ~3, b"\0") + desc.ljust(len(desc) + 3 & ~3, b"\0")


def make_elf(loads: Sequence[Load], *, entry: int = 0x100000, notes: bytes = b"", symbols: Sequence[Sym] = (),
             sections: Sequence[tuple[str, bytes]] = (), kind: int = 2, machine: int = 3, note_section: bool = True,
             note_segment: bool = True) -> bytes:
    """An ELF32 file of type ET_EXEC (2) for the i386 (3), with section headers."""
    blob = bytearray()
    base = EHDR.size + PHDR.size * (len(loads) + 1)

    def place(data: bytes) -> int:
        blob.extend(b"\0" * (-len(blob) % 4))
        blob.extend(data)
        return base + len(blob) - len(data)

    phdrs = []
    for load in loads:
        paddr = load.vaddr - 0xC0000000 if load.paddr is None else load.paddr
        memsz = len(load.data) if load.memsz is None else load.memsz
        phdrs.append(PHDR.pack(1, place(load.data), load.vaddr, paddr, len(load.data), memsz, load.flags, 4))
    notes_at = place(notes)
    phdrs.append(PHDR.pack(4 if notes and note_segment else 0, notes_at, 0, 0, len(notes), len(notes), 4, 4))
    strings = b"\0" + b"".join(symbol.name.encode() + b"\0" for symbol in symbols)
    records, at = bytearray(SYM.size), 1
    for symbol in symbols:
        records += SYM.pack(at, symbol.value, symbol.size, symbol.info, 0, symbol.section)
        at += len(symbol.name.encode()) + 1
    # (name, type, offset, size, link)
    table: list[tuple[str, int, int, int, int]] = [("", 0, 0, 0, 0)]
    table.append((".notes", 7 if note_section else 0, notes_at, len(notes), 0))
    table.append((".symtab", 2, place(bytes(records)), len(records), 3))
    table.append((".strtab", 3, place(strings), len(strings), 0))
    table += [(name, 1, place(data), len(data), 0) for name, data in sections]
    names = b"\0".join(row[0].encode() for row in table) + b"\0.shstrtab\0"
    table.append((".shstrtab", 3, place(names), len(names), 0))
    shdrs, at = b"", 0
    for name, sh_type, offset, size, link in table:
        shdrs += SHDR.pack(at, sh_type, 0, 0, offset, size, link, 0, 4, 16 if sh_type == 2 else 0)
        at += len(name.encode()) + 1
    sh_at = place(shdrs)
    header = EHDR.pack(b"\x7fELF\1\1\1", kind, machine, 1, entry, EHDR.size, sh_at, 0, EHDR.size, PHDR.size,
                       len(phdrs), SHDR.size, len(table), len(table) - 1)
    return header + b"".join(phdrs) + bytes(blob)


def make_bzimage(kernel: bytes = b"\x90" * 64, *, version: int = 0x20F, setup_sects: int = 1, loadflags: int = 1,
                 xloadflags: int = 0, relocatable: int = 1, cmdline_size: int = 2047, pref_address: int = 0x1000000,
                 init_size: int = 0x200000, initrd_max: int = 0x7FFFFFFF, alignment: int = 0x1000000) -> bytes:
    """A bzImage whose version string is "6.1.0-test"."""
    setup = bytearray((setup_sects + 1) * 512)
    setup[0x1F1] = setup_sects
    struct.pack_into("<I", setup, 0x1F4, (len(kernel) + 15) // 16)
    struct.pack_into("<HH", setup, 0x1FE, 0xAA55, 0x6AEB)
    struct.pack_into("<4sH", setup, 0x202, b"HdrS", version)
    struct.pack_into("<H", setup, 0x20E, 0x300 - 0x200)
    setup[0x300:0x30B] = b"6.1.0-test\0"
    setup[0x211] = loadflags
    struct.pack_into("<I", setup, 0x214, 0x100000)
    struct.pack_into("<IIBBHI", setup, 0x22C, initrd_max, alignment, relocatable, 21, xloadflags, cmdline_size)
    struct.pack_into("<II", setup, 0x248, 0x10, len(kernel) - 0x10)
    struct.pack_into("<QI", setup, 0x258, pref_address, init_size)
    return bytes(setup) + kernel


PARAVIRT_BASE = 0xC0100000
PARAVIRT_NOTE = {
    "version": 1, "paravirt_ops": 0xC0104000, "paravirt_ops_words": 93, "machine_ops": 0xC0104200,
    "machine_ops_words": 6, "console_ops": 0xC0104240, "console_ops_words": 2, "smp_ops": 0xC0104280,
    "smp_ops_words": 7, "gate_page": 0xC0101000, "code": 0xC0102000, "code_pages": 2, "scratch": 0xC0105000,
    "parainstructions_start": 0xC0100100, "parainstructions_end": 0xC0100110, "ex_table": 0xC0104300,
    "ex_table_entries": 16, "end_block": 0xC0104400, "data": 0xC0106000, "data_pages": 1,
}
SITES = struct.pack("<IBBHIBBH", 0xC0100010, 31, 6, 7, 0xC0100020, 29, 10, 1)


def make_paravirt_kernel(desc: bytes | None = None, sites: bytes = SITES,
                         changed: Mapping[str, int] | None = None) -> bytes:
    """A kernel with a "Paravirt" note and two call sites; it does nothing.

    :param desc: the note's bytes; None: `PARAVIRT_NOTE`, with fields `changed`.
    """
    if desc is None:
        desc = struct.pack("<20I", *(PARAVIRT_NOTE | dict(changed or {})).values())
    text = (b"\x90" * 0x100 + sites).ljust(0x4000, b"\x90")
    loads = [Load(PARAVIRT_BASE, text, flags=5), Load(PARAVIRT_BASE + 0x4000, bytes(0x2000), memsz=0x3000, flags=6)]
    symbols = [Sym("startup_32", PARAVIRT_BASE), Sym("paravirt_ops", PARAVIRT_BASE + 0x4000, 372, GLOBAL_OBJECT)]
    return make_elf(loads, notes=note("Paravirt", 1, desc), symbols=symbols)
