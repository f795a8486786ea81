"""The hook specification is the contract between kernels and backends, so it must be exact.

A word at the wrong index calls another op; an argument in the wrong register is a silent corruption. Hence the
anchors of struct paravirt_ops (Linux 2.6.23, PAE, local APIC, HIGHPTE) are literals here, each spec's types are
checked against its own C prototype, and regparm(3) against the cases gcc is known for. A hook without
documentation is a hook nobody can implement: every argument has its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pluggy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.hookspecs import DATA_WORDS, MODULES, TABLES, OpInfo, Param, op_infos, slot
from paravirt.hookspecs._spec import INFO, op
from paravirt.hookspecs.lazy import LAZY_CPU, LAZY_FLUSH, LAZY_MMU, LAZY_NONE
from paravirt.hookspecs.types import S32, U32, U64, ArgType, GuestAddr, Location, carry

EAX, ECX, EDX = 0, 1, 2
REGPARM_ORDER = [EAX, EDX, ECX]
INFOS = [pytest.param(info, id=info.name) for info in op_infos().values()]

ANCHORS = {
    "kernel_rpl": 0, "shared_kernel_pmd": 1, "paravirt_enabled": 2, "name": 3, "patch": 4, "arch_setup": 5,
    "post_allocator_init": 7, "pagetable_setup_start": 10, "banner": 12, "get_wallclock": 13, "cpuid": 15,
    "clts": 18, "read_cr0": 19, "read_cr2": 21, "read_cr3": 23, "write_cr3": 24, "write_cr4": 27, "save_fl": 28,
    "restore_fl": 29, "irq_disable": 30, "irq_enable": 31, "safe_halt": 32, "wbinvd": 34, "read_tsc": 37,
    "sched_clock": 39, "get_cpu_khz": 40, "load_tr_desc": 41, "load_tls": 48, "load_esp0": 52, "io_delay": 54,
    "activate_mm": 55, "apic_write": 58, "startup_ipi_hook": 63, "flush_tlb_user": 64, "alloc_pt": 68,
    "set_pte": 73, "set_pte_at": 74, "kmap_atomic_pte": 78, "set_pte_atomic": 79, "pte_val": 84, "make_pgd": 89,
    "set_lazy_mode": 90, "irq_enable_sysexit": 91, "iret": 92,
}  # fmt: skip


# ---------------------------------------------------------------------- tables


@pytest.mark.parametrize(("name", "index"), ANCHORS.items())
def test_words_of_paravirt_ops(name: str, index: int) -> None:
    assert slot(name) == ("paravirt_ops", index)


def test_table_sizes() -> None:
    assert {name: len(table.words) for name, table in TABLES.items()} == {
        "paravirt_ops": 93, "machine_ops": 6, "console_ops": 2, "smp_ops": 7,
    }  # fmt: skip
    assert all(table.name == name for name, table in TABLES.items())
    assert TABLES["paravirt_ops"].words[:4] == DATA_WORDS


def test_words_of_the_small_tables() -> None:
    assert slot("machine_restart") == ("machine_ops", 0)
    assert slot("machine_power_off") == ("machine_ops", 2)
    assert slot("machine_emergency_restart") == ("machine_ops", 5)
    assert slot("console_write") == ("console_ops", 0)
    assert slot("console_read") == ("console_ops", 1)
    assert slot("cpu_up") == ("smp_ops", 2)
    assert slot("smp_call_function_mask") == ("smp_ops", 6)


def test_no_word_occurs_twice() -> None:
    words = [word for table in TABLES.values() for word in table.words]
    assert len(words) == len(set(words)) == 108


def test_an_unknown_word_has_no_slot() -> None:
    with pytest.raises(KeyError, match="load_sp0"):
        slot("load_sp0")


def test_each_word_has_one_spec_and_each_spec_a_word() -> None:
    specs = [info for module in MODULES for value in vars(module).values() if (info := getattr(value, INFO, None))]
    words = [(table.name, word) for table in TABLES.values() for word in table.words if word not in DATA_WORDS]
    assert sorted((info.table, info.name) for info in specs) == sorted(words)
    assert [(info.table, info.name) for info in op_infos().values()] == words
    assert len(op_infos()) == 104


# ---------------------------------------------------------------------- specs


def split_arguments(text: str) -> Iterator[str]:
    """The arguments of a C parameter list; commas inside parentheses do not count."""
    depth, start = 0, 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            yield text[start:at].strip()
            start = at + 1
    if text[start:].strip() != "void":
        yield text[start:].strip()


def parse_prototype(prototype: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Result type, slot name, and (type, name) of each argument of ``type (*slot)(type name, ...)``."""
    match = re.fullmatch(r"(.+?)\s*\(\*(\w+)\)\((.*)\)", prototype)
    assert match, prototype
    arguments = []
    for argument in split_arguments(match[3]):
        if function := re.fullmatch(r"\w+ \(\*(\w+)\)\(.*\)", argument):
            arguments.append(("function *", function[1]))
        else:
            found = re.fullmatch(r"(.*?)(\w+)", argument)
            assert found, argument
            arguments.append((found[1].strip(), found[2]))
    return match[1], match[2], arguments


