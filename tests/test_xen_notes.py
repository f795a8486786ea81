"""Xen notes are accepted as a real Xen accepts them, and refused for its reasons.

Guests that nobody here wrote come with notes of all ages: a size that claims too much (GRUB's PAE_MODE), features
that are asked for by an unknown name, the string of the section __xen_guest. What boots on a real Xen must boot
here, and what it refuses is refused with one sentence that names the file and the note.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from paravirt.api import Answer, ImageError, KernelInfo
from paravirt.image.elf import load_elf
from paravirt_xen.platform.notes import parse_notes
from paravirt_xen.plugin import Xen
from tests.elfmaker import Load, make_elf, note
from tests.xendomain import (
    BASE,
    BSD_SYMTAB,
    ENTRY,
    FEATURES,
    GUEST_OS,
    HV_START_LOW,
    HYPERCALL_PAGE,
    LOADER,
    MOD_START_PFN,
    PADDR_OFFSET,
    PAE_MODE,
    TEXT,
    VIRT_BASE,
    XEN_VERSION,
    xen_image,
)


def test_the_notes_of_a_modern_kernel() -> None:
    notes = parse_notes(xen_image(changed={HYPERCALL_PAGE: TEXT + 4096, FEATURES: b"!writable_page_tables\0"}))
    assert (notes.virt_base, notes.paddr_offset, notes.entry) == (BASE, 0, TEXT)
    assert notes.hypercall_page == TEXT + 4096
    assert notes.hypervisor_start == 0xF5800000
    assert not notes.unmapped_module and not notes.bsd_symtab


def test_without_addresses_the_kernel_lies_where_its_file_says() -> None:
    data = make_elf([Load(0x100000, b"\x90", paddr=0x100000)], entry=0x100000,
                    notes=note("Xen", XEN_VERSION, b"xen-3.0\0") + note("Xen", LOADER, b"generic\0"))
    notes = parse_notes(load_elf(Path("k"), data))
    assert (notes.virt_base, notes.paddr_offset, notes.entry, notes.hypercall_page) == (0, 0, 0x100000, None)


def test_a_note_that_claims_more_than_it_has() -> None:
    descs = (note("Xen", XEN_VERSION, b"xen-3.0\0") + note("Xen", LOADER, b"generic\0")
             + note("Xen", PAE_MODE, b"yes\0", descsz=12))
    data = make_elf([Load(0, b"\x90" * 16, paddr=0)], entry=0, notes=descs)
    assert parse_notes(load_elf(Path("grub"), data)).entry == 0


def test_the_section_of_old_kernels() -> None:
    text = f"GUEST_OS=linux,XEN_VER=xen-3.0,VIRT_BASE={BASE:#x},HYPERCALL_PAGE=0x101,PAE=yes,LOADER=generic"
    data = make_elf([Load(TEXT, b"\x90" * 64, paddr=TEXT, memsz=8192)], entry=TEXT,
                    sections=[("__xen_guest", text.encode() + b"\0")])
    notes = parse_notes(load_elf(Path("old"), data))
    assert (notes.virt_base, notes.paddr_offset) == (BASE, BASE)
    assert (notes.entry, notes.hypercall_page, notes.guest_os) == (TEXT, TEXT + 4096, "linux")


@pytest.mark.parametrize(("low", "start"), [(0xF5800000, 0xF5800000), (0xC0000000, 0xF5800000),
                                            (0xF6800000, 0xF6800000)])
def test_the_hypervisor_begins_where_the_kernel_lets_it(low: int, start: int) -> None:
    assert parse_notes(xen_image(changed={HV_START_LOW: low})).hypervisor_start == start


def test_the_module_may_be_left_unmapped() -> None:
    assert parse_notes(xen_image(changed={MOD_START_PFN: 1})).unmapped_module


def test_symbols_are_asked_for() -> None:
    assert parse_notes(xen_image(changed={BSD_SYMTAB: b"yes\0"})).bsd_symtab


@pytest.mark.parametrize("features", [
    b"!writable_page_tables|pae_pgdir_above_4gb\0", b"!auto_translated_physmap\0", b"writable_page_tables|of_2031\0",
])
def test_features_that_a_real_xen_boots(features: bytes) -> None:
    parse_notes(xen_image(changed={FEATURES: features}))


@pytest.mark.parametrize(("changed", "sentence"), [
    ({XEN_VERSION: b"xen-2.0\0"}, "XEN_VERSION is 'xen-2.0'"),
    ({XEN_VERSION: None}, "XEN_VERSION is ''"),
    ({LOADER: b"special\0"}, "LOADER is 'special'"),
    ({FEATURES: b"!telepathy\0"}, "requires 'telepathy'"),
    ({ENTRY: TEXT + 0x100000}, "ENTRY 0xc0200000 lies outside"),
    ({ENTRY: b"\1\2\3"}, "ENTRY is no number"),
    ({VIRT_BASE: None, PADDR_OFFSET: 0}, "PADDR_OFFSET without VIRT_BASE"),
    ({VIRT_BASE: 0xFFF00000}, "VIRT_BASE is 0xfff00000"),
    ({HYPERCALL_PAGE: TEXT + 0x10}, "HYPERCALL_PAGE 0xc0100010"),
    ({HYPERCALL_PAGE: 0x1000}, "HYPERCALL_PAGE 0x1000"),
    ({HV_START_LOW: 0xFFC00000}, "HV_START_LOW 0xffc00000"),
])  # fmt: skip
def test_what_a_real_xen_refuses(changed: dict[int, bytes | int | None], sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence) as refused:
        parse_notes(xen_image(changed=changed))
    assert str(refused.value).startswith("test-kernel: ")


def test_linux_needs_no_loader_note() -> None:
    parse_notes(xen_image(changed={LOADER: None, GUEST_OS: b"linux\0"}))


def probe(image: object) -> tuple[Answer, str]:
    answer, reason = Xen().paravirt_probe(KernelInfo(image, None))  # type: ignore[arg-type]
    return answer, reason


def test_a_probe_tells_kernels_with_another_entry_from_those_for_xen_alone() -> None:
    assert probe(xen_image())[0] is Answer.YES
    data = make_elf([Load(0, b"\x90" * 16, paddr=0)], entry=0,
                    notes=note("Xen", XEN_VERSION, b"xen-3.0\0") + note("Xen", LOADER, b"generic\0"))
    assert probe(load_elf(Path("grub"), data))[0] is Answer.ONLY
    answer, reason = probe(xen_image(changed={XEN_VERSION: b"xen-9\0"}))
    assert answer is Answer.NO and "xen-9" in reason
    assert probe(load_elf(Path("k"), make_elf([Load(TEXT, b"\x90")])))[0] is Answer.NO
