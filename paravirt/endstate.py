"""What a run of the reference kernel leaves behind that must not depend on how its ops are implemented.

Two witnesses: the end block that the kernel writes (processes, self-test results, address spaces), and the
framework's own walk of those address spaces in the CPU's page tables. They must agree. Frame numbers, times
and counters are left out, contents are hashed where the block says that they are comparable.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from paravirt.errors import printable
from paravirt.guest import END_BLOCK, END_MAGIC, END_VERSION, Guest
from paravirt.machine import paging

MAX_RESULTS, MAX_PROCESSES, MAX_SPACES, MAX_RANGES = 64, 32, 8, 16
RESULT, PROCESS = struct.Struct("<28sI"), struct.Struct("<III")
SPACE, RANGE = struct.Struct("<III"), struct.Struct("<4I")
READ, WRITE, EXECUTE, USER = 1, 2, 4, 8
COMPARABLE, MAYBE_READ_ONLY = 1, 2  # the second: single pages may be, page tables under a hypervisor for instance
KERNEL_START = 0xC0000000


class Disagreement(Exception):
    """The kernel's account of an address space is not what its page tables say."""


class Range(NamedTuple):
    """A range of an address space as the kernel tells it."""

    start: int
    end: int
    prot: int
    flags: int


def end_state(guest: Guest) -> dict[str, Any] | None:
    """The end state, with its digest; None for a kernel without an end block or one that did not get there.

    :raises Disagreement: block and page tables differ; the message says where.
    """
    block = _read_block(guest)
    if block is None:
        return None
    results, processes, spaces = block
    state: dict[str, Any] = {
        "selftest": {name: bool(passed) for name, passed in results},
        "processes": [{"pid": pid, "status": status, "exited": bool(exited)} for pid, status, exited in processes],
        "spaces": [{"pid": pid, "ranges": _walk(guest, pid, pgd, ranges)} for pid, pgd, ranges in spaces],
    }
    state["digest"] = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    return state


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def next(self, layout: struct.Struct) -> tuple[Any, ...]:
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values


_WORD = struct.Struct("<I")
_Space = tuple[int, int, list[Range]]


def _read_block(guest: Guest) -> tuple[list[tuple[str, int]], list[tuple[int, int, int]], list[_Space]] | None:
    note = guest.kernel.note
    if note is None:
        return None
    size = (END_BLOCK.size + 3 * _WORD.size + MAX_RESULTS * RESULT.size + MAX_PROCESSES * PROCESS.size
            + MAX_SPACES * (SPACE.size + MAX_RANGES * RANGE.size))
    reader = _Reader(guest.read_image(note.end_block, size))
    magic, version, _, _ = reader.next(END_BLOCK)
    if (magic, version) != (END_MAGIC, END_VERSION):
        return None
    results = _table(reader, MAX_RESULTS, "results",
                     lambda: _result(*reader.next(RESULT)))
    processes = _table(reader, MAX_PROCESSES, "processes", lambda: reader.next(PROCESS))
    spaces = _table(reader, MAX_SPACES, "address spaces", lambda: _space(reader))
    return results, processes, spaces


def _result(name: bytes, passed: int) -> tuple[str, int]:
    return printable(name.split(b"\0")[0]), passed


def _table(reader: _Reader, maximum: int, what: str, row: Callable[[], Any]) -> list[Any]:
    count, = reader.next(_WORD)
    if count > maximum:
        raise Disagreement(f"the end block has {count} {what}; there is room for {maximum}")
    return [row() for _ in range(maximum)][:count]


def _space(reader: _Reader) -> _Space:
    pid, pgd, count = reader.next(SPACE)
    ranges = [Range(*reader.next(RANGE)) for _ in range(MAX_RANGES)]
    if count > MAX_RANGES:
        raise Disagreement(f"address space of pid {pid}: {count} ranges; there is room for {MAX_RANGES}")
    return pid, pgd, ranges[:count]


def _walk(guest: Guest, pid: int, pgd: int, ranges: list[Range]) -> list[dict[str, Any]]:
    """Each range as the page tables have it; user space must hold nothing else."""
    machine = guest.machine
    now = machine.vcpu.tables()
    leaf = paging.lookup(machine.ram, now, pgd)
    if leaf is None:
        raise Disagreement(f"address space of pid {pid}: its page directory at {pgd:#x} is not mapped")
    tables = now._replace(cr3=leaf.physical)
    user = [each for each in ranges if each.start < KERNEL_START]
    _nothing_else(machine.ram, tables, pid, user)
    found = []
    for each in ranges:
        runs = paging.mappings(machine.ram, tables, each.start, each.end)
        _rights(pid, each, runs)
        row: dict[str, Any] = {"start": each.start, "end": each.end, "prot": each.prot}
        if each.start < KERNEL_START:
            row["pages"] = [(run.start, run.end) for run in runs]
        if each.flags & COMPARABLE:
            row["sha256"] = _contents(machine.ram, tables, runs)
        found.append(row)
    return found


def _nothing_else(ram: Any, tables: paging.Tables, pid: int, ranges: list[Range]) -> None:
    for run in paging.mappings(ram, tables, 0, KERNEL_START):
        if not any(each.start <= run.start and run.end <= each.end for each in ranges):
            covered = sum(max(0, min(run.end, each.end) - max(run.start, each.start)) for each in ranges)
            if covered != run.end - run.start:
                raise Disagreement(f"address space of pid {pid}: {run.start:#x}-{run.end:#x} is mapped, and the kernel "
                                   "does not list it")


def _rights(pid: int, each: Range, runs: list[paging.Mapping]) -> None:
    """The range is mapped without a hole, with the rights that the kernel tells."""
    where = f"address space of pid {pid}: the kernel lists {each.start:#x}-{each.end:#x}"
    if sum(run.end - run.start for run in runs) != each.end - each.start:
        raise Disagreement(f"{where}, and not all of it is mapped")
    for run in runs:
        at = f"{where}, and {run.start:#x}-{run.end:#x}"
        if run.user != bool(each.prot & USER):
            raise Disagreement(f"{at} is mapped {'for' if run.user else 'without'} user access")
        if run.executable != bool(each.prot & EXECUTE):
            raise Disagreement(f"{at} is {'' if run.executable else 'not '}executable")
        may_be_read_only = each.flags & MAYBE_READ_ONLY and not run.writable
        if run.writable != bool(each.prot & WRITE) and not may_be_read_only:
            raise Disagreement(f"{at} is {'' if run.writable else 'not '}writable")


def _contents(ram: Any, tables: paging.Tables, runs: list[paging.Mapping]) -> str:
    digest = hashlib.sha256()
    for run in runs:
        for va in range(run.start, run.end, 4096):
            leaf = paging.lookup(ram, tables, va)
            assert leaf is not None
            digest.update(va.to_bytes(4, "little") + ram.read(leaf.physical, 4096))
    return digest.hexdigest()
