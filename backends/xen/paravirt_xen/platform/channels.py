"""What an event channel is: the states of a port, and who may stand behind it.

Ref: Xen public/event_channel.h (EVTCHNSTAT_*), public/xen.h (VIRQ_*).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

DOM0 = 0
NR_VCPUS = 1
NR_VIRQS = 24
VIRQ_TIMER, VIRQ_DEBUG, VIRQ_XENOPROF, VIRQ_XENPMU = 0, 1, 7, 13
PER_VCPU_VIRQS = (VIRQ_TIMER, VIRQ_DEBUG, VIRQ_XENOPROF, VIRQ_XENPMU)
NR_PIRQS = 56  # 24 of a PC's I/O APIC and the 32 that Xen lets a domU have besides
ANY_PORT = -1  # of a poll


class State(enum.IntEnum):
    """What a port is; the values are EVTCHNSTAT_*. Port 0 is RESERVED: it never is anything."""

    FREE = 0
    UNBOUND = 1
    INTERDOMAIN = 2
    PIRQ = 3
    VIRQ = 4
    IPI = 5
    RESERVED = -1


IPI, INTERDOMAIN = State.IPI, State.INTERDOMAIN  # looking them up takes time


@dataclass(slots=True)
class Channel:
    """:ivar peer: the port at the other end. :ivar vcpu: whom it notifies."""

    state: State = State.FREE
    vcpu: int = 0
    virq: int = 0
    remote: int = 0
    peer: int = 0


@dataclass(slots=True)
class Backend:
    """A port of dom0's. :ivar peer: the domain's port that it is bound to; 0: none, and the domain may bind it.

    :ivar notify: called when the domain sends.
    """

    port: int
    notify: Callable[[], None]
    peer: int = 0


@dataclass(slots=True)
class Status:
    """What EVTCHNOP_status tells; `detail` and `peer` are the words of its union."""

    status: int
    vcpu: int
    detail: int = 0
    peer: int = 0
