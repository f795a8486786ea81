"""The boot sequence: two functions, to be read from top to bottom. Neither names a backend.

`boot` chooses a backend, builds the machine, runs it, and tells what happened. `start_kernel` is the core
kernel-boot sequence, for kernels that take their op table from the backend; others have their own.

Ref: Linux 2.6.23 init/main.c (start_kernel), arch/i386/kernel/setup.c (setup_arch), arch/i386/mm/init.c
(paging_init), arch/i386/kernel/cpu/bugs.c (check_bugs).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from paravirt.binding import bind
from paravirt.config import config_path, load_config
from paravirt.console import Console
from paravirt.errors import ParavirtError, PluginError
from paravirt.guest import Guest, KernelInfo
from paravirt.image import load_image
from paravirt.install import install
from paravirt.kernel import Kernel
from paravirt.linuxops.install import serve_linux
from paravirt.linuxops.panic import watch_panic
from paravirt.machine.core import Machine
from paravirt.machine.outcome import GuestExit
from paravirt.ops import Ops
from paravirt.options import DEFAULT_EPOCH, BootOptions
from paravirt.patch import patch_sites
from paravirt.plugins import Plugins, load_plugins
from paravirt.record import Record
from paravirt.run import Run
from paravirt.steps import Step, Steps

REFERENCE_KERNEL = Path(__file__).parent / "data" / "paravirt-kernel"


def boot(kernel: Path | str | None = None, options: BootOptions | None = None, console: Console | None = None, *,
         on_step: Callable[[Step], None] = lambda step: None,
         on_end: Callable[[Guest, Record], None] = lambda guest, record: None,
         on_slice: Callable[[int, int], None] | None = None) -> Record:
    """Boot `kernel` (default: the reference kernel) and run it to its end.

    :param on_step: told of each step of the boot when it is over.
    :param on_end: told of the record while the machine can still be looked at; also before an error is raised.
    :param on_slice: called again and again while the guest runs, with instructions and virtual ns so far.
    :raises ParavirtError: the user's mistake or the backend's, in one message.
    """
    options, console = options or BootOptions(), console or Console()
    path = Path(kernel) if kernel is not None else REFERENCE_KERNEL
    steps = Steps(options.until, on_step)

    # choose: plugins, the image, every backend's verdict
    with steps.hook("load_plugins", str(config := config_path(options.plugins_file))):
        plugins = load_plugins(load_config(config), options.plugins)
    with steps.hook("load_image", str(path)):
        info, initrd = KernelInfo.of(load_image(path)), options.initrd_contents()
    with steps.hook("paravirt_probe", "every backend"):
        backend, _ = plugins.select(options.backend, info)
        model, assign = plugins.options(backend, options.options), plugins.assigned(backend, options.options)

    with Machine(options.memory, options.disabled(), plugins.reserved_memory(options.memory)) as machine:
        epoch = int(time.time()) if options.rtc_now else DEFAULT_EPOCH
        guest = Guest(machine, info, model, console, options.append, initrd, epoch,
                      options.count_ops, options.initrd_name)
        run = Run(guest, backend.name, options, steps, on_slice)
        hook = plugins.manager.hook
        try:
            # build: devices, the guest's first moment, its op table
            run.call(hook.paravirt_devices, guest=guest)
            run.call(hook.paravirt_build_guest, guest=guest)
            if info.note is not None:
                install_ops(plugins, guest, run)
            serve_linux(plugins, guest, run, assign)
            watch_panic(guest)
            run.call(hook.paravirt_machine_ready, guest=guest)
            # run: until the guest, the user or an error ends it
            run.to_the_end()
        except GuestExit as end:
            run.ended(end.outcome)
        except ParavirtError as error:
            run.failed(error)
            raise
        finally:
            record = run.finish(hook, on_end)
        return record


def start_kernel(ops: Ops, kernel: Kernel) -> None:
    """Boot a kernel on a backend's ops.

    Every ``ops.x()`` is an op, every ``kernel.f()`` a function of the guest; both are ordinary calls. What lies
    between them runs as if C had called them: interrupts come, tasks switch. Does not return: the run's outcome
    is raised in rest_init.
    """
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
    ops.flush_tlb_kernel()
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


def install_ops(plugins: Plugins, guest: Guest, run: Run) -> None:
    """Bind the backend's op table, put it into the kernel, and let start_kernel boot it."""
    hook = plugins.manager.hook
    table = run.call(hook.paravirt_install_ops, guest=guest)
    if table is None:
        raise PluginError(f"backend {run.backend!r} has no op table, and {guest.kernel.image.path} needs one")
    slots = bind(plugins.manager, run.backend, table)
    ops, calls = install(guest, run.backend, table, slots, run.steps, count_ops=run.options.count_ops)
    kernel = Kernel(guest, calls, run.steps, ops, replace_paravirt=run.options.replace_paravirt)
    if run.tracer is not None:
        run.tracer.watch_ops(ops)
    run.body = lambda: calls.run(lambda: start_kernel(ops, kernel))
    run.kernel, run.op_counts = kernel, ops.counts
