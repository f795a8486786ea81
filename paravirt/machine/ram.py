"""The guest's memory: one private anonymous mapping that libunicorn and the host both see.

Reads are plain slices of `Ram.bytes`. Every write of the host goes through `Ram.write`, which
invalidates code that was translated from the bytes it changes; the engine is told by `on_write`.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterable, Iterator

PAGE = 4096


class Ram:
    """`size` bytes of guest-physical memory from address 0, page aligned.

    `words` and `quads` view the same memory as little-endian 32- and 64-bit words, for the page
    walker. The views must not be used for writing: use `write`, `write_u32` or `write_u64`.

    :ivar on_write: invalidates code that was translated from [start, end).
    :ivar code_pages: a byte a page, not 0 if code was translated from it and may still be; None on an engine that
        cannot tell. Where it is 0, `on_write` need not be called.
    """

    def __init__(self, size: int) -> None:
        if size <= 0 or size % PAGE:
            raise ValueError(f"RAM of {size} bytes: not a positive number of pages")
        self.size = size
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._anchor = (ctypes.c_ubyte * size).from_buffer(self._map)
        self.address = ctypes.addressof(self._anchor)
        self.bytes = memoryview(self._map)
        self.words = self.bytes.cast("I")
        self.quads = self.bytes.cast("Q")
        self.on_write: Callable[[int, int], None] = lambda start, end: None
        self.code_pages: memoryview | None = None

    def contains(self, address: int, length: int = 1) -> bool:
        """Whether `length` bytes from physical `address` all lie in RAM."""
        return 0 <= address <= self.size - length

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes at physical `address`; what lies outside RAM reads as all ones."""
        if self.contains(address, length):
            return bytes(self.bytes[address : address + length])
        inside = bytes(self.bytes[address : max(address, min(address + length, self.size))])
        return inside + b"\xff" * (length - len(inside))

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Store `data` at physical `address`; what would lie outside RAM is dropped."""
        length = len(data)
        if address + length > self.size:
            length = max(0, self.size - address)
        if length:
            end = address + length
            self.bytes[address:end] = data[:length]
            code = self.code_pages
            if code is None or code[address // PAGE] or address // PAGE != (end - 1) // PAGE:
                self.on_write(address, end)

    def write_u32(self, address: int, value: int) -> None:
        """Store a word; platforms do this again and again."""
        if address & 3 or address >= self.size:
            self.write(address, (value & 0xFFFFFFFF).to_bytes(4, "little"))
            return
        self.words[address >> 2] = value & 0xFFFFFFFF
        code = self.code_pages
        if code is None or code[address // PAGE]:
            self.on_write(address, address + 4)

    def write_u64(self, address: int, value: int) -> None:
        self.write(address, (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little"))

    def contents(self) -> Iterator[tuple[int, memoryview]]:
        """Runs of pages that are not all zero: the number of the first page, and the bytes."""
        zero = bytes(PAGE)
        start = end = 0
        for page in self._touched():
            at = page * PAGE
            if bytes(self.bytes[at : at + PAGE]) == zero:
                continue
            if at != end and end > start:
                yield start // PAGE, self.bytes[start:end]
            start, end = start if at == end else at, at + PAGE
        if end > start:
            yield start // PAGE, self.bytes[start:end]

    def _touched(self) -> Iterable[int]:
        """Pages that may be other than zero, in order: the kernel knows those that nobody has touched.

        Ref: proc(5), /proc/PID/pagemap: 64 bits a page; bit 63: present, bit 62: swapped out.
        """
        pages = range(self.size // PAGE)
        if mmap.PAGESIZE != PAGE:
            return pages
        try:
            with open("/proc/self/pagemap", "rb", buffering=0) as file:
                file.seek(self.address // PAGE * 8)
                entries = file.read(len(pages) * 8)
        except OSError:
            return pages
        if len(entries) != len(pages) * 8:
            return pages
        return (page for page, high in zip(pages, entries[7::8], strict=True) if high & 0xC0)

    def close(self) -> None:
        """Give the memory back. The engine that maps it must be gone."""
        for view in (self.quads, self.words, self.bytes):
            view.release()
        del self._anchor
        self._map.close()
