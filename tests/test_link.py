"""Guest code is placed where the kernel has room, and what it refers to is found.

Objects come from the real assembler; what the linker makes of them is checked word for word.
Ref: System V ABI, Intel386 supplement, relocation types R_386_32 and R_386_PC32.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.build.guestcode import assemble
from paravirt.errors import PluginError
from paravirt.link import Area, LinkedCode, Linker

CODE, DATA = 0xC0102000, 0xC0115000
KERNEL = {"printk": 0xC010B050, "apic_page": 0xC0119000}
SOURCE = """
	.text
	.globl first, first_end, second, second_end
first:
	cli
first_end:
	ret
	.balign 16
second:
	call printk
	movl apic_page, %eax
second_end:
	ret
	.data
	.globl table
table:
	.long first, second, 7
	.section __ex_table, "a"
	.long first, second
	.bss
	.globl room
room:
	.skip 8
"""


def link(tmp_path: Path, source: str, code: int = 4096, data: int = 4096) -> tuple[LinkedCode, Path]:
    (tmp_path / "ops.S").write_text(source)
    assemble(tmp_path / "ops.S", tmp_path / "ops.o")
    linker = Linker(Area(CODE, code, "code"), Area(DATA, data, "data"), KERNEL.get)
    linker.add(tmp_path / "ops.o")
    return linker.finish(), tmp_path / "ops.o"


def memory(linked: LinkedCode) -> dict[int, int]:
    return {address + i: byte for address, data in linked.writes for i, byte in enumerate(data)}


def word(bytes_at: dict[int, int], address: int) -> int:
    return struct.unpack("<I", bytes(bytes_at[address + i] for i in range(4)))[0]  # type: ignore[no-any-return]


def test_symbols_and_relocations(tmp_path: Path) -> None:
    linked, path = link(tmp_path, SOURCE)
    first, second = linked.symbols[path, "first"], linked.symbols[path, "second"]
    assert (first, second) == (CODE, CODE + 16)
    placed = memory(linked)
    assert placed[second] == 0xE8
    assert (word(placed, second + 1) + second + 5) & 0xFFFFFFFF == KERNEL["printk"]
    assert placed[second + 5] == 0xA1 and word(placed, second + 6) == KERNEL["apic_page"]
    table = linked.symbols[path, "table"]
    assert DATA <= table < DATA + 4096
    assert [word(placed, table + 4 * i) for i in range(3)] == [first, second, 7]
    assert DATA <= linked.symbols[path, "room"] < DATA + 4096 and placed[linked.symbols[path, "room"]] == 0
    assert linked.fixups == [(first, second)]


def test_what_may_be_inlined(tmp_path: Path) -> None:
    linked, path = link(tmp_path, SOURCE)
    assert linked.inline[path, "first"] == b"\xfa"
    assert linked.inline[path, "second"] is None, "a relative call depends on its place"
    assert (path, "table") not in linked.inline


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(PluginError) as caught:
        link(tmp_path, SOURCE.replace("printk", "prink").replace("apic_page", "apic_pgae"), code=16)
    message = str(caught.value)
    assert "symbol prink" in message and "symbol apic_pgae" in message
    assert "bytes of code, and the kernel has 16" in message


def test_alignment_is_kept(tmp_path: Path) -> None:
    linked, path = link(tmp_path, "\t.text\n\t.balign 64\n\t.globl far\nfar:\n\tret\n\t.data\n\t.balign 32\n"
                                  "\t.globl wide\nwide:\n\t.quad 0\n")
    assert linked.symbols[path, "far"] % 64 == 0 and linked.symbols[path, "wide"] % 32 == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_hostile_object_is_an_error_message(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "hostile"
    folder.mkdir(exist_ok=True)
    if not (folder / "ops.o").exists():
        link(folder, SOURCE)
    good = (folder / "ops.o").read_bytes()
    bad = bytearray(good)
    for at in data.draw(st.lists(st.integers(0, len(good) - 1), min_size=1, max_size=8)):
        bad[at] = data.draw(st.integers(0, 255))
    (folder / "bad.o").write_bytes(bytes(bad)[: data.draw(st.integers(0, len(bad)))])
    linker = Linker(Area(CODE, 4096, "code"), Area(DATA, 4096, "data"), KERNEL.get)
    try:
        linker.add(folder / "bad.o")
        linker.finish()
    except PluginError as error:
        assert "bad.o" in str(error) or "bytes of" in str(error)
