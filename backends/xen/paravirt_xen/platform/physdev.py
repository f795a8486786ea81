"""physdev_op: a domU without devices has an I/O privilege level of its own, and nothing else.

Ports are emulated by that level and by the bitmap that the guest has registered. There are no interrupts of devices,
so what deals with them is refused as Xen refuses it.

Ref: Xen public/physdev.h; arch/x86/physdev.c, drivers/pci/physdev.c, arch/x86/compat.c (do_physdev_op_compat).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from paravirt_xen.platform.abi import DOMAIN_ID, DOMID_SELF
from paravirt_xen.platform.channels import DOM0, NR_PIRQS
from paravirt_xen.platform.errors import (
    EINVAL,
    ENODEV,
    ENOSPC,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
    HypercallError,
)
from paravirt_xen.platform.layout import HYPERVISOR_START

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

COMPAT_BYTES, COMPAT_UNION = 16, 4  # struct physdev_op: the command, then a union of the structures
NEEDS_EOI = 1
PORTS, BITMAP_BYTES = 65536, 8192
GSIS = 24
IOPL_SHIFT = 12  # in EFLAGS


def _read(domain: Domain, argument: int, layout: str) -> tuple[int, ...]:
    fields = struct.Struct("<" + layout)
    return fields.unpack(domain.read(argument, fields.size))


def _eoi(domain: Domain, argument: int) -> int:
    _read(domain, argument, "I")
    raise HypercallError(EINVAL, "no interrupt of a device is bound")


def _irq_status_query(domain: Domain, argument: int) -> int:
    irq, _ = _read(domain, argument, "II")
    if irq >= NR_PIRQS:
        raise HypercallError(EINVAL, f"interrupt {irq}")
    domain.write(argument, struct.pack("<II", irq, NEEDS_EOI))
    return 0


def _unmask_notify(domain: Domain, argument: int) -> int:
    return 0  # every interrupt of a device that is bound: none


def _set_iopl(domain: Domain, argument: int) -> int:
    (level,) = _read(domain, argument, "I")
    if level > 3:
        raise HypercallError(EINVAL, f"I/O privilege level {level}")
    domain.traps.iopl = level << IOPL_SHIFT
    domain.traps.changed()
    return 0


def _set_iobitmap(domain: Domain, argument: int) -> int:
    bitmap, ports = _read(domain, argument, "II")
    if ports > PORTS or bitmap + BITMAP_BYTES > HYPERVISOR_START:
        raise HypercallError(EINVAL, f"{ports} ports at {bitmap:#x}")
    domain.traps.io_bitmap = (bitmap, ports)
    return 0


def _pirq_eoi_gmfn(domain: Domain, argument: int) -> int:
    (gmfn,) = _read(domain, argument, "I")
    raise HypercallError(EINVAL, f"frame {gmfn:#x}: there is nothing to acknowledge")


def _map_pirq(domain: Domain, argument: int) -> int:
    domid, *_ = _read(domain, argument, "HxxiiiiiiQ")
    raise HypercallError(EPERM if domid in (DOMID_SELF, DOM0, DOMAIN_ID) else ESRCH, "for control domains")


def _unmap_pirq(domain: Domain, argument: int) -> int:
    domid, _ = _read(domain, argument, "Hxxi")
    raise HypercallError(EPERM if domid in (DOMID_SELF, DOM0, DOMAIN_ID) else ESRCH, "for control domains")


def _restore_msi(domain: Domain, argument: int) -> int:
    _read(domain, argument, "BB")
    raise HypercallError(ENODEV, "there are no devices")


def _restore_msi_ext(domain: Domain, argument: int) -> int:
    _read(domain, argument, "HBB")
    raise HypercallError(ENODEV, "there are no devices")


def _setup_gsi(domain: Domain, argument: int) -> int:
    gsi, *_ = _read(domain, argument, "iBBxx")
    raise HypercallError(EPERM if 0 <= gsi < GSIS else EINVAL, f"interrupt {gsi}")


def _get_free_pirq(domain: Domain, argument: int) -> int:
    _read(domain, argument, "iI")
    raise HypercallError(ENOSPC, "a domain without devices has none")


def _not_permitted(layout: str) -> Callable[[Domain, int], int]:
    def refuse(domain: Domain, argument: int) -> int:
        _read(domain, argument, layout)
        raise HypercallError(EPERM, "for control domains")

    return refuse


def _mmcfg_reserved(domain: Domain, argument: int) -> int:
    raise HypercallError(EPERM, "for control domains")


def _pci_device(domain: Domain, argument: int) -> int:
    raise HypercallError(EOPNOTSUPP, "devices are not passed through")


COMMANDS: Mapping[int, Callable[[Domain, int], int]] = {
    4: _unmask_notify,
    5: _irq_status_query,
    6: _set_iopl,
    7: _set_iobitmap,
    8: _not_permitted("III"),  # apic_read
    9: _not_permitted("III"),  # apic_write
    10: _not_permitted("II"),  # alloc_irq_vector
    12: _eoi,
    13: _map_pirq,
    14: _unmap_pirq,
    15: _not_permitted("BB"),  # manage_pci_add
    16: _not_permitted("BB"),  # manage_pci_remove
    17: _pirq_eoi_gmfn,
    19: _restore_msi,
    20: _not_permitted("BBxxIIBBxx"),  # manage_pci_add_ext
    21: _setup_gsi,
    23: _get_free_pirq,
    24: _mmcfg_reserved,
    25: _pci_device,
    26: _pci_device,
    27: _restore_msi_ext,
    28: _pirq_eoi_gmfn,
    29: _mmcfg_reserved,  # dbgp_op
    30: _not_permitted("HBB"),  # prepare_msix
    31: _not_permitted("HBB"),  # release_msix
}


def physdev_op(domain: Domain, command: int, argument: int) -> int:
    run = COMMANDS.get(command)
    if run is None:
        raise HypercallError(ENOSYS, f"physdev_op {command}")
    return run(domain, argument)


def physdev_op_compat(domain: Domain, op: int) -> int:
    """The form of before 2006: command and structure in one."""
    command = int.from_bytes(domain.read(op, COMPAT_BYTES)[:COMPAT_UNION], "little")
    return physdev_op(domain, command, op + COMPAT_UNION)
