"""One virtual CPU as the host sees it: registers, segments, and memory through its page tables.

Ref: Intel SDM vol. 3A, 2.5 (control registers), 3.4.5 (segment descriptors).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from paravirt.errors import GuestFault
from paravirt.machine import layout, paging
from paravirt.machine.engine import Engine
from paravirt.machine.layout import CR, CS, DS, EIP, ES, HF_CPL, SEGMENT, SS, segment_offset
from paravirt.machine.library import x86
from paravirt.machine.paging import used_before

if TYPE_CHECKING:
    from paravirt.machine.core import Machine

GP = 13
DESCRIPTOR_PRESENT, DESCRIPTOR_G, DESCRIPTOR_DB, DESCRIPTOR_ACCESSED = 1 << 15, 1 << 23, 1 << 22, 1 << 8
_CONTROL = {0: x86.UC_X86_REG_CR0, 3: x86.UC_X86_REG_CR3, 4: x86.UC_X86_REG_CR4}


class Segment(NamedTuple):
    """A loaded segment register: selector and the cached descriptor. `high` is its second word."""

    selector: int
    base: int
    limit: int
    high: int


def parse_descriptor(selector: int, low: int, high: int) -> Segment:
    """What the CPU caches of a code, data, TSS or LDT descriptor; the limit is in bytes."""
    limit = low & 0xFFFF | high & 0xF0000
    if high & DESCRIPTOR_G:
        limit = limit << 12 | 0xFFF
    return Segment(selector, low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000, limit, high)


class Vcpu:
    """Register and memory access for platforms and host functions; valid while the CPU is in an exit."""

    def __init__(self, machine: Machine, engine: Engine) -> None:
        self.machine = machine
        self.engine = engine
        self.state = engine.state
        self.ram = engine.ram

    # ------------------------------------------------------------------ registers

    def reg(self, index: int) -> int:
        """General register by ModRM number (layout.EAX ...)."""
        return int(self.state.quads[index]) & 0xFFFFFFFF

    def set_reg(self, index: int, value: int) -> None:
        self.state.quads[index] = value & 0xFFFFFFFF

    @property
    def eip(self) -> int:
        return int(self.state.quads[EIP]) & 0xFFFFFFFF

    @eip.setter
    def eip(self, value: int) -> None:
        self.state.quads[EIP] = value & 0xFFFFFFFF

    @property
    def esp(self) -> int:
        return int(self.state.quads[layout.ESP]) & 0xFFFFFFFF

    @esp.setter
    def esp(self, value: int) -> None:
        self.state.quads[layout.ESP] = value & 0xFFFFFFFF

    @property
    def cpl(self) -> int:
        return int(self.state.words[layout.HFLAGS]) & HF_CPL

    @property
    def eflags(self) -> int:
        return self.state.read_eflags()

    @eflags.setter
    def eflags(self, value: int) -> None:
        self.state.write_eflags(value)

    def cr(self, index: int) -> int:
        """Control register 0, 2, 3 or 4."""
        return int(self.state.quads[CR + index]) & 0xFFFFFFFF

    def set_cr2(self, va: int) -> None:
        self.state.quads[CR + 2] = va & 0xFFFFFFFF

    def set_cr(self, index: int, value: int) -> None:
        """Load CR0, CR3 or CR4 as MOV does, TLB flush included."""
        self.state.store()
        self.engine.registers.write(_CONTROL[index], value & 0xFFFFFFFF)
        self.state.load()

    def msr(self, index: int) -> int:
        """A model-specific register of the engine; 0 for one that it does not have."""
        return self.engine.registers.read_msr(index)

    def set_msr(self, index: int, value: int) -> None:
        """Store a model-specific register of the engine; one that it does not have is dropped."""
        self.engine.registers.write_msr(index, value)

    def debug_register(self, index: int) -> int:
        """DR0 to DR3, DR6 or DR7."""
        return int(self.state.quads[layout.DR + index]) & 0xFFFFFFFF

    def set_debug_register(self, index: int, value: int) -> None:
        """Load DR0 to DR3, DR6 or DR7 as MOV does, breakpoints included where the engine has them."""
        self.state.write_debug(index, value & 0xFFFFFFFF)

    @property
    def tsc(self) -> int:
        """What RDTSC would give now."""
        return self.engine.now() + int(self.engine.record.tsc_offset)

    # ------------------------------------------------------------------ segments

    def segment(self, index: int) -> Segment:
        """Cached segment register (layout.ES ... GS)."""
        return Segment(*SEGMENT.unpack_from(self.state.bytes, segment_offset(index)))

    def table(self, offset: int) -> Segment:
        """GDTR, IDTR, LDTR or TR by its layout offset."""
        return Segment(*SEGMENT.unpack_from(self.state.bytes, offset))

    def set_table(self, offset: int, segment: Segment) -> None:
        SEGMENT.pack_into(self.state.bytes, offset, *segment)

    def set_segment(self, index: int, segment: Segment, cpl: int | None = None) -> None:
        """Store a segment cache and what hflags derives from it. `cpl` goes with CS."""
        SEGMENT.pack_into(self.state.bytes, segment_offset(index), *segment)
        words = self.state.words
        hflags = words[layout.HFLAGS]
        big = bool(segment.high & DESCRIPTOR_DB)
        if index == CS:
            hflags = hflags & ~layout.HF_CS32 | (layout.HF_CS32 if big else 0)
            if cpl is not None:
                hflags = hflags & ~HF_CPL | cpl
        elif index == SS:
            hflags = hflags & ~layout.HF_SS32 | (layout.HF_SS32 if big else 0)
        bases = any(self.segment(i).base for i in (DS, ES, SS))
        words[layout.HFLAGS] = hflags & ~layout.HF_ADDSEG | (layout.HF_ADDSEG if bases else 0)

    def descriptor(self, selector: int) -> Segment:
        """The descriptor that `selector` names, from the GDT or LDT.

        :raises GuestFault: #GP(selector) outside the table, or the page fault of reading it.
        """
        table = self.table(layout.LDTR if selector & 4 else layout.GDTR)
        if (selector | 7) > table.limit:
            raise GuestFault(GP, selector & 0xFFFC)
        address = table.base + (selector & 0xFFF8)
        return parse_descriptor(selector, self.read_u32(address), self.read_u32(address + 4))

    # ------------------------------------------------------------------ memory

    def tables(self) -> paging.Tables:
        """The control registers that say how addresses translate now."""
        quads = self.state.quads
        return paging.Tables(quads[CR], quads[CR + 3], quads[CR + 4])

    def translate(self, va: int, *, write: bool = False, user: bool = False) -> int:
        """Physical address; :raises GuestFault: as an instruction would fault."""
        return paging.translate(self.ram, self.tables(), va, write=write, user=user)

    def read(self, va: int, length: int, *, user: bool = False) -> bytes:
        """`length` bytes at a virtual address; nothing is returned if any of them faults."""
        if 0 < length <= 4096 - (va & 4095):
            quads, ram = self.state.quads, self.ram
            physical = None if user else used_before(ram, quads[CR], quads[CR + 3], quads[CR + 4], va, False)
            return ram.read(self.translate(va, user=user) if physical is None else physical, length)
        parts = []
        while length:
            span = min(length, 4096 - (va & 4095))
            parts.append(self.ram.read(self.translate(va, user=user), span))
            va, length = (va + span) & 0xFFFFFFFF, length - span
        return b"".join(parts)

    def write(self, va: int, data: bytes, *, user: bool = False) -> None:
        """Store `data` at a virtual address; nothing is stored if any byte of it faults."""
        if 0 < len(data) <= 4096 - (va & 4095):
            quads, ram = self.state.quads, self.ram
            physical = None if user else used_before(ram, quads[CR], quads[CR + 3], quads[CR + 4], va, True)
            ram.write(self.translate(va, write=True, user=user) if physical is None else physical, data)
            return
        pieces = []
        start = 0
        while start < len(data):
            span = min(len(data) - start, 4096 - (va & 4095))
            pieces.append((self.translate(va, write=True, user=user), data[start : start + span]))
            va, start = (va + span) & 0xFFFFFFFF, start + span
        for physical, piece in pieces:
            self.ram.write(physical, piece)

    def read_u16(self, va: int) -> int:
        return int.from_bytes(self.read(va, 2), "little")

    def read_u32(self, va: int) -> int:
        return int.from_bytes(self.read(va, 4), "little")

    def write_u32(self, va: int, value: int) -> None:
        self.write(va, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def write_u64(self, va: int, value: int) -> None:
        self.write(va, (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little"))

    def read_cstring(self, va: int, limit: int = 4096) -> bytes:
        """Bytes up to a NUL, at most `limit` of them."""
        data = b""
        while len(data) < limit:
            chunk = self.read(va + len(data), min(limit - len(data), 4096 - ((va + len(data)) & 4095)))
            end = chunk.find(b"\0")
            if end >= 0:
                return data + chunk[:end]
            data += chunk
        return data

    def flush_tlb(self) -> None:
        """Forget all translations, global ones too."""
        self.engine.flush_tlb()

    def flush_page(self, va: int) -> None:
        """Forget the translation of one address."""
        self.engine.flush_page(va)

    # ------------------------------------------------------------------ ports

    def iopl_allows(self) -> bool:
        """Whether IOPL lets the running code access every port."""
        flags = self.state.words[layout.EFLAGS]
        return self.cpl <= flags >> 12 & 3 and not flags & 0x20000

    def port_allowed(self, port: int, size: int) -> bool:
        """Whether the running code may access `port`: by IOPL, else by the TSS's bit map."""
        if self.iopl_allows():
            return True
        tss = self.table(layout.TR)
        if tss.limit < 0x67:
            return False
        try:
            offset = self.read_u16(tss.base + 0x66) + (port >> 3)
            if offset + 1 > tss.limit:
                return False
            bits = self.read_u16(tss.base + offset) >> (port & 7)
        except GuestFault:
            return False
        return not bits & ((1 << size) - 1)
