"""The CPU's registers as memory views: the same words whether they are live or a saved context.

`LiveState` looks at libunicorn's own CPUX86State; `ContextState` at a copy that `uc_context_save`
fills and `uc_context_restore` puts back, which needs nothing but the public interface. Whoever is
called by libunicorn does `load` first and `store` last; both are empty for the live state.
"""

from __future__ import annotations

import ctypes
from typing import Any

from paravirt.machine import layout
from paravirt.machine.library import Library, Pointer, x86

_KEPT_ELSEWHERE = 0xCD5  # OF, DF, SF, ZF, AF, PF, CF
_VERIFIED = {"dr0": x86.UC_X86_REG_DR0, "dr3": x86.UC_X86_REG_DR3, "eax": x86.UC_X86_REG_EAX,
             "edi": x86.UC_X86_REG_EDI, "esp": x86.UC_X86_REG_ESP, "cr2": x86.UC_X86_REG_CR2}


class CpuState:
    """Views `bytes`, `words` (u32) and `quads` (u64), to be indexed by the constants of `layout`."""

    name = ""

    def __init__(self, address: int) -> None:
        buffer = (ctypes.c_ubyte * layout.STATE_BYTES).from_address(address)
        self.bytes = memoryview(buffer).cast("B")
        self.words = self.bytes.cast("I")
        self.quads = self.bytes.cast("Q")

    def load(self) -> None:
        """Make the views show the CPU's present state."""

    def store(self) -> None:
        """Make the CPU's state what the views show."""

    def read_eflags(self) -> int:
        raise NotImplementedError

    def write_debug(self, index: int, value: int) -> None:
        """Load DR0 to DR3, DR6 or DR7 as MOV does: breakpoints follow where the engine has them."""
        self.quads[layout.DR + index] = value

    def write_eflags(self, value: int) -> None:
        """Replace all of EFLAGS. The mode bits of hflags (CPL) are not touched; IOPL, TF and VM follow."""
        raise NotImplementedError


class LiveState(CpuState):
    """libunicorn's own state, in place."""

    name = "live"

    def __init__(self, library: Library, uc: Any) -> None:
        uc.reg_read(x86.UC_X86_REG_EAX)  # libunicorn builds its CPU at the first call that needs one
        handle: int = uc._uch.value
        self.cpu = ctypes.c_uint64.from_address(handle + layout.UC_TO_CPU).value
        self.env = self.cpu + layout.CPU_TO_ENV
        if ctypes.c_uint32.from_address(self.cpu + 24).value != 0xFFFFFFFF:
            raise layout.LayoutMismatch("cflags_next_tb is not at offset 24 of CPUState")
        super().__init__(self.env)

        def write_and_dump(register: str, value: int) -> bytes:
            uc.reg_write(_VERIFIED[register], value)
            return bytes(self.bytes)

        layout.verify(write_and_dump)
        self._read_eflags = library.internal("helper_read_eflags", ctypes.c_uint64, Pointer)
        self._write_eflags = library.internal(
            "helper_write_eflags", None, Pointer, ctypes.c_uint64, ctypes.c_uint32
        )
        self._set_debug = library.internal("helper_set_dr", None, Pointer, ctypes.c_int, ctypes.c_uint64)
        self._interrupt_request = ctypes.c_uint32.from_address(self.cpu + layout.CPU_INTERRUPT_REQUEST)
        self._halted = ctypes.c_uint32.from_address(self.cpu + layout.CPU_HALTED)

    def read_eflags(self) -> int:
        return int(self._read_eflags(self.env))

    def write_debug(self, index: int, value: int) -> None:
        self._set_debug(self.env, index, value)

    def write_eflags(self, value: int) -> None:
        self._write_eflags(self.env, value, 0x3FFFFF & ~_KEPT_ELSEWHERE)
        _follow_eflags(self, value)

    @property
    def halted(self) -> bool:
        return bool(self._halted.value)

    @halted.setter
    def halted(self, value: bool) -> None:
        self._halted.value = value

    @property
    def interrupt_requested(self) -> bool:
        return bool(self._interrupt_request.value & layout.INTERRUPT_HARD)

    @interrupt_requested.setter
    def interrupt_requested(self, value: bool) -> None:
        if value:
            self._interrupt_request.value |= layout.INTERRUPT_HARD
        else:
            self._interrupt_request.value &= ~layout.INTERRUPT_HARD

    @property
    def nmi_requested(self) -> bool:
        return bool(self._interrupt_request.value & layout.INTERRUPT_NMI)

    def request_nmi(self) -> None:
        self._interrupt_request.value |= layout.INTERRUPT_NMI


class ContextState(CpuState):
    """A saved context: public interface only."""

    name = "context"

    def __init__(self, library: Library, uc: Any) -> None:
        self._uch = uc._uch
        self._library = library
        self._context = uc.context_save()
        self._pointer = Pointer(self._context._context.value)
        super().__init__((self._pointer.value or 0) + layout.CONTEXT_HEADER)

        def write_and_dump(register: str, value: int) -> bytes:
            uc.reg_write(_VERIFIED[register], value)
            self.load()
            return bytes(self.bytes)

        layout.verify(write_and_dump)

    def load(self) -> None:
        self._library.context_save(self._uch, self._pointer)

    def store(self) -> None:
        self._library.context_restore(self._uch, self._pointer)

    def read_eflags(self) -> int:
        return int(self._context.reg_read(x86.UC_X86_REG_EFLAGS))

    def write_eflags(self, value: int) -> None:
        self._context.reg_write(x86.UC_X86_REG_EFLAGS, value)
        _follow_eflags(self, value)


def _follow_eflags(state: CpuState, value: int) -> None:
    """The translator's copies of TF, IOPL and VM in hflags; arithmetic flags and DF live elsewhere and
    would stick if they stood in the state's EFLAGS word too."""
    kept = layout.HF_TF | layout.HF_IOPL | layout.HF_VM
    state.words[layout.HFLAGS] = state.words[layout.HFLAGS] & ~kept | value & kept
    state.words[layout.EFLAGS] = value & 0x3FFFFF & ~_KEPT_ELSEWHERE | 2
