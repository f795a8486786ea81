"""A domain whose hypercalls a test makes by hand, with a page of its memory for their arguments.

The CPU does not run: `Caller.call` goes through the hypercall table as ``int 0x82`` does, and `pass_time` lets virtual
time go on as the machine's loop does for a vcpu that waits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from paravirt.console import Console
from paravirt.machine.outcome import GuestExit, Outcome
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import Preempted
from paravirt_xen.platform.hypercalls import HYPERCALLS, Dispatcher
from paravirt_xen.platform.layout import RING1_CS
from paravirt_xen.platform.services import entering
from paravirt_xen.platform.traps import Gate
from tests.xendomain import BASE, TEXT, xen_guest

ARGUMENT = TEXT + 0x1000  # a page of the kernel's data
UNMAPPED, READ_ONLY = BASE + (64 << 20), 0xF5800000
MS = 1_000_000


class Caller:
    """:ivar output: what the guest's console has printed."""

    def __init__(self, domain: Domain, output: bytearray) -> None:
        self.domain, self.output = domain, output
        self.dispatcher = Dispatcher(domain)
        self.numbers = {call.name: number for number, call in HYPERCALLS.items()}

    def call(self, name: str, *words: int) -> int:
        """Make a hypercall with these argument words, again and again while it is preempted."""
        arguments = list(words)
        while True:
            try:
                return self.dispatcher.call(self.numbers[name], [*arguments, 0, 0, 0, 0, 0][:5])
            except Preempted as preempted:
                arguments = list(preempted.arguments)

    def put(self, layout: str, *fields: int, at: int = ARGUMENT) -> int:
        """Store a structure; returns its address."""
        self.domain.write(at, struct.pack("<" + layout, *fields))
        return at

    def get(self, layout: str, at: int = ARGUMENT) -> tuple[int, ...]:
        return struct.unpack("<" + layout, self.domain.read(at, struct.calcsize("<" + layout)))

    def with_structure(self, name: str, command: int, layout: str, *fields: int) -> int:
        """A call of the form (command, structure)."""
        return self.call(name, command, self.put(layout, *fields))

    def evtchn(self, command: int, layout: str, *fields: int) -> int:
        return self.with_structure("event_channel_op", command, layout, *fields)

    def bind_virq(self, virq: int) -> int:
        assert self.evtchn(1, "III", virq, 0, 0) == 0
        return self.get("III")[2]

    def bind_ipi(self) -> int:
        assert self.evtchn(7, "II", 0, 0) == 0
        return self.get("II")[1]

    def alloc_unbound(self, remote: int) -> int:
        assert self.evtchn(6, "HHI", 0x7FF0, remote, 0) == 0
        return self.get("HHI")[2]

    # ------------------------------------------------------------------ what the guest sees

    @property
    def flags(self) -> tuple[int, int, int]:
        """upcall_pending, upcall_mask, pending_sel."""
        at, ram = self.domain.vcpu_info, self.domain.ram
        return ram.bytes[at], ram.bytes[at + 1], ram.words[at + 4 >> 2]

    @property
    def pending(self) -> list[int]:
        """Ports whose pending bit is set."""
        words = [self.domain.shared_u32(2048 + 4 * index) for index in range(32)]
        return [32 * index + bit for index, word in enumerate(words) for bit in range(32) if word >> bit & 1]

    def mask(self, port: int, masked: bool = True) -> None:
        at = 2176 + 4 * (port >> 5)
        word = self.domain.shared_u32(at) & ~(1 << (port & 31))
        self.domain.set_shared_u32(at, word | masked << (port & 31))

    def clear(self) -> None:
        """Take every event, as a guest's upcall does, and unmask nothing."""
        at = self.domain.vcpu_info
        self.domain.ram.write(at, b"\0")
        self.domain.ram.write_u32(at + 4, 0)
        for index in range(32):
            self.domain.set_shared_u32(2048 + 4 * index, 0)

    def take(self) -> list[int]:
        """Take every event; returns the ports."""
        taken = self.pending
        self.clear()
        return taken

    # ------------------------------------------------------------------ time

    @property
    def now(self) -> int:
        return self.domain.machine.engine.now()

    def pass_time(self, until: int) -> None:
        """Let virtual time come to `until`, deadline by deadline; a vcpu that is woken gets the CPU."""
        machine = self.domain.machine
        while True:
            machine.timeline.run_due()
            if not self.domain.sched.blocked:
                entering(self.domain)
            deadline = machine.timeline.next_deadline()
            if deadline is None or deadline > until:
                machine.engine.skip_to(until)
                return
            machine.engine.skip_to(deadline)

    def ended(self, name: str, *words: int) -> Outcome:
        """A call that ends the run."""
        with pytest.raises(GuestExit) as caught:
            self.call(name, *words)
            self.domain.machine._check()
        outcome: Outcome = caught.value.outcome
        return outcome


@contextmanager
def calling() -> Iterator[Caller]:
    """A domain that has taken its first events and has events masked, as a kernel that has just begun."""
    output = bytearray()
    with xen_guest(console=Console(output.extend)) as backend:
        caller = Caller(backend.domain, output)
        caller.clear()
        backend.domain.traps.event = Gate(RING1_CS, TEXT, masks=True)
        yield caller
