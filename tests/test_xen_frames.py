"""Page types and reference counts of a domain's frames.

What must hold: a page table is validated entry by entry when it becomes active, as Xen validates it, with Xen's
errors; a frame is a page table or writable, never both; every reference that an entry takes is given back when it
goes; what fails changes nothing; a frame that may still be writable through the TLB is flushed before it becomes a
table. So a table that is active is always valid.

Ref: Xen arch/x86/mm.c.
"""

from __future__ import annotations

import pytest

from paravirt_xen.platform.entries import modify_l1, modify_l2, modify_l3
from paravirt_xen.platform.errors import EBUSY, EINVAL, EPERM
from paravirt_xen.platform.frames import L1, L2, L3, NONE, PINNED, TYPE, WRITABLE, XEN_L2
from paravirt_xen.platform.mmuext import pin, unpin
from paravirt_xen.platform.setup import validation_counts
from tests.xenmemory import FRAMES, RO_FLAGS, RW_FLAGS, TABLE_FLAGS, XEN_SLOT_FIRST, FakeDomain


@pytest.fixture
def domain() -> FakeDomain:
    return FakeDomain()


def unmap(domain: FakeDomain, pfn: int) -> int:
    """Take the only mapping of a frame away; returns the frame."""
    assert modify_l1(domain.frames, slot_of(domain, pfn), 0) == 0
    return int(domain.p2m[pfn])


def read_only(domain: FakeDomain, pfn: int) -> int:
    """Make the only mapping of a frame read-only; returns the frame."""
    assert modify_l1(domain.frames, slot_of(domain, pfn), domain.p2m[pfn] << 12 | RO_FLAGS) == 0
    return int(domain.p2m[pfn])


def slot_of(domain: FakeDomain, pfn: int) -> int:
    """Index of the entry that maps a frame."""
    return int((domain.base.l1s[pfn >> 9] << 9) + (pfn & 511))


def test_the_first_tables_have_their_types(domain: FakeDomain) -> None:
    frames, base = domain.frames, domain.base
    assert frames.info[base.l3] == L3 | PINNED and frames.counts[base.l3] == 2
    assert [frames.info[mfn] for mfn in base.l2s] == [L2, L2, L2, L2 | XEN_L2]
    assert all(frames.is_table(mfn, L1) and frames.counts[mfn] == 1 for mfn in base.l1s)
    ordinary = domain.p2m[100]
    assert frames.info[ordinary] == WRITABLE and frames.counts[ordinary] == frames.refs[ordinary] == 1
    assert domain.entry(base.l3, 0) == base.l2s[0] << 12 | 7, "Xen's own level 3 has RW and US"
    assert domain.entry(base.l2s[3], XEN_SLOT_FIRST) == 0x2000E1


BAD_L1 = [
    ("PCD", lambda d: d.p2m[100] << 12 | 0x73, EINVAL),
    ("PAT", lambda d: d.p2m[100] << 12 | 0xE3, EINVAL),
    ("bit 52", lambda d: d.p2m[100] << 12 | 1 << 52 | 0x63, EINVAL),
    ("beyond memory", lambda d: FRAMES << 12 | 0x63, EPERM),
    ("beyond 36 bits", lambda d: 1 << 40 | 0x63, EPERM),
    ("no frame", lambda d: (1 << 52) - 0x1000 | 0x63, EINVAL),
    ("I/O memory", lambda d: 0xA0 << 12 | 0x63, EPERM),
    ("the hypervisor's frame", lambda d: 0x300 << 12 | 0x61, EBUSY),
    ("a page table, writable", lambda d: d.base.l2s[0] << 12 | 0x63, EBUSY),
    ("itself, writable", lambda d: d.base.l1s[0] << 12 | 0x63, EBUSY),
]


@pytest.mark.parametrize("name, entry, errno", BAD_L1, ids=[name for name, _, _ in BAD_L1])
def test_refused_level_1_entries(domain: FakeDomain, name: str, entry: object, errno: int) -> None:
    value = entry(domain)  # type: ignore[operator]
    at = slot_of(domain, 200)
    before, counts = domain.ram.quads[at], bytes(domain.frames.counts) + bytes(domain.frames.refs)
    assert modify_l1(domain.frames, at, value) == errno
    assert domain.ram.quads[at] == before and bytes(domain.frames.counts) + bytes(domain.frames.refs) == counts

    table = unmap(domain, 300)
    domain.poke(table, 0, domain.p2m[100] << 12 | RW_FLAGS)
    domain.poke(table, 511, value if name != "itself, writable" else table << 12 | RW_FLAGS)
    counts = bytes(domain.frames.counts) + bytes(domain.frames.refs)
    assert pin(domain.frames, table, L1) == errno
    assert bytes(domain.frames.counts) + bytes(domain.frames.refs) == counts


