"""Registers that `CpuState` does not hold: x87, SSE, control and model-specific ones, through the public interface.

Slow, and with all side effects of a write; nothing on a hot path needs them.

Ref: Intel SDM vol. 1, 8.1 (x87 state), 10.2.3 (MXCSR); vol. 4, table 2-2 (architectural MSRs).
"""

from __future__ import annotations

from typing import Any

from paravirt.machine.accel import NativeMachine
from paravirt.machine.library import x86
from paravirt.machine.state import CpuState

# What libunicorn's reset leaves at 0: as after FNINIT, which a PC's firmware has done, and SSE's exceptions masked.
RESET = ((x86.UC_X86_REG_FPCW, 0x37F), (x86.UC_X86_REG_FPTAG, 0xFFFF), (x86.UC_X86_REG_MXCSR, 0x1F80))
HASHED = (x86.UC_X86_REG_FPCW, x86.UC_X86_REG_FPSW, x86.UC_X86_REG_FPTAG, x86.UC_X86_REG_MXCSR,
          *range(x86.UC_X86_REG_ST0, x86.UC_X86_REG_ST7 + 1), *range(x86.UC_X86_REG_XMM0, x86.UC_X86_REG_XMM7 + 1))
HASHED_MSRS = (0x174, 0x175, 0x176, 0x1A0, 0x277, 0xC0000080)  # SYSENTER's three, MISC_ENABLE, PAT, EFER


class OtherRegisters:
    """
    :param uc: the binding's engine.
    """

    def __init__(self, uc: Any, state: CpuState, record: NativeMachine) -> None:
        self._uc, self._state, self._record = uc, state, record
        for register, value in RESET:
            uc.reg_write(register, value)

    def write(self, register: int, value: int) -> None:
        """Write a register of the binding's numbers with all its side effects."""
        self._uc.reg_write(register, value)

    def read_msr(self, index: int) -> int:
        """A model-specific register; 0 for one that libunicorn does not have."""
        record = self._record
        checked, record.msrs = record.msrs, 0  # it goes through the guest's helper, which must not raise #GP here
        try:
            return int(self._uc.msr_read(index))
        finally:
            record.msrs = checked

    def write_msr(self, index: int, value: int) -> None:
        """A model-specific register; what libunicorn does not have is dropped."""
        record = self._record
        checked, record.msrs = record.msrs, 0
        try:
            self._state.store()
            self._uc.msr_write(index, value)
            self._state.load()
        finally:
            record.msrs = checked

    def all(self) -> list[object]:
        """x87 and SSE registers, the model-specific ones that mean something, and the TSC's offset."""
        return [*map(self._uc.reg_read, HASHED), *map(self.read_msr, HASHED_MSRS), int(self._record.tsc_offset)]

    def close(self) -> None:
        """Let go of the engine."""
        self._uc = None
