"""Direct writes to page tables.

What must hold: an instruction that writes a read-only page table does to memory, registers and flags what the CPU
does when it writes ordinary memory, so the CPU itself is what the emulator is compared with. An entry that is not
valid is not written, and nothing else is changed: the kernel gets its page fault. A write of the upper half that
makes an entry invalid takes its PRESENT bit away. Nothing is done before the kernel has asked for it.

Ref: Xen arch/x86/pv/ro-page-fault.c.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from paravirt.machine import layout
from paravirt.machine.outcome import GuestExit
from paravirt_xen.platform.abi import VMASST_WRITABLE_PAGETABLES
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.native import NativeXen
from paravirt_xen.platform.ptwrite import write_page_table
from tests.xenaudit import audit
from tests.xendomain import BASE, TEXT, xen_guest

CODE = TEXT + 0x40
STATUS = 0x8D5
FAULT = 3  # present, write
SCRATCH = BASE + 0x20000  # ordinary memory
STACK = SCRATCH + 0x800
POPF = bytes.fromhex("68 00 00 00 00 9d")  # push imm; popf
SLOT = 0x30  # of the entry that is written: it maps BASE + 0x30000

# Operand at [ebx], which is the upper half of an entry that is not present. `size` is what it touches.
INSTRUCTIONS: dict[str, str] = {
    "mov [ebx], ecx": "89 0b",
    "mov [ebx], cx": "66 89 0b",
    "mov [ebx], ch": "88 2b",
    "mov dword [ebx], imm": "c7 03 78 56 34 12",
    "mov word [ebx], imm": "66 c7 03 78 56",
    "mov byte [ebx], imm": "c6 03 78",
    "mov [esi*4+ebx-8], ecx": "89 4c b3 f8",
    "mov [ebx+0x100], ecx": "89 8b 00 01 00 00",
    "xchg [ebx], edx": "87 13",
    "xchg [ebx], dl": "86 13",
    "add [ebx], ecx": "01 0b",
    "or [ebx], ecx": "09 0b",
    "adc [ebx], ecx": "11 0b",
    "sbb [ebx], ecx": "19 0b",
    "and [ebx], ecx": "21 0b",
    "sub [ebx], cx": "66 29 0b",
    "xor [ebx], cl": "30 0b",
    "add dword [ebx], imm8": "83 03 f0",
    "or byte [ebx], imm8": "80 0b 41",
    "adc dword [ebx], imm32": "81 13 f0 ff 00 80",
    "lock and dword [ebx], imm32": "f0 81 23 f0 ff 00 80",
    "sub word [ebx], imm8": "66 83 2b 81",
    "inc dword [ebx]": "ff 03",
    "dec byte [ebx]": "fe 0b",
    "not dword [ebx]": "f7 13",
    "neg dword [ebx]": "f7 1b",
    "bts [ebx], imm": "0f ba 2b 1f",
    "lock btr [ebx], imm": "f0 0f ba 33 0c",
    "btc [ebx], esi": "0f bb 33",
    "lock bts [ebx], esi": "f0 0f ab 33",
    "lock cmpxchg [ebx], ecx": "f0 0f b1 0b",
    "cmpxchg [ebx], cl": "0f b0 0b",
    "lock xadd [ebx], ecx": "f0 0f c1 0b",
    "xadd [ebx], cx": "66 0f c1 0b",
    "movnti [ebx], ecx": "0f c3 0b",
    "stosd": "ab",
    "rep stosb": "f3 aa",
}


class Left(NamedTuple):
    """What an instruction leaves."""

    registers: list[int]
    flags: int
    eip: int
    memory: int


class Bench:
    """A domain, and two places of eight bytes: one in a page table, one in ordinary memory."""

    def __init__(self, domain: Domain, tables: int) -> None:
        self.domain, self.vcpu = domain, domain.vcpu
        self.writable_tables(True)
        entry = domain.l1_entry_address(BASE + SLOT * 4096)
        assert entry is not None
        self.entry = entry
        frames = [domain.machine_address(tables + 4096 * page) for page in range(16)]
        self.table_va = tables + 4096 * frames.index(entry & ~4095) + (entry & 4095)

    def writable_tables(self, on: bool) -> None:
        self.domain.vm_assist = on << VMASST_WRITABLE_PAGETABLES
        self.domain.traps.changed()

    def start(self, code: bytes, registers: list[int], flags: int, memory: int, va: int) -> None:
        """Load everything; EIP at the code, `memory` at `va`. What loads the flags for a run lies before it: status
        flags that are set while the CPU does not run get lost."""
        domain, vcpu = self.domain, self.vcpu
        domain.ram.write(domain.machine_address(CODE - len(POPF)), POPF + code + b"\x0f\x0b")
        domain.ram.write_u32(domain.machine_address(CODE - len(POPF)) + 1, flags | 2)
        at = domain.machine_address(va & ~7)
        domain.ram.write_u64(at, memory)
        vcpu.state.load()
        for index, value in enumerate(registers):
            vcpu.set_reg(index, value)
        vcpu.eip, vcpu.eflags = CODE, flags | 2
        vcpu.state.store()

    def left(self, va: int) -> Left:
        vcpu = self.vcpu
        at = self.domain.machine_address(va & ~7)
        return Left([vcpu.reg(index) for index in range(8)], vcpu.eflags & STATUS, vcpu.eip,
                    int(self.domain.ram.quads[at >> 3]))

    def run(self) -> None:
        """Let the CPU run to the UD2 behind the instruction."""
        self.vcpu.eip = CODE - len(POPF)
        self.vcpu.state.store()
        with pytest.raises(GuestExit, match="exception 6"):
            self.domain.machine.run()


@pytest.fixture(params=["auto", "portable"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with xen_guest(engine=request.param) as backend:
        yield Bench(backend.domain, backend.builder.plan.tables)


def relative(left: Left, va: int) -> Left:
    """With EBX and EDI relative to the place that was written."""
    registers = [value - va & 0xFFFFFFFF if index in (layout.EBX, layout.EDI) else value
                 for index, value in enumerate(left.registers)]
    return left._replace(registers=registers)


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_it_is_what_the_cpu_does(bench: Bench, name: str) -> None:
    code, chance = bytes.fromhex(INSTRUCTIONS[name]), random.Random(name)
    for _ in range(4):
        memory = chance.getrandbits(64) & ~1
        registers = [chance.getrandbits(32) for _ in range(8)]
        registers[layout.ESI], registers[layout.ESP] = 2, STACK
        if "stos" in name:
            registers[layout.ECX] = 3
        if "cmpxchg" in name and chance.random() < 0.6:
            registers[layout.EAX] = memory >> 32
        flags = chance.getrandbits(12) & STATUS
        results = []
        for va, emulate in ((SCRATCH, False), (bench.table_va, True), (bench.table_va, False)):
            registers[layout.EBX] = va + 4 - (0x100 if "0x100" in name else 0)
            registers[layout.EDI] = va + (4 if name == "stosd" else 5)
            bench.start(code, registers, flags, memory, va)
            if emulate:
                assert write_page_table(bench.domain, va + 4 + (name == "rep stosb"), FAULT)
            else:
                bench.run()
            results.append(relative(bench.left(va), va))
        assert results[0] == results[1], "the CPU's, then the emulator's"
        assert results[0] == results[2], "the CPU's, then the whole way's"


def test_cmpxchg8b(bench: Bench) -> None:
    code = bytes.fromhex("f0 0f c7 0e")  # lock cmpxchg8b [esi]
    for expected in (0x1122334455667788, 0x1122334455667780):
        results = []
        for va, emulate in ((SCRATCH, False), (bench.table_va, True), (bench.table_va, False)):
            registers = [expected & 0xFFFFFFFF, 0x99887766, expected >> 32, 0x55443322, STACK, 0, va, va]
            bench.start(code, registers, 0x8D5, 0x1122334455667788, va)
            if emulate:
                assert write_page_table(bench.domain, va, FAULT)
            else:
                bench.run()
            results.append(bench.left(va)._replace(registers=bench.left(va).registers[:6]))
        assert results[0] == results[1] == results[2]


def test_many_writes_are_counted(bench: Bench) -> None:
    """Valid and invalid ones, in one run: in the end the counts are what the tables say."""
    good = [frame(bench, SLOT + number) | flags for number, flags in ((0, 0x63), (1, 0x61), (2, 3), (3, 0), (0, 1))]
    code = b"".join(
        b"\xc7\x43" + bytes((8 * slot,)) + (value & 0xFFFFFFFF).to_bytes(4, "little")
        for number in range(40) for slot, value in [(number % 5, good[number * 7 % 5])])
    bench.start(code, [0, 0, 0, bench.table_va, STACK, 0, 0, 0], 0, frame(bench, SLOT) | 0x63, bench.table_va)
    bench.run()
    entries = [bench.domain.ram.quads[(bench.entry >> 3) + slot] & ~0x60 for slot in range(5)]
    assert entries == [good[(35 + slot) * 7 % 5] & ~0x60 for slot in range(5)]
    audit(bench.domain)


def frame(bench: Bench, pfn: int) -> int:
    return int(bench.domain.p2m[pfn]) << 12


def test_what_is_not_valid_is_not_written(bench: Bench) -> None:
    valid = frame(bench, SLOT) | 0x63
    mov, lower, upper = bytes.fromhex("89 0b"), 0, 4
    table = bench.entry & ~4095
    for ecx, offset in [(table | 0x63, lower), (0x63, lower), (valid | 0x80, lower), (0x300000 | 0x63, lower)]:
        registers = [1, ecx, 2, bench.table_va + offset, STACK, 4, 5, 6]
        bench.start(mov, registers, 0, valid, bench.table_va)
        counts = bytes(bench.domain.frames.counts)
        before = bench.left(bench.table_va)
        assert not write_page_table(bench.domain, bench.table_va + offset, FAULT), hex(ecx)
        assert bench.left(bench.table_va) == before and bytes(bench.domain.frames.counts) == counts
    bench.start(mov, [1, 7, 2, bench.table_va + upper, STACK, 4, 5, 6], 0, valid, bench.table_va)
    assert write_page_table(bench.domain, bench.table_va + upper, FAULT)
    assert bench.left(bench.table_va).memory == 7 << 32 | valid & ~1, "no longer present"
    assert bench.domain.frames.counts[valid >> 12] == 0
    xchg = bytes.fromhex("87 0b")
    bench.start(xchg, [1, 7, 2, bench.table_va + upper, STACK, 4, 5, 6], 0, 0, bench.table_va)
    assert write_page_table(bench.domain, bench.table_va + upper, FAULT), "it is not present"


def test_unaligned_and_other_writes_are_the_guests_business(bench: Bench) -> None:
    mov = bytes.fromhex("89 0b")
    for offset in (1, 2, 3, 5, 6):
        bench.start(mov, [0, 0, 0, bench.table_va + offset, 0, 0, 0, 0], 0, 0, bench.table_va)
        assert not write_page_table(bench.domain, bench.table_va + offset, FAULT)
    bench.start(mov, [0, 0, 0, bench.table_va, 0, 0, 0, 0], 0, 0, bench.table_va)
    for error in (2, 7, 11, 1, 0x13):
        assert not write_page_table(bench.domain, bench.table_va, error)
    bench.writable_tables(False)
    assert not write_page_table(bench.domain, bench.table_va, FAULT)
    bench.writable_tables(True)
    assert not write_page_table(bench.domain, SCRATCH, FAULT), "it is writable"


def test_the_cpu_gets_there(bench: Bench) -> None:
    """The whole way: stores fault, are done, and the guest goes on behind them; one that is refused is its fault."""
    new, table = frame(bench, SLOT + 1) | 0x61, bench.entry & ~4095 | 0x63
    code = bytes.fromhex("89 0b c7 43 04 00 00 00 80 f0 0f ba 33 05 89 13")
    bench.start(code, [0, new, table, bench.table_va, STACK, 0, 0, 0], 0, frame(bench, SLOT) | 0x63, bench.table_va)
    with pytest.raises(GuestExit, match="a page fault at"):
        bench.domain.machine.run()
    assert bench.vcpu.eip == CODE + 14 and bench.vcpu.cr(2) == bench.table_va
    assert bench.left(bench.table_va).memory == new & ~0x20 | 1 << 63
    assert bench.domain.frames.refs[new >> 12] == 2 and bench.domain.frames.refs[frame(bench, SLOT) >> 12] == 0


UPDATE_VA_MAPPING = bytes.fromhex("b8 0e 00 00 00 cd 82")  # mov eax, 14; int 0x82


def test_update_va_mapping_is_the_same_everywhere(bench: Bench) -> None:
    """C answers what is usual; what it leaves to Python, and what Python answers when it sees all calls, is equal."""
    domain, va, table = bench.domain, BASE + SLOT * 4096, bench.entry & ~4095
    own, other = frame(bench, SLOT), frame(bench, SLOT + 1)
    values = [own | 0x63, own | 0x61, 0, other | 0x67, table | 0x61, table | 0x63, 0x300000 | 0x63, own | 0x80 | 0x63,
              other | 1 << 63 | 0x63, other | 1, 7 << 32 | 8, own | 0x63]
    answers, seen = [], []  # type: tuple[list[list[tuple[int, int]]], list[str]]
    for see_all in (False, True):
        seen.clear()
        domain.dispatcher.on_call = (lambda name, *_: seen.append(name)) if see_all else None
        before = domain.dispatcher.counts().get("xen.hypercall.update_va_mapping", 0)
        found = []
        for flags in (0, 1, 2, 5, 6):
            for value in values:
                bench.start(UPDATE_VA_MAPPING, [0, value & 0xFFFFFFFF, value >> 32, va, STACK, 0, flags, 0], 0,
                            domain.ram.quads[bench.entry >> 3], bench.table_va)
                bench.run()
                found.append((bench.vcpu.reg(layout.EAX), domain.ram.quads[bench.entry >> 3]))
            audit(domain)
        answers.append(found)
        assert domain.dispatcher.counts()["xen.hypercall.update_va_mapping"] - before == len(found)
        assert len(seen) == (len(found) if see_all else 0)
    assert answers[0] == answers[1]
    assert {answer for answer, _ in answers[0]} == {0, 0x100000000 - 16, 0x100000000 - 22}


STORE_IMMEDIATE = 2  # enum kind of ptwrite.c


def test_what_was_not_foreseen_is_taken_back() -> None:
    """C remembers what an instruction writes. Should it be wrong, what was really written is validated afterwards."""
    with xen_guest() as backend:
        bench = Bench(backend.domain, backend.builder.plan.tables)
        address = bench.domain.machine.engine.record.platform_state
        if not address:
            pytest.skip("the library in C cannot be had here")
        frames = NativeXen.from_address(address).frames
        own, table = frame(bench, SLOT) | 0x63, bench.entry & ~4095 | 0x63
        bench.start(bytes.fromhex("89 0b"), [0, own, 0, bench.table_va, STACK, 0, 0, 0], 0, own, bench.table_va)
        bench.run()
        for ecx, kept, repaired in ((own & ~2, False, 0), (table, True, 1), (0x300063, True, 2), (0x1000, False, 2)):
            for recipe in frames.recipes:
                recipe.kind, recipe.immediate = (recipe.kind & ~0xFF) | STORE_IMMEDIATE, 0
            before = bench.domain.ram.quads[bench.entry >> 3]
            bench.vcpu.set_reg(layout.ECX, ecx)
            bench.vcpu.set_reg(layout.ESP, STACK)
            bench.run()
            assert bench.left(bench.table_va).memory == (before if kept else before & ~0xFFFFFFFF | ecx & 0xFFFFFFFF)
            assert frames.repaired == repaired
            audit(bench.domain)
