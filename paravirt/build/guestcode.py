"""Guest code of a backend: `ops.S` to an i386 relocatable object.

Each global symbol of the object is an op; the framework copies it into the guest and resolves its
relocations there. An object is the same on every host, so a backend's wheel stays `py3-none-any`.

Ref: System V ABI, Intel386 supplement: ELF32, REL relocations.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .toolchain import Step, make, object_step

# -g0: debugging sections name the folder of the build, and an object should not.
FLAGS = ("-target", "x86-freestanding-none", "-mcpu=i686", "-g0", "-Wall")
INCLUDED = ("*.h", "*.inc", "*/*.inc")


def assemble_step(source: Path, output: Path, *, folders: Iterable[Path] = ()) -> Step:
    """The step that assembles `source`.

    :param folders: of files to ``#include``, after the source's own.
    """
    places = (source.parent, *folders)
    included = [path for place in places for pattern in INCLUDED for path in place.glob(pattern)]
    return object_step(source, output, FLAGS, folders=places, inputs=included)


def assemble(source: Path, output: Path, *, folders: Iterable[Path] = ()) -> bool:
    """Assemble `source` (preprocessed assembly) into `output`; returns whether it had to be done.

    :raises BuildError: with the assembler's messages, or when ziglang is missing.
    """
    return bool(make([assemble_step(source, output, folders=folders)]))
