# mypy: disable-error-code=empty-body
"""Ops of the interrupt flag, and of waiting for an interrupt.

The four flag ops are the kernel's hottest. From C their sites save ECX and EDX around the call and may lose
only EAX, so an implementation must keep EBX, ESI, EDI and EBP, and may use EAX, ECX and EDX. It must not rely
on DS or ES where assembly calls irq_disable and irq_enable: those may still be the user's.

Ref: Linux 2.6.23, include/asm-i386/paravirt.h, arch/i386/kernel/entry.S; Intel SDM vol. 3, 6.8.1 (IF).
"""

from __future__ import annotations

from paravirt.hookspecs._spec import op
from paravirt.hookspecs.types import U32


@op(prototype="unsigned long (*save_fl)(void)")
def save_fl() -> U32:
    """Read the interrupt flag.

    No state changes. Called by local_irq_save, local_save_flags and irqs_disabled, in locks and in printk.

    :returns: EFLAGS; only bit 9 (IF) has a meaning.
    """


@op(prototype="void (*restore_fl)(unsigned long flags)")
def restore_fl(flags: U32) -> None:
    """Set the interrupt flag to what save_fl returned.

    Afterwards interrupts are on exactly if bit 9 of `flags` is set, and one that was pending is delivered
    at the latest after the caller's next instruction. No other flag is promised. Called by local_irq_restore.

    :param flags: a result of save_fl; bits other than 9 (IF) are ignored.
    """


@op(prototype="void (*irq_disable)(void)")
def irq_disable() -> None:
    """Turn interrupts off on this CPU.

    Afterwards none is delivered until irq_enable, restore_fl, safe_halt or a return to a context that has them
    on. Called by local_irq_disable and by the return paths of entry.S.
    """


@op(prototype="void (*irq_enable)(void)")
def irq_enable() -> None:
    """Turn interrupts on on this CPU.

    Afterwards they are on, and one that was pending is delivered, at the latest after the caller's next
    instruction. Called by local_irq_enable and by the entry paths of entry.S.
    """


@op(prototype="void (*safe_halt)(void)")
def safe_halt() -> None:
    """Turn interrupts on and wait for one, with no gap between the two.

    Afterwards interrupts are on and at least one was delivered, even if it was pending before the call. Called
    by the idle loop with interrupts off; Linux's halt() comes here as well.
    """


@op(prototype="void (*halt)(void)")
def halt() -> None:
    """Stop the CPU with the interrupt flag as it is.

    With interrupts on it returns after the next one; with interrupts off it never returns. No path of Linux
    2.6.23 calls this slot.
    """
