"""A platform's C library: the sources of one folder to one shared object for the host.

Ref: paravirt/accel/machine.h: the header that they share with the accelerator; machine/platform_code.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from .toolchain import Step, link_step, make, object_step

# A glibc of 2014 is enough: nothing of it is called.
FLAGS = ("-target", "x86_64-linux-gnu.2.17", "-O2", "-g0", "-fPIC", "-Wall")
LINK = ("-m", "elf_x86_64", "-shared", "--build-id=none", "-z", "noexecstack")
ACCEL = Path(__file__).resolve().parent.parent / "accel"


def has_accelerator() -> bool:
    """Whether native helpers fit this host: they know the x86-64 Linux wheel of Unicorn alone."""
    return sys.platform == "linux" and os.uname().machine == "x86_64" and sys.maxsize > 2**32


def sources(folder: Path) -> list[Path]:
    """The C files right in `folder`, in a fixed order."""
    return sorted(folder.glob("*.c"))


def build_library(files: Iterable[Path], work: Path, output: Path, *, accel: Path = ACCEL) -> Path:
    """Compile and link what is stale.

    :param work: folder of the objects. :param accel: folder of machine.h.
    :raises BuildError: with the compiler's messages.
    """
    files = list(files)
    folders = {file.parent for file in files} | {accel}
    headers = [path for folder in sorted(folders) for path in folder.glob("*.h")]
    steps: list[Step] = [object_step(file, work / f"{file.name}.o", FLAGS, folders=[accel], inputs=headers)
                         for file in files]
    make(steps)
    make([link_step([step.output for step in steps], output, LINK)])
    return output
