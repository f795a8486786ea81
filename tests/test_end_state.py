"""The end state has two witnesses, the kernel's end block and its page tables; where they differ, the run fails.

One of them alone would be believed: so each kind of disagreement is made, by changing memory behind the
kernel's back just before the end state is read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.endstate import Disagreement, end_state
from paravirt.guest import END_BLOCK, Guest
from paravirt.image.elf import ElfImage
from paravirt.options import BootOptions

NX, PRESENT, WRITE, USER = 1 << 63, 1, 2, 4
RESULTS = 64 * 32 + 4
PROCESSES = 32 * 12 + 4
SPACES = END_BLOCK.size + RESULTS + PROCESSES


@contextmanager
def at_power_off(check: Callable[[Guest], None]) -> Iterator[None]:
    """Run `check` on the guest as the reference kernel left it."""
    boot(None, BootOptions(append="noselftest", memory=32 << 20), Console(), on_end=lambda guest, record: check(guest))
    yield


def block(guest: Guest) -> int:
    note, image = guest.kernel.note, guest.kernel.image
    assert note is not None and isinstance(image, ElfImage)
    return image.physical(note.end_block) or 0


def first_range(guest: Guest) -> tuple[int, int, int, int, int, int]:
    """(address of the row, pgd, start, end, prot, flags) of the first range of the first space."""
    at = block(guest) + SPACES + 4
    _, pgd, count = struct.unpack("<III", guest.machine.ram.read(at, 12))
    assert count
    return (at + 12, pgd, *struct.unpack("<4I", guest.machine.ram.read(at + 12, 16)))


def entry(guest: Guest, pgd: int, va: int) -> int:
    """Physical address of the page-table entry for `va` in the space of `pgd` (PAE)."""
    ram = guest.machine.ram
    table = pgd - 0xC0000000
    pmd = ram.quads[(table + 8 * (va >> 30)) >> 3] & 0xFFFFFF000
    pt = ram.quads[(pmd + 8 * (va >> 21 & 511)) >> 3] & 0xFFFFFF000
    return int(pt + 8 * (va >> 12 & 511))


def expect(message: str, change: Callable[[Guest], None]) -> None:
    def check(guest: Guest) -> None:
        assert end_state(guest) is not None
        change(guest)
        with pytest.raises(Disagreement, match=message):
            end_state(guest)

    with at_power_off(check):
        pass


def change_entry(bits: int) -> Callable[[Guest], None]:
    def change(guest: Guest) -> None:
        _, pgd, start, *_ = first_range(guest)
        at = entry(guest, pgd, start)
        guest.machine.ram.write_u64(at, guest.machine.ram.quads[at >> 3] ^ bits)

    return change


def test_read_only_text_that_is_writable() -> None:
    expect("is writable", change_entry(WRITE))


def test_text_that_is_not_executable() -> None:
    expect("is not executable", change_entry(NX))


def test_user_memory_that_the_user_cannot_reach() -> None:
    expect("without user access", change_entry(USER))


def test_a_page_that_is_gone() -> None:
    expect("not all of it is mapped", change_entry(PRESENT))


def test_memory_that_the_kernel_does_not_list() -> None:
    def hide(guest: Guest) -> None:
        row, _, start, end, _, _ = first_range(guest)
        guest.machine.ram.write_u32(row + 4, start + 4096 if end > start + 4096 else start)

    expect("does not list it", hide)


@pytest.mark.parametrize(("offset", "what"), [(END_BLOCK.size, "results"), (END_BLOCK.size + RESULTS, "processes"),
                                              (SPACES, "address spaces")])
def test_counts_out_of_bounds(offset: int, what: str) -> None:
    expect(f"has 4294967295 {what}", lambda guest: guest.machine.ram.write_u32(block(guest) + offset, 0xFFFFFFFF))


def test_a_page_directory_that_is_nowhere() -> None:
    def lose(guest: Guest) -> None:
        row, *_ = first_range(guest)
        guest.machine.ram.write_u32(row - 8, 0xF0000000)

    expect("is not mapped", lose)


def test_contents_count() -> None:
    def check(guest: Guest) -> None:
        before = end_state(guest)
        _, pgd, start, *_ = first_range(guest)
        ram = guest.machine.ram
        frame = ram.quads[entry(guest, pgd, start) >> 3] & 0xFFFFFF000
        ram.write(frame + 100, bytes([ram.bytes[frame + 100] ^ 1]))
        after = end_state(guest)
        assert before is not None and after is not None
        assert before["digest"] != after["digest"]

    with at_power_off(check):
        pass


def test_a_block_that_was_never_written() -> None:
    def check(guest: Guest) -> None:
        guest.machine.ram.write_u32(block(guest), 0)
        assert end_state(guest) is None

    with at_power_off(check):
        pass
