"""The store's server: the requests of one domain, its watches and its transactions.

Ref: Xen public/io/xs_wire.h; docs/misc/xenstore.txt; tools/xenstore/xenstored_core.c (wire_funcs), xenstored_watch.c,
xenstored_transaction.c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from paravirt_xen.platform.storetree import Node, Permission, Store, StoreError, Transaction, parent_of, valid_path

PAYLOAD_MAX = 4096
WATCH_EVENT, ERROR = 15, 16
SPECIAL_MAX = 2048  # of a watched name that is no path: @introduceDomain, @releaseDomain
MAX_WATCHES, MAX_TRANSACTIONS = 128, 10
MAX_EVENTS = 1024  # watch events that the domain has not read
OK = b"OK\0"


class Message(NamedTuple):
    """A message in either direction."""

    kind: int
    request: int
    transaction: int
    payload: bytes


@dataclass(frozen=True)
class Watch:
    """:ivar base: what the client left out of its path, and leaves out of events."""

    path: bytes
    token: bytes
    base: bytes


class Connection:
    """What one domain sees of the store.

    :ivar events: watch events that the domain has not got yet, oldest first.
    """

    def __init__(self, store: Store, domid: int) -> None:
        self.store, self.domid = store, domid
        self.home = b"/local/domain/%d" % domid
        self.watches: list[Watch] = []
        self.transactions: dict[int, Transaction] = {}
        self.events: dict[bytes, None] = {}  # in order, and none twice
        self._next_transaction = 1
        store.changed = self._changed

    def state(self) -> tuple[object, ...]:
        watches = [(watch.path, watch.token, watch.base) for watch in self.watches]
        return watches, [(number, t.state()) for number, t in self.transactions.items()], list(self.events)

    def answer(self, message: Message) -> Message:
        """Carry a request out. It always has an answer."""
        request = REQUESTS.get(message.kind)
        try:
            if request is None:
                raise StoreError("ENOSYS")
            if request.privileged:
                raise StoreError("EACCES")
            transaction = None
            if message.transaction and not request.outside:
                transaction = self.transactions.get(message.transaction)
                if transaction is None:
                    raise StoreError("ENOENT")
            call = Call(self, message, transaction)
            payload = request.run(call)
            if len(payload) > PAYLOAD_MAX:
                raise StoreError("E2BIG")
        except StoreError as error:
            return message._replace(kind=ERROR, payload=error.name.encode() + b"\0")
        return message._replace(payload=payload)

    def next_event(self) -> bytes:
        """The oldest watch event, which is the domain's now."""
        payload = next(iter(self.events))
        del self.events[payload]
        return payload

    def path(self, name: bytes) -> bytes:
        """A path as the client wrote it, made absolute."""
        return name if name.startswith((b"/", b"@")) else self.home + b"/" + name

    # ------------------------------------------------------------------ watches

    def _changed(self, path: bytes, exact: bool, node: Node) -> None:
        """Tell the watches of a node and, unless `exact`, of what is above it."""
        if not self._may_see(path, node):
            return
        for watch in self.watches:
            above = watch.path == path or (not exact and (watch.path == b"/" or path.startswith(watch.path + b"/")))
            if above:
                self._event(watch, path)

    def _may_see(self, path: bytes, node: Node) -> bool:
        if node.allows(self.domid, "r"):
            return True
        try:
            return bool(self.store.get(self.domid, parent_of(path)))
        except StoreError:
            return False

    def _event(self, watch: Watch, path: bytes) -> None:
        name = path[len(watch.base) :].removeprefix(b"/") if watch.base else path
        payload = name + b"\0" + watch.token + b"\0"
        if len(payload) <= PAYLOAD_MAX and payload not in self.events and len(self.events) < MAX_EVENTS:
            self.events[payload] = None

    def watch(self, name: bytes, token: bytes) -> None:
        path = self.path(name)
        if name.startswith(b"@"):
            if len(name) > SPECIAL_MAX:
                raise StoreError("EINVAL")
        elif not valid_path(path):
            raise StoreError("EINVAL")
        watch = Watch(path, token, b"" if name == path else self.home)
        if any((other.path, other.token) == (path, token) for other in self.watches):
            raise StoreError("EEXIST")
        if len(self.watches) > MAX_WATCHES:
            raise StoreError("E2BIG")
        self.watches.append(watch)
        self._event(watch, path)

    def unwatch(self, name: bytes, token: bytes) -> None:
        path = self.path(name)
        for watch in self.watches:
            if (watch.path, watch.token) == (path, token):
                self.watches.remove(watch)
                return
        raise StoreError("ENOENT")

    # ------------------------------------------------------------------ transactions

    def start_transaction(self) -> int:
        if len(self.transactions) > MAX_TRANSACTIONS:
            raise StoreError("ENOSPC")
        while self._next_transaction in self.transactions or not self._next_transaction:
            self._next_transaction = self._next_transaction + 1 & 0xFFFFFFFF
        number = self._next_transaction
        self._next_transaction = number + 1 & 0xFFFFFFFF
        self.transactions[number] = Transaction()
        return number


