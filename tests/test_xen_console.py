"""The console of a domain, and the rings that it and the store are made of.

What must hold: what the guest sends through the ring is printed, whole and in order, as soon as it says so or yields;
input waits until there is room and comes whole; a backend sends an event when it has moved something, and only then.
Indices that cannot be are the guest's fault and end it with a sentence; a page that the guest has given another use is
left alone as long as it sends nothing. console_io prints too, in parts that cannot hold the host up.

Ref: public/io/console.h, public/io/xs_wire.h (layouts).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.machine.outcome import End, GuestExit
from paravirt.machine.ram import Ram
from paravirt_xen.platform.console import Mirror
from paravirt_xen.platform.errors import EFAULT, ENOSYS, EPERM
from paravirt_xen.platform.rings import Ring, RingFault
from tests.xendomain import TEXT
from tests.xenservices import ARGUMENT, UNMAPPED, Caller, calling

IN_CONS, IN_PROD, OUT_CONS, OUT_PROD = 3072, 3076, 3080, 3084
CONSOLE = 2


@pytest.fixture
def guest() -> Iterator[Caller]:
    with calling() as caller:
        yield caller


class Page:
    """The console's page as the guest sees it."""

    def __init__(self, guest: Caller) -> None:
        self.guest, self.ram, self.base = guest, guest.domain.ram, guest.domain.console_mfn * 4096

    def index(self, offset: int) -> int:
        return int(self.ram.words[self.base + offset >> 2])

    def set_index(self, offset: int, value: int) -> None:
        self.ram.write_u32(self.base + offset, value)

    def print(self, data: bytes) -> None:
        """Write output into the ring, byte by byte."""
        at = self.index(OUT_PROD)
        for offset, byte in enumerate(data):
            self.ram.write(self.base + 1024 + (at + offset) % 2048, bytes((byte,)))
        self.set_index(OUT_PROD, at + len(data))

    def read(self) -> bytes:
        """Take the input out."""
        cons, prod = self.index(IN_CONS), self.index(IN_PROD)
        data = bytes(self.ram.bytes[self.base + (cons + n) % 1024] for n in range(prod - cons & 0xFFFFFFFF))
        self.set_index(IN_CONS, prod)
        return data

    def send(self) -> int:
        return self.guest.evtchn(4, "I", CONSOLE)


# ---------------------------------------------------------------------- output


def test_output(guest: Caller) -> None:
    page = Page(guest)
    page.print(b"Hello\r\n")
    assert guest.output == b""
    assert page.send() == 0
    assert guest.output == b"Hello\r\n"
    assert page.index(OUT_CONS) == page.index(OUT_PROD) == 7
    assert guest.take() == [CONSOLE], "there is room again"
    page.send()
    assert guest.take() == [], "nothing moved"


def test_output_that_wraps(guest: Caller) -> None:
    page = Page(guest)
    page.set_index(OUT_PROD, 0xFFFFFFF0)
    page.set_index(OUT_CONS, 0xFFFFFFF0)
    text = bytes(range(256)) * 8
    page.print(text)
    page.send()
    assert guest.output == text


def test_a_guest_may_spin_in_yield(guest: Caller) -> None:
    page = Page(guest)
    page.print(b"unannounced")
    guest.call("sched_op", 0, 0)
    assert guest.output == b"unannounced"


def test_the_last_words(guest: Caller) -> None:
    Page(guest).print(b"the end")
    guest.ended("sched_op", 2, guest.put("I", 0))
    assert guest.output == b"the end"


# ---------------------------------------------------------------------- input


def test_input(guest: Caller) -> None:
    page = Page(guest)
    guest.domain.guest.console.feed(b"ls\n")
    assert guest.take() == [CONSOLE]
    assert page.read() == b"ls\n"


def test_input_waits_for_room(guest: Caller) -> None:
    page, text = Page(guest), bytes(n * 7 & 0xFF for n in range(5000))
    guest.domain.guest.console.feed(text)
    got = b""
    while len(got) < len(text):
        assert guest.take() == [CONSOLE]
        part = page.read()
        assert 0 < len(part) <= 1024
        got += part
        page.send()
    assert got == text


def test_input_that_comes_before_there_is_a_domain() -> None:
    with calling() as guest:
        console = guest.domain.guest.console
        assert console.receive is not None
        console.receive = None
        console.feed(b"early")
        console.connect(guest.domain.console.receive)
        assert Page(guest).read() == b"early"


# ---------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(("offset", "value"), [
    (OUT_PROD, 2049), (OUT_CONS, 1), (OUT_PROD, 0xFFFFFFFF), (OUT_PROD, 1 << 31)])
def test_output_indices_out_of_range(guest: Caller, offset: int, value: int) -> None:
    page = Page(guest)
    page.set_index(offset, value)
    guest.call("sched_op", 0, 0)
    assert guest.output == b"", "it may be no ring any more"
    with pytest.raises(GuestExit) as caught:
        page.send()
    outcome = caught.value.outcome
    assert (outcome.end, outcome.exit_code) == (End.CRASH, 70)
    assert outcome.reason.startswith("the indices of the console's output ring are out of range: ")


