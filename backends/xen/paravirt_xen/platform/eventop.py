"""event_channel_op and its form of before 2006: from structures in guest memory to `Events`, and back.

Ref: Xen public/event_channel.h; common/event_channel.c (do_event_channel_op), arch/x86/compat.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from paravirt_xen.platform.channels import NR_VCPUS
from paravirt_xen.platform.errors import EINVAL, ENOENT, ENOSYS, EOPNOTSUPP, HypercallError
from paravirt_xen.platform.events import Events
from paravirt_xen.platform.fifo import CONTROL_BLOCK, LINK_BITS, Fifo
from paravirt_xen.platform.layout import PAGE

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

SEND = 4
COMPAT_BYTES, COMPAT_UNION = 28, 4  # struct evtchn_op: the command, then a union of the structures


class Operation(NamedTuple):
    """A row: the structure, and what it does with its fields; what it gives is stored in their place."""

    name: str
    layout: struct.Struct
    run: Callable[..., tuple[int, ...] | None]


def _bind_interdomain(events: Events, remote: int, port: int, local: int) -> tuple[int, ...]:
    return remote, port, events.bind_interdomain(remote, port)


def _bind_virq(events: Events, virq: int, vcpu: int, port: int) -> tuple[int, ...]:
    return virq, vcpu, events.bind_virq(virq, vcpu)


def _bind_pirq(events: Events, pirq: int, flags: int, port: int) -> tuple[int, ...]:
    return pirq, flags, events.bind_pirq(pirq)


def _status(events: Events, domid: int, port: int, *out: int) -> tuple[int, ...]:
    status = events.status(domid, port)
    return domid, port, status.status, status.vcpu, status.detail, status.peer


def _alloc_unbound(events: Events, domid: int, remote: int, port: int) -> tuple[int, ...]:
    return domid, remote, events.alloc_unbound(domid, remote)


def _bind_ipi(events: Events, vcpu: int, port: int) -> tuple[int, ...]:
    return vcpu, events.bind_ipi(vcpu)


def _set_priority(events: Events, port: int, priority: int) -> None:
    events.channel(port)
    events.bits.set_priority(port, priority)


def _init_control(events: Events, gfn: int, offset: int, vcpu: int, link_bits: int) -> tuple[int, ...]:
    """Use the FIFO ABI from now on. There is one vcpu, so one control block."""
    if vcpu >= NR_VCPUS:
        raise HypercallError(ENOENT, f"there is no vcpu {vcpu}")
    if offset > PAGE - CONTROL_BLOCK or offset & 7 or isinstance(events.bits, Fifo):
        raise HypercallError(EINVAL, f"no control block at {offset:#x} of frame {gfn:#x}, or one more")
    events.use(Fifo(events, gfn, offset))
    return gfn, offset, vcpu, LINK_BITS


def _expand_array(events: Events, gfn: int) -> None:
    if not isinstance(events.bits, Fifo):
        raise HypercallError(EOPNOTSUPP, "before there is a control block")
    events.bits.expand(gfn)


_PORT = struct.Struct("<I")

OPERATIONS: Mapping[int, Operation] = {
    0: Operation("bind_interdomain", struct.Struct("<HxxII"), _bind_interdomain),
    1: Operation("bind_virq", struct.Struct("<III"), _bind_virq),
    2: Operation("bind_pirq", struct.Struct("<III"), _bind_pirq),
    3: Operation("close", _PORT, Events.close),
    4: Operation("send", _PORT, Events.send),
    5: Operation("status", struct.Struct("<HxxIIIII"), _status),
    6: Operation("alloc_unbound", struct.Struct("<HHI"), _alloc_unbound),
    7: Operation("bind_ipi", struct.Struct("<II"), _bind_ipi),
    8: Operation("bind_vcpu", struct.Struct("<II"), Events.bind_vcpu),
    9: Operation("unmask", _PORT, Events.unmask),
    10: Operation("reset", struct.Struct("<H"), Events.reset),
    11: Operation("init_control", struct.Struct("<QIIB7x"), _init_control),
    12: Operation("expand_array", struct.Struct("<Q"), _expand_array),
    13: Operation("set_priority", struct.Struct("<II"), _set_priority),
}
COMPAT_OPERATIONS = range(10)


def event_channel_op(domain: Domain, command: int, argument: int) -> int:
    if command == SEND:  # the one that guests make all the time
        domain.events.send(domain.read_u32(argument))
        return 0
    operation = OPERATIONS.get(command)
    if operation is None:
        raise HypercallError(ENOSYS, f"event_channel_op {command}")
    layout = operation.layout
    answer = operation.run(domain.events, *layout.unpack(domain.read(argument, layout.size)))
    if answer is not None:
        domain.write(argument, layout.pack(*answer))
    return 0


def event_channel_op_compat(domain: Domain, op: int) -> int:
    command = int.from_bytes(domain.read(op, COMPAT_BYTES)[:COMPAT_UNION], "little")
    if command not in COMPAT_OPERATIONS:
        raise HypercallError(ENOSYS, f"event_channel_op {command}")
    return event_channel_op(domain, command, op + COMPAT_UNION)
