"""The console stands between a guest that cannot wait and a host that comes and goes.

What must hold: bytes pass unchanged and in order, however they are cut; input that is there before the guest begins
is never called late, all other is counted; a match is found across writes, once; the digest is that of the output.
"""

from __future__ import annotations

import hashlib
import os
import pty
import re
import time
import tty
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.boot_sequence import boot
from paravirt.console import KEPT, Console
from paravirt.options import BootOptions
from tests.kernels import kernel

PIECES = st.lists(st.binary(max_size=20), max_size=12)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Reading end, writing end; the test closes the second."""
    read, write = os.pipe()
    yield read, write
    os.close(read)


# ------------------------------------------------------------------ output


@given(PIECES)
def test_output_passes_unchanged(pieces: list[bytes]) -> None:
    seen: list[bytes] = []
    console = Console(seen.append)
    for piece in pieces:
        console.write(piece)
    whole = b"".join(pieces)
    assert b"".join(seen) == whole
    assert console.written == len(whole)
    assert console.digest() == hashlib.sha256(whole).hexdigest()


@given(before=st.binary(max_size=40), after=st.binary(max_size=10), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_a_match_is_found_across_writes_and_once(before: bytes, after: bytes, cuts: list[int]) -> None:
    data = before + b"login: " + after
    found: list[bytes] = []
    console = Console(until=re.compile(b"log.n: "))
    console.on_match = found.append
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        console.write(data[start:end])
    console.write(b"login: ")
    assert len(found) == 1


def test_a_match_may_be_as_long_as_what_is_kept() -> None:
    found: list[bytes] = []
    console = Console(until=re.compile(b"^begin.*end$", re.MULTILINE | re.DOTALL))
    console.on_match = found.append
    console.write(b"x" * (5 * KEPT) + b"\n")
    console.write(b"begin")
    console.write(b"." * (KEPT - 10))
    assert not found
    console.write(b"end\n")
    assert len(found) == 1 and len(found[0]) == KEPT - 2


def test_a_long_output_costs_little() -> None:
    """Guests print byte by byte, and each byte may end a match: what is searched must stay short."""
    console = Console(until=re.compile(b"^login: $", re.MULTILINE))
    start = time.process_time()
    for _ in range(20_000):
        console.write(b".")
    assert time.process_time() - start < 5


def test_output_is_shown_before_the_match_is_told() -> None:
    order: list[str] = []
    console = Console(lambda data: order.append("output"), until=re.compile(b"x"))
    console.on_output = lambda when: order.append("active")
    console.on_match = lambda text: order.append("match")
    console.write(b"x")
    assert order == ["active", "output", "match"]


@given(PIECES)
def test_each_match_is_marked_once_however_it_is_cut(pieces: list[bytes]) -> None:
    text = b"".join(pieces).join([b"<mark>"] * 3)
    for step in (1, 3, len(text)):
        console, marks = Console(), list[str]()
        console.marks, console.on_mark = re.compile(b"<mark>"), marks.append
        for at in range(0, len(text), step):
            console.write(text[at : at + step])
        assert marks == ["<mark>"] * text.count(b"<mark>")


# ------------------------------------------------------------------ input


@given(PIECES)
def test_what_python_feeds_arrives(pieces: list[bytes]) -> None:
    """Also what was fed before there was a device to take it."""
    got = bytearray()
    console = Console()
    half = len(pieces) // 2
    for piece in pieces[:half]:
        console.feed(piece)
    console.connect(got.extend)
    assert bytes(got) == b"".join(pieces[:half])
    for piece in pieces[half:]:
        console.feed(piece)
    assert bytes(got) == b"".join(pieces)
    assert console.at_end


def test_input_before_the_guest_begins_is_not_late(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.write(write, b"early")
    os.close(write)
    got = bytearray()
    console = Console(source=read)
    console.connect(got.extend)
    console.begin()
    assert (bytes(got), console.at_end, console.late_input) == (b"early", True, 0)
    console.poll()
    assert not console.wait(0)


def test_input_after_the_guest_has_begun_is_counted(pipe: tuple[int, int]) -> None:
    read, write = pipe
    got = bytearray()
    console = Console(source=read)
    console.connect(got.extend)
    os.write(write, b"early")
    console.begin()
    assert (bytes(got), console.at_end, console.late_input) == (b"early", False, 0)
    assert not console.wait(0)
    os.write(write, b"late")
    assert console.wait(1)
    assert (bytes(got), console.late_input) == (b"earlylate", 4)
    os.close(write)
    console.poll()
    assert (console.at_end, console.late_input) == (True, 4)


def test_a_large_input_is_taken_whole(pipe: tuple[int, int]) -> None:
    read, write = pipe
    data = bytes(range(256)) * 200  # less than a pipe holds
    os.write(write, data)
    os.close(write)
    got = bytearray()
    console = Console(source=read)
    console.connect(got.extend)
    assert bytes(got) == data


def test_a_terminal_has_a_key_that_quits() -> None:
    """Ctrl-] ends the run; what was typed before it still counts, what comes after does not."""
    leader, follower = pty.openpty()
    tty.setraw(follower)
    try:
        got = bytearray()
        console = Console(source=follower)
        assert console.terminal
        console.connect(got.extend)
        os.write(leader, b"ls\x1dx")
        assert console.wait(1)
        assert (bytes(got), console.quit) == (b"ls", True)
    finally:
        os.close(leader)
        os.close(follower)


def test_a_terminal_that_is_gone_is_the_end_of_input() -> None:
    leader, follower = pty.openpty()
    console = Console(source=follower)
    os.close(leader)
    console.poll()
    assert console.at_end
    os.close(follower)


def test_in_a_pipe_the_key_is_data(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.write(write, b"\x1d")
    os.close(write)
    got = bytearray()
    console = Console(source=read)
    console.connect(got.extend)
    assert (bytes(got), console.quit) == (b"\x1d", False)


# ------------------------------------------------------------------ with a guest


@pytest.mark.parametrize("engine", ["auto", "portable"])
def test_a_guest_gets_all_and_gives_all_back(engine: str) -> None:
    """Far more than the UART's FIFO holds, so that the guest must be able to keep up."""
    text = bytes(65 + number % 4 for number in range(500)) + b"q"
    out = bytearray()
    console = Console(out.extend)
    console.feed(text)
    record = boot(kernel("echo", "echo"), BootOptions(memory=4 << 20, engine=engine, timeout=20), console)
    assert record.outcome.kind == "poweroff"
    assert bytes(out) == b"ready\r\n" + text
    assert record.console_sha256 == hashlib.sha256(bytes(out)).hexdigest()
    assert record.host.late_input == 0


