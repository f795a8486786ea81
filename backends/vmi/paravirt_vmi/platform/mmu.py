"""Page tables: the CPU walks the guest's own, which hold physical addresses. There is no shadow.

So stores are stores, and coherence of the TLB rests on SetCR3, InvalPage and FlushTLB as on hardware. What is left of
the page-type protocol are its notices. They are kept and checked: a page has one type at a time. ZEROED is not
believed, since Linux says it of swapper_pg_dir, which is not; nor is the level that SetPxE is told.

Ref: VMI 3.0 page flags, as Linux 2.6.32 arch/x86/kernel/vmi_32.c uses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paravirt_vmi.platform.monitor import Monitor

PT, PD, PDP, PML4, PAE, CLONE, ZEROED = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
LEVELS = {PT: "page table", PD: "page directory", PDP: "page-directory pointers"}
LEVEL_MASK, KNOWN = 0x0F, 0x7F
ENTRIES, ENTRIES_PAE = 1024, 512
LINEAR_SLOTS = 4
CR4_PAE = 1 << 5
FLUSH_ALL = 3


def set_pxe(m: Monitor, entry: int, pointer: int, flags: int) -> None:
    m.vcpu.write_u32(pointer, entry)


def set_pxe_long(m: Monitor, low: int, high: int, pointer: int, flags: int) -> None:
    m.vcpu.write(pointer, low.to_bytes(4, "little") + high.to_bytes(4, "little"))


def update_pxe(m: Monitor, pointer: int, flags: int) -> None:
    """There is no shadow to bring up to date."""


def undocumented(m: Monitor) -> None:
    raise m.refuse("call", "the guest made a call that nobody documented, and that GetRelocationInfo answers with NONE")


def _type(m: Monitor, call: str, pfn: int, flags: int) -> int:
    level = flags & LEVEL_MASK
    if pfn >= m.ram.size >> 12:
        raise m.refuse(call, f"page frame {pfn:#x} lies behind the end of memory")
    if level not in LEVELS:
        raise m.refuse(call, f"flags {flags:#x} name no type of page table that this CPU has")
    if flags & ~KNOWN:
        raise m.refuse(call, f"flags {flags:#x} are not all known")
    if bool(flags & PAE) != bool(m.vcpu.cr(4) & CR4_PAE):
        raise m.refuse(call, f"flags {flags:#x} do not fit the paging mode")
    return level


def allocate_page(m: Monitor, pfn: int, flags: int, clone: int, start: int, count: int) -> None:
    level = _type(m, "AllocatePage", pfn, flags)
    if flags & CLONE:
        entries = ENTRIES_PAE if flags & PAE else ENTRIES
        if clone >= m.ram.size >> 12 or start + count > entries:
            raise m.refuse("AllocatePage", f"entries {start} to {start + count} of frame {clone:#x} cannot be cloned")
    old = m.frames[pfn]
    m.frames[pfn] = level
    if old not in (0, level):
        raise m.refuse("AllocatePage", f"page frame {pfn:#x} is announced as {LEVELS[level]}, and is "
                                       f"{LEVELS[old]} still: it was not released")


def release_page(m: Monitor, pfn: int, flags: int) -> None:
    level = _type(m, "ReleasePage", pfn, flags)
    old = m.frames[pfn]
    m.frames[pfn] = 0
    if old not in (0, level):
        raise m.refuse("ReleasePage", f"page frame {pfn:#x} is released as {LEVELS[level]}, and was announced as "
                                      f"{LEVELS[old]}")


def invalidate_page(m: Monitor, va: int) -> None:
    m.make_up()
    m.vcpu.flush_page(va)


def flush_tlb(m: Monitor, how: int) -> None:
    """Bit 0: what is not global, bit 1: what is. This CPU's flush takes both."""
    m.make_up()
    if how & FLUSH_ALL:
        m.vcpu.flush_tlb()


def set_linear_mapping(m: Monitor, slot: int, va: int, pages: int, pfn: int) -> None:
    """Where the guest sees its page tables; kept, and not needed. Linux gives the largest number of pages that may
    ever be, not what there is."""
    if slot >= LINEAR_SLOTS:
        raise m.refuse("SetLinearMapping", f"there is no slot {slot}, only {LINEAR_SLOTS} of them")
    if m.crosses(va, pages << 12):
        raise m.refuse("SetLinearMapping", f"{pages} pages at {va:#x} leave the address space")
    m.linear[slot] = (va, pages, pfn)
