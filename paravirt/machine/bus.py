"""Port I/O and memory-mapped I/O: who answers an address, and what a device may know of its machine.

A device knows offsets from its own base, a clock and its interrupt lines. Where it lives is decided by
whoever claims addresses for it (`devices/board.py`). Two claims of one address are an error at once.

Ref: Intel SDM vol. 1, ch. 19 (I/O address space: 64 K byte ports; wider accesses are consecutive bytes)
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

PORTS = 0x10000
FLOATING = 0xFF  # what a data bus that nobody drives reads as


IrqLine = Callable[[bool], None]
"""Sets the level of an interrupt line."""


def floating(size: int) -> int:
    """What `size` bytes that nobody drives read as."""
    return int.from_bytes(bytes((FLOATING,)) * size, "little")


class Cancellable(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Virtual time, in nanoseconds."""

    def now(self) -> int: ...

    def call_at(self, when: int, callback: Callable[[], None]) -> Cancellable: ...


class Device(Protocol):
    """What every device has."""

    def state(self) -> Mapping[str, object]:
        """All that the device remembers, as ints, bools, bytes, strs and tuples or lists of those; equal
        for two runs of the same command."""

    def reset(self) -> None:
        """Do what the reset line does."""


class PortDevice(Device, Protocol):
    """A device on an 8-bit bus: wider accesses reach it byte by byte."""

    def read(self, offset: int) -> int:
        """Give the byte at `offset`."""

    def write(self, offset: int, value: int) -> None:
        """Take the byte `value` at `offset`."""


@runtime_checkable
class WidePortDevice(Device, Protocol):
    """A device that sees how wide an access is. `size` is 1, 2 or 4 bytes and never reaches past the claim."""

    def read_wide(self, offset: int, size: int) -> int:
        """Give `size` bytes, the lowest address in the lowest bits."""

    def write_wide(self, offset: int, size: int, value: int) -> None:
        """Take `size` bytes, the lowest address in the lowest bits."""


class BusConflict(Exception):
    """Two devices claim one address; the message names both."""


class _ByteSlot(NamedTuple):
    read: Callable[[int], int]
    write: Callable[[int, int], None]
    offset: int


class _WideSlot(NamedTuple):
    device: WidePortDevice
    offset: int
    room: int  # bytes from here to the end of the claim


class _Claims:
    """Ranges that do not overlap, in order of address."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.rows: list[tuple[int, int, str]] = []

    def add(self, base: int, length: int, name: str) -> None:
        if base < 0 or length < 1:
            raise ValueError(f"{name}: {length} bytes at {base:#x} is no range of {self._kind}")
        for other_base, other_length, other in self.rows:
            if base < other_base + other_length and other_base < base + length:
                raise BusConflict(
                    f"{self._kind} {base:#x}-{base + length - 1:#x} of {name} overlaps "
                    f"{other_base:#x}-{other_base + other_length - 1:#x} of {other}"
                )
        insort(self.rows, (base, length, name))


class PortBus:
    """The 64 K ports. Bytes that nobody claims read as ffh, and writes to them are dropped."""

    def __init__(self) -> None:
        self._claims = _Claims("ports")
        self._bytes: dict[int, _ByteSlot] = {}
        self._wide: dict[int, _WideSlot] = {}

    def claim(self, base: int, length: int, device: PortDevice | WidePortDevice, name: str) -> None:
        """Let `device` answer `length` ports from `base`. `name` is for messages and listings.

        :raises BusConflict: a port of these is claimed already.
        :raises ValueError: the range is empty or leaves the 64 K ports.
        """
        if base + length > PORTS:
            raise ValueError(f"{name}: ports {base:#x} to {base + length - 1:#x} leave the {PORTS:#x} ports")
        self._claims.add(base, length, name)
        for offset in range(length):
            if isinstance(device, WidePortDevice):
                self._wide[base + offset] = _WideSlot(device, offset, length - offset)
            else:
                self._bytes[base + offset] = _ByteSlot(device.read, device.write, offset)

    def read(self, port: int, size: int) -> int:
        """IN of `size` bytes (1, 2 or 4). An access past port ffffh goes on at port 0."""
        if size == 1:
            slot = self._bytes.get(port)
            if slot is not None:
                return slot.read(slot.offset)
        wide = self._wide.get(port)
        if wide is not None and size <= wide.room:
            return wide.device.read_wide(wide.offset, size)
        if size == 1:
            return FLOATING
        return sum(self.read((port + i) % PORTS, 1) << 8 * i for i in range(size))

    def write(self, port: int, size: int, value: int) -> None:
        """OUT of the low `size` bytes (1, 2 or 4) of `value`; the lowest byte goes first."""
        if size == 1:
            slot = self._bytes.get(port)
            if slot is not None:
                slot.write(slot.offset, value & 0xFF)
                return
        wide = self._wide.get(port)
        if wide is not None and size <= wide.room:
            wide.device.write_wide(wide.offset, size, value & (1 << 8 * size) - 1)
        elif size > 1:
            for i in range(size):
                self.write((port + i) % PORTS, 1, value >> 8 * i)

    def claims(self) -> list[tuple[int, int, str]]:
        """All claims as (base, length, name), in order of address."""
        return list(self._claims.rows)


class MmioBus:
    """Physical addresses that are not RAM. Bytes that nobody claims read as ones; writes to them are dropped."""

    def __init__(self) -> None:
        self._claims = _Claims("physical addresses")
        self._devices: dict[int, WidePortDevice] = {}

    def claim(self, base: int, length: int, device: WidePortDevice, name: str) -> None:
        """Let `device` answer `length` bytes from physical address `base`.

        :raises BusConflict: an address of these is claimed already.
        :raises ValueError: the range is empty.
        """
        self._claims.add(base, length, name)
        self._devices[base] = device

    def read(self, address: int, size: int) -> int:
        """Read `size` bytes (1, 2, 4 or 8). What reaches over the end of a claim is read byte by byte."""
        found = self._find(address)
        if found is not None and size <= found.room:
            return found.device.read_wide(found.offset, size)
        if size == 1:
            return FLOATING
        return sum(self.read(address + i, 1) << 8 * i for i in range(size))

    def write(self, address: int, size: int, value: int) -> None:
        """Write the low `size` bytes (1, 2, 4 or 8) of `value`."""
        found = self._find(address)
        if found is not None and size <= found.room:
            found.device.write_wide(found.offset, size, value & (1 << 8 * size) - 1)
        elif size > 1:
            for i in range(size):
                self.write(address + i, 1, value >> 8 * i)

    def claims(self) -> list[tuple[int, int, str]]:
        """All claims as (base, length, name), in order of address."""
        return list(self._claims.rows)

    def _find(self, address: int) -> _WideSlot | None:
        rows = self._claims.rows
        index = bisect_right(rows, address, key=lambda row: row[0]) - 1
        if index < 0:
            return None
        base, length, _ = rows[index]
        offset = address - base
        return _WideSlot(self._devices[base], offset, length - offset) if offset < length else None
