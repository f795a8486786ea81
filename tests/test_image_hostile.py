"""No file, however damaged, raises anything but ImageError, or makes a plan that leaves RAM.

An image is parsed with the user's rights before any guest runs. What must hold for random bytes and for good
images with words replaced, bits flipped and ends cut off: the one documented error, or a plan whose writes lie
in RAM, do not overlap and hold no more bytes than the file.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paravirt.errors import ImageError
from paravirt.image.bzimage import load_bzimage
from paravirt.image.elf import ElfImage, load_elf
from paravirt.image.linux import plan_linux
from paravirt.image.notes import call_sites, parse_paravirt_note, xen_notes
from paravirt.image.symbols import SymbolTable
from tests.elfmaker import Load, Sym, make_bzimage, make_elf, make_paravirt_kernel, note

MIB = 1 << 20
BASE = 0xC0100000
WORDS = {"paravirt_ops": 93, "machine_ops": 6, "console_ops": 2, "smp_ops": 7}
KERNEL = Path("kernel")
XEN = make_elf([Load(BASE, b"text" * 8, memsz=0x100)], notes=note("Xen", 13, bytes(16)) + note("Xen", 10, b"a|b\0"),
               symbols=[Sym("start", BASE), Sym("end", BASE + 8)], sections=[("__xen_guest", b"GUEST_OS=linux\0")])
GOOD = (XEN, make_paravirt_kernel(), make_bzimage())


def exercise(data: bytes) -> None:
    """All that reads an image, in the order of a boot."""
    try:
        image = load_bzimage(KERNEL, data) if data[:4] != b"\x7fELF" else load_elf(KERNEL, data)
        if isinstance(image, ElfImage):
            image.symbols.nearest(BASE + 4)
            assert all(isinstance(name, str) for name in image.symbols.names)
            xen_notes(image)
            found = parse_paravirt_note(image, WORDS)
            if found:
                call_sites(image, found)
        plan = plan_linux(image, memory=64 * MIB, initrd=b"initrd")
    except ImageError as problem:
        assert str(problem).startswith("kernel: ")
        return
    assert all(at + len(piece) <= 64 * MIB for at, piece in plan.writes)
    spans = sorted((at, at + len(piece)) for at, piece in plan.writes)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert sum(len(piece) for _, piece in plan.writes) <= len(data) + 0x10000


def places(size: int) -> st.SearchStrategy[int]:
    """Offsets in a file, most of them where the headers, notes and tables are."""
    return st.integers(0, 255) | st.integers(max(0, size - 1024), size - 1) | st.integers(0, size - 1)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from([b"", b"\x7fELF\1\1\1", XEN[:52], make_bzimage()[:0x206]]), st.binary(max_size=2000))
def test_random_bytes(start: bytes, rest: bytes) -> None:
    exercise(start + rest)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_damaged_images(good: bytes, draws: st.DataObject) -> None:
    data = bytearray(good)
    for _ in range(draws.draw(st.integers(0, 3))):
        at = draws.draw(places(len(data) - 3))
        word = draws.draw(st.sampled_from([0, 1, 0x7F, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF]))
        struct.pack_into("<I", data, at, word)
    for _ in range(draws.draw(st.integers(0, 3))):
        data[draws.draw(places(len(data)))] ^= 1 << draws.draw(st.integers(0, 7))
    exercise(bytes(data[: draws.draw(st.integers(1, len(data)))] if draws.draw(st.booleans()) else data))


@given(st.binary(max_size=400), st.binary(max_size=60))
def test_random_symbols(records: bytes, strings: bytes) -> None:
    table = SymbolTable.from_elf(records, strings)
    assert table.nearest(0x1000) is not None and len(table) <= len(records) // 16


STRINGS = b"\0pv_mmu_ops\0mmu_ops\0ops\0_start\0.Lops\0s" + b"x" * 600


@given(st.lists(st.tuples(places(len(STRINGS) + 4), st.sampled_from([0, 0x1000, 0xC0001000]), st.integers(0, 4),
                          st.sampled_from([0, 1, 2, 0x10, 0x11, 0x12, 3, 0x23]), st.just(0),
                          st.sampled_from([0, 1, 0xFFF1])), max_size=12))
def test_a_name_is_found_as_in_the_whole_table(records: list[tuple[int, ...]]) -> None:
    """Looking for one name in the raw strings gives what decoding all of them gives."""
    packed = b"".join(struct.pack("<IIIBBH", *record) for record in records)
    whole = SymbolTable.from_elf(packed, STRINGS)
    names = [*whole.names, "ops", "mmu_ops", "pv_mmu_ops", "s", "x", "absent"]
    for name in names:
        found = whole._by_name.get(name)
        table = SymbolTable.from_elf(packed, STRINGS)
        assert (table.address(name), table.size(name), name in table) == (
            None if found is None else found.address, None if found is None else found.size, found is not None)
