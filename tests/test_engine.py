"""The engine: its seams, its clock, interrupts, counters, and that engines do not meet.

What must hold: each seam can be had or left out by itself, and what is missing is told with the reason; virtual time
is instructions plus charges, equal over runs, over slices of any length and over both forms of delivery; RDTSC only
goes forward; counting an instruction changes nothing; two machines of one process do not disturb each other.

Ref: Intel SDM vol. 2A, HLT; vol. 3A, 17.17 (time-stamp counter).
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from paravirt.machine import accel, layout
from paravirt.machine.core import Machine
from paravirt.machine.exits import Exit, Kind
from paravirt.machine.outcome import End
from paravirt.pc import PC_EXITS
from tests.snippet import BLOCK_CLOCK, Line, each_engine, start

ROOT = Path(__file__).resolve().parent.parent
MS = 1_000_000
MEMORY = 4 << 20
ACCELERATED = {"state": "live", "clock": "block", "inline": "code", "delivery": "c", "exits": "fast", "stores": "fast",
               "regions": "kept", "ports": "answered", "watchpoints": "fire", "msrs": "checked", "platform": "c"}
PORTABLE = {"state": "context", "clock": "count", "inline": "call", "delivery": "python", "exits": "slow",
            "stores": "slow", "regions": "searched", "ports": "asked", "watchpoints": "never", "msrs": "zero",
            "platform": "python"}


# ---------------------------------------------------------------------- seams


@contextmanager
def machine(*disabled: str) -> Iterator[Machine]:
    with Machine(MEMORY, disabled) as made:
        yield made


def test_all_seams() -> None:
    with machine() as made:
        assert made.engine.seams.forms() == ACCELERATED
        assert made.engine.seams.missing == {}
    with machine(*accel.NAMES) as made:
        assert made.engine.seams.forms() == PORTABLE
        assert made.engine.seams.missing == dict.fromkeys(accel.NAMES, "switched off")


@pytest.mark.parametrize("name", accel.NAMES)
def test_one_seam_left_out(name: str) -> None:
    """Live state carries all others, exits and the clock are only fast where blocks are counted, and a platform's
    library needs the C side of delivery and of TLB fills."""
    lost = {"exits": {"exits", "watchpoints"}, "state": set(accel.NAMES),
            "clock": {"clock", "inline", "exits", "ports", "watchpoints"}, "delivery": {"delivery", "platform"},
            "stores": {"stores", "platform"}}.get(name, {name})
    with machine(name) as made:
        seams = made.engine.seams
        assert seams.missing[name] == "switched off"
        assert set(seams.missing) == lost
        assert seams.forms() == {seam: (PORTABLE if seam in lost else ACCELERATED)[seam] for seam in ACCELERATED}
        for other in lost - {name}:
            assert seams.missing[other].startswith("needs "), seams.missing


@pytest.mark.parametrize(("patched", "value", "lost", "reason"), [
    ("accel.platform.machine", lambda: "aarch64", set(accel.NAMES) - {"state"}, "x86-64 Linux only"),
    ("accel.CLASS_WORDS", 2, set(accel.NAMES) - {"state"}, "pv_exec_interrupt"),
    ("accel._SIZE_FIELD", b"\0" * 7, {"clock", "inline", "exits", "ports", "watchpoints"},
     "translator_loop is not as expected"),
    ("layout.UC_NO_EXIT_REQUEST", 0x7F3, {"exits", "watchpoints"}, "check_exit_request is not as expected"),
    ("layout.ENV_EXIT_REQUEST", -0x14, {"inline"}, "check_exit_request is not as expected"),
    ("accel._is_writable_code", lambda size: False, {"inline"}, "cannot be written to"),
    ("layout.CPU_TO_ENV", layout.CPU_TO_ENV - 64, set(accel.NAMES), "is not at offset"),
])
def test_a_host_that_differs_is_told_and_works(
        monkeypatch: pytest.MonkeyPatch, patched: str, value: object, lost: set[str], reason: str) -> None:
    """Another processor, another build of libunicorn: slower, never wrong, and the reason is there to be read."""
    monkeypatch.setattr(f"paravirt.machine.{patched}", value)
    if patched == "accel._SIZE_FIELD":  # an engine before this one has changed libunicorn already
        monkeypatch.setattr("paravirt.machine.accel._ICOUNT_FIELD", b"\0" * 7)
    with start("exceptions") as guest:
        seams = guest.machine.engine.seams
        assert set(seams.missing) == lost
        assert any(reason in why for why in seams.missing.values()), seams.missing
        assert guest.finish().vectors()[:2] == [0, 0]


def test_engines_come_and_go() -> None:
    """More of them than there are places for at a time, and the memory of each is given back."""
    for _ in range(300):
        with machine() as made:
            assert not made.engine.seams.missing
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    assert pages * 4096 < 8 << 30, "each engine has 128 MB of address space for translated code"


def test_one_that_nobody_closes_is_forgotten() -> None:
    """The next one may get its memory, and must not be taken for it."""
    for number in range(300):
        Machine(MEMORY)
        if number % 50 == 0:
            gc.collect()
    with machine() as made:
        assert not made.engine.seams.missing


# ---------------------------------------------------------------------- time


def test_charges_and_skips() -> None:
    with machine() as made:
        engine = made.engine
        assert (engine.now(), engine.instructions()) == (0, 0)
        engine.charge(1234)
        assert (engine.now(), engine.instructions()) == (1234, 0)
        engine.skip_to(10_000)
        assert (engine.now(), engine.instructions()) == (10_000, 0)
        engine.skip_to(5_000)
        assert engine.now() == 10_000, "time never goes back"
        engine.charge(1)
        assert (engine.now(), engine.instructions()) == (10_001, 0)


@pytest.mark.parametrize("engine", BLOCK_CLOCK)
def test_instructions(engine: str) -> None:
    """Each instruction is one, and each round of a REP."""
    def run(rounds: int, repeated: int) -> int:
        with start("spin", engine, arguments=[6, rounds, repeated]) as guest:
            return guest.finish().machine.engine.instructions()

    least = run(1000, 100)
    assert run(3000, 100) - least == 2 * 2000, "two instructions a round"
    assert run(1000, 5100) - least == 5000


@each_engine
def test_rdtsc_goes_forward(engine: str) -> None:
    with start("ticks", engine, arguments=[0, 3000]) as guest:
        guest.finish()
        _, calls, stamp, backward = guest.results(4)
        assert (calls, backward) == (3000, 0)
        assert 0 < stamp <= guest.machine.engine.now()


def ticking(engine: str, period: int = 50_000, extra: int = 0) -> tuple[str, int, int, int, int]:
    """Forty timer interrupts over work in ring 3: hash, time, instructions, rounds, interrupts."""
    with start("ticks", engine, arguments=[40, 0]) as guest:
        line = Line(guest)
        line.every(period)
        if extra:  # deadlines that mean nothing cut the slices
            timeline = guest.machine.timeline

            def cut() -> None:
                timeline.call_at(timeline.now() + extra, cut)

            timeline.call_at(extra, cut)
        guest.finish()
        assert guest.result(0) == 40 == len(line.taken)
        assert 40 * period <= guest.machine.engine.now() < 41 * period
        clock = guest.machine.engine
        return guest.machine.state_hash(), clock.now(), clock.instructions(), guest.result(1), clock.interrupts()


@each_engine
def test_a_run_is_repeatable(engine: str) -> None:
    assert ticking(engine) == ticking(engine)


def test_delivery_and_fast_paths_change_nothing() -> None:
    """With blocks counted, all that may differ is wall time."""
    results = {engine: ticking(engine) for engine in BLOCK_CLOCK}
    assert len(set(results.values())) == 1, results


@pytest.mark.parametrize("engine", BLOCK_CLOCK)
def test_where_slices_end_changes_nothing(engine: str) -> None:
    assert ticking(engine) == ticking(engine, extra=777) == ticking(engine, extra=13_001)


@each_engine
def test_an_engine_runs_to_its_deadline(engine: str) -> None:
    with start("spin", engine, arguments=[0]) as guest:
        clock = guest.machine.engine
        for deadline in (1_000, 1_001, 5_000, 100_000):
            while clock.now() < deadline:
                assert not clock.run(deadline)
            assert deadline <= clock.now() <= deadline + 100
            assert guest.vcpu.eip == guest.symbol("forever") or deadline < 5_000


@each_engine
def test_hlt_ends_a_slice(engine: str) -> None:
    with start("spin", engine, arguments=[1]) as guest:
        clock = guest.machine.engine
        assert clock.run(10 * MS)
        assert clock.eip == guest.symbol("asleep")
        assert clock.now() < 10 * MS


@each_engine
def test_text_that_looks_like_hlt_is_none(engine: str) -> None:
    with start("spin", engine, arguments=[7]) as guest:
        guest.machine.timeline.call_at(2**40, lambda: None)
        outcome = guest.run()
        assert outcome.end is End.HALT
        assert guest.vcpu.reg(layout.ECX) == 0
        assert guest.machine.engine.now() < 10 * MS, "it slept"


# ---------------------------------------------------------------------- counters and the gate


@each_engine
def test_counters(engine: str) -> None:
    with start("spin", engine, arguments=[6, 1000, 100]) as plain:
        plain.finish()
        before = plain.machine.state_hash()
    with start("spin", engine, arguments=[6, 1000, 100]) as guest:
        labels = [guest.symbol(name) for name in ("counted", "counted_twice", "main", "forever")]
        for address in labels:
            guest.machine.engine.code.count_at(address)
        guest.finish()
        assert [guest.machine.engine.code.counted(address) for address in labels] == [1000, 2, 1, 0]
        assert guest.machine.state_hash() == before, "counting changes nothing"


@each_engine
def test_the_gate(engine: str) -> None:
    """INT 83h calls the host in the gate page alone, with the stub's number; elsewhere it is an interrupt."""
    with start("spin", engine, arguments=[9]) as guest:
        stub = guest.symbol("gate_stub")
        called = []

        def gate(number: int) -> None:
            called.append((number, guest.vcpu.eip))
            guest.vcpu.set_reg(layout.EAX, 0x1234)

        guest.machine.dispatcher.gates = [partial(gate, number) for number in range(8)]
        guest.machine.engine.gate_page(stub - 24, stub + 8)
        guest.finish()
        assert called == [(3, stub + 2)]
        assert guest.result(0) == 0x1234
        assert guest.vectors() == [0x83]
        assert guest.machine.traps == 1


