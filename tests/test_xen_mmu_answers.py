"""What each MMU call of a kernel's boot answers when one thing about it is wrong.

At each call of the boot, hypercall or store to a page table, all that can be wrong with it is tried in its place:
another frame, a frame of another type, flags, place, owner, command. What must hold: the answers are those of the
literal table, nothing changes, and the kernel, whose own calls are made behind them, boots exactly as one that is left
alone. So no state that a boot passes through lets a wrong call by.

The reference kernel always does it; Linux 2.6.32 and 3.14, which cannot be fetched, where $PARAVIRT_GUESTS has them.
What none of them does stands in a script.

Ref: tests/xenwrong.py (the table), tests/xentrial.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.guest import Guest
from paravirt.options import BootOptions
from paravirt.record import Record
from paravirt_xen.platform import hypercalls, ptwrite
from paravirt_xen.platform.abi import MMU_UPDATE, MMUEXT_OP
from paravirt_xen.platform.domain import Domain
from tests.realguests import guest_file
from tests.xenaudit import audit
from tests.xendomain import BASE, TEXT, xen_guest
from tests.xentrial import NUMBERS, OPERATIONS, Trial
from tests.xenwrong import ANSWERS, SELF, top_table

MEMORY = 16 << 20
LINUX = "console=hvc0 earlyprintk=xen gexit=poweroff gtest="
REQUEST = BASE + 0x40000
MAPPED = TEXT + 0x1000  # a page that the script maps anew

EVERYWHERE = """mmu_update: L2 entry|mmu_update: memory|update_va_mapping|mmuext_op: PIN_L3_TABLE|mmuext_op: UNPIN_TABLE
mmuext_op: NEW_BASEPTR|mmuext_op: TLB_FLUSH_LOCAL|mmuext_op: INVLPG_LOCAL|mmuext_op: SET_LDT|store of 4 bytes
store of 4 bytes, cleared|store of the upper 4 bytes|store of the upper 4 bytes, cleared"""
REFERENCE = """mmu_update: L3 entry, cleared|update_va_mapping, cleared|store of 4 bytes, locked, cleared
store of 8 bytes, locked"""
LINUX_SHAPES = """mmu_update: L1 entry, A and D kept|mmu_update: L1 entry, cleared, A and D kept
mmu_update: L2 entry, cleared|mmuext_op: PIN_L1_TABLE|store of 1 byte"""
LINUX_2_6_32 = "mmu_update: L3 entry"
LINUX_3_14 = "mmu_update: L1 entry|store of 4 bytes, locked, cleared|store of 8 bytes, locked"


def shapes(*texts: str) -> set[str]:
    return {shape for text in texts for line in text.splitlines() for shape in line.split("|")}


def boot_twice(monkeypatch: pytest.MonkeyPatch, trial: Trial, kernel: Path | None = None, **options: Any) -> Record:
    """Boot a kernel left alone, and one that is tried; they are the same. All in Python, where stores are seen."""
    settings = BootOptions(backend="xen", no_accel=("platform",), timeout=300, **options)
    outputs: list[bytes] = []
    records: list[Record] = []

    def at_the_end(guest: Guest, record: Record) -> None:
        if records:
            audit(trial.domain)

    for _ in range(2):
        output = bytearray()
        records.append(boot(kernel, settings, Console(output.extend), on_end=at_the_end))
        outputs.append(bytes(output))
        monkeypatch.setattr(hypercalls, "Dispatcher", trial.dispatcher)
        monkeypatch.setattr(ptwrite, "Target", trial.target)
    plain, tried = records
    assert not trial.problems, trial.problems[:5]
    assert tried.outcome.kind == "poweroff", tried.outcome.reason
    assert outputs[0] == outputs[1]
    assert (plain.instructions, plain.virtual_ns, plain.state_hash) == (
        tried.instructions, tried.virtual_ns, tried.state_hash)
    assert set(trial.tried) == {(shape, name) for shape in trial.seen for name in ANSWERS[shape]}
    return tried


@pytest.mark.parametrize("options", [{}, {"multicall": "off"}], ids=["batches", "multicall=off"])
def test_the_reference_kernel(monkeypatch: pytest.MonkeyPatch, options: dict[str, str]) -> None:
    trial = Trial()
    boot_twice(monkeypatch, trial, memory=MEMORY, options=options)
    assert set(trial.seen) == shapes(EVERYWHERE, REFERENCE)


def test_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, initrd = guest_file("kernels/up/vmlinux"), guest_file("initrd-run.gz").read_bytes()
    trial = Trial(every=64)  # a minute and more if each of its 180000 stores is tried
    boot_twice(monkeypatch, trial, kernel, append=LINUX + "core", initrd=initrd)
    assert set(trial.seen) == shapes(EVERYWHERE, LINUX_SHAPES, LINUX_2_6_32)


def test_a_later_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, initrd = guest_file("kernels/3.14/vmlinux"), guest_file("initrd-run.gz").read_bytes()
    trial = Trial(every=64)
    boot_twice(monkeypatch, trial, kernel, append=LINUX + "none", initrd=initrd)
    assert shapes(EVERYWHERE, LINUX_3_14) <= set(trial.seen) <= shapes(EVERYWHERE, LINUX_SHAPES, LINUX_3_14)


# ---------------------------------------------------------------------- what none of them does


class Script:
    """A domain that a test makes calls for, in the place of its kernel.

    :ivar tables: frames of two L1 tables, an L2, an L3, the L2 of the top gigabyte; nothing maps them.
    :ivar data: frames of two pages, which nothing maps either.
    """

    def __init__(self, domain: Domain, trial: Trial) -> None:
        self.domain, self.trial = domain, trial
        self.tables, self.data = domain.p2m[-16:-11].tolist(), domain.p2m[-10:-8].tolist()
        l1, second_l1, l2, l3, top = self.tables
        self.poke(l1, 5, self.data[1] << 12 | 0x61)
        self.poke(l2, 0, second_l1 << 12 | 0x67)
        self.poke(l3, 3, top << 12 | 1)
        old_top = top_table(domain) << 9
        for slot in range(domain.hole.first_slot):
            self.poke(top, slot, domain.ram.quads[old_top + slot])

    def poke(self, mfn: int, slot: int, value: int) -> None:
        """Write to a frame that is no table yet."""
        self.domain.ram.write_u64(mfn << 12 | slot << 3, value)

    def call(self, name: str, *words: int) -> None:
        assert not self.domain.dispatcher.call(NUMBERS[name], [*words, 0, 0, 0, 0][:5]), (name, words)

    def update(self, place: int, value: int, command: int = 0) -> None:
        self.domain.write(REQUEST, MMU_UPDATE.pack(place | command, value))
        self.call("mmu_update", REQUEST, 1, 0, SELF)

    def operation(self, name: str, first: int = 0, second: int = 0) -> None:
        self.domain.write(REQUEST, MMUEXT_OP.pack(OPERATIONS.index(name), first, second))
        self.call("mmuext_op", REQUEST, 1, 0, SELF)

    def store(self, mfn: int, offset: int, size: int, value: int, *, exchange: bool = False) -> None:
        self.trial.target(self.domain.frames, mfn, offset, size).write(value, exchange=exchange)


def entries(script: Script) -> None:
    """Tables are pinned, hung into the running ones, changed, and taken out again."""
    l1, _, l2, _, _ = script.tables
    first, second = (frame << 12 for frame in script.data)
    high, free, running = top_table(script.domain) << 12 | 8 * 300, l1 << 12 | 24, script.domain.l3_mfn << 12
    script.operation("PIN_L1_TABLE", l1)
    script.update(high, l1 << 12 | 0x67)
    script.update(free, first | 0x63)
    script.update(free, first | 0x25, 2)
    script.update(free, 0, 2)
    script.store(l1, 24, 8, second | 0x67, exchange=True)
    script.store(l1, 24, 1, 0x65)
    script.store(l1, 28, 4, 1 << 31)
    script.store(l1, 24, 4, first | 0x67, exchange=True)
    script.store(l1, 24, 4, 0, exchange=True)
    script.store(l1, 24, 8, 0, exchange=True)
    script.store(l1, 28, 4, 0)
    script.store(l1, 24, 4, first | 0x67)
    script.store(l1, 24, 4, 0)
    script.update(free, second | 0x63)
    script.update(free, 0)
    script.update(high, 0)
    script.operation("UNPIN_TABLE", l1)
    script.operation("PIN_L2_TABLE", l2)
    script.update(running, l2 << 12 | 1)
    script.update(running, 0)
    script.operation("UNPIN_TABLE", l2)


def spaces(script: Script) -> None:
    """The CPU runs on other tables, and on the first ones again."""
    old, l3 = script.domain.l3_mfn, script.tables[3]
    script.operation("PIN_L3_TABLE", l3)
    script.operation("NEW_BASEPTR", l3)
    script.operation("NEW_BASEPTR", old)
    script.operation("UNPIN_TABLE", l3)


def the_rest(script: Script) -> None:
    """Mappings by virtual address, pages, the machine-to-phys table, and the TLB."""
    first, second = script.data
    script.update(first << 12, 0x1234)
    script.update(second << 12, 0x77, 1)
    for value in (0, first << 12 | 0x63):
        script.call("update_va_mapping", MAPPED, value, 0, 2)
    script.operation("CLEAR_PAGE", first)
    script.operation("COPY_PAGE", first, second)
    for name in ("TLB_FLUSH_LOCAL", "TLB_FLUSH_ALL", "TLB_FLUSH_MULTI", "INVLPG_LOCAL", "INVLPG_ALL", "INVLPG_MULTI"):
        script.operation(name, TEXT, TEXT)
    script.operation("SET_LDT", TEXT, 1)


def test_what_no_kernel_does(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial()
    monkeypatch.setattr(hypercalls, "Dispatcher", trial.dispatcher)
    with xen_guest() as backend:
        script = Script(backend.domain, trial)
        script.domain.write_u32(REQUEST, script.domain.p2m[-7])
        script.call("set_gdt", REQUEST, 8)
        for part in (entries, spaces, the_rest):
            part(script)
        audit(backend.domain)
    assert not trial.problems, trial.problems[:5]
    assert set(trial.tried) == {(shape, name) for shape, row in ANSWERS.items() for name in row}
