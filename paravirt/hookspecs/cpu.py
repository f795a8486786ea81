# mypy: disable-error-code=empty-body
"""Ops of the CPU: identification, control and debug registers, MSRs, counters, port I/O, and the two ways back
to user mode. The descriptor tables are in descriptors.py.

Ref: Linux 2.6.23, include/asm-i386/paravirt.h; callers in arch/i386/kernel/cpu/common.c (cpu_init), process.c,
entry.S. Intel SDM vol. 3, chapters 2.5 (control registers), 17 (debug).
"""

from __future__ import annotations

from paravirt.hookspecs._spec import op
from paravirt.hookspecs.types import S32, U32, U64, GuestAddr


@op(prototype="void (*cpuid)(u32 *eax, u32 *ebx, u32 *ecx, u32 *edx)")
def cpuid(eax: GuestAddr, ebx: GuestAddr, ecx: GuestAddr, edx: GuestAddr) -> None:
    """Identify the CPU, less the features that the platform hides.

    Afterwards the four words hold the leaf's values; no register state is promised. Called by early_cpu_init,
    by identify_cpu and wherever a feature is probed.

    :param eax: in: the leaf; out: EAX.
    :param ebx: out: EBX.
    :param ecx: in: the sub-leaf; out: ECX.
    :param edx: out: EDX.
    """


@op(prototype="unsigned long (*get_debugreg)(int reg)")
def get_debugreg(reg: S32) -> U32:
    """Read a debug register.

    No state changes. Called by the debug exception (DR6) and by the switch of a debugged task.

    :param reg: 0 to 3, 6 or 7; any other number is the kernel's bug.
    :returns: its value.
    """


@op(prototype="void (*set_debugreg)(int reg, unsigned long value)")
def set_debugreg(reg: S32, value: U32) -> None:
    """Write a debug register.

    Afterwards get_debugreg returns the value, reserved bits aside, and breakpoints fire accordingly. Called by
    cpu_init, which clears all six, and by the switch to a debugged task.

    :param reg: 0 to 3, 6 or 7; any other number is the kernel's bug.
    :param value: what to write.
    """


@op(prototype="void (*clts)(void)")
def clts() -> None:
    """Clear CR0.TS.

    Afterwards FPU instructions no longer raise #NM; nothing else changes. Called by the #NM handler and by
    kernel_fpu_begin; read_cr0 must agree.
    """


@op(prototype="unsigned long (*read_cr0)(void)")
def read_cr0() -> U32:
    """Read CR0.

    No state changes. Called by stts and FPU set-up, and from assembly by the #NM entry.

    :returns: CR0 as the kernel last set it; TS is exact.
    """


@op(prototype="void (*write_cr0)(unsigned long value)")
def write_cr0(value: U32) -> None:
    """Write CR0.

    Afterwards TS, WP and the FPU bits are those of `value`; a platform may refuse to change PE and PG. Called
    by stts and CPU set-up.

    :param value: the new CR0.
    """


@op(prototype="unsigned long (*read_cr2)(void)")
def read_cr2() -> U32:
    """Read the address of the last page fault.

    No state changes. Called by the page-fault handler before it turns interrupts on.

    :returns: CR2, or where the platform keeps it for the guest.
    """


@op(prototype="void (*write_cr2)(unsigned long value)")
def write_cr2(value: U32) -> None:
    """Write the address of the last page fault.

    Afterwards read_cr2 returns it. Called on resume.

    :param value: the address.
    """


@op(prototype="unsigned long (*read_cr3)(void)")
def read_cr3() -> U32:
    """Read the base of the address space.

    No state changes. Called by oops output and by TLB flushes through CR3.

    :returns: the pseudo-physical address of the page directory, as write_cr3 got it.
    """


@op(prototype="void (*write_cr3)(unsigned long value)")
def write_cr3(value: U32) -> None:
    """Load the base of the address space.

    Afterwards the CPU translates by that directory and has no stale entry of another one, global pages aside;
    in lazy CPU mode this may wait for the end of the batch. Called by paging_init, switch_mm and load_cr3.

    :param value: pseudo-physical address of the page directory, 32-byte aligned under PAE.
    """


