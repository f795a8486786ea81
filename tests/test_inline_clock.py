"""Translated code that counts by itself: nothing but wall time may tell it from a call for each block.

What must hold: with the seam "inline" and without it, a guest ends with the same time, instructions, interrupts and
memory, wherever slices end, whatever the size of its blocks, after translated code was thrown away, in another
thread, beside other machines, and with so much RAM that calls from translated code are far ones. And it is in
effect: blocks of up to 127 instructions do count by themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from paravirt.boot_sequence import boot
from paravirt.machine.outcome import End
from paravirt.options import BootOptions
from tests.snippet import Guest, Line, start

ENGINES = ("fast", "no-inline")


def result(guest: Guest) -> tuple[str, int, int, int]:
    clock = guest.machine.engine
    return guest.machine.state_hash(), clock.now(), clock.instructions(), clock.interrupts()


def blocks(engine: str, *, period: int = 0) -> tuple[str, int, int, int]:
    """2000 rounds of blocks of all sizes. :param period: of deadlines that mean nothing, 0: none."""
    with start("blocks", engine, arguments=[2000]) as guest:
        if period:
            timeline = guest.machine.timeline

            def cut() -> None:
                timeline.call_at(timeline.now() + period, cut)

            timeline.call_at(period, cut)
        guest.finish()
        record = guest.machine.engine.record
        assert (record.inlined > 5) == (engine == "fast")
        return result(guest)


@pytest.mark.parametrize("period", [0, 1, 126, 127, 128, 997])
def test_blocks_of_all_sizes(period: int) -> None:
    fast, plain = (blocks(engine, period=period) for engine in ENGINES)
    assert fast == plain
    assert 0 < fast[2] - 2000 * (1 + 1 + 127 + 128 + 702) < 5000


def test_large_blocks_go_on_calling() -> None:
    with start("blocks", arguments=[100]) as guest:
        guest.finish()
        record = guest.machine.engine.record
        assert 2 <= record.not_inlined <= 4, "the block of 128 instructions and the larger ones"


def test_every_block_of_a_working_guest_counts_by_itself() -> None:
    with start("ticks", arguments=[0, 300]) as guest:
        guest.finish()
        record = guest.machine.engine.record
        assert record.inlined > 10
        assert record.not_inlined == 0


def test_interrupts_come_at_the_same_instruction() -> None:
    def ticking(engine: str) -> tuple[str, int, int, int]:
        with start("ticks", engine, arguments=[100, 0]) as guest:
            Line(guest).every(9_973)
            return result(guest.finish())

    assert ticking("fast") == ticking("no-inline")


def test_translated_code_is_thrown_away() -> None:
    """All of it, between slices: blocks are made again, with calls, and rewritten again."""
    def flushing(engine: str) -> tuple[str, int, int, int]:
        with start("ticks", engine, arguments=[0, 200]) as guest:
            clock = guest.machine.engine
            while not clock.run(clock.now() + 20_000):
                guest.machine.engine._uc.ctl_flush_tb()
            return result(guest)

    assert flushing("fast") == flushing("no-inline")
    with start("ticks", arguments=[0, 200]) as guest:
        clock = guest.machine.engine
        while not clock.run(clock.now() + 20_000):
            clock._uc.ctl_flush_tb()
        flushed = clock.record.inlined
    with start("ticks", arguments=[0, 200]) as guest:
        assert flushed > 2 * guest.finish().machine.engine.record.inlined


def test_stopped_from_another_thread() -> None:
    """`Engine.stop` acts on blocks that no longer call anything, within a loop of one block."""
    with start("spin", arguments=[0]) as guest:
        clock = guest.machine.engine
        timer = threading.Timer(0.2, clock.stop)
        timer.start()
        assert not clock.run(1 << 60)
        timer.join()
        assert 1000 < clock.now() < 1 << 60


def in_a_thread(function: Callable[[], object]) -> object:
    """What `function` returns in a thread of its own, whose memory comes from another arena."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_a_machine_of_another_thread() -> None:
    assert in_a_thread(lambda: blocks("fast")) == blocks("no-inline")


def test_far_calls() -> None:
    """RAM of 3 GiB lies between the buffer of translated code and the libraries that it calls."""
    wanted = blocks("no-inline")
    with start("blocks", memory=3 << 30, arguments=[2000]) as guest:
        clock = guest.finish().machine.engine
        assert clock.record.inlined > 5
        assert (clock.now(), clock.instructions(), clock.interrupts()) == wanted[1:]


def test_machines_side_by_side() -> None:
    """Three at once, in turns of different lengths, end as each does alone."""
    alone = blocks("no-inline")
    with start("blocks", arguments=[2000]) as one, start("blocks", arguments=[2000]) as two, \
            start("blocks", "no-inline", arguments=[2000]) as three:
        turns = {one: 777, two: 20_011, three: 5_003}
        while turns:
            for guest, turn in list(turns.items()):
                clock = guest.machine.engine
                if clock.run(clock.now() + turn):
                    del turns[guest]
        assert result(one) == result(two) == result(three) == alone


def test_a_limit_ends_it_in_time() -> None:
    outcomes = []
    for engine in ENGINES:
        with start("spin", engine, arguments=[0]) as guest:
            guest.machine.max_instructions = 12_345
            outcomes.append((guest.run(), guest.machine.engine.instructions()))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0].end is End.LIMIT


def test_the_reference_kernel() -> None:
    """Every step of a boot and the end: counts and hash."""
    records = [boot(None, BootOptions(no_accel=names)) for names in ((), ("inline",))]
    kept = [replace(record, engine=None).repeatable() for record in records]
    assert kept[0] == kept[1]
    assert [record.engine.missing if record.engine else None for record in records] == [{}, {"inline": "switched off"}]
