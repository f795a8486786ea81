"""Descriptors: which a guest may have, and that none of another kind ever reaches its tables.

A descriptor must give neither ring 0 nor a system segment. DPL 0 becomes 1 and the accessed flag is set, since the
CPU reads the tables through pages that it may not write; a call gate is kept for emulation; all others are refused,
wherever they come from: a page that becomes one of descriptors, or update_descriptor. A refusal changes nothing.

Ref: Xen arch/x86/mm.c (check_descriptor), arch/x86/pv/descriptor-tables.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.api import GuestExit
from paravirt_xen.platform import abi
from paravirt_xen.platform.descriptors import check
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import DESCRIPTORS, TYPE
from tests.xendomain import TEXT, xen_guest

HOLE = 0xF5800000
EINVAL, EFAULT = -22, -14
SET_GDT, UPDATE_DESCRIPTOR, UPDATE_VA_MAPPING = 2, 10, 14
PAGE_VA, LIST = TEXT + 0x1000, TEXT + 0x800
FLAT_CODE, FLAT_DATA = 0x00CF9B00_0000FFFF, 0x00CF9300_0000FFFF


@pytest.mark.parametrize(("given_value", "expected"), [
    (0, 0),
    (0x00CF1B00_0000FFFF, 0x00CF1B00_0000FFFF),  # not present: anything goes
    (FLAT_CODE, 0x00CFBB00_0000FFFF),  # DPL 0 -> 1
    (FLAT_DATA & ~(1 << 40), 0x00CFB300_0000FFFF),  # accessed
    (0x00CFF200_0000FFFF, 0x00CFF300_0000FFFF),  # DPL 3 stays
    (0x00CFD200_0000FFFF, 0x00CFD300_0000FFFF),  # DPL 2 too
    (0x10CF9312_34560FFF, 0x10CFB312_34560FFF),  # a base of its own: the limit is left alone
    (0x00AF9B00_0000FFFF, None),  # 64-bit code
    (0x00008900_00000067, None),  # TSS
    (0x00008200_0000FFFF, None),  # LDT
    (0x00008E00_00081234, None),  # interrupt gate
    (0x00008F00_00081234, None),  # trap gate
    (0x00008500_00080000, None),  # task gate
    (0x00008000_12345678, 0x00008000_12345678),  # type 0: the second half of a call gate
    (0x00008C00_00601234, 0x00008C00_00611234),  # call gate: DPL 0 becomes 1, and goes where the RPL was
    (0x0000EC00_00611234, 0x00008C00_00631234),  # DPL 3
    (0x00008CE0_00611234, None),  # reserved bits
    (0x00008C00_F0001234, None),  # a selector behind the guest's table
])
def test_what_a_guest_may_have(given_value: int, expected: int | None) -> None:
    assert check(given_value, HOLE) == expected


def test_segments_that_end_where_an_older_xen_began_reach_the_machine_to_phys_table() -> None:
    limit = (0xF6800000 >> 12) - 1
    old = FLAT_DATA & ~0xF_0000_0000_FFFF | limit & 0xFFFF | (limit >> 16) << 48
    found = check(old, HOLE)
    assert found is not None and found & 0xFFFF == 0xFFFF and found >> 48 & 0xF == 0xF


@given(st.integers(0, (1 << 64) - 1))
def test_nothing_that_passes_gives_ring_0_or_a_system_segment(value: int) -> None:
    found = check(value, HOLE)
    if found is None or not found >> 47 & 1:
        return
    kind = found >> 40 & 0x1F
    if kind & 0x10:
        assert found >> 45 & 3 and found >> 40 & 1 and not found >> 53 & 1
    else:
        assert kind in (0, 12)
        assert kind == 0 or found >> 45 & 3 == 0  # so that using it is #GP
    assert check(found, HOLE) == found or kind == 12


@pytest.fixture(params=["auto", "portable"])
def domain(request: pytest.FixtureRequest) -> Iterator[Domain]:
    with xen_guest(engine=request.param, pages=3) as backend:
        yield backend.domain


def read_only(domain: Domain, va: int) -> int:
    """Map a page of the kernel's data read-only, as a page of descriptors must be; its frame."""
    mfn = domain.machine_address(va) >> 12
    assert domain.dispatcher.call(UPDATE_VA_MAPPING, [va, mfn << 12 | 1, 0, abi.UVMF_INVLPG, 0]) == 0
    return mfn


def set_gdt(domain: Domain, frames: list[int], entries: int) -> int:
    domain.write(LIST, struct.pack(f"<{len(frames)}I", *frames))
    return domain.dispatcher.call(SET_GDT, [LIST, entries, 0, 0, 0])


def update(domain: Domain, address: int, descriptor: int) -> int:
    words = [address & 0xFFFFFFFF, address >> 32, descriptor & 0xFFFFFFFF, descriptor >> 32, 0]
    return domain.dispatcher.call(UPDATE_DESCRIPTOR, words)


def test_a_gdt_is_seen_through_the_window(domain: Domain) -> None:
    domain.write(PAGE_VA + 0x60, struct.pack("<2Q", FLAT_CODE, FLAT_DATA))
    mfn = read_only(domain, PAGE_VA)
    assert set_gdt(domain, [mfn], 32) == 0
    assert domain.frames.info[mfn] & TYPE == DESCRIPTORS
    assert domain.vcpu.descriptor(0x61).high == 0x00CFBB00
    assert domain.vcpu.descriptor(0xE019).high >> 13 & 3 == 1
    assert domain.read(PAGE_VA + 0x68, 8) == struct.pack("<Q", 0x00CFB300_0000FFFF)