# ---------------------------------------------------------------------- several machines


@pytest.mark.parametrize("pair", [("fast", "fast"), ("fast", "portable"), ("portable", "no-delivery")], ids="+".join)
def test_two_machines_of_one_process_share_nothing(pair: tuple[str, str]) -> None:
    """Interleaved slice by slice they end as each does alone."""
    def alone(engine: str, rounds: int) -> str:
        with start("ticks", engine, arguments=[0, rounds]) as guest:
            return guest.finish().left()

    with start("ticks", pair[0], arguments=[0, 400]) as one, start("ticks", pair[1], arguments=[0, 700]) as two:
        running = [one, two]
        while running:
            for guest in list(running):
                clock = guest.machine.engine
                if clock.run(clock.now() + 9_000):
                    running.remove(guest)
        assert (one.result(1), two.result(1)) == (400, 700)
        assert (one.result(3), two.result(3)) == (0, 0)
        if "portable" not in pair:
            assert one.left() == alone(pair[0], 400)
            assert two.left() == alone(pair[1], 700)
        assert one.machine.engine.exceptions() == {0x80: 400}
        assert two.machine.engine.exceptions() == {0x80: 700}


def in_turns(*plans: tuple[str, int]) -> list[tuple[str, int, int, dict[int, int]]]:
    """What machines end with that run slice by slice in turns. :param plans: engine, rounds."""
    with ExitStack() as stack:
        guests = [stack.enter_context(start("ticks", engine, arguments=[0, rounds])) for engine, rounds in plans]
        running = list(guests)
        while running:
            for guest in list(running):
                clock = guest.machine.engine
                if clock.run(clock.now() + 9_000):
                    running.remove(guest)
        return [(guest.left(), guest.machine.engine.now(), guest.machine.engine.instructions(),
                 guest.machine.engine.exceptions()) for guest in guests]


