"""The store: a tree of small values, with owners, permissions, quotas and transactions.

Paths are bytes, absolute, without a slash at the end. What breaks a rule raises `StoreError` with the name of an
errno, which is what goes over the wire.

Ref: Xen docs/misc/xenstore.txt; tools/xenstore/xenstored_core.c, xenstored_transaction.c (quotas and defaults).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

ABSOLUTE_PATH_MAX, RELATIVE_PATH_MAX = 3072, 2048
MAX_NODES = 1000  # that a domain owns
MAX_NODE_BYTES = 2048  # of value, names of children and permissions
MAX_PERMISSIONS = 5
MAX_TRANSACTION_NODES = 1024  # that one transaction looks at
NODE_HEADER, PERMISSION_BYTES = 24, 8
DOM0 = 0

_VALID = re.compile(rb"[-/_@A-Za-z0-9]*\Z")
_LOCAL = re.compile(rb"/local/domain/[0-9]{1,5}/")


class StoreError(Exception):
    """:ivar name: of an errno, as the wire has it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Permission:
    """:ivar access: n, r, w or b. The first one of a node names its owner, and what all others may do."""

    access: str
    domid: int

    @classmethod
    def parse(cls, text: bytes) -> Permission:
        match = re.fullmatch(rb"([nrwb])([0-9]{1,5})", text)
        if match is None:
            raise StoreError("EINVAL")
        return cls(match[1].decode(), int(match[2]))

    def __bytes__(self) -> bytes:
        return f"{self.access}{self.domid}".encode()


@dataclass
class Node:
    """:ivar generation: changes whenever the node does."""

    value: bytes
    permissions: tuple[Permission, ...]
    children: tuple[bytes, ...] = ()
    generation: int = 0

    @property
    def owner(self) -> int:
        return self.permissions[0].domid

    @property
    def size(self) -> int:
        """Bytes that count towards the quota."""
        names = sum(len(child) + 1 for child in self.children)
        return NODE_HEADER + PERMISSION_BYTES * len(self.permissions) + len(self.value) + names

    def state(self) -> tuple[object, ...]:
        return self.value, [bytes(permission) for permission in self.permissions], self.children, self.generation

    def allows(self, domid: int, access: str) -> bool:
        """:param access: r or w."""
        if domid in (DOM0, self.owner):
            return True
        for permission in self.permissions[1:]:
            if permission.domid == domid:
                return permission.access in (access, "b")
        return self.permissions[0].access in (access, "b")


@dataclass
class Transaction:
    """Changes that nobody else sees yet. :ivar seen: generation of each node when it was first looked at.

    :ivar fires: paths whose watches fire when it is committed; True: those of exactly that path only.
    """

    nodes: dict[bytes, Node | None] = field(default_factory=dict)
    seen: dict[bytes, int] = field(default_factory=dict)
    fires: dict[bytes, bool] = field(default_factory=dict)

    def state(self) -> tuple[object, ...]:
        nodes = [(path, node.state() if node is not None else None) for path, node in self.nodes.items()]
        return nodes, list(self.seen.items()), list(self.fires.items())


def valid_path(path: bytes) -> bool:
    local = _LOCAL.match(path)
    longest = RELATIVE_PATH_MAX + (local.end() if local else 0)
    return (path.startswith(b"/") and (path == b"/" or not path.endswith(b"/")) and b"//" not in path
            and len(path) <= longest and _VALID.match(path) is not None)


