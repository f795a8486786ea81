"""I/O ports of a domU: it has none. Who may ask is decided all the same, and what is there floats.

Ref: Xen arch/x86/pv/emul-priv-op.c (guest_io_okay, guest_io_read, guest_io_write).
"""

from __future__ import annotations

from paravirt_xen.platform import abi
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import HypercallError
from paravirt_xen.platform.traps import RING1

IOPL_SHIFT = 12
PCI_ADDRESS = 0xCF8


def iopl_allows(domain: Domain) -> bool:
    """Whether the virtual IOPL lets the running code do I/O. With vm_assist type 4 the kernel counts as ring 0."""
    ring = domain.vcpu.cpl
    if ring == RING1 and domain.assist(abi.VMASST_ARCHITECTURAL_IOPL):
        ring = 0
    return bool(ring <= domain.traps.iopl >> IOPL_SHIFT)


def allowed(domain: Domain, port: int, size: int) -> bool:
    """By the virtual IOPL, else by the guest's bitmap; bytes of it that cannot be read allow nothing."""
    if iopl_allows(domain):
        return True
    bitmap, ports = domain.traps.io_bitmap
    if ports <= port + size:
        return False
    bits = b""
    for at in range(2):
        try:
            bits += domain.read(bitmap + (port >> 3) + at & 0xFFFFFFFF, 1)
        except HypercallError:
            bits += b"\xff"
    return not int.from_bytes(bits, "little") >> (port & 7) & (1 << size) - 1


def read(domain: Domain, port: int, size: int) -> int:
    """Nothing drives the bus; PCI's address register is a register in Xen."""
    if (port, size) == (PCI_ADDRESS, 4):
        return domain.traps.pci_address
    return (1 << 8 * size) - 1


def write(domain: Domain, port: int, size: int, value: int) -> None:
    if (port, size) == (PCI_ADDRESS, 4):
        domain.traps.pci_address = value
