# mypy: disable-error-code=empty-body
"""What a plugin may do in the life of a machine, in the order in which it is asked.

`paravirt_backends`, `paravirt_commands`, `paravirt_inspect` and `paravirt_hookspecs` are for plugins (modules);
the rest is implemented by a `Backend`, which is a plugin itself: one object a machine, registered while it is the
chosen one. Observers may implement any of them beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import typer
    from pydantic import BaseModel

    from paravirt.backend import Backend, Verdict
    from paravirt.forms import OpTable
    from paravirt.guest import Guest, KernelInfo
    from paravirt.linuxops.pages import StubPages
    from paravirt.machine.outcome import Outcome

hookspec = pluggy.HookspecMarker("paravirt")


@hookspec
def paravirt_hookspecs() -> Iterable[ModuleType]:
    """Modules with further hook specifications, for other plugins to implement. Asked when the plugin is loaded."""


@hookspec
def paravirt_commands(app: typer.Typer) -> None:
    """Add commands to the command line.

    :param app: the application; give it sub-commands named after the backend.
    """


@hookspec(firstresult=True)
def paravirt_inspect(data: bytes, path: Path) -> Iterable[tuple[str, object]] | None:
    """What ``paravirt inspect`` prints of a file that is no kernel: facts, each with its name. None: not known.

    :param data: the file's bytes. :param path: its name, for messages.
    :raises ImageError: the plugin knows the kind of file, and this one is of no use; the message says why.
    """


@hookspec
def paravirt_backends() -> Iterable[type[Backend]]:
    """The backends that this plugin offers."""


@hookspec(firstresult=True)
def paravirt_options() -> type[BaseModel]:
    """The pydantic model of the backend's options: frozen, extras forbidden, every field described."""


@hookspec(firstresult=True)
def paravirt_probe(kernel: KernelInfo) -> Verdict:
    """Say whether this backend can run a kernel, with the reason. Nothing may be changed by asking.

    :param kernel: the image and its notes.
    """


@hookspec(firstresult=True)
def paravirt_reserved_memory(memory: int) -> int:
    """Bytes of RAM that the machine needs beside the guest's own: a hypervisor's. Without an answer: none.

    :param memory: bytes that the guest gets. :return: a multiple of 4096.
    """


@hookspec
def paravirt_devices(guest: Guest) -> None:
    """Attach devices: claim ports and addresses, connect interrupt lines and the exit table.

    :param guest: the kernel and its machine, which is powered off yet.
    """


@hookspec
def paravirt_build_guest(guest: Guest) -> None:
    """Build the guest's first moment: memory, registers, page tables where the platform has them on.

    :param guest: the kernel and its machine; nothing has run.
    """


@hookspec(firstresult=True)
def paravirt_install_ops(guest: Guest) -> OpTable:
    """The op table for a kernel that takes one from its backend.

    :param guest: the kernel and its machine; the image is in memory.
    """


@hookspec(firstresult=True)
def paravirt_stub_pages(guest: Guest) -> StubPages:
    """Where code may be put behind the op slots of a Linux kernel that has its own tables, and at which moments.

    Asked when ops of such a kernel are to be counted, traced or replaced. Nothing may be changed by asking.

    :param guest: the kernel and its machine; the image is in memory.
    """


@hookspec
def paravirt_machine_ready(guest: Guest) -> None:
    """The machine is about to run its first instruction.

    :param guest: the kernel and its machine, complete.
    """


@hookspec
def paravirt_exit(guest: Guest, outcome: Outcome) -> None:
    """The run is over; memory and registers are as they were left.

    :param guest: the kernel and its machine. :param outcome: how it ended.
    """