def test_flags_that_mean_nothing_take_no_reference(domain: FakeDomain) -> None:
    at, mfn = slot_of(domain, 100), domain.p2m[100]
    for flags in (0x63, 0x03, 0xE67, 0x163, 1 << 63 | 0x63):
        assert modify_l1(domain.frames, at, mfn << 12 | flags) == 0
        assert domain.ram.quads[at] == mfn << 12 | flags
        assert domain.frames.counts[mfn] == domain.frames.refs[mfn] == 1


def test_accessed_and_dirty_are_kept_on_request(domain: FakeDomain) -> None:
    at, mfn = slot_of(domain, 100), domain.p2m[100]
    assert modify_l1(domain.frames, at, mfn << 12 | 1, keep=True) == 0
    assert domain.ram.quads[at] == mfn << 12 | 0x61
    assert domain.frames.counts[mfn] == 0 and domain.frames.refs[mfn] == 1


def test_a_writable_frame_becomes_no_table(domain: FakeDomain) -> None:
    assert pin(domain.frames, domain.p2m[100], L1) == EINVAL
    mfn = read_only(domain, 100)
    assert pin(domain.frames, mfn, L1) == 0
    assert modify_l1(domain.frames, slot_of(domain, 100), mfn << 12 | RW_FLAGS) == EBUSY
    assert unpin(domain.frames, mfn) == 0
    assert modify_l1(domain.frames, slot_of(domain, 100), mfn << 12 | RW_FLAGS) == 0


def test_the_tlb_is_flushed_before_a_writable_frame_becomes_a_table(domain: FakeDomain) -> None:
    first, second, third = (read_only(domain, pfn) for pfn in (100, 101, 102))
    before = domain.flushes
    assert pin(domain.frames, first, L1) == 0 and domain.flushes == before + 1
    assert pin(domain.frames, second, L1) == 0 and domain.flushes == before + 1, "the same flush serves"
    domain.frames.flush()
    before = domain.flushes
    assert pin(domain.frames, third, L1) == 0 and domain.flushes == before, "it has been flushed since"
    assert unpin(domain.frames, third) == 0 and pin(domain.frames, third, L2) == 0
    assert domain.flushes == before, "it was not writable in between"


def test_validations_are_counted(domain: FakeDomain) -> None:
    """One for each time that a frame is read through, whether it passes or not; none while it stays what it is."""
    first = {"xen.validation.l1": len(domain.base.l1s), "xen.validation.l2": 4, "xen.validation.l3": 1}
    assert validation_counts(domain) == first
    mfn = read_only(domain, 100)
    assert pin(domain.frames, mfn, L1) == 0 and domain.frames.get_type(mfn, L1) == 0
    domain.frames.put_type(mfn)
    assert unpin(domain.frames, mfn) == 0
    domain.poke(mfn, 0, FRAMES << 12 | RO_FLAGS)
    assert pin(domain.frames, mfn, L1) == EPERM and pin(domain.frames, mfn, L3) == EINVAL
    assert validation_counts(domain) == {**first, "xen.validation.l1": len(domain.base.l1s) + 2, "xen.validation.l3": 2}


def test_pins(domain: FakeDomain) -> None:
    mfn = read_only(domain, 100)
    assert unpin(domain.frames, mfn) == EINVAL
    assert pin(domain.frames, mfn, L2) == 0
    assert pin(domain.frames, mfn, L2) == EINVAL and domain.frames.counts[mfn] == 1
    assert pin(domain.frames, mfn, L1) == EINVAL and pin(domain.frames, mfn, L3) == EINVAL
    assert unpin(domain.frames, mfn) == 0 and unpin(domain.frames, mfn) == EINVAL
    assert domain.frames.counts[mfn] == 0 and domain.frames.refs[mfn] == 1
    for other in (0x300, FRAMES, FRAMES + 5):
        assert pin(domain.frames, other, L1) == EINVAL and unpin(domain.frames, other) == EINVAL


def test_replacing_a_table_gives_its_references_back(domain: FakeDomain) -> None:
    l1, target = read_only(domain, 100), domain.p2m[101]
    domain.poke(l1, 7, target << 12 | RW_FLAGS)
    at = (domain.base.l2s[0] << 9) + 3
    assert modify_l2(domain.frames, at, l1 << 12 | TABLE_FLAGS) == 0
    assert domain.frames.is_table(l1, L1) and domain.frames.counts[target] == 2
    assert modify_l2(domain.frames, at, 0) == 0
    assert domain.frames.counts[l1] == 0 and domain.frames.counts[target] == 1 and domain.frames.refs[target] == 1


