"""Hypercalls that say how the guest's kernel is entered and what its CPU does: set_trap_table, stack_switch,
fpu_taskswitch, vm_assist.

Ref: Xen arch/x86/pv/callback.c (compat_set_trap_table), arch/x86/pv/misc-hypercalls.c, common/kernel.c (vm_assist).
"""

from __future__ import annotations

from paravirt.api import layout
from paravirt_xen.platform import abi
from paravirt_xen.platform.descriptors import ring1
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import EINVAL, ENOSYS, HypercallError, Preempted
from paravirt_xen.platform.traps import Gate

CR0_TS = 8
AT_ONCE = 256  # entries of a trap table before the guest gets to run
ASSISTS = frozenset({
    abi.VMASST_4GB_SEGMENTS, abi.VMASST_4GB_SEGMENTS_NOTIFY, abi.VMASST_WRITABLE_PAGETABLES,
    abi.VMASST_PAE_EXTENDED_CR3, abi.VMASST_ARCHITECTURAL_IOPL, abi.VMASST_RUNSTATE_UPDATE_FLAG,
})  # fmt: skip


def set_trap_table(domain: Domain, traps: int) -> int:
    """Register handlers up to an entry whose address is 0; a null table clears all."""
    if not traps:
        domain.traps.gates[:] = [Gate()] * 256
        domain.traps.changed()
        return 0
    try:
        for _ in range(AT_ONCE):
            vector, flags, cs, address = abi.TRAP_INFO.unpack(domain.read(traps, abi.TRAP_INFO.size))
            if not address:
                return 0
            domain.traps.gates[vector] = Gate(
                ring1(cs), address, dpl=flags & abi.TRAP_DPL, masks=bool(flags & abi.TRAP_MASK_EVENTS))
            traps = traps + abi.TRAP_INFO.size & 0xFFFFFFFF
    finally:
        domain.traps.changed()
    raise Preempted(traps)


def stack_switch(domain: Domain, ss: int, esp: int) -> int:
    """The stack for entries from ring 3."""
    domain.traps.kernel_stack[0], domain.traps.kernel_stack[1] = ring1(ss), esp
    return 0


def fpu_taskswitch(domain: Domain, on: int) -> int:
    """Set CR0.TS, or clear it."""
    state = domain.vcpu.state
    if on:
        state.quads[layout.CR] |= CR0_TS
        state.words[layout.HFLAGS] |= layout.HF_TS
    else:
        state.quads[layout.CR] &= ~CR0_TS
        state.words[layout.HFLAGS] &= ~layout.HF_TS
    return 0


def vm_assist(domain: Domain, command: int, kind: int) -> int:
    """Switch an assistance on or off."""
    if kind not in ASSISTS:
        raise HypercallError(EINVAL, f"vm_assist type {kind}")
    if command == abi.VMASST_CMD_ENABLE:
        domain.vm_assist |= 1 << kind
    elif command == abi.VMASST_CMD_DISABLE:
        domain.vm_assist &= ~(1 << kind)
    else:
        raise HypercallError(ENOSYS, f"vm_assist {command}")
    domain.traps.changed()
    return 0
