"""Where a shared library keeps the addresses of its own functions that it calls through its PLT.

A call of an exported function within libunicorn goes through an entry of the GOT that can be written to: one store
redirects them all. This finds the entry, in the file.

Ref: ELF-64; System V ABI, AMD64 supplement (R_X86_64_JUMP_SLOT); glibc, elf/dl-lookup.c (do_lookup_x: .gnu.hash).
"""

from __future__ import annotations

import mmap
import struct

SHT_RELA, SHT_DYNSYM, SHT_GNU_HASH = 4, 11, 0x6FFFFFF6
SYMBOL_BYTES = 24
JUMP_SLOT = 7


class Calls:
    """:param path: an ELF-64 shared library.
    :raises ValueError: it has no such tables.
    """

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self._file = data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        table, = struct.unpack_from("<Q", data, 40)
        count, = struct.unpack_from("<H", data, 60)
        sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + 64 * i) for i in range(count)]
        by_type = {section[1]: section for section in sections}
        if not {SHT_DYNSYM, SHT_GNU_HASH} <= by_type.keys():
            raise ValueError(f"{path} has no symbols")
        symbols = by_type[SHT_DYNSYM]
        self._symbols, self._names, self._hashes = symbols[4], sections[symbols[6]][4], by_type[SHT_GNU_HASH][4]
        self._slots: dict[int, int] = {}
        for _, kind, _, _, start, size, _, info, _, _ in sections:
            if kind == SHT_RELA and info:  # of a section: the PLT's
                words = memoryview(data[start : start + size]).cast("Q").tolist()
                self._slots.update(zip(words[1::3], words[::3], strict=True))

    def find(self, symbol: str) -> tuple[int, int]:
        """The symbol's value, and the address of the entry that calls of it go through, as they stand in the file.

        :raises LookupError: there is no such symbol, or no call of it.
        """
        index = self._index(symbol.encode())
        slot = self._slots.get(index << 32 | JUMP_SLOT)
        if slot is None:
            raise LookupError(f"libunicorn does not call {symbol} through its PLT")
        value, = struct.unpack_from("<Q", self._file, self._symbols + index * SYMBOL_BYTES + 8)
        return value, slot

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _index(self, name: bytes) -> int:
        """Of a symbol in the table, by its hash."""
        data, wanted = self._file, 5381
        for byte in name:
            wanted = wanted * 33 + byte & 0xFFFFFFFF
        buckets, first, bloom, _ = struct.unpack_from("<4I", data, self._hashes)
        at = self._hashes + 16 + 8 * bloom
        index, = struct.unpack_from("<I", data, at + 4 * (wanted % buckets))
        while index >= first:
            found, = struct.unpack_from("<I", data, at + 4 * (buckets + index - first))
            start, = struct.unpack_from("<I", data, self._symbols + index * SYMBOL_BYTES)
            start += self._names
            if found | 1 == wanted | 1 and data[start : start + len(name) + 1] == name + b"\0":
                return int(index)
            if found & 1:  # the last of its bucket
                break
            index += 1
        raise LookupError(f"libunicorn does not export {name.decode()}")
