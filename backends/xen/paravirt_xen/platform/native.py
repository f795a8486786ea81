"""The hypervisor's C library: its record, and how it is kept equal to what Python knows.

Ref: xen.h (struct xen, field by field).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from paravirt.api import PlatformCode
from paravirt_xen.platform import abi
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import Frames
from paravirt_xen.platform.ldt import LDT_WINDOW
from paravirt_xen.platform.traps import Gate

LIBRARY = Path(__file__).resolve().parent.parent / "platform.so"
UPDATE_VA_MAPPING = 14
GATE = struct.Struct("<IHBB")
U32, U64, POINTER = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p


class NativeGate(ctypes.Structure):
    """``struct gate``."""

    _fields_ = (("eip", U32), ("cs", ctypes.c_uint16), ("dpl", ctypes.c_uint8), ("masks", ctypes.c_uint8))


def pack_gates(gates: Iterable[Gate]) -> bytes:
    """An array of ``struct gate``: as a whole, since a guest may call set_trap_table in a loop."""
    return b"".join(GATE.pack(gate.eip, gate.cs, gate.dpl, gate.masks) for gate in gates)


class NativeRecipe(ctypes.Structure):
    """``struct recipe``."""

    _fields_ = (("ra", U64), ("kind", U64), ("immediate", U64))


class NativeFrames(ctypes.Structure):
    """``struct frames``."""

    _fields_ = (
        ("owners", U64), ("info", U64), ("counts", U64), ("refs", U64), ("stamps", U64), ("clock", U64),
        ("quads", U64), ("total", U64), ("set_page", POINTER), ("restore_state", POINTER), ("flush_page", POINTER),
        ("pending", U64), ("old", U64), ("assists", U64), ("updates_here", U64), ("updates", U64),
        ("writes", U64), ("repaired", U64), ("recipes", NativeRecipe * 256),
    )  # fmt: skip

    def attach(self, frames: Frames, ram: int) -> None:
        """Let C work on the arrays of `frames`, which never move."""
        self.owners, self.info = (ctypes.addressof(ctypes.c_char.from_buffer(data))
                                  for data in (frames.owners, frames.info))
        self.counts, self.refs, self.stamps, self.clock = (
            data.buffer_info()[0] for data in (frames.counts, frames.refs, frames.stamps, frames.clock))
        self.quads, self.total = ram, frames.total


class QuickCalls:
    """Hypercalls that C answers without asking Python."""

    def __init__(self, frames: NativeFrames) -> None:
        self._frames = frames
        self.allow(True)

    def counts(self) -> Mapping[int, int]:
        """By number, how many there were."""
        return {UPDATE_VA_MAPPING: self._frames.updates}

    def allow(self, on: bool) -> None:
        """Whether C may answer calls: somebody may want to see all of them."""
        self._frames.updates_here = int(on)


class NativeXen(ctypes.Structure):
    """``struct xen``."""

    _fields_ = (
        ("ram", U64), ("ram_size", U64), ("vcpu_info", U64), ("gdt_window", U64),
        ("kernel_ss", U32), ("kernel_sp", U32), ("iopl_shown", U32), ("ldt_window", U32),
        ("gates", NativeGate * 256), ("event", NativeGate),
        ("read_eflags", POINTER), ("hypercall", POINTER), ("upcall", POINTER),
        ("frames", NativeFrames),
    )  # fmt: skip


def attach_native(domain: Domain) -> NativeXen | None:
    """Let C answer what is hot. None: it cannot; the engine's seam "platform" says why."""
    state = NativeXen()
    try:
        code = PlatformCode(domain.machine.engine, LIBRARY, state)
    except PlatformCode.Unavailable:
        return None
    traps, answer = domain.traps, domain.dispatcher.answer

    def hypercall(number: int, ebx: int, ecx: int, edx: int, esi: int, edi: int) -> int:
        try:
            return answer(number, ebx, ecx, edx, esi, edi)
        except BaseException as error:
            code.fail(error)
            return 0

    state.ram, state.ram_size = domain.ram.address, domain.ram.size
    state.gdt_window, state.ldt_window = domain.hole.gdt_window, LDT_WINDOW
    state.read_eflags = code.unicorn("helper_read_eflags")
    state.hypercall = code.bare_callback(U32, (U32,) * 6, hypercall)
    state.upcall = code.callback(None, (), traps.deliver_upcall, None)
    state.frames.attach(domain.frames, domain.ram.address)
    state.frames.set_page, state.frames.restore_state = code.unicorn("tlb_set_page"), code.unicorn("cpu_restore_state")
    state.frames.flush_page = code.unicorn("tlb_flush_page")
    domain.dispatcher.native = QuickCalls(state.frames)
    settle, machine = code.function("xen_settle", None, POINTER), ctypes.addressof(code.record)
    domain.machine.engine.on_stop = lambda: settle(machine)

    table = memoryview(state).cast("B")[NativeXen.gates.offset :][: 257 * GATE.size]  # and `event` behind it

    def copy() -> None:
        table[:] = pack_gates([*traps.gates, traps.event])
        state.frames.assists = domain.vm_assist
        state.iopl_shown = traps.iopl if domain.assist(abi.VMASST_ARCHITECTURAL_IOPL) else 0
        copy_stack()

    def copy_stack() -> None:
        state.kernel_ss, state.kernel_sp = traps.kernel_ss, traps.kernel_sp

    def copy_vcpu_info(address: int) -> None:
        state.vcpu_info = address

    traps.changed, traps.stack_changed = copy, copy_stack
    domain.on_vcpu_info = copy_vcpu_info
    copy()
    copy_vcpu_info(domain.vcpu_info)
    return state