def test_input_indices_out_of_range(guest: Caller) -> None:
    page = Page(guest)
    page.set_index(IN_PROD, 1025)
    guest.domain.guest.console.feed(b"x")
    assert guest.pending == [], "the host is not to blame"
    with pytest.raises(GuestExit, match="input ring are out of range: 0x401 written and 0x0 read"):
        page.send()


WORDS = st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0, 3000), st.integers(0xFFFFF000, 0xFFFFFFFF))


@settings(max_examples=100, deadline=None)
@given(producer=WORDS, consumer=WORDS, data=st.binary(max_size=300), size=st.sampled_from([64, 1024]))
def test_a_ring_never_moves_more_than_it_holds(producer: int, consumer: int, data: bytes, size: int) -> None:
    ram = Ram(8192)
    try:
        ring = Ring(ram, "a ring", 4096, size, 0, 4)
        ram.write_u32(0, consumer)
        ram.write_u32(4, producer)
        used = producer - consumer & 0xFFFFFFFF
        if used > size:
            with pytest.raises(RingFault):
                ring.write(data)
            with pytest.raises(RingFault):
                ring.read(10)
            return
        before = ring.read(1 << 32)
        assert len(before) == used
        written = ring.write(data)
        assert written == min(len(data), size)
        assert ring.read(1 << 32) == data[:written]
        assert bytes(ram.bytes[4096 + size : 8192]) == bytes(4096 - size), "nothing behind it is touched"
        assert ram.words[0] == ram.words[1]
    finally:
        ram.close()


# ---------------------------------------------------------------------- console_io


def test_console_io(guest: Caller) -> None:
    text = b"(XEN) hello\n"
    guest.domain.write(ARGUMENT, text)
    assert guest.call("console_io", 0, len(text), ARGUMENT) == 0
    assert guest.output == text
    assert guest.call("console_io", 0, 0, UNMAPPED) == 0
    assert guest.call("console_io", 1, 10, ARGUMENT) == -EPERM
    assert guest.call("console_io", 7, 10, ARGUMENT) == -ENOSYS
    assert guest.call("console_io", 0, 10, UNMAPPED) == -EFAULT


def say(guest: Caller, text: bytes) -> None:
    guest.domain.write(ARGUMENT, text)
    assert guest.call("console_io", 0, len(text), ARGUMENT) == 0


def test_what_comes_both_ways_is_shown_once(guest: Caller) -> None:
    """As test kernels print: line by line to console_io and to the ring, in either order."""
    page = Page(guest)

    def both(text: bytes, *, ring_first: bool) -> None:
        for ring in (ring_first, not ring_first):
            if ring:
                page.print(text)
                page.send()
            else:
                say(guest, text)

    both(b"one\n", ring_first=False)
    both(b"two\n", ring_first=False)
    both(b"two\n", ring_first=False)
    both(b"three\n", ring_first=True)
    assert guest.output == b"one\ntwo\ntwo\nthree\n"
    say(guest, b"a long ")
    say(guest, b"line\n")
    page.print(b"a long line\n")
    page.send()
    page.print(b"split\n")
    page.send()
    say(guest, b"spl")
    say(guest, b"it\n")
    assert guest.output == b"one\ntwo\ntwo\nthree\na long line\nsplit\n"


def test_line_ends_may_differ() -> None:
    """A ring's text is for a terminal, a log's is not. What was early in the log comes in the ring at last."""
    mirror = Mirror()
    assert mirror.new(False, b"one\ntwo\n") == b"one\ntwo\n"
    assert mirror.new(True, b"one\r\ntwo\r\nthree\r\n") == b"three\r\n"
    assert mirror.new(False, b"thr") == mirror.new(False, b"ee\n") == b""
    assert mirror.new(True, b"\r") == b"\r"
    assert mirror.new(True, b"four\r\n") == b"four\r\n"


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.tuples(st.booleans(), st.sampled_from([b"a", b"b", b"ab", b"\n", b"\r", b"a\r\n"]))))
def test_each_way_alone_is_whole(parts: list[tuple[bool, bytes]]) -> None:
    """Whatever is left out has been shown: what one way brought can be found in what is shown, in order."""
    mirror, shown = Mirror(), b""
    for ring, data in parts:
        shown += mirror.new(ring, data)
    for way in (True, False):
        rest = iter(shown.replace(b"\r", b""))
        assert all(byte in rest for byte in b"".join(d for r, d in parts if r is way).replace(b"\r", b""))


def test_what_differs_is_shown_as_it_comes(guest: Caller) -> None:
    page = Page(guest)
    say(guest, b"early\n")
    for part in (b"(early) ", b"early\n"):
        page.print(part)
        page.send()
    say(guest, b"other\n")
    assert guest.output == b"early\n(early) early\nother\n"


def test_console_io_of_all_memory_ends_at_the_first_hole(guest: Caller) -> None:
    assert guest.call("console_io", 0, 0xFFFFFFFF, TEXT) == -EFAULT
    assert 1 << 16 < len(guest.output) < 16 << 20