def parent_of(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or b"/"


class Store:
    """:param changed: told of each change outside of a transaction: path, and whether only watches of exactly that
    path are to fire."""

    def __init__(self, changed: Callable[[bytes, bool, Node], None] = lambda path, exact, node: None) -> None:
        self.changed = changed
        self._generation = 0
        self._nodes: dict[bytes, Node] = {b"/": Node(b"", (Permission("n", DOM0),))}

    def state(self) -> list[object]:
        return [(path, node.state()) for path, node in self._nodes.items()]

    # ------------------------------------------------------------------ nodes, as a transaction sees them

    def _peek(self, path: bytes, transaction: Transaction | None) -> Node | None:
        if transaction is None:
            return self._nodes.get(path)
        if path in transaction.nodes:
            return transaction.nodes[path]
        node = self._nodes.get(path)
        if path not in transaction.seen:
            if len(transaction.seen) >= MAX_TRANSACTION_NODES:
                raise StoreError("ENOSPC")
            transaction.seen[path] = node.generation if node is not None else 0
        return node

    def _put(self, path: bytes, node: Node | None, transaction: Transaction | None) -> None:
        if transaction is not None:
            self._peek(path, transaction)
            transaction.nodes[path] = node
            return
        if node is None:
            self._nodes.pop(path, None)
            return
        self._generation += 1
        self._nodes[path] = replace(node, generation=self._generation)

    def _fire(self, path: bytes, node: Node, transaction: Transaction | None, exact: bool = False) -> None:
        if transaction is None:
            self.changed(path, exact, node)
        else:
            transaction.fires[path] = exact and transaction.fires.get(path, True)

    def _owned(self, domid: int, transaction: Transaction | None) -> int:
        nodes = dict(self._nodes) if transaction is None else {**self._nodes, **transaction.nodes}
        return sum(1 for node in nodes.values() if node is not None and node.owner == domid)

    def _check_size(self, node: Node, domid: int) -> None:
        if domid != DOM0 and node.size >= MAX_NODE_BYTES:
            raise StoreError("ENOSPC")

    # ------------------------------------------------------------------ what clients do

    def get(self, domid: int, path: bytes, access: str = "r", transaction: Transaction | None = None) -> Node:
        """:raises StoreError: EINVAL, ENOENT; EACCES, also for what is not there where the caller may not look."""
        if not valid_path(path):
            raise StoreError("EINVAL")
        node = self._peek(path, transaction)
        if node is not None and node.allows(domid, access):
            return node
        if node is not None:
            raise StoreError("EACCES")
        above = path
        while above != b"/":
            above = parent_of(above)
            parent = self._peek(above, transaction)
            if parent is not None:
                raise StoreError("ENOENT" if parent.allows(domid, access) else "EACCES")
        raise StoreError("ENOENT")

    def exists(self, path: bytes, transaction: Transaction | None = None) -> bool:
        return self._peek(path, transaction) is not None

    def write(self, domid: int, path: bytes, value: bytes, transaction: Transaction | None = None) -> None:
        """Store a value; parents that are missing are made."""
        try:
            node = self.get(domid, path, "w", transaction)
        except StoreError as error:
            if error.name != "ENOENT":
                raise
            self._create(domid, path, value, transaction)
        else:
            changed = replace(node, value=value)
            self._check_size(changed, domid)
            self._put(path, changed, transaction)
            self._fire(path, changed, transaction)

    def mkdir(self, domid: int, path: bytes, transaction: Transaction | None = None) -> None:
        try:
            self.get(domid, path, "w", transaction)
        except StoreError as error:
            if error.name != "ENOENT":
                raise
            self._create(domid, path, b"", transaction)

    def _create(self, domid: int, path: bytes, value: bytes, transaction: Transaction | None) -> None:
        missing = [path]
        while self._peek(parent_of(missing[-1]), transaction) is None:
            missing.append(parent_of(missing[-1]))
        above = parent_of(missing[-1])
        parent = self._peek(above, transaction)
        assert parent is not None
        if domid != DOM0 and self._owned(domid, transaction) + len(missing) > MAX_NODES:
            raise StoreError("ENOSPC")
        made = {above: replace(parent, children=(*parent.children, _name(missing[-1])))}
        permissions = parent.permissions
        if domid != DOM0:
            permissions = (replace(permissions[0], domid=domid), *permissions[1:])
        for index in range(len(missing) - 1, -1, -1):
            children = (_name(missing[index - 1]),) if index else ()
            made[missing[index]] = Node(b"" if index else value, permissions, children)
        for node in made.values():
            self._check_size(node, domid)
        for place, node in made.items():
            self._put(place, node, transaction)
        self._fire(path, made[path], transaction)

    def remove(self, domid: int, path: bytes, transaction: Transaction | None = None) -> None:
        """Remove a node and all below it. What is not there is no error, if its parent is."""
        try:
            self.get(domid, path, "w", transaction)
        except StoreError as error:
            if error.name == "ENOENT" and self._peek(parent_of(path), transaction) is not None:
                return
            raise
        if path == b"/":
            raise StoreError("EINVAL")
        for place in list(self._below(path, transaction)):
            node = self._peek(place, transaction)
            assert node is not None
            self._fire(place, node, transaction, exact=place != path)
            self._put(place, None, transaction)
        above = parent_of(path)
        parent = self._peek(above, transaction)
        if parent is not None:
            children = tuple(child for child in parent.children if child != _name(path))
            self._put(above, replace(parent, children=children), transaction)

    def _below(self, path: bytes, transaction: Transaction | None) -> Iterator[bytes]:
        """The nodes of a subtree, the deepest first."""
        stack = [path]
        order = []
        while stack:
            place = stack.pop()
            order.append(place)
            node = self._peek(place, transaction)
            stack += [child_of(place, child) for child in node.children] if node is not None else []
        return reversed(order)

    def set_permissions(self, domid: int, path: bytes, permissions: tuple[Permission, ...],
                        transaction: Transaction | None = None) -> None:
        """Only the owner may, and not give the node away."""
        if domid != DOM0 and len(permissions) > MAX_PERMISSIONS:
            raise StoreError("ENOSPC")
        node = self.get(domid, path, "w", transaction)
        if domid not in (DOM0, node.owner):
            raise StoreError("EACCES")
        if domid not in (DOM0, permissions[0].domid):
            raise StoreError("EPERM")
        changed = replace(node, permissions=permissions)
        self._check_size(changed, domid)
        self._put(path, changed, transaction)
        self._fire(path, changed, transaction)

    # ------------------------------------------------------------------ transactions

    def commit(self, transaction: Transaction) -> None:
        """:raises StoreError: EAGAIN: somebody else has changed what it looked at."""
        for path, generation in transaction.seen.items():
            node = self._nodes.get(path)
            if (node.generation if node is not None else 0) != generation:
                raise StoreError("EAGAIN")
        removed = {path: self._nodes[path] for path, node in transaction.nodes.items()
                   if node is None and path in self._nodes}
        for path, node in transaction.nodes.items():
            self._put(path, node, None)
        for path, exact in transaction.fires.items():
            at = self._nodes.get(path) or removed.get(path)
            if at is not None:
                self.changed(path, exact, at)


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def child_of(path: bytes, name: bytes) -> bytes:
    return (b"" if path == b"/" else path) + b"/" + name
