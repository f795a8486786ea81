"""callback_op, set_callbacks and nmi_op: where the guest wants to be entered for what is no trap.

Ref: Xen public/callback.h, nmi.h; arch/x86/pv/callback.c (the compat_ functions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt_xen.platform.abi import (
    CALLBACK_EVENT,
    CALLBACK_FAILSAFE,
    CALLBACK_NMI,
    CALLBACK_REGISTER,
    CALLBACK_SYSCALL32,
    CALLBACK_SYSENTER,
    CALLBACKF_MASK_EVENTS,
    CALLBACKOP_REGISTER,
    CALLBACKOP_UNREGISTER,
)
from paravirt_xen.platform.errors import EINVAL, ENOSYS, HypercallError
from paravirt_xen.platform.layout import RING1_CS
from paravirt_xen.platform.traps import Gate

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

NMI = 2
NMI_REGISTER, NMI_UNREGISTER = 0, 1
SYSTEM_CALLS = (CALLBACK_SYSCALL32, CALLBACK_SYSENTER)  # accepted; a CPU without SYSENTER never uses them


def ring1(selector: int) -> int:
    """A code selector of the guest's kernel: never of ring 0."""
    return selector & 0xFFFF if selector & 3 else selector & 0xFFFF | 1


def register(domain: Domain, kind: int, cs: int, eip: int, masks: bool) -> None:
    """:raises HypercallError: ENOSYS: there is no such callback."""
    traps = domain.traps
    if kind == CALLBACK_EVENT:
        traps.event = Gate(ring1(cs), eip, masks=True)
    elif kind == CALLBACK_FAILSAFE:
        traps.failsafe = Gate(ring1(cs), eip, masks=masks)
    elif kind == CALLBACK_NMI:
        register_nmi(domain, eip)
    elif kind not in SYSTEM_CALLS:
        raise HypercallError(ENOSYS, f"callback {kind}")
    traps.changed()


def register_nmi(domain: Domain, eip: int) -> None:
    domain.traps.gates[NMI] = Gate(RING1_CS, eip, masks=True)
    domain.traps.changed()


def callback_op(domain: Domain, command: int, argument: int) -> int:
    if command == CALLBACKOP_REGISTER:
        kind, flags, cs, eip = CALLBACK_REGISTER.unpack(domain.read(argument, CALLBACK_REGISTER.size))
        register(domain, kind, cs, eip, bool(flags & CALLBACKF_MASK_EVENTS))
    elif command == CALLBACKOP_UNREGISTER:
        kind = int.from_bytes(domain.read(argument, 4)[:2], "little")
        if kind in (CALLBACK_EVENT, CALLBACK_FAILSAFE, *SYSTEM_CALLS):
            raise HypercallError(EINVAL, "a guest cannot be without it")
        if kind != CALLBACK_NMI:
            raise HypercallError(ENOSYS, f"callback {kind}")
        domain.traps.gates[NMI] = Gate()
        domain.traps.changed()
    else:
        raise HypercallError(EINVAL, f"callback_op {command}")
    return 0


def set_callbacks(domain: Domain, event_cs: int, event_eip: int, failsafe_cs: int, failsafe_eip: int) -> int:
    register(domain, CALLBACK_EVENT, event_cs, event_eip, masks=True)
    register(domain, CALLBACK_FAILSAFE, failsafe_cs, failsafe_eip, masks=False)
    return 0


def nmi_op(domain: Domain, command: int, argument: int) -> int:
    if command == NMI_REGISTER:
        eip, _ = domain.read_u32(argument), domain.read_u32(argument + 4)  # struct compat_nmi_callback: handler, pad
        register_nmi(domain, eip)
    elif command == NMI_UNREGISTER:
        domain.traps.gates[NMI] = Gate()
        domain.traps.changed()
    else:
        raise HypercallError(ENOSYS, f"nmi_op {command}")
    return 0
