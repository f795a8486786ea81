"""The op that brackets batches: page-table updates, and the context switch.

Ref: Linux 2.6.23, include/asm-i386/paravirt.h (enum paravirt_lazy_mode); callers in mm/memory.c, mm/mremap.c,
arch/i386/kernel/process.c (__switch_to).
"""

from __future__ import annotations

from paravirt.hookspecs._spec import op
from paravirt.hookspecs.types import U32

LAZY_NONE, LAZY_MMU, LAZY_CPU, LAZY_FLUSH = range(4)


@op(prototype="void (*set_lazy_mode)(enum paravirt_lazy_mode mode)")
def set_lazy_mode(mode: U32) -> None:
    """Begin, flush or end a batch.

    After 0 or 3 all that was queued has taken effect, in the order of the calls; 3 keeps the mode. Afterwards
    the page-table ops (mode 1) or the ops of a context switch (mode 2) may be queued. A batch belongs
    to one CPU; leaving when none is open, or opening one inside another, is the kernel's bug. Called around
    page-table loops and by __switch_to.

    :param mode: 0 none (ends the batch), 1 MMU, 2 CPU, 3 flush.
    """
