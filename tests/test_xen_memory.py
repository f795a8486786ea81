"""memory_op and grant_table_op.

What must hold: a domain gets back what it has given away, up to its limit, and never a frame that anything refers
to; frames that it may still reach stay its own until the last reference goes; extents that are wrong end the list
without an error; an exchange is done as a whole or not at all. The grant table exists, is the guest's to map, and
whatever would need another domain is answered as if that domain had nothing.

Ref: Xen common/memory.c, common/grant_table.c.
"""

from __future__ import annotations

import struct

import pytest

from paravirt_xen.platform.entries import modify_l1
from paravirt_xen.platform.errors import EACCES, EFAULT, EINVAL, ENOMEM, ENOSYS, EPERM, ESRCH, HypercallError, Preempted
from paravirt_xen.platform.grants import MAX_FRAMES, grant_table_op
from paravirt_xen.platform.memory import memory_op
from paravirt_xen.platform.mmu import update_va_mapping
from tests.xenmemory import BASE_VA, FRAMES, RW_FLAGS, FakeDomain

SELF, ITSELF = 0x7FF0, 1
INCREASE, DECREASE, POPULATE, EXCHANGE = 0, 1, 6, 11
ARGUMENT, LIST = BASE_VA + 0x40000, BASE_VA + 0x41000
UNMAPPED = 0xB0000000


@pytest.fixture
def domain() -> FakeDomain:
    return FakeDomain()


def call(domain: FakeDomain, command: int, *words: int, at: int = ARGUMENT) -> int:
    """memory_op with a struct of words; goes on as long as it is interrupted."""
    domain.write(at, struct.pack(f"<{len(words)}I", *words))
    while True:
        try:
            return memory_op(domain, command, at)
        except HypercallError as error:
            return -error.errno
        except Preempted as preempted:
            command, at = preempted.arguments


def put_list(domain: FakeDomain, *words: int) -> None:
    domain.write(LIST, struct.pack(f"<{len(words)}I", *words))


def get_list(domain: FakeDomain, count: int) -> list[int]:
    return list(struct.unpack(f"<{count}I", domain.read(LIST, 4 * count)))


def unmap(domain: FakeDomain, *pfns: int) -> list[int]:
    for pfn in pfns:
        assert modify_l1(domain.frames, int((domain.base.l1s[pfn >> 9] << 9) + (pfn & 511)), 0) == 0
    return [int(domain.p2m[pfn]) for pfn in pfns]


def test_memory_goes_and_comes_back(domain: FakeDomain) -> None:
    limit = domain.nr_pages
    assert call(domain, 3, SELF) == call(domain, 4, ITSELF) == limit
    assert call(domain, POPULATE, LIST, 1, 0, 0, SELF) == 0, "it has all it may have"
    given = unmap(domain, 100, 101)
    mapped = domain.p2m[102]
    put_list(domain, *given, mapped)
    assert call(domain, DECREASE, LIST, 3, 0, 0, SELF) == 3
    assert call(domain, 3, SELF) == limit - 2, "the third is still mapped"
    unmap(domain, 102)
    assert call(domain, 3, SELF) == limit - 3
    assert update_va_mapping(domain, BASE_VA + 0x1000 * 100, given[0] << 12 | RW_FLAGS, 0) < 0
    put_list(domain, 0x111, 0x222, 0x333)
    assert call(domain, POPULATE, LIST, 3, 0, 0, SELF) == 3
    new = get_list(domain, 3)
    assert len(set(new)) == 3 and all(domain.frames.owned(mfn) for mfn in new)
    assert [domain.ram.words[(0x200000 >> 2) + mfn] for mfn in new] == [0x111, 0x222, 0x333]
    assert update_va_mapping(domain, BASE_VA + 0x1000 * 100, new[0] << 12 | RW_FLAGS, 0) == 0
    assert call(domain, 3, SELF) == limit


def test_a_long_list_is_done_in_parts(domain: FakeDomain) -> None:
    given = unmap(domain, *range(0x80, 0x80 + 600))
    for start in range(0, 600, 500):
        put_list(domain, *given[start : start + 500])
        assert call(domain, DECREASE, LIST, len(given[start : start + 500]), 0, 0, SELF) in (500, 100)
    assert call(domain, 3, SELF) == domain.nr_pages - 600
    domain.write(ARGUMENT, struct.pack("<5I", 0, 600, 0, 0, SELF))
    with pytest.raises(Preempted) as caught:
        memory_op(domain, INCREASE, ARGUMENT)
    assert caught.value.arguments == (INCREASE | 512 << 6, ARGUMENT)
    assert memory_op(domain, *caught.value.arguments) == 600


BAD_RESERVATIONS = {
    "order": (LIST, 1, 10, 0, SELF),
    "another domain": (LIST, 1, 0, 0, 7),
    "domain 0": (LIST, 1, 0, 0, 0),
    "too many": (LIST, 1 << 26, 0, 0, SELF),
    "address bits": (LIST, 1, 0, 12, SELF),
    "not mapped": (UNMAPPED, 1, 0, 0, SELF),
}


