"""Control and debug registers, CPUID, MSRs, counters, ports.

Ref: paravirt/hookspecs/cpu.py; Intel SDM vol. 3A, 2.5 (CR0 to CR4), 17.2 (DR6, DR7); vol. 2, CPUID.
"""

from __future__ import annotations

import struct

from paravirt.conformance.bench import EFLAGS_IF, Bench
from paravirt.conformance.case import case

CR0_MP, CR0_TS, CR0_WP = 1 << 1, 1 << 3, 1 << 16
CR4_DE, CR4_PAE = 1 << 3, 1 << 5
SYSENTER_ESP, NO_SUCH_MSR = 0x175, 0x12345678
EFAULT = 14
UNTOUCHED = 0x5EED5EED
IOPL_3 = 0x3000
FEATURES_USED = 1 << 6 | 1 << 8  # PAE, CMPXCHG8B: the reference kernel cannot do without


def _leaf(bench: Bench, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
    """CPUID by the op: EAX, EBX, ECX, EDX. The four words lie apart, in an order of their own."""
    page = bench.page()
    bench.write(page, struct.pack("<4I", UNTOUCHED, subleaf, leaf, UNTOUCHED))
    bench.call(page + 8, page, page + 4, page + 12)
    ebx, ecx, eax, edx = struct.unpack("<4I", bench.vcpu.read(page, 16))
    bench.equal("the word behind the results", bench.word(page + 16), 0)
    return eax, ebx, ecx, edx


@case("cpuid")
def cpuid_fills_four_words(bench: Bench) -> None:
    highest, ebx, ecx, edx = _leaf(bench, 0)
    bench.holds("leaf 1 exists", 1 <= highest < 0x100, highest)
    vendor = struct.pack("<3I", ebx, edx, ecx)
    bench.holds("EBX, EDX, ECX of leaf 0 spell a vendor", vendor.isalnum() and vendor.isascii(), vendor)
    eax, _, _, features = _leaf(bench, 1)
    bench.equal("CPUID 1: PAE and CMPXCHG8B", features & FEATURES_USED, FEATURES_USED)
    bench.holds("CPUID 1: family 6 or later", (eax >> 8 & 15) >= 6, eax)
    bench.equal("CPUID 1 as the kernel saw it", features, bench.word(bench.kernel.symbol("cpu_features")))
    bench.holds("leaf 80000000h gives the highest extended leaf", _leaf(bench, 0x80000000)[0] >= 0x80000000)


@case("set_debugreg")
def set_debugreg_writes_each(bench: Bench) -> None:
    bench.ops.irq_disable()
    for number in range(4):
        bench.call(number, 0xC0001000 + 0x111 * number)
    for number in range(4):
        bench.equal(f"DR{number}", bench.ops.get_debugreg(number), 0xC0001000 + 0x111 * number)
    bench.call(7, 0x400)
    bench.call(6, 0xFFFF0FF1)
    bench.equal("DR6, condition bits", bench.ops.get_debugreg(6) & 0xE00F, 1)
    bench.call(6, 0xFFFF0FF2)
    bench.equal("DR6, condition bits again", bench.ops.get_debugreg(6) & 0xE00F, 2)
    bench.call(7, 0xF0400)  # DR0: reads and writes of four bytes, enabled nowhere
    bench.equal("DR7, conditions", bench.ops.get_debugreg(7) & 0xFFFF00FF, 0xF0000)


@case("get_debugreg")
def get_debugreg_reads_each(bench: Bench) -> None:
    bench.ops.irq_disable()
    for number, value in ((0, 0xC0001234), (1, 0xC0002345), (2, 0xC0003456), (3, 0xC0004567)):
        bench.ops.set_debugreg(number, value)
        bench.equal(f"DR{number}", bench.call(number).result, value)
    bench.ops.set_debugreg(6, 0xFFFF0FF4)
    bench.equal("DR6, condition bits", bench.call(6).result & 0xE00F, 4)
    bench.ops.set_debugreg(7, 0xF00400)
    bench.equal("DR7, conditions", bench.call(7).result & 0xFFFF00FF, 0xF00000)


@case("clts")
def clts_clears_ts_alone(bench: Bench) -> None:
    cr0 = bench.ops.read_cr0()
    bench.ops.write_cr0(cr0 | CR0_TS)
    bench.call()
    bench.equal("CR0 after clts", bench.ops.read_cr0(), cr0 & ~CR0_TS)
    bench.call()
    bench.equal("CR0 after clts with TS clear", bench.ops.read_cr0(), cr0 & ~CR0_TS)


@case("read_cr0", "write_cr0")
def cr0_keeps_what_is_written(bench: Bench) -> None:
    cr0 = bench.ops.read_cr0()
    reads = bench.name == "read_cr0"
    for value in (cr0 ^ CR0_TS, cr0 ^ CR0_TS ^ CR0_MP, cr0):
        if reads:
            bench.ops.write_cr0(value)
        else:
            bench.call(value)
        got = bench.call().result if reads else bench.ops.read_cr0()
        bench.equal("CR0", got, value)


@case("read_cr2", "write_cr2")
def cr2_keeps_what_is_written(bench: Bench) -> None:
    bench.ops.irq_disable()
    for value in (0x12345678, 0xFEDCBA98):
        if bench.name == "read_cr2":
            bench.ops.write_cr2(value)
            bench.equal("CR2", bench.call().result, value)
        else:
            bench.call(value)
            bench.equal("CR2", bench.ops.read_cr2(), value)


@case("read_cr3")
def read_cr3_gives_the_directory(bench: Bench) -> None:
    swapper = bench.kernel.pa(bench.kernel.symbol("swapper_pg_dir"))
    bench.equal("CR3", bench.call().result, swapper)
    copy, cr3 = _copied_directory(bench)
    bench.ops.write_cr3(cr3)
    bench.equal("CR3 in the copy", bench.call().result, cr3)
    bench.equal("the copy as it was", bench.vcpu.read(copy, 32), bench.ram.read(swapper, 32))


@case("write_cr3")
def write_cr3_switches_and_flushes(bench: Bench) -> None:
    old = bench.ops.read_cr3()
    _, cr3 = _copied_directory(bench)
    va, other = bench.page(), bench.page()
    bench.write(va, b"old!")
    bench.write(other, b"new!")
    bench.equal("the page before", bench.peek(va), int.from_bytes(b"old!", "little"))
    bench.set_entry(va, bench.entry(other), flush=False)
    bench.call(cr3)
    bench.equal("CR3", bench.ops.read_cr3(), cr3)
    bench.equal("the page through a new entry", bench.peek(va), int.from_bytes(b"new!", "little"))
    bench.call(old)
    bench.equal("CR3 put back", bench.ops.read_cr3(), old)


def _copied_directory(bench: Bench) -> tuple[int, int]:
    """Another directory with the four entries of the one in use: its virtual address and the CR3 for it."""
    copy = bench.page()
    bench.write(copy, bench.ram.read(bench.vcpu.cr(3) & ~31, 32))
    bench.ops.activate_mm(bench.kernel.symbol("init_mm"), bench.kernel.symbol("init_mm"))
    return copy, copy - 0xC0000000


@case("read_cr4", "read_cr4_safe")
def cr4_is_read(bench: Bench) -> None:
    cr4 = bench.ops.read_cr4() if bench.name == "read_cr4_safe" else bench.ops.read_cr4_safe()
    bench.equal("CR4", bench.call().result, cr4)
    bench.equal("CR4.PAE", bench.call().result & CR4_PAE, CR4_PAE)
    bench.ops.write_cr4(cr4 ^ CR4_DE)
    bench.equal("CR4 after a change", bench.call().result, cr4 ^ CR4_DE)


@case("write_cr4")
def write_cr4_changes_it(bench: Bench) -> None:
    cr4 = bench.ops.read_cr4()
    for value in (cr4 ^ CR4_DE, cr4):
        bench.call(value)
        bench.equal("CR4", bench.ops.read_cr4(), value)


@case("wbinvd")
def wbinvd_changes_nothing(bench: Bench) -> None:
    page = bench.page()
    bench.poke(page, 0x600DF00D)
    bench.call()
    bench.equal("memory stored before", bench.peek(page), 0x600DF00D)


@case("read_msr")
def read_msr_reads(bench: Bench) -> None:
    bench.ops.irq_disable()
    error = bench.page()
    for value in (0x12345678, 0x9ABCDEF0):
        bench.ops.write_msr(SYSENTER_ESP, value)
        bench.write(error, struct.pack("<I", UNTOUCHED))
        bench.equal("SYSENTER_ESP", bench.call(SYSENTER_ESP, error).result, value)
        bench.equal("*err", bench.word(error), 0)


@case("read_msr", "write_msr")
def an_unknown_msr_is_an_error(bench: Bench) -> None:
    if bench.name == "write_msr":
        bench.equal("write_msr of an unknown register", bench.call(NO_SUCH_MSR, 1).result, -EFAULT)
        return
    error = bench.page()
    bench.call(NO_SUCH_MSR, error)
    bench.equal("*err of an unknown register", bench.word(error), -EFAULT & 0xFFFFFFFF)
    bench.equal("the word behind *err", bench.word(error + 4), 0)


@case("write_msr")
def write_msr_writes(bench: Bench) -> None:
    bench.ops.irq_disable()
    error = bench.page()
    for value in (0x12345678, 0x9ABCDEF0):
        bench.equal("the result", bench.call(SYSENTER_ESP, value).result, 0)
        bench.equal("SYSENTER_ESP", bench.ops.read_msr(SYSENTER_ESP, error), value)


@case("read_tsc")
def read_tsc_counts_at_its_rate(bench: Bench) -> None:
    khz = bench.ops.get_cpu_khz()
    first, at = bench.call().result, bench.machine.engine.now()
    bench.kernel.udelay(5000)
    second, then = bench.call().result, bench.machine.engine.now()
    expected = (then - at) * khz // 10**6
    bench.holds(f"about {expected} ticks in {then - at} ns", abs(second - first - expected) <= expected // 20,
                second - first)
    bench.holds("the first reading is not far in the future", first < 1 << 48, first)


@case("read_pmc")
def read_pmc_reads(bench: Bench) -> None:
    first = bench.call(0).result
    bench.holds("a counter of 40 bits", first < 1 << 40, first)


@case("set_iopl_mask")
def set_iopl_mask_sets_the_level_alone(bench: Bench) -> None:
    for interrupts in (True, False):
        if not interrupts:
            bench.ops.irq_disable()
        for level in (IOPL_3, 0x1000, 0):
            bench.call(level)
            bench.equal("IOPL", bench.vcpu.eflags & IOPL_3, level)
            bench.equal("interrupts on", bool(bench.ops.save_fl() & EFLAGS_IF), interrupts)


@case("io_delay")
def io_delay_is_harmless(bench: Bench) -> None:
    bench.quiet()
    bench.ops.irq_disable()
    before = [bench.vcpu.segment(index) for index in range(6)], bench.ops.read_cr0(), bench.machine.device_state()
    at = bench.machine.engine.now()
    bench.call()
    took = bench.machine.engine.now() - at
    bench.holds("it takes less than 100 us", took < 100_000, took)
    after = [bench.vcpu.segment(index) for index in range(6)], bench.ops.read_cr0(), bench.machine.device_state()
    bench.equal("segment registers, CR0", after[:2], before[:2])


