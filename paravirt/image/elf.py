"""ELF kernels: vmlinux, GRUB's Xen image, the reference kernel.

Of an untrusted file nothing is believed: every offset and size is checked against the file, and sums
of sizes are bounded, before anything is copied.

Ref: System V ABI, chapters "Object Files" and "Program Loading"; Intel386 supplement; elf(5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from paravirt.errors import ImageError
from paravirt.image.files import read_file
from paravirt.image.symbols import SymbolTable

ELF_MAGIC = b"\x7fELF"
FOUR_GIB = 1 << 32
# e_type, e_machine, e_entry, e_phoff, e_shoff, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
EHDR = struct.Struct("<16xHH4xIII4x2xHHHHH")
PHDR, SHDR = struct.Struct("<8I"), struct.Struct("<10I")
ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
EM_386 = 3
MACHINES = {2: "EM_SPARC", 8: "EM_MIPS", 20: "EM_PPC", 21: "EM_PPC64", 40: "EM_ARM", 62: "EM_X86_64",
            183: "EM_AARCH64", 243: "EM_RISCV"}
PT_LOAD, PT_NOTE = 1, 4
SHT_SYMTAB, SHT_STRTAB, SHT_NOTE, SHT_NOBITS = 2, 3, 7, 8
MAX_PHDRS, MAX_SHDRS = 128, 4096
MAX_NOTE_BYTES = 1 << 20
MAX_SYMBOLS = 1 << 20
SYMBOL_BYTES = 16
PF_X, PF_W, PF_R = 1, 2, 4


@dataclass(frozen=True)
class Segment:
    """A PT_LOAD. `data` has `filesz` bytes; memory from there to `memsz` is zero."""

    paddr: int
    vaddr: int
    filesz: int
    memsz: int
    flags: int
    data: bytes = field(repr=False)

    def holds(self, vaddr: int, length: int = 1) -> bool:
        """Whether the `length` bytes at virtual address `vaddr` all lie in this segment's memory."""
        return self.vaddr <= vaddr and vaddr + length <= self.vaddr + self.memsz


@dataclass(frozen=True)
class Note:
    """An ELF note; `name` without its NUL, `desc` cut off at the end of the note's area."""

    name: str
    type: int
    desc: bytes


@dataclass(frozen=True)
class ElfImage:
    """A loadable i386 kernel. Addresses are virtual but for `Segment.paddr`.

    :ivar data: the whole file.
    :ivar entry: e_entry as it stands in the file: Linux puts a physical address there, GRUB a virtual one.
    :ivar segments: by physical address; they overlap neither physically nor virtually.
    :ivar xen_guest: the contents of the section __xen_guest, which old kernels have in place of Xen notes.
    """

    path: Path
    data: bytes = field(repr=False)
    entry: int
    segments: tuple[Segment, ...]
    notes: tuple[Note, ...]
    symbols: SymbolTable = field(repr=False)
    xen_guest: str = ""

    def segment(self, vaddr: int, length: int = 1) -> Segment | None:
        """The segment that holds all of the `length` bytes at `vaddr`."""
        return next((segment for segment in self.segments if segment.holds(vaddr, length)), None)

    def physical(self, vaddr: int) -> int | None:
        """Where the kernel is loaded that expects to be seen at `vaddr`."""
        segment = self.segment(vaddr)
        return None if segment is None else vaddr - segment.vaddr + segment.paddr

    def read(self, vaddr: int, length: int) -> bytes | None:
        """`length` bytes that the file has for `vaddr`; None if it has not all of them."""
        segment = self.segment(vaddr, length)
        if segment is None or vaddr - segment.vaddr + length > segment.filesz:
            return None
        return segment.data[vaddr - segment.vaddr : vaddr - segment.vaddr + length]

    @property
    def physical_end(self) -> int:
        """The first physical address after the kernel."""
        return max(segment.paddr + segment.memsz for segment in self.segments)


class _Header(NamedTuple):
    """A program header or a section header, as far as it matters here."""

    type: int
    name: int = 0
    offset: int = 0
    vaddr: int = 0
    paddr: int = 0
    filesz: int = 0
    memsz: int = 0
    flags: int = 0
    link: int = 0


class _Layout(NamedTuple):
    entry: int
    segments: Sequence[_Header]
    sections: Sequence[_Header]
    names: int


