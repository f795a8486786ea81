"""The host's walk of the guest's page tables.

Ref: Intel SDM vol. 3A, chapter 4 (32-bit and PAE paging, access rights, accessed and dirty flags).
Host functions that take a guest pointer see what an instruction of the guest would see: the same
rights, the same accessed and dirty bits, and `GuestFault` with the error code and CR2 that the CPU
would have given.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from paravirt.errors import GuestFault
from paravirt.machine.ram import Ram

CR0_WP, CR0_PG = 1 << 16, 1 << 31
CR4_PSE, CR4_PAE = 1 << 4, 1 << 5
PRESENT, WRITE, USER, ACCESSED, DIRTY, LARGE = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63
PF_PRESENT, PF_WRITE, PF_USER = 1, 2, 4
PAGE_FAULT = 14
PAGE_BYTES = 4096
PAE_SHIFTS: tuple[int, ...] = (30, 21, 12)
SHIFTS: tuple[int, ...] = (22, 12)
_FRAME = 0x0000_000F_FFFF_F000  # 36-bit physical addresses


class Leaf(NamedTuple):
    """One mapping: physical address of the byte asked for, rights over all levels, span in bytes."""

    physical: int
    writable: bool
    user: bool
    executable: bool
    span: int


class Tables(NamedTuple):
    """Where a walk starts: control registers as the CPU has them."""

    cr0: int
    cr3: int
    cr4: int


def _entries(ram: Ram, tables: Tables, va: int) -> list[tuple[int, int, int]]:
    """The entries that a walk for `va` reads, top down: (address, value, bytes of an entry).

    Ends with the first one that is not present or maps a page.
    """
    found: list[tuple[int, int, int]] = []
    if tables.cr4 & CR4_PAE:
        shifts, base, width, mask = PAE_SHIFTS, tables.cr3 & 0xFFFFFFE0, 8, 511
    else:
        shifts, base, width, mask = SHIFTS, tables.cr3 & 0xFFFFF000, 4, 1023
    for shift in shifts:
        index = va >> shift & (3 if shift == 30 else mask)
        address = base + width * index
        if not ram.contains(address, width):
            break
        value = ram.quads[address >> 3] if width == 8 else ram.words[address >> 2]
        found.append((address, value, width))
        if not value & PRESENT:
            break
        large = value & LARGE and shift == (21 if width == 8 else 22)
        if large and (width == 8 or tables.cr4 & CR4_PSE):
            break
        base = value & (_FRAME if width == 8 else 0xFFFFF000)
    return found


def lookup(ram: Ram, tables: Tables, va: int) -> Leaf | None:
    """The mapping of `va`, or None. Touches neither accessed nor dirty bits."""
    va &= 0xFFFFFFFF
    if not tables.cr0 & CR0_PG:
        return Leaf(va, True, True, True, 1 << 12)
    path = _entries(ram, tables, va)
    if not path or not path[-1][1] & PRESENT:
        return None
    pae = bool(tables.cr4 & CR4_PAE)
    rights = path[1:] if pae else path  # a PDPTE carries no rights
    leaf = path[-1][1]
    depth = len(path) if pae else len(path) + 1
    if depth == 3:
        frame, span = leaf & (_FRAME if pae else 0xFFFFF000), 1 << 12
    elif depth == 2 and rights and leaf & LARGE:
        span = 1 << 21 if pae else 1 << 22
        frame = leaf & _FRAME & ~(span - 1) if pae else leaf & 0xFFC00000
    else:
        return None
    return Leaf(
        frame | va & (span - 1),
        all(value & WRITE for _, value, _ in rights),
        all(value & USER for _, value, _ in rights),
        not any(value & NX for _, value, _ in rights),
        span,
    )


def translate(ram: Ram, tables: Tables, va: int, *, write: bool = False, user: bool = False) -> int:
    """Physical address of `va` for an access of the given kind; sets accessed and dirty bits.

    :param user: check as for CPL 3; else as a supervisor, who may read everything and, with CR0.WP
        clear, write everything.
    :raises GuestFault: vector 14 with the architectural error code and CR2.
    """
    va &= 0xFFFFFFFF
    cr0, cr3, cr4 = tables
    if not cr0 & CR0_PG:
        return va
    if not user:
        physical = used_before(ram, cr0, cr3, cr4, va, write)
        if physical is not None:
            return physical
    leaf = lookup(ram, tables, va)
    error = (PF_WRITE if write else 0) | (PF_USER if user else 0)
    if leaf is None:
        raise GuestFault(PAGE_FAULT, error, va)
    protected = bool(user or tables.cr0 & CR0_WP)
    if (user and not leaf.user) or (write and protected and not leaf.writable):
        raise GuestFault(PAGE_FAULT, error | PF_PRESENT, va)
    path = _entries(ram, tables, va)
    last = len(path) - 1
    for level, (address, value, width) in enumerate(path):
        if width == 8 and level == 0:
            continue  # PDPTEs have no accessed bit
        wanted = value | ACCESSED | (DIRTY if write and level == last else 0)
        if wanted != value:
            (ram.write_u64 if width == 8 else ram.write_u32)(address, wanted)
    return leaf.physical


def used_before(ram: Ram, cr0: int, cr3: int, cr4: int, va: int, write: bool) -> int | None:
    """Physical address of `va` with PAE tables, for a supervisor's access that is allowed and that the CPU has made
    before: accessed and dirty bits are set. None: it is to be looked at closely. (The hot path of host functions.)"""
    if not (cr0 & CR0_PG and cr4 & CR4_PAE):
        return None
    quads = ram.quads
    try:
        pdpte = quads[(cr3 & 0xFFFFFFE0) + (va >> 27 & 0x18) >> 3]
        pde = quads[(pdpte & _FRAME) + (va >> 18 & 0xFF8) >> 3]
        pte = pde if pde & LARGE else quads[(pde & _FRAME) + (va >> 9 & 0xFF8) >> 3]
    except IndexError:
        return None
    rights = pde & pte
    if not pdpte & PRESENT or rights & (PRESENT | ACCESSED) != PRESENT | ACCESSED:
        return None
    if write and (not pte & DIRTY or (cr0 & CR0_WP and not rights & WRITE)):
        return None
    if pde & LARGE:
        return pde & _FRAME & ~0x1FFFFF | va & 0x1FFFFF
    return pte & _FRAME | va & 0xFFF


class Mapping(NamedTuple):
    """A run of mapped pages with equal rights: [start, end) of virtual addresses."""

    start: int
    end: int
    writable: bool
    user: bool
    executable: bool


def mappings(ram: Ram, tables: Tables, start: int, end: int) -> list[Mapping]:
    """All of [start, end) that is mapped, adjacent pages of equal rights merged, in order."""
    runs: list[Mapping] = []
    for run in _runs(ram, tables, start, end):
        if runs and runs[-1].end == run.start and runs[-1][2:] == run[2:]:
            runs[-1] = runs[-1]._replace(end=run.end)
        else:
            runs.append(run)
    return runs


def _runs(ram: Ram, tables: Tables, start: int, end: int) -> Iterator[Mapping]:
    """Mapped ranges in order. A page table is read at once: most of an address space lies in full ones."""
    width, count = (8, 512) if tables.cr4 & CR4_PAE else (4, 1024)
    levels = len(PAE_SHIFTS if width == 8 else SHIFTS)
    words = ram.quads if width == 8 else ram.words
    va = start
    while va < end:
        leaf = lookup(ram, tables, va)
        if leaf is None:
            va += _hole(ram, tables, va)
            continue
        path = _entries(ram, tables, va) if tables.cr0 & CR0_PG else []
        if len(path) < levels:
            stop = min(end, (va | (leaf.span - 1)) + 1)
            yield Mapping(va, stop, leaf.writable, leaf.user, leaf.executable)
            va = stop
            continue
        above = [value for _, value, _ in path[1 if width == 8 else 0 : -1]]  # a PDPTE carries no rights
        masks = [PRESENT | WRITE | USER, *above]
        allowed, never = functools.reduce(int.__and__, masks), NX & functools.reduce(int.__or__, above, 0)
        first = va >> 12 & count - 1
        table = path[-1][0] // width - first
        for index in range(first, min(count, first + (end - va + 4095 >> 12))):
            value = words[table + index]
            if value & PRESENT:
                rights = value & allowed
                yield Mapping(va, min(end, (va | 4095) + 1), bool(rights & WRITE), bool(rights & USER),
                              not (value | never) & NX)
            va = (va | 4095) + 1


def _hole(ram: Ram, tables: Tables, va: int) -> int:
    """Bytes from `va` to the end of the table entry that is not present."""
    path = _entries(ram, tables, va)
    shifts = PAE_SHIFTS if tables.cr4 & CR4_PAE else SHIFTS
    shift = shifts[max(0, len(path) - 1)]
    return (va | ((1 << shift) - 1)) + 1 - va
