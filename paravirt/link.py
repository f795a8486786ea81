"""Puts guest code into the kernel's image: a small linker for relocatable i386 objects.

A kernel with a "Paravirt" note reserves pages for the ops of the backend that will be chosen: code pages in
its text, data pages in its data. Objects are laid out there one after the other, and their undefined symbols
are the kernel's, or stubs of the gate page (``paravirt_gate_NAME`` calls the host function of op NAME).

Ref: System V ABI, Intel386 supplement, chapter 4 (R_386_32, R_386_PC32, R_386_PLT32: words S + A, S + A - P).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from paravirt.errors import PluginError

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.relocation import RelocationSection
    from elftools.elf.sections import Section

R_386_32, R_386_PC32, R_386_PLT32 = 1, 2, 4
SHF_WRITE, SHF_ALLOC = 1, 2
EX_TABLE = "__ex_table"
_END = "_end"


@dataclass(frozen=True)
class Area:
    """Room in the kernel's image: virtual address and size in bytes."""

    address: int
    size: int
    what: str


@dataclass
class LinkedCode:
    """What was placed.

    `symbols` are addresses by object and name; `inline` the bytes of a function without its closing ret, None
    where they depend on their place; `fixups` the exception-table rows (instruction, fixup); `absolute` the places of
    words that hold an address.
    """

    symbols: dict[tuple[Path, str], int] = field(default_factory=dict)
    inline: dict[tuple[Path, str], bytes | None] = field(default_factory=dict)
    fixups: list[tuple[int, int]] = field(default_factory=list)
    writes: list[tuple[int, bytes]] = field(default_factory=list)
    absolute: list[int] = field(default_factory=list)


class Linker:
    """Fills one code and one data area.

    :param resolve: address of a symbol that an object does not define, or None.
    """

    def __init__(self, code: Area, data: Area, resolve: Callable[[str], int | None]) -> None:
        self._areas = {False: code, True: data}
        self._used = {False: 0, True: 0}
        self._resolve = resolve
        self.linked = LinkedCode()
        self._problems: list[str] = []

    def place(self, data: bytes, *, writable: bool = False, align: int = 16) -> int:
        """Reserve room for `data` and have it written; gives its address."""
        address = self._reserve(len(data), writable, align)
        self.linked.writes.append((address, data))
        return address

    def _reserve(self, size: int, writable: bool, align: int) -> int:
        start = -(-self._used[writable] // align) * align
        self._used[writable] = start + size
        return self._areas[writable].address + start

    def add(self, path: Path) -> None:
        """Lay out one object. Problems are collected; see `finish`."""
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile

        try:
            with path.open("rb") as file:
                elf = ELFFile(file)
                if elf.header.e_type != "ET_REL" or elf.header.e_machine != "EM_386":
                    raise PluginError(f"{path}: not a relocatable i386 object")
                _Object(self, path, elf).link()
        except OSError as error:
            raise PluginError(f"{path}: {error.strerror}; build the package first") from None
        except (ELFError, struct.error) as error:
            raise PluginError(f"{path}: not an object file: {error}") from None

    def problem(self, text: str) -> None:
        self._problems.append(text)

    def external(self, path: Path, name: str, *, weak: bool = False) -> int:
        """Address of a symbol that no object defines; a weak one may be missing, and is 0 then."""
        address = self._resolve(name)
        if address is None and weak:
            return 0
        if address is None:
            self.problem(f"{path.name}: symbol {name} is neither in the object nor in the kernel")
            return 0
        return address

    def finish(self) -> LinkedCode:
        """:raises PluginError: naming everything that did not fit or resolve."""
        for writable, area in self._areas.items():
            if self._used[writable] > area.size:
                self.problem(f"the guest code needs {self._used[writable]} bytes of {area.what}, "
                             f"and the kernel has {area.size}")
        if self._problems:
            raise PluginError("; ".join(self._problems))
        return self.linked


class _Object:
    """One object on its way into the areas."""

    def __init__(self, linker: Linker, path: Path, elf: ELFFile) -> None:
        from elftools.elf.sections import SymbolTableSection

        self._linker, self._path, self._elf = linker, path, elf
        self._sections: list[Section] = list(elf.iter_sections())
        self._base: dict[int, int] = {}
        self._bytes: dict[int, bytearray] = {}
        self._relative: dict[int, list[int]] = {}
        symtab = elf.get_section_by_name(".symtab")
        self._symbols = list(symtab.iter_symbols()) if isinstance(symtab, SymbolTableSection) else []

    def link(self) -> None:
        from elftools.elf.relocation import RelocationSection

        for index, section in enumerate(self._sections):
            if section["sh_flags"] & SHF_ALLOC and section["sh_size"]:
                data = bytes(section["sh_size"]) if section["sh_type"] == "SHT_NOBITS" else section.data()
                self._bytes[index] = bytearray(data)
                if section.name != EX_TABLE:
                    writable = bool(section["sh_flags"] & SHF_WRITE)
                    align = max(1, section["sh_addralign"])
                    self._base[index] = self._linker._reserve(len(data), writable, align)
        for section in self._sections:
            if isinstance(section, RelocationSection) and section["sh_info"] in self._bytes:
                self._relocate(section["sh_info"], section)
        linked = self._linker.linked
        for index, base in self._base.items():
            linked.writes.append((base, bytes(self._bytes[index])))
        for index, section in enumerate(self._sections):
            if section.name == EX_TABLE and index in self._bytes:
                linked.fixups += struct.iter_unpack("<II", bytes(self._bytes[index]))
        self._publish(linked)

    def _relocate(self, target: int, section: RelocationSection) -> None:
        data, base = self._bytes[target], self._base.get(target, 0)
        for relocation in section.iter_relocations():
            kind, offset = relocation["r_info_type"], relocation["r_offset"]
            symbol = self._address(relocation["r_info_sym"])
            addend, = struct.unpack_from("<I", data, offset)
            if kind == R_386_32:
                value = symbol + addend
                self._linker.linked.absolute.append(base + offset)
            elif kind in (R_386_PC32, R_386_PLT32):
                value = symbol + addend - (base + offset)
                self._relative.setdefault(target, []).append(offset)
            else:
                self._linker.problem(f"{self._path.name}: relocation type {kind} is not supported")
                continue
            struct.pack_into("<I", data, offset, value & 0xFFFFFFFF)

    def _address(self, index: int) -> int:
        symbol = self._symbols[index]
        where = symbol["st_shndx"]
        if where == "SHN_UNDEF":
            return self._linker.external(self._path, symbol.name, weak=symbol["st_info"]["bind"] == "STB_WEAK")
        if where == "SHN_ABS":
            return int(symbol["st_value"])
        return self._base.get(where, 0) + int(symbol["st_value"])

    def _publish(self, linked: LinkedCode) -> None:
        defined: Mapping[str, tuple[int, int]] = {
            symbol.name: (symbol["st_shndx"], symbol["st_value"])
            for symbol in self._symbols if symbol.name and isinstance(symbol["st_shndx"], int)
        }
        for name, (section, value) in defined.items():
            if section not in self._base:
                continue
            linked.symbols[self._path, name] = self._base[section] + value
            end = defined.get(name + _END)
            if end is not None and end[0] == section and end[1] >= value:
                moves = any(value <= offset < end[1] for offset in self._relative.get(section, ()))
                code = bytes(self._bytes[section][value : end[1]])
                linked.inline[self._path, name] = None if moves else code
