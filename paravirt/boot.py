"""Boots a kernel: chooses a backend, builds the machine, runs it, and tells what happened.

`boot` is the whole of it; it names no backend. A kernel that takes its op table from the backend is booted
by `start_kernel`; others have their own.
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
from paravirt.machine.core import Machine
from paravirt.machine.outcome import GuestExit
from paravirt.options import DEFAULT_EPOCH, BootOptions
from paravirt.plugins import Plugins, load_plugins
from paravirt.record import Record
from paravirt.run import Run
from paravirt.start_kernel import start_kernel
from paravirt.steps import Step, Steps

REFERENCE_KERNEL = Path(__file__).parent / "data" / "paravirt-kernel"


def boot(kernel: Path | str | None = None, options: BootOptions | None = None, console: Console | None = None, *,
         on_step: Callable[[Step], None] = lambda step: None,
         on_end: Callable[[Guest, Record], None] = lambda guest, record: None) -> Record:
    """Boot `kernel` (default: the reference kernel) and run it to its end.

    :param on_step: told of each step of the boot when it is over.
    :param on_end: told of the record while the machine can still be looked at; also before an error is raised.
    :raises ParavirtError: the user's mistake or the backend's, in one message.
    """
    options, console = options or BootOptions(), console or Console()
    path = Path(kernel) if kernel is not None else REFERENCE_KERNEL
    steps = Steps(options.until, on_step)

    # choose: plugins, the image, every backend's verdict
    with steps.hook("load_plugins", str(config := config_path(options.plugins_file))):
        plugins = load_plugins(load_config(config), options.plugins)
    with steps.hook("load_image", str(path)):
        info = KernelInfo.of(load_image(path))
    with steps.hook("paravirt_probe", "every backend"):
        backend, _ = plugins.select(options.backend, info)
        model = plugins.options(backend, options.options)

    with Machine(options.memory, options.disabled()) as machine:
        epoch = int(time.time()) if options.rtc_now else DEFAULT_EPOCH
        guest = Guest(machine, info, model, console, options.append, options.initrd, epoch)
        run = Run(guest, backend.name, options, steps)
        hook = plugins.manager.hook
        try:
            # build: devices, the guest's first moment, its op table
            run.call(hook.paravirt_devices, guest=guest)
            run.call(hook.paravirt_build_guest, guest=guest)
            if info.note is not None:
                install_ops(plugins, guest, run)
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


def install_ops(plugins: Plugins, guest: Guest, run: Run) -> None:
    """Bind the backend's op table, put it into the kernel, and let start_kernel boot it."""
    hook = plugins.manager.hook
    table = run.call(hook.paravirt_install_ops, guest=guest)
    if table is None:
        raise PluginError(f"backend {run.backend!r} has no op table, and {guest.kernel.image.path} needs one")
    slots = bind(plugins.manager, run.backend, table)
    ops, calls = install(guest, run.backend, table, slots, run.steps, count_ops=run.options.count_ops)
    kernel = Kernel(guest, calls, run.steps, ops, replace_paravirt=run.options.replace_paravirt)
    run.body = lambda: calls.run(lambda: start_kernel(ops, kernel))
    run.kernel = kernel
