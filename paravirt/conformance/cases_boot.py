"""The ops of start_kernel: platform, memory map, interrupts, clocks, page tables, patching; the console.

What sets the platform up is called once in the life of a kernel. Its cases run where start_kernel calls it: they
look before, make that call, look behind, and once more at rest_init.

Ref: paravirt/hookspecs/init.py, time.py, console.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from paravirt.conformance.bench import PAGE, Bench
from paravirt.conformance.case import case
from paravirt.hookspecs import slot
from paravirt.options import DEFAULT_EPOCH

E820_RAM, E820_BYTES = 1, 20
NOP = b"\x90"
HZ = 1000
PATIENCE = 1500


def _ticks_come(bench: Bench) -> None:
    before = bench.ticks()
    bench.kernel.udelay(3000)
    bench.holds("ticks come", bench.ticks() > before)


@case("arch_setup", "post_allocator_init", in_place=True)
def the_boot_goes_on(bench: Bench) -> Iterator[None]:
    on = bench.interrupts_on
    bench.call()
    bench.equal("interrupts on", bench.interrupts_on, on)
    yield
    _ticks_come(bench)


@case("setup_boot_clock", "setup_secondary_clock")
def the_kernel_goes_on_as_before(bench: Bench) -> None:
    bench.call()
    _ticks_come(bench)


@case("startup_ipi_hook")
def the_hook_changes_nothing(bench: Bench) -> None:
    page = bench.page()
    bench.call(1, page, page + PAGE)
    bench.equal("the stack of the other CPU", bench.vcpu.read(page, PAGE), bytes(PAGE))


@case("memory_setup", in_place=True)
def memory_setup_fills_the_map(bench: Bench) -> None:
    table = bench.symbol("e820_map")
    who = bench.vcpu.read_cstring(bench.call().result, 64)
    printable = 0 < len(who) <= 40 and who.decode("latin-1").isprintable()
    bench.holds("a name of 1 to 40 printable characters", printable, who)
    entries = list(struct.iter_unpack("<QQI", bench.vcpu.read(table, E820_BYTES * bench.variable("e820_count"))))
    bench.holds("the map has entries", bool(entries))
    ends = [start + size for start, size, _ in entries]
    starts = [start for start, _, _ in entries]
    bench.equal("starts in order", starts, sorted(starts))
    bench.holds("no overlaps", all(end <= start for end, start in zip(ends, starts[1:], strict=False)), entries)
    ram = sum(size for _, size, kind in entries if kind == E820_RAM)
    least = bench.guest.memory * 3 // 4
    bench.holds("RAM, less what the platform needs of it", least <= ram <= bench.guest.memory, ram)


@case("pagetable_setup_start", "pagetable_setup_done", in_place=True)
def every_mapping_is_kept(bench: Bench) -> Iterator[None]:
    """Of the kernel's image, and with its contents."""
    pages = range(bench.symbol("_text"), bench.symbol("_end"), PAGE)
    before = [bench.vcpu.translate(va) for va in pages]
    bench.call(*bench.given)
    bench.equal("where the kernel's pages are", [bench.vcpu.translate(va) for va in pages], before)
    yield
    bench.equal("init_mm's directory in CR3", bench.ops.read_cr3(), bench.kernel.pa(bench.symbol("swapper_pg_dir")))


@case("init_IRQ", in_place=True)
def init_irq_prepares_delivery(bench: Bench) -> Iterator[None]:
    bench.call()
    bench.equal("interrupts on", bench.interrupts_on, False)
    yield
    _ticks_come(bench)


@case("time_init", in_place=True)
def time_init_starts_the_tick(bench: Bench) -> None:
    before = bench.ticks()
    bench.kernel.udelay(3000)
    bench.equal("ticks before time_init", bench.ticks() - before, 0)
    bench.call()
    before, at = bench.ticks(), bench.machine.engine.now()
    bench.kernel.udelay(50_000)
    expected = (bench.machine.engine.now() - at) * HZ // 10**9
    came = bench.ticks() - before
    bench.holds(f"about {expected} ticks", abs(came - expected) <= 3, came)


@case("banner")
def banner_prints_its_line(bench: Bench) -> None:
    before = len(bench.stopped.output)
    bench.call()
    text = bytes(bench.stopped.output[before:]).decode("latin-1")
    name_at = bench.word(bench.kernel.note.paravirt_ops + 12)
    name = bench.vcpu.read_cstring(name_at, 64).decode("latin-1")
    bench.equal("lines with the platform's name", text.count(f"Booting paravirtualized kernel on {name}"), 1)
    bench.holds("whole lines", text.endswith("\n"), text[-80:])


