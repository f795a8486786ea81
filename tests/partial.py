"""The mutants of partial.S: native ops that do a part of their work. Bytes by op and by what is wrong."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from paravirt.build import toolchain
from paravirt.build.guestcode import assemble_step

SOURCE = Path(__file__).with_name("partial.S")
OBJECT = SOURCE.parent.parent / "build" / "mutants" / "partial.o"


@cache
def partial_mutants() -> dict[tuple[str, str], bytes]:
    """Code by op and mistake, such as ``("set_pte", "stores the low word")``."""
    toolchain.make([assemble_step(SOURCE, OBJECT)])
    with OBJECT.open("rb") as file:
        elf = ELFFile(file)
        text, symbols = elf.get_section_by_name(".text"), elf.get_section_by_name(".symtab")
        assert text is not None and isinstance(symbols, SymbolTableSection)
        code = text.data()
        places = sorted((symbol["st_value"], symbol.name) for symbol in symbols.iter_symbols()
                        if "." in symbol.name[1:])
    ends = [start for start, _ in places[1:]]
    found = {}
    for (start, name), end in zip(places, ends, strict=False):
        op, _, what = name.partition(".")
        found[op, what.replace("_", " ")] = code[start:end].rstrip(b"\xcc")
    return found
