"""A kernel on a bare PC is started by Linux's 32-bit boot protocol, or not at all.

What must hold: the zero page has boot.rst's and zero-page.rst's fields at their offsets; kernel, initrd and what
the loader keeps for itself never overlap and lie in RAM; a machine too small is told how much is needed.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from paravirt.errors import ImageError
from paravirt.image.bzimage import BzImage, load_bzimage
from paravirt.image.elf import ElfImage, load_elf
from paravirt.image.linux import (
    BOOT_CS,
    BOOT_DS,
    COMMAND_LINE,
    E820,
    GDT,
    ZERO_PAGE,
    boot_params,
    pc_e820,
    plan_linux,
)
from tests.elfmaker import Load, make_bzimage, make_elf

MIB = 1 << 20
BASE = 0xC0100000
KERNEL = Path("kernel")


def elf(data: bytes) -> ElfImage:
    return load_elf(KERNEL, data)


def bzimage(data: bytes) -> BzImage:
    return load_bzimage(KERNEL, data)


def u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def test_e820() -> None:
    assert pc_e820(128 * MIB) == (
        E820(0, 0x9FC00, 1), E820(0x9FC00, 0x400, 2), E820(0xF0000, 0x10000, 2), E820(0x100000, 127 * MIB, 1))


def test_zero_page_of_an_elf_kernel() -> None:
    page = boot_params(None, command_line="quiet", memory=64 * MIB, initrd=(0x3F00000, 0x1234))
    assert len(page) == 4096
    assert page[0x1E8] == 4
    assert struct.unpack_from("<QQI", page, 0x2D0 + 60) == (0x100000, 63 * MIB, 1)
    assert (u32(page, 0x1E0), page[0x02:0x04]) == (63 * 1024, struct.pack("<H", 63 * 1024))
    assert (page[0x202:0x206], page[0x206:0x208], page[0x210]) == (b"HdrS", b"\x04\x02", 0xFF)
    assert (u32(page, 0x218), u32(page, 0x21C), u32(page, 0x228)) == (0x3F00000, 0x1234, COMMAND_LINE)
    assert (page[0x06], page[0x07], page[0x0E], page[0x0F]) == (3, 80, 25, 1)
    assert page[0x1EF] == 0, "the sentinel: non-zero makes Linux distrust the page"


def test_zero_page_keeps_the_setup_header() -> None:
    image = bzimage(make_bzimage())
    page = boot_params(image, command_line="", memory=64 * MIB)
    assert u32(page, 0x260) == image.init_size
    assert page[0x206:0x208] == b"\x0f\x02"
    assert (page[0x210], u32(page, 0x218), u32(page, 0x21C)) == (0xFF, 0, 0)
    assert page[0x26C:0x2D0] == bytes(0x64)


def test_plan_for_elf() -> None:
    image = elf(make_elf([Load(BASE, b"text", memsz=0x5000)], entry=0xC0100002))
    plan = plan_linux(image, memory=16 * MIB, command_line="console=ttyS0", initrd=b"i" * 5000)
    assert (plan.entry, plan.esi) == (0x100002, ZERO_PAGE)
    assert plan.initrd == (0xFFE000, 5000)
    writes = dict(plan.writes)
    assert writes[0x100000] == b"text"
    assert writes[COMMAND_LINE] == b"console=ttyS0\0"
    assert (writes[0x40E], writes[0x413]) == (b"\xc0\x9f", b"\x7f\x02")
    assert writes[0xFFE000] == b"i" * 5000
    assert (u32(writes[ZERO_PAGE], 0x218), u32(writes[ZERO_PAGE], 0x21C)) == (0xFFE000, 5000)
    assert plan_linux(elf(make_elf([Load(BASE, b"text")])), memory=16 * MIB).entry == 0x100000


def test_plan_gdt() -> None:
    """Selectors 0x10 and 0x18: present, ring 0, base 0, limit 4 GiB, 32-bit; code readable, data writable."""
    plan = plan_linux(bzimage(make_bzimage()), memory=64 * MIB)
    assert dict(plan.writes)[GDT] == plan.gdt and plan.gdt_address == GDT
    assert plan.gdt[BOOT_CS : BOOT_CS + 8] == bytes.fromhex("ffff0000009acf00")
    assert plan.gdt[BOOT_DS : BOOT_DS + 8] == bytes.fromhex("ffff00000092cf00")


def test_plan_for_bzimage() -> None:
    plan = plan_linux(bzimage(make_bzimage(b"k" * 80)), memory=4096 * MIB, initrd=b"i")
    assert plan.entry == 0x100000
    assert dict(plan.writes)[0x100000] == b"k" * 80
    assert plan.initrd == (0x7FFFF000, 1), "initrd_addr_max is the last byte that the kernel can reach"


@pytest.mark.parametrize(("memory", "initrd", "command_line", "message"), [
    (17, None, "", "memory: the kernel needs 18 MiB, the machine has 17"),
    (18, b"i", "", r"memory: kernel and initrd \(1 bytes\) need 19 MiB, the machine has 18"),
    (64, None, "x" * 2048, r"command line: 2048 bytes; the kernel takes 2047 \(cmdline_size\)"),
    (64, None, "a\0b", "command line: it contains a NUL"),
])
def test_plan_refusals(memory: int, initrd: bytes | None, command_line: str, message: str) -> None:
    with pytest.raises(ImageError, match=f"kernel: {message}"):
        plan_linux(bzimage(make_bzimage()), memory=memory * MIB, command_line=command_line, initrd=initrd)


def test_plan_refuses_what_the_kernel_cannot_reach() -> None:
    low = bzimage(make_bzimage(initrd_max=0x1200FFF))
    assert plan_linux(low, memory=64 * MIB, initrd=b"i" * 4096).initrd == (0x1200000, 4096)
    with pytest.raises(ImageError, match="initrd_addr_max 0x1200fff"):
        plan_linux(low, memory=64 * MIB, initrd=b"i" * 4097)
    with pytest.raises(ImageError, match=r"p_paddr 0x0: .* below 1 MiB"):
        plan_linux(elf(make_elf([Load(0, b"grub", paddr=0)], entry=0)), memory=64 * MIB)
    with pytest.raises(ImageError, match="e_entry 0x5 lies in no"):
        plan_linux(elf(make_elf([Load(BASE, b"x")], entry=5)), memory=64 * MIB)
