"""The kernel of tests/guests/linuxlike, which looks to the framework as Linux 2.6.32 does: built once, by content.

It brings its own pv_*_ops tables, calls through them and prints what came of it, with the TSC at each line.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from paravirt.boot_sequence import boot
from paravirt.build import toolchain
from paravirt.console import Console
from paravirt.options import BootOptions
from paravirt.record import Record
from tests.kernels import SOURCES, WORK

FLAGS = (
    "-target", "x86-freestanding-none", "-mcpu=i686", "-O2", "-g0", "-ffreestanding", "-fno-pic", "-fno-common",
    "-fno-strict-aliasing", "-fno-stack-protector", "-mregparm=3", "-mno-sse", "-mno-mmx", "-fno-jump-tables",
    "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-sanitize=all", "-fno-builtin",
)
LINK = ("-m", "elf_i386", "-static", "--build-id=none", "-z", "noexecstack", "--no-dynamic-linker")
MEMORY = 64 << 20


@cache
def linuxlike() -> Path:
    """The kernel's file."""
    folder = SOURCES / "linuxlike"
    sources = sorted(path for path in folder.iterdir() if path.suffix in (".c", ".S"))
    steps = [toolchain.object_step(path, WORK / f"linuxlike-{path.name}.o", FLAGS, inputs=folder.glob("*.h"))
             for path in sources]
    toolchain.make(steps)
    output = WORK / "linuxlike.elf"
    toolchain.link([step.output for step in steps], output, LINK, script=folder / "kernel.lds")
    return output


def run(append: str = "noreplace-paravirt", **options: object) -> tuple[Record, str]:
    """Boot it on native, unless `options` say otherwise; its record and what it printed."""
    output = bytearray()
    given: dict[str, object] = {"backend": "native", "memory": MEMORY, "append": append,
                                "max_instructions": 50_000_000, **options}
    record = boot(linuxlike(), BootOptions(**given), Console(output.extend))  # type: ignore[arg-type]
    return record, output.decode()
