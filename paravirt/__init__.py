"""Boots i386 kernels through an abstract paravirt_ops hook specification, with pluggable backends.

``paravirt.boot(kernel, backend="native")`` boots a kernel and returns its `Record`; ``with Machine() as
machine`` is the machine alone. Both are loaded on first use: importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from paravirt.console import Console
    from paravirt.machine.core import Machine
    from paravirt.record import Record

__version__ = "0.1.0"
__all__ = ["Machine", "boot"]


def boot(kernel: Path | str | None = None, *, console: Console | None = None, **options: Any) -> Record:
    """Boot `kernel` (default: the reference kernel) and run it to its end.

    :param console: takes the guest's output and gives its input; default: neither.
    :param options: fields of `paravirt.options.BootOptions`: ``backend="native"``, ``count_ops=True`` ...
    :raises ParavirtError: the user's mistake or the backend's, in one message.
    """
    from paravirt.boot_sequence import boot as boot_kernel
    from paravirt.options import BootOptions

    return boot_kernel(kernel, BootOptions(**options), console)


def __getattr__(name: str) -> Any:
    if name == "Machine":
        from paravirt.machine.core import Machine

        return Machine
    raise AttributeError(f"module 'paravirt' has no attribute {name!r}")
