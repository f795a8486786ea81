"""The store: its tree, its requests, its ring.

What must hold: every request of xs_wire.h has its answer or the error that xenstored gives; permissions, watches and
transactions work as docs/misc/xenstore.txt says; quotas on nodes, sizes, permissions, watches and transactions hold;
messages come through the ring in any split; indices that cannot be, or a message that is too long, are the guest's
fault and end it with a sentence. Nothing a guest sends raises anything else, or grows without end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.machine.outcome import End, GuestExit
from paravirt_xen.platform.store import MAX_EVENTS, REQUESTS, Connection, Message
from paravirt_xen.platform.storering import populate
from paravirt_xen.platform.storetree import Permission, Store, StoreError
from tests.xenservices import Caller, calling

CONTROL, DIRECTORY, READ, GET_PERMS, WATCH, UNWATCH, START, END_TRANSACTION, INTRODUCE, RELEASE = range(10)
GET_DOMAIN_PATH, WRITE, MKDIR, RM, SET_PERMS, WATCH_EVENT, ERROR, IS_INTRODUCED, RESUME, SET_TARGET = range(10, 20)
RESET_WATCHES, DIRECTORY_PART = 21, 22
HOME = b"/local/domain/1"
DATA = HOME + b"/data"
STORE = 1


class Client:
    """A domain's connection without a ring. Errors come back as their name."""

    def __init__(self) -> None:
        self.store = Store()
        with calling() as guest:
            populate(self.store, guest.domain)
        self.connection = Connection(self.store, 1)

    def ask(self, kind: int, *strings: bytes, transaction: int = 0, raw: bytes = b"") -> bytes | str:
        payload = raw or b"".join(string + b"\0" for string in strings)
        answer = self.connection.answer(Message(kind, 7, transaction, payload))
        assert (answer.request, answer.transaction) == (7, transaction)
        if answer.kind == ERROR:
            return answer.payload.rstrip(b"\0").decode()
        assert answer.kind == kind
        return answer.payload

    def write(self, path: bytes, value: bytes, transaction: int = 0) -> bytes | str:
        return self.ask(WRITE, transaction=transaction, raw=path + b"\0" + value)

    def start(self) -> int:
        answer = self.ask(START, b"")
        assert isinstance(answer, bytes)
        return int(answer.rstrip(b"\0"))

    def events(self) -> list[tuple[bytes, bytes]]:
        taken = [self.connection.next_event() for _ in range(len(self.connection.events))]
        return [(event.split(b"\0")[0], event.split(b"\0")[1]) for event in taken]


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def guest() -> Iterator[Caller]:
    with calling() as caller:
        yield caller


# ---------------------------------------------------------------------- values


def test_what_a_toolstack_leaves(client: Client) -> None:
    assert client.ask(READ, b"domid") == b"1"
    assert client.ask(READ, HOME + b"/console/port") == b"2"
    assert client.ask(READ, b"store/port") == b"1"
    children = client.ask(DIRECTORY, b"cpu/0")
    assert children == b"availability\0"
    assert client.ask(DIRECTORY, b"device") == b"suspend\0", "no devices: frontends look and find nothing"
    assert client.ask(READ, b"device/vbd") == "ENOENT"
    assert client.ask(GET_PERMS, b"domid") == b"n0\0r1\0"


def test_reading_and_writing(client: Client) -> None:
    assert client.write(b"data/a/b", b"va\0lue") == b"OK\0"
    assert client.ask(READ, DATA + b"/a/b") == b"va\0lue"
    assert client.ask(READ, DATA + b"/a") == b"", "made on the way"
    assert client.ask(DIRECTORY, b"data") == b"a\0"
    assert client.ask(GET_PERMS, b"data/a/b") == b"n1\0"
    assert client.ask(MKDIR, b"data/a") == b"OK\0"
    assert client.ask(MKDIR, b"data/c/d") == b"OK\0"
    assert client.ask(READ, b"data/c/d") == b""
    assert client.ask(RM, b"data/a") == b"OK\0"
    assert client.ask(READ, b"data/a/b") == "ENOENT"
    assert client.ask(RM, b"data/a") == b"OK\0", "what is not there, under what is"
    assert client.ask(RM, b"data/x/y") == "ENOENT"
    assert client.ask(DIRECTORY, b"data") == b"c\0"


@pytest.mark.parametrize("path", [
    b"", b"/", b"//x", b"/x/", b"data//x", b"data/", b"da ta", b"data/\xff", b"data/" + b"x" * 2050])
