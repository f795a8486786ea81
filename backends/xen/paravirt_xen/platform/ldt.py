"""The guest's local descriptor table, through a window of the hypervisor's.

The CPU reads descriptors where LDTR says. That is never the guest's own mapping, which it could write: the window
shows the guest's pages as frames of the descriptor type, validated and not writable, and one page at a time, when
the CPU first looks for it and faults.

Ref: Xen arch/x86/pv/mm.c (pv_map_ldt_shadow_page), arch/x86/pv/descriptor-tables.c (pv_destroy_ldt).
"""

from __future__ import annotations

from paravirt.api import Segment, layout
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import DESCRIPTORS, MFN, PRESENT
from paravirt_xen.platform.layout import GDT_WINDOW, PAGE

PAGES = 16  # 8192 entries
LDT_WINDOW = GDT_WINDOW + 16 * PAGE
LDT_WINDOW_BYTES = PAGES * PAGE
LDT_SELECTOR = 0xE048  # behind the flat segments; the guest cannot load it
LDT_TYPE = 0x8200
READ_ONLY = 1 << 63 | 0x61  # NX, dirty, accessed, present


class Ldt:
    """
    :param window: index, in 64-bit words of RAM, of the L1 entries that map LDT_WINDOW.
    :ivar base: of the table in the guest's memory; :ivar entries: 0 for none.
    """

    def __init__(self, domain: Domain, window: int) -> None:
        self.domain, self.window = domain, window
        self.base = self.entries = 0
        self.shown: dict[int, int] = {}  # page of the table -> frame

    def set(self, base: int, entries: int) -> None:
        """Use the table of `entries` descriptors at `base`, page aligned."""
        if (base, entries) == (self.base, self.entries):
            return
        if self.drop():
            self.domain.frames.flush()
        self.base, self.entries = base, entries
        self.domain.vcpu.set_table(layout.LDTR, Segment(
            LDT_SELECTOR if entries else 0, LDT_WINDOW if entries else 0, max(0, 8 * entries - 1),
            LDT_TYPE if entries else 0))

    def drop(self) -> bool:
        """Forget the frames, as a change of the address space demands; whether there were any."""
        frames = self.domain.frames
        shown, self.shown = self.shown, {}
        for page, mfn in shown.items():
            frames.store(self.window + page, 0)
            frames.put_type(mfn)
        return bool(shown)

    def fault(self, va: int) -> bool:
        """The CPU has not found the page of the window that holds `va`; whether it is there now."""
        page = (va - LDT_WINDOW) // PAGE
        if not 0 <= page < PAGES or page * PAGE >= 8 * self.entries or page in self.shown:
            return False
        at = self.domain.l1_entry_address(self.base + page * PAGE & 0xFFFFFFFF)
        entry = 0 if at is None else self.domain.ram.quads[at >> 3]
        mfn = entry >> 12 & MFN
        frames = self.domain.frames
        if not entry & PRESENT or frames.get_type(mfn, DESCRIPTORS):
            return False
        self.shown[page] = mfn
        frames.store(self.window + page, mfn * PAGE | READ_ONLY)
        return True
