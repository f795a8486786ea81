"""A small Xen domain for tests: an ELF kernel with Xen notes, built in memory, on a machine of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from paravirt.api import KernelInfo
from paravirt.console import Console
from paravirt.guest import Guest
from paravirt.image.elf import ElfImage, load_elf
from paravirt.machine import accel
from paravirt.machine.core import Machine
from paravirt_xen.platform.builder import reserved_memory
from paravirt_xen.plugin import Xen
from tests.elfmaker import Load, make_elf, note

BASE = 0xC0000000
TEXT = BASE + 0x100000
MEMORY = 16 << 20
ENTRY, HYPERCALL_PAGE, VIRT_BASE, PADDR_OFFSET, XEN_VERSION, GUEST_OS = 1, 2, 3, 4, 5, 6
LOADER, PAE_MODE, FEATURES, BSD_SYMTAB, HV_START_LOW, L1_MFN_VALID, MOD_START_PFN = 8, 9, 10, 11, 12, 13, 16
NOTES: Mapping[int, bytes | int] = {
    ENTRY: TEXT, VIRT_BASE: BASE, XEN_VERSION: b"xen-3.0\0", GUEST_OS: b"test\0", LOADER: b"generic\0",
    PAE_MODE: b"yes\0",
}  # fmt: skip


def xen_image(code: bytes = b"\xcc" * 64, changed: Mapping[int, bytes | int | None] | None = None,
              pages: int = 2) -> ElfImage:
    """A kernel of `pages` pages at TEXT that begins with `code`; `changed` notes replace those of NOTES."""
    notes = {**NOTES, **(changed or {})}
    descs = b"".join(
        note("Xen", kind, struct.pack("<I", value) if isinstance(value, int) else value)
        for kind, value in notes.items() if value is not None)
    data = make_elf([Load(TEXT, code, memsz=pages * 4096)], entry=TEXT - BASE, notes=descs)
    return load_elf(Path("test-kernel"), data)


def xen_notes_of(text: bytes, *, entry: int) -> ElfImage:
    """A kernel whose memory from TEXT on is `text`."""
    return xen_image(text, {ENTRY: entry}, pages=-(-len(text) // 4096))


@contextmanager
def image_guest(image: ElfImage, disabled: Iterable[str] = (), memory: int = MEMORY) -> Iterator[Xen]:
    """The backend with the domain of `image` built."""
    backend = Xen()
    with Machine(memory, disabled, reserved_memory(memory)) as machine:
        guest = Guest(machine, KernelInfo.of(image), backend.paravirt_options()(), Console())
        backend.paravirt_devices(guest)
        backend.paravirt_build_guest(guest)
        yield backend


@contextmanager
def xen_guest(code: bytes = b"\xcc" * 64, changed: Mapping[int, bytes | int | None] | None = None, *,
              memory: int = MEMORY, engine: str = "auto", command_line: str = "", initrd: bytes | None = None,
              pages: int = 2, console: Console | None = None,
              options: Mapping[str, object] | None = None) -> Iterator[Xen]:
    """The backend with its domain built, registers loaded; ``backend.builder.guest.machine.run()`` runs it."""
    disabled = tuple(accel.NAMES) if engine == "portable" else ()
    backend = Xen()
    with Machine(memory, disabled, reserved_memory(memory)) as machine:
        info = KernelInfo.of(xen_image(code, changed, pages))
        chosen = backend.paravirt_options()(**(options or {}))
        guest = Guest(machine, info, chosen, console or Console(), command_line, initrd)
        backend.paravirt_devices(guest)
        backend.paravirt_build_guest(guest)
        yield backend
