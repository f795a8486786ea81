"""Breakpoints of the debug registers.

What must hold, where the engine has them: #DB comes behind the instruction that touched what is watched, once, with
its bit in DR6, and behind MOV SS one instruction later; the instruction has been done once; reads hit only what is
watched for reads; what lies beside it, and everything after DR7 is cleared, hits nothing. A breakpoint on an
instruction that was run before is a fault in front of it. Where the engine has them not, nothing happens.

Ref: Intel SDM vol. 3B, 17.2.4 (DR7), 17.3.1.2 (data breakpoints are traps).
"""

from __future__ import annotations

import pytest

from tests.snippet import ENGINES, each_engine, pae, start

DB = 1
HAVE_NOT = ("portable", "no-state", "no-clock", "no-exits", "no-watchpoints")
HAVE = [name for name in ENGINES if name not in HAVE_NOT]


@pytest.mark.parametrize("engine", HAVE)
@pytest.mark.parametrize("paged", [False, True])
def test_data_breakpoints(engine: str, paged: bool) -> None:
    with start("watch", engine) as guest:
        if paged:
            guest.switch_paging_on(pae(guest.ram))
        guest.finish()
        hits = [record for record in guest.log() if record.vector == DB]
        again = guest.symbol("moved") - 2  # REP: a round is an instruction
        assert [record.eip for record in hits if record.cs & 3 == 0] == [
            *(guest.symbol(name) for name in ("stored", "added", "halved", "pushed", "loaded")), again, again,
            guest.symbol("marked"), guest.symbol("shadowed")]
        assert [record.eip for record in hits if record.cs & 3 == 3] == [guest.symbol("user_stored")]
        assert guest.results(11) == [1, 1, 1, 1, 2, 1, 5, 4, 2, 1, 1]
        assert guest.ram.words[0x200104 // 4] == 1


@pytest.mark.parametrize("engine", HAVE_NOT)
def test_none(engine: str) -> None:
    """None on data: those on instructions are libunicorn's."""
    with start("watch", engine) as guest:
        hits = [record.eip for record in guest.finish().log() if record.vector == DB]
        assert hits == [guest.symbol("marked")]


@each_engine
def test_what_is_not_watched_does_what_it_does(engine: str) -> None:
    with start("watch", engine) as guest:
        guest.finish()
        assert (guest.ram.words[0x200100 // 4], guest.ram.words[0x200104 // 4]) == (5, 1)


def test_a_run_is_repeatable() -> None:
    hashes = set()
    for _ in range(2):
        with start("watch") as guest:
            hashes.add(guest.finish().machine.state_hash())
    assert len(hashes) == 1
