"""Privileged instructions of the guest: emulated at the #GP that they raise, as if it had the privilege.

One literal table, opcode -> function. A function does the instruction and returns how far EIP goes on: behind it, or
nowhere, where a REP has more to do. None leaves it to the guest's own #GP handler. Ring 3 may do what the virtual
IOPL and the kernel's bitmap allow, no more.

Ref: Xen arch/x86/pv/emul-priv-op.c, emul-inv-op.c; Intel SDM vol. 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from paravirt.api import layout
from paravirt_xen.platform import abi, ports
from paravirt_xen.platform.cpuid import INSTRUCTION, PREFIX, guest_cpuid
from paravirt_xen.platform.debugregs import CR4_DE, get_debugreg, set_debugreg
from paravirt_xen.platform.decode import Instruction, decode, fetch
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import HypercallError
from paravirt_xen.platform.mmuext import new_base
from paravirt_xen.platform.msrs import read_msr, write_msr
from paravirt_xen.platform.strings import string_io
from paravirt_xen.platform.trapops import CR0_TS, fpu_taskswitch
from paravirt_xen.platform.traps import DEBUG, EFLAGS_RF, EFLAGS_TF, GUEST_CR4, RING1

CR4_TSD = 4
DR6, SINGLE_STEP = 6, 0x4000


def emulate(domain: Domain) -> bool:
    """#GP(0) at EIP: whether the instruction has been done.

    :raises GuestFault: a fault of the instruction's own.
    """
    instruction = decode(domain, fetch(domain))
    operation = OPERATIONS.get(instruction.opcode) if instruction is not None else None
    if instruction is None or operation is None:
        return False
    advance = operation(domain, instruction)
    if advance is None:
        return False
    vcpu = domain.vcpu
    vcpu.eip += advance
    words = vcpu.state.words
    words[layout.EFLAGS] &= ~EFLAGS_RF
    if words[layout.EFLAGS] & EFLAGS_TF:
        vcpu.state.quads[layout.DR + DR6] |= SINGLE_STEP
        vcpu.engine.count_exception(DEBUG)
        domain.traps.bounce(DEBUG)
    return True


def forced_cpuid(domain: Domain) -> bool:
    """#UD at EIP: whether it was ``ud2``, "xen", CPUID, which has been done."""
    if fetch(domain)[: len(PREFIX) + len(INSTRUCTION)] != PREFIX + INSTRUCTION:
        return False
    vcpu = domain.vcpu
    results = guest_cpuid(domain, vcpu.reg(layout.EAX), vcpu.reg(layout.ECX))
    for register, value in zip((layout.EAX, layout.EBX, layout.ECX, layout.EDX), results, strict=True):
        vcpu.set_reg(register, value)
    vcpu.eip += len(PREFIX) + len(INSTRUCTION)
    return True


# ---------------------------------------------------------------------- control and debug registers


def extended_cr3(mfn: int) -> int:
    """CR3 as a PAE guest sees it: the frame number turned by 12 bits, so that frames above 4 GiB fit."""
    return (mfn << 12 | mfn >> 20) & 0xFFFFFFFF


def _kernel(domain: Domain) -> bool:
    return domain.vcpu.cpl == RING1


def _read_cr(domain: Domain, ins: Instruction) -> int | None:
    if not _kernel(domain):
        return None
    vcpu, traps = domain.vcpu, domain.traps
    number = ins.modrm >> 3 & 7
    if number == 0:
        value = vcpu.cr(0)
    elif number == 2:
        value = domain.ram.words[domain.vcpu_info + abi.ARCH_CR2 >> 2]
    elif number == 3:
        value = extended_cr3(domain.l3_mfn)
    elif number == 4:
        value = traps.cr4
    else:
        return None
    vcpu.set_reg(ins.modrm & 7, value)
    return ins.length


def _write_cr(domain: Domain, ins: Instruction) -> int | None:
    if not _kernel(domain):
        return None
    vcpu, traps = domain.vcpu, domain.traps
    number, value = ins.modrm >> 3 & 7, vcpu.reg(ins.modrm & 7)
    if number == 0:
        if (value ^ vcpu.cr(0)) & ~CR0_TS:
            return None
        fpu_taskswitch(domain, value & CR0_TS)
    elif number == 2:
        domain.ram.write_u32(domain.vcpu_info + abi.ARCH_CR2, value)
        vcpu.set_cr2(value)
    elif number == 3:
        if new_base(domain, value >> 12 | value << 20 & 0xFFFFFFFF):
            return None
    elif number == 4:  # the other bits stay; the guest is not told
        traps.cr4 = GUEST_CR4 | value & (CR4_TSD | CR4_DE)
        vcpu.set_cr(4, vcpu.cr(4) & ~CR4_TSD | value & CR4_TSD)
    else:
        return None
    return ins.length