def test_a_page_with_a_task_state_segment_is_no_gdt(domain: Domain) -> None:
    data = struct.pack("<3Q", FLAT_CODE, FLAT_DATA, 0x00008900_00000067)
    domain.write(PAGE_VA, data)
    mfn = read_only(domain, PAGE_VA)
    assert set_gdt(domain, [mfn], 32) == EINVAL
    assert domain.read(PAGE_VA, len(data)) == data, "nothing of it is adjusted"
    assert domain.frames.counts[mfn] == 0


def test_a_page_that_the_guest_can_write_is_no_gdt(domain: Domain) -> None:
    assert set_gdt(domain, [domain.machine_address(PAGE_VA) >> 12], 32) == EINVAL


@pytest.mark.parametrize(("entries", "answer"), [(0, 0), (512, 0), (513, EINVAL), (7168, EINVAL), (7169, EINVAL)])
def test_how_many_entries(domain: Domain, entries: int, answer: int) -> None:
    """The list is one frame and whatever follows: zeros, frames that are nobody's."""
    mfn = read_only(domain, PAGE_VA)
    assert set_gdt(domain, [mfn, *[0] * 15], entries) == answer


def test_a_bad_frame_in_the_list_leaves_the_old_table(domain: Domain) -> None:
    first = read_only(domain, PAGE_VA)
    assert set_gdt(domain, [first], 512) == 0
    second = read_only(domain, PAGE_VA + 0x1000)
    assert set_gdt(domain, [second, domain.shared_mfn], 1024) == EINVAL
    assert domain.traps.gdt_frames == [first]
    assert (domain.frames.counts[first], domain.frames.counts[second]) == (1, 0)


def test_a_new_table_gives_the_old_one_back(domain: Domain) -> None:
    first, second = read_only(domain, PAGE_VA), read_only(domain, PAGE_VA + 0x1000)
    assert set_gdt(domain, [first], 512) == set_gdt(domain, [second], 512) == 0
    assert (domain.frames.counts[first], domain.frames.counts[second]) == (0, 1)


def test_a_list_that_is_nowhere(domain: Domain) -> None:
    assert domain.dispatcher.call(SET_GDT, [0xD0000000, 16, 0, 0, 0]) == EFAULT


def test_update_descriptor(domain: Domain) -> None:
    mfn = read_only(domain, PAGE_VA)
    assert set_gdt(domain, [mfn], 512) == 0
    assert update(domain, mfn * 4096 + 0x18, FLAT_DATA) == 0
    assert domain.vcpu.descriptor(0x19).high == 0x00CFB300
    assert domain.frames.counts[mfn] == 1


@pytest.mark.parametrize("descriptor", [0x00008900_00000067, 0x00AF9B00_0000FFFF, 0x00008E00_00081234])
def test_a_descriptor_that_is_refused(domain: Domain, descriptor: int) -> None:
    mfn = read_only(domain, PAGE_VA)
    assert set_gdt(domain, [mfn], 512) == 0
    assert update(domain, mfn * 4096 + 0x18, descriptor) == EINVAL
    assert domain.read(PAGE_VA + 0x18, 8) == bytes(8)


def test_where_no_descriptor_may_go(domain: Domain) -> None:
    mfn = domain.machine_address(PAGE_VA) >> 12
    table = domain.l3_mfn
    for address in (mfn * 4096 + 4, table * 4096, 0x200000, domain.machine_frames * 4096, (1 << 64) - 8):
        assert update(domain, address, FLAT_DATA) == EINVAL, hex(address)


def test_memory_that_is_no_table_yet_takes_descriptors_too(domain: Domain) -> None:
    mfn = domain.machine_address(PAGE_VA) >> 12
    before = domain.frames.counts[mfn]
    assert update(domain, mfn * 4096 + 8, FLAT_CODE) == 0
    assert domain.read(PAGE_VA + 8, 8) == struct.pack("<Q", 0x00CFBB00_0000FFFF)
    assert domain.frames.counts[mfn] == before


@pytest.mark.parametrize("engine", ["auto", "portable"])
def test_the_cpu_gets_the_same_answers(engine: str) -> None:
    """Many of them in a multicall, which C answers where it can."""
    random = Random(6)
    bits = [1 << 47, 1 << 44, 1 << 43, 1 << 42, 1 << 41, 1 << 40, 3 << 45, 1 << 53, 1 << 55, 0xF << 48, 0xFFFF]
    descriptors = [sum(random.choice((0, bit)) for bit in bits) for _ in range(120)]
    calls = TEXT + 0x2000
    code = (b"\xbb" + struct.pack("<I", calls) + b"\xb9" + struct.pack("<I", len(descriptors))
            + bytes.fromhex("b80d000000 cd82 b806000000 bb02000000 b900000000 cd82"))
    with xen_guest(code, engine=engine, pages=4) as backend:
        domain = backend.domain
        mfn = read_only(domain, PAGE_VA)
        assert set_gdt(domain, [mfn], 512) == 0
        entries = [struct.pack("<4IQ2I", UPDATE_DESCRIPTOR, 1, mfn * 4096 + 8 * at, 0, value, 0, 0)
                   for at, value in enumerate(descriptors)]
        domain.write(calls, b"".join(entries))
        with pytest.raises(GuestExit) as end:
            domain.machine.run()
        assert end.value.outcome.end.word == "poweroff"
        for at, value in enumerate(descriptors):
            expected = check(value, domain.hole.start)
            (result,) = struct.unpack("<i", domain.read(calls + 32 * at + 4, 4))
            (found,) = struct.unpack("<Q", domain.read(PAGE_VA + 8 * at, 8))
            assert (result, found) == ((EINVAL, 0) if expected is None else (0, expected)), hex(value)