@pytest.mark.parametrize("command", [DECREASE, POPULATE])
@pytest.mark.parametrize("words", BAD_RESERVATIONS.values(), ids=BAD_RESERVATIONS)
def test_wrong_reservations_do_nothing(domain: FakeDomain, command: int, words: tuple[int, ...]) -> None:
    put_list(domain, *unmap(domain, 100))
    assert call(domain, command, *words) == 0
    assert call(domain, 3, SELF) == domain.nr_pages


def test_frames_that_are_not_the_domains(domain: FakeDomain) -> None:
    for mfn in (domain.shared_mfn, 0x300, FRAMES, 0xFFFFFFFF):
        put_list(domain, mfn)
        assert call(domain, DECREASE, LIST, 1, 0, 0, SELF) == 0


def test_exchange(domain: FakeDomain) -> None:
    given = unmap(domain, *range(0x80, 0x84))
    put_list(domain, *given, 0x999)
    assert call(domain, EXCHANGE, LIST, 4, 0, 0, SELF, LIST + 16, 1, 2, 0, SELF, 0) == -ENOMEM
    spare = unmap(domain, *(pfn for pfn, mfn in enumerate(domain.p2m) if 0x604 <= mfn < 0x608))
    for mfn in spare:
        domain.frames.release(mfn)
    assert call(domain, EXCHANGE, LIST, 4, 0, 0, SELF, LIST + 16, 1, 2, 0, SELF, 0) == 0
    first = get_list(domain, 5)[4]
    assert first == 0x604 and all(domain.frames.owned(first + n) for n in range(4))
    assert not any(domain.frames.owned(mfn) for mfn in given)
    assert struct.unpack("<11I", domain.read(ARGUMENT, 44))[10] == 4
    assert domain.ram.words[(0x200000 >> 2) + first + 3] == 0x999 + 3
    assert domain.pool.pages == domain.nr_pages - 4


@pytest.mark.parametrize("words, errno", [
    ((LIST, 1, 0, 0, SELF, LIST, 2, 0, 0, SELF, 0), EINVAL),
    ((LIST, 1, 32, 0, SELF, LIST, 1, 32, 0, SELF, 0), EPERM),
    ((LIST, 1, 10, 0, SELF, LIST, 1, 10, 0, SELF, 0), EPERM),
    ((LIST, 1, 0, 0, SELF, LIST, 1, 0, 0, 5, 0), EINVAL),
    ((LIST, 1, 0, 0, 5, LIST, 1, 0, 0, 5, 0), ESRCH),
    ((LIST, 1, 0, 0, SELF, LIST, 1, 0, 0, SELF, 2), EINVAL),
    ((LIST, 0xFFFFFFFF, 4, 0, SELF, LIST, 0xFFFFFFFF, 4, 0, SELF, 0), EINVAL),
    ((UNMAPPED, 1, 0, 0, SELF, LIST, 1, 0, 0, SELF, 0), EFAULT),
])  # fmt: skip
def test_refused_exchanges(domain: FakeDomain, words: tuple[int, ...], errno: int) -> None:
    put_list(domain, domain.p2m[0x80])
    assert call(domain, EXCHANGE, *words) == -errno
    assert call(domain, EXCHANGE, LIST, 1, 0, 0, SELF, LIST, 1, 0, 0, SELF, 0) == -EINVAL, "it is mapped"


def test_where_tables_are(domain: FakeDomain) -> None:
    assert call(domain, 12) == 0
    assert struct.unpack("<3I", domain.read(ARGUMENT, 12)) == (0xF5800000, 0xF5A00000, FRAMES - 1)
    assert call(domain, 5, 9, LIST, 0) == 0
    assert get_list(domain, 1) == [0x200] and struct.unpack("<3I", domain.read(ARGUMENT, 12))[2] == 1
    assert call(domain, 9, 5, LIST) == 0
    assert struct.unpack("<QQI", domain.read(LIST, 20)) == (0, domain.nr_pages << 12, 1)
    assert domain.read_u32(ARGUMENT) == 1
    assert call(domain, 2) == FRAMES


@pytest.mark.parametrize("command, words, errno", [
    (7, (SELF, 0, 0, 0), EACCES), (7, (5, 0, 0, 0), ESRCH), (10, (), EPERM), (15, (SELF, 0), EACCES),
    (3, (0,), EPERM), (3, (9,), ESRCH), (3 | 1 << 6, (SELF,), EINVAL), (8, (), ENOSYS), (63, (), ENOSYS),
    (13, (SELF, 1025, LIST), EINVAL), (16, (0,) * 8 + (SELF,), EINVAL),
])  # fmt: skip
def test_other_commands(domain: FakeDomain, command: int, words: tuple[int, ...], errno: int) -> None:
    assert call(domain, command, *words) == -errno


