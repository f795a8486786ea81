"""What a boot may be asked for: the command line's options as one value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from paravirt.image.files import read_file
from paravirt.machine import accel
from paravirt.machine.core import DEFAULT_MEMORY

TRACED = ("delivery", "platform")  # seams through which exits would pass a trace unseen
DEFAULT_EPOCH = 1191961898  # 2007-10-09 20:31:38 UTC, the release of Linux 2.6.23


@dataclass(frozen=True)
class BootOptions:
    """
    :ivar memory: bytes of RAM. :ivar append: the kernel's command line. :ivar initrd: its contents, or its file.
    :ivar options: of the backend, as text; its own model converts them.
    :ivar engine: auto, or portable. :ivar no_accel: names of `machine.accel.NAMES` to do without.
    :ivar trace_ops: file that gets a line for each op that a real Linux calls.
    :ivar until: stop when the step of this name is over.
    :ivar mark: at each match in the output the counters so far go into the record.
    :ivar sample_ns: the counters go into the record this often, in virtual time; 0: never.
    :ivar trace: file to write a trace to (trace.py), with at most `trace_limit` events.
    :ivar count_modes: count instructions of user mode apart; slower.
    :ivar timeout: wall seconds. :ivar idle_limit: virtual seconds without output or input, 0 for no limit.
    :ivar hash_state: put `Record.state_hash` into the record, which takes some 50 ms for 64 MiB in use.
    :ivar realtime: idle time takes as long as it says.
    :ivar rtc_now: the clock begins at the host's time, else at `DEFAULT_EPOCH`.
    :ivar plugins: plugin objects beside those of `plugins_file` and of installed packages.
    """

    backend: str = "auto"
    memory: int = DEFAULT_MEMORY
    append: str = ""
    initrd: bytes | Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    engine: str = "auto"
    no_accel: tuple[str, ...] = ()
    count_ops: bool = False
    count_modes: bool = False
    trace_ops: Path | None = None
    replace_paravirt: bool = True
    until: str | None = None
    mark: re.Pattern[bytes] | None = None
    sample_ns: int = 0
    trace: Path | None = None
    trace_limit: int = 1_000_000
    timeout: float | None = None
    max_instructions: int | None = None
    idle_limit: float = 600.0
    hash_state: bool = True
    realtime: bool = False
    rtc_now: bool = False
    plugins_file: Path | None = None
    plugins: tuple[object, ...] = ()

    def initrd_contents(self) -> bytes | None:
        """:raises ImageError: its file cannot be read."""
        return read_file(self.initrd, "initrd") if isinstance(self.initrd, Path) else self.initrd

    @property
    def initrd_name(self) -> str:
        """What a multiboot kernel is told of it: the module's string."""
        return str(self.initrd) if isinstance(self.initrd, Path) else "initrd"

    def disabled(self) -> Iterable[str]:
        """Seams of the engine to leave in their portable form."""
        if self.engine == "portable":
            return tuple(accel.NAMES)
        return (*self.no_accel, *(TRACED if self.trace is not None else ()))
