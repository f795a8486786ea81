"""Host and guest see one memory, and code that the host writes is the code that runs.

What must hold: reads and writes at the edges neither wrap nor fail; the word views show the same bytes; every write of
the host tells the engine which bytes changed, so that text which was translated before is translated anew, on every
form of the engine; the tables that the host writes count after a flush; the pages that hold something are found.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.machine.exits import Exit, Kind
from paravirt.machine.ram import PAGE, Ram
from paravirt.pc import PC_EXITS
from tests.snippet import TABLES, each_engine, start, two_level

SIZE = 2 * PAGE


@pytest.mark.parametrize("size", [0, -PAGE, 1, PAGE - 1, PAGE + 8])
def test_ram_is_whole_pages(size: int) -> None:
    with pytest.raises(ValueError, match="not a positive number of pages"):
        Ram(size)


def test_new_ram_is_zero_and_page_aligned() -> None:
    ram = Ram(SIZE)
    assert bytes(ram.bytes) == bytes(SIZE)
    assert ram.address % PAGE == 0
    assert (len(ram.words), len(ram.quads)) == (SIZE // 4, SIZE // 8)


def test_the_edges() -> None:
    ram = Ram(SIZE)
    ram.write(SIZE - 2, b"abcd")
    assert ram.read(SIZE - 2, 4) == b"ab\xff\xff"
    assert ram.read(SIZE, 2) == ram.read(0xFFFFFFFF, 2) == b"\xff\xff"
    ram.write(SIZE, b"dropped")
    ram.write(0xFFFFF000, b"dropped")
    assert bytes(ram.bytes[:-2]) == bytes(SIZE - 2)
    assert ram.read(0, 0) == b""
    assert ram.contains(0) and ram.contains(0, SIZE) and ram.contains(SIZE - 1)
    assert not (ram.contains(-1) or ram.contains(SIZE) or ram.contains(SIZE - 1, 2) or ram.contains(0, SIZE + 1))


def test_words_are_little_endian() -> None:
    ram = Ram(SIZE)
    ram.write_u32(4, 0x1_0403_0201)
    ram.write_u64(8, 0x1_1817_1615_1413_1211)
    assert ram.read(4, 12) == bytes([1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18])
    assert (ram.words[1], ram.quads[1]) == (0x04030201, 0x1817161514131211)


def test_every_write_is_told_with_the_bytes_that_changed() -> None:
    ram = Ram(SIZE)
    told: list[tuple[int, int]] = []
    ram.on_write = lambda first, end: told.append((first, end))
    ram.write(0x10, b"abc")
    ram.write(0xFF0, memoryview(b"0123456789abcdefXYZ"))
    ram.write_u32(0x20, 1)
    ram.write_u64(0x28, 1)
    ram.write(SIZE - 1, b"ab")
    ram.write(SIZE, b"ab")
    ram.write(0x30, b"")
    assert told == [(0x10, 0x13), (0xFF0, 0x1003), (0x20, 0x24), (0x28, 0x30), (SIZE - 1, SIZE)]


@given(st.lists(st.tuples(st.integers(0, SIZE + 8), st.binary(max_size=20))), st.integers(0, SIZE + 8),
       st.integers(0, 40))
def test_ram_is_an_array_of_bytes_with_ones_behind(writes: list[tuple[int, bytes]], at: int, length: int) -> None:
    ram, model = Ram(SIZE), bytearray(SIZE + 64)
    for address, data in writes:
        ram.write(address, data)
        model[address : address + len(data)] = data
    model[SIZE:] = b"\xff" * 64
    assert ram.read(at, length) == model[at : at + length]
    ram.close()


@given(st.dictionaries(st.integers(0, 15), st.integers(0, 255), max_size=16))
def test_contents_are_the_pages_that_are_not_zero(pages: dict[int, int]) -> None:
    """Whether a page was ever touched makes no difference, only what it holds."""
    ram = Ram(16 * PAGE)
    wanted = {page for page, value in pages.items() if value}
    for page, value in pages.items():
        ram.write(page * PAGE + value, bytes([value]))
    found: set[int] = set()
    starts: list[tuple[int, int]] = []
    for first, contents in ram.contents():
        count = len(contents) // PAGE
        assert contents == ram.bytes[first * PAGE : (first + count) * PAGE]
        assert all(first != start + size for start, size in starts), "neighbours are one run"
        starts.append((first, count))
        found |= set(range(first, first + count))
        contents.release()
    assert found == wanted
    assert starts == sorted(starts)
    ram.close()


def test_closed_ram_is_gone() -> None:
    ram = Ram(SIZE)
    ram.close()
    with pytest.raises(ValueError):
        ram.read(0, 1)


# ---------------------------------------------------------------------- and the CPU


@each_engine
@pytest.mark.parametrize("paged", [False, True])
def test_text_that_the_host_writes_is_run_anew(engine: str, paged: bool) -> None:
    """`patched` is called again and again; the host gives it another constant at each port write."""
    constants = iter(range(0x1000, 0x2000, 7))

    def patch(vcpu: object, port: int, size: int, value: int) -> None:
        guest.ram.write_u32(guest.symbol("patched") + 1, next(constants))

    with start("hostwrite", engine, table={**PC_EXITS, Exit(Kind.PORT_OUT): patch}) as guest:
        if paged:
            guest.switch_paging_on(two_level(guest.ram, base=TABLES))
        guest.finish()
        assert guest.results(50) == list(range(0x1000, 0x2000, 7))[:50]


@each_engine
def test_text_that_crosses_a_page_is_run_anew(engine: str) -> None:
    """The host changes the last byte of an instruction whose first bytes lie in another page."""
    def patch(vcpu: object, port: int, size: int, value: int) -> None:
        guest.ram.write(0x20000, bytes([value & 0xFF]))

    with start("hostwrite", engine, table={**PC_EXITS, Exit(Kind.PORT_OUT): patch}, arguments=[0x1FFFC]) as guest:
        guest.ram.write(0x1FFFC, b"\xb8\x78\x56\x34\x12\xc3")  # mov $0x12345678, %eax; ret
        guest.finish()
        assert guest.results(3) == [0x00345678, 0x01345678, 0x02345678]


@each_engine
def test_the_guest_sees_data_of_the_host_and_the_host_the_guests(engine: str) -> None:
    seen = []

    def exchange(vcpu: object, port: int, size: int, value: int) -> None:
        seen.append(guest.result(value - 1) if value else 0)

    with start("hostwrite", engine, table={**PC_EXITS, Exit(Kind.PORT_OUT): exchange}) as guest:
        guest.ram.write_u32(guest.symbol("patched") + 1, 77)
        guest.finish()
        assert seen == [0] + [77] * 49
