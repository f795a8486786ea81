"""Loads the native helpers and puts them into one engine.

Ref: Unicorn 2.1.4, x86-64 Linux wheel. The sources are in ``paravirt/accel``; every symbol, byte
pattern and pointer that they rely on is looked for here and compared before anything is changed.
What does not match is left as it is and reported by name.

Process-wide changes, each harmless to an engine that is not ours: the size that block hooks are
told is the number of instructions, and tb_invalidate_phys_page_fast goes through ``pv_invalidate``,
which passes calls of unknown engines on, as ``pv_gen_code`` does with translated blocks and ``pv_reset_dirty``
with theirs.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
from pathlib import Path
from typing import Any

from paravirt.machine import layout
from paravirt.machine.calls import Calls
from paravirt.machine.library import Library, Pointer
from paravirt.machine.ram import Ram
from paravirt.machine.state import LiveState

NAMES = {
    "state": "registers are read and written in place, not by saved contexts",
    "exits": "no exit check after each memory access, so that the CPU stops at block boundaries only",
    "clock": "instructions are counted by blocks in C, not by count= slices",
    "inline": "translated blocks count by themselves, and call C only when a slice ends",
    "stores": "stores to pages without translated code take the fast path",
    "regions": "slow accesses to RAM do not search for it among all memory",
    "ports": "IN and OUT that devices have answered in advance do not ask Python",
    "watchpoints": "data breakpoints of the debug registers raise #DB",
    "msrs": "model-specific registers that the CPU has not raise #GP, and the TSC is one",
    "delivery": "exceptions and interrupts are delivered by libunicorn from C",
    "platform": "what a platform has in C runs in C",
}
STUBS = 512  # of the gate page
CLASS_WORDS = 0xD0 // 8
_SIZE_FIELD, _ICOUNT_FIELD = b"\x0f\xb7\x40\x14", b"\x0f\xb7\x40\x16"  # movzx eax, word [rax+...]


class Unavailable(Exception):
    """One speed-up cannot be had on this host; the message says why."""


class NativeLeaf(ctypes.Structure):
    """``struct leaf`` of accel/machine.h."""

    _fields_ = (("function", Pointer), ("words", ctypes.c_uint64))


class NativeMachine(ctypes.Structure):
    """``struct machine`` of accel/machine.h."""

    _fields_ = (
        ("budget", Pointer), ("own_budget", ctypes.c_int64), ("end", ctypes.c_int64), ("charged", ctypes.c_int64),
        ("uc", Pointer), ("cpu", Pointer), ("env", Pointer),
        ("emu_stop", Pointer), ("do_interrupt", Pointer), ("do_hardirq", Pointer),
        ("exec_interrupt", Pointer), ("tlb_fill", Pointer), ("tlb_flush", Pointer),
        ("check_io", Pointer * 3), ("loop_exit", Pointer), ("raise_exception", Pointer),
        ("acknowledge", Pointer), ("intr", Pointer), ("gate", Pointer), ("python_sysenter", Pointer),
        ("port_in", Pointer), ("port_out", Pointer),
        ("storm_at", ctypes.c_int64), ("storm", ctypes.c_uint64), ("storm_limit", ctypes.c_uint64),
        ("recent", ctypes.c_uint64), ("native", ctypes.c_uint64 * 4),
        ("gate_start", ctypes.c_uint64), ("gate_end", ctypes.c_uint64), ("gate_free", ctypes.c_uint64),
        ("leaves", Pointer), ("leaf_failed", ctypes.c_uint64),
        ("external", ctypes.c_uint64), ("window", ctypes.c_uint64),
        ("exception_ns", ctypes.c_int64), ("rdtsc_ns", ctypes.c_int64), ("gate_ns", ctypes.c_int64),
        ("tsc_offset", ctypes.c_uint64), ("msrs", ctypes.c_uint64), ("apic_base", ctypes.c_uint64),
        ("stopped", ctypes.c_char * 64),
        ("sysenter", ctypes.c_uint64), ("sysenter_here", ctypes.c_uint64), ("sysenters", ctypes.c_uint64),
        ("executed", Pointer), ("pages", ctypes.c_uint64),
        ("nr_pending", ctypes.c_uint64), ("pending", ctypes.c_uint64 * 64),
        ("exceptions", ctypes.c_uint64 * 256), ("interrupts", ctypes.c_uint64),
        ("rdtscs", ctypes.c_uint64), ("fills", ctypes.c_uint64),
        ("port_check", Pointer),
        ("count_modes", ctypes.c_uint64), ("user", ctypes.c_uint64),
        ("platform", Pointer), ("platform_state", Pointer), ("traps", ctypes.c_uint64),
        ("interrupt_flag", Pointer),
        ("account", Pointer), ("deliver", Pointer), ("spend", Pointer),
        ("find_region", Pointer), ("ram_region", Pointer), ("ram_bytes", ctypes.c_uint64),
        ("loop_exit_restore", Pointer), ("watch_again", ctypes.c_uint64), ("watch_hit", ctypes.c_uint64),
        ("check_exit_request", ctypes.c_uint64), ("inlined", ctypes.c_uint64), ("not_inlined", ctypes.c_uint64),
        ("shortcuts", ctypes.c_uint64), ("line", Pointer), ("counters", Pointer * 3),
        ("post", Pointer), ("line_port", ctypes.c_uint32), ("counter_port", ctypes.c_uint32),
        ("post_port", ctypes.c_uint32), ("port_ns", ctypes.c_int64),
        ("ports_answered", ctypes.c_uint64),
    )


class Accelerator:
    """The native helpers bound to one engine. `close` must be called before the engine goes."""

    def __init__(self, library: Library, uc: int, state: LiveState, record: NativeMachine) -> None:
        self._library, self._uc, self._state, self.record = library, uc, state, record
        self._calls: Calls | None = None
        self._registered = False
        path = Path(__file__).resolve().parent.parent / "data" / "accel.so"
        if platform.machine() != "x86_64" or platform.system() != "Linux" or not path.exists():
            raise Unavailable("the native helpers are built for x86-64 Linux only")
        self._so: Any = ctypes.PyDLL(str(path))
        self._so.pv_machine_size.restype = ctypes.c_uint64
        if self._so.pv_machine_size() != ctypes.sizeof(NativeMachine):
            raise Unavailable("the native helpers are of another build; build the package again")
        record.uc, record.cpu, record.env = uc, state.cpu, state.env
        record.emu_stop = library.address("uc_emu_stop")
        for field, symbol in (
            ("do_interrupt", "x86_cpu_do_interrupt"), ("do_hardirq", "do_interrupt_x86_hardirq"),
            ("exec_interrupt", "x86_cpu_exec_interrupt"), ("tlb_fill", "x86_cpu_tlb_fill"),
            ("tlb_flush", "tlb_flush"), ("loop_exit", "cpu_loop_exit"),
            ("raise_exception", "raise_exception_err_ra"),
        ):
            setattr(record, field, library.address(symbol + "_x86_64"))
        for index, letter in enumerate("bwl"):
            record.check_io[index] = library.address(f"helper_check_io{letter}_x86_64")
        for field in ("account", "deliver", "spend"):
            setattr(record, field, self.function(f"pv_{field}"))
        self._override_got("cpu_abort_x86_64", "pv_abort")
        if self._so.pv_register(ctypes.byref(record)):
            raise Unavailable("too many machines in one process")
        self._registered = True

    def close(self) -> None:
        if self._calls is not None:
            self._calls.close()
        if self.record.find_region:
            ctypes.c_uint64.from_address(self._uc + layout.UC_MEMORY_MAPPING).value = self.record.find_region
        self._forget()

    def _forget(self) -> None:
        if self._registered:
            self._registered = False
            self._so.pv_unregister(ctypes.byref(self.record))

    def __del__(self) -> None:
        """A machine that nobody closes must not be found by one that gets its memory."""
        self._forget()

    def function(self, name: str) -> int:
        """Address of a helper."""
        return ctypes.cast(self._so[name], Pointer).value or 0

    def count_instructions(self) -> None:
        """Let block hooks be told the number of instructions instead of bytes."""
        start = self._library.address("translator_loop_x86_64")
        code = ctypes.string_at(start, 0x800)
        if code.count(_ICOUNT_FIELD) == 1 and _SIZE_FIELD not in code:
            return  # an earlier engine of this process did it
        if code.count(_SIZE_FIELD) != 1:
            raise Unavailable("translator_loop is not as expected")
        _poke(start + code.index(_SIZE_FIELD) + 3, _ICOUNT_FIELD[3:])

    def inline_clock(self, buffer_bytes: int) -> None:
        """Let blocks count by themselves, in padding in front of the CPU state that their code reaches by RBP.

        :param buffer_bytes: size of the buffer for translated code.
        """
        helper = self._library.address("helper_check_exit_request_x86_64")
        expected = (  # mov r8, [rdi + cpu]; mov eax, [r8 + exit request]; test eax, eax; jns
            b"\x4c\x8b\x87" + struct.pack("<I", layout.UC_TO_CPU)
            + b"\x41\x8b\x80" + struct.pack("<I", layout.CPU_TO_ENV + layout.ENV_EXIT_REQUEST) + b"\x85\xc0\x79")
        if ctypes.string_at(helper, len(expected)) != expected:
            raise Unavailable("check_exit_request is not as expected")
        padding = ctypes.string_at(self._state.env + layout.ENV_EXIT_REQUEST + 4, -layout.ENV_EXIT_REQUEST - 4)
        if any(padding):
            raise Unavailable("there is no padding before the CPU state")
        if not _is_writable_code(buffer_bytes):
            raise Unavailable("translated code cannot be written to")
        code = ctypes.string_at(self._library.address("check_exit_request_x86_64"), 7)
        if code[:3] != b"\x48\x8b\xb7":  # mov rsi, [rdi + uc]
            raise Unavailable("TCGContext does not point to its engine where it is expected")
        ctypes.c_uint64.in_dll(self._so, "pv_tcg_to_uc").value = int.from_bytes(code[3:], "little")
        self._override_got("tcg_gen_code_x86_64", "pv_gen_code", "pv_gen_code_original")
        self.record.budget = self._state.env + layout.ENV_BUDGET
        self.record.check_exit_request = helper

    def fast_stores(self, ram: Ram) -> Any:
        """Take over tlb_fill and the invalidation of written pages. Returns the bitmap to keep alive."""
        record = self.record
        executed = (ctypes.c_uint8 * (ram.size // 4096))()
        record.executed, record.pages = ctypes.addressof(executed), len(executed)
        self._override_got("tb_invalidate_phys_page_fast_x86_64", "pv_invalidate", "pv_invalidate_original")
        self._override_got("tlb_reset_dirty_by_vaddr_x86_64", "pv_reset_dirty", "pv_reset_dirty_original")
        self._replace_class_pointer(record.tlb_fill, "pv_tlb_fill")
        return executed

    def keep_region(self, ram: Ram) -> None:
        """Take over uc_struct.memory_mapping, a pointer of this engine alone."""
        record = self.record
        record.find_region = self._library.address("find_memory_mapping_x86_64")
        method = ctypes.c_uint64.from_address(self._uc + layout.UC_MEMORY_MAPPING)
        if method.value != record.find_region:
            raise Unavailable("uc_struct.memory_mapping is not as expected")
        record.ram_bytes = ram.size
        method.value = self.function("pv_region")

    def watchpoints(self) -> None:
        """Fill in what libunicorn leaves empty of its watchpoints."""
        self.record.loop_exit_restore = self._library.address("cpu_loop_exit_restore_x86_64")
        for name, helper in (("insert", "insert"), ("address_matches", "matches")):
            self._override_got(f"cpu_watchpoint_{name}_x86_64", f"pv_watch_{helper}")
        self._override_got("cpu_check_watchpoint_x86_64", "pv_watch_check")

    def find_sysenter(self, uc: Any) -> None:
        """Find the SYSENTER registers in the CPU state, by writing them through the public interface."""
        values = {0x174: 0x5A50, 0x175: 0x5A5A0175, 0x176: 0x5A5A0176}
        for index, value in values.items():
            uc.msr_write(index, value)
        pattern = struct.pack("<QQ", values[0x175], values[0x176])
        state = bytes(self._state.bytes) + ctypes.string_at(self._state.env + len(self._state.bytes), 0x2000)
        at = state.find(pattern) - 8
        if at < 0 or struct.unpack_from("<I", state, at)[0] != values[0x174]:
            raise Unavailable("the SYSENTER registers are not where they are expected")
        for index in values:
            uc.msr_write(index, 0)
        self.record.sysenter = at

    def registers(self) -> None:
        """Take over the first step of RDMSR and WRMSR."""
        self._override_got("cpu_svm_check_intercept_param_x86_64", "pv_intercept", "pv_intercept_original")
        self.record.msrs = 1

    def interrupts(self) -> None:
        """Take over cpu_exec_interrupt."""
        self._replace_class_pointer(self.record.exec_interrupt, "pv_exec_interrupt")

    def _replace_class_pointer(self, original: int, helper: str) -> None:
        """Replace a method of this engine's CPUClass (heap data, one for each engine), wherever it stands:
        tlb_fill has a second entry that a change of the TLB mode puts back."""
        blob = ctypes.string_at(self._state.cpu, layout.CPU_TO_ENV)
        at = blob.find(struct.pack("<Q", self._uc))
        if at < 0:
            raise Unavailable("CPUState does not point back to its engine")
        cpu_class = ctypes.c_uint64.from_address(self._state.cpu + at + 8).value
        methods = (ctypes.c_uint64 * CLASS_WORDS).from_address(cpu_class)
        found = [index for index in range(CLASS_WORDS) if methods[index] == original]
        if not found:
            raise Unavailable(f"CPUClass does not hold what {helper} replaces")
        for index in found:
            methods[index] = self.function(helper)

    def _got_slot(self, symbol: str) -> int:
        try:
            self._calls = self._calls or Calls(self._library.path)
            value, slot = self._calls.find(symbol)
        except (LookupError, ValueError) as problem:
            raise Unavailable(str(problem)) from None
        return self._library.address(symbol) - value + slot

    def _override_got(self, symbol: str, helper: str, original: str = "") -> None:
        """Let libunicorn's own calls of `symbol` reach `helper`: its PLT is bound through a writable GOT."""
        slot = ctypes.c_uint64.from_address(self._got_slot(symbol))
        ours = self.function(helper)
        if slot.value != ours:
            if original:
                ctypes.c_uint64.in_dll(self._so, original).value = self._library.address(symbol)
            slot.value = ours


def _poke(address: int, data: bytes) -> None:
    page = address & ~4095
    libc = ctypes.CDLL(None)
    if libc.mprotect(Pointer(page), ctypes.c_size_t(8192), 7):
        raise Unavailable("code pages of libunicorn cannot be made writable")
    ctypes.memmove(address, data, len(data))
    libc.mprotect(Pointer(page), ctypes.c_size_t(8192), 5)


def _is_writable_code(size: int) -> bool:
    """Whether this process may write to and execute memory of `size` bytes, a guard page at its end left out."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, *_ = line.split()
        start, end = (int(bound, 16) for bound in span.split("-"))
        if access.startswith("rwx") and end - start >= size - mmap.PAGESIZE:
            return True
    return False
