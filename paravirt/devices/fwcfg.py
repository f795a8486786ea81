"""Firmware configuration: how small kernels and test suites ask an emulated PC for its memory and CPUs.

A key is selected by 16 bits at offset 0; the bytes of its item come one by one at offset 1, the lowest first, and zeros
behind its end. Only what a guest needs to size the machine is there: no files and no DMA.

Ref: QEMU docs/specs/fw_cfg ("Selector (Control) Register", "Data Register", "Signature", "Revision")
"""

from __future__ import annotations

from collections.abc import Mapping

from paravirt.machine.bus import floating

SIGNATURE, REVISION, RAM_SIZE, CPUS, MAX_CPUS = 0x00, 0x01, 0x03, 0x05, 0x0F


class FirmwareConfig:
    """:param memory: bytes of RAM."""

    def __init__(self, memory: int) -> None:
        one = (1).to_bytes(2, "little")
        self._items = {SIGNATURE: b"QEMU", REVISION: one + bytes(2), RAM_SIZE: memory.to_bytes(8, "little"), CPUS: one,
                       MAX_CPUS: one}
        self.reset()

    def read_wide(self, offset: int, size: int) -> int:
        if (offset, size) != (1, 1):
            return floating(size)
        item, at = self._items.get(self._key, b""), self._at
        if at >= len(item):
            return 0
        self._at += 1
        return item[at]

    def write_wide(self, offset: int, size: int, value: int) -> None:
        if (offset, size) == (0, 2):
            self._key, self._at = value, 0

    def state(self) -> Mapping[str, object]:
        return {"key": self._key, "at": self._at}

    def reset(self) -> None:
        self._key = self._at = 0