# ---------------------------------------------------------------------- grants


def grant(domain: FakeDomain, command: int, data: bytes, count: int = 1) -> int:
    domain.write(ARGUMENT, data)
    try:
        return grant_table_op(domain, command, ARGUMENT, count)
    except HypercallError as error:
        return -error.errno


def status(domain: FakeDomain, at: int) -> int:
    return int.from_bytes(domain.read(ARGUMENT + at, 2), "little", signed=True)


def test_the_table_is_set_up_and_mapped(domain: FakeDomain) -> None:
    assert grant(domain, 2, struct.pack("<HxxIhxxI", SELF, 4, 0, LIST)) == 0 and status(domain, 8) == 0
    frames = get_list(domain, 4)
    assert frames == domain.grants.frames and len(set(frames)) == 4
    console, store = struct.unpack("<HHIHHI", domain.ram.read(frames[0] << 12, 16))[2::3]
    assert (console, store) == (domain.console_mfn, domain.store_mfn)
    assert update_va_mapping(domain, BASE_VA + 0x100000, frames[0] << 12 | RW_FLAGS, 0) == 0
    assert grant(domain, 6, struct.pack("<HxxIIhxx", SELF, 0, 0, 9)) == 0
    assert struct.unpack("<HxxIIh", domain.read(ARGUMENT, 14)) == (SELF, 4, MAX_FRAMES, 0)
    assert grant(domain, 2, struct.pack("<HxxIhxxI", SELF, MAX_FRAMES + 1, 0, LIST)) == 0 and status(domain, 8) == -1
    assert grant(domain, 2, struct.pack("<HxxIhxxI", 9, 1, 0, LIST)) == 0 and status(domain, 8) == -2
    assert grant(domain, 2, struct.pack("<HxxIhxxI", 0, 1, 0, LIST)) == 0 and status(domain, 8) == -8
    assert grant(domain, 2, struct.pack("<HxxIhxxI", SELF, 1, 0, UNMAPPED)) == 0 and status(domain, 8) == -5
    assert grant(domain, 2, bytes(16), 2) == -EINVAL


def test_versions(domain: FakeDomain) -> None:
    assert grant(domain, 8, struct.pack("<I", 1)) == 0
    assert grant(domain, 8, struct.pack("<I", 2)) == -ENOSYS and domain.read_u32(ARGUMENT) == 1
    assert grant(domain, 8, struct.pack("<I", 3)) == -EINVAL
    assert grant(domain, 10, struct.pack("<II", SELF, 7)) == 0 and domain.read_u32(ARGUMENT + 4) == 1
    assert grant(domain, 10, struct.pack("<II", 6, 7)) == -ESRCH


def test_what_needs_another_domain(domain: FakeDomain) -> None:
    for command, data, at, answer in [
        (0, struct.pack("<QIIHxxIQ", 0, 0, 5, 0, 0, 0), 18, -3),
        (0, struct.pack("<QIIHxxIQ", 0, 2, 5, 0, 0, 0), 18, -1),
        (0, struct.pack("<QIIHxxIQ", 0, 2, 1 << 20, 0, 0, 0), 18, -3),
        (0, struct.pack("<QIIHxxIQ", 0, 2, 5, 9, 0, 0), 18, -2),
        (1, bytes(24), 20, -4),
        (7, bytes(24), 20, -4),
        (4, struct.pack("<IHxxIhxx", FRAMES, 0, 0, 0), 12, -9),
        (4, struct.pack("<IHxxIhxx", domain.p2m[80], 0, 0, 0), 12, -1),
        (5, struct.pack("<IHHIHHHHhxx", 0, 0, 0, domain.p2m[81], SELF, 0, 16, 1, 0), 20, -1),
        (5, struct.pack("<IHHIHHHHhxx", domain.p2m[80], 1, 0, domain.p2m[81], SELF, 0, 16, 0, 0), 20, -8),
        (5, struct.pack("<IHHIHHHHhxx", domain.p2m[80], SELF, 4090, domain.p2m[81], SELF, 0, 16, 0, 0), 20, -10),
        (5, struct.pack("<IHHIHHHHhxx", domain.p2m[80], SELF, 0, domain.base.l3, SELF, 0, 16, 0, 0), 20, -1),
        (5, struct.pack("<IHHIHHHHhxx", domain.p2m[80], SELF, 0, domain.p2m[81], SELF, 0, 16, 0, 0), 20, 0),
        (11, struct.pack("<IIhxx", 9, 10, 1), 8, 0),
        (11, struct.pack("<IIhxx", 9, 512, 1), 8, -3),
    ]:
        assert grant(domain, command, data) == 0
        assert status(domain, at) == answer, (command, answer)
    assert grant(domain, 3, bytes(8)) == -ENOSYS and grant(domain, 0, b"", 0x80000000) == -EINVAL
    assert grant(domain, 1 << 16, b"") == -EINVAL