def test_paths_that_are_none(client: Client, path: bytes) -> None:
    expected = "EACCES" if path == b"/" else "EINVAL"
    assert client.write(path, b"") == expected
    if path != b"/":
        assert client.ask(READ, path) == "EINVAL"


def test_permissions(client: Client) -> None:
    assert client.write(b"domid", b"0") == "EACCES"
    assert client.write(b"new", b"") == "EACCES", "the domain's own directory is dom0's"
    assert client.ask(MKDIR, b"/elsewhere") == "EACCES"
    assert client.ask(RM, b"/local") == "EACCES"
    assert client.ask(READ, b"/local/domain/0/name") == b"Domain-0"
    assert client.ask(DIRECTORY, b"/local/domain") == "EACCES"
    assert client.ask(READ, b"/nowhere/at/all") == "EACCES", "what one may not see is not said to be missing"
    assert client.write(b"data/x", b"1") == b"OK\0"
    assert client.ask(SET_PERMS, b"data/x", b"n1", b"r0") == b"OK\0"
    assert client.ask(GET_PERMS, b"data/x") == b"n1\0r0\0"
    assert client.ask(SET_PERMS, b"data/x", b"n0") == "EPERM", "giving it away"
    assert client.ask(SET_PERMS, b"domid", b"n1") == "EACCES"
    assert client.ask(SET_PERMS, b"data/x") == "EINVAL"
    assert client.ask(SET_PERMS, b"data/x", b"q1") == "EINVAL"
    assert client.ask(SET_PERMS, b"data/x", *[b"r1"] * 6) == "ENOSPC"


def test_access_of_a_node() -> None:
    store = Store()
    store.write(0, b"/n", b"")
    store.set_permissions(0, b"/n", (Permission("r", 0), Permission("w", 1), Permission("b", 2), Permission("n", 3)))
    node = store.get(0, b"/n")
    allowed = {domid: [access for access in "rw" if node.allows(domid, access)] for domid in range(5)}
    assert allowed == {0: ["r", "w"], 1: ["w"], 2: ["r", "w"], 3: [], 4: ["r"]}


# ---------------------------------------------------------------------- watches


def test_watches(client: Client) -> None:
    assert client.ask(WATCH, b"data", b"token") == b"OK\0"
    assert client.events() == [(b"data", b"token")], "once when it is set, relative as it was given"
    assert client.ask(WATCH, DATA + b"/a", b"other") == b"OK\0"
    client.events()
    client.write(b"data/a/b", b"1")
    assert client.events() == [(b"data/a/b", b"token"), (DATA + b"/a/b", b"other")]
    client.write(b"data/c", b"1")
    assert client.events() == [(b"data/c", b"token")]
    client.ask(RM, b"data/a")
    assert (DATA + b"/a", b"other") in client.events()
    assert client.ask(WATCH, b"data", b"token") == "EEXIST"
    assert client.ask(UNWATCH, b"data", b"other") == "ENOENT"
    assert client.ask(UNWATCH, b"data", b"token") == b"OK\0"
    client.write(b"data/c", b"2")
    assert client.events() == []


def test_removing_a_parent_fires_the_watch_below_it(client: Client) -> None:
    client.write(b"data/a/b/c", b"")
    client.ask(WATCH, b"data/a/b/c", b"deep")
    client.events()
    client.ask(RM, b"data/a")
    assert client.events() == [(b"data/a/b/c", b"deep")]


def test_watches_of_what_dom0_changes(client: Client) -> None:
    """control/shutdown is how a toolstack asks a guest to go."""
    assert client.ask(WATCH, b"control/shutdown", b"t") == b"OK\0"
    client.events()
    client.store.write(0, HOME + b"/control/shutdown", b"poweroff")
    assert client.events() == [(b"control/shutdown", b"t")]
    assert client.ask(READ, b"control/shutdown") == b"poweroff"


def test_special_and_wrong_watches(client: Client) -> None:
    assert client.ask(WATCH, b"@releaseDomain", b"t") == b"OK\0"
    assert client.events() == [(b"@releaseDomain", b"t")]
    assert client.ask(WATCH, b"@" + b"x" * 2049, b"t") == "EINVAL"
    assert client.ask(WATCH, b"da ta", b"t") == "EINVAL"
    assert client.ask(WATCH, b"data") == "EINVAL"
    assert client.ask(WATCH, b"data", b"t", b"x") == "EINVAL"
    assert client.ask(RESET_WATCHES, b"") == b"OK\0"
    assert client.ask(UNWATCH, b"@releaseDomain", b"t") == "ENOENT"


