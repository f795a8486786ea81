"""The benchmark guest, built with two sets of compiler flags: one compiler's luck must not decide a ratio.

The same ELF file starts by Linux's 32-bit boot protocol and by multiboot, so both engines run the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from paravirt.build import toolchain

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "benchmarks" / "guests"
WORK = ROOT / "build" / "benchmarks"
FAULT_AREA = 0x03000000
COMMON = (
    "-target", "x86-freestanding-none", "-g0", "-Wall", f"-DFAULT_AREA={FAULT_AREA:#x}",
    "-ffreestanding", "-fno-pic", "-fno-common", "-fno-strict-aliasing", "-fno-stack-protector",
    "-fno-builtin", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-sanitize=all",
)
FLAGS: Mapping[str, tuple[str, ...]] = {
    "O2-i686": ("-O2", "-mcpu=i686", "-fomit-frame-pointer"),
    "O1-pentium4": ("-O1", "-mcpu=pentium4", "-mno-sse2", "-mno-sse", "-mno-mmx", "-fno-omit-frame-pointer"),
}
LINK = ("-m", "elf_i386", "-static", "--build-id=none", "-z", "noexecstack", "--no-dynamic-linker", "-n")


def build_guests() -> dict[str, Path]:
    """The guest's ELF files, by the name of their flags. Nothing is done when nothing has changed.

    :raises toolchain.BuildError: with the compiler's words.
    """
    sources = sorted(path for path in SOURCES.iterdir() if path.suffix in {".c", ".S"})
    headers = list(SOURCES.glob("*.h"))
    steps = {
        name: [toolchain.object_step(source, WORK / name / f"{source.name}.o", (*COMMON, *flags), inputs=headers)
               for source in sources]
        for name, flags in FLAGS.items()
    }
    toolchain.make([step for group in steps.values() for step in group])
    for name, group in steps.items():
        toolchain.link([step.output for step in group], WORK / f"guest-{name}.elf", LINK,
                       script=SOURCES / "kernel.lds")
    return {name: WORK / f"guest-{name}.elf" for name in FLAGS}
