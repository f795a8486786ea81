"""Runs small Xen domains that are written in assembly: tests/xensnippets over the kernel of xen.inc."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from paravirt.build import toolchain
from paravirt.build.guestcode import assemble_step
from paravirt.console import Console
from paravirt.image.elf import ElfImage, load_elf
from paravirt.machine.outcome import GuestExit, Outcome
from paravirt_xen.plugin import Xen
from tests.snippet import SOURCES
from tests.xendomain import BASE, TEXT, xen_guest

XEN_SOURCES = SOURCES.parent / "xensnippets"
BUILT = SOURCES.parent.parent / "build" / "xensnippets"
LINK = ("-m", "elf_i386", "-static", "-N", "--build-id=none", f"-Ttext={TEXT:#x}")
LIMIT = 50_000_000  # instructions


@functools.cache
def image(name: str) -> ElfImage:
    """The snippet tests/xensnippets/NAME.S."""
    sources = sorted(XEN_SOURCES.glob("*.S"))
    toolchain.make([assemble_step(source, BUILT / f"{source.stem}.o") for source in sources])
    toolchain.make([toolchain.link_step([BUILT / f"{s.stem}.o"], BUILT / f"{s.stem}.elf", LINK) for s in sources])
    return load_elf(BUILT / f"{name}.elf")


def contents(name: str) -> bytes:
    """What lies at TEXT and behind it."""
    segments = image(name).segments
    end = max(segment.vaddr + len(segment.data) for segment in segments)
    data = bytearray(end - TEXT)
    for segment in segments:
        data[segment.vaddr - TEXT : segment.vaddr - TEXT + len(segment.data)] = segment.data
    return bytes(data)


class XenSnippet:
    """A domain with a snippet in it, not yet run."""

    def __init__(self, name: str, backend: Xen, output: bytearray, arguments: Iterable[int]) -> None:
        self.image, self.backend, self.output = image(name), backend, output
        self.domain = backend.domain
        self.machine = self.domain.machine
        self.machine.max_instructions = LIMIT
        for index, value in enumerate(arguments):
            self.domain.ram.write_u32(self.machine_address("argument") + 4 * index, value)

    def machine_address(self, label: str) -> int:
        va = self.image.symbols.address(label)
        assert va is not None, f"the snippet has no global label {label}"
        return self.domain.p2m[va - BASE >> 12] * 4096 + (va & 4095)

    def words(self, label: str, count: int) -> list[int]:
        at = self.machine_address(label) >> 2
        return [int(word) for word in self.domain.ram.words[at : at + count]]

    def log(self) -> list[tuple[int, int]]:
        """Ports that upcalls have taken, each with the TSC."""
        first, (end,) = self.image.symbols.address("log"), self.words("log_next", 1)
        assert first is not None
        words = self.words("log", (end - first) // 4)
        return list(zip(words[::2], words[1::2], strict=True))

    def run(self) -> Outcome:
        with pytest.raises(GuestExit) as caught:
            self.machine.run()
        outcome: Outcome = caught.value.outcome
        return outcome


@contextmanager
def xen_snippet(name: str, engine: str = "auto", arguments: Iterable[int] = (), **options: object,
                ) -> Iterator[XenSnippet]:
    """:param engine: auto or portable. :param arguments: words for `argument`. :param options: of the backend."""
    output, code = bytearray(), contents(name)
    with xen_guest(code, engine=engine, pages=-(-len(code) // 4096) + 1, console=Console(output.extend),
                   options=options) as backend:
        yield XenSnippet(name, backend, output, arguments)
