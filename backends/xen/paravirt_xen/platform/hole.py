"""The hypervisor's part of every address space: the machine-to-phys table and the descriptor table's window.

Xen keeps the top of the guest's address space for itself: whatever table becomes the L2 of the top gigabyte gets
two kinds of entries of ours, and the guest may change none of them. Ring 1 is a supervisor, so only read-only pages
of ours may be in its reach. The CPU reads descriptors through the MMU, hence the window: the 14 frames of the
guest's GDT, then the hypervisor's own two pages with the flat segments.

Ref: Xen arch/x86/include/asm/config.h (FIRST_RESERVED_GDT_PAGE), arch/x86/pv/mm.c (init_xen_pae_l2_slots).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

from paravirt.api import Segment, layout
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.layout import (
    GDT_WINDOW,
    GUEST_GDT_FRAMES,
    M2P_MACHINE,
    M2P_PAGE,
    PAGE,
    RING1_CS,
    RING1_DS,
    RING3_CS,
    RING3_DS,
    STUB_WINDOW,
)

WINDOW_PAGES = 16
NX = 1 << 63
READ_ONLY = NX | 0x61  # present, accessed, dirty: no write may be needed for anything
RUN_ONLY = 0x61
READ_ONLY_LARGE = NX | 0xA1
FLAT = {RING1_CS: 0x00CFBB00_0000FFFF, RING1_DS: 0x00CFB300_0000FFFF, RING3_CS: 0x00CFFB00_0000FFFF,
        RING3_DS: 0x00CFF300_0000FFFF}


class Hole:
    """
    :param start: where the machine-to-phys table stands, 2 MiB aligned.
    """

    def __init__(self, domain: Domain, start: int) -> None:
        self.domain, self.start = domain, start
        self._empty = domain.hypervisor_frame()
        self._own = [domain.hypervisor_frame() for _ in range(WINDOW_PAGES - GUEST_GDT_FRAMES)]
        self._l1 = domain.hypervisor_frame() * PAGE
        reserved = GDT_WINDOW + GUEST_GDT_FRAMES * PAGE
        for selector, descriptor in FLAT.items():
            offset = GDT_WINDOW + (selector & 0xFFF8) - reserved
            domain.ram.write(self._own[offset // PAGE] * PAGE + offset % PAGE, pack("<Q", descriptor))
        self.first_slot = start >> 21 & 511
        self._slots = {
            self.first_slot + page: M2P_MACHINE + page * M2P_PAGE | READ_ONLY_LARGE
            for page in range(self.m2p_pages)
        }
        self._slots[GDT_WINDOW >> 21 & 511] = self._l1 | READ_ONLY
        self._stubs: list[int] = []
        self._show([])

    @property
    def m2p_pages(self) -> int:
        """Large pages of the machine-to-phys table."""
        return -(-4 * self.domain.machine_frames // M2P_PAGE)

    @property
    def ldt_window(self) -> int:
        """Index, in 64-bit words of RAM, of the L1 entries behind those of the GDT's window."""
        return (self._l1 >> 3) + WINDOW_PAGES

    @property
    def gdt_window(self) -> int:
        """Machine address of the L1 entries of the GDT's window."""
        return self._l1

    def install(self, l2_mfn: int) -> None:
        """Put the hypervisor's entries into the L2 table of the top gigabyte; all others from `start` on are empty."""
        ram = self.domain.ram
        for slot in range(self.first_slot, 512):
            entry = self._slots.get(slot, 0)
            if ram.quads[(l2_mfn * PAGE >> 3) + slot] != entry:
                ram.write_u64(l2_mfn * PAGE + 8 * slot, entry)

    def stub_pages(self, count: int) -> tuple[int, list[int]]:
        """Pages that the kernel may run and not write, in every address space: virtual address and machine addresses.

        They are there from the first time that somebody asks: a domain whose ops are not looked at has none.
        """
        if not self._stubs:
            ram, l1 = self.domain.ram, self.domain.hypervisor_frame() * PAGE
            self._stubs = [self.domain.hypervisor_frame() * PAGE for _ in range(count)]
            for page, frame in enumerate(self._stubs):
                ram.write_u64(l1 + 8 * page, frame | RUN_ONLY)
            self._slots[STUB_WINDOW >> 21 & 511] = l1 | RUN_ONLY
            tables = self.domain.vcpu.cr(3) & -32
            self.install(ram.quads[tables + 24 >> 3] >> 12 & 0xFFFFFF)
        return STUB_WINDOW, self._stubs

    def show_gdt(self, frames: Sequence[int]) -> None:
        """Let the window show the guest's descriptor frames."""
        self._show(frames)
        for page in range(GUEST_GDT_FRAMES):
            self.domain.vcpu.flush_page(GDT_WINDOW + page * PAGE)

    def _show(self, frames: Sequence[int]) -> None:
        for page in range(WINDOW_PAGES):
            if page >= GUEST_GDT_FRAMES:
                mfn = self._own[page - GUEST_GDT_FRAMES]
            else:
                mfn = frames[page] if page < len(frames) else self._empty
            self.domain.ram.write_u64(self._l1 + 8 * page, mfn * PAGE | READ_ONLY)

    def load(self) -> None:
        """Let the CPU find its descriptors: GDTR at the window. There is neither an IDT nor a task."""
        vcpu = self.domain.vcpu
        vcpu.set_table(layout.GDTR, Segment(0, GDT_WINDOW, WINDOW_PAGES * PAGE - 1, 0))
        vcpu.set_table(layout.IDTR, Segment(0, 0, 0, 0))
        # IRET with NT set looks for the task to return to: a zero word, which is #TS.
        vcpu.set_table(layout.TR, Segment(0, GDT_WINDOW + (WINDOW_PAGES - 1) * PAGE, 0, 0))
        vcpu.set_table(layout.LDTR, Segment(0, 0, 0, 0))
