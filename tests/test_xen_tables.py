"""A page table of level 1 that C validates, or lets go of, as a whole must end as frames.py would have it: the same
answer, types, counts, references and stamps, whatever stands in the table. A count that is off by one lets a guest
write a page table later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import DESCRIPTORS, L1, NO_MFN, NONE, RELEASED, RW, WRITABLE, Frames
from tests.xendomain import xen_guest

PRESENT, USER = 1, 4
PFNS = range(0x300, 0x310)  # RAM that nothing stands in; the table is the first


@pytest.fixture(scope="module")
def domain() -> Iterator[Domain]:
    with xen_guest() as backend:
        assert backend.domain is not None
        yield backend.domain


def figures(frames: Frames) -> tuple[bytes, ...]:
    return tuple(bytes(data) for data in (frames.owners, frames.info, frames.counts, frames.refs, frames.stamps))


class Kept:
    """The figures of all frames, to be put back."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._parts: list[Any] = [frames.owners, frames.info, frames.counts, frames.refs, frames.stamps]
        self._copies = [part[:] for part in self._parts]

    def restore(self) -> None:
        for part, copy in zip(self._parts, self._copies, strict=True):
            part[:] = copy


def in_python(frames: Frames, call: Any) -> Any:
    promote, demote = frames.promote_l1, frames.demote_l1
    frames.promote_l1 = frames.demote_l1 = lambda mfn: False
    try:
        return call()
    finally:
        frames.promote_l1, frames.demote_l1 = promote, demote


flags = st.sampled_from([PRESENT, PRESENT | RW, PRESENT | RW | USER, RW, 0, PRESENT | 0x80, PRESENT | 0x100 | RW,
                         PRESENT | 1 << 63, PRESENT | 1 << 52, PRESENT | 0x10])
targets = st.one_of(st.sampled_from(["table", "hypervisor", "beyond", "none", "io"]), st.sampled_from(PFNS))
frame_states = st.tuples(
    st.sampled_from([NONE, WRITABLE, L1, DESCRIPTORS, WRITABLE | RELEASED]), st.integers(0, 2), st.integers(0, 2))


@given(entries=st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, 200, 509, 510, 511]), targets, flags), max_size=12),
       states=st.lists(frame_states, min_size=len(PFNS), max_size=len(PFNS)))
@example(entries=[(3, PFNS[1], PRESENT), (511, PFNS[2], PRESENT | RW)],  # the last references of what was given away
         states=[(WRITABLE | RELEASED, 0, 0)] * len(PFNS))
@settings(max_examples=300, deadline=None)
def test_whole_tables(domain: Domain, entries: list[tuple[int, Any, int]],
                      states: list[tuple[int, int, int]]) -> None:
    frames = domain.frames
    assert frames.promote_l1.__name__ == "<lambda>" and frames.promote_l1(0) in (0, 1)
    kept, table = Kept(frames), int(domain.p2m[PFNS[0]])
    places = {"table": table, "hypervisor": 0x101, "beyond": frames.total + 5, "none": NO_MFN, "io": 0xA0}
    try:
        for pfn, (info, count, more) in zip(PFNS, states, strict=True):
            mfn = int(domain.p2m[pfn])
            frames.info[mfn] = info
            frames.counts[mfn], frames.refs[mfn] = count, count + more + bool(info & RELEASED)
        frames.info[table], frames.counts[table], frames.refs[table] = NONE, 0, 0
        content = [0] * 512
        for index, target, bits in entries:
            mfn = places[target] if isinstance(target, str) else int(domain.p2m[target])
            content[index] = mfn << 12 | bits
        for index, entry in enumerate(content):
            frames.quads[(table << 9) + index] = entry
        before = Kept(frames)

        fast = frames.get_type(table, L1), figures(frames)
        before.restore()
        slow = in_python(frames, lambda: (frames.get_type(table, L1), figures(frames)))
        assert fast == slow
        if fast[0] == 0:
            for pfn, (info, count, more) in zip(PFNS[1:], states[1:], strict=True):  # the first is the table
                mfn = int(domain.p2m[pfn])
                if info & RELEASED and frames.refs[mfn] > count + more + 1:
                    frames.refs[mfn] -= count + more + 1  # this table has the last ones
            active = Kept(frames)
            frames.put_type(table)
            fast_after = figures(frames)
            active.restore()
            in_python(frames, lambda: frames.put_type(table))
            assert fast_after == figures(frames)
    finally:
        kept.restore()
        for index in range(512):
            frames.quads[(table << 9) + index] = 0
