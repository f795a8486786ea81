"""Kernel images are read as the ELF manual and Linux's boot.rst say, or refused in a sentence.

A kernel file comes from anywhere and is often the wrong one: a module, a 64-bit kernel, something compressed.
What must hold: fields land where the documents put them, and a refusal names the file and the field.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.errors import ImageError
from paravirt.image.bzimage import BzImage, load_bzimage, load_image
from paravirt.image.elf import ElfImage, Note, load_elf
from paravirt.image.symbols import Symbol, SymbolTable
from tests.elfmaker import GLOBAL_LABEL, GLOBAL_OBJECT, LOCAL_FUNC, Load, Sym, make_bzimage, make_elf, note

MIB = 1 << 20
BASE = 0xC0100000
KERNEL = Path("kernel")


def elf(data: bytes) -> ElfImage:
    return load_elf(KERNEL, data)


def refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        load_elf(KERNEL, data)
    assert str(caught.value).startswith("kernel: ")


# ---------------------------------------------------------------------- ELF


def test_elf_fields() -> None:
    image = elf(make_elf([Load(BASE + 0x2000, b"data", memsz=0x800, flags=6), Load(BASE, b"text" * 4, flags=5)]))
    assert image.entry == 0x100000
    assert [(s.paddr, s.vaddr, s.filesz, s.memsz, s.flags, s.data) for s in image.segments] == [
        (0x100000, 0xC0100000, 16, 16, 5, b"texttexttexttext"), (0x102000, 0xC0102000, 4, 0x800, 6, b"data")]
    assert image.physical(0xC0102010) == 0x102010
    assert image.physical(0xC0102800) is None
    assert image.physical_end == 0x102800
    assert image.read(0xC0100004, 8) == b"texttext"
    assert image.read(0xC0102000, 5) is None  # the fifth byte is not in the file
    assert len(repr(image)) < 1000


@pytest.mark.parametrize(("data", "message"), [
    (make_elf([Load(BASE, b"x")], kind=1), "e_type is ET_REL: an object file"),
    (make_elf([Load(BASE, b"x")], kind=3), "e_type is ET_DYN"),
    (make_elf([Load(BASE, b"x")], machine=62), "e_machine is EM_X86_64"),
    (make_elf([]), "e_phnum: no segment"),
    (make_elf([Load(BASE, b"x" * 16), Load(BASE + 15, b"y", paddr=0x200000)]), "p_vaddr: .* overlap"),
    (make_elf([Load(BASE, b"x" * 16), Load(BASE + 64, b"y", paddr=0x10000F)]), "p_paddr: .* overlap"),
    (make_elf([Load(0xFFFFFFF0, b"x" * 16, memsz=17)]), "p_vaddr 0xfffffff0: .* above 4 GiB"),
    (make_elf([Load(BASE, b"x", paddr=0xFFFFF000, memsz=0x1001)]), "p_paddr .* above 4 GiB"),
    (make_elf([Load(BASE, b"x" * 16, memsz=15)]), "p_filesz 0x10 is above p_memsz 0xf"),
    (make_elf([Load(BASE, b"x" * 4096)])[:2000], "e_shoff .* truncated"),
    (b"\x7fELF\2\1\1" + bytes(60), "EI_CLASS is 2: not a 32-bit"),
    (b"\x7fELF\1\2\1" + bytes(60), "EI_DATA is 2"),
    (b"\x7fELF\1\1\1", "ELF header: the file ends after 7 bytes"),
])
def test_elf_refusals(data: bytes, message: str) -> None:
    refused(data, message)


def test_segments_cannot_repeat_the_file() -> None:
    """Many headers over the same bytes would make a small file ask for much memory."""
    data = bytearray(make_elf([Load(BASE, b"a" * 64), Load(BASE + 64, b"b" * 64), Load(BASE + 128, b"c" * 64)]))
    for number in range(3):
        struct.pack_into("<I", data, 52 + 32 * number + 4, 0)  # p_offset
        struct.pack_into("<II", data, 52 + 32 * number + 8, BASE + 0x1000 * number, 0x100000 + 0x1000 * number)
        struct.pack_into("<II", data, 52 + 32 * number + 16, len(data) // 2, len(data) // 2)
    refused(bytes(data), "p_filesz: the segments are larger than the file")


@pytest.mark.parametrize(("segment", "section"), [(True, True), (True, False), (False, True)])
def test_notes_are_read_once(segment: bool, section: bool) -> None:
    area = note("GNU", 3, b"\1\2\3\4\5") + note("Xen", 1, struct.pack("<I", BASE))
    image = elf(make_elf([Load(BASE, b"x")], notes=area, note_segment=segment, note_section=section))
    assert image.notes == (Note("GNU", 3, b"\1\2\3\4\5"), Note("Xen", 1, b"\x00\x00\x10\xc0"))


def test_note_area_is_bounded() -> None:
    refused(make_elf([Load(BASE, b"x")], notes=bytes(MIB + 4)), "the notes have more than 1048576 bytes")
    refused(make_elf([Load(BASE, b"x")], notes=struct.pack("<III", 99, 0, 1)), "namesz 99")


# ---------------------------------------------------------------------- symbols


def test_symbols_of_an_elf_file() -> None:
    image = elf(make_elf([Load(BASE, b"x" * 64)], symbols=[
        Sym("label", BASE, info=GLOBAL_LABEL), Sym("startup_32", BASE, 8), Sym("twice", BASE + 16, info=LOCAL_FUNC),
        Sym("twice", BASE + 32), Sym("pv_ops", BASE + 48, 16, GLOBAL_OBJECT), Sym("missing", 0, section=0),
        Sym("version", BASE + 40, section=0xFFF1), Sym("file.c", 0, info=4),
        Sym("phys_startup_32", 0x100000),
    ]))
    table = image.symbols
    assert set(table.names) == {"label", "startup_32", "twice", "pv_ops", "version", "phys_startup_32"}
    assert table.address("startup_32") == BASE
    assert table.address("twice") == BASE + 32, "a global symbol goes before a static one of the same name"
    assert table.size("pv_ops") == 16
    assert table.address("nothing") is None
    assert "version" in table and "missing" not in table
    assert table.nearest(BASE) == "startup_32", "a function goes before a label"
    assert table.nearest(BASE + 0x12) == "twice+0x2"
    assert table.nearest(BASE + 41) == "twice+0x9", "an absolute symbol is no place"
    assert table.nearest(0x8048000) == "", "a user program's address, above a symbol that is a physical address"
    assert table.nearest(BASE + 63) == "pv_ops+0xf"
    assert table.nearest(BASE + 64) == "", "past the kernel's end"


def test_system_map(tmp_path: Path) -> None:
    path = tmp_path / "System.map"
    path.write_text("c0100000 T _text\nc0100040 t helper\n00000012 A absolute\n         \nc0100080 D jiffies\t[mod]\n")
    table = SymbolTable.from_system_map(path)
    assert table.address("helper") == 0xC0100040
    assert table.nearest(0xC0100052) == "helper+0x12"
    assert table.nearest(0x100) == ""
    assert len(table) == 4
    for text, message in [("c0100000 T _text\nwhat\n", "line 2: expected"), ("", "is empty, not a System.map"),
                          ("ffffffff81000000 T _text\n", "line 1: address 0xffffffff81000000")]:
        path.write_text(text)
        with pytest.raises(ImageError, match=message):
            SymbolTable.from_system_map(path)


@given(st.dictionaries(st.integers(0, 0xFFFFF000), st.text("abc_", min_size=1), max_size=20),
       st.integers(0, 0xFFFFFFFF))
def test_nearest_is_the_last_at_or_below(symbols: dict[int, str], address: int) -> None:
    table = SymbolTable([Symbol(at, 0, name, 0) for at, name in symbols.items()], end=1 << 32)
    below = [at for at in symbols if at <= address]
    if not below:
        assert table.nearest(address) == ""
    else:
        offset = address - max(below)
        assert table.nearest(address) == symbols[max(below)] + (f"+{offset:#x}" if offset else "")


# ---------------------------------------------------------------------- bzImage


def bzimage(data: bytes) -> BzImage:
    return load_bzimage(KERNEL, data)


def test_bzimage_fields() -> None:
    image = bzimage(make_bzimage(b"k" * 100, setup_sects=3))
    assert (image.version, image.setup_sects, image.loadflags, image.code32_start) == (0x20F, 3, 1, 0x100000)
    assert (image.kernel_alignment, image.pref_address, image.init_size) == (0x1000000, 0x1000000, 0x200000)
    assert (image.cmdline_size, image.initrd_addr_max, image.relocatable) == (2047, 0x7FFFFFFF, True)
    assert (image.payload, image.xloadflags, image.kernel_version) == ((0x10, 84), 0, "6.1.0-test")
    assert image.kernel == b"k" * 100
    assert len(image.header) == 0x202 + 0x6A - 0x1F1


def test_bzimage_of_old_protocols() -> None:
    """A field that the protocol lacks has boot.rst's default, whatever bytes stand there."""
    image = bzimage(make_bzimage(version=0x202))
    assert (image.initrd_addr_max, image.cmdline_size, image.init_size) == (0x37FFFFFF, 255, 0)
    assert (image.relocatable, image.pref_address, image.payload) == (False, 0, (0, 0))


