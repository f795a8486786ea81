"""Event channels: a domain's ports, and who stands behind them.

The other end of a port is the domain itself (an IPI, a loop-back channel), the hypervisor (a VIRQ) or dom0, where two
backends live: the store's and the console's. How the guest is told is the business of twolevel.py, or of fifo.py
once it has asked for that.

Ref: Xen public/event_channel.h, public/xen.h (struct vcpu_info, VIRQ_*); common/event_channel.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from paravirt_xen.platform.abi import DOMAIN_ID, DOMID_SELF, EVENT_CHANNELS, PENDING_SEL, UPCALL_MASK
from paravirt_xen.platform.channels import (
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
from paravirt_xen.platform.twolevel import TwoLevel

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain
    from paravirt_xen.platform.fifo import Fifo

    Bits = TwoLevel | Fifo

BUCKET = 64  # ports become valid by buckets
FIRST_BACKEND_PORT = 17  # dom0 has other channels before


class Events:
    """
    :ivar channels: by port; as many as are valid. :ivar bits: how the guest is told.
    :ivar kick: wakes the vcpu. :ivar polled: the port that it waits for though events are masked, ANY_PORT, or 0.
    """

    bits: Bits
    set_pending: Callable[[int], None]
    is_pending: Callable[[int], bool]
    is_masked: Callable[[int], bool]

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.kick: Callable[[], None] = lambda: None
        self.polled = 0
        self._ram, self._write_u32 = domain.ram, domain.ram.write_u32
        self._words, self._bytes = domain.ram.words, domain.ram.bytes
        self.channels = [Channel() for _ in range(BUCKET)]
        self.channels[0].state = State.RESERVED
        self.virqs: dict[int, int] = {}
        self.backends: dict[int, Backend] = {}
        self.on_virq_change: Callable[[int], None] = lambda virq: None
        self.use(TwoLevel(self))

    # ------------------------------------------------------------------ the bits in memory

    def use(self, bits: Bits) -> None:
        """Let the guest be told by these from now on."""
        self.bits = bits
        self.set_pending, self.is_pending, self.is_masked = bits.set_pending, bits.is_pending, bits.is_masked

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
            if channel.state is State.FREE and not self.bits.busy(port):
                return port
        if len(self.channels) >= EVENT_CHANNELS:
            raise HypercallError(ENOSPC, "every port is in use")
        self.channels += [Channel() for _ in range(BUCKET)]
        return len(self.channels) - BUCKET

    def _open(self, state: State, *, vcpu: int = 0, virq: int = 0, remote: int = 0, peer: int = 0) -> int:
        port = self._allocate()
        self.channels[port] = Channel(state, vcpu, virq, remote, peer)
        self.bits.opened(port)
        return port

    def _free(self, port: int) -> None:
        self.bits.clear_pending(port)
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
        self.bits.unmask(port)

    def poll(self, port: int) -> bool:
        """Whether a port that somebody polls is pending; :raises HypercallError: EINVAL: it is not open."""
        if self.channel(port).state in (State.FREE, State.RESERVED):
            raise HypercallError(EINVAL, f"port {port} is not open")
        return self.is_pending(port)

    def state(self) -> list[tuple[int, ...]]:
        """Every open port, and dom0's, as plain numbers."""
        ports = [(port, int(channel.state), channel.vcpu, channel.virq, channel.remote, channel.peer)
                 for port, channel in enumerate(self.channels) if channel.state is not State.FREE]
        return ports + [(backend.port, backend.peer) for backend in self.backends.values()] + self.bits.state()

    def reset(self, domid: int) -> None:
        if self._domain(domid) != DOMAIN_ID:
            raise HypercallError(EPERM, "the ports of another domain")
        for port, channel in enumerate(self.channels):
            if channel.state not in (State.FREE, State.RESERVED):
                self.close(port)
        if not isinstance(self.bits, TwoLevel):
            self.bits.destroy()
            self.use(TwoLevel(self))
