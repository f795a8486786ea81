# mypy: disable-error-code=empty-body
"""Ops of smp_ops: starting other CPUs, and sending them interrupts.

A uniprocessor kernel calls none of them, so every slot may be empty. An SMP kernel calls them without asking.

Ref: Linux 2.6.23, include/asm-i386/smp.h (struct smp_ops), init/main.c, kernel/cpu.c, arch/i386/kernel/smp.c.
There smp_call_function_mask takes its cpumask_t by value, one word for up to 32 CPUs; here it is a pointer, as
in flush_tlb_others.
"""

from __future__ import annotations

from paravirt.hookspecs._spec import op
from paravirt.hookspecs.types import S32, U32, GuestAddr

_UNIPROCESSOR = "the platform has one CPU"


@op(table="smp_ops", prototype="void (*smp_prepare_boot_cpu)(void)", null=_UNIPROCESSOR)
def smp_prepare_boot_cpu() -> None:
    """Set the boot CPU's per-CPU area up.

    Afterwards the GDT in use is the boot CPU's own and per-CPU variables are its own copies; the platform may
    have moved its per-CPU state there. Called by start_kernel before sched_init.
    """


@op(table="smp_ops", prototype="void (*smp_prepare_cpus)(unsigned max_cpus)", null=_UNIPROCESSOR)
def smp_prepare_cpus(max_cpus: U32) -> None:
    """Find the other CPUs.

    Afterwards cpu_possible_map and cpu_present_map hold them, and each has an idle task. Called by kernel_init
    before the initcalls.

    :param max_cpus: most CPUs that may be used, from ``maxcpus=``.
    """


@op(table="smp_ops", prototype="int (*cpu_up)(unsigned cpu)", null=_UNIPROCESSOR)
def cpu_up(cpu: U32) -> S32:
    """Start another CPU.

    Afterwards it runs its idle task and is in cpu_online_map, or it is stopped as before. Called by smp_init for
    each CPU present, and by CPU hotplug.

    :param cpu: its number.
    :returns: 0, or a negative errno.
    """


@op(table="smp_ops", prototype="void (*smp_cpus_done)(unsigned max_cpus)", null=_UNIPROCESSOR)
def smp_cpus_done(max_cpus: U32) -> None:
    """Finish the start of the other CPUs.

    Afterwards interrupts may be routed to any of them. Called by smp_init after the last cpu_up.

    :param max_cpus: most CPUs that may be used, from ``maxcpus=``.
    """


@op(table="smp_ops", prototype="void (*smp_send_stop)(void)", null=_UNIPROCESSOR)
def smp_send_stop() -> None:
    """Stop all other CPUs for good.

    Afterwards they are offline with interrupts off. Called by panic and by machine_shutdown.
    """


@op(table="smp_ops", prototype="void (*smp_send_reschedule)(int cpu)", null=_UNIPROCESSOR)
def smp_send_reschedule(cpu: S32) -> None:
    """Make another CPU look for work.

    Afterwards that CPU takes an interrupt soon, whose return path calls schedule. Called by the scheduler when
    it wakes a task there.

    :param cpu: its number.
    """


@op(
    table="smp_ops",
    prototype="int (*smp_call_function_mask)(const cpumask_t *mask, void (*func)(void *info), void *info, int wait)",
    null=_UNIPROCESSOR,
)
def smp_call_function_mask(mask: GuestAddr, func: GuestAddr, info: GuestAddr, wait: S32) -> S32:
    """Run a function on other CPUs.

    Afterwards each CPU of the mask runs it in interrupt context or, with `wait`, has run it. Called by
    smp_call_function and its like, with interrupts on.

    :param mask: bit mask of the CPUs; this one and those offline are left out.
    :param func: the function.
    :param info: its argument.
    :param wait: non-zero: return when all have finished.
    :returns: 0, or a negative errno.
    """
