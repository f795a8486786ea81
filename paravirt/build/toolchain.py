"""The C toolchain, `ziglang` from PyPI, behind build steps that do nothing when nothing has changed.

A step is stale unless a stamp beside its output says that the same command made this very output from
these very inputs. Contents count, times do not: a deleted, damaged or foreign output is made again.

Ref: zig 0.15.2, `zig cc` (clang's driver) and `zig ld.lld` (LLD's ELF driver). The `zig cc` driver is
never the linker: it overrides ENTRY and pulls in compiler-rt.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

OUTPUT = "{output}"  # stands for the output in a step's arguments


class BuildError(Exception):
    """A step failed; the message holds the source or output it was for and all that the tool printed."""


def compiler_version() -> str:
    """Version of the installed ziglang, from its folder name (importlib.metadata costs more than a build).

    :raises BuildError: when it is not installed.
    """
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise BuildError("the compiler is missing; install it with: pip install ziglang==0.15.2")
    for folder in Path(spec.origin).parent.parent.glob("ziglang-*.dist-info"):
        if match := re.fullmatch(r"ziglang-(.+)\.dist-info", folder.name):
            return match[1]
    return "unknown"


@dataclass(frozen=True)
class Step:
    """One output made by one command of the toolchain.

    :param inputs: every file whose content the output depends on, headers included.
    :param arguments: of ``zig``, with OUTPUT for the output's path.
    :param key: what else decides the output; paths of this tree are left out, so that it may be moved.
    """

    output: Path
    inputs: tuple[Path, ...]
    arguments: tuple[str, ...]
    key: tuple[str, ...] = field(default=())

    @property
    def stamp(self) -> Path:
        """The file that tells what the output was made from."""
        return self.output.with_name(self.output.name + ".stamp")

    def fingerprint(self, version: str) -> str:
        """SHA-256 over the compiler's version, the command and the inputs.

        :raises BuildError: when an input cannot be read.
        """
        digest = hashlib.sha256("\0".join((version, *self.key)).encode())
        for path in self.inputs:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise BuildError(f"{path}: {error.strerror}") from error
            digest.update(f"\0{path.name}\0{len(data)}\0".encode() + data)
        return digest.hexdigest()

    def record(self, version: str) -> str | None:
        """What the stamp must say, None without an output."""
        try:
            made = hashlib.sha256(self.output.read_bytes()).hexdigest()
        except OSError:
            return None
        return f"{self.fingerprint(version)} {made}\n"

    def up_to_date(self, version: str) -> bool:
        """Whether the output is the one this step would make."""
        try:
            stamp = self.stamp.read_text()
        except (OSError, UnicodeDecodeError):
            return False
        return stamp == self.record(version)

    def run(self, version: str, cache: str) -> None:
        """Make the output; a reader sees the old file or the whole new one.

        :param cache: folder for zig's own files.
        :raises BuildError: with the tool's output.
        """
        import subprocess  # 10 ms, which a tree without changes need not pay

        fingerprint = self.fingerprint(version)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.output.with_name(f".{self.output.name}.{os.getpid()}")
        arguments = [str(temporary) if word == OUTPUT else word for word in self.arguments]
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
        try:
            result = subprocess.run(
                [sys.executable, "-m", "ziglang", *arguments],
                env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                encoding="utf-8", errors="replace", check=False,
            )
            said = result.stdout.strip()
            if result.returncode or not temporary.exists():
                raise BuildError(f"{self.output.name}: the compiler failed (status {result.returncode})\n{said}")
            if said:
                print(said, file=sys.stderr)
            made = hashlib.sha256(temporary.read_bytes()).hexdigest()
            self.stamp.unlink(missing_ok=True)
            temporary.replace(self.output)
            self.stamp.write_text(f"{fingerprint} {made}\n")
        finally:
            temporary.unlink(missing_ok=True)


def object_step(source: Path, output: Path, flags: Sequence[str], *, folders: Sequence[Path] = (),
                inputs: Iterable[Path] = ()) -> Step:
    """A step that compiles or assembles one file into one relocatable object.

    :param folders: where ``#include`` and ``.incbin`` look, in order.
    :param inputs: the headers and embedded files that `source` may read.
    """
    where = tuple(word for folder in folders for word in ("-I", str(folder)))
    arguments = ("cc", *flags, *where, "-c", str(source), "-o", OUTPUT)
    return Step(output, (source, *sorted(inputs)), arguments, ("cc", *flags))


def link_step(objects: Iterable[Path], output: Path, flags: Sequence[str], *, script: Path | None = None) -> Step:
    """A step that links objects, in the order given, with LLD's ELF driver.

    :param script: a linker script.
    """
    files = tuple(objects)
    layout = ("-T", str(script)) if script else ()
    arguments = ("ld.lld", *flags, *layout, *map(str, files), "-o", OUTPUT)
    return Step(output, (*files, *([script] if script else [])), arguments, ("ld.lld", *flags))


def make(steps: Sequence[Step]) -> list[Path]:
    """Run the stale ones of independent steps, two at a time or more; returns the outputs that were made.

    :raises BuildError: for the first failure, after the others have ended.
    """
    if not steps:
        return []
    version = compiler_version()
    stale = [step for step in steps if not step.up_to_date(version)]
    if not stale:
        return []
    from concurrent.futures import ThreadPoolExecutor

    with tempfile.TemporaryDirectory(prefix="paravirt-build-") as cache, \
            ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for future in [pool.submit(step.run, version, cache) for step in stale]:
            future.result()
    return [step.output for step in stale]


def compile_object(source: Path, output: Path, flags: Sequence[str], *, folders: Sequence[Path] = (),
                   inputs: Iterable[Path] = ()) -> bool:
    """Compile one file; returns whether anything had to be done. Arguments and errors as above."""
    return bool(make([object_step(source, output, flags, folders=folders, inputs=inputs)]))


def link(objects: Iterable[Path], output: Path, flags: Sequence[str], *, script: Path | None = None) -> bool:
    """Link objects; returns whether anything had to be done. Arguments and errors as above."""
    return bool(make([link_step(objects, output, flags, script=script)]))
