"""A wrong byte from a bus is a wrong register in some device, and a silent overlap hides one device behind another.

Wide accesses to byte devices are consecutive bytes, lowest first; devices that see the width get it whole if it
fits their claim. What nobody claims floats: it reads as ones, and writes are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.machine.bus import BusConflict, MmioBus, PortBus, WidePortDevice


class Bytes:
    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.log: list[tuple[int, int]] = []

    def read(self, offset: int) -> int:
        return self.content[offset]

    def write(self, offset: int, value: int) -> None:
        self.log.append((offset, value))

    def state(self) -> Mapping[str, object]:
        return {}

    def reset(self) -> None:
        self.log.clear()


class Wide:
    def __init__(self, value: int = 0x8877665544332211) -> None:
        self.value = value
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int, int]] = []

    def read_wide(self, offset: int, size: int) -> int:
        self.reads.append((offset, size))
        return self.value >> 8 * offset & (1 << 8 * size) - 1

    def write_wide(self, offset: int, size: int, value: int) -> None:
        self.writes.append((offset, size, value))

    def state(self) -> Mapping[str, object]:
        return {}

    def reset(self) -> None:
        self.writes.clear()


def test_the_two_kinds_of_devices_are_told_apart() -> None:
    assert isinstance(Wide(), WidePortDevice)
    assert not isinstance(Bytes(b""), WidePortDevice)


def test_wide_accesses_to_byte_devices_are_bytes_lowest_first() -> None:
    ports, device = PortBus(), Bytes(b"\x11\x22\x33\x44")
    ports.claim(0x60, 4, device, "d")
    assert [ports.read(0x60, 1), ports.read(0x61, 2), ports.read(0x60, 4)] == [0x11, 0x3322, 0x44332211]
    ports.write(0x60, 4, 0xDDCCBBAA)
    ports.write(0x62, 1, 0x1FF)
    assert device.log == [(0, 0xAA), (1, 0xBB), (2, 0xCC), (3, 0xDD), (2, 0xFF)]


def test_unclaimed_ports_float_also_beside_a_device() -> None:
    ports, device = PortBus(), Bytes(b"\x11")
    ports.claim(0x80, 1, device, "d")
    assert ports.read(0x7F, 4) == 0xFFFF11FF
    assert [ports.read(0x90, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]
    ports.write(0x7F, 4, 0x44332211)
    assert device.log == [(0, 0x22)]


def test_an_access_at_the_last_port_goes_on_at_port_0() -> None:
    ports, first, last = PortBus(), Bytes(b"\x11"), Bytes(b"\x22")
    ports.claim(0, 1, first, "first")
    ports.claim(0xFFFF, 1, last, "last")
    assert ports.read(0xFFFF, 2) == 0x1122
    ports.write(0xFFFF, 2, 0xBBAA)
    assert (last.log, first.log) == ([(0, 0xAA)], [(0, 0xBB)])


def test_devices_that_see_the_width_get_it_whole_if_it_fits() -> None:
    ports, device = PortBus(), Wide()
    ports.claim(0xCF8, 8, device, "pci")
    assert ports.read(0xCFC, 4) == 0x88776655
    assert ports.read(0xCF9, 1) == 0x22
    ports.write(0xCFA, 2, 0xFFFF1234)
    assert (device.reads, device.writes) == ([(4, 4), (1, 1)], [(2, 2, 0x1234)])


def test_a_wide_access_over_the_end_of_a_claim_comes_in_bytes() -> None:
    ports, device = PortBus(), Wide()
    ports.claim(0xCF8, 8, device, "pci")
    assert ports.read(0xCFE, 4) == 0xFFFF8877
    ports.write(0xCFE, 4, 0x44332211)
    assert device.writes == [(6, 1, 0x11), (7, 1, 0x22)]


def test_a_conflict_names_both_devices_and_changes_nothing() -> None:
    ports, device = PortBus(), Bytes(b"\x11\x22")
    ports.claim(0x60, 2, device, "keyboard")
    with pytest.raises(BusConflict, match=r"0x5e-0x60 of mouse overlaps 0x60-0x61 of keyboard"):
        ports.claim(0x5E, 3, Wide(), "mouse")
    ports.claim(0x5E, 2, Bytes(b"\x33\x44"), "left")
    ports.claim(0x62, 1, Bytes(b"\x55"), "right")
    assert ports.claims() == [(0x5E, 2, "left"), (0x60, 2, "keyboard"), (0x62, 1, "right")]
    assert ports.read(0x60, 2) == 0x2211


@pytest.mark.parametrize(("base", "length"), [(0x60, 0), (-1, 2), (0xFFFF, 2), (0x10000, 1)])
def test_a_range_that_is_none_is_refused(base: int, length: int) -> None:
    ports = PortBus()
    with pytest.raises(ValueError, match="odd"):
        ports.claim(base, length, Wide(), "odd")
    assert ports.claims() == []


def test_mmio_reads_whole_accesses_and_floats_elsewhere() -> None:
    bus, device = MmioBus(), Wide()
    bus.claim(0xFEE00000, 8, device, "apic")
    assert bus.read(0xFEE00000, 8) == 0x8877665544332211
    assert bus.read(0xFEE00006, 4) == 0xFFFF8877
    assert bus.read(0xFEDFFFFE, 4) == 0x2211FFFF
    assert bus.read(0x1000, 8) == 0xFFFFFFFFFFFFFFFF
    bus.write(0xFEE00004, 4, 0x1_DDCCBBAA)
    bus.write(0xFEE00007, 2, 0x2211)
    bus.write(0x1000, 4, 1)
    assert device.writes == [(4, 4, 0xDDCCBBAA), (7, 1, 0x11)]


def test_mmio_refuses_overlaps_and_lists_its_claims() -> None:
    bus = MmioBus()
    bus.claim(0x2000, 0x1000, Wide(), "b")
    bus.claim(0x1000, 0x1000, Wide(), "a")
    with pytest.raises(BusConflict, match=r"c overlaps .* of b"):
        bus.claim(0x2FFF, 1, Wide(), "c")
    assert bus.claims() == [(0x1000, 0x1000, "a"), (0x2000, 0x1000, "b")]


@given(st.integers(0x58, 0x6C), st.sampled_from([1, 2, 4]), st.booleans())
def test_any_access_reads_what_its_bytes_read(port: int, size: int, wide: bool) -> None:
    ports = PortBus()
    ports.claim(0x60, 8, Wide() if wide else Bytes(bytes.fromhex("1122334455667788")), "d")
    expected = sum(ports.read(port + i, 1) << 8 * i for i in range(size))
    assert ports.read(port, size) == expected
