"""How a run ends.

One `Outcome` a run, whatever ended it. `GuestExit` carries it through every Python frame that waits
for the guest; it is a BaseException so that ``except Exception`` in an op cannot swallow it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class End(enum.Enum):
    """What ended the run, and the exit status that goes with it (None: the outcome carries its own)."""

    POWEROFF = ("poweroff", 0)
    REBOOT = ("reboot", 0)
    HALT = ("halt", 0)
    DEBUG_EXIT = ("debug-exit", None)
    MATCHED = ("matched", 0)
    STOPPED = ("stopped", 0)
    CRASH = ("crash", 70)
    IDLE = ("idle", 70)
    TIMEOUT = ("timeout", 124)
    LIMIT = ("limit", 124)
    INTERRUPTED = ("interrupted", None)
    ERROR = ("error", 2)

    def __init__(self, word: str, status: int | None) -> None:
        self.word = word
        self.status = status


@dataclass(frozen=True)
class Outcome:
    """:param reason: one sentence. :param eip: where the guest was, if that matters. :param status: exit
    status, where the kind of end does not say it."""

    end: End
    reason: str
    eip: int | None = None
    symbol: str = ""
    status: int = 0

    @property
    def exit_code(self) -> int:
        return self.status if self.end.status is None else self.end.status

    def at(self, eip: int, symbol: str) -> Outcome:
        """The same outcome, with a place."""
        return replace(self, eip=eip, symbol=symbol)


class GuestExit(BaseException):
    """The run is over. Raised at every line that waits for the guest."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


def crash(reason: str) -> GuestExit:
    """The guest did what no guest can survive; `reason` is a sentence."""
    return GuestExit(Outcome(End.CRASH, reason))
