"""The host's view of a virtual CPU is the guest's own: registers, flags, segments, memory, port permissions.

What must hold, with live state and with saved contexts: what a guest left in a register the host reads, what the host
writes the guest goes on with, arithmetic flags included, which libunicorn keeps in a form of its own. Memory accesses
of the host cross pages as instructions do, fault as they do, and then leave nothing behind.

Ref: Intel SDM vol. 1, 3.4.3 (EFLAGS); vol. 3A, 2.5 (control registers), 3.4.5 (segment descriptors); vol. 1, 19.5.2
(I/O permission bit map).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paravirt.errors import GuestFault
from paravirt.machine import layout
from paravirt.machine.exits import Exit, Kind
from paravirt.machine.layout import CS, DS, ES, GDTR, IDTR, LDTR, SS, TR
from paravirt.machine.vcpu import Segment, Vcpu, parse_descriptor
from paravirt.pc import PC_EXITS
from tests.snippet import CR0_WP, KERNEL_CS, KERNEL_DS, TABLES, Guest, each_engine, start, two_level

FLAT_CODE, FLAT_DATA = 0x00CF9B00, 0x00CF9300
CF, PF_, AF, ZF, SF, TF, IF, DF, OF, IOPL, NT, AC, ID = (
    1, 4, 0x10, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800, 0x3000, 0x4000, 0x40000, 0x200000)
ARITHMETIC = CF | PF_ | AF | ZF | SF | OF


@contextmanager
def stopped(engine: str, paged: bool = False) -> Iterator[Guest]:
    """A guest at its end, with GDT, IDT and TSS of its own."""
    with start("hostwrite", engine) as guest:
        if paged:
            guest.switch_paging_on(two_level(guest.ram))
        guest.finish()
        guest.vcpu.state.load()
        yield guest


# ---------------------------------------------------------------------- registers


@each_engine
def test_registers_go_both_ways(engine: str) -> None:
    """Each system call adds one to every register that the host looks at, and the guest compares."""
    seen = []

    def exchange(vcpu: Vcpu, *rest: object) -> None:
        seen.append([vcpu.reg(index) for index in range(8)])
        for index in (0, 1, 2, 3, 5, 6, 7):
            vcpu.set_reg(index, vcpu.reg(index) + 0x1_0000_0001)

    with start("registers", engine, table={**PC_EXITS, Exit(Kind.SOFTWARE_INTERRUPT, 0x40): exchange}) as guest:
        guest.finish()
        esp = 0x60000
        assert seen == [[0x10, 0x11, 0x12, 0x13, esp, 0x15, 0x16, 0x17], [0xFFFFFFFF] * 4 + [esp] + [0xFFFFFFFF] * 3]
        assert guest.results(14) == [0x11, 0x12, 0x13, 0x14, 0x16, 0x17, 0x18] + [0] * 7


@each_engine
def test_the_floating_point_unit_at_power_on(engine: str) -> None:
    """A guest that computes before FNINIT gets extended precision and masked exceptions, as firmware leaves them."""
    with start("poweron", engine) as guest:
        guest.finish()
        control, status, mxcsr = (guest.result(index) for index in (1, 2, 3))
        tags = guest.result(10)
        assert (control & 0xFFFF, status & 0xFFFF, mxcsr, tags & 0xFFFF) == (0x37F, 0, 0x1F80, 0xFFFF)


@each_engine
@pytest.mark.parametrize("flags", [0, CF, PF_, AF, ZF, SF, OF, DF, ARITHMETIC | DF, IOPL, NT, AC, ID])
def test_flags_go_both_ways(engine: str, flags: int) -> None:
    seen = []

    def exchange(vcpu: Vcpu, *rest: object) -> None:
        seen.append(vcpu.eflags)
        vcpu.eflags = flags | 2

    with start("registers", engine, table={**PC_EXITS, Exit(Kind.SOFTWARE_INTERRUPT, 0x41): exchange},
               arguments=[flags | 2]) as guest:
        guest.finish()
        # The guest loaded `flags`, saw them changed to their complement by itself, and got them from the host again.
        assert seen[0] == flags | 2
        assert guest.result(14) == flags | 2
        assert seen[1] & ARITHMETIC == PF_ | ZF, "0 - 0"
        assert guest.result(15) == flags | 2


@each_engine
def test_control_registers(engine: str) -> None:
    with stopped(engine, paged=True) as guest:
        vcpu = guest.vcpu
        assert vcpu.cr(0) & 0x80010001 == 0x80010001
        assert (vcpu.cr(3), vcpu.cr(4)) == (TABLES, 0x10)
        vcpu.set_cr2(0xDEADBEEF)
        assert vcpu.cr(2) == 0xDEADBEEF
        vcpu.set_cr(0, vcpu.cr(0) & ~CR0_WP)
        vcpu.set_cr(4, 0x30)
        vcpu.set_cr(3, 0x200000)
        assert (vcpu.cr(0) & CR0_WP, vcpu.cr(4), vcpu.cr(3)) == (0, 0x30, 0x200000)
        assert vcpu.tables() == (vcpu.cr(0), 0x200000, 0x30)


@each_engine
def test_an_unknown_msr_is_zero(engine: str) -> None:
    with stopped(engine) as guest:
        assert guest.vcpu.msr(0x174) == 0
        assert guest.vcpu.msr(0x12345678) == 0


# ---------------------------------------------------------------------- segments


def test_parse_descriptor() -> None:
    assert parse_descriptor(8, 0x0000FFFF, 0x00CF9B00) == Segment(8, 0, 0xFFFFFFFF, 0x00CF9B00)
    assert parse_descriptor(0x28, 0x56780067, 0x12008934) == Segment(0x28, 0x12345678, 0x67, 0x12008934)
    assert parse_descriptor(0x30, 0x0000FFFF, 0x000F9300).limit == 0xFFFFF, "bytes without G"
    assert parse_descriptor(0x30, 0x00000000, 0x00C09300).limit == 0xFFF, "a limit of 0 pages is one page"


@given(base=st.integers(0, 0xFFFFFFFF), limit=st.integers(0, 0xFFFFF), access=st.integers(0, 0xFFF))
def test_parse_any_descriptor(base: int, limit: int, access: int) -> None:
    """Against SDM figure 3-8, written down the other way round."""
    high = base & 0xFF000000 | (access >> 8) << 20 | limit & 0xF0000 | (access & 0xFF) << 8 | base >> 16 & 0xFF
    found = parse_descriptor(0x10, (base & 0xFFFF) << 16 | limit & 0xFFFF, high)
    assert (found.base, found.high) == (base, high)
    assert found.limit == (limit << 12 | 0xFFF if access & 0x800 else limit)


@each_engine
def test_segments_and_tables_of_the_guest(engine: str) -> None:
    with stopped(engine) as guest:
        vcpu = guest.vcpu
        assert vcpu.segment(CS)[:3] == (KERNEL_CS, 0, 0xFFFFFFFF)
        assert {vcpu.segment(index).selector for index in (DS, ES, SS)} == {KERNEL_DS}
        gdt = vcpu.table(GDTR)
        assert (gdt.base, gdt.limit) == (guest.symbol("gdt"), 9 * 8 - 1)
        assert vcpu.table(IDTR)[1:3] == (guest.symbol("idt"), 256 * 8 - 1)
        assert vcpu.table(TR)[:2] == (0x28, guest.symbol("tss"))
        assert vcpu.descriptor(0x1B) == Segment(0x1B, 0, 0xFFFFFFFF, 0x00CFFB00)
        assert vcpu.descriptor(0x08).high & ~0x100 == FLAT_CODE & ~0x100
        assert vcpu.cpl == 0


@each_engine
@pytest.mark.parametrize("selector", [0x48, 0xFFFF, 0x4C, 0x0C])
def test_a_selector_outside_its_table(engine: str, selector: int) -> None:
    """The LDT is null, so its selectors lead nowhere."""
    with stopped(engine) as guest:
        guest.vcpu.set_table(LDTR, Segment(0, 0, 0, 0))
        with pytest.raises(GuestFault) as caught:
            guest.vcpu.descriptor(selector)
        assert (caught.value.vector, caught.value.error) == (13, selector & 0xFFFC)


@each_engine
def test_set_segment_keeps_what_is_derived(engine: str) -> None:
    with stopped(engine) as guest:
        vcpu = guest.vcpu

        def hflags() -> int:
            return int(vcpu.state.words[layout.HFLAGS])

        vcpu.set_segment(CS, Segment(0x1B, 0, 0xFFFFFFFF, 0x00CFFB00), cpl=3)
        assert vcpu.cpl == 3 and hflags() & layout.HF_CS32
        vcpu.set_segment(CS, Segment(0x08, 0, 0xFFFF, 0x00009B00), cpl=0)
        assert vcpu.cpl == 0 and not hflags() & layout.HF_CS32
        vcpu.set_segment(SS, Segment(0x10, 0, 0xFFFF, 0x00009300))
        assert not hflags() & (layout.HF_SS32 | layout.HF_ADDSEG)
        vcpu.set_segment(SS, Segment(0x10, 0x1000, 0xFFFFFFFF, FLAT_DATA))
        assert hflags() & layout.HF_SS32 and hflags() & layout.HF_ADDSEG
        assert vcpu.segment(SS) == Segment(0x10, 0x1000, 0xFFFFFFFF, FLAT_DATA)
        vcpu.set_segment(SS, Segment(0x10, 0, 0xFFFFFFFF, FLAT_DATA))
        assert not hflags() & layout.HF_ADDSEG


@each_engine
def test_a_base_that_the_host_sets_counts(engine: str) -> None:
    """The host moves ES; the guest's next store through it lands there."""
    def move(vcpu: Vcpu, *rest: object) -> None:
        vcpu.set_segment(ES, Segment(KERNEL_DS, 0x200000, 0xFFFFFFFF, FLAT_DATA))

    with start("registers", engine, table={**PC_EXITS, Exit(Kind.SOFTWARE_INTERRUPT, 0x42): move}) as guest:
        guest.finish()
        assert guest.ram.words[(0x200000 + 0x7100) // 4] == 0x5E6
        assert guest.ram.words[0x7100 // 4] == 0


# ---------------------------------------------------------------------- memory


@each_engine
def test_memory_through_page_tables(engine: str) -> None:
    with stopped(engine, paged=True) as guest:
        vcpu, ram = guest.vcpu, guest.ram
        page_table = TABLES + 0x1000
        # 300000h leads to 310000h, 301000h to 305000h; 302000h is not there; 303000h is read only.
        for page, entry in ((0x300, 0x310007), (0x301, 0x305007), (0x302, 0), (0x303, 0x303005), (0x304, 0x304003)):
            ram.write_u32(page_table + 4 * page, entry)
        vcpu.flush_tlb()
        vcpu.write(0x300FFD, b"abcdef")
        assert (ram.read(0x310FFD, 3), ram.read(0x305000, 3)) == (b"abc", b"def")
        assert vcpu.read(0x300FFD, 6) == b"abcdef"
        vcpu.write_u32(0x300FFE, 0x1_0403_0201)
        assert (vcpu.read_u32(0x300FFE), vcpu.read_u16(0x300FFF)) == (0x04030201, 0x0302)

        with pytest.raises(GuestFault) as caught:
            vcpu.write(0x301FFE, b"1234")
        assert (caught.value.vector, caught.value.error, caught.value.cr2) == (14, 2, 0x302000)
        assert ram.read(0x305FFE, 2) == b"\0\0", "nothing is stored if any byte faults"
        with pytest.raises(GuestFault) as caught:
            vcpu.read(0x301FFE, 4)
        assert (caught.value.error, caught.value.cr2) == (0, 0x302000)
        with pytest.raises(GuestFault) as caught:
            vcpu.write(0x303000, b"1")
        assert (caught.value.error, caught.value.cr2) == (3, 0x303000)
        with pytest.raises(GuestFault) as caught:
            vcpu.read(0x304010, 1, user=True)
        assert (caught.value.error, caught.value.cr2) == (5, 0x304010)
        assert vcpu.read(0x303000, 1, user=True) == b"\0"
        assert vcpu.read(0x300000, 0) == b""


@each_engine
def test_strings(engine: str) -> None:
    with stopped(engine) as guest:
        vcpu = guest.vcpu
        vcpu.write(0x300FFA, b"over the page\0more")
        assert vcpu.read_cstring(0x300FFA) == b"over the page"
        assert vcpu.read_cstring(0x300FFA, limit=4) == b"over"
        assert vcpu.read_cstring(0x300FFA + 13) == b""


@each_engine
def test_addresses_wrap(engine: str) -> None:
    with stopped(engine) as guest:
        guest.ram.write(0, b"zero")
        assert guest.vcpu.read(0xFFFFFFFE, 4) == b"\xff\xffze", "nobody's, then RAM"


def test_what_the_host_writes_is_what_the_guest_reads() -> None:
    """`test_ram` has text; here a table that the guest walks, on the form that caches translations."""
    with start("remap", arguments=[TABLES + 0x1000 + 4 * 0x300, 0x301007, 0x302007, 0x300000]) as guest:
        guest.switch_paging_on(two_level(guest.ram))
        for page in (0x301000, 0x302000):
            guest.ram.write(page, b"\xb8" + struct.pack("<I", page) + b"\xc3")
        guest.finish()
        assert guest.results(2) == [0x301000 * 100 & 0xFFFFFFFF, 0x302000 * 100 & 0xFFFFFFFF]


# ---------------------------------------------------------------------- ports


PORTS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@given(bitmap=st.binary(min_size=18, max_size=18), port=st.integers(0, 0xFFFF), size=st.sampled_from((1, 2, 4)),
       iopl=st.integers(0, 3), cpl=st.sampled_from((0, 1, 3)), limit=st.sampled_from((0x66, 0x67, 0x70, 0x68 + 17)))
@PORTS
def test_port_permission(bitmap: bytes, port: int, size: int, iopl: int, cpl: int, limit: int) -> None:
    """IOPL, or all bits of the map; two bytes of the map are read, and both must lie in the TSS."""
    port = port % 160 if port < 0xF000 else port
    with stopped("fast") as guest:
        vcpu = guest.vcpu
        tss = vcpu.table(TR)
        vcpu.set_table(TR, tss._replace(limit=limit))
        guest.ram.write(tss.base + 0x68, bitmap)
        vcpu.eflags = 2 | iopl << 12
        vcpu.set_segment(CS, Segment(KERNEL_CS | cpl, 0, 0xFFFFFFFF, FLAT_CODE), cpl=cpl)
        offset = 0x68 + port // 8
        bits = [bitmap[p // 8] >> p % 8 & 1 for p in range(port, port + size) if p // 8 < len(bitmap)]
        inside = limit >= 0x67 and offset + 1 <= limit
        assert vcpu.port_allowed(port, size) == (cpl <= iopl or (inside and not any(bits)))
