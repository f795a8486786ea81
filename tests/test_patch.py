"""Call sites: what may stand in place of a call, and what every byte of a patched site is.

The clobber contract decides: code that changes a register which the site keeps must not be inlined there, and
code never leaves the site. Checked against the site kinds of Linux 2.6.23 (call 6 bytes, any register; flag
ops 10 bytes, EAX alone; jumps 7 bytes, none).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.binding import Slot
from paravirt.forms import NOP, NULL, Form, GuestAddress, GuestCode, MachineCode
from paravirt.hookspecs import op_infos
from paravirt.hookspecs.tables import TABLES
from paravirt.patch import generate, nops

WORDS = TABLES["paravirt_ops"].words
EAX, ECX, EDX, ANY = 1, 2, 4, 7


def slot(name: str, form: Form | None, inline: bytes | None = None, clobbers: int = ANY, address: int = 0xC0102000,
         wrapped: bool = False) -> Slot:
    return Slot(op_infos()[name], 0, form, "", None, wrapped, address, inline, clobbers)


def site(made: Slot, clobbers: int, address: int, length: int) -> bytes | None:
    name = made.info.name
    return generate({name: made}, WORDS.index(name), clobbers, address, length)


CLI = slot("irq_disable", MachineCode(b"\xfa"), b"\xfa", clobbers=0)
PUSHF = slot("save_fl", MachineCode(b"\x9c\x58"), b"\x9c\x58", clobbers=EAX)


def test_code_that_fits_is_inlined() -> None:
    assert site(CLI, EAX, 0, 10) == b"\xfa"
    assert site(PUSHF, EAX, 0, 10) == b"\x9c\x58"
    assert site(PUSHF, ANY, 0, 6) == b"\x9c\x58"


def test_code_that_changes_what_the_site_keeps_is_not() -> None:
    greedy = replace(PUSHF, clobbers=EAX | ECX)
    assert site(greedy, EAX, 0, 10) is None, "the flag sites stay indirect: a call would change more than EAX"
    assert site(greedy, ANY, 0, 10) == b"\x9c\x58"


def test_code_that_is_too_long_is_called() -> None:
    long = slot("clts", MachineCode(b"\x90" * 7), b"\x90" * 7)
    assert site(long, ANY, 0xC0100000, 6) == b"\xe8" + (0x2000 - 5).to_bytes(4, "little")


def test_code_that_keeps_what_the_site_keeps_is_called() -> None:
    rom = slot("save_fl", GuestAddress(0xC00D0640, "ROM", EAX), None, EAX, address=0xC00D0640)
    assert site(rom, EAX, 0xC0100000, 10) == b"\xe8" + (0xC00D0640 - 0xC0100005 & 0xFFFFFFFF).to_bytes(4, "little")
    assert site(rom, 0, 0xC0100000, 10) is None


def test_a_call_backwards() -> None:
    assert site(slot("clts", None), ANY, 0xC0103000, 6) == b"\xe8" + (-0x1005 & 0xFFFFFFFF).to_bytes(4, "little")


def test_a_jump_becomes_a_direct_jump_or_the_code() -> None:
    far = slot("iret", GuestCode(Path("o"), "x"), None, address=0xC0100100)
    assert site(far, 0, 0xC0100000, 7) == b"\xe9" + (0x100 - 5).to_bytes(4, "little")
    assert site(replace(far, inline=b"\xcf", clobbers=0), 0, 0xC0100000, 7) == b"\xcf"


def test_nothing_becomes_nops_and_null_a_trap() -> None:
    assert site(slot("set_lazy_mode", NOP, b"", clobbers=0), ANY, 0, 6) == b""
    assert site(slot("irq_enable_sysexit", NULL), 0, 0, 7) == b"\x0f\x0b"


def test_a_wrapped_op_is_reached_through_its_word() -> None:
    """Its address is the code, and the wrappers would be left out."""
    assert site(replace(CLI, wrapped=True), EAX, 0, 10) is None
    assert site(replace(CLI, wrapped=True), ANY, 0xC0102000, 6) is None


def test_a_site_too_short_for_a_call_stays() -> None:
    assert site(slot("clts", None), ANY, 0, 4) is None


def test_a_data_word_has_no_code() -> None:
    assert generate({}, 0, ANY, 0, 6) is None


@pytest.mark.parametrize("length", range(33))
def test_nops_fill_exactly(length: int) -> None:
    assert len(nops(length)) == length


NOP_FORMS = {bytes.fromhex(form) for form in (
    "90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000", "0f1f840000000000",
    "660f1f840000000000")}


@given(st.integers(0, 200))
def test_nops_are_whole_instructions(length: int) -> None:
    rest = nops(length)
    while rest:
        form = max((form for form in NOP_FORMS if rest.startswith(form)), key=len)
        rest = rest[len(form):]


@given(code=st.binary(max_size=20), code_clobbers=st.integers(0, 7), site_clobbers=st.integers(0, 7),
       length=st.integers(1, 32), address=st.integers(0, 2**32 - 1), target=st.integers(0, 2**32 - 1))
def test_the_contract_holds_for_any_site(code: bytes, code_clobbers: int, site_clobbers: int, length: int,
                                         address: int, target: int) -> None:
    made = site(slot("clts", MachineCode(code), code, code_clobbers, target), site_clobbers, address, length)
    if made is None:
        return
    assert len(made) <= length
    if made == code:
        assert not code_clobbers & ~site_clobbers
    else:
        assert made[0] == 0xE8 and (site_clobbers == ANY or not code_clobbers & ~site_clobbers)
        assert (address + 5 + int.from_bytes(made[1:], "little")) & 0xFFFFFFFF == target
