"""What a kernel tells about itself in notes is believed only where it fits the kernel.

The framework writes op tables, stubs and code where the "Paravirt" note says. What must hold: a note that does
not fit its own kernel, or this framework, is refused by field name before anything is written; call sites are
Linux's records; Xen's notes are read as Xen reads them, and that is more leniently than their header says.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from paravirt.errors import ImageError
from paravirt.image.elf import ElfImage, load_elf
from paravirt.image.notes import CallSite, ParavirtNote, call_sites, parse_paravirt_note, xen_notes
from tests.elfmaker import PARAVIRT_NOTE, SITES, Load, make_elf, make_paravirt_kernel, note

BASE = 0xC0100000
WORDS = {"paravirt_ops": 93, "machine_ops": 6, "console_ops": 2, "smp_ops": 7}
KERNEL = Path("kernel")


def elf(data: bytes) -> ElfImage:
    return load_elf(KERNEL, data)


def test_paravirt_note() -> None:
    image = elf(make_paravirt_kernel())
    found = parse_paravirt_note(image, WORDS)
    assert found == ParavirtNote(**PARAVIRT_NOTE)
    assert call_sites(image, found) == (CallSite(0xC0100010, 31, 6, 7), CallSite(0xC0100020, 29, 10, 1))
    assert parse_paravirt_note(elf(make_elf([Load(BASE, b"x")])), WORDS) is None


@pytest.mark.parametrize(("changed", "message"), [
    ({"version": 2}, "version is 2"),
    ({"paravirt_ops_words": 92}, "paravirt_ops_words is 92, not 93"),
    ({"smp_ops_words": 8}, "smp_ops_words is 8, not 7"),
    ({"gate_page": BASE + 0x1004}, "gate_page 0xc0101004 is not page aligned"),
    ({"data": BASE + 0x6800}, "data 0xc0106800 is not page aligned"),
    ({"code_pages": 0}, "code_pages is 0"),
    ({"code_pages": 0xFFFFFFFF}, "code: the 17592186040320 bytes"),
    ({"code_pages": 3}, "code: the 12288 bytes at 0xc0102000 do not lie"),
    ({"scratch": BASE + 0x7000}, "scratch: the 4096 bytes at 0xc0107000 do not lie"),
    ({"machine_ops": BASE + 0x6FF0}, "machine_ops: the 24 bytes"),
    ({"ex_table_entries": 0x2000}, "ex_table: the 65536 bytes"),
    ({"end_block": 0}, "end_block: the 4 bytes at 0x0"),
    ({"parainstructions_end": BASE + 0x10C}, "parainstructions_end is 12 bytes after"),
    ({"parainstructions_end": BASE}, "parainstructions_end is -256 bytes after"),
    ({"machine_ops": BASE + 0x4004}, "paravirt_ops .* overlaps machine_ops"),
    ({"data": BASE + 0x5000}, "overlaps scratch|overlaps data"),
])
def test_paravirt_note_refusals(changed: dict[str, int], message: str) -> None:
    with pytest.raises(ImageError, match=f"kernel: note Paravirt: .*{message}|kernel: note Paravirt: {message}"):
        parse_paravirt_note(elf(make_paravirt_kernel(changed=changed)), WORDS)


def test_paravirt_note_of_another_length() -> None:
    for desc, message in [(b"\1\0\0\0" * 3, "descsz is 12 bytes, not 80"), (b"", "version is missing")]:
        with pytest.raises(ImageError, match=message):
            parse_paravirt_note(elf(make_paravirt_kernel(desc)), WORDS)


@pytest.mark.parametrize(("site", "message"), [
    ((BASE + 0x10, 93, 6, 7), "call site 0 at 0xc0100010: type 93"),
    ((BASE + 0x10, 31, 33, 7), "length 33"),
    ((BASE + 0x10, 31, 0, 7), "length 0"),
    ((BASE + 0x3FFF, 31, 6, 7), "address: the site does not lie"),
])
def test_call_site_refusals(site: tuple[int, int, int, int], message: str) -> None:
    image = elf(make_paravirt_kernel(sites=struct.pack("<IBBH", *site) + SITES[8:]))
    found = parse_paravirt_note(image, WORDS)
    assert found
    with pytest.raises(ImageError, match=message):
        call_sites(image, found)


# ---------------------------------------------------------------------- Xen notes


def test_xen_notes() -> None:
    """GRUB's image claims 12 bytes for the four of its last note, and Xen starts it."""
    area = (note("Xen", 6, b"linux\0") + note("Xen", 3, struct.pack("<I", 0xC0000000))
            + note("Xen", 10, b"!writable_page_tables\0") + note("Xen", 10, b"pae_pgdir_above_4gb\0")
            + note("Xen", 13, struct.pack("<QQ", 1, 1)) + note("Xen", 77, b"\1\2\3") + note("GNU", 3, b"id")
            + note("Xen", 9, b"yes\0", descsz=12))
    assert xen_notes(elf(make_elf([Load(BASE, b"x")], notes=area))) == {
        "GUEST_OS": "linux", "VIRT_BASE": 0xC0000000, "FEATURES": "!writable_page_tables|pae_pgdir_above_4gb",
        "L1_MFN_VALID": "mask 0x1 value 0x1", "type 77": "01 02 03", "PAE_MODE": "yes",
    }


def test_xen_guest_section() -> None:
    text = "GUEST_OS=linux,XEN_VER=xen-3.0,VIRT_BASE=0xC0000000,LOADER=generic"
    image = elf(make_elf([Load(BASE, b"x")], sections=[("__xen_guest", text.encode() + b"\0")]))
    assert xen_notes(image) == {"__xen_guest": text}
    assert xen_notes(elf(make_elf([Load(BASE, b"x")]))) == {}