@pytest.mark.parametrize(("data", "message"), [
    (make_bzimage(loadflags=0), "loadflags 0x0: a zImage"),
    (make_bzimage(xloadflags=1), "xloadflags 0x1: a 64-bit kernel"),
    (make_bzimage(version=0x105), "version 0x0105"),
    (make_bzimage(b"k" * 4096)[:2048], "syssize: 4096 bytes .* truncated"),
    (make_bzimage()[:1024], "syssize: .* truncated"),
    (make_bzimage()[:0x300], "setup_sects: .* truncated"),
])
def test_bzimage_refusals(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=f"kernel: {message}"):
        load_bzimage(KERNEL, data)


@pytest.mark.parametrize(("data", "message"), [
    (b"", "is empty, not a kernel image"),
    (gzip.compress(make_elf([Load(BASE, b"x")])), "compressed with gzip; unpack it first"),
    (b"MZ" + bytes(1000), "a PE"),
    (b"070701" + bytes(600), "a cpio archive"),
    (bytes(510) + b"\x55\xaa", "a boot sector without Linux's boot header"),
    (b"#!/bin/sh\n", "neither ELF nor bzImage .*23 21 2f"),
])
def test_other_files(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        load_image(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_load_image(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(make_elf([Load(BASE, b"x")]))
    assert isinstance(load_image(path), ElfImage)
    path.write_bytes(b"MZ" + make_bzimage()[2:])  # with an EFI stub it looks like a PE file as well
    assert isinstance(load_image(path), BzImage)
    for other, message in [(tmp_path, "is a directory"), (tmp_path / "none", "No such file"),
                           (Path("/dev/zero"), "not a regular file"), (Path("a\0b"), "not a file name")]:
        with pytest.raises(ImageError, match=message):
            load_image(other)