# ---------------------------------------------------------------------- transactions


def test_a_transaction_is_seen_when_it_is_committed(client: Client) -> None:
    client.ask(WATCH, b"data", b"t")
    client.events()
    number = client.start()
    assert client.write(b"data/a/b", b"1", number) == b"OK\0"
    assert client.ask(READ, b"data/a/b", transaction=number) == b"1"
    assert client.ask(READ, b"data/a/b") == "ENOENT"
    assert client.events() == []
    assert client.ask(END_TRANSACTION, b"T", transaction=number) == b"OK\0"
    assert client.ask(READ, b"data/a/b") == b"1"
    assert client.events() == [(b"data/a/b", b"t")]
    assert client.ask(READ, b"data", transaction=number) == "ENOENT", "it is over"


def test_a_transaction_that_is_dropped(client: Client) -> None:
    number = client.start()
    client.write(b"data/a", b"1", number)
    assert client.ask(END_TRANSACTION, b"F", transaction=number) == b"OK\0"
    assert client.ask(READ, b"data/a") == "ENOENT"


def test_conflicts(client: Client) -> None:
    client.write(b"data/a", b"0")
    number = client.start()
    assert client.ask(READ, b"data/a", transaction=number) == b"0"
    client.write(b"data/b", b"1", number)
    client.write(b"data/a", b"2")
    assert client.ask(END_TRANSACTION, b"T", transaction=number) == "EAGAIN"
    assert client.ask(READ, b"data/b") == "ENOENT"
    number = client.start()
    client.ask(READ, b"data/a", transaction=number)
    client.write(b"data/c", b"9", number)
    client.write(b"error/x", b"elsewhere")
    assert client.ask(END_TRANSACTION, b"T", transaction=number) == b"OK\0", "nothing it looked at has changed"


def test_wrong_transactions(client: Client) -> None:
    assert client.ask(END_TRANSACTION, b"T") == "ENOENT"
    assert client.ask(END_TRANSACTION, b"X") == "EINVAL"
    assert client.ask(READ, b"domid", transaction=99) == "ENOENT"
    number = client.start()
    assert client.ask(START, b"", transaction=number) == "EBUSY"
    assert client.ask(END_TRANSACTION, b"maybe", transaction=number) == "EINVAL"


# ---------------------------------------------------------------------- the rest


@pytest.mark.parametrize("kind", [CONTROL, INTRODUCE, RELEASE, IS_INTRODUCED, RESUME, SET_TARGET])
def test_what_is_dom0s_alone(client: Client, kind: int) -> None:
    assert client.ask(kind, b"1") == "EACCES"


@pytest.mark.parametrize("kind", [WATCH_EVENT, ERROR, 20, 23, 0xFFFF, 0xFFFFFFFF])
def test_what_is_no_request(client: Client, kind: int) -> None:
    assert client.ask(kind, b"") == "ENOSYS"


def test_domain_paths(client: Client) -> None:
    assert client.ask(GET_DOMAIN_PATH, b"1") == HOME + b"\0"
    assert client.ask(GET_DOMAIN_PATH, b"0") == b"/local/domain/0\0"
    assert client.ask(GET_DOMAIN_PATH, b"1", b"2") == "EINVAL"
    assert client.ask(GET_DOMAIN_PATH, raw=b"1") == "EINVAL"


@pytest.mark.parametrize("kind", [DIRECTORY, READ, GET_PERMS, MKDIR, RM])
def test_a_path_must_be_one_string(client: Client, kind: int) -> None:
    for raw in (b"data", b"data\0x", b"data\0x\0", b"\0\0"):
        assert client.ask(kind, raw=raw) == "EINVAL"
    assert client.ask(kind) == "EINVAL"


def test_directories_in_parts(client: Client) -> None:
    names = [b"node-%04d" % number for number in range(180)]
    for name in names:
        assert client.write(b"data/" + name, b"") == b"OK\0"
    got, generations = b"", set()
    while not got.endswith(b"\0\0"):
        answer = client.ask(DIRECTORY_PART, b"data", b"%d" % len(got))
        assert isinstance(answer, bytes)
        generation, _, part = answer.partition(b"\0")
        generations.add(generation)
        got += part
    assert got[:-1].split(b"\0")[:-1] == names
    assert len(generations) == 1
    assert client.ask(DIRECTORY_PART, b"data", b"99999") == generations.pop() + b"\0\0"
    assert client.ask(DIRECTORY_PART, b"data") == "EINVAL"


