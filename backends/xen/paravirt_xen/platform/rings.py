"""A byte stream through a page that the guest shares with a backend: two rings of characters.

The indices run freely, modulo 2^32; the ring's size is a power of two. Both sides can write everything in the page,
so an index is believed only when it is possible: no more in the ring than its size.

Ref: Xen public/io/console.h (struct xencons_interface), io/xs_wire.h (struct xenstore_domain_interface).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

MASK32 = 0xFFFFFFFF
Data = bytes


class Memory(Protocol):
    """The part of `Ram` that a ring needs."""

    @property
    def words(self) -> memoryview[int]: ...
    @property
    def bytes(self) -> memoryview[int]: ...
    def write(self, address: int, data: Data) -> None: ...
    def write_u32(self, address: int, value: int) -> None: ...


class RingFault(Exception):
    """The ring's indices cannot be; the message is a sentence."""


class Ring(NamedTuple):
    """One direction.

    :param name: for messages. :param data, size: where the bytes are. :param consumer, producer: where the indices are;
        all of them machine addresses.
    """

    memory: Memory
    name: str
    data: int
    size: int
    consumer: int
    producer: int

    def used(self) -> int:
        """Bytes in the ring.

        :raises RingFault: more than it has room for.
        """
        words = self.memory.words
        used = words[self.producer >> 2] - words[self.consumer >> 2] & MASK32
        if used > self.size:
            raise RingFault(f"the indices of {self.name} are out of range: {words[self.producer >> 2]:#x} written and "
                            f"{words[self.consumer >> 2]:#x} read, in a ring of {self.size} bytes")
        return used

    def read(self, most: int) -> bytes:
        """Take up to `most` bytes out; :raises RingFault: see `used`."""
        count = min(self.used(), most)
        if not count:
            return b""
        consumer = self.memory.words[self.consumer >> 2]
        start = consumer & self.size - 1
        first = min(count, self.size - start)
        data = bytes(self.memory.bytes[self.data + start : self.data + start + first])
        data += bytes(self.memory.bytes[self.data : self.data + count - first])
        self.memory.write_u32(self.consumer, consumer + count)
        return data

    def write(self, data: bytes) -> int:
        """Put as much of `data` in as there is room for, and say how much; :raises RingFault: see `used`."""
        count = min(self.size - self.used(), len(data))
        if count:
            producer = self.memory.words[self.producer >> 2]
            start = producer & self.size - 1
            first = min(count, self.size - start)
            self.memory.write(self.data + start, data[:first])
            self.memory.write(self.data, data[first:count])
            self.memory.write_u32(self.producer, producer + count)
        return count
