"""A platform may answer its exits in C, and nothing shows but the speed.

What must hold: what the library takes is done there and counts as a trap; what it leaves alone goes on to the guest's
IDT or to the exit table; a Python function that it calls may raise, which ends the run; memory and registers are the
same as with the exit table alone. A library that cannot be used is refused with a reason, and the seam says so.

Ref: paravirt/accel/machine.h (struct platform), paravirt/machine/platform_code.py.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paravirt.build import platformcode
from paravirt.machine import layout
from paravirt.machine.exits import Exit, ExitTable, Kind
from paravirt.machine.library import Pointer
from paravirt.machine.platform_code import PlatformCode
from paravirt.machine.vcpu import Vcpu
from paravirt.pc import PC_EXITS
from tests.snippet import IRQ, Guest, Line, start

HERE = Path(__file__).resolve().parent
BUILT = HERE.parent / "build" / "platforms"
CALL, UD, UD2_BYTES = 0x40, 6, 2


class Counting(ctypes.Structure):
    """``struct counting`` of tests/platforms/counting.c."""

    _fields_ = (("fills", ctypes.c_uint64), ("interrupts", ctypes.c_uint64), ("invalid", Pointer))


@functools.cache
def library(name: str) -> Path:
    return platformcode.build_library([HERE / "platforms" / f"{name}.c"], BUILT, BUILT / f"{name}.so")


def double(vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
    vcpu.set_reg(layout.EAX, 2 * vcpu.reg(layout.EAX))


def skip(vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
    vcpu.eip += UD2_BYTES


TABLE: ExitTable = {**PC_EXITS, Exit(Kind.SOFTWARE_INTERRUPT, CALL): double, Exit(Kind.EXCEPTION, UD): skip}


def with_library(guest: Guest) -> PlatformCode:
    code = PlatformCode(guest.machine.engine, library("counting"), Counting())
    code.state.invalid = code.callback(ctypes.c_uint32, (ctypes.c_uint32,), lambda eip: eip + UD2_BYTES, 0)
    return code


@contextmanager
def ran(engine: str, *, in_c: bool) -> Iterator[tuple[Guest, PlatformCode | None]]:
    """The snippet, run to its end; it did what it should."""
    with start("platform", engine, table=TABLE) as guest:
        line = Line(guest)
        code = with_library(guest) if in_c else None
        guest.finish()
        assert guest.results(3) == [42, 1, 68]
        assert guest.vectors() == [IRQ], "the interrupt goes to the IDT, the calls and #UD do not"
        assert len(line.taken) == 1
        yield guest, code


def test_the_same_state_in_c_and_in_python() -> None:
    hashes = []
    for engine, in_c in [("fast", True), ("fast", False), ("no-platform", False)]:
        with ran(engine, in_c=in_c) as (guest, _):
            hashes.append(guest.left())
    assert len(set(hashes)) == 1


def test_the_exit_table_alone_serves_the_portable_engine() -> None:
    with ran("portable", in_c=False) as (guest, _):
        assert guest.machine.traps >= 3, "two calls and an invalid instruction"


def test_the_library_is_asked() -> None:
    with ran("fast", in_c=True) as (guest, code):
        assert code is not None
        assert code.record.traps == 2, "two calls were answered in C"
        assert guest.machine.engine.exceptions().get(UD) == 1, "accounted by the library"
        assert code.state.interrupts == 1
        assert code.state.fills > 0


def test_what_its_python_raises_ends_the_run() -> None:
    with start("platform", table=TABLE) as guest:
        Line(guest)
        code = with_library(guest)

        def broken(eip: int) -> int:
            raise LookupError(f"at {eip:#x}")

        code.state.invalid = code.callback(ctypes.c_uint32, (ctypes.c_uint32,), broken, 0)
        with pytest.raises(LookupError, match=hex(guest.symbol("invalid"))):
            guest.machine.run()


@pytest.mark.parametrize("engine", ["portable", "no-delivery", "no-platform"])
def test_refused_without_the_seam(engine: str) -> None:
    with start("platform", engine) as guest:
        with pytest.raises(PlatformCode.Unavailable):
            with_library(guest)
        assert guest.machine.engine.seams.forms()["platform"] == "python"


def test_a_library_that_is_missing_or_foreign_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.c"
    foreign.write_text("const unsigned long paravirt_platform = 8;")
    other = tmp_path / "other.c"
    other.write_text("int something;")
    build = platformcode.build_library
    for path, words in [
        (tmp_path / "absent.so", "absent.so is not built"),
        (build([foreign], tmp_path, tmp_path / "foreign.so"), "of another build"),
        (build([other], tmp_path, tmp_path / "other.so"), "exports no paravirt_platform"),
    ]:
        with start("platform") as guest:
            with pytest.raises(PlatformCode.Unavailable, match=words):
                PlatformCode(guest.machine.engine, path, Counting())
            assert words in guest.machine.engine.seams.missing["platform"]

