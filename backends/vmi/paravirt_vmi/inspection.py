"""Reads a ROM as a guest does, and says what is wrong with it.

The order of the checks is Linux's: signatures, API version, PCI data, licence. What Linux passes over with a warning
or does not look at (vendor and device, checksum) is told as a fact.

Ref: Linux 2.6.32 arch/x86/kernel/vmi_32.c (check_vmi_rom, probe_vmi_rom).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from paravirt.api import ImageError
from paravirt_vmi.platform.layout import AREA_END, AREA_FIRST
from paravirt_vmi.rom import API_MAJOR, DEVICE, HEADER, LENGTH_UNIT, SIGNATURE, VENDOR

ROM_SIGNATURE = 0xAA55
HEADER_BYTES = 0x90
LICENCES = (b"GPL", b"GPL v2")
PCI_HEAD = struct.Struct("<4s H H 10x B B")  # signature, vendor, device ... version minor, major
PNP_STRINGS = struct.Struct("<H H")
PNP_MANUFACTURER = 0x0E


class Header(NamedTuple):
    """The fields that guests read."""

    signature: int
    length: int
    entry: bytes
    vmi: bytes
    minor: int
    major: int
    calls: int
    virtual_top: int
    licence: int
    pci: int
    pnp: int


def is_rom(data: bytes) -> bool:
    """Whether a file is meant to be a VMI ROM: one signature or the other is there."""
    return len(data) <= AREA_END - AREA_FIRST and (
        data[:2] == ROM_SIGNATURE.to_bytes(2, "little") or data[8:12] == SIGNATURE)


def inspect(data: bytes, path: Path) -> Iterable[tuple[str, object]] | None:
    """Facts about a ROM; None for any other file.

    :raises ImageError: guests refuse it; the message says why.
    """
    if not is_rom(data):
        return None
    reason = defect(data)
    if reason:
        raise ImageError(f"{path}: guests refuse this VMI ROM: {reason}")
    return _facts(data)


def defect(data: bytes) -> str:
    """Why a guest would refuse the ROM; empty if it would take it."""
    if len(data) < HEADER_BYTES:
        return f"it has {len(data)} bytes, and the header alone {HEADER_BYTES}"
    header = Header(*HEADER.unpack_from(data))
    if header.signature != ROM_SIGNATURE:
        return f"the ROM signature is {header.signature:#06x}, not {ROM_SIGNATURE:#06x}"
    if header.vmi != SIGNATURE:
        return f"the VMI signature is {header.vmi!r}, not {SIGNATURE!r}"
    if header.major != API_MAJOR:
        return f"it speaks version {header.major}.{header.minor} of the API, and guests speak {API_MAJOR}"
    if not header.pci:
        return "it has no PCI data: the offset is 0"
    if header.pci + PCI_HEAD.size > len(data):
        return f"its PCI data at {header.pci:#x} lie outside"
    if not header.licence:
        return "it names no licence: the offset is 0"
    licence = _string(data, header.licence)
    if licence not in LICENCES:
        return f"its licence is {licence.decode('ascii', 'replace')!r}, not one of " \
               f"{', '.join(repr(word.decode()) for word in LICENCES)}"
    return ""


def _facts(data: bytes) -> list[tuple[str, object]]:
    header = Header(*HEADER.unpack_from(data))
    _, vendor, device, minor, major = PCI_HEAD.unpack_from(data, header.pci)
    manufacturer = product = b"UNKNOWN"
    if header.pnp and header.pnp + PNP_MANUFACTURER + PNP_STRINGS.size <= len(data):
        places = PNP_STRINGS.unpack_from(data, header.pnp + PNP_MANUFACTURER)
        manufacturer, product = (_string(data, place) for place in places)
    known = (vendor, device) == (VENDOR, DEVICE)
    length = header.length * LENGTH_UNIT
    right = length <= len(data) and not sum(data[:length]) & 0xFF
    return [
        ("kind", "VMI option ROM"),
        ("made by", f"{manufacturer.decode('ascii', 'replace')} {product.decode('ascii', 'replace')}, "
                    f"version {major}.{minor}"),
        ("API version", f"{header.major}.{header.minor}"),
        ("calls", header.calls),
        ("length", f"{length} bytes, checksum {'right' if right else 'wrong (guests do not look at it)'}"),
        ("licence", _string(data, header.licence).decode()),
        ("PCI device", f"{vendor:04x}:{device:04x}{'' if known else ' (unknown; guests warn and go on)'}"),
        ("hypervisor's addresses", f"from {header.virtual_top:#x} on" if header.virtual_top else "none"),
    ]


def _string(data: bytes, at: int) -> bytes:
    return data[at : at + 64].split(b"\0")[0]
