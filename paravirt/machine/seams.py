"""Which forms of the engine's seams this host can have.

Three seams are chosen at start, each by itself, some more that only make it faster, one that makes it exact, and
one that is the platform's (platform_code.py):

===========  ===============================  ====================================
seam         accelerated                      portable (public interface only)
===========  ===============================  ====================================
state        ``live``: in place               ``context``: saved and restored
clock        ``block``: C block hook          ``count``: emu_start(count=N) slices
inline       ``code``: in translated code     ``call``: a call for each block
delivery     ``c``: libunicorn's own          ``python``: machine/idt.py
exits        ``fast``: checked at blocks      ``slow``: after each memory access
stores       ``fast``: pages without code     ``slow``: stock softmmu
regions      ``kept``: RAM is known           ``searched``: at each slow access
ports        ``answered``: in advance         ``asked``: of Python each time
watchpoints  ``fire``: data breakpoints       ``never``: stock debug registers
msrs         ``checked``: #GP for unknown     ``zero``: unknown ones read as 0
platform     ``c``: its own library           ``python``: its exit table alone
===========  ===============================  ====================================

What cannot be had stands in `Seams.missing` with its reason; nothing is assumed to work untried.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any

from paravirt.machine import accel, layout
from paravirt.machine.library import Library, Pointer, const, x86
from paravirt.machine.paging import CR0_PG
from paravirt.machine.ram import PAGE, Ram
from paravirt.machine.state import ContextState, CpuState, LiveState

TRANSLATION_BUFFER = 128 << 20


class Seams:
    """
    :param uc: the binding's engine.
    :param disabled: seams to leave in their portable form.
    """

    def __init__(self, library: Library, uc: Any, ram: Ram, record: accel.NativeMachine, disabled: Iterable[str]):
        self._library, self._uc, self._handle, self._ram, self._record = library, uc, uc._uch.value, ram, record
        self.missing: dict[str, str] = dict.fromkeys(disabled, "switched off")
        self.live = self._live_state()
        self.state: CpuState = self.live or ContextState(library, uc)
        self._alive: Any = None
        self.accelerator = self._accelerator()
        steps = {"clock": self._clock, "inline": self._inline, "delivery": self._delivery, "exits": self._exits,
                 "stores": self._stores, "regions": self._regions, "ports": self._ports,
                 "watchpoints": self._watchpoints, "msrs": self._msrs, "platform": self._platform}
        for name, step in steps.items():
            if name in self.missing:
                continue
            try:
                if self.accelerator is None:
                    raise accel.Unavailable(self._no_accelerator)
                step(self.accelerator)
            except (accel.Unavailable, AttributeError) as problem:
                self.missing[name] = str(problem)
        self.block_clock = "clock" not in self.missing
        self.c_delivery = "delivery" not in self.missing

    def forms(self) -> dict[str, str]:
        """The form of each seam, by name."""
        forms = {"state": "live context", "clock": "block count", "inline": "code call", "delivery": "c python",
                 "exits": "fast slow", "stores": "fast slow", "regions": "kept searched",
                 "ports": "answered asked", "watchpoints": "fire never", "msrs": "checked zero",
                 "platform": "c python"}
        return {name: both.split()[name in self.missing] for name, both in forms.items()}

    def _live_state(self) -> LiveState | None:
        if "state" not in self.missing:
            try:
                return LiveState(self._library, self._uc)
            except (layout.LayoutMismatch, AttributeError) as problem:
                self.missing["state"] = str(problem)
        return None

    def _accelerator(self) -> accel.Accelerator | None:
        self._no_accelerator = "needs live state"
        if self.live is not None:
            accelerator = None
            try:
                accelerator = accel.Accelerator(self._library, self._handle, self.live, self._record)
                accelerator.interrupts()
                return accelerator
            except (accel.Unavailable, AttributeError) as problem:
                self._no_accelerator = str(problem)
                if accelerator is not None:
                    accelerator.close()
        return None

    def _exits(self, _: accel.Accelerator) -> None:
        if "clock" in self.missing:
            raise accel.Unavailable("needs the block clock: a count has to end inside a block")
        code = ctypes.string_at(self._library.address("check_exit_request_x86_64"), 16)
        offset = int.from_bytes(code[9:13], "little")
        if code[7:9] != b"\x80\xbe" or offset != layout.UC_NO_EXIT_REQUEST:
            raise accel.Unavailable("check_exit_request is not as expected")
        ctypes.c_uint8.from_address(self._handle + offset).value = 1

    def _clock(self, accelerator: accel.Accelerator) -> None:
        accelerator.count_instructions()
        user = ctypes.addressof(self._record)
        self._library.hook(self._handle, const.UC_HOOK_BLOCK, accelerator.function("pv_block"), user)

    def _inline(self, accelerator: accel.Accelerator) -> None:
        if "clock" in self.missing:
            raise accel.Unavailable("needs the block clock")
        accelerator.inline_clock(TRANSLATION_BUFFER)

    def _stores(self, accelerator: accel.Accelerator) -> None:
        executed = self._alive = accelerator.fast_stores(self._ram)
        self._ram.code_pages = memoryview(executed).cast("B")

    def _regions(self, accelerator: accel.Accelerator) -> None:
        accelerator.keep_region(self._ram)

    def _ports(self, _: accel.Accelerator) -> None:
        """`Engine.port_shortcuts` switches it on."""
        if "clock" in self.missing:
            raise accel.Unavailable("needs the block clock: C has to know the time")

    def _watchpoints(self, accelerator: accel.Accelerator) -> None:
        if "exits" in self.missing:
            raise accel.Unavailable("needs the seam exits: the CPU would stop inside the instruction")
        accelerator.watchpoints()

    def _msrs(self, accelerator: accel.Accelerator) -> None:
        accelerator.registers()

    def _delivery(self, accelerator: accel.Accelerator) -> None:
        """`Engine.native_vectors` switches it on."""
        accelerator.find_sysenter(self._uc)

    def _platform(self, _: accel.Accelerator) -> None:
        for needed in ("delivery", "stores"):
            if needed in self.missing:
                raise accel.Unavailable(f"needs the seam {needed}")

    def flushes(self) -> tuple[Callable[[], None], Callable[[int], None], Callable[[int, int], None]]:
        """Functions that forget all translations, one page's, and the code made from a physical range."""
        library = self._library
        if self.live is None:
            return self._flush_all, lambda va: self._flush_all(), self._remove_cache
        cpu, handle = self.live.cpu, self._handle
        flush = library.internal("tlb_flush", None, Pointer)
        page = library.internal("tlb_flush_page", None, Pointer, ctypes.c_uint64)
        invalidate = library.internal("tb_invalidate_phys_range", None, Pointer, ctypes.c_uint64, ctypes.c_uint64)
        executed = memoryview(self._alive).cast("B") if self._alive is not None else None

        def forget_code(start: int, end: int) -> None:
            if executed is None or end - start > PAGE or executed[start // PAGE] or executed[(end - 1) // PAGE]:
                invalidate(handle, start, end)

        return lambda: flush(cpu), lambda va: page(cpu, va), forget_code

    def _flush_all(self) -> None:
        self._uc.ctl(const.UC_CTL_TLB_FLUSH, const.UC_CTL_IO_WRITE)

    def _remove_cache(self, start: int, end: int) -> None:
        """ctl_remove_cache takes a virtual address, and one that is not mapped leaves an exception behind in the
        CPU. With paging off for a moment, virtual is physical; both writes of CR0 flush the TLB."""
        uc = self._uc
        cr0 = uc.reg_read(x86.UC_X86_REG_CR0)
        if cr0 & CR0_PG:
            uc.reg_write(x86.UC_X86_REG_CR0, cr0 & ~CR0_PG)
        uc.ctl_remove_cache(start, end)
        if cr0 & CR0_PG:
            uc.reg_write(x86.UC_X86_REG_CR0, cr0)

    def close(self) -> None:
        """Let go of the engine: it must be gone before the memory that it maps."""
        if self.accelerator is not None:
            self.accelerator.close()
        self._uc = None
