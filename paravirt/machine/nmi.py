"""The CPU's NMI pin: an edge is kept until the CPU can take it, and one more while an NMI is being served.

Where C delivers, libunicorn's request bit is the latch (accel/delivery.c). Elsewhere it is kept here, and the engine
asks before each slice. "Being served" is libunicorn's own bit, which IRET clears.

Ref: Intel SDM vol. 3A, 6.7 (nonmaskable interrupt), 6.7.1 (handling multiple NMIs), 6.8.3 (MOV SS).
"""

from __future__ import annotations

from paravirt.machine import layout
from paravirt.machine.accel import NativeMachine
from paravirt.machine.state import CpuState, LiveState

NMI = 2


class NmiPin:
    """:param live: the state in place, if there is one."""

    def __init__(self, state: CpuState, live: LiveState | None, record: NativeMachine) -> None:
        self._state, self._live, self._record = state, live, record
        self._kept = False

    def request(self) -> None:
        """An edge."""
        if self._live is not None and self._record.acknowledge:
            self._live.request_nmi()
        else:
            self._kept = True

    @property
    def pending(self) -> bool:
        """The CPU has not taken an NMI yet."""
        return self._kept or (self._live is not None and self._live.nmi_requested)

    def take(self) -> bool:
        """Whether one that is kept here is to be delivered now, at this boundary; then it is being served."""
        words = self._state.words
        if not self._kept or words[layout.HFLAGS2] & layout.HF2_NMI or words[layout.HFLAGS] & layout.HF_SHADOW:
            return False
        self._kept = False
        words[layout.HFLAGS2] |= layout.HF2_NMI
        return True
