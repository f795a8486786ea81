"""Hypercalls in batches: what a lazy mode saves, and that it loses and hides nothing.

What must hold: a context switch between two processes that have not used the FPU is one trap, a multicall of 4 to 7
calls, and as many traps without batches; mprotect of 512 pages is at most 18 traps against at least 512. The queue is
made when it is full, in order, at the end of its mode, and before address spaces are pinned and let go. A call of a
batch that fails ends the kernel with what it was, where it stood and who asked for it.

Ref: backends/xen/paravirt_xen/ops/multicall.inc; guest/user/bench.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

import pytest

from paravirt.boot_sequence import boot
from paravirt.compare.lmbench import Operation, operations
from paravirt.conformance.bench import PAGE, PAGE_OFFSET, Bench
from paravirt.console import Console
from paravirt.machine.outcome import Outcome
from paravirt.options import BootOptions
from paravirt.testing.boots import Stopped, boot_to_rest_init

MEMORY = 16 << 20
LAZY_NONE, LAZY_MMU, LAZY_CPU, LAZY_FLUSH = range(4)
MULTICALL = "xen.hypercall.multicall"
# Of ticks: the next one is set, the idle task waits, and one that came while events were masked is asked for.
TICK = ("xen.hypercall.vcpu_op", "xen.hypercall.sched_op", "xen.hypercall.xen_version")


@cache
def measured(multicall: str) -> Mapping[str, Operation]:
    given = BootOptions(backend="xen", memory=MEMORY, append="noselftest init=/bench", timeout=300,
                        mark=re.compile(rb"bench: .* operations| took "), options={"multicall": multicall})
    record = boot(None, given, Console())
    assert record.outcome.kind == "poweroff", record.outcome.reason
    return {each.name: each for each in operations(record)}


def traps(operation: Operation) -> float:
    """Of one operation, without those of ticks that came meanwhile."""
    ticks = sum(operation.counts.get(key, 0) for key in TICK)
    return (operation.counts["traps"] - ticks) / operation.operations


def test_a_context_switch_is_one_trap() -> None:
    switch, alone = measured("on")["context switch"], measured("off")["context switch"]
    assert switch.counts[MULTICALL] == switch.operations
    batches = {int(key.rpartition(".")[2]): count for key, count in switch.counts.items() if ".batch." in key}
    assert sum(batches.values()) == switch.operations and min(batches) >= 4 and max(batches) <= 7
    assert 1 <= traps(switch) < 1.01
    assert 4 <= traps(alone) < 7.01 and MULTICALL not in alone.counts


def test_mprotect_of_512_pages() -> None:
    batched, alone = measured("on")["mprotect"], measured("off")["mprotect"]
    assert traps(batched) <= 18
    assert traps(alone) >= 512


# ---------------------------------------------------------------------- the queue

def on_xen(function: Callable[[Bench], None], *, ends: bool = False) -> tuple[Outcome, str]:
    """:param ends: the function does not come back, the run ends inside of it."""
    output = bytearray()
    came_back: list[bool] = []

    def inspect(stopped: Stopped) -> None:
        bench = Bench(stopped, "set_lazy_mode")
        bench.ops.irq_disable()
        function(bench)
        came_back.append(True)

    def after(stopped: Stopped, outcome: Outcome) -> None:
        output.extend(stopped.output)

    outcome = boot_to_rest_init(inspect, BootOptions(backend="xen", memory=MEMORY), after=after)
    assert bool(came_back) != ends, outcome
    return outcome, output.decode("latin-1")


def made(bench: Bench) -> dict[str, int]:
    """Batches by size, and multicalls, so far."""
    return {key: count for key, count in bench.guest.all_counts().items() if ".batch." in key or key == MULTICALL}


def since(bench: Bench, before: dict[str, int]) -> dict[str, int]:
    return {key: count - before.get(key, 0) for key, count in made(bench).items() if count != before.get(key, 0)}


def test_a_full_queue_is_made_and_the_rest_at_the_end() -> None:
    def look(bench: Bench) -> None:
        pages = [bench.page() for _ in range(41)]
        places = {va: bench.pte_at(va) for va in pages}
        value = bench.ops.make_pte(pages[0] - PAGE_OFFSET | 0x63)
        before = made(bench)
        bench.ops.set_lazy_mode(LAZY_MMU)
        for va, at in list(places.items())[1:]:
            bench.ops.set_pte_at(bench.symbol("init_mm"), va, at, value)
        assert since(bench, before) == {MULTICALL: 1, "xen.batch.32": 1}
        done = [bench.quad(at) & ~0x60 == value & ~0x60 for at in list(places.values())[1:]]
        assert done == [True] * 32 + [False] * 8, "the first 32, in order"
        bench.ops.set_lazy_mode(LAZY_FLUSH)
        assert since(bench, before) == {MULTICALL: 2, "xen.batch.32": 1, "xen.batch.8": 1}
        bench.ops.flush_tlb_user()
        assert since(bench, before)[MULTICALL] == 2, "the mode goes on"
        bench.ops.set_lazy_mode(LAZY_NONE)
        assert since(bench, before) == {MULTICALL: 3, "xen.batch.32": 1, "xen.batch.8": 1, "xen.batch.1": 1}
        assert bench.peek(pages[40]) == bench.peek(pages[0])

    on_xen(look)


def test_arguments_in_memory_fill_the_queue_too() -> None:
    """16 bytes each: 512 bytes are 32 updates of a PMD."""
    def look(bench: Bench) -> None:
        table = bench.page()
        before = made(bench)
        bench.ops.set_lazy_mode(LAZY_MMU)
        for number in range(33):
            bench.ops.set_pmd(table + 8 * number, 0x1000 * (number + 1))  # not present: any bits
        assert since(bench, before) == {MULTICALL: 1, "xen.batch.32": 1}
        bench.ops.set_lazy_mode(LAZY_NONE)
        assert [bench.quad(table + 8 * number) for number in range(34)] == [0x1000 * n for n in range(1, 34)] + [0]

    on_xen(look)


def test_ops_of_one_mode_do_not_wait_for_another() -> None:
    def look(bench: Bench) -> None:
        thread = bench.thread(bench.kernel_stack())
        before = made(bench)
        bench.ops.set_lazy_mode(LAZY_MMU)
        bench.ops.flush_tlb_user()
        bench.ops.load_tls(thread, 0)
        assert since(bench, before) == {MULTICALL: 1, "xen.batch.4": 1}, "TLS is for the switch: all goes out at once"
        bench.ops.set_lazy_mode(LAZY_NONE)
        bench.ops.set_lazy_mode(LAZY_CPU)
        bench.ops.load_tls(thread, 0)
        bench.ops.flush_tlb_user()
        assert since(bench, before) == {MULTICALL: 2, "xen.batch.4": 2}
        bench.ops.set_lazy_mode(LAZY_NONE)
        assert since(bench, before)[MULTICALL] == 2, "nothing is left"

    on_xen(look)


def test_pinning_makes_what_is_queued() -> None:
    def look(bench: Bench) -> None:
        mm = bench.kernel.mm_alloc()
        before = made(bench)
        bench.ops.set_lazy_mode(LAZY_MMU)
        bench.ops.flush_tlb_user()
        bench.ops.activate_mm(bench.symbol("init_mm"), mm)
        assert since(bench, before) == {MULTICALL: 1, "xen.batch.7": 1}, "the flush, five pages, the pin"
        bench.ops.flush_tlb_user()
        bench.ops.exit_mmap(mm)
        assert since(bench, before) == {MULTICALL: 2, "xen.batch.7": 2}
        bench.ops.set_lazy_mode(LAZY_NONE)
        assert since(bench, before)[MULTICALL] == 2

    on_xen(look)


def test_the_interrupt_flag_is_as_it_was() -> None:
    def look(bench: Bench) -> None:
        for on in (True, False):
            (bench.ops.irq_enable if on else bench.ops.irq_disable)()
            for name, *arguments in (("set_lazy_mode", LAZY_MMU), ("flush_tlb_user",), ("set_lazy_mode", LAZY_NONE),
                                     ("flush_tlb_user",)):
                getattr(bench.ops, str(name))(*arguments)
                assert bench.interrupts_on == on, name

    on_xen(look)


# ---------------------------------------------------------------------- what goes wrong

def test_a_call_that_fails_is_reported() -> None:
    def look(bench: Bench) -> None:
        va, foreign = bench.page(), 0x1000 | 0x63  # a frame of somebody else's
        at = bench.pte_at(va)
        bench.ops.set_lazy_mode(LAZY_MMU)
        bench.ops.flush_tlb_user()
        bench.ops.set_pte_at(bench.symbol("init_mm"), va, at, foreign)
        bench.ops.flush_tlb_single(va)
        bench.ops.set_lazy_mode(LAZY_NONE)

    outcome, text = on_xen(look, ends=True)
    assert outcome.end.word == "crash"
    found = re.search(r"kernel panic: xen: batched call 2 of 3 failed: hypercall 14\((\w+), (\w+), 0, 0\) = -1, "
                      r"asked for at c", outcome.reason)
    assert found, outcome.reason
    assert int(found[1], 16) % PAGE == 0 and int(found[2], 16) == 0x1063
    assert "Kernel panic - not syncing: xen: batched call 2 of 3 failed" in text


@pytest.mark.parametrize(("modes", "said"), [
    ((LAZY_NONE,), "lazy mode 0 inside of mode 0"),
    ((LAZY_MMU, LAZY_CPU), "lazy mode 2 inside of mode 1"),
    ((LAZY_CPU, LAZY_CPU), "lazy mode 2 inside of mode 2"),
])
def test_modes_do_not_nest(modes: tuple[int, ...], said: str) -> None:
    def look(bench: Bench) -> None:
        for mode in modes:
            bench.ops.set_lazy_mode(mode)

    outcome, _ = on_xen(look, ends=True)
    assert outcome.reason == f"kernel panic: xen: {said}"