@case("patch")
def patch_makes_code_that_does_the_same(bench: Bench) -> None:
    """A site that calls irq_disable, and one too small for anything but a call."""
    _, number = slot("irq_disable")
    table = bench.kernel.note.paravirt_ops
    where = bench.code - 48
    call = b"\xff\x15" + struct.pack("<I", table + 4 * number)
    for length in (6, 16, 7):
        buffer = bench.page()
        site = call.ljust(length, NOP)
        bench.write(buffer, site.ljust(length + 8, b"\xee"))
        written = bench.call(number, 7, buffer, where, length).result
        bench.holds(f"at most {length} bytes", written <= length, written)
        bench.equal("the bytes behind the site", bench.vcpu.read(buffer + length, 8), b"\xee" * 8)
        code = bench.vcpu.read(buffer, written).ljust(length, NOP) + b"\xc3"
        bench.write_code(where, code)
        bench.ops.irq_enable()
        bench.stopped.calls.call(where)
        bench.equal("interrupts on behind the patched site", bench.interrupts_on, False)
        bench.ops.irq_enable()
    _, unused = slot("get_wallclock")
    buffer = bench.page()
    bench.holds("at most 5 bytes", bench.call(unused, 0, buffer, where, 5).result <= 5)


# ---------------------------------------------------------------------- clocks

@case("get_wallclock")
def get_wallclock_gives_the_time(bench: Bench) -> None:
    first = bench.call().result
    bench.holds("the time that the machine was started with", 0 <= first - DEFAULT_EPOCH <= 3, first)
    bench.wait(2 * 10**9)
    second = bench.call().result
    bench.holds("two seconds later", 1 <= second - first <= 3, second - first)


@case("set_wallclock")
def set_wallclock_sets_it(bench: Bench) -> None:
    for seconds in (1_000_000_000, 1_600_000_000):
        before = bench.ops.get_wallclock()
        result = bench.call(seconds).result
        after = bench.ops.get_wallclock()
        if result == -1:
            bench.holds("an unchanged clock, as it says", 0 <= after - before <= 2, after)
        else:
            bench.equal("the result", result, 0)
            bench.holds(f"the time {seconds}", 0 <= after - seconds <= 2, after)


@case("sched_clock")
def sched_clock_counts_nanoseconds(bench: Bench) -> None:
    first, at = bench.call().result, bench.machine.engine.now()
    bench.holds("less than a minute since boot", first < 60 * 10**9, first)
    bench.kernel.udelay(5000)
    second, then = bench.call().result, bench.machine.engine.now()
    bench.holds(f"about {then - at} ns", abs(second - first - (then - at)) <= (then - at) // 20, second - first)


@case("get_cpu_khz")
def get_cpu_khz_is_the_rate_of_the_tsc(bench: Bench) -> None:
    first, at = bench.ops.read_tsc(), bench.machine.engine.now()
    bench.kernel.udelay(5000)
    ticks, ns = bench.ops.read_tsc() - first, bench.machine.engine.now() - at
    khz = bench.call().result
    bench.holds(f"about {ticks * 10**6 // ns} kHz", abs(khz - ticks * 10**6 // ns) <= khz // 20, khz)


# ---------------------------------------------------------------------- console

@case("console_write")
def console_write_prints_all_in_order(bench: Bench) -> None:
    page = bench.page()
    text = bytes(range(0x20, 0x7F)) * 3
    bench.write(page, text + b"NOT PRINTED")
    for interrupts in (True, False):
        if not interrupts:
            bench.ops.irq_disable()
        before = len(bench.stopped.output)
        bench.call(page, len(text))
        bench.kernel.udelay(1000)
        bench.equal("the output", bytes(bench.stopped.output[before:]), text)
        bench.equal("interrupts on", bench.interrupts_on, interrupts)


@case("console_read")
def console_read_takes_what_was_typed(bench: Bench) -> None:
    bench.ops.irq_disable()
    page = bench.page()
    bench.equal("bytes when nothing was typed", bench.call(page, 16).result, 0)
    bench.stopped.console.feed(b"conform")
    got = b""
    for _ in range(PATIENCE):  # a serial port hands over input when it is asked for again and again
        bench.write(page, b"\xee" * 8)
        count = bench.call(page, 3).result
        bench.holds("no more than there is room for", 0 <= count <= 3, count)
        bench.equal("what lies behind", bench.vcpu.read(page + count, 8 - count), b"\xee" * (8 - count))
        got += bench.vcpu.read(page, count)
        bench.kernel.udelay(2 if not got else 100)
        if got == b"conform":
            break
    bench.equal("the bytes", got, b"conform")
