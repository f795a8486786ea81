"""The op tables of a real Linux are read from its file, by symbol and size, and a file is never believed.

What must hold: slot numbers are those that the kernel's call sites use, in every configuration that has a size of its
own; a table of another size, outside the image, or call sites that cannot be ones are refused by name, and
`inspect` says so instead of failing.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.errors import ImageError
from paravirt.hookspecs import op_infos
from paravirt.image.elf import ElfImage, load_elf
from paravirt.image.linux_ops import (
    LINUX_2_6_23,
    LINUX_2_6_32,
    WORD,
    LinuxTables,
    filled,
    linux_sites,
    linux_tables,
)
from tests.commandline import Here
from tests.elfmaker import GLOBAL_OBJECT, Load, Sym, make_elf
from tests.kernels import linked
from tests.linuxlike import linuxlike

BASE = 0xC1000000
SIZES = {"pv_init_ops": 1, "pv_time_ops": 2, "pv_cpu_ops": 40, "pv_irq_ops": 6, "pv_apic_ops": 1, "pv_mmu_ops": 40}
# Numbers of struct paravirt_patch_template, in a build with PAE and without local APIC.
TYPES = {0: "patch", 1: "sched_clock", 3: "get_debugreg", 16: "set_ldt", 24: "load_sp0", 33: "read_tsc",
         36: "irq_enable_sysexit", 39: "iret", 43: "save_fl", 48: "halt", 49: "read_cr2", 52: "write_cr3",
         62: "alloc_pte", 69: "set_pte", 70: "set_pte_at", 76: "pte_val", 83: "set_pud", 86: "lazy_mode.enter",
         88: "set_fixmap"}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    return Here(monkeypatch, capfd)


def image(words: dict[str, int], data: bytes = bytes(0x1000), more: tuple[Sym, ...] = ()) -> ElfImage:
    """A kernel with symbols of these sizes, one table after the other."""
    symbols, at = [], BASE
    for name, count in words.items():
        symbols.append(Sym(name, at, WORD * count, GLOBAL_OBJECT))
        at += WORD * count
    return load_elf(Path("kernel"), make_elf([Load(BASE, data)], symbols=[*symbols, *more]))


def tables(words: dict[str, int]) -> LinuxTables:
    found = linux_tables(image(words))
    assert found is not None
    return found


def test_the_kernel_of_the_tests() -> None:
    kernel = load_elf(linuxlike())
    found = linux_tables(kernel)
    assert found is not None and found.version == "2.6.32" and found.features == {"PAE"}
    assert {slot.type: slot.word.name for slot in found.slots if slot.type in TYPES} == TYPES
    assert [slot.type for slot in found.slots] == list(range(89))
    assert {slot.word.name for slot in found.slots if not filled(kernel, slot)} == {
        "get_tsc_khz", "usergs_sysret64", "usergs_sysret32"}
    types = {slot.word.name: slot.type for slot in found.slots}
    sites = linux_sites(kernel, found)
    assert {site.type for site in sites} == {types["irq_disable"], types["irq_enable"]}
    assert {(site.length, site.clobbers) for site in sites} == {(6, 5)}


def test_with_a_local_apic_the_later_types_are_one_more() -> None:
    found = tables(SIZES)
    assert found.features == {"PAE", "local APIC"}
    names = [slot.word.name for slot in found.slots]
    assert names[49] == "startup_ipi_hook"
    assert {number: names[number + (number > 48)] for number in TYPES} == TYPES


@pytest.mark.parametrize(("words", "features"), [(40, {"PAE"}), (41, {"PAE", "HIGHPTE"}), (34, set()),
                                                 (35, {"HIGHPTE"})])
def test_the_size_of_pv_mmu_ops_tells_the_configuration(words: int, features: set[str]) -> None:
    found = tables({**SIZES, "pv_apic_ops": 0, "pv_mmu_ops": words})
    assert found.features == features
    names = [slot.word.name for slot in found.slots if slot.table == "pv_mmu_ops"]
    assert len(names) == words and ("set_pud" in names) == ("PAE" in features)
    assert ("kmap_atomic_pte" in names) == ("HIGHPTE" in features)


@pytest.mark.parametrize("name", SIZES)
def test_another_size_is_refused(name: str) -> None:
    with pytest.raises(ImageError, match=f"{name} has .* bytes; no configuration of Linux 2.6.32 has that"):
        linux_tables(image({**SIZES, name: SIZES[name] + 2}))


def test_a_table_that_is_missing_or_outside_is_refused() -> None:
    with pytest.raises(ImageError, match="pv_irq_ops: no such symbol"):
        linux_tables(image({name: count for name, count in SIZES.items() if name != "pv_irq_ops"}))
    with pytest.raises(ImageError, match="do not lie in a loadable segment"):
        linux_tables(image(SIZES, bytes(100)))


def test_other_kernels_have_none() -> None:
    assert linux_tables(image({"startup_32": 4})) is None


def test_every_word_is_an_op_or_has_its_arguments_written_down() -> None:
    ops = op_infos()
    for words in LINUX_2_6_32.values():
        for word in words:
            assert word.op in ops or (not word.op and word.parameters is not None), word
            assert word.constant is None or word.op == "set_lazy_mode", word


# ------------------------------------------------------------------ 2.6.23


def test_the_single_struct() -> None:
    kernel = linked("linux23")
    found = linux_tables(kernel)
    assert found is not None and found.version == "2.6.23" and found.features == {"PAE", "local APIC"}
    names = [slot.word.name for slot in found.slots]
    assert len(names) == 92 and "kmap_atomic_pte" not in names
    assert (names[31], names[73], names[91]) == ("irq_enable", "set_pte", "iret")
    assert [(site.type, site.length, site.clobbers) for site in linux_sites(kernel, found)] == [(31, 6, 7), (91, 6, 0)]
    assert [slot.word.name for slot in found.slots if filled(kernel, slot)] == [
        "shared_kernel_pmd", "name", "irq_enable", "iret"]


@pytest.mark.parametrize(("words", "apic", "features"), [
    (93, True, {"PAE", "HIGHPTE", "local APIC"}), (92, True, {"PAE", "local APIC"}), (87, False, {"PAE", "HIGHPTE"}),
    (86, False, {"PAE"}), (86, True, {"HIGHPTE", "local APIC"}), (85, True, {"local APIC"}),
    (80, False, {"HIGHPTE"}), (79, False, set()),
])
def test_size_and_one_symbol_tell_the_configuration(words: int, apic: bool, features: set[str]) -> None:
    more = (Sym("setup_boot_APIC_clock", BASE + 0x800),) if apic else ()
    found = linux_tables(image({"paravirt_ops": words}, more=more))
    assert found is not None and found.features == features and len(found.slots) == words


def test_the_single_struct_is_the_hook_specifications() -> None:
    assert len(LINUX_2_6_23["paravirt_ops"]) == 93
    with pytest.raises(ImageError, match="paravirt_ops has 380 bytes"):
        linux_tables(image({"paravirt_ops": 95}))


# ------------------------------------------------------------------ call sites


def with_sites(records: bytes, cut: int = 0) -> tuple[ElfImage, LinuxTables]:
    start = BASE + 0x800
    symbols = (Sym("__parainstructions", start), Sym("__parainstructions_end", start + len(records) - cut))
    kernel = image(SIZES, (bytes(0x800) + records).ljust(0x1000, b"\0"), symbols)
    found = linux_tables(kernel)
    assert found is not None
    return kernel, found


@pytest.mark.parametrize(("record", "cut"), [
    (struct.pack("<IBBH", BASE, 45, 0, 5), 0), (struct.pack("<IBBH", BASE, 45, 33, 5), 0),
    (struct.pack("<IBBH", 0x1000, 45, 6, 5), 0), (struct.pack("<IBBH", BASE, 45, 6, 5), 3),
])
def test_a_site_that_cannot_be_one_is_refused(record: bytes, cut: int) -> None:
    kernel, found = with_sites(record, cut)
    with pytest.raises(ImageError, match="parainstructions"):
        linux_sites(kernel, found)


@given(st.binary(max_size=64), st.integers(0, 64))
def test_any_records_give_sites_or_an_error(records: bytes, cut: int) -> None:
    kernel, found = with_sites(records, cut)
    try:
        sites = linux_sites(kernel, found)
    except ImageError:
        return
    assert all(kernel.segment(site.address, site.length) for site in sites)


# ------------------------------------------------------------------ the command


def test_inspect(here: Here) -> None:
    status, out, _ = here("inspect", linuxlike())
    rows = {line[:16].strip(): line for line in out.splitlines()}
    assert status == 0 and "layout of 2.6.32, PAE: 89 words, 86 filled" in rows["Linux op tables"]
    assert "types 3 to 42, empty: usergs_sysret64, usergs_sysret32" in rows["pv_cpu_ops"]
    assert "ptep_modify_prot_start" in rows["not in 2.6.23"] and "irq_enable" in rows["call sites"]
    status, out, _ = here("inspect", linked("linux23").path)
    assert status == 0 and "layout of 2.6.23, PAE, local APIC: 92 words, 4 filled" in out
    assert "call sites" in out and "irq_enable 1, iret 1" in out


def test_inspect_says_what_it_cannot_read(here: Here, tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(image({**SIZES, "pv_cpu_ops": 39}).data)
    status, out, _ = here("inspect", path)
    assert status == 0 and "cannot be read: " in out and "pv_cpu_ops has 156 bytes" in out
