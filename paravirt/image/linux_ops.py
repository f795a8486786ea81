"""The op tables of a real Linux, found by symbol: their words, slot by slot, and the call sites.

Linux 2.6.23 has one struct paravirt_ops. From 2.6.24 on the same ops are split over pv_init_ops, pv_time_ops and so
on; the layout below is that of 2.6.32. Which words a build has depends on its configuration, and the sizes of the
symbols tell it. A slot's number, `type` at call sites, is its word's index over all tables in this order.

Nothing of the file is believed: a table of another size, or a call site outside the image, is refused by name.

Ref: Linux 2.6.32 arch/x86/include/asm/paravirt_types.h (struct paravirt_patch_template and its members),
paravirt.h; Linux 2.6.23 include/asm-i386/paravirt.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import NamedTuple

from paravirt.errors import ImageError
from paravirt.hookspecs.tables import DATA_WORDS, TABLES
from paravirt.image.elf import ElfImage
from paravirt.image.notes import CALL_SITE, MAX_SITE, CallSite

# Calling conventions. C: regparm(3), EAX, ECX and EDX may be changed. CALLEE_SAVE: of the three only those of the
# result, and EAX. JUMPED: entered by a jump, never returns to its caller.
C, CALLEE_SAVE, JUMPED = "c", "callee-save", "jumped"
PAE, HIGHPTE, APIC = "PAE", "HIGHPTE", "local APIC"
WORD = 4


class Word(NamedTuple):
    """One word of a table.

    :ivar name: the member, as Linux calls it.
    :ivar op: the op of the hook specification that it is; "" where 2.6.23 has none.
    :ivar parameters: names of the arguments, one a register or stack word (``pte:2`` is two); None: as the op's.
    :ivar constant: the slot is the op with this one argument, and takes none.
    :ivar needs: the configuration that brings the word.
    """

    name: str
    op: str
    convention: str = C
    parameters: str | None = None
    constant: int | None = None
    needs: str = ""


def _same(names: str, convention: str = C, needs: str = "") -> tuple[Word, ...]:
    """Words that are ops of the same name, with the same arguments."""
    return tuple(Word(name, name, convention, needs=needs) for name in names.split())


def _new(name: str, parameters: str) -> Word:
    """A word that 2.6.23 does not have."""
    return Word(name, "", parameters=parameters)


LINUX_2_6_32: Mapping[str, tuple[Word, ...]] = MappingProxyType({
    "pv_init_ops": _same("patch"),
    "pv_time_ops": (Word("sched_clock", "sched_clock"), Word("get_tsc_khz", "get_cpu_khz")),
    "pv_cpu_ops": (
        *_same("get_debugreg set_debugreg clts read_cr0 write_cr0 read_cr4_safe read_cr4 write_cr4"),
        *_same("load_tr_desc load_gdt load_idt store_gdt store_idt set_ldt store_tr load_tls"),
        Word("write_ldt_entry", "write_ldt_entry", parameters="table index descriptor"),
        Word("write_gdt_entry", "write_gdt_entry", parameters="table index descriptor type"),
        Word("write_idt_entry", "write_idt_entry", parameters="table index descriptor"),
        _new("alloc_ldt", "ldt entries"), _new("free_ldt", "ldt entries"),
        Word("load_sp0", "load_esp0"), *_same("set_iopl_mask wbinvd io_delay cpuid read_msr"),
        _new("rdmsr_regs", "registers"), *_same("write_msr"), _new("wrmsr_regs", "registers"),
        *_same("read_tsc read_pmc"), _new("read_tscp", "aux"), *_same("irq_enable_sysexit", JUMPED),
        _new("usergs_sysret64", ""), _new("usergs_sysret32", ""), *_same("iret", JUMPED), _new("swapgs", ""),
        Word("start_context_switch", "set_lazy_mode", parameters="prev", constant=2),
        Word("end_context_switch", "set_lazy_mode", parameters="next", constant=0),
    ),
    "pv_irq_ops": (*_same("save_fl restore_fl irq_disable irq_enable", CALLEE_SAVE), *_same("safe_halt halt")),
    "pv_apic_ops": _same("startup_ipi_hook", needs=APIC),
    "pv_mmu_ops": (
        *_same("read_cr2 write_cr2 read_cr3 write_cr3 activate_mm dup_mmap exit_mmap"),
        *_same("flush_tlb_user flush_tlb_kernel flush_tlb_single flush_tlb_others"),
        _new("pgd_alloc", "mm"), _new("pgd_free", "mm pgd"),
        Word("alloc_pte", "alloc_pt"), Word("alloc_pmd", "alloc_pd", parameters="mm pfn"),
        Word("alloc_pmd_clone", "alloc_pd_clone"), _new("alloc_pud", "mm pfn"),
        Word("release_pte", "release_pt"), Word("release_pmd", "release_pd"), _new("release_pud", "pfn"),
        *_same("set_pte set_pte_at set_pmd pte_update pte_update_defer"),
        _new("ptep_modify_prot_start", "mm addr ptep"), _new("ptep_modify_prot_commit", "mm addr ptep pte:2"),
        *_same("pte_val make_pte pgd_val make_pgd", CALLEE_SAVE),
        *_same("set_pte_atomic pte_clear pmd_clear set_pud", needs=PAE),
        *_same("pmd_val make_pmd", CALLEE_SAVE, needs=PAE),
        *_same("kmap_atomic_pte", needs=HIGHPTE),
        Word("lazy_mode.enter", "set_lazy_mode", parameters="", constant=1),
        Word("lazy_mode.leave", "set_lazy_mode", parameters="", constant=0),
        _new("set_fixmap", "index physical:2 flags:2"),
    ),
})
OPTIONAL = ("pv_apic_ops",)  # empty, and without a symbol, in a build without local APIC

# The words of 2.6.23 that not every configuration has, and those that are jumped to.
_SOMETIMES: Mapping[str, str] = MappingProxyType({
    **dict.fromkeys("apic_write apic_write_atomic apic_read setup_boot_clock setup_secondary_clock "
                    "startup_ipi_hook".split(), APIC),
    **dict.fromkeys("set_pte_atomic set_pte_present set_pud pte_clear pmd_clear pmd_val make_pmd".split(), PAE),
    "kmap_atomic_pte": HIGHPTE,
})
_JUMPED = ("irq_enable_sysexit", "iret")
LINUX_2_6_23: Mapping[str, tuple[Word, ...]] = MappingProxyType({
    "paravirt_ops": tuple(
        Word(name, "" if name in DATA_WORDS else name, JUMPED if name in _JUMPED else C,
             needs=_SOMETIMES.get(name, ""))
        for name in TABLES["paravirt_ops"].words),
})
APIC_SYMBOL = "setup_boot_APIC_clock"  # tells two configurations of 2.6.23 apart that are of one size


class LinuxSlot(NamedTuple):
    """A word of one kernel: `type` is its number at call sites, `address` is virtual."""

    type: int
    table: str
    word: Word
    address: int


@dataclass(frozen=True)
class LinuxTables:
    """The op tables of one kernel.

    :ivar version: of the layout. :ivar features: the configuration that the sizes tell.
    """

    version: str
    features: frozenset[str]
    slots: tuple[LinuxSlot, ...]


def linux_tables(image: ElfImage) -> LinuxTables | None:
    """The op tables of a Linux kernel; None if it has none, or is without symbols.

    :raises ImageError: it has some, of a size that is not known.
    """
    symbols = image.symbols
    if "pv_mmu_ops" in symbols and "pv_cpu_ops" in symbols:
        return _read(image, "2.6.32", LINUX_2_6_32)
    if symbols.size("paravirt_ops"):
        return _read(image, "2.6.23", LINUX_2_6_23)
    return None


def _read(image: ElfImage, version: str, layout: Mapping[str, tuple[Word, ...]]) -> LinuxTables:
    slots: list[LinuxSlot] = []
    features: frozenset[str] = frozenset()
    for table, words in layout.items():
        address, size = image.symbols.address(table), image.symbols.size(table) or 0
        if address is None and table not in OPTIONAL:
            raise ImageError(f"{image.path}: {table}: no such symbol, but others of Linux {version}'s op tables")
        if size and (address is None or image.segment(address, size) is None):
            raise ImageError(f"{image.path}: {table}: its {size} bytes do not lie in a loadable segment")
        found, present = _configuration(image, version, table, words, size)
        features |= found
        slots += [LinuxSlot(len(slots) + index, table, word, (address or 0) + WORD * index)
                  for index, word in enumerate(present)]
    return LinuxTables(version, features, tuple(slots))


def _configuration(image: ElfImage, version: str, table: str, words: Sequence[Word],
                   size: int) -> tuple[frozenset[str], list[Word]]:
    """The configuration in which the table has this size, and its words then."""
    choices = sorted({word.needs for word in words if word.needs})
    fitting = []
    for chosen in product((True, False), repeat=len(choices)):
        features = frozenset(choice for choice, on in zip(choices, chosen, strict=True) if on)
        present = [word for word in words if not word.needs or word.needs in features]
        if WORD * len(present) == size:
            fitting.append((features, present))
    if len(fitting) > 1:
        fitting = [each for each in fitting if (APIC in each[0]) == (APIC_SYMBOL in image.symbols)]
    if len(fitting) != 1:
        raise ImageError(f"{image.path}: {table} has {size} bytes; no configuration of Linux {version} has that, "
                         f"with everything it is {WORD * len(words)}")
    return fitting[0]


def linux_sites(image: ElfImage, tables: LinuxTables) -> tuple[CallSite, ...]:
    """The call sites that the kernel recorded, in its order; none without the symbols.

    :raises ImageError: naming the record (from 0) that cannot be one.
    """
    start, end = image.symbols.address("__parainstructions"), image.symbols.address("__parainstructions_end")
    if start is None or end is None or start == end:
        return ()
    records = image.read(start, end - start) if start < end else None
    if records is None or len(records) % CALL_SITE.size:
        raise ImageError(f"{image.path}: .parainstructions from {start:#x} to {end:#x}: not records in the file")
    return tuple(_sites(image, tables, records))


def _sites(image: ElfImage, tables: LinuxTables, records: bytes) -> Iterator[CallSite]:
    for number, (address, kind, length, clobbers) in enumerate(CALL_SITE.iter_unpack(records)):
        if not 0 < length <= MAX_SITE or image.segment(address, length) is None:
            raise ImageError(f"{image.path}: .parainstructions: call site {number}: {length} bytes at {address:#x}")
        yield CallSite(address, kind, length, clobbers)


def filled(image: ElfImage, slot: LinuxSlot) -> bool:
    """Whether the file has something in a slot."""
    data = image.read(slot.address, WORD)
    return data is not None and struct.unpack("<I", data)[0] != 0
