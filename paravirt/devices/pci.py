"""PCI configuration mechanism 1, in front of a bus that holds at most a host bridge.

Kernels look for a host bridge before they believe the mechanism, so there is one; it can do nothing.

Ref: PCI Local Bus Specification 2.2, section 3.2.2.3.2 (configuration mechanism 1) and 6.1 (header); Intel
82441FX data sheet (order 290549), registers VID, DID, CLASSC; 82371SB data sheet (order 290550), register RC
(reset control, CF9h)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

_ENABLE = 1 << 31
_ADDRESS_BITS = 0x80FFFFFC
_RESET_CONTROL, _RESET_CPU, _RESET_BITS = 1, 0x04, 0x06
_DATA = 4  # offset of CFCh

_HOST_BRIDGE = {
    0x00: 0x12378086,  # device, vendor: 82441FX
    0x04: 0x02800006,  # status: medium timing, fast back-to-back; command: memory, bus master
    0x08: 0x06000002,  # class: host bridge; revision 2
}


def _no_reset() -> None:
    """The reset control register leads nowhere."""


class PciConfig:
    """Ports CF8h to CFFh: the address register at offset 0 (32-bit accesses only), data at 4, and reset
    control at 1 (byte accesses).

    :param host_bridge: whether device 0 of bus 0 exists.
    :param reset: called when bit 2 of reset control goes from 0 to 1.
    """

    def __init__(self, host_bridge: bool = True, reset: Callable[[], None] = _no_reset) -> None:
        self._functions = {0: _HOST_BRIDGE} if host_bridge else {}
        self._reset = reset
        self._address = 0
        self._reset_control = 0

    def read_wide(self, offset: int, size: int) -> int:
        ones = (1 << 8 * size) - 1
        if offset == 0 and size == 4:
            return self._address
        if offset == _RESET_CONTROL and size == 1:
            return self._reset_control
        function = self._functions.get(self._address >> 8 & 0xFFFF)
        if offset < _DATA or not self._address & _ENABLE or function is None:
            return ones
        return function.get(self._address & 0xFC, 0) >> 8 * (offset - _DATA) & ones

    def write_wide(self, offset: int, size: int, value: int) -> None:
        if offset == 0 and size == 4:
            self._address = value & _ADDRESS_BITS
        elif offset == _RESET_CONTROL and size == 1:
            pulse = value & ~self._reset_control & _RESET_CPU
            self._reset_control = value & _RESET_BITS
            if pulse:
                self._reset()

    def state(self) -> Mapping[str, object]:
        return {"address": self._address, "reset_control": self._reset_control}

    def reset(self) -> None:
        self._address = 0
        self._reset_control = 0
