"""Symbols of a kernel: names to addresses and back.

A distribution kernel has more than 100 000 of them, and most runs look up none or a few, so the table
keeps the raw records and reads them when it is first asked.

Ref: System V ABI, "Symbol Table" (Elf32_Sym: st_name, st_value, st_size, st_info, st_other, st_shndx);
proc(5) on /proc/kallsyms for the form of System.map.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, KeysView
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from paravirt.errors import ImageError
from paravirt.image.files import read_file

ELF_SYMBOL = struct.Struct("<IIIBBH")
SHN_UNDEF, SHN_ABS = 0, 0xFFF1
STB_LOCAL = 0
STT_NOTYPE, STT_OBJECT, STT_FUNC = 0, 1, 2
MAX_NAME = 512  # Linux's KSYM_NAME_LEN
PAST_LAST = 4096


class Symbol(NamedTuple):
    """`size` is 0 where the table does not tell. `order` is lower for the better name of an address."""

    address: int
    order: int
    name: str
    size: int


class SymbolTable:
    """:param symbols: read once, when the first question is asked.
    :param start: no address below belongs to a symbol. Linux has one for the physical address of its entry, which
        would else be the nearest to every address of a user program.
    :param end: no address from here on belongs to a symbol; None: a page after the last symbol.
    """

    def __init__(self, symbols: Iterable[Symbol] = (), start: int = 0, end: int | None = None) -> None:
        self._source = symbols
        self._start, self._end = start, end
        self._search: Callable[[str], Iterable[Symbol]] | None = None  # by name, without reading them all
        self._searched: dict[str, Symbol | None] = {}

    @classmethod
    def from_system_map(cls, path: Path) -> SymbolTable:
        """The symbols of a System.map: lines ``c0100000 T name``.

        :raises ImageError: naming the file and the line that is no such line.
        """
        return cls(list(_system_map(path, read_file(path, "System.map"))))

    @classmethod
    def from_elf(cls, records: bytes, strings: bytes, start: int = 0, end: int | None = None) -> SymbolTable:
        """The symbols of an ELF file: the contents of its .symtab and of the string table that goes with it.

        Damaged records are left out; this never fails.
        """
        table = _ElfSymbols(records, strings)
        found = cls(table, start, end)
        found._search = table.named
        return found

    @cached_property
    def _symbols(self) -> list[Symbol]:
        return sorted(self._source)

    @cached_property
    def _by_name(self) -> dict[str, Symbol]:
        found: dict[str, Symbol] = {}
        for symbol in self._symbols:
            known = found.get(symbol.name)
            # Static functions may share a name: a global one wins, then the lowest.
            if known is None or symbol.order % 2 < known.order % 2:
                found[symbol.name] = symbol
        return found

    def _named(self, name: str) -> Symbol | None:
        """The symbol of that name. A few are looked up in most runs, out of thousands."""
        if self._search is None or not name.isidentifier() or not name.isascii() or len(name) >= MAX_NAME:
            return self._by_name.get(name)  # what was decoded by way of replacement, or cut, is in this table alone
        if name not in self._searched:
            self._searched[name] = min(self._search(name), key=lambda symbol: (symbol.order % 2, symbol), default=None)
        return self._searched[name]

    @cached_property
    def _by_address(self) -> tuple[list[int], list[str]]:
        best: dict[int, Symbol] = {}
        for symbol in self._symbols:
            if symbol.order < _ABSOLUTE:
                best.setdefault(symbol.address, symbol)
        return list(best), [symbol.name for symbol in best.values()]

    def address(self, name: str) -> int | None:
        """The address (virtual) of `name`."""
        symbol = self._named(name)
        return None if symbol is None else symbol.address

    def size(self, name: str) -> int | None:
        """Bytes of the object or function `name`; 0 if the table does not tell."""
        symbol = self._named(name)
        return None if symbol is None else symbol.size

    def nearest(self, address: int) -> str:
        """``name+0x12`` (or ``name``) of the last symbol at or below `address`; "" if there is none."""
        addresses, names = self._by_address
        index = bisect_right(addresses, address) - 1
        if index < 0:
            return ""
        end = addresses[-1] + PAST_LAST if self._end is None else self._end
        if not self._start <= address < end:
            return ""
        offset = address - addresses[index]
        return f"{names[index]}+{offset:#x}" if offset else names[index]

    def extent(self, address: int) -> tuple[int, int]:
        """[start, end) of the function or object that begins at `address`; without a symbol, the byte alone."""
        addresses, _ = self._by_address
        index = bisect_right(addresses, address) - 1
        if index < 0 or addresses[index] != address:
            return address, address + 1
        sizes = [symbol.size for symbol in self._symbols[bisect_left(self._symbols, (address,)):
                                                         bisect_left(self._symbols, (address + 1,))]]
        following = addresses[index + 1] if index + 1 < len(addresses) else address + 1
        return address, address + (max(sizes) or following - address)

    @property
    def names(self) -> KeysView[str]:
        return self._by_name.keys()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._named(name) is not None

    def __len__(self) -> int:
        return len(self._by_name)


# Symbol.order: even is global, odd is local; functions and objects go before labels of assembly.
_LABEL, _ABSOLUTE = 2, 4


class _ElfSymbols:
    """The records of a .symtab, decoded anew at each iteration."""

    def __init__(self, records: bytes, strings: bytes) -> None:
        self._records = memoryview(records)[: len(records) // ELF_SYMBOL.size * ELF_SYMBOL.size]
        self._strings = strings + b"\0"

    def __iter__(self) -> Iterator[Symbol]:
        return self._decode(ELF_SYMBOL.iter_unpack(self._records))

    def named(self, name: str) -> Iterator[Symbol]:
        """Those of one name. A name may be the end of a longer one: linkers share such strings."""
        raw = name.encode("utf-8", "backslashreplace") + b"\0"
        places, at = set(), self._strings.find(raw)
        while at >= 0:
            places.add(at)
            at = self._strings.find(raw, at + 1)
        for place in places:
            index = -1
            while (index := self._index(place, index + 1)) >= 0:
                record = self._records[index * ELF_SYMBOL.size : (index + 1) * ELF_SYMBOL.size]
                yield from self._decode([ELF_SYMBOL.unpack(record)])

    @cached_property
    def _name_offsets(self) -> list[int]:
        return self._records.cast("I").tolist()[:: ELF_SYMBOL.size // 4]

    def _index(self, place: int, start: int) -> int:
        """The first record from `start` on whose name is at `place`; -1 if there is none."""
        try:
            return self._name_offsets.index(place, start)
        except ValueError:
            return -1

    def _decode(self, records: Iterable[tuple[int, ...]]) -> Iterator[Symbol]:
        strings = self._strings
        for name_at, value, size, info, _, section in records:
            kind = info & 15
            if section == SHN_UNDEF or kind > STT_FUNC or name_at >= len(strings):
                continue
            stop = strings.find(b"\0", name_at, name_at + MAX_NAME)
            if stop == name_at:
                continue
            raw = strings[name_at : stop if stop >= 0 else name_at + MAX_NAME]
            if raw.startswith(b".L"):
                continue
            order = int(info >> 4 == STB_LOCAL) + (_LABEL if kind == STT_NOTYPE else 0)
            if section == SHN_ABS:
                order |= _ABSOLUTE
            yield Symbol(value, order, raw.decode("utf-8", "backslashreplace"), size)


def _system_map(path: Path, data: bytes) -> Iterator[Symbol]:
    for number, line in enumerate(data.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            address, kind, name = int(fields[0], 16), fields[1].decode("ascii"), fields[2]
        except (ValueError, IndexError):
            raise ImageError(f"{path}: line {number}: expected an address in hexadecimal, a type and a name") from None
        if not 0 <= address < 1 << 32:
            raise ImageError(f"{path}: line {number}: address {address:#x} is not one of an i386 kernel")
        if kind in "Uu?":
            continue
        order = int(kind.islower()) + (_ABSOLUTE if kind in "Aa" else 0)
        yield Symbol(address, order, name[:MAX_NAME].decode("utf-8", "backslashreplace"), 0)
