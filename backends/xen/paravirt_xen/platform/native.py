"""The hypervisor's C library: its record, and how it is kept equal to what Python knows.

Ref: xen.h (struct xen, field by field).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable
from pathlib import Path

from paravirt.api import PlatformCode
from paravirt_xen.platform import abi
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import Frames
from paravirt_xen.platform.ldt import LDT_WINDOW
from paravirt_xen.platform.multicall import OVER, make_entry
from paravirt_xen.platform.traps import Gate

LIBRARY = Path(__file__).resolve().parent.parent / "platform.so"
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
        ("pending", U64), ("old", U64), ("assists", U64),
        ("writes", U64), ("repaired", U64), ("recipes", NativeRecipe * 256),
    )  # fmt: skip

    def attach(self, frames: Frames, ram: int) -> None:
        """Let C work on the arrays of `frames`, which never move."""
        self.owners, self.info = (ctypes.addressof(ctypes.c_char.from_buffer(data))
                                  for data in (frames.owners, frames.info))
        self.counts, self.refs, self.stamps, self.clock = (
            data.buffer_info()[0] for data in (frames.counts, frames.refs, frames.stamps, frames.clock))
        self.quads, self.total = ram, frames.total


class NativeXen(ctypes.Structure):
    """``struct xen``."""

    _fields_ = (
        ("ram", U64), ("ram_size", U64), ("vcpu_info", U64), ("gdt_window", U64),
        ("kernel_stack", U64), ("iopl_shown", U32), ("ldt_window", U32), ("hypervisor_start", U64),
        ("gates", NativeGate * 256), ("event", NativeGate),
        ("read_eflags", POINTER), ("hypercall", POINTER), ("entry", POINTER), ("upcall", POINTER),
        ("invalidate", POINTER), ("direct", U64), ("inner", U64), ("batches", U64), ("calls_here", U64),
        ("frames", NativeFrames),
    )  # fmt: skip


def attach_native(domain: Domain) -> NativeXen | None:
    """Let C answer what is hot. None: it cannot; the engine's seam "platform" says why."""
    state = NativeXen()
    try:
        code = PlatformCode(domain.machine.engine, LIBRARY, state)
    except PlatformCode.Unavailable:
        return None
    traps, dispatcher, answer = domain.traps, domain.dispatcher, domain.dispatcher.answer

    def entry(number: int, a: int, b: int, c: int, d: int, e: int, calls: int, left: int) -> int:
        try:
            return make_entry(domain, number, (a, b, c, d, e), calls, left)
        except BaseException as error:
            code.fail(error)
            return OVER

    def allow(on: bool) -> None:
        state.calls_here = int(on)

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
    state.entry = code.bare_callback(ctypes.c_int64, (U32,) * 8, entry)
    state.invalidate = code.unicorn("tb_invalidate_phys_range")
    state.direct, state.inner, state.batches, state.kernel_stack = (
        data.buffer_info()[0]
        for data in (dispatcher.direct, dispatcher.inner, dispatcher.batches, traps.kernel_stack))
    state.hypervisor_start = domain.hole.start
    state.upcall = code.callback(None, (), traps.deliver_upcall, None)
    state.frames.attach(domain.frames, domain.ram.address)
    state.frames.set_page, state.frames.restore_state = code.unicorn("tlb_set_page"), code.unicorn("cpu_restore_state")
    state.frames.flush_page = code.unicorn("tlb_flush_page")
    dispatcher.allow_native = allow
    allow(dispatcher.on_call is None)
    settle, machine = code.function("xen_settle", None, POINTER), ctypes.addressof(code.record)
    domain.machine.engine.on_stop = lambda: settle(machine)
    promote, demote = (code.function(f"xen_{what}_l1", ctypes.c_int, POINTER, U64) for what in ("promote", "demote"))
    domain.frames.promote_l1 = lambda mfn: promote(machine, mfn)
    domain.frames.demote_l1 = lambda mfn: demote(machine, mfn)

    table = memoryview(state).cast("B")[NativeXen.gates.offset :][: 257 * GATE.size]  # and `event` behind it

    def copy() -> None:
        table[:] = pack_gates([*traps.gates, traps.event])
        state.frames.assists = domain.vm_assist
        state.iopl_shown = traps.iopl if domain.assist(abi.VMASST_ARCHITECTURAL_IOPL) else 0

    def copy_vcpu_info(address: int) -> None:
        state.vcpu_info = address

    traps.changed = copy
    domain.on_vcpu_info = copy_vcpu_info
    copy()
    copy_vcpu_info(domain.vcpu_info)
    return state