def test_level_2_refuses(domain: FakeDomain) -> None:
    frames, l2 = domain.frames, domain.base.l2s[0]
    l1 = read_only(domain, 100)
    at = l2 << 9
    for value, errno in [
        (domain.p2m[101] << 12 | 0xE7, EINVAL),  # a large page
        (l1 << 12 | 0x167, EINVAL),
        (domain.p2m[101] << 12 | TABLE_FLAGS, EINVAL),  # writable
        (domain.base.l3 << 12 | TABLE_FLAGS, EINVAL),
        (0x300 << 12 | TABLE_FLAGS, EINVAL),
        (FRAMES << 12 | TABLE_FLAGS, EINVAL),
    ]:
        assert modify_l2(frames, at, value) == errno, hex(value)
    assert domain.ram.quads[at] == 0
    assert modify_l2(frames, (domain.base.l2s[3] << 9) + XEN_SLOT_FIRST, 0) == EPERM
    domain.poke(l1, 9, FRAMES << 12 | RW_FLAGS)
    assert modify_l2(frames, at, l1 << 12 | TABLE_FLAGS) == EPERM, "an invalid table below"


def test_level_3(domain: FakeDomain) -> None:
    frames, base = domain.frames, domain.base
    l2 = read_only(domain, 100)
    assert modify_l3(frames, base.l3 << 9, l2 << 12 | 1) == 0
    assert domain.entry(base.l3, 0) == l2 << 12 | 7 and frames.is_table(l2, L2)
    assert frames.counts[base.l2s[0]] == 0
    assert modify_l3(frames, (base.l3 << 9) + 3, base.l2s[3] << 12 | 1) == EINVAL
    assert modify_l3(frames, base.l3 << 9, l2 << 12 | 1 << 63 | 1) == EINVAL, "NX"
    assert modify_l3(frames, base.l3 << 9, base.l2s[3] << 12 | 1) == EINVAL, "the hypervisor's table in another slot"
    assert modify_l3(frames, base.l3 << 9, 0) == 0 and frames.counts[l2] == 0


def test_another_address_space(domain: FakeDomain) -> None:
    frames, base = domain.frames, domain.base
    l3, l2 = read_only(domain, 100), read_only(domain, 101)
    assert pin(frames, l3, L3) == EINVAL, "no table of the top gigabyte"
    for slot in range(3):
        domain.poke(l3, slot, base.l2s[slot] << 12 | 1)
    domain.poke(l3, 3, base.l2s[3] << 12 | 1)
    assert pin(frames, l3, L3) == EINVAL, "the top table is another one's"
    assert domain.entry(l3, 0) == base.l2s[0] << 12 | 1, "as it was"
    assert [frames.counts[mfn] for mfn in base.l2s] == [1, 1, 1, 1]
    domain.poke(l2, 0, domain.entry(base.l2s[3], 0))
    domain.poke(l3, 3, l2 << 12 | 1)
    domain.poke(l3, 8, 0xFFFF)
    assert pin(frames, l3, L3) == 0
    assert domain.entry(l3, 3) == l2 << 12 | 7 and domain.entry(l3, 8) == 0
    assert domain.entry(l2, XEN_SLOT_FIRST) == 0x2000E1
    assert pin(frames, l2, L2) == EINVAL
    assert unpin(frames, l3) == 0
    assert domain.entry(l3, 3) == l2 << 12 | 1 and frames.info[l2] & TYPE in (NONE, L2) and not frames.counts[l2]
    assert [frames.counts[mfn] for mfn in base.l2s] == [1, 1, 1, 1] and not frames.info[l2] & XEN_L2


def test_tables_seen_through_a_table(domain: FakeDomain) -> None:
    frames, base = domain.frames, domain.base
    top, low = base.l2s[3], base.l2s[0]
    assert modify_l2(frames, (top << 9) + 100, top << 12 | 0x63) == EINVAL, "writable"
    assert modify_l2(frames, (top << 9) + 100, top << 12 | 0x61) == 0 and frames.counts[top] == 1
    assert modify_l2(frames, (top << 9) + 101, low << 12 | 0x61) == 0 and frames.counts[low] == 2
    assert frames.linear == {top: 1, low: -1}
    assert modify_l2(frames, (low << 9) + 101, base.l2s[1] << 12 | 0x61) == EINVAL, "no second step"
    assert modify_l2(frames, (base.l2s[1] << 9) + 101, top << 12 | 0x61) == EINVAL
    assert modify_l2(frames, (top << 9) + 101, 0) == 0 and modify_l2(frames, (top << 9) + 100, 0) == 0
    assert frames.linear == {} and frames.counts[low] == frames.counts[top] == 1


def test_a_frame_given_away_is_free_when_nothing_refers_to_it(domain: FakeDomain) -> None:
    gone: list[int] = []
    domain.frames.on_free = gone.append
    mfn = domain.p2m[100]
    domain.frames.release(mfn)
    assert gone == [] and domain.frames.owned(mfn)
    assert modify_l1(domain.frames, slot_of(domain, 100), 0) == 0
    assert gone == [mfn] and not domain.frames.owned(mfn)
    assert modify_l1(domain.frames, slot_of(domain, 100), mfn << 12 | RO_FLAGS) == EBUSY