@op(prototype="unsigned long (*read_cr4_safe)(void)")
def read_cr4_safe() -> U32:
    """Read CR4 where the CPU may have none.

    No state changes. Called by oops output.

    :returns: CR4, or 0 on a CPU without it.
    """


@op(prototype="unsigned long (*read_cr4)(void)")
def read_cr4() -> U32:
    """Read CR4.

    No state changes. Called by set_in_cr4 and the global TLB flush.

    :returns: CR4 as the kernel last set it.
    """


@op(prototype="void (*write_cr4)(unsigned long value)")
def write_cr4(value: U32) -> None:
    """Write CR4.

    Afterwards the features the platform grants are on or off as asked; a change of PGE flushes the TLB, global
    pages too. Called by set_in_cr4 (PSE, PGE, PAE, FXSR, MCE) and by cpu_init.

    :param value: the new CR4.
    """


@op(prototype="void (*wbinvd)(void)")
def wbinvd() -> None:
    """Write back and empty the caches.

    No state that the guest can read changes. Called by MTRR and AGP set-up and by a CPU that goes offline.
    """


@op(prototype="u64 (*read_msr)(u32 msr, int *err)")
def read_msr(msr: U32, err: GuestAddr) -> U64:
    """Read a model-specific register.

    Afterwards `*err` is 0, or -14 (-EFAULT) when the register does not exist; the fault itself is not seen.
    Called by rdmsr and rdmsr_safe.

    :param msr: its number.
    :param err: where to put the error, an int.
    :returns: its value; undefined after an error.
    """


@op(prototype="int (*write_msr)(u32 msr, u64 value)")
def write_msr(msr: U32, value: U64) -> S32:
    """Write a model-specific register.

    Afterwards read_msr returns the value, or nothing has changed and the result is an error. Called by wrmsr
    and wrmsr_safe: EFER in set_nx, the sysenter MSRs in check_bugs.

    :param msr: its number.
    :param value: what to write.
    :returns: 0, or -14 (-EFAULT) when the CPU refuses.
    """


@op(prototype="u64 (*read_tsc)(void)")
def read_tsc() -> U64:
    """Read the time-stamp counter.

    No state changes. It never runs backwards on one CPU. Called by calibration, udelay and the TSC clock source.

    :returns: ticks at the rate of get_cpu_khz.
    """


@op(prototype="u64 (*read_pmc)(int counter)")
def read_pmc(counter: S32) -> U64:
    """Read a performance counter.

    No state changes. Called by profilers alone.

    :param counter: its number, as RDPMC takes it in ECX.
    :returns: its value, 40 bits on most CPUs.
    """


@op(prototype="void (*set_iopl_mask)(unsigned mask)")
def set_iopl_mask(mask: U32) -> None:
    """Set the I/O privilege level of the user code that runs next.

    Afterwards user code may use ports exactly if the level is 3; no other flag changes. Called by sys_iopl and,
    when two tasks differ, by __switch_to.

    :param mask: the level in place, bits 12 and 13 of EFLAGS.
    """


@op(prototype="void (*io_delay)(void)")
def io_delay() -> None:
    """Wait as long as an old device needs between two port accesses.

    No state changes. Called by the inb_p and outb_p family; the slot is read each time.
    """


@op(
    prototype="void (*irq_enable_sysexit)(void)",
    null="the kernel must not use sysenter, and never comes here",
    jumped=True,
)
def irq_enable_sysexit() -> None:
    """Turn interrupts on and return to user mode by SYSEXIT, with no interrupt between the two.

    Entered by a jump with EDX the user's EIP and ECX its ESP; afterwards user code runs with interrupts on and
    every other register as it was. Used by the sysenter path of entry.S.
    """


@op(prototype="void (*iret)(void)", jumped=True)
def iret() -> None:
    """Return from an interrupt or exception.

    Entered by a jump with the frame on the stack (EIP, CS, EFLAGS, and ESP, SS for user mode); afterwards the
    frame's context runs, with its interrupt flag. A frame that the CPU refuses faults inside the op, so the
    instruction needs an entry in the kernel's exception table. Used by every return path of entry.S.
    """
