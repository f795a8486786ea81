"""A domain without a CPU: RAM, frames, and page tables that a test builds by hand.

`FakeDomain` is the hypervisor's own Domain over a bare Ram. Machine memory of 0x800 frames: the hypervisor's below
0x400, the domain's above. `spread` gives a frame by a small number, in an order that is not that of the frames.
"""

from __future__ import annotations

from array import array
from collections import Counter
from types import SimpleNamespace
from typing import Any

from paravirt.machine import layout
from paravirt.machine.ram import Ram
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import L3
from paravirt_xen.platform.setup import take_memory

FRAMES, FIRST = 0x800, 0x400
PAGE = 4096
XEN_SLOT_FIRST = 428
TABLE_FLAGS, RW_FLAGS, RO_FLAGS = 0x67, 0x63, 0x61


class FakeDomain(Domain):
    """:ivar flushes: whole TLB flushes; :ivar invlpgs: addresses of single ones."""

    def __init__(self) -> None:
        ram = Ram(FRAMES * PAGE)
        state = SimpleNamespace(quads=memoryview(bytearray(layout.STATE_BYTES)).cast("Q"))
        self.flushes, self.invlpgs = 0, []  # type: tuple[int, list[int]]
        engine = SimpleNamespace(flush_tlb=self._flush, flush_page=self.invlpgs.append)
        vcpu = SimpleNamespace(state=state, ram=ram, set_table=lambda at, segment: None)
        machine = SimpleNamespace(vcpu=vcpu, ram=ram, engine=engine)
        guest: Any = SimpleNamespace(machine=machine, counts=Counter())
        super().__init__(guest, array("I", (FIRST + (77 * n + 5) % (FRAMES - FIRST) for n in range(FRAMES - FIRST))))
        self.hole: Any = SimpleNamespace(first_slot=XEN_SLOT_FIRST, install=self._install, ldt_window=0x100 * 512,
                                         m2p_pages=1, start=0xF5800000)
        self.base = build_tables(self)
        self.l3_mfn, self.console_mfn, self.store_mfn = self.base.l3, self.p2m[50], self.p2m[51]
        state.quads[layout.CR + 3] = self.l3_mfn * PAGE
        take_memory(self)

    def _flush(self) -> None:
        self.flushes += 1

    def _install(self, l2: int) -> None:
        for slot in range(XEN_SLOT_FIRST, 512):
            self.ram.write_u64(l2 * PAGE + 8 * slot, 0x2000E1 if slot == XEN_SLOT_FIRST else 0)

    def entry(self, mfn: int, slot: int) -> int:
        """An entry of a table."""
        return int(self.ram.quads[(mfn << 9) + slot])

    def poke(self, mfn: int, slot: int, value: int) -> None:
        """Write an entry of a frame that is no page table yet, as a guest would."""
        self.ram.write_u64((mfn << 12) + 8 * slot, value)


class Tables(SimpleNamespace):
    """:ivar l3: :ivar l2s: four frames :ivar l1s: the frames of the L1s that map the domain's memory."""

    l3: int
    l2s: list[int]
    l1s: list[int]


BASE_VA = 0xC0000000


def build_tables(domain: Domain) -> Tables:
    """Map the domain's memory at BASE_VA, its page tables read-only; they are its first frames."""
    p2m = domain.p2m
    count = -(-len(p2m) // 512)
    l3, l2s, l1s = p2m[0], list(p2m[1:5]), list(p2m[5 : 5 + count])
    tables = {l3, *l2s, *l1s}
    for slot, l2 in enumerate(l2s):
        domain.ram.write_u64(l3 * PAGE + 8 * slot, l2 * PAGE | 1)
    for number, l1 in enumerate(l1s):
        domain.ram.write_u64(l2s[3] * PAGE + 8 * number, l1 * PAGE | TABLE_FLAGS)
    for pfn, mfn in enumerate(p2m):
        at = l1s[pfn >> 9] * PAGE + 8 * (pfn & 511)
        domain.ram.write_u64(at, mfn * PAGE | (RO_FLAGS if mfn in tables else RW_FLAGS))
    return Tables(l3=l3, l2s=l2s, l1s=l1s)


__all__ = ["BASE_VA", "FIRST", "FRAMES", "L3", "PAGE", "RO_FLAGS", "RW_FLAGS", "TABLE_FLAGS", "XEN_SLOT_FIRST",
           "FakeDomain", "Tables"]
