"""What a kernel tells about itself in ELF notes: the op tables of a paravirt kernel, and Xen's notes.

A kernel that wants its ops from the framework has a note named "Paravirt" of type 1. Its desc is
little-endian 32-bit words, in the order of `ParavirtNote`'s fields; every address is virtual. The call
sites that may be patched are records {u32 address, u8 type, u8 length, u16 clobbers}, as in Linux.

Ref: Linux 2.6.23 include/asm-i386/paravirt.h (struct paravirt_patch_site); Xen public/elfnote.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise

from paravirt.errors import ImageError
from paravirt.image.elf import ElfImage

NOTE_NAME, NOTE_TYPE, NOTE_VERSION = "Paravirt", 1, 1
PAGE = 4096
CALL_SITE = struct.Struct("<IBBH")
MAX_SITE = 32  # bytes; Linux's longest is 13, and the patch buffer is on the stack
EX_ENTRY_BYTES = 8


@dataclass(frozen=True)
class ParavirtNote:
    """Where a paravirt kernel keeps what the framework fills in. Virtual addresses.

    :ivar gate_page: one page of the kernel's text for the stubs that leave the guest.
    :ivar code: `code_pages` pages of text for guest code of the ops.
    :ivar scratch: one page for what the host passes by pointer.
    :ivar data: `data_pages` pages of data for guest code of the ops.
    :ivar ex_table: `ex_table_entries` pairs {u32 instruction, u32 fixup}, spare ones zero.
    """

    version: int
    paravirt_ops: int
    paravirt_ops_words: int
    machine_ops: int
    machine_ops_words: int
    console_ops: int
    console_ops_words: int
    smp_ops: int
    smp_ops_words: int
    gate_page: int
    code: int
    code_pages: int
    scratch: int
    parainstructions_start: int
    parainstructions_end: int
    ex_table: int
    ex_table_entries: int
    end_block: int
    data: int
    data_pages: int


@dataclass(frozen=True)
class CallSite:
    """`length` bytes at virtual `address` that reach slot `type`; `clobbers`: EAX 1, ECX 2, EDX 4."""

    address: int
    type: int
    length: int
    clobbers: int


def parse_paravirt_note(image: ElfImage, words: Mapping[str, int]) -> ParavirtNote | None:
    """The "Paravirt" note; None if the kernel has none.

    :param words: what each op table must have, for instance ``{"paravirt_ops": 93, "machine_ops": 6, ...}``.
    :raises ImageError: naming the file and the field, if the note does not fit this framework or its own kernel.
    """
    found = [note for note in image.notes if note.name == NOTE_NAME and note.type == NOTE_TYPE]
    if not found:
        return None
    where = f"{image.path}: note {NOTE_NAME}"
    if len(found) > 1:
        raise ImageError(f"{where}: there are {len(found)} of them")
    desc, names = found[0].desc, [field.name for field in fields(ParavirtNote)]
    if len(desc) < 4 or (version := int.from_bytes(desc[:4], "little")) != NOTE_VERSION:
        shown = f"is {version}" if len(desc) >= 4 else "is missing"
        raise ImageError(f"{where}: version {shown}; this framework knows version {NOTE_VERSION}")
    if len(desc) != 4 * len(names):
        raise ImageError(f"{where}: descsz is {len(desc)} bytes, not {4 * len(names)} ({names[-1]} is the last word)")
    note = ParavirtNote(*struct.unpack(f"<{len(names)}I", desc))
    values = asdict(note)
    for table, expected in words.items():
        if values[f"{table}_words"] != expected:
            raise ImageError(f"{where}: {table}_words is {values[f'{table}_words']}, not {expected}")
    _check_pages(where, values)
    _check_places(where, image, note)
    return note


def _check_pages(where: str, values: Mapping[str, int]) -> None:
    for name in ("gate_page", "code", "scratch", "data"):
        if values[name] % PAGE:
            raise ImageError(f"{where}: {name} {values[name]:#x} is not page aligned")
    for name in ("code_pages", "data_pages"):
        if not values[name]:
            raise ImageError(f"{where}: {name} is 0")


def _ranges(note: ParavirtNote) -> Iterator[tuple[str, int, int]]:
    """Field, address and bytes of all that the note names."""
    values = asdict(note)
    for table in ("paravirt_ops", "machine_ops", "console_ops", "smp_ops"):
        yield table, values[table], 4 * values[f"{table}_words"]
    yield "gate_page", note.gate_page, PAGE
    yield "code", note.code, PAGE * note.code_pages
    yield "scratch", note.scratch, PAGE
    yield "data", note.data, PAGE * note.data_pages
    sites = note.parainstructions_end - note.parainstructions_start
    yield "parainstructions_start", note.parainstructions_start, sites
    yield "ex_table", note.ex_table, EX_ENTRY_BYTES * note.ex_table_entries
    yield "end_block", note.end_block, 4


def _check_places(where: str, image: ElfImage, note: ParavirtNote) -> None:
    sites = note.parainstructions_end - note.parainstructions_start
    if sites < 0 or sites % CALL_SITE.size:
        raise ImageError(f"{where}: parainstructions_end is {sites} bytes after the start; "
                         f"a record has {CALL_SITE.size}")
    used = []
    for name, address, size in _ranges(note):
        if image.segment(address, size) is None:
            raise ImageError(f"{where}: {name}: the {size} bytes at {address:#x} do not lie in a loadable segment")
        if size:
            used.append((address, size, name))
    used.sort()
    for (low, size, name), (high, _, other) in pairwise(used):
        if low + size > high:
            raise ImageError(f"{where}: {name} ({size} bytes at {low:#x}) overlaps {other} at {high:#x}")


def call_sites(image: ElfImage, note: ParavirtNote) -> tuple[CallSite, ...]:
    """The call sites that the kernel recorded, in its order.

    :raises ImageError: naming the record (from 0) and its field.
    """
    start = note.parainstructions_start
    records = image.read(start, note.parainstructions_end - start)
    if records is None:
        raise ImageError(f"{image.path}: parainstructions at {start:#x}: not in the file")
    sites = []
    for number, (address, kind, length, clobbers) in enumerate(CALL_SITE.iter_unpack(records)):
        where = f"{image.path}: call site {number} at {address:#x}"
        if kind >= note.paravirt_ops_words:
            raise ImageError(f"{where}: type {kind}; the table has {note.paravirt_ops_words} slots")
        if not 0 < length <= MAX_SITE:
            raise ImageError(f"{where}: length {length}; a call site has 1 to {MAX_SITE} bytes")
        if image.read(address, length) is None:
            raise ImageError(f"{where}: address: the site does not lie in a loadable segment")
        sites.append(CallSite(address, kind, length, clobbers))
    return tuple(sites)


_XEN_NAMES = (
    "INFO", "ENTRY", "HYPERCALL_PAGE", "VIRT_BASE", "PADDR_OFFSET", "XEN_VERSION", "GUEST_OS", "GUEST_VERSION",
    "LOADER", "PAE_MODE", "FEATURES", "BSD_SYMTAB", "HV_START_LOW", "L1_MFN_VALID", "SUSPEND_CANCEL", "INIT_P2M",
    "MOD_START_PFN", "SUPPORTED_FEATURES", "PHYS32_ENTRY",
)
_XEN_TEXT = {"INFO", "XEN_VERSION", "GUEST_OS", "GUEST_VERSION", "LOADER", "PAE_MODE", "FEATURES", "BSD_SYMTAB"}
_MAX_UNKNOWN = 32


def xen_notes(image: ElfImage) -> dict[str, str | int]:
    """Xen's notes by name: numbers as int, the rest as text; empty if there are none.

    FEATURES given several times are joined by ``|``, as Xen adds them up. A kernel of before the notes
    has the section __xen_guest; its text is under that name.
    """
    found: dict[str, str | int] = {}
    for note in image.notes:
        if note.name != "Xen":
            continue
        name = _XEN_NAMES[note.type] if note.type < len(_XEN_NAMES) else f"type {note.type}"
        value = _xen_value(name, note.desc)
        if name == "FEATURES" and name in found:
            value = f"{found[name]}|{value}"
        found[name] = value
    if image.xen_guest:
        found["__xen_guest"] = image.xen_guest
    return found


def _xen_value(name: str, desc: bytes) -> str | int:
    if name in _XEN_TEXT:
        return desc.split(b"\0")[0].decode("utf-8", "backslashreplace")
    if name == "L1_MFN_VALID" and len(desc) in (8, 16):
        mask, value = struct.unpack("<II" if len(desc) == 8 else "<QQ", desc)
        return f"mask {mask:#x} value {value:#x}"
    if name in _XEN_NAMES and len(desc) in (1, 2, 4, 8):
        return int.from_bytes(desc, "little")
    return desc[:_MAX_UNKNOWN].hex(" ") + (" ..." if len(desc) > _MAX_UNKNOWN else "")
