"""Behind a kernel with the note BSD_SYMTAB lies its symbol table, as an ELF file of three sections.

What must hold: the layout is what libelf's loader makes, since such kernels find it by the bytes at their end; the rest
of the domain comes behind it; a file without usable symbols, or a damaged one, gets nothing, and raises nothing.
"""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt_xen.platform.symtab import bsd_symbols
from tests.elfmaker import Load, Sym, make_elf
from tests.xendomain import BASE, BSD_SYMTAB, TEXT, xen_guest

FILE = make_elf([Load(TEXT, b"\xcc" * 64)], symbols=[Sym("first", TEXT), Sym("second", TEXT + 16, 5)])


def test_layout() -> None:
    size, = struct.unpack_from("<I", symbols := bsd_symbols(FILE))
    file = symbols[4:]
    assert len(file) == size
    assert file[:4] == b"\x7fELF" and file[4] == 1, "ELFCLASS32"
    assert struct.unpack_from("<III", file, 20)[0] == 1
    assert struct.unpack_from("<II", file, 28) == (0, 64), "no program headers; section headers"
    assert struct.unpack_from("<6H", file, 40) == (52, 0, 0, 40, 3, 0)
    assert file[52:64] == bytes(12), "nothing of the builder's memory leaks"
    none, symtab, strtab = (struct.unpack_from("<10I", file, 64 + 40 * index) for index in range(3))
    assert none == (0,) * 10
    assert symtab[1] == 2 and symtab[4] == 256 and symtab[6] == 2
    assert strtab[1] == 3 and strtab[4] == 256 + symtab[5] and strtab[4] + strtab[5] == size
    names = file[strtab[4] :]
    found = {}
    for at in range(symtab[4], symtab[4] + symtab[5], 16):
        name, value, length, *_ = struct.unpack_from("<IIIBBH", file, at)
        found[names[name : names.index(b"\0", name)].decode()] = (value, length)
    assert found["first"] == (TEXT, 0) and found["second"] == (TEXT + 16, 5)


def test_it_lies_behind_the_kernel() -> None:
    with xen_guest(changed={BSD_SYMTAB: b"yes\0"}) as backend:
        builder, domain = backend.builder, backend.domain
        expected = bsd_symbols(builder.image.data)
        at = builder.kernel_end - len(expected)
        assert expected and at % 4 == 0
        assert domain.read(at, len(expected)) == expected
        assert builder.plan.mfn_list >= builder.kernel_end
        assert builder.plan.mfn_list > BASE
    with xen_guest() as backend:
        assert backend.builder.symbols == b""


def test_nothing_without_symbols() -> None:
    stripped = bytearray(FILE)
    struct.pack_into("<H", stripped, 48, 0)  # e_shnum
    assert bsd_symbols(bytes(stripped)) == b""


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(32, len(FILE) - 1), st.integers(0, 255)), max_size=12),
       cut=st.integers(52, len(FILE)))
def test_damaged_files(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(FILE)
    for at, value in changes:
        data[at] = value
    symbols = bsd_symbols(bytes(data[:cut]))
    assert len(symbols) <= len(FILE) + 300
    assert symbols == b"" or len(symbols) == 4 + int.from_bytes(symbols[:4], "little")