class Call(NamedTuple):
    """One request while it is carried out."""

    connection: Connection
    message: Message
    transaction: Transaction | None

    def strings(self) -> list[bytes]:
        """The strings of the payload that end in a NUL; what follows the last NUL is no string."""
        return self.message.payload.split(b"\0")[:-1]

    def only(self) -> bytes:
        """The one string that the payload is; :raises StoreError: EINVAL."""
        payload = self.message.payload
        if payload.count(b"\0") != 1 or not payload.endswith(b"\0"):
            raise StoreError("EINVAL")
        return payload[:-1]

    def node(self, access: str = "r") -> Node:
        connection = self.connection
        return connection.store.get(connection.domid, connection.path(self.only()), access, self.transaction)


def _directory(call: Call) -> bytes:
    return b"".join(child + b"\0" for child in call.node().children)


def _directory_part(call: Call) -> bytes:
    strings = call.strings()
    if len(strings) != 2:
        raise StoreError("EINVAL")
    connection = call.connection
    node = connection.store.get(connection.domid, connection.path(strings[0]), "r", call.transaction)
    names = b"".join(child + b"\0" for child in node.children)
    generation = b"%d\0" % node.generation
    start = int(strings[1]) if strings[1].isdigit() and len(strings[1]) < 10 else 0
    if start >= len(names):
        return generation + b"\0"
    room = PAYLOAD_MAX - len(generation) - 1
    part = names[start : start + room]
    if start + len(part) == len(names):
        return generation + part + b"\0"
    return generation + part[: part.rfind(b"\0") + 1]


def _read(call: Call) -> bytes:
    return call.node().value


def _get_perms(call: Call) -> bytes:
    return b"".join(bytes(permission) + b"\0" for permission in call.node().permissions)


def _watch(call: Call) -> bytes:
    strings = call.strings()
    if len(strings) != 2:
        raise StoreError("EINVAL")
    call.connection.watch(*strings)
    return OK


def _unwatch(call: Call) -> bytes:
    strings = call.strings()
    if len(strings) != 2:
        raise StoreError("EINVAL")
    call.connection.unwatch(*strings)
    return OK


def _transaction_start(call: Call) -> bytes:
    if call.transaction is not None:
        raise StoreError("EBUSY")
    return b"%d\0" % call.connection.start_transaction()


def _transaction_end(call: Call) -> bytes:
    verdict = call.only()
    if verdict not in (b"T", b"F"):
        raise StoreError("EINVAL")
    transaction = call.transaction
    if transaction is None:
        raise StoreError("ENOENT")
    del call.connection.transactions[call.message.transaction]
    if verdict == b"T":
        call.connection.store.commit(transaction)
    return OK


def _get_domain_path(call: Call) -> bytes:
    digits = call.only()
    number = int(digits) if digits.isdigit() and len(digits) < 10 else 0
    return b"/local/domain/%d\0" % (number & 0xFFFF)


def _write(call: Call) -> bytes:
    name, nul, value = call.message.payload.partition(b"\0")
    if not nul:
        raise StoreError("EINVAL")
    connection = call.connection
    connection.store.write(connection.domid, connection.path(name), value, call.transaction)
    return OK


def _mkdir(call: Call) -> bytes:
    connection = call.connection
    connection.store.mkdir(connection.domid, connection.path(call.only()), call.transaction)
    return OK


def _rm(call: Call) -> bytes:
    connection = call.connection
    connection.store.remove(connection.domid, connection.path(call.only()), call.transaction)
    return OK


def _set_perms(call: Call) -> bytes:
    strings = call.strings()
    if len(strings) < 2:
        raise StoreError("EINVAL")
    connection = call.connection
    permissions = tuple(Permission.parse(text) for text in strings[1:])
    if strings[0].startswith(b"@"):
        raise StoreError("EACCES")
    connection.store.set_permissions(connection.domid, connection.path(strings[0]), permissions, call.transaction)
    return OK


def _reset_watches(call: Call) -> bytes:
    call.only()
    call.connection.watches.clear()
    call.connection.transactions.clear()
    return OK


def _privileged(call: Call) -> bytes:
    raise StoreError("EACCES")


class Request(NamedTuple):
    """A row. :ivar outside: its transaction id is ignored. :ivar privileged: dom0's alone."""

    name: str
    run: Callable[[Call], bytes]
    outside: bool = False
    privileged: bool = False


REQUESTS: Mapping[int, Request] = {
    0: Request("CONTROL", _privileged, privileged=True),
    1: Request("DIRECTORY", _directory),
    2: Request("READ", _read),
    3: Request("GET_PERMS", _get_perms),
    4: Request("WATCH", _watch, outside=True),
    5: Request("UNWATCH", _unwatch, outside=True),
    6: Request("TRANSACTION_START", _transaction_start),
    7: Request("TRANSACTION_END", _transaction_end),
    8: Request("INTRODUCE", _privileged, privileged=True),
    9: Request("RELEASE", _privileged, privileged=True),
    10: Request("GET_DOMAIN_PATH", _get_domain_path),
    11: Request("WRITE", _write),
    12: Request("MKDIR", _mkdir),
    13: Request("RM", _rm),
    14: Request("SET_PERMS", _set_perms),
    17: Request("IS_DOMAIN_INTRODUCED", _privileged, privileged=True),
    18: Request("RESUME", _privileged, privileged=True),
    19: Request("SET_TARGET", _privileged, privileged=True),
    21: Request("RESET_WATCHES", _reset_watches),
    22: Request("DIRECTORY_PART", _directory_part),
}