def load_elf(path: Path, data: bytes | None = None) -> ElfImage:
    """Read an ELF kernel.

    :param data: the file's bytes, if they are known already.
    :raises ImageError: naming the file and the field.
    """
    if data is None:
        data = read_file(path)
    layout = _layout(path, data)
    segments = _segments(path, data, layout)
    symbols = _symbols(path, data, layout.sections, segments)
    notes = tuple(_notes(path, data, layout))
    return ElfImage(path, data, layout.entry, segments, notes, symbols, _xen_guest(path, data, layout))


def _layout(path: Path, data: bytes) -> _Layout:
    """The headers."""
    if data[:4] != ELF_MAGIC:
        raise ImageError(f"{path}: no ELF file (magic {data[:4].hex(' ')})")
    if len(data) < EHDR.size:
        raise ImageError(f"{path}: ELF header: the file ends after {len(data)} bytes")
    if data[4] != 1:
        raise ImageError(f"{path}: EI_CLASS is {data[4]}: not a 32-bit ELF file; the machine is an i386")
    if data[5] != 1:
        raise ImageError(f"{path}: EI_DATA is {data[5]}: not little-endian")
    kind, machine, entry, phoff, shoff, phsize, phnum, shsize, shnum, names = EHDR.unpack_from(data)
    _check_kind(path, kind, machine)
    records: list[list[tuple[int, ...]]] = []
    for where, offset, what, count, size, layout, limit in (
        ("e_phoff", phoff, "e_phnum", phnum, phsize, PHDR, MAX_PHDRS),
        ("e_shoff", shoff, "e_shnum", shnum, shsize, SHDR, MAX_SHDRS),
    ):
        if count == 0 or offset == 0:
            records.append([])
            continue
        if count > limit:
            raise ImageError(f"{path}: {what} is {count}; more than {limit} is not a kernel")
        if size != layout.size:
            raise ImageError(f"{path}: {what[:4]}entsize is {size}, not {layout.size}")
        if offset + count * size > len(data):
            raise ImageError(f"{path}: {where} {offset:#x}: the table ends after the file; is it truncated?")
        records.append(list(layout.iter_unpack(data[offset : offset + count * size])))
    return _Layout(entry, [
        _Header(kind, offset=offset, vaddr=vaddr, paddr=paddr, filesz=filesz, memsz=memsz, flags=flags)
        for kind, offset, vaddr, paddr, filesz, memsz, flags, _ in records[0]
    ], [
        _Header(kind, name=name, offset=offset, vaddr=address, filesz=size, link=link)
        for name, kind, _, address, offset, size, link, _, _, _ in records[1]
    ], names)


def _check_kind(path: Path, kind: int, machine: int) -> None:
    if machine != EM_386:
        raise ImageError(f"{path}: e_machine is {MACHINES.get(machine, machine)}, not EM_386")
    if kind == ET_REL:
        raise ImageError(f"{path}: e_type is ET_REL: an object file or module, which is not linked to any address yet")
    if kind == ET_DYN:
        raise ImageError(f"{path}: e_type is ET_DYN: a shared library or a position-independent program, not a kernel")
    if kind != ET_EXEC:
        raise ImageError(f"{path}: e_type is {'ET_CORE' if kind == ET_CORE else kind}, not ET_EXEC")


def _segments(path: Path, data: bytes, layout: _Layout) -> tuple[Segment, ...]:
    found = []
    room = len(data)
    for number, header in enumerate(layout.segments):
        if header.type != PT_LOAD or header.memsz == 0:
            continue
        name = f"{path}: program header {number}"
        if header.filesz > header.memsz:
            raise ImageError(f"{name}: p_filesz {header.filesz:#x} is above p_memsz {header.memsz:#x}")
        if header.offset + header.filesz > len(data):
            raise ImageError(f"{name}: p_offset {header.offset:#x}: the segment ends after the file; is it truncated?")
        for field_name, address in (("p_vaddr", header.vaddr), ("p_paddr", header.paddr)):
            if address + header.memsz > FOUR_GIB:
                raise ImageError(f"{name}: {field_name} {address:#x}: the segment ends above 4 GiB")
        room -= header.filesz
        if room < 0:
            raise ImageError(f"{name}: p_filesz: the segments are larger than the file")
        contents = data[header.offset : header.offset + header.filesz]
        found.append(Segment(header.paddr, header.vaddr, header.filesz, header.memsz, header.flags, contents))
    if not found:
        raise ImageError(f"{path}: e_phnum: no segment is to be loaded (no PT_LOAD)")
    for field_name in ("vaddr", "paddr"):
        starts = sorted((getattr(segment, field_name), segment.memsz) for segment in found)
        for (low, size), (high, _) in pairwise(starts):
            if low + size > high:
                raise ImageError(f"{path}: p_{field_name}: the segments at {low:#x} and {high:#x} overlap")
    return tuple(sorted(found, key=lambda segment: segment.paddr))


