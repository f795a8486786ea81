"""start_kernel and boot are the sequence itself: one page each, no backend named, ops in the order of Linux.

Why: a reader must find the boot in one function, and a backend author relies on the order (a slot may be
rewritten until the call sites are patched; page tables are built between pagetable_setup_start and _done).
Order: Linux 2.6.23 init/main.c, arch/i386/kernel/setup.c, arch/i386/mm/init.c.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paravirt import boot_sequence
from paravirt.boot_sequence import start_kernel
from paravirt.image.notes import CallSite

SITES = (CallSite(0x1000, 18, 6, 7), CallSite(0x2000, 28, 10, 1))

ORDER = """
ops.irq_disable
kernel.early_cpu_init ops.arch_setup ops.memory_setup kernel.print_memory_map kernel.setup_memory
kernel.set_nx ops.pagetable_setup_start kernel.pagetable_init ops.pagetable_setup_done ops.write_cr3
ops.flush_tlb_kernel kernel.zone_sizes_init ops.post_allocator_init
kernel.sched_init kernel.trap_init kernel.cpu_init ops.init_IRQ
ops.get_wallclock kernel.timekeeping_init ops.get_cpu_khz kernel.tsc_init ops.irq_enable kernel.mem_init
ops.time_init kernel.calibrate_delay
kernel.check_bugs ops.save_fl ops.irq_disable ops.patch ops.patch ops.restore_fl kernel.alternatives_done
ops.banner kernel.rest_init
""".split()


class Recorder:
    """Stands for ops or kernel; notes each call."""

    def __init__(self, prefix: str, calls: list[str], results: dict[str, int]) -> None:
        self._prefix, self._calls, self._results = prefix, calls, results
        self.arguments: dict[str, tuple[int, ...]] = {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: int) -> int:
            self._calls.append(f"{self._prefix}.{name}")
            self.arguments[name] = arguments
            return self._results.get(name, 0)

        return call

    @contextlib.contextmanager
    def step(self, name: str, where: str) -> Iterator[None]:
        yield


class RecordingKernel(Recorder):
    replace_paravirt = True
    call_sites = SITES

    class note:
        scratch = 0x9000

    def symbol(self, name: str) -> int:
        return {"swapper_pg_dir": 0xC0123000}[name]

    def pa(self, va: int) -> int:
        return va - 0xC0000000

    def read(self, va: int, length: int) -> bytes:
        return bytes(length)

    def write(self, va: int, data: bytes) -> None:
        assert va == 0x9000

    def patch_text(self, site: CallSite, code: bytes) -> None:
        assert len(code) == site.length


@pytest.fixture
def recorded() -> tuple[list[str], Any, Any]:
    calls: list[str] = []
    ops = Recorder("ops", calls, {"memory_setup": 0xC0777000, "get_wallclock": 1191961898, "get_cpu_khz": 1000000,
                                  "patch": 2, "save_fl": 0x200})
    kernel = RecordingKernel("kernel", calls, {})
    start_kernel(ops, kernel)  # type: ignore[arg-type]
    return calls, ops, kernel


def test_the_order_is_that_of_linux(recorded: tuple[list[str], Any, Any]) -> None:
    calls, _, _ = recorded
    assert calls == ORDER


def test_results_and_arguments_go_where_they_belong(recorded: tuple[list[str], Any, Any]) -> None:
    _, ops, kernel = recorded
    assert kernel.arguments["print_memory_map"] == (0xC0777000,)
    assert ops.arguments["pagetable_setup_start"] == ops.arguments["pagetable_setup_done"] == (0xC0123000,)
    assert ops.arguments["write_cr3"] == (0x123000,)
    assert kernel.arguments["timekeeping_init"] == (1191961898,)
    assert kernel.arguments["tsc_init"] == (1000000,)
    assert ops.arguments["restore_fl"] == (0x200,)
    assert ops.arguments["patch"] == (28, 1, 0x9000, 0x2000, 10)
    assert kernel.arguments["alternatives_done"] == (2,)


def test_noreplace_patches_nothing() -> None:
    calls: list[str] = []
    kernel = RecordingKernel("kernel", calls, {})
    kernel.replace_paravirt = False
    start_kernel(Recorder("ops", calls, {}), kernel)  # type: ignore[arg-type]
    assert "ops.patch" not in calls
    assert kernel.arguments["alternatives_done"] == (0,)


@pytest.mark.parametrize("function", [boot_sequence.start_kernel, boot_sequence.boot])
def test_one_page_each(function: Callable[..., object]) -> None:
    assert len(inspect.getsource(function).splitlines()) <= 60


def test_no_backend_is_named() -> None:
    source = inspect.getsource(boot_sequence)
    assert not re.search(r"\b(native|xen|vmi|lguest)\b", source, re.IGNORECASE)
