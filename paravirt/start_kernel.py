"""The core kernel-boot sequence, in the order of Linux's start_kernel and setup_arch.

Every ``ops.x()`` is an op of the backend, every ``kernel.f()`` a function of the guest; both are ordinary
calls. What lies between them runs as it would if C had called them: interrupts come, tasks switch.

Ref: Linux 2.6.23 init/main.c (start_kernel), arch/i386/kernel/setup.c (setup_arch), arch/i386/mm/init.c
(paging_init), arch/i386/kernel/cpu/bugs.c (check_bugs).
"""

from __future__ import annotations

from paravirt.kernel import Kernel
from paravirt.ops import Ops
from paravirt.patch import patch_sites


def start_kernel(ops: Ops, kernel: Kernel) -> None:
    """Boot the kernel on a backend's ops. Does not return: the run's outcome is raised in rest_init."""
    swapper_pg_dir = kernel.symbol("swapper_pg_dir")

    ops.irq_disable()

    # setup_arch
    kernel.early_cpu_init()
    ops.arch_setup()
    kernel.print_memory_map(ops.memory_setup())
    kernel.setup_memory()

    # paging_init: init_mm's page tables, made by the kernel through the ops
    kernel.set_nx()
    ops.pagetable_setup_start(swapper_pg_dir)
    kernel.pagetable_init()
    ops.pagetable_setup_done(swapper_pg_dir)
    ops.write_cr3(kernel.pa(swapper_pg_dir))
    kernel.zone_sizes_init()
    ops.post_allocator_init()

    # traps, the first task, interrupts
    kernel.sched_init()
    kernel.trap_init()
    kernel.cpu_init()
    ops.init_IRQ()

    # time
    kernel.timekeeping_init(ops.get_wallclock())
    kernel.tsc_init(ops.get_cpu_khz())
    ops.irq_enable()
    kernel.mem_init()
    ops.time_init()
    kernel.calibrate_delay()

    # the last moment at which a backend may have changed its slots is past: patch their call sites
    kernel.check_bugs()
    kernel.alternatives_done(patch_sites(ops, kernel))

    ops.banner()
    kernel.rest_init()
