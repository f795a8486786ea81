"""Builds the option ROM: a header from literal fields, a slot for every call that traps, the code of rom.S.

The image does not depend on where it lies: GetRelocationInfo finds that out, and what needs an absolute address stands
in the fix-up table, to which VMI_Init adds the ROM's linear base. The first 4 KiB are the ROM as its length byte
counts it; the shared page follows and is not part of the image.

Ref: VMI 3.0 ROM header (struct vrom_header of Linux 2.6.32 arch/x86/include/asm/vmi.h); PCI Local Bus Specification
2.2, 6.3 (expansion ROM); Plug and Play BIOS Specification 1.0A, 3.2 (expansion header).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from paravirt.api import Area, ConfigError, Linker
from paravirt_vmi.platform import layout
from paravirt_vmi.platform.calls import CALLS, Call
from paravirt_vmi.platform.layout import (
    CALL_REL,
    HLT,
    INIT_ENTRY,
    JMP,
    JUMP_REL,
    NONE,
    PCI_DATA,
    PNP_HEADER,
    RELOCATION_ENTRY,
    RET,
    ROM_BYTES,
    SLOT_BYTES,
    SLOTS,
    STRINGS,
    UD2,
)
from paravirt_vmi.platform.monitor import page_symbols

OBJECT = Path(__file__).with_name("rom.o")
HEADER = struct.Struct("<H B 4s x 4s B B B x I 2x H H H 4x")
PCI = struct.Struct("<4s H H H H B 3s H B B B B H")
PNP = struct.Struct("<4s B B H B B I H H")
MANUFACTURER, PRODUCT, LICENCE = b"paravirt", b"VMI monitor", b"GPL v2"
SIGNATURE = b"cVmi"
API_MAJOR, API_MINOR = 3, 0
VENDOR, DEVICE = 0x15AD, 0x0801
VERSION_MAJOR, VERSION_MINOR = 1, 0
LENGTH_UNIT = 512
INSTRUCTION_CALL_BYTES = 5
ATTENTION = -1


@dataclass(frozen=True)
class Rom:
    """
    :ivar image: as a file has it, the checksum right.
    :ivar fixups: offsets of words that the linear base is added to.
    :ivar entries: offset of each call's code, by name; what GetRelocationInfo leads to.
    :ivar answers: relocation type by number.
    :ivar traps: what an exit at an offset means: a call's number, or ATTENTION.
    :ivar iret: offset of the IRET instruction. :ivar symbols: of rom.S, for listings.
    """

    image: bytes
    fixups: tuple[int, ...]
    entries: dict[str, int]
    answers: tuple[int, ...]
    traps: dict[int, int]
    iret: int
    symbols: dict[str, int]

    def at(self, base: int) -> bytes:
        """The image as it runs at linear `base`."""
        data = bytearray(self.image)
        for place in self.fixups:
            value, = struct.unpack_from("<I", data, place)
            struct.pack_into("<I", data, place, (value + base) & 0xFFFFFFFF)
        return _checksummed(data)

    def with_header(self, data: bytes, name: str) -> Rom:
        """The same ROM with the header that a file has.

        :raises ConfigError: there is more that differs than a header.
        """
        if len(data) != ROM_BYTES or data[SLOTS:-1] != self.image[SLOTS:-1]:
            raise ConfigError(f"{name}: not a ROM that `paravirt vmi rom` wrote for these options")
        return replace(self, image=data)


def build(*, trap_all: bool = False, none: Iterable[str] = (), deferral: bool = True, virtual_top: int = 0) -> Rom:
    """
    :param trap_all: every call leaves the guest. :param none: calls to answer with NONE.
    :param deferral: without it nothing waits: SetLazyMode is answered with NOP.
    :param virtual_top: lowest linear address that belongs to the hypervisor; 0: the guest has all.
    """
    places = {f"trap_{call.name}": slot(call.number) for call in CALLS}
    places |= {"rom_start": 0, **dict(page_symbols())}
    tables = SLOTS + SLOT_BYTES * len(CALLS)
    places |= {"answer_types": tables, "answer_places": tables + len(CALLS)}
    start = -(-(tables + 3 * len(CALLS)) // 16) * 16
    code, fixups, symbols = _link(start, places)

    answers = [_answer(call, set(none), deferral) for call in CALLS]
    entries = {call.name: slot(call.number) if trap_all or call.name not in symbols else symbols[call.name]
               for call in CALLS}
    data = bytearray(ROM_BYTES)
    data[start : start + len(code)] = code
    for call in CALLS:
        _slot(data, call, symbols)
        reached = answers[call.number] in (CALL_REL, JUMP_REL)
        data[tables + call.number] = answers[call.number]
        struct.pack_into("<H", data, tables + len(CALLS) + 2 * call.number, entries[call.name] if reached else 0)
    _header(data, virtual_top)
    _jump(data, RELOCATION_ENTRY, symbols["GetRelocationInfo"])
    traps = {slot(call.number): call.number for call in CALLS}
    traps |= {offset: ATTENTION for name, offset in symbols.items() if name.startswith("attention")}
    end = start + len(code)
    _fixup_table(data, end, fixups)
    return Rom(_checksummed(data), fixups, entries, tuple(answers), traps, symbols["iret_instruction"], symbols)


def slot(number: int) -> int:
    """Offset of the slot in which a call leaves the guest."""
    return SLOTS + SLOT_BYTES * number


def _answer(call: Call, none: set[str], deferral: bool) -> int:
    if call.name in none:
        return NONE
    if call.name == "SetLazyMode" and not deferral:
        return layout.NOP
    return call.answer


def _slot(data: bytearray, call: Call, symbols: dict[str, int]) -> None:
    """HLT and RET; behind the HLT of the two that do not return stands a jump to their code."""
    at = slot(call.number)
    data[at] = HLT
    if call.name in ("IRET", "SYSEXIT"):
        _jump(data, at + 1, symbols[call.name])
    else:
        data[at + 1] = RET


def _jump(data: bytearray, at: int, target: int) -> None:
    struct.pack_into("<Bi", data, at, JMP, target - at - INSTRUCTION_CALL_BYTES)


def _link(start: int, places: dict[str, int]) -> tuple[bytes, tuple[int, ...], dict[str, int]]:
    """Code of rom.S laid out at offset `start`, the places of its absolute addresses, its symbols."""
    linker = Linker(Area(start, ROM_BYTES - start, "ROM"), Area(0, 0, "data"), places.get)
    linker.add(OBJECT)
    linked = linker.finish()
    code = bytearray(ROM_BYTES - start)
    end = 0
    for address, data in linked.writes:
        code[address - start : address - start + len(data)] = data
        end = max(end, address - start + len(data))
    return bytes(code[:end]), tuple(linked.absolute), {name: at for (_, name), at in linked.symbols.items()}


def _header(data: bytearray, virtual_top: int) -> None:
    HEADER.pack_into(data, 0, 0xAA55, ROM_BYTES // LENGTH_UNIT, bytes([0xCB, 0, 0, 0]), SIGNATURE, API_MINOR, API_MAJOR,
                     len(CALLS), virtual_top, STRINGS, PCI_DATA, PNP_HEADER)
    struct.pack_into("<HB", data, INIT_ENTRY, UD2, RET)
    manufacturer = STRINGS + len(LICENCE) + 1
    product = manufacturer + len(MANUFACTURER) + 1
    PCI.pack_into(data, PCI_DATA, b"PCIR", VENDOR, DEVICE, 0, PCI.size, 0, b"\x00\x00\x05", ROM_BYTES // LENGTH_UNIT,
                  VERSION_MINOR, VERSION_MAJOR, 0, 0x80, 0)
    PNP.pack_into(data, PNP_HEADER, b"$PnP", 1, PNP_BYTES // 16, 0, 0, 0, 0, manufacturer, product)
    data[PNP_HEADER + 9] = -sum(data[PNP_HEADER : PNP_HEADER + PNP_BYTES]) & 0xFF
    strings = b"\0".join((LICENCE, MANUFACTURER, PRODUCT)) + b"\0"
    data[STRINGS : STRINGS + len(strings)] = strings


PNP_BYTES = 32


def _fixup_table(data: bytearray, at: int, fixups: tuple[int, ...]) -> None:
    """Behind the code: how many, then the offsets; for whoever reads the image."""
    at += at & 1
    struct.pack_into(f"<H{len(fixups)}H", data, at, len(fixups), *fixups)


def _checksummed(data: bytearray) -> bytes:
    data[-1] = 0
    data[-1] = -sum(data) & 0xFF
    return bytes(data)
