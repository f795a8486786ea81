"""Direct writes to page tables: an instruction that faults on a read-only page table is done for the guest.

A kernel may write the level 1 tables that it has mapped read-only as if they were memory, once it has switched
"writable page tables" on. The faulting instruction is emulated, its new entry validated like that of a hypercall.
What may not be written stays as it is, and the kernel gets its page fault. In C (ptwrite.c) the same is done
without a fault.

Ref: Xen arch/x86/pv/ro-page-fault.c (ptwr_emulated_update), arch/x86/traps.c (fixup_page_fault).
"""

from __future__ import annotations

from collections.abc import Callable

from paravirt.api import layout
from paravirt_xen.platform.abi import VMASST_WRITABLE_PAGETABLES
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import L1, MFN, PRESENT, RW, Frames
from paravirt_xen.platform.instruction import Instruction, Undecoded
from paravirt_xen.platform.ldt import LDT_WINDOW, LDT_WINDOW_BYTES
from paravirt_xen.platform.writers import WRITERS

PF_PRESENT, PF_WRITE, PF_USER, PF_RESERVED = 1, 2, 4, 8
PAGE = 4096
EFLAGS_DF = 0x400


class Refused(Exception):
    """The write is not for us: the guest gets its page fault."""


class Target:
    """The entry that an instruction writes: `size` bytes at `va`, in the table `mfn`."""

    def __init__(self, frames: Frames, mfn: int, va: int, size: int) -> None:
        if va & size - 1:
            raise Refused
        self._frames, self.size = frames, size
        self._index, self._shift = (mfn << 9) + ((va & 4095) >> 3), 8 * (va & 7)
        self._mask = (1 << 8 * size) - 1

    def read(self) -> int:
        return self._frames.quads[self._index] >> self._shift & self._mask

    def write(self, value: int, *, exchange: bool = False) -> None:
        """Change the entry.

        :param exchange: the instruction reads and writes as one; for plain writes there is an exception: the upper
            half of an entry that would be invalid makes it not present, since a kernel may write the halves in the
            wrong order.
        :raises Refused:
        """
        frames = self._frames
        old = frames.quads[self._index]
        new = old & ~(self._mask << self._shift) | (value & self._mask) << self._shift
        if new & PRESENT and frames.get_l1e(new):
            if exchange or self.size != 4 or not self._shift:
                raise Refused
            new &= ~PRESENT
        frames.store(self._index, new)
        if old & PRESENT:
            frames.put_l1e(old)


def settle_page_fault(domain: Domain, error: int) -> bool:
    """Whether a page fault, CR2 and EIP at it, is the hypervisor's business and done with; else it is the guest's."""
    va = domain.vcpu.cr(2)
    if va >= LDT_WINDOW and not error & (PF_USER | PF_RESERVED):
        if va < LDT_WINDOW + LDT_WINDOW_BYTES:
            if domain.ldt.fault(va):
                return True
            domain.vcpu.set_cr2(va - LDT_WINDOW + domain.ldt.base)  # the guest knows its own address of it
        return False
    return write_page_table(domain, va, error)


def write_page_table(domain: Domain, va: int, error: int) -> bool:
    """Do the instruction that has faulted with `error` on `va`, in ring 1, if it writes a page table; whether it is
    done."""
    if error != PF_PRESENT | PF_WRITE or not domain.assist(VMASST_WRITABLE_PAGETABLES):
        return False
    at = domain.l1_entry_address(va)
    if at is None:
        return False
    frames: Frames = domain.frames
    entry = domain.ram.quads[at >> 3]
    mfn = entry >> 12 & MFN
    if entry & (PRESENT | RW) != PRESENT or not frames.is_table(mfn, L1) or not frames.owned(mfn):
        return False
    try:
        instruction = Instruction(domain)
        _do(domain, instruction, va, lambda address, size: _target(frames, mfn, va, address, size))
    except (Undecoded, Refused):
        return False
    return True


def _target(frames: Frames, mfn: int, fault: int, va: int, size: int) -> Target:
    if (va ^ fault) & ~4095:
        raise Refused
    return Target(frames, mfn, va, size)


def _do(domain: Domain, instruction: Instruction, va: int, target: Callable[[int, int], Target]) -> None:
    opcode = instruction.opcode
    if opcode in (0xAA, 0xAB):
        _store_string(instruction, va, target)
        return
    writer = WRITERS.get(opcode)
    if writer is None:
        raise Undecoded(f"opcode {opcode:#x}")
    writer(domain, instruction, target)
    domain.vcpu.eip = instruction.start + instruction.length


def _store_string(instruction: Instruction, va: int, target: Callable[[int, int], Target]) -> None:
    """STOS, with its repetitions up to the end of the page."""
    vcpu = instruction.vcpu
    size = 1 if instruction.opcode == 0xAA else instruction.wide
    step = -size if vcpu.eflags & EFLAGS_DF else size
    base = vcpu.segment(layout.ES).base
    while not instruction.repeat or vcpu.reg(layout.ECX):
        edi = vcpu.reg(layout.EDI)
        address = edi + base & 0xFFFFFFFF
        if (address ^ va) & ~4095:
            return  # the rest of it faults by itself, or not
        target(address, size).write(vcpu.reg(layout.EAX))
        vcpu.set_reg(layout.EDI, edi + step)
        if not instruction.repeat:
            break
        vcpu.set_reg(layout.ECX, vcpu.reg(layout.ECX) - 1)
    vcpu.eip = instruction.start + instruction.length