C_TYPES = {
    "u8": {"u8"}, "u16": {"u16"}, "u32": {"u32"}, "unsigned": {"u32"}, "int": {"s32"}, "u64": {"u64"},
    "unsigned long": {"u32", "addr"}, "enum paravirt_lazy_mode": {"u32"}, "enum km_type": {"u32"},
    "pte_t": {"u64"}, "pmd_t": {"u64"}, "pud_t": {"u64"}, "pgd_t": {"u64"},
}  # fmt: skip


def c_types(declared: str) -> set[str]:
    return {"addr", "str"} if declared.endswith("*") else C_TYPES[declared]


@pytest.mark.parametrize("info", INFOS)
def test_signature_agrees_with_the_prototype(info: OpInfo) -> None:
    result, name, arguments = parse_prototype(info.prototype)
    assert name == info.name
    assert [name for _, name in arguments] == [param.name for param in info.params]
    for (declared, _), param in zip(arguments, info.params, strict=True):
        assert param.type.name in c_types(declared), f"{info.name}({param.name}): {declared}"
    words = 0 if result == "void" else 2 if C_TYPES.get(result) == {"u64"} else 1
    assert (info.result_words, info.signed_result) == (words, result == "int")


@pytest.mark.parametrize("info", INFOS)
def test_documentation_is_complete(info: OpInfo) -> None:
    paragraphs = info.doc.split("\n\n")
    assert paragraphs[0].endswith("."), "a one-line summary"
    assert re.search(r"\b([Aa]fterwards|[Nn]o state|It leaves|does not return|returns after)\b", info.doc), "end state"
    assert re.search(r"\b([Cc]alled|[Cc]alls|Used by|initcall)\b", paragraphs[1]), "who calls"
    assert re.findall(r"^:param (\w+):", info.doc, re.MULTILINE) == [param.name for param in info.params]
    assert all(param.doc.endswith(".") for param in info.params)
    assert (":returns:" in info.doc) == bool(info.result_words)


def test_which_slots_may_be_empty() -> None:
    nullable = {info.name for info in op_infos().values() if info.nullable}
    assert nullable == {
        "post_allocator_init", "pagetable_setup_start", "pagetable_setup_done", "set_pte", "irq_enable_sysexit",
        "machine_shutdown", "machine_crash_shutdown", *TABLES["smp_ops"].words,
    }  # fmt: skip
    assert all(bool(info.null_means) == info.nullable for info in op_infos().values())
    assert op_infos()["post_allocator_init"].null_means == "skipped"
    assert "must not use sysenter" in op_infos()["irq_enable_sysexit"].null_means


def test_only_the_ways_back_to_user_mode_are_jumped_to() -> None:
    assert {info.name for info in op_infos().values() if info.jumped} == {"iret", "irq_enable_sysexit"}
    assert not any(info.params or info.result_words for info in op_infos().values() if info.jumped)


def test_parameters_of_patch() -> None:
    params = [(param.name, param.type.name) for param in op_infos()["patch"].params]
    assert params == [("site_type", "u8"), ("clobbers", "u16"), ("buf", "addr"), ("address", "addr"), ("length", "u32")]


def test_lazy_modes_are_linux_numbers() -> None:
    assert (LAZY_NONE, LAZY_MMU, LAZY_CPU, LAZY_FLUSH) == (0, 1, 2, 3)


def test_pluggy_takes_the_specs_and_their_argument_names() -> None:
    manager = pluggy.PluginManager("paravirt")
    for module in MODULES:
        manager.add_hookspecs(module)
    for info in op_infos().values():
        spec = getattr(manager.hook, info.name).spec
        assert spec.opts["firstresult"]
        assert spec.argnames == tuple(param.name for param in info.params)

    class Backend:
        @pluggy.HookimplMarker("paravirt")
        def write_msr(self, msr: int, value: int) -> int:
            return msr + value

    manager.register(Backend())
    assert manager.hook.write_msr(msr=0xC0000080, value=0x800) == 0xC0000880


