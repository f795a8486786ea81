"""The steps of a boot: what was called, where it lives, and what it cost.

A step is one call that the boot sequence makes: a lifecycle hook, an op, a function of the kernel. Calls
inside a step belong to it. What a step cost are differences of the machine's counters, so it includes the
interrupts and the other tasks that ran meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from paravirt.machine.outcome import End, GuestExit, Outcome


@dataclass(frozen=True)
class Step:
    """:ivar name: what was called; :ivar kind: how it is implemented; :ivar where: file and line, or symbol.
    :ivar ops: calls of ops by name, as far as they are counted. :ivar traps: exits to the host."""

    name: str
    op: str
    where: str
    kind: str
    instructions: int = 0
    virtual_ns: int = 0
    traps: int = 0
    ops: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """The machine's counters at one moment."""

    instructions: int = 0
    virtual_ns: int = 0
    traps: int = 0
    ops: Mapping[str, int] = field(default_factory=dict)


class Steps:
    """
    :param until: name of the step to stop after.
    :param on_step: told of each step when it is over.
    """

    def __init__(self, until: str | None = None, on_step: Callable[[Step], None] = lambda step: None) -> None:
        self.taken: list[Step] = []
        self.until = until
        self._on_step = on_step
        self._inside = False
        self.may_stop = False  # there is a machine, and somebody waits for its outcome
        self.read: Callable[[], Reading] = Reading

    @contextmanager
    def step(self, name: str, op: str, where: str, kind: str) -> Iterator[None]:
        """Run the body as a step; inside another step it is a part of that.

        A step that the end of the run interrupts is recorded as well.
        """
        if self._inside:
            yield
            return
        self._inside = True
        before = self.read()
        try:
            yield
        finally:
            self._inside = False
            after = self.read()
            ops = Counter(after.ops)
            ops.subtract(before.ops)
            step = Step(name, op, where, kind, after.instructions - before.instructions,
                        after.virtual_ns - before.virtual_ns, after.traps - before.traps, dict(+ops))
            self.taken.append(step)
            self._on_step(step)
        if name == self.until and self.may_stop:
            raise GuestExit(Outcome(End.STOPPED, f"step {name} is over"))

    def hook(self, name: str, where: str = "") -> AbstractContextManager[None]:
        """A step of `boot`: a lifecycle hook or what goes before them."""
        return self.step(name, "", where, "hook")
