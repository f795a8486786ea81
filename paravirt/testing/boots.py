"""Boots a paravirt kernel on a backend up to a quiet moment, and hands the machine over there.

start_kernel runs as in every boot; where it would enter rest_init, a function of the caller's takes its place.
Interrupts are on, the clock ticks, call sites are patched, one task exists. What the function calls (`ops.x`,
`kernel.f`) runs on the guest's boot stack. Another function may stand in for one op that start_kernel calls: ops
that set the platform up can be looked at where they belong, and once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from paravirt.backend import Backend
from paravirt.binding import bind
from paravirt.boot_sequence import REFERENCE_KERNEL, start_kernel
from paravirt.calls import Calls
from paravirt.config import config_path, load_config
from paravirt.console import Console
from paravirt.errors import ParavirtError, PluginError
from paravirt.guest import Guest, KernelInfo
from paravirt.image import load_image
from paravirt.install import install
from paravirt.kernel import Kernel
from paravirt.machine.core import Machine
from paravirt.machine.outcome import End, GuestExit, Outcome
from paravirt.ops import Ops
from paravirt.options import DEFAULT_EPOCH, BootOptions
from paravirt.plugins import load_plugins
from paravirt.run import Run
from paravirt.steps import Steps


@dataclass
class Stopped:
    """A machine that stands at rest_init.

    :ivar output: what the console has printed so far; it grows.
    """

    backend: Backend
    guest: Guest
    machine: Machine
    ops: Ops
    kernel: Kernel
    calls: Calls
    console: Console
    output: bytearray


class _StoppingKernel(Kernel):
    """A kernel whose rest_init is the caller's function."""

    inspect: Callable[[], object]

    def rest_init(self) -> None:
        self.inspect()
        raise GuestExit(Outcome(End.STOPPED, "the inspection is over"))


class _OpsBut(Ops):
    """The ops, one of which is a function of the caller's."""

    name: str
    instead: Callable[..., int]

    def __getattr__(self, name: str) -> Callable[..., int]:
        return self.instead if name == self.name else super().__getattr__(name)


class InPlace(NamedTuple):
    """A function in place of an op, where start_kernel calls it: it gets the machine and the op's arguments, and
    gives the op's result."""

    op: str
    function: Callable[[Stopped, tuple[int, ...]], int]


def boot_to_rest_init(inspect: Callable[[Stopped], None], options: BootOptions | None = None,
                      kernel: Path | str = REFERENCE_KERNEL,
                      after: Callable[[Stopped, Outcome], None] = lambda stopped, outcome: None,
                      in_place: InPlace | None = None) -> Outcome:
    """Boot `kernel` and call `inspect` in rest_init's place; returns how the run ended.

    :param inspect: may end the run by raising GuestExit; any other exception comes out here.
    :param after: called when the run is over, while the machine can still be looked at.
    :param in_place: called earlier; its exceptions come out here too.
    :raises ParavirtError: the backend cannot boot this kernel.
    """
    options = options or BootOptions()
    plugins = load_plugins(load_config(config_path(options.plugins_file)), options.plugins)
    info = KernelInfo.of(load_image(Path(kernel)))
    if info.note is None:
        raise PluginError(f"{kernel}: not a paravirt kernel")
    backend, _ = plugins.select(options.backend, info)
    output = bytearray()
    console = Console(output.extend)
    raised: list[BaseException] = []
    with Machine(options.memory, options.disabled(), plugins.reserved_memory(options.memory)) as machine:
        guest = Guest(machine, info, plugins.options(backend, options.options), console, options.append,
                      options.initrd_contents(), DEFAULT_EPOCH, options.count_ops, options.initrd_name)
        run = Run(guest, backend.name, options, Steps())
        hook = plugins.manager.hook
        run.call(hook.paravirt_devices, guest=guest)
        run.call(hook.paravirt_build_guest, guest=guest)
        table = run.call(hook.paravirt_install_ops, guest=guest)
        if table is None:
            raise PluginError(f"backend {backend.name!r} has no op table")
        slots = bind(plugins.manager, backend.name, table)
        ops, calls = install(guest, backend.name, table, slots, run.steps, count_ops=options.count_ops)
        stopping = _StoppingKernel(guest, calls, run.steps, ops, replace_paravirt=options.replace_paravirt)
        stopped = Stopped(backend, guest, machine, ops, stopping, calls, console, output)

        def watched(function: Callable[..., int | None], *arguments: object) -> int:
            try:
                return function(*arguments) or 0
            except GuestExit:
                raise
            except BaseException as error:
                raised.append(error)
                raise GuestExit(Outcome(End.STOPPED, "the inspection failed")) from None

        stopping.inspect = lambda: watched(inspect, stopped)
        seen = ops
        if in_place is not None:
            seen = _OpsBut(slots, calls, run.steps, ops.counters)
            seen.name = in_place.op
            seen.instead = lambda *arguments: watched(in_place.function, stopped, arguments)
        run.body = lambda: calls.run(lambda: start_kernel(seen, stopping))
        run.kernel, run.op_counts = stopping, ops.counts
        run.call(hook.paravirt_machine_ready, guest=guest)
        try:
            run.to_the_end()
            raise AssertionError("a run does not return")
        except GuestExit as end:
            outcome = end.outcome
        except ParavirtError as error:
            outcome = Outcome(End.ERROR, str(error), machine.engine.eip)
        if raised:
            raise raised[0]
        after(stopped, outcome)
        return outcome


def backend_names(plugins: Iterable[object] = ()) -> list[str]:
    """Installed backends that can boot the reference kernel."""
    loaded = load_plugins(load_config(config_path(None)), plugins)
    info = KernelInfo.of(load_image(REFERENCE_KERNEL))
    return [name for name, backend in loaded.backends.items() if loaded.probe(backend, info).answer.value != "no"]
