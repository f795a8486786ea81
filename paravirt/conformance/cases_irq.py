"""The interrupt flag, and waiting. The flag is what save_fl says; what arrives is the kernel's tick.

Ref: paravirt/hookspecs/irq.py; Intel SDM vol. 3A, 6.8.1 (IF; STI delays by one instruction).
"""

from __future__ import annotations

from paravirt.conformance.bench import EFLAGS_IF, Bench
from paravirt.conformance.case import case

TICK_US = 1000


def _pending(bench: Bench) -> int:
    """Interrupts off for three ticks; returns the address of the tick counter."""
    bench.ops.irq_disable()
    before = bench.ticks()
    bench.kernel.udelay(3 * TICK_US)
    bench.equal("ticks while interrupts are off", bench.ticks(), before)
    return bench.kernel.symbol("jiffies")


@case("save_fl")
def save_fl_reads_the_flag(bench: Bench) -> None:
    bench.equal("IF with interrupts on", bench.call().result & EFLAGS_IF, EFLAGS_IF)
    bench.ops.irq_disable()
    bench.equal("IF with interrupts off", bench.call().result & EFLAGS_IF, 0)
    bench.ops.irq_enable()
    bench.equal("IF with interrupts on again", bench.call().result & EFLAGS_IF, EFLAGS_IF)


@case("irq_disable")
def irq_disable_keeps_interrupts_away(bench: Bench) -> None:
    bench.call()
    bench.equal("interrupts on", bench.interrupts_on, False)
    before = bench.ticks()
    bench.kernel.udelay(3 * TICK_US)
    bench.equal("ticks after irq_disable", bench.ticks() - before, 0)


@case("irq_enable")
def irq_enable_lets_them_come(bench: Bench) -> None:
    bench.ops.irq_disable()
    bench.call()
    bench.equal("interrupts on", bench.interrupts_on, True)
    before = bench.ticks()
    bench.kernel.udelay(3 * TICK_US)
    bench.holds("ticks come after irq_enable", bench.ticks() > before)


@case("irq_enable")
def irq_enable_delivers_what_was_pending(bench: Bench) -> None:
    called = bench.call(watch=_pending(bench))
    bench.holds("the tick is delivered one instruction after irq_enable", called.after > called.before)


@case("restore_fl")
def restore_fl_sets_and_clears(bench: Bench) -> None:
    bench.call(0)
    bench.equal("interrupts after restore_fl(0)", bench.interrupts_on, False)
    bench.call(EFLAGS_IF | 2)
    bench.equal("interrupts after restore_fl(IF)", bench.interrupts_on, True)
    bench.call(2)
    bench.equal("interrupts after restore_fl(2)", bench.interrupts_on, False)


@case("restore_fl")
def restore_fl_delivers_what_was_pending(bench: Bench) -> None:
    called = bench.call(EFLAGS_IF | 2, watch=_pending(bench))
    bench.holds("the tick is delivered one instruction after restore_fl", called.after > called.before)


@case("safe_halt")
def safe_halt_waits(bench: Bench) -> None:
    bench.ops.irq_disable()
    called = bench.call(watch=bench.kernel.symbol("jiffies"))
    bench.holds("a tick came before safe_halt was over", called.after > called.before)
    bench.equal("interrupts on", bench.interrupts_on, True)


@case("safe_halt")
def safe_halt_takes_what_was_pending(bench: Bench) -> None:
    called = bench.call(watch=_pending(bench))
    bench.holds("the pending tick ended safe_halt", called.after > called.before)


@case("halt")
def halt_waits_with_interrupts_on(bench: Bench) -> None:
    bench.ops.irq_enable()
    called = bench.call(watch=bench.kernel.symbol("jiffies"))
    bench.holds("a tick came before halt was over", called.after > called.before)


@case("halt", ends=("halt", "poweroff", "idle"))
def halt_with_interrupts_off_is_the_end(bench: Bench) -> None:
    bench.ops.irq_disable()
    bench.call()
