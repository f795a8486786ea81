"""Event channels: a domain's ports, who stands behind them, and the bits in shared_info that tell the guest.

The two-level ABI: 1024 ports, a pending and a mask bit each, a selector word and two flags in the vcpu_info. The
other end of a port is the domain itself (an IPI, a loop-back channel), the hypervisor (a VIRQ) or dom0, where two
backends live: the store's and the console's.

Ref: Xen public/event_channel.h, public/xen.h (struct vcpu_info, VIRQ_*); common/event_channel.c, event_2l.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from paravirt_xen.platform.abi import (
    DOMAIN_ID,
    DOMID_SELF,
    EVENT_CHANNELS,
    EVTCHN_PENDING,
    PENDING_SEL,
    UPCALL_MASK,
)
from paravirt_xen.platform.channels import (
    ANY_PORT,
    DOM0,
    INTERDOMAIN,
    IPI,
    NR_PIRQS,
    NR_VCPUS,
    NR_VIRQS,
    PER_VCPU_VIRQS,
    Backend,
    Channel,
    State,
    Status,
)
from paravirt_xen.platform.errors import EEXIST, EINVAL, ENOENT, ENOSPC, EPERM, ESRCH, HypercallError

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

PAGE_WORDS = 1024
BUCKET = 64  # ports become valid by buckets
FIRST_BACKEND_PORT = 17  # dom0 has other channels before


class Events:
    """
    :ivar channels: by port; as many as are valid.
    :ivar kick: wakes the vcpu. :ivar polled: the port that it waits for though events are masked, ANY_PORT, or 0.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.kick: Callable[[], None] = lambda: None
        self.polled = 0
        self._ram, self._write_u32 = domain.ram, domain.ram.write_u32
        self._words, self._bytes = domain.ram.words, domain.ram.bytes
        self._pending_word = (domain.shared + EVTCHN_PENDING) >> 2
        self.channels = [Channel() for _ in range(BUCKET)]
        self.channels[0].state = State.RESERVED
        self.virqs: dict[int, int] = {}
        self.backends: dict[int, Backend] = {}
        self.on_virq_change: Callable[[int], None] = lambda virq: None

    # ------------------------------------------------------------------ the bits in memory

    def pending_unmasked(self) -> bool:
        """Whether the guest is to get an upcall now."""
        at = self.domain.vcpu_info
        return bool(self._bytes[at]) and not self._bytes[at + UPCALL_MASK]

    @property
    def upcall_mask(self) -> bool:
        return bool(self._bytes[self.domain.vcpu_info + UPCALL_MASK])

    @upcall_mask.setter
    def upcall_mask(self, mask: bool) -> None:
        self._ram.write(self.domain.vcpu_info + UPCALL_MASK, bytes((mask,)))

    def is_pending(self, port: int) -> bool:
        return bool(self._words[self._pending_word + (port >> 5)] >> (port & 31) & 1)

    def is_masked(self, port: int) -> bool:
        return bool(self._words[self._pending_word + 32 + (port >> 5)] >> (port & 31) & 1)

    def set_pending(self, port: int) -> None:
        """An event has come: no more than a bit, so nothing if the guest has not taken the last one."""
        words, bit = self._words, 1 << (port & 31)
        index = self._pending_word + (port >> 5)
        word = words[index]
        if word & bit:
            return
        words[index] = word | bit
        info, wakes = self.domain.vcpu_info >> 2, False
        if not words[index + 32] & bit:
            selected, bit = words[info + 1], 1 << (port >> 5)  # evtchn_pending_sel
            if not selected & bit:
                words[info + 1] = selected | bit
                flags = words[info]
                if not flags & 0xFF:
                    words[info] = flags | 1
                    wakes = True
        code = self._ram.code_pages
        if code is None or code[index // PAGE_WORDS] or code[info // PAGE_WORDS]:
            self._ram.on_write(4 * index, 4 * index + 4)
            self._ram.on_write(4 * info, 4 * info + 8)
        if wakes or (self.polled and self.polled in (port, ANY_PORT)):
            self.kick()

    def _select(self, port: int) -> None:
        at = self.domain.vcpu_info
        selected, bit = self._words[(at + PENDING_SEL) >> 2], 1 << (port >> 5)
        if not selected & bit:
            self._write_u32(at + PENDING_SEL, selected | bit)
            self.mark_pending()

    def mark_pending(self) -> None:
        """Set evtchn_upcall_pending, and wake the vcpu if that was clear."""
        at = self.domain.vcpu_info
        flags = self._words[at >> 2]
        if not flags & 0xFF:
            self._write_u32(at, flags | 1)
            self.kick()

    def select_all(self) -> None:
        """Let the guest look at every port, since something may have got lost."""
        self._write_u32(self.domain.vcpu_info + PENDING_SEL, 0xFFFFFFFF)
        self.mark_pending()

    # ------------------------------------------------------------------ ports

    def channel(self, port: int) -> Channel:
        """:raises HypercallError: EINVAL: no valid port."""
        if port >= len(self.channels):
            raise HypercallError(EINVAL, f"port {port} is not valid")
        return self.channels[port]

    def _allocate(self) -> int:
        for port, channel in enumerate(self.channels):
            if channel.state is State.FREE:
                return port
        if len(self.channels) >= EVENT_CHANNELS:
            raise HypercallError(ENOSPC, "every port is in use")
        self.channels += [Channel() for _ in range(BUCKET)]
        return len(self.channels) - BUCKET

    def _open(self, state: State, *, vcpu: int = 0, virq: int = 0, remote: int = 0, peer: int = 0) -> int:
        port = self._allocate()
        self.channels[port] = Channel(state, vcpu, virq, remote, peer)
        return port

    def _free(self, port: int) -> None:
        index = self._pending_word + (port >> 5)
        self._write_u32(4 * index, self._words[index] & ~(1 << (port & 31)))
        self.channels[port] = Channel()

    @staticmethod
    def _vcpu(vcpu: int) -> int:
        if vcpu >= NR_VCPUS:
            raise HypercallError(ENOENT, f"there is no vcpu {vcpu}")
        return vcpu

    @staticmethod
    def _domain(domid: int) -> int:
        """A domain that exists: this one or dom0."""
        if domid == DOMID_SELF:
            return DOMAIN_ID
        if domid not in (DOM0, DOMAIN_ID):
            raise HypercallError(ESRCH, f"there is no domain {domid}")
        return domid

    def add_backend(self, notify: Callable[[], None]) -> Backend:
        """A service in dom0, connected to the domain's next port, as the domain builder leaves it."""
        backend = Backend(FIRST_BACKEND_PORT + len(self.backends), notify)
        backend.peer = self._open(State.INTERDOMAIN, remote=DOM0, peer=backend.port)
        self.backends[backend.port] = backend
        return backend

    def notify(self, backend: Backend) -> None:
        """The service sends to the domain."""
        if backend.peer:
            self.set_pending(backend.peer)

    # ------------------------------------------------------------------ what the guest may ask for

    def alloc_unbound(self, domid: int, remote: int) -> int:
        if self._domain(domid) != DOMAIN_ID:
            raise HypercallError(EPERM, "a port in another domain")
        return self._open(State.UNBOUND, remote=DOMAIN_ID if remote == DOMID_SELF else remote)

    def bind_interdomain(self, remote: int, remote_port: int) -> int:
        remote = self._domain(remote)
        if remote == DOM0:
            backend = self.backends.get(remote_port)
            if backend is None or backend.peer:
                raise HypercallError(EINVAL, f"port {remote_port} of dom0 waits for nobody")
            port = backend.peer = self._open(State.INTERDOMAIN, remote=DOM0, peer=remote_port)
        else:
            other = self.channel(remote_port)
            if other.state is not State.UNBOUND or other.remote != DOMAIN_ID:
                raise HypercallError(EINVAL, f"port {remote_port} does not wait for this domain")
            port = self._open(State.INTERDOMAIN, remote=DOMAIN_ID, peer=remote_port)
            other.state, other.peer = State.INTERDOMAIN, port
        self.set_pending(port)  # what was sent before is lost, so the guest is to look
        return port

    def bind_virq(self, virq: int, vcpu: int) -> int:
        if virq >= NR_VIRQS or (vcpu and virq not in PER_VCPU_VIRQS):
            raise HypercallError(EINVAL, f"no VIRQ {virq} on vcpu {vcpu}")
        self._vcpu(vcpu)
        if virq in self.virqs:
            raise HypercallError(EEXIST, f"VIRQ {virq} is bound to port {self.virqs[virq]}")
        port = self.virqs[virq] = self._open(State.VIRQ, vcpu=vcpu, virq=virq)
        self.on_virq_change(virq)
        return port

    def bind_ipi(self, vcpu: int) -> int:
        return self._open(State.IPI, vcpu=self._vcpu(vcpu))

    def bind_pirq(self, pirq: int) -> int:
        raise HypercallError(EINVAL if pirq >= NR_PIRQS else EPERM, "a domU without devices has no interrupts")

    def close(self, port: int) -> None:
        channel = self.channel(port)
        state = channel.state
        if state in (State.FREE, State.RESERVED):
            raise HypercallError(EINVAL, f"port {port} is not open")
        if state is State.VIRQ:
            del self.virqs[channel.virq]
        elif state is State.INTERDOMAIN and channel.remote == DOM0:
            self.backends[channel.peer].peer = 0
        elif state is State.INTERDOMAIN:
            self.channels[channel.peer].state = State.UNBOUND
        self._free(port)
        if state is State.VIRQ:
            self.on_virq_change(channel.virq)

    def send(self, port: int) -> None:
        if port >= len(self.channels):
            raise HypercallError(EINVAL, f"port {port} is not valid")
        channel = self.channels[port]
        state = channel.state
        if state is IPI:
            self.set_pending(port)
        elif state is INTERDOMAIN:
            if channel.remote == DOM0:
                self.backends[channel.peer].notify()
            else:
                self.set_pending(channel.peer)
        elif state is not State.UNBOUND:  # what nobody listens to gets lost
            raise HypercallError(EINVAL, f"nothing can be sent through port {port}")

    def virq(self, virq: int) -> None:
        """The hypervisor raises a VIRQ; nothing if the guest has not bound it."""
        port = self.virqs.get(virq)
        if port is not None:
            self.set_pending(port)

    def status(self, domid: int, port: int) -> Status:
        if self._domain(domid) != DOMAIN_ID:
            raise HypercallError(EPERM if port < BUCKET else EINVAL, "a port of another domain")
        channel = self.channel(port)
        state = channel.state
        status = Status(max(state, 0), channel.vcpu)
        if state in (State.UNBOUND, State.INTERDOMAIN):
            status.detail, status.peer = channel.remote, channel.peer if state is State.INTERDOMAIN else 0
        elif state is State.VIRQ:
            status.detail = channel.virq
        return status

    def bind_vcpu(self, port: int, vcpu: int) -> None:
        self._vcpu(vcpu)
        channel = self.channel(port)
        if channel.state in (State.UNBOUND, State.INTERDOMAIN) or (
                channel.state is State.VIRQ and channel.virq not in PER_VCPU_VIRQS):
            channel.vcpu = vcpu
        else:
            raise HypercallError(EINVAL, f"port {port} cannot be bound to a vcpu")

    def unmask(self, port: int) -> None:
        if self.channel(port).state in (State.FREE, State.RESERVED):
            return
        index, bit = self._pending_word + 32 + (port >> 5), 1 << (port & 31)
        word = self._words[index]
        if word & bit:
            self._write_u32(4 * index, word & ~bit)
            if self.is_pending(port):
                self._select(port)

    def poll(self, port: int) -> bool:
        """Whether a port that somebody polls is pending; :raises HypercallError: EINVAL: it is not open."""
        if self.channel(port).state in (State.FREE, State.RESERVED):
            raise HypercallError(EINVAL, f"port {port} is not open")
        return self.is_pending(port)

    def state(self) -> list[tuple[int, ...]]:
        """Every open port, and dom0's, as plain numbers."""
        ports = [(port, int(channel.state), channel.vcpu, channel.virq, channel.remote, channel.peer)
                 for port, channel in enumerate(self.channels) if channel.state is not State.FREE]
        return ports + [(backend.port, backend.peer) for backend in self.backends.values()]

    def reset(self, domid: int) -> None:
        if self._domain(domid) != DOMAIN_ID:
            raise HypercallError(EPERM, "the ports of another domain")
        for port, channel in enumerate(self.channels):
            if channel.state not in (State.FREE, State.RESERVED):
                self.close(port)