def test_runs_with_the_same_input_are_equal() -> None:
    def run() -> object:
        console = Console()
        console.feed(b"abcq")
        return boot(kernel("echo", "echo"), BootOptions(memory=4 << 20), console).repeatable()

    assert run() == run()


def test_a_match_ends_the_run() -> None:
    console = Console(until=re.compile(b"^ab", re.MULTILINE))
    console.feed(b"bb\nabc")
    record = boot(kernel("echo", "echo"), BootOptions(memory=4 << 20), console)
    assert (record.outcome.kind, record.outcome.reason, record.exit_code) == ("matched", "the output matched: 'ab'", 0)


def test_realtime_waits_as_long_as_the_guest_sleeps() -> None:
    """A timer every 55 ms and an idle limit of 0.2 s of its time: as long on the wall, or in no time at all."""
    path = kernel("ends", "wait_for_timer")
    options = BootOptions(memory=4 << 20, idle_limit=0.3, timeout=20)
    virtual = boot(path, options)
    real = boot(path, BootOptions(memory=4 << 20, idle_limit=0.3, timeout=20, realtime=True))
    assert (virtual.outcome.kind, real.outcome.kind) == ("idle", "idle")
    assert real.virtual_ns == virtual.virtual_ns
    assert real.host.wall_seconds > real.virtual_ns / 1e9
