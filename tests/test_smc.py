"""Code that is written while it runs runs as written, through whichever address it was written.

Fast stores drop libunicorn's own watch over pages, so this is where they could go wrong: a page is filled as data,
written as code and run, patched, overwritten, through one linear address or three; more pages than the queue of
pages to be forgotten holds; an instruction that changes the next one. What must hold: the sums of what the written
functions return, with fast stores and without, with two-level tables, with PAE and with an alias that is not
executable.

Ref: Intel SDM vol. 3A, 11.6 (self-modifying code); 8.1.3 (a jump or call between write and execution suffices).
"""

from __future__ import annotations

import struct

import pytest

from tests.snippet import NX, TABLES, Guest, each_engine, pae, start, two_level

PHYSICAL, ALIAS = 0x200000, 0x40000000
TABLE = TABLES + 0x10000  # maps ALIAS
ROUNDS = 200
SLOW_STORES = ("portable", "no-state", "no-stores")
# Where code is written, executed and zeroed.
PLACES = {
    "one address": (PHYSICAL, PHYSICAL, PHYSICAL),
    "executed by an alias": (PHYSICAL, ALIAS, PHYSICAL),
    "written by an alias": (ALIAS, PHYSICAL, ALIAS),
    "zeroed by an alias": (PHYSICAL, PHYSICAL, ALIAS),
    "written by an alias, zeroed by the other": (ALIAS, PHYSICAL, PHYSICAL),
}


def add_alias(guest: Guest, mode: str) -> None:
    """Map 2 MB at ALIAS over PHYSICAL, and switch paging on."""
    ram = guest.ram
    if mode == "two-level":
        control = two_level(ram)
        ram.write_u32(TABLES + 4 * (ALIAS >> 22), TABLE | 7)
        ram.write(TABLE, struct.pack("<512I", *(PHYSICAL + 4096 * n | 7 for n in range(512))))
    else:
        nx = NX if mode == "nx" else 0
        control = pae(ram, nx=bool(nx))
        ram.write_u64(TABLES + 8 * (ALIAS >> 30), TABLE + 4096 | 1)
        ram.write_u64(TABLE + 4096, TABLE | 7)
        ram.write(TABLE, struct.pack("<512Q", *(PHYSICAL + 4096 * n | 7 | nx for n in range(512))))
    guest.switch_paging_on(control)


def wanted() -> int:
    """What the functions of a round return, summed."""
    return sum(i + (i + 1000) + 7 + 8 + (0x010100 + 8) + i for i in range(1, ROUNDS + 1)) & 0xFFFFFFFF


@each_engine
@pytest.mark.parametrize("mode", ["two-level", "pae", "nx"])
@pytest.mark.parametrize("place", PLACES)
def test_written_code(engine: str, mode: str, place: str, request: pytest.FixtureRequest) -> None:
    write, execute, zero = PLACES[place]
    if mode == "nx" and execute == ALIAS:
        pytest.skip("the alias cannot be executed")
    if mode == "nx" and write == ALIAS and engine in SLOW_STORES:
        request.applymarker(pytest.mark.xfail(strict=True, reason=(
            "libunicorn 2.1.4 watches no stores through addresses that cannot be executed; fast stores do")))
    with start("smc", engine, arguments=[write, execute, zero, ROUNDS]) as guest:
        add_alias(guest, mode)
        guest.finish()
        assert guest.results(6) == [wanted(), 0, sum(range(1, 21)), 0x11111111, sum(range(1, 1001)), 1000]


@each_engine
def test_without_paging(engine: str) -> None:
    with start("smc", engine, arguments=[PHYSICAL, PHYSICAL, PHYSICAL, ROUNDS]) as guest:
        guest.finish()
        assert guest.results(3) == [wanted(), 0, sum(range(1, 21))]


def test_self_modifying_code_costs_the_same_time_with_and_without_fast_stores() -> None:
    """Slow stores are a matter of wall time only: nothing that repeats may depend on them."""
    seen = set()
    for engine in ("fast", "no-stores", "no-exits", "no-delivery"):
        with start("smc", engine, arguments=[PHYSICAL, ALIAS, PHYSICAL, ROUNDS]) as guest:
            add_alias(guest, "pae")
            guest.finish()
            seen.add((guest.machine.state_hash(), guest.machine.engine.instructions()))
    assert len(seen) == 1, seen


@each_engine
def test_a_page_that_is_mapped_elsewhere(engine: str) -> None:
    """A linear page leads to another physical one after INVLPG or a load of CR3: the code there runs."""
    first, second = PHYSICAL, PHYSICAL + 0x5000
    with start("remap", engine, arguments=[TABLE, first | 7, second | 7, ALIAS]) as guest:
        add_alias(guest, "two-level")
        guest.ram.write(first, b"\xb8\x01\x00\x00\x00\xc3")  # mov $1, %eax; ret
        guest.ram.write(second, b"\xb8\x00\x00\x01\x00\xc3")
        guest.finish()
        assert guest.results(2) == [100, 100 << 16]