def test_interleaved_machines_end_as_in_processes_of_their_own() -> None:
    """One on each engine, in one process; then each in a process that knows no other."""
    plans = [("fast", 400), ("portable", 300)]
    together = in_turns(*plans)
    for plan, result in zip(plans, together, strict=True):
        script = f"from tests.test_engine import in_turns; print(in_turns({plan!r}))"
        alone = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120,
                               env={**os.environ, "PYTHONPATH": ":".join([str(ROOT), *sys.path])})
        assert alone.stdout.strip() == repr([result]), alone.stderr


def test_a_machine_inside_a_machines_exit() -> None:
    """An exit of one may run another to its end."""
    with start("hostwrite") as outer:
        inner_results = []

        def nested(vcpu: object, port: int, size: int, value: int) -> None:
            if value % 25 == 0:
                with start("hostwrite", "no-stores") as inner:
                    inner_results.append(inner.finish().results(2))

        outer.machine.connect({**PC_EXITS, Exit(Kind.PORT_OUT): nested})
        outer.finish()
        assert inner_results == [[0, 0]] * 2
        assert outer.vcpu.reg(layout.EBX) == 50


@pytest.mark.parametrize("engine", BLOCK_CLOCK)
def test_instructions_of_user_mode(engine: str) -> None:
    """The snippet's work is in ring 3, its handlers in ring 0; counting them apart changes no count."""
    def run(*, apart: bool) -> tuple[int, int | None, list[int]]:
        with start("ticks", engine, arguments=[0, 300]) as guest:
            if apart:
                guest.machine.engine.count_modes()
            guest.finish()
            made = guest.machine.engine
            return made.instructions(), made.user_instructions(), guest.results(4)

    instructions, user, results = run(apart=True)
    assert (instructions, None, results) == run(apart=False)
    rep = 64 + 1  # a word each, and finding out that there is none left
    assert user == 2 + 300 * (9 + rep + 2) - 1, "no jump behind the last round's INT"