def _contents(path: Path, data: bytes, section: _Header, what: str) -> bytes:
    if section.offset + section.filesz > len(data):
        raise ImageError(f"{path}: sh_offset of {what}: the section ends after the file; is it truncated?")
    return data[section.offset : section.offset + section.filesz]


def _symbols(path: Path, data: bytes, sections: Sequence[_Header],
             segments: Sequence[Segment]) -> SymbolTable:
    table = next((section for section in sections if section.type == SHT_SYMTAB), None)
    if table is None:
        return SymbolTable()
    if table.filesz > MAX_SYMBOLS * SYMBOL_BYTES:
        raise ImageError(f"{path}: sh_size of .symtab: more than {MAX_SYMBOLS} symbols")
    if table.link >= len(sections) or sections[table.link].type != SHT_STRTAB:
        raise ImageError(f"{path}: sh_link of .symtab is {table.link}: no string table")
    strings = _contents(path, data, sections[table.link], "the symbols' names")
    start = min(segment.vaddr for segment in segments)
    end = max(segment.vaddr + segment.memsz for segment in segments)
    return SymbolTable.from_elf(_contents(path, data, table, ".symtab"), strings, start, end)


def _xen_guest(path: Path, data: bytes, layout: _Layout) -> str:
    if layout.names >= len(layout.sections):
        return ""
    names = layout.sections[layout.names]
    for section in layout.sections:
        at = names.offset + section.name
        if section.name < names.filesz and data[at : at + 12] == b"__xen_guest\0" and section.type != SHT_NOBITS:
            contents = _contents(path, data, section, "__xen_guest")[:MAX_NOTE_BYTES]
            return contents.split(b"\0")[0].decode("utf-8", "backslashreplace")
    return ""


def _notes(path: Path, data: bytes, layout: _Layout) -> Iterator[Note]:
    """The notes of all areas, each once: a linked kernel names the same bytes as segment and as section."""
    areas = [(h.offset, h.filesz, "PT_NOTE") for h in layout.segments if h.type == PT_NOTE]
    areas += [(h.offset, h.filesz, "SHT_NOTE") for h in layout.sections if h.type == SHT_NOTE]
    seen: set[int] = set()
    total = 0
    for start, size, what in dict.fromkeys(areas):
        total += size
        if total > MAX_NOTE_BYTES:
            raise ImageError(f"{path}: {what} at {start:#x}: the notes have more than {MAX_NOTE_BYTES} bytes")
        if start + size > len(data):
            raise ImageError(f"{path}: {what} at {start:#x}: it ends after the file; is it truncated?")
        yield from _area_notes(path, data, start, start + size, seen)


def _area_notes(path: Path, data: bytes, at: int, end: int, seen: set[int]) -> Iterator[Note]:
    while at + 12 <= end:
        name_size, desc_size, kind = (int.from_bytes(data[at + n : at + n + 4], "little") for n in (0, 4, 8))
        name_at = at + 12
        desc_at = name_at + (name_size + 3 & ~3)
        if name_at + name_size > end:
            raise ImageError(f"{path}: note at {at:#x}: namesz {name_size} ends after the notes")
        # A desc that claims more than there is is cut, as Xen does: GRUB's PAE_MODE note is one.
        if at not in seen and (name_size or desc_size):
            name = data[name_at : name_at + name_size].split(b"\0")[0].decode("utf-8", "backslashreplace")
            yield Note(name, kind, data[desc_at : max(desc_at, min(desc_at + desc_size, end))])
        seen.add(at)
        at = desc_at + (desc_size + 3 & ~3)
