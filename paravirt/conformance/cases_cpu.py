"""Control and debug registers, CPUID, MSRs, counters, ports.

Ref: paravirt/hookspecs/cpu.py; Intel SDM vol. 3A, 2.5 (CR0 to CR4), 17.2 (DR6, DR7); vol. 2, CPUID.
"""

from __future__ import annotations

import struct

from paravirt.binding import NULL_SLOT
from paravirt.conformance.bench import PAGE, PAGE_OFFSET, USER_CS, USER_DS, Bench, NotApplicable
from paravirt.conformance.case import case

CR0_TS = 1 << 3
CR4_DE, CR4_PAE = 1 << 3, 1 << 5
SYSENTER_ESP, EFER, NO_SUCH_MSR = 0x175, 0xC0000080, 0x12345678
EFER_NXE = 1 << 11
EFAULT = 14
UNTOUCHED = 0x5EED5EED
READ_PORT_COME_BACK = b"\xe4\x80\xcd\x91"
ECX, EDX = 1, 2
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
    bench.equal("CPUID 1 as the kernel saw it", features, bench.variable("cpu_features"))
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
    for value in (cr0 ^ CR0_TS, cr0):
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
    swapper = bench.kernel.pa(bench.symbol("swapper_pg_dir"))
    bench.equal("CR3", bench.call().result, swapper)
    mm, cr3 = _another_space(bench)
    bench.ops.write_cr3(cr3)
    bench.equal("CR3 in another address space", bench.call().result, cr3)
    bench.equal("the kernel's memory, seen there", bench.word(mm) - PAGE_OFFSET, cr3)


@case("write_cr3")
def write_cr3_switches_and_flushes(bench: Bench) -> None:
    old = bench.ops.read_cr3()
    _, cr3 = _another_space(bench)
    va, other = bench.page(), bench.page()
    bench.write(va, b"old!")
    bench.write(other, b"new!")
    bench.equal("the page before", bench.peek(va), int.from_bytes(b"old!", "little"))
    bench.map(va, other, flush=False)
    bench.call(cr3)
    bench.equal("CR3", bench.ops.read_cr3(), cr3)
    bench.equal("the page through a new entry", bench.peek(va), int.from_bytes(b"new!", "little"))
    bench.call(old)
    bench.equal("CR3 put back", bench.ops.read_cr3(), old)


def _another_space(bench: Bench) -> tuple[int, int]:
    """A new address space, ready for use: its struct mm, and the CR3 for it."""
    mm = bench.kernel.mm_alloc()
    bench.holds("mm_alloc gives an address space", mm != 0)
    bench.ops.activate_mm(bench.symbol("init_mm"), mm)
    return mm, bench.word(mm) - PAGE_OFFSET


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
    error = bench.page()
    bench.write(error, struct.pack("<I", UNTOUCHED))
    expected = EFER_NXE if bench.vcpu.read(bench.symbol("nx_enabled"), 1) != b"\0" else 0
    bench.equal("EFER.NXE, as the kernel set it", bench.call(EFER, error).result & EFER_NXE, expected)
    bench.equal("*err", bench.word(error), 0)


@case("read_msr", "write_msr")
def an_msr_keeps_what_is_written(bench: Bench) -> None:
    _needs_sysenter(bench)
    bench.ops.irq_disable()
    error = bench.page()
    for value in (0x12345678, 0x9ABCDEF0):
        if bench.name == "read_msr":
            bench.ops.write_msr(SYSENTER_ESP, value)
            bench.write(error, struct.pack("<I", UNTOUCHED))
            bench.equal("SYSENTER_ESP", bench.call(SYSENTER_ESP, error).result, value)
            bench.equal("*err", bench.word(error), 0)
        else:
            bench.equal("the result", bench.call(SYSENTER_ESP, value).result, 0)
            bench.equal("SYSENTER_ESP", bench.ops.read_msr(SYSENTER_ESP, error), value)


def _needs_sysenter(bench: Bench) -> None:
    if not bench.variable("sysenter_cs"):
        raise NotApplicable("the platform keeps SYSENTER's registers to itself")


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
def write_msr_accepts_what_is_there(bench: Bench) -> None:
    efer = bench.ops.read_msr(EFER, bench.page())
    bench.equal("the result of writing EFER's own value", bench.call(EFER, efer).result, 0)
    bench.equal("EFER", bench.ops.read_msr(EFER, bench.page()), efer)


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
    bench.wait((1 << 32) * 10**6 // khz * 21 // 20)  # the kernel knows the rate within 5 %
    bench.holds("the high word counts too", bench.call().result - second >= 1 << 32)


@case("read_pmc")
def read_pmc_reads(bench: Bench) -> None:
    first = bench.call(0).result
    bench.holds("a counter of 40 bits", first < 1 << 40, first)


@case("set_iopl_mask")
def set_iopl_mask_opens_the_ports(bench: Bench) -> None:
    """To user code, which comes back by SYSEXIT where there is one: IRET has the level in its frame."""
    code = bench.user_page(READ_PORT_COME_BACK)
    bench.prepare_return(bench.kernel_stack())
    sysexit = bench.ops.slots["irq_enable_sysexit"]
    for interrupts in (True, False):
        for level in (3, 1, 0):
            (bench.ops.irq_enable if interrupts else bench.ops.irq_disable)()
            bench.call(level << 12)
            bench.equal("interrupts on", bench.interrupts_on, interrupts)
            if sysexit.kind != NULL_SLOT:
                registers = [0] * 8
                registers[ECX], registers[EDX] = code + PAGE, code
                back = bench.jump(bench.target(sysexit), registers, [])
            else:
                frame = [code, USER_CS, 2 | level << 12, code + PAGE, USER_DS]
                back = bench.jump(bench.target(bench.ops.slots["iret"]), [0] * 8, frame)
            bench.equal(f"a port is refused to user code, the level being {level}", back.refused, level != 3)


@case("io_delay")
def io_delay_is_harmless(bench: Bench) -> None:
    bench.ops.irq_disable()
    before = [bench.vcpu.segment(index) for index in range(6)], bench.ops.read_cr0()
    at = bench.machine.engine.now()
    bench.call()
    took = bench.machine.engine.now() - at
    bench.holds("it takes less than 100 us", took < 100_000, took)
    after = [bench.vcpu.segment(index) for index in range(6)], bench.ops.read_cr0()
    bench.equal("segment registers, CR0", after, before)
