"""The store's ring: messages between a domain and the store's server, and what the store holds of a new domain.

A request is carried out when all of it has come. The answers wait outside while the ring is full, and so do further
requests: nothing piles up.

Ref: Xen public/io/xs_wire.h (struct xenstore_domain_interface); tools/xenstore/xenstored_domain.c, xenstored_core.c
(handle_input); tools/libs/light/libxl_create.c (the entries of a new domain).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from paravirt_xen.platform.abi import DOMAIN_ID
from paravirt_xen.platform.layout import PAGE
from paravirt_xen.platform.rings import Ring, RingFault
from paravirt_xen.platform.store import PAYLOAD_MAX, WATCH_EVENT, Connection, Message
from paravirt_xen.platform.storetree import DOM0, Permission, Store

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

HEADER = struct.Struct("<IIII")  # type, req_id, tx_id, length
STORE_PORT, CONSOLE_PORT = 1, 2  # the domain's first ports, as start_info tells it
RING = 1024
REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD = 2048, 2052, 2056, 2060

READABLE = (Permission("n", DOM0), Permission("r", DOMAIN_ID))
OWN = (Permission("n", DOMAIN_ID),)
DOMAIN_DIRECTORIES: Mapping[str, tuple[Permission, ...]] = {
    **dict.fromkeys(("cpu", "memory", "device", "control", "store", "console", "platform"), READABLE),
    **dict.fromkeys(("data", "drivers", "feature", "attr", "error", "control/shutdown", "control/feature-poweroff",
                     "control/feature-reboot", "control/feature-suspend", "control/sysrq"), OWN),
}


class StoreRing:
    """The connection of a domain to the store.

    :param mfn: frame of the ring's page.
    """

    def __init__(self, domain: Domain, mfn: int) -> None:
        self.domain = domain
        self.store = Store()
        populate(self.store, domain)
        self.connection = Connection(self.store, DOMAIN_ID)
        base, ram = mfn * PAGE, domain.ram
        self._requests = Ring(ram, "the store's request ring", base, RING, base + REQ_CONS, base + REQ_PROD)
        self._answers = Ring(ram, "the store's answer ring", base + RING, RING, base + RSP_CONS, base + RSP_PROD)
        self._in, self._out = bytearray(), bytearray()
        self.backend = domain.events.add_backend(self._notified)

    def state(self) -> tuple[object, ...]:
        return self.store.state(), self.connection.state(), bytes(self._in), bytes(self._out)

    def _notified(self) -> None:
        """The guest sent an event: there is a request, or room for answers.

        :raises GuestExit: the indices are out of range, or a message is longer than the protocol allows.
        """
        try:
            self._serve()
        except RingFault as fault:
            self.domain.crash(str(fault))

    def _serve(self) -> None:
        moved = self._flush()
        while not self._out:
            message = self._next()
            if message is None:
                break
            moved = True
            self._queue(self.connection.answer(message))
            moved |= self._flush()
        if moved:
            self.domain.events.notify(self.backend)

    def _next(self) -> Message | None:
        """The next request that has come in whole, if there is one."""
        buffer = self._in
        buffer += self._requests.read(max(0, HEADER.size - len(buffer)))
        if len(buffer) < HEADER.size:
            return None
        kind, request, transaction, length = HEADER.unpack_from(buffer)
        if length > PAYLOAD_MAX:
            raise RingFault(f"a message of {length} bytes for the store, which takes {PAYLOAD_MAX}")
        buffer += self._requests.read(HEADER.size + length - len(buffer))
        if len(buffer) < HEADER.size + length:
            return None
        payload = bytes(buffer[HEADER.size :])
        buffer.clear()
        return Message(kind, request, transaction, payload)

    def _queue(self, message: Message) -> None:
        kind, request, transaction, payload = message
        self._out += HEADER.pack(kind, request, transaction, len(payload)) + payload

    def _flush(self) -> bool:
        """Put answers, then watch events, into the ring; whether anything moved."""
        moved = False
        while self._out or self.connection.events:
            if not self._out:
                self._queue(Message(WATCH_EVENT, 0, 0, self.connection.next_event()))
            written = self._answers.write(bytes(self._out))
            del self._out[:written]
            moved |= written > 0
            if self._out:
                break
        return moved

    def write(self, path: str, value: str) -> None:
        """dom0 changes a value; watches fire."""
        self.store.write(DOM0, path.encode(), value.encode())
        with contextlib.suppress(RingFault):
            if self._flush():
                self.domain.events.notify(self.backend)


def populate(store: Store, domain: Domain) -> None:
    """What a toolstack has written before a domain starts."""
    home, vm = f"/local/domain/{DOMAIN_ID}", f"/vm/{domain.handle}"
    kib = str(domain.nr_pages * PAGE >> 10)

    def put(path: str, value: str, permissions: tuple[Permission, ...] = READABLE) -> None:
        store.write(DOM0, path.encode(), value.encode())
        store.set_permissions(DOM0, path.encode(), permissions)

    put("/local/domain/0", "", (Permission("r", DOM0),))
    put("/local/domain/0/name", "Domain-0", (Permission("r", DOM0),))
    put(home, "")
    put(vm, "")
    put(f"{vm}/name", "paravirt")
    put(f"{vm}/uuid", str(domain.handle))
    for directory, permissions in DOMAIN_DIRECTORIES.items():
        put(f"{home}/{directory}", "", permissions)
    values = {
        "vm": vm, "name": "paravirt", "domid": str(DOMAIN_ID), "cpu/0/availability": "online",
        "memory/static-max": kib, "memory/target": kib, "memory/videoram": "0",
        "store/port": str(STORE_PORT), "store/ring-ref": str(domain.store_mfn),
        "console/port": str(CONSOLE_PORT), "console/ring-ref": str(domain.console_mfn),
        "console/limit": "1048576", "console/type": "xenconsoled", "console/output": "pty", "console/tty": "",
        "control/platform-feature-multiprocessor-suspend": "1", "control/platform-feature-xs_reset_watches": "1",
    }  # fmt: skip
    for name, value in values.items():
        put(f"{home}/{name}", value)
    put(f"{home}/device/suspend", "")
    put(f"{home}/device/suspend/event-channel", "", OWN)
