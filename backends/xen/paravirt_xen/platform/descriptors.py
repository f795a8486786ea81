"""The guest's descriptors: which may stand in its tables, set_gdt, update_descriptor.

A descriptor may give neither ring 0 nor a system segment: no TSS, no gate but a call gate, which Xen emulates. DPL 0
becomes 1, and the accessed flag is set, for the CPU reads the tables through pages that it may not write.

Ref: Xen arch/x86/pv/descriptor-tables.c, arch/x86/mm.c (check_descriptor, alloc_segdesc_page).
"""

from __future__ import annotations

from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import EINVAL, HypercallError
from paravirt_xen.platform.frames import DESCRIPTORS, TYPE, WRITABLE
from paravirt_xen.platform.layout import GUEST_GDT_ENTRIES, PAGE, RING1_CS

PRESENT, CODE_OR_DATA, LONG_MODE, GRANULARITY = 1 << 47, 1 << 44, 1 << 53, 1 << 55
ACCESSED = 1 << 40
DPL_SHIFT, TYPE_SHIFT = 45, 40
CALL_GATE = 12
CALL_GATE_RESERVED = 0xE0 << 32
LIMIT = 0xF << 48 | 0xFFFF
ENTRIES = PAGE // 8


def ring1(selector: int) -> int:
    """A selector of the guest's kernel: never of ring 0."""
    selector &= 0xFFFF
    return selector if selector & 3 else selector | 1


def check(descriptor: int, hypervisor_start: int) -> int | None:
    """A descriptor as the guest may have it; None if it may not."""
    if not descriptor & PRESENT:
        return descriptor
    dpl = descriptor >> DPL_SHIFT & 3 or 1
    if descriptor & CODE_OR_DATA:
        if descriptor & LONG_MODE:
            return None
        descriptor |= dpl << DPL_SHIFT | ACCESSED
        base = descriptor >> 16 & 0xFFFFFF | descriptor >> 32 & 0xFF000000
        limit = (descriptor & 0xFFFF | descriptor >> 32 & 0xF0000) + 1
        if descriptor & GRANULARITY:
            limit <<= 12
        # Old kernels end their segments where an older Xen began; they need the machine-to-phys table all the same.
        return descriptor | LIMIT if base == 0 and limit > hypervisor_start else descriptor
    kind = descriptor >> TYPE_SHIFT & 15
    if kind == 0:  # harmless: the second half of a call gate
        return descriptor
    if kind != CALL_GATE or descriptor & CALL_GATE_RESERVED:
        return None
    selector = descriptor >> 16 & 0xFFFF
    if not (selector >> 3 < GUEST_GDT_ENTRIES or selector == RING1_CS or selector & 4):
        return None
    # DPL 0, so that using it is #GP and can be emulated; the real DPL is kept in the target's RPL.
    return descriptor & ~(3 << DPL_SHIFT | 3 << 16) | (dpl << 16)


def validate_page(domain: Domain, mfn: int) -> bool:
    """A frame is to become one of descriptors: check and adjust all of it."""
    quads, base = domain.ram.quads, mfn * PAGE >> 3
    adjusted = []
    for index in range(ENTRIES):
        old = quads[base + index]
        if old:
            new = check(old, domain.hole.start)
            if new is None:
                return False
            if new != old:
                adjusted.append((index, new))
    for index, new in adjusted:
        domain.ram.write_u64((base + index) * 8, new)
    return True


def set_gdt(domain: Domain, frames: int, entries: int) -> int:
    """Use `entries` descriptors in the frames of a list as the GDT."""
    if entries > GUEST_GDT_ENTRIES:
        raise HypercallError(EINVAL, f"{entries} descriptors")
    count = -(-entries // ENTRIES)
    listed = memoryview(domain.read(frames, 4 * count)).cast("I").tolist()
    taken: list[int] = []
    for mfn in listed:
        if domain.frames.get_type(mfn, DESCRIPTORS):
            for other in taken:
                domain.frames.put_type(other)
            raise HypercallError(EINVAL, f"frame {mfn:#x} cannot hold descriptors")
        taken.append(mfn)
    old, domain.traps.gdt_frames = domain.traps.gdt_frames, taken
    domain.hole.show_gdt(taken)
    for mfn in old:
        domain.frames.put_type(mfn)
    return 0


def update_descriptor(domain: Domain, machine_address: int, descriptor: int) -> int:
    """Write one descriptor, wherever in the domain's memory it stands."""
    mfn, frames = machine_address >> 12, domain.frames
    new = check(descriptor, domain.hole.start)
    if machine_address & 7 or new is None or not frames.owned(mfn):
        raise HypercallError(EINVAL, f"descriptor {descriptor:#x} at {machine_address:#x}")
    kind = DESCRIPTORS if frames.info[mfn] & TYPE == DESCRIPTORS and frames.counts[mfn] else WRITABLE
    if frames.get_type(mfn, kind):
        raise HypercallError(EINVAL, f"frame {mfn:#x} is something else")
    domain.ram.write_u64(machine_address, new)
    frames.put_type(mfn)
    return 0
