"""Whether a slice ended with HLT: what the portable engine has to find out by itself.

The public interface does not tell, and F4 before EIP may be the end of a longer instruction. So a code hook goes to
each place where HLT may stand, which is exact from the second time on; the first time what stands around it decides. If
that does not tell, HLT is run past once, as if something had woken the CPU; kernels halt in loops.

Ref: Intel SDM vol. 2A, HLT (F4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paravirt.machine import layout
from paravirt.machine.library import CODE
from paravirt.machine.paging import Tables, lookup
from paravirt.machine.ram import Ram
from paravirt.machine.state import CpuState

HLT = 0xF4
BEFORE = (0xFA, 0xFB, 0xC3, 0x90, 0xCC)  # cli, sti, ret, nop, int3: HLT follows at once, or begins a function
AFTER = ((0xEB, 0xFD), (0x0F, 0x1F), (0x66, 0x0F))  # jmp to it, or the nops of a patched call site
AFTER_1 = (0xC3, 0x90)  # ret, nop


class Halts:
    """:param code_hook: adds a hook on the instructions of a range of addresses."""

    def __init__(self, state: CpuState, ram: Ram, code_hook: Callable[[Any, int, int], None]) -> None:
        self._state, self._ram, self._code_hook = state, ram, code_hook
        self._places: set[int] = set()
        self._seen = -1

    def begin(self) -> None:
        """A slice begins."""
        self._seen = -1

    def ended_by(self, eip: int) -> bool:
        """Whether the slice that stopped at `eip` ended with HLT."""
        at = (eip - 1) & 0xFFFFFFFF
        if at in self._places:
            return self._seen == at
        if self._state.words[layout.HFLAGS] & layout.HF_CPL:
            return False
        around = [self._byte(at + offset) for offset in range(-1, 3)]
        if around[1] != HLT:
            return False
        self._places.add(at)
        self._code_hook(CODE(lambda _uc, address, _size, _user: self._see(address)), at, at)
        physical = self._physical(at)
        assert physical is not None  # its byte was just read
        self._ram.on_write(physical, physical + 1)
        return around[0] in BEFORE or around[2] in AFTER_1 or tuple(around[2:]) in AFTER

    def _see(self, address: int) -> None:
        self._seen = address

    def _physical(self, va: int) -> int | None:
        """Physical address of a byte of code, if there is one."""
        quads = self._state.quads
        tables = Tables(quads[layout.CR], quads[layout.CR + 3], quads[layout.CR + 4])
        leaf = lookup(self._ram, tables, va & 0xFFFFFFFF)
        return leaf.physical if leaf is not None and self._ram.contains(leaf.physical) else None

    def _byte(self, va: int) -> int:
        at = self._physical(va)
        return -1 if at is None else self._ram.bytes[at]
