"""Small registers that a PC needs: A20 gate and fast reset, POST code, debug output, exit for tests, power off.

Ref: IBM PS/2 Technical Reference, "System Control Port A" (92h); IBM PC/AT Technical Reference (80h);
ACPI 5.0, section 4.8.3.2.1 (PM1 control: SLP_TYP, SLP_EN); Bochs and QEMU for E9h (isa-debugcon) and F4h
(isa-debug-exit), which no hardware has
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from paravirt.machine.bus import floating
from paravirt.machine.shortcuts import Latch

_A20, _FAST_RESET = 0x02, 0x01
_SLEEP_TYPE, _SLEEP_ENABLE = 0x1C00, 0x2000
_SCI_ENABLED = 0x0001
DEBUG_OUTPUT_PRESENT = 0xE9


class Port92:
    """System control port A. The A20 gate is remembered only: all of memory is always there.

    :param reset: called when bit 0 goes from 0 to 1.
    """

    def __init__(self, reset: Callable[[], None]) -> None:
        self._reset = reset
        self._bits = _A20

    def read(self, offset: int) -> int:
        return self._bits

    def write(self, offset: int, value: int) -> None:
        pulse = value & ~self._bits & _FAST_RESET
        self._bits = value & (_A20 | _FAST_RESET)
        if pulse:
            self._reset()

    def state(self) -> Mapping[str, object]:
        return {"bits": self._bits}

    def reset(self) -> None:
        self._bits = _A20


class Post:
    """Keeps the last POST code. Kernels also write here to lose a microsecond."""

    def __init__(self) -> None:
        self.latch = Latch()

    def read(self, offset: int) -> int:
        return self.latch.value

    def write(self, offset: int, value: int) -> None:
        self.latch.value = value

    def state(self) -> Mapping[str, object]:
        return {"code": self.latch.value}

    def reset(self) -> None:
        self.latch.value = 0


class DebugOutput:
    """Prints what is written, a byte at a time; reading gives E9h, by which a kernel tells that it is there.

    :param output: called with each byte.
    """

    def __init__(self, output: Callable[[bytes], None]) -> None:
        self._output = output

    def read(self, offset: int) -> int:
        return DEBUG_OUTPUT_PRESENT

    def write(self, offset: int, value: int) -> None:
        self._output(bytes([value]))

    def state(self) -> Mapping[str, object]:
        return {}

    def reset(self) -> None:
        """There is nothing to forget."""


class DebugExit:
    """Ends the run. Four bytes wide, so that a value may be given as OUT of any size.

    :param end: called with the value written.
    """

    def __init__(self, end: Callable[[int], None]) -> None:
        self._end = end

    def read_wide(self, offset: int, size: int) -> int:
        return floating(size)

    def write_wide(self, offset: int, size: int, value: int) -> None:
        self._end(value)

    def state(self) -> Mapping[str, object]:
        return {}

    def reset(self) -> None:
        """There is nothing to forget."""


class PowerOff:
    """The ACPI PM1a control register, 16 bits, of which only the way to S5 does anything.

    :param off: called when sleep type 0 is enabled (2000h is written).
    """

    def __init__(self, off: Callable[[], None]) -> None:
        self._off = off
        self._value = _SCI_ENABLED

    def read_wide(self, offset: int, size: int) -> int:
        return self._value >> 8 * offset & (1 << 8 * size) - 1

    def write_wide(self, offset: int, size: int, value: int) -> None:
        if size != 2:
            return  # the register is written as a whole
        self._value = value & _SLEEP_TYPE | _SCI_ENABLED
        if value & (_SLEEP_ENABLE | _SLEEP_TYPE) == _SLEEP_ENABLE:
            self._off()

    def state(self) -> Mapping[str, object]:
        return {"value": self._value}

    def reset(self) -> None:
        self._value = _SCI_ENABLED