def _read_dr(domain: Domain, ins: Instruction) -> int | None:
    if not _kernel(domain):
        return None
    try:
        domain.vcpu.set_reg(ins.modrm & 7, get_debugreg(domain, ins.modrm >> 3 & 7))
    except HypercallError:
        return None
    return ins.length


def _write_dr(domain: Domain, ins: Instruction) -> int | None:
    if not _kernel(domain):
        return None
    try:
        set_debugreg(domain, ins.modrm >> 3 & 7, domain.vcpu.reg(ins.modrm & 7))
    except HypercallError:
        return None
    return ins.length


def _clts(domain: Domain, ins: Instruction) -> int | None:
    if not _kernel(domain):
        return None
    fpu_taskswitch(domain, 0)
    return ins.length


# ---------------------------------------------------------------------- registers of the model, time


def _read_msr(domain: Domain, ins: Instruction) -> int | None:
    vcpu = domain.vcpu
    value = read_msr(domain, vcpu.reg(layout.ECX)) if _kernel(domain) else None
    if value is None:
        return None
    vcpu.set_reg(layout.EAX, value)
    vcpu.set_reg(layout.EDX, value >> 32)
    return ins.length


def _write_msr(domain: Domain, ins: Instruction) -> int | None:
    vcpu = domain.vcpu
    value = vcpu.reg(layout.EDX) << 32 | vcpu.reg(layout.EAX)
    if not _kernel(domain) or not write_msr(domain, vcpu.reg(layout.ECX), value):
        return None
    return ins.length


def _read_tsc(domain: Domain, ins: Instruction) -> int | None:
    """Here because CR4.TSD is on, which is the guest's kernel's wish for ring 3."""
    vcpu = domain.vcpu
    if not _kernel(domain):
        return None
    vcpu.set_reg(layout.EAX, vcpu.tsc)
    vcpu.set_reg(layout.EDX, vcpu.tsc >> 32)
    return ins.length


# ---------------------------------------------------------------------- the rest


def _halt(domain: Domain, ins: Instruction) -> int | None:
    if not _kernel(domain):
        return None
    domain.sched.block()
    return ins.length


def _flag(domain: Domain, ins: Instruction) -> int | None:
    """CLI, STI: nothing, if the IOPL allows them at all; POPF could not do the same."""
    return ins.length if ports.iopl_allows(domain) else None


def _write_back(domain: Domain, ins: Instruction) -> int | None:
    return ins.length if _kernel(domain) else None


def _invalidate_page(domain: Domain, ins: Instruction) -> int | None:
    if not _kernel(domain) or ins.modrm >> 3 & 7 != 7 or ins.modrm >= 0xC0:
        return None
    segment = layout.DS if ins.segment is None else ins.segment
    domain.vcpu.flush_page(domain.vcpu.segment(segment).base + ins.offset & 0xFFFFFFFF)
    return ins.length


def _port_io(domain: Domain, ins: Instruction) -> int | None:
    """IN and OUT: bit 0 of the opcode is the width, bit 1 the direction, bit 3 whether DX holds the port."""
    vcpu = domain.vcpu
    size = ins.operand if ins.opcode & 1 else 1
    port = vcpu.reg(layout.EDX) & 0xFFFF if ins.opcode & 8 else ins.modrm
    if not ports.allowed(domain, port, size):
        return None
    mask = (1 << 8 * size) - 1
    eax = vcpu.reg(layout.EAX)
    if ins.opcode & 2:
        ports.write(domain, port, size, eax & mask)
    else:
        vcpu.set_reg(layout.EAX, eax & ~mask | ports.read(domain, port, size))
    return ins.length


OPERATIONS: Mapping[int, Callable[[Domain, Instruction], int | None]] = {
    0x6C: string_io, 0x6D: string_io, 0x6E: string_io, 0x6F: string_io,  # INS, OUTS
    0xE4: _port_io, 0xE5: _port_io, 0xE6: _port_io, 0xE7: _port_io,
    0xEC: _port_io, 0xED: _port_io, 0xEE: _port_io, 0xEF: _port_io,
    0xF4: _halt,
    0xFA: _flag, 0xFB: _flag,
    0x0F01: _invalidate_page,
    0x0F06: _clts,
    0x0F08: _write_back, 0x0F09: _write_back,  # INVD, WBINVD
    0x0F20: _read_cr, 0x0F21: _read_dr, 0x0F22: _write_cr, 0x0F23: _write_dr,
    0x0F30: _write_msr, 0x0F31: _read_tsc, 0x0F32: _read_msr,
}  # fmt: skip
