"""Small guests for the tests: tests/guests/*.S, assembled and linked once and kept in build/tests by content.

One file holds several guests; an entry point chooses. They are started by the 32-bit boot protocol at 1 MiB.
"""

from __future__ import annotations

import os
import struct
from functools import cache
from pathlib import Path

from paravirt.build import toolchain
from paravirt.build.guestcode import assemble_step
from paravirt.image.elf import ElfImage, load_elf
from tests.elfmaker import Load, Sym, make_elf

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "tests" / "guests"
WORK = ROOT / "build" / "tests"
LINK = ("-m", "elf_i386", "-static", "--build-id=none", "-z", "noexecstack", "--no-dynamic-linker",
        "--omagic", "-Ttext=0x100000", "--entry=0x100000")
E_ENTRY = 24  # Ref: System V ABI, "ELF Header"
BASE = 0x100000


@cache
def linked(source: str) -> ElfImage:
    """tests/guests/`source`.S, with its symbols."""
    path = WORK / f"{source}.elf"
    step = assemble_step(SOURCES / f"{source}.S", WORK / f"{source}.o")
    toolchain.make([step])
    toolchain.link([step.output], path, LINK)
    return load_elf(path)


def kernel(source: str, entry: str) -> Path:
    """An ELF file of tests/guests/`source`.S that starts at the symbol `entry`."""
    image = linked(source)
    data = bytearray(image.data)
    struct.pack_into("<I", data, E_ENTRY, address(source, entry))
    return _keep(WORK / f"{source}-{entry}.elf", bytes(data))


def address(source: str, symbol: str) -> int:
    """Where `symbol` of tests/guests/`source`.S lies."""
    found = linked(source).symbols.address(symbol)
    assert found is not None, f"tests/guests/{source}.S has no symbol {symbol}"
    return found


def raw_kernel(path: Path, code: bytes) -> Path:
    """An ELF file at `path` whose only segment is `code`, at 1 MiB, with the symbol ``code``."""
    path.write_bytes(make_elf([Load(BASE, code, BASE)], entry=BASE, symbols=[Sym("code", BASE, len(code))]))
    return path


def _keep(path: Path, data: bytes) -> Path:
    """Workers of one run may make the same file at the same time: a name of one's own, then rename."""
    if not path.exists() or path.read_bytes() != data:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(path)
    return path
