"""Builds the compiled parts of the package: the accelerator, the guest code, the reference kernel.

hatchling runs it for a wheel and for an editable install. `python hatch_build.py` runs it by itself,
without hatchling, and takes less than 0.1 s when nothing has changed. Outputs lie where the package looks
for them (paravirt/data, and beside each backend's ops.S), intermediate files in build/.

Ref: hatchling, "Custom build hook".
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paravirt.build import guestcode, platformcode, toolchain
else:
    # The package itself cannot be imported in an isolated build: its dependencies are not there.
    _place = Path(__file__).resolve().parent / "paravirt" / "build"
    _spec = importlib.util.spec_from_file_location(
        "_paravirt_build", _place / "__init__.py", submodule_search_locations=[str(_place)]
    )
    sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
    guestcode = importlib.import_module("_paravirt_build.guestcode")
    platformcode = importlib.import_module("_paravirt_build.platformcode")
    toolchain = importlib.import_module("_paravirt_build.toolchain")

ROOT = Path(__file__).resolve().parent
WHEEL_TAG = "py3-none-manylinux_2_17_x86_64"
KERNEL_FLAGS = (
    "-target", "x86-freestanding-none", "-mcpu=i686", "-O2", "-g0", "-Wall",
    "-ffreestanding", "-fno-pic", "-fno-common", "-fno-strict-aliasing", "-fno-stack-protector",
    "-mregparm=3", "-mno-sse", "-mno-mmx",
    "-fno-omit-frame-pointer",  # the oops's back trace walks frames
    "-fno-asynchronous-unwind-tables", "-fno-unwind-tables",
    "-fno-sanitize=all",  # zig turns the undefined-behaviour sanitizer on for C
)
KERNEL_LINK = ("-m", "elf_i386", "-static", "--build-id=none", "-z", "noexecstack", "--no-dynamic-linker")


def sources(folder: Path) -> list[Path]:
    """The C and assembly files right in `folder`, in a fixed order."""
    return sorted(path for path in folder.glob("*") if path.suffix in {".c", ".S"})


def object_name(source: Path) -> str:
    """entry.S and entry.c may stand side by side, so the object keeps the whole name."""
    return source.name + ".o"


def build_native(root: Path) -> list[Path]:
    """paravirt/accel/*.c -> paravirt/data/accel.so, and each built-in platform's platform/*.c -> platform.so beside
    that folder; returns what there is to ship."""
    if not platformcode.has_accelerator():
        return []
    accel = root / "paravirt" / "accel"
    folders = [(accel, root / "paravirt" / "data" / "accel.so")]
    platforms = sorted(root.glob("backends/*/paravirt_*/platform"))
    folders += [(folder, folder.parent / "platform.so") for folder in platforms]
    outputs = []
    for folder, output in folders:
        if files := platformcode.sources(folder):
            work = root / "build" / "native" / folder.parent.name
            outputs.append(platformcode.build_library(files, work, output, accel=accel))
    return outputs


def build_guest_code(root: Path) -> list[Path]:
    """The native ops and each built-in backend's -> objects; returns them."""
    pairs = [(root / "paravirt" / "native.S", root / "paravirt" / "data" / "native.o")]
    pairs += [(file, file.with_suffix(".o")) for file in sorted((root / "backends").glob("*/paravirt_*/*.S"))]
    pairs = [pair for pair in pairs if pair[0].exists()]
    toolchain.make([guestcode.assemble_step(source, output) for source, output in pairs])
    return [output for _, output in pairs]


def build_kernel(root: Path) -> list[Path]:
    """guest/ -> paravirt/data/paravirt-kernel, with the user program inside; returns it."""
    folder, work = root / "guest", root / "build" / "guest"
    if not (folder / "kernel.lds").exists() or not sources(folder):
        return []
    embedded = []
    if sources(folder / "user"):
        embedded = [build_image(folder / "user", [folder], work / "user", work / "init.elf", "user.lds", [])]
    output = root / "paravirt" / "data" / "paravirt-kernel"
    return [build_image(folder, [work], work, output, "kernel.lds", embedded)]


def build_direct_kernel(root: Path) -> Path:
    """The same kernel with bare hardware's instructions instead of calls of ops (guest/direct.h): to compare with,
    never shipped. Needs what build_kernel leaves."""
    work = root / "build" / "guest-direct"
    return build_image(root / "guest", [root / "build" / "guest"], work, work / "kernel", "kernel.lds",
                       [root / "build" / "guest" / "init.elf"], ("-DPARAVIRT_DIRECT",))


def build_image(folder: Path, folders: Sequence[Path], work: Path, output: Path, script: str,
                embedded: Sequence[Path], flags: Sequence[str] = ()) -> Path:
    """One freestanding i386 executable out of one folder.

    :param folders: to look for headers and embedded files in, after `folder`.
    :param embedded: files that an .incbin reads.
    :param flags: of the compiler, beside the usual ones.
    """
    places = [folder, *folders]
    inputs = [*embedded, *(path for place in places for path in place.glob("*.h"))]
    steps = [
        toolchain.object_step(file, work / object_name(file), (*KERNEL_FLAGS, *flags), folders=places,
                              inputs=inputs)
        for file in sources(folder)
    ]
    toolchain.make(steps)
    toolchain.link([step.output for step in steps], output, KERNEL_LINK, script=folder / script)
    return output


def copy_plugins(root: Path) -> list[Path]:
    """plugins.toml -> paravirt/data, where an installed package has its copy; returns it."""
    source, output = root / "plugins.toml", root / "paravirt" / "data" / "plugins.toml"
    if not source.exists():
        return []
    if not output.exists() or output.read_bytes() != source.read_bytes():
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, output)
    return [output]


def build(root: Path) -> list[Path]:
    """Build all that is stale; returns every file that belongs into the wheel.

    :raises toolchain.BuildError: with the compiler's messages.
    """
    return [*build_native(root), *build_guest_code(root), *build_kernel(root), *copy_plugins(root)]


def get_build_hook() -> type[Any]:
    """Called by hatchling, whose import alone would take half of the time of a build without changes."""
    from hatchling.builders.config import BuilderConfig
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class ProjectHook(BuildHookInterface[BuilderConfig]):
        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            root = Path(self.root)
            outputs = build(root)
            # All of them are ignored by git, which hatchling respects unless they are artifacts.
            build_data["artifacts"] += ["/" + output.relative_to(root).as_posix() for output in outputs]
            if any(output.suffix == ".so" for output in outputs):
                # Not infer_tag: the accelerator is loaded by ctypes and fits every Python.
                build_data["pure_python"] = False
                build_data["tag"] = WHEEL_TAG

    return ProjectHook


def main() -> int:
    """Build in place; 1 with the message if that fails."""
    try:
        build(ROOT)
    except toolchain.BuildError as error:
        print(f"hatch_build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