def test_op_reads_the_signature_and_joins_continued_lines() -> None:
    @op(prototype="int (*probe)(u64 wide, u32 narrow)", table="other_ops", null="left out")
    def probe(wide: U64, narrow: U32) -> S32:
        """Probe.

        :param wide: goes on
            over two lines.
        :param narrow: a word.
        """
        return 0

    info = getattr(probe, INFO)
    assert (info.name, info.table, info.nullable, info.null_means) == ("probe", "other_ops", True, "left out")
    assert (info.result_words, info.signed_result, info.jumped) == (1, True, False)
    assert info.params == (
        Param("wide", ArgType("u64", 2, False), "goes on over two lines."),
        Param("narrow", ArgType("u32", 1, False), "a word."),
    )


def test_op_refuses_a_plain_annotation() -> None:
    def probe(value: int) -> None:
        """Probe."""

    with pytest.raises(TypeError, match="op probe: value is annotated"):
        op(prototype="void (*probe)(int value)")(probe)


# ---------------------------------------------------------------------- regparm(3)


def reg(*numbers: int) -> tuple[Location, ...]:
    return tuple(Location(number, 0) for number in numbers)


def stack(*offsets: int) -> tuple[Location, ...]:
    return tuple(Location(None, offset) for offset in offsets)


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "clts": (),
        "write_cr3": (reg(EAX),),
        "set_debugreg": (reg(EAX), reg(EDX)),
        "set_pte": (reg(EAX), reg(EDX, ECX)),
        "write_msr": (reg(EAX), reg(EDX, ECX)),
        "make_pte": (reg(EAX, EDX),),
        "pte_clear": (reg(EAX), reg(EDX), reg(ECX)),
        "cpuid": (reg(EAX), reg(EDX), reg(ECX), stack(0)),
        "write_idt_entry": (reg(EAX), reg(EDX), reg(ECX), stack(0)),
        "set_pte_at": (reg(EAX), reg(EDX), reg(ECX), stack(0, 4)),
        "set_pte_present": (reg(EAX), reg(EDX), reg(ECX), stack(0, 4)),
        "patch": (reg(EAX), reg(EDX), reg(ECX), stack(0), stack(4)),
    }.items(),
)
def test_where_arguments_of_known_ops_are(name: str, expected: tuple[tuple[Location, ...], ...]) -> None:
    assert carry(op_infos()[name].params) == expected


WORD, WIDE = Param("word", ArgType("u32", 1, False)), Param("wide", ArgType("u64", 2, False))


def test_a_wide_argument_that_does_not_fit_takes_the_later_ones_along() -> None:
    # gcc leaves ECX unused here: f(u32, u32, u64, u32).
    assert carry([WORD, WORD, WIDE, WORD]) == (reg(EAX), reg(EDX), stack(0, 4), stack(8))
    assert carry([WIDE, WIDE, WORD]) == (reg(EAX, EDX), stack(0, 4), stack(8))
    assert carry([WIDE, WORD, WORD]) == (reg(EAX, EDX), reg(ECX), stack(0))


@given(st.lists(st.sampled_from([WORD, WIDE]), max_size=12))
def test_carry_places_every_word_once_and_in_order(params: list[Param]) -> None:
    placed = carry(params)
    assert [len(words) for words in placed] == [param.type.words for param in params]
    flat = [location for words in placed for location in words]
    registers = [location.register for location in flat if location.register is not None]
    offsets = [location.stack for location in flat if location.register is None]
    assert registers == REGPARM_ORDER[: len(registers)]
    assert offsets == [4 * n for n in range(len(offsets))]
    assert len(set(flat)) == len(flat)
    assert [location.register is None for location in flat] == [False] * len(registers) + [True] * len(offsets)
    assert all(len({location.register is None for location in words}) == 1 for words in placed), "never split"


@given(st.lists(st.sampled_from([WORD, WIDE]), max_size=12), st.sampled_from([WORD, WIDE]))
def test_a_later_argument_moves_no_earlier_one(params: list[Param], last: Param) -> None:
    assert carry([*params, last])[:-1] == carry(params)


def test_argument_types_say_words_and_sign() -> None:
    def described(annotation: object) -> tuple[str, int, bool]:
        (found,) = getattr(annotation, "__metadata__")  # noqa: B009
        return found.name, found.words, found.signed

    assert described(S32) == ("s32", 1, True)
    assert described(U64) == ("u64", 2, False)
    assert described(GuestAddr) == ("addr", 1, False)