# ---------------------------------------------------------------------- quotas


def test_quota_of_nodes(client: Client) -> None:
    answers = [client.write(b"data/%d/%d" % (n // 100, n), b"x") for n in range(1100)]
    written = answers.index("ENOSPC")
    assert 900 < written < 1000
    assert client.write(b"data/0/0", b"a value that is there may change") == b"OK\0"
    assert client.ask(RM, b"data/0/0") == b"OK\0"
    assert client.write(b"data/0/again", b"x") == b"OK\0"
    number = client.start()
    assert client.write(b"data/1/more", b"x", number) == "ENOSPC"


def test_quota_of_sizes(client: Client) -> None:
    assert client.write(b"data/a", b"x" * 2015) == b"OK\0"
    assert client.write(b"data/a", b"x" * 2016) == "ENOSPC"
    assert client.write(b"data/b", b"x" * 3000) == "ENOSPC"
    names = [b"data/%0100d" % number for number in range(30)]
    assert "ENOSPC" in [client.write(name, b"") for name in names], "names of children count for their parent"


def test_quota_of_watches(client: Client) -> None:
    answers = [client.ask(WATCH, b"data", b"%d" % number) for number in range(140)]
    assert answers.count("E2BIG") == 11
    for number in range(20):
        client.write(b"data/%d" % number, b"")
    assert len(client.connection.events) <= MAX_EVENTS


def test_quota_of_transactions(client: Client) -> None:
    numbers = [client.start() for _ in range(11)]
    assert len(set(numbers)) == 11
    assert client.ask(START, b"") == "ENOSPC"
    for number in range(2000):
        last = client.ask(READ, b"data/%d" % number, transaction=numbers[0])
    assert last == "ENOSPC", "one transaction looks at so many nodes"
    client.ask(END_TRANSACTION, b"F", transaction=numbers[0])
    assert isinstance(client.ask(START, b""), bytes)


# ---------------------------------------------------------------------- through the ring


class Wire:
    """The guest's end of the ring."""

    def __init__(self, guest: Caller) -> None:
        self.guest, self.ram, self.base = guest, guest.domain.ram, guest.domain.store_mfn * 4096

    def index(self, number: int) -> int:
        """req_cons, req_prod, rsp_cons, rsp_prod."""
        return int(self.ram.words[self.base + 2048 + 4 * number >> 2])

    def set_index(self, number: int, value: int) -> None:
        self.ram.write_u32(self.base + 2048 + 4 * number, value)

    def put(self, data: bytes) -> None:
        at = self.index(1)
        assert len(data) <= 1024 - (at - self.index(0) & 0xFFFFFFFF)
        for offset, byte in enumerate(data):
            self.ram.write(self.base + (at + offset) % 1024, bytes((byte,)))
        self.set_index(1, at + len(data))

    def take(self) -> bytes:
        start, end = self.index(2), self.index(3)
        assert end - start & 0xFFFFFFFF <= 1024
        data = bytes(self.ram.bytes[self.base + 1024 + (start + n) % 1024] for n in range(end - start & 0xFFFFFFFF))
        self.set_index(2, end)
        return data

    def send(self) -> int:
        return self.guest.evtchn(4, "I", STORE)


def request(kind: int, payload: bytes, number: int = 1, transaction: int = 0) -> bytes:
    return struct.pack("<4I", kind, number, transaction, len(payload)) + payload


def test_a_request_through_the_ring(guest: Caller) -> None:
    wire = Wire(guest)
    wire.put(request(READ, b"domid\0", 42))
    assert wire.send() == 0
    assert guest.take() == [STORE]
    assert wire.take() == request(READ, b"1", 42)
    wire.send()
    assert guest.take() == [], "nothing moved"


@pytest.mark.parametrize("step", [1, 7, 16, 17])
def test_a_request_in_pieces(guest: Caller, step: int) -> None:
    wire, message = Wire(guest), request(READ, b"/local/domain/1/console/port\0", 5)
    for number in range(4):
        wire.set_index(number, 0xFFFFFFFA)
    for start in range(0, len(message), step):
        assert wire.take() == b""
        wire.put(message[start : start + step])
        wire.send()
    assert wire.take() == request(READ, b"2", 5)


def test_answers_larger_than_the_ring(guest: Caller) -> None:
    wire, value = Wire(guest), b"v" * 1900
    message = request(WRITE, b"data/big\0" + value)
    got = b""
    for start in range(0, len(message), 1000):
        wire.put(message[start : start + 1000])
        wire.send()
    assert wire.take() == request(WRITE, b"OK\0")
    for number in range(5):
        wire.put(request(READ, b"data/big\0", number))
    while len(got) < 5 * (16 + 1900):
        wire.send()
        part = wire.take()
        assert part, "it stands still"
        got += part
    assert got == b"".join(request(READ, value, number) for number in range(5))


def test_watch_events_follow_the_answer(guest: Caller) -> None:
    wire = Wire(guest)
    wire.put(request(WATCH, b"data\0t\0", 3))
    wire.send()
    assert wire.take() == request(WATCH, b"OK\0", 3) + request(WATCH_EVENT, b"data\0t\0", 0)
    guest.clear()
    guest.domain.store.write("/local/domain/1/data/from-dom0", "1")
    assert guest.take() == [STORE]
    assert wire.take() == request(WATCH_EVENT, b"data/from-dom0\0t\0", 0)


@pytest.mark.parametrize(("number", "ring"), [(1, "request"), (3, "answer")])
def test_indices_out_of_range(guest: Caller, number: int, ring: str) -> None:
    wire = Wire(guest)
    wire.put(request(READ, b"domid\0"))
    wire.set_index(number, 0x12345678)
    with pytest.raises(GuestExit) as caught:
        wire.send()
    outcome = caught.value.outcome
    assert (outcome.end, outcome.exit_code) == (End.CRASH, 70)
    assert outcome.reason.startswith(f"the indices of the store's {ring} ring are out of range: ")


def test_a_message_that_is_too_long(guest: Caller) -> None:
    wire = Wire(guest)
    wire.put(struct.pack("<4I", READ, 1, 0, 4097))
    with pytest.raises(GuestExit, match="a message of 4097 bytes for the store, which takes 4096"):
        wire.send()


# ---------------------------------------------------------------------- anything goes

NAMES = st.sampled_from([b"data", b"data/a", b"data/a/b", b"control/shutdown", b"domid", b"/", b"", b"@x", b"//",
                         b"a b", b"T", b"F", b"n1", b"r0", b"0", b"17"])
PAYLOADS = st.one_of(st.binary(max_size=60), st.lists(NAMES, max_size=4).map(lambda s: b"".join(n + b"\0" for n in s)))
ERRORS = {"EINVAL", "EACCES", "EEXIST", "ENOENT", "ENOSPC", "ENOSYS", "EBUSY", "EAGAIN", "E2BIG", "EPERM"}


@pytest.fixture(scope="module")
def shared() -> Client:
    return Client()


@settings(max_examples=150, deadline=None)
@given(messages=st.lists(st.tuples(st.one_of(st.sampled_from(sorted(REQUESTS)), st.integers(0, 30)), PAYLOADS,
                                   st.integers(0, 4)), max_size=25))
def test_any_message_has_an_answer(shared: Client, messages: list[tuple[int, bytes, int]]) -> None:
    for kind, payload, transaction in messages:
        answer = shared.connection.answer(Message(kind, 1, transaction, payload))
        assert answer.kind == kind or (answer.kind == ERROR and answer.payload.rstrip(b"\0").decode() in ERRORS)
        assert len(answer.payload) <= 4096
        for path, node in [(path, shared.store._nodes[path]) for path in shared.store._nodes]:
            for child in node.children:
                assert (b"" if path == b"/" else path) + b"/" + child in shared.store._nodes


@settings(max_examples=30, deadline=None)
@given(data=st.binary(min_size=1, max_size=1024), steps=st.lists(st.integers(1, 300), min_size=1, max_size=10))
def test_any_bytes_in_the_ring(data: bytes, steps: list[int]) -> None:
    """Whatever they are: an answer, patience, or the guest's own end."""
    with calling() as guest:
        wire, at = Wire(guest), 0
        try:
            for step in steps:
                wire.put(data[at : at + step])
                at += step
                wire.send()
                wire.take()
        except GuestExit as end:
            assert end.outcome.end is End.CRASH


def test_store_errors_are_all_on_the_wire() -> None:
    error = StoreError("EINVAL")
    assert error.name in ERRORS
