"""Ops of a kernel that brings its own tables can be counted, traced and replaced, without the kernel's noticing.

The kernel is tests/guests/linuxlike: own code, laid out as Linux 2.6.32. It prints the TSC at each line and takes timer
interrupts, so equal output means equal time. What must hold: a counted or traced run is the run itself; every call
counts under the hook specification's name; a backend's table serves the kernel with its arguments, registers and
exception table as it expects them, in guest code and in Python; an op that cannot go on is named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paravirt.api import Backend, Guest, OpTable, StubPages, Verdict, hookimpl, machine_code, pc_stub_pages
from paravirt.backend import Answer
from paravirt.boot_sequence import boot
from paravirt.errors import BackendError, ConfigError, ImageError, ParavirtError, PluginError
from paravirt.linuxops import install
from paravirt.machine.engine import Engine
from paravirt.options import BootOptions
from paravirt_native.plugin import Native
from tests.kernels import kernel
from tests.linuxlike import run
from tests.mutants import backend_plugin

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# Calls that do not depend on when interrupts come.
CALLS = {
    "alloc_pd": 1, "alloc_pt": 1, "clts": 1, "cpuid": 1, "flush_tlb_single": 1, "flush_tlb_user": 1, "get_debugreg": 1,
    "irq_disable": 2, "irq_enable": 2, "load_esp0": 1, "load_idt": 1, "load_tls": 1, "load_tr_desc": 1, "make_pte": 1,
    "pgd_alloc": 1, "pmd_clear": 1, "pte_clear": 1, "pte_val": 1, "read_cr0": 1, "read_cr3": 1, "read_cr4": 1,
    "read_cr4_safe": 1, "read_msr": 3, "restore_fl": 1, "safe_halt": 3, "save_fl": 1, "set_debugreg": 1,
    "set_lazy_mode": 4, "set_ldt": 1, "set_pmd": 1, "set_pte": 1, "set_pte_at": 1, "set_pte_atomic": 1, "store_tr": 1,
    "write_cr3": 1, "write_cr4": 1, "write_gdt_entry": 1, "write_idt_entry": 33, "write_msr": 2,
}
PORTABLE: dict[str, Any] = {"engine": "portable", "append": "noreplace-paravirt nomsr"}  # it knows no unknown MSR


def results(console: str) -> list[str]:
    """The lines without the time."""
    return [line.partition("] ")[2] for line in console.splitlines() if "ticks" not in line]


def table_plugin(**ops: object) -> object:
    """A backend "mutant" with native's table and platform, but for `ops`."""
    return backend_plugin(ops)


@pytest.fixture(scope="module")
def plain() -> Any:
    record, console = run()
    assert record.outcome.kind == "poweroff" and "WRONG" not in console, console
    return record, console


def test_tables_that_nobody_knows_are_left_alone(monkeypatch: pytest.MonkeyPatch, plain: Any) -> None:
    """A kernel of another version runs as it is; only who asks for its ops is told."""
    def unknown(image: object) -> None:
        raise ImageError("pv_time_ops has 12 bytes")

    monkeypatch.setattr(install, "linux_tables", unknown)
    record, console = run()
    assert (record.repeatable(), console) == (plain[0].repeatable(), plain[1])
    with pytest.raises(ImageError, match="12 bytes"):
        run(count_ops=True)


# ------------------------------------------------------------------ counting


def test_a_counted_run_is_the_run_itself(plain: Any) -> None:
    record, console = run(count_ops=True)
    assert console == plain[1]
    assert (record.instructions, record.virtual_ns) == (plain[0].instructions, plain[0].virtual_ns)
    counting: dict[str, Any] = {"ops": {}, "ops_counted": "host", "user_instructions": None}
    assert replace(record.counts, **counting) == replace(plain[0].counts, **counting)
    assert (record.counts.ops_counted, plain[0].counts.ops_counted) == ("all", "host")


@pytest.mark.parametrize("watched", [{"count_ops": True}, {"trace_ops": Path("/dev/null")}], ids=["counted", "traced"])
def test_a_pause_is_never_on_a_stub(monkeypatch: pytest.MonkeyPatch, watched: dict[str, Any]) -> None:
    """Interrupts and a hypervisor's events come at pauses, and show the kernel where it was. So there is no pause
    between a call and what is called, however many there are; and they change nothing else."""
    run_engine, stopped = Engine.run, set()

    def in_slices(engine: Engine, deadline: int) -> bool:
        halted = run_engine(engine, min(deadline, engine.now() + 40))
        stopped.add(engine.record.gate_free <= engine.eip < engine.record.gate_end)
        return halted

    monkeypatch.setattr(Engine, "run", in_slices)
    (cut, console), (record, other) = run(), run(**watched)
    assert stopped == {False}
    assert console == other
    assert (record.instructions, record.virtual_ns) == (cut.instructions, cut.virtual_ns)
    assert record.counts.traps == cut.counts.traps
    assert record.counts.ops["irq_disable"] == CALLS["irq_disable"]


def test_every_call_counts_under_the_hook_specifications_name(plain: Any) -> None:
    record, console = run(count_ops=True)
    ops = dict(record.counts.ops)
    lines = console.count("\n")
    assert ops.pop("iret") == record.counts.interrupts + 2 + 2, "two faults of MSRs; the bad iret, and its fix-up"
    assert ops.pop("read_tsc") == lines
    assert ops.pop("sched_clock") > 100
    assert ops == CALLS


def test_the_portable_engine_counts_the_same() -> None:
    record, console = run(count_ops=True, **PORTABLE)
    assert record.outcome.kind == "poweroff" and "WRONG" not in console
    expected = {**CALLS, "read_msr": 2, "write_msr": 1}
    assert {op: record.counts.ops.get(op) for op in expected if op != "safe_halt"} == {
        op: calls for op, calls in expected.items() if op != "safe_halt"}


def test_a_slot_that_the_kernel_changes_gets_a_new_target(plain: Any) -> None:
    """build_all_zonelists puts another save_fl into the table; the platform knows the moment after it."""
    class Twice(Native):
        name = "twice"

        @hookimpl
        def paravirt_stub_pages(self, guest: Guest) -> StubPages:
            return pc_stub_pages(guest, ("i386_start_kernel", "no_such_function", "alternative_instructions"))

    plugin = SimpleNamespace(__name__="twice", paravirt_backends=hookimpl(lambda: (Twice,)))
    record, console = run(count_ops=True, backend="twice", plugins=(plugin,))
    assert console == plain[1]
    assert record.counts.ops["save_fl"] == CALLS["save_fl"] + 1


# ------------------------------------------------------------------ tracing


def test_a_traced_run_is_the_run_itself(plain: Any, tmp_path: Path) -> None:
    record, console = run(trace_ops=tmp_path / "ops")
    counted, _ = run(count_ops=True)
    assert console == plain[1]
    assert (record.instructions, record.virtual_ns) == (plain[0].instructions, plain[0].virtual_ns)
    assert record.counts.ops == counted.counts.ops and record.counts.traps == plain[0].counts.traps


def test_a_trace_shows_arguments_and_callers(tmp_path: Path) -> None:
    record, console = run(trace_ops=tmp_path / "ops")
    lines = [json.loads(line) for line in (tmp_path / "ops").read_text().splitlines()]
    assert len(lines) == sum(record.counts.ops.values())
    assert [line["ns"] for line in lines] == sorted(line["ns"] for line in lines)
    by_slot = {line["slot"]: line for line in lines}
    line = by_slot["pv_mmu_ops.set_pte_at"]
    assert line["op"] == "set_pte_at" and line["caller"]["symbol"].startswith("i386_start_kernel+")
    assert line["arguments"]["pte"] == 0x2001063 and line["arguments"]["addr"] == 0xC3E00000
    assert by_slot["pv_mmu_ops.set_pmd"]["arguments"]["pmd"] == 0x8000000012345067
    assert by_slot["pv_mmu_ops.alloc_pmd"]["arguments"] == {"mm": 0, "pfn": 2}
    assert by_slot["pv_mmu_ops.alloc_pmd"]["op"] == "alloc_pd"
    assert by_slot["pv_cpu_ops.write_gdt_entry"]["arguments"]["type"] == 9
    assert by_slot["pv_mmu_ops.pgd_alloc"]["op"] is None
    frames = [line["arguments"] for line in lines if line["op"] == "iret"]
    assert [frame["cs"] for frame in frames].count(0xB0) == 1 and by_slot["pv_cpu_ops.iret"]["caller"] is None
    first = next(line for line in lines if line["op"] == "read_tsc")
    assert first["caller"]["symbol"].startswith("printk+")
    shown = int(console[1:].partition("]")[0])
    assert first["ns"] < shown < first["ns"] + 100, "the call, and the RDTSC in it"


# ------------------------------------------------------------------ an assigned table


@pytest.mark.parametrize("how", [{}, PORTABLE], ids=["accelerated", "portable"])
def test_natives_table_serves_the_kernel(plain: Any, how: dict[str, Any]) -> None:
    """Arguments, kept registers, the layout of thread_struct, the fix-ups of iret and of the MSR ops."""
    record, console = run(options={"assign": "native"}, **how)
    own, expected = run(**how)
    assert record.outcome.kind == "poweroff", record.outcome
    assert results(console) == results(expected) and "bad iret ok" in console
    assert record.instructions != own.instructions or how, "it is other code that runs"


def test_an_assigned_table_is_counted(plain: Any) -> None:
    record, _ = run(options={"assign": "native"}, count_ops=True)
    assert {op: record.counts.ops[op] for op in CALLS} == CALLS


def test_without_counting_host_functions_count(plain: Any) -> None:
    @hookimpl
    def clts(self: Any) -> None:
        self.guest.machine.vcpu.set_cr(0, self.guest.machine.vcpu.cr(0) & ~8)

    record, console = run(options={"assign": "mutant"}, plugins=(table_plugin(clts=clts),))
    assert results(console) == results(plain[1])
    assert record.counts.ops == {"clts": 1} and record.counts.ops_counted == "host"


@pytest.mark.parametrize("how", [{}, PORTABLE], ids=["accelerated", "portable"])
def test_mmu_ops_in_python(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    _, expected = run(**how)
    record, console = run(options={"assign": "python-mmu"}, plugins_file=EXAMPLES / "python_mmu.toml", **how)
    assert results(console) == results(expected)
    assert record.counts.ops["set_pte_at"] == record.counts.ops["alloc_pd"] == record.counts.ops["pte_val"] == 1


def test_callee_save_slots_keep_registers_whatever_the_op_changes(plain: Any) -> None:
    """The kernel's own checks say whether ECX and EDX survived."""
    spoiling = machine_code("31 c9 31 d2 fb")  # xor %ecx,%ecx; xor %edx,%edx; sti
    _, console = run(options={"assign": "mutant"}, plugins=(table_plugin(irq_enable=spoiling),))
    assert results(console) == results(plain[1])


def test_a_table_of_one_op_leaves_the_rest_to_the_kernel(plain: Any) -> None:
    seen: list[tuple[int, int]] = []

    class One(OpTable):
        @hookimpl
        def set_pte_at(self, addr: int, ptep: int, pte: int) -> None:
            seen.append((addr, pte))
            self.guest.machine.vcpu.write_u64(ptep, pte)

    class OneBackend(Backend):
        name = "one"

        @hookimpl
        def paravirt_probe(self) -> Verdict:
            return Verdict(Answer.NO, "it is a table only, for -o assign")

        @hookimpl
        def paravirt_install_ops(self, guest: Guest) -> OpTable:
            return One(guest)

    plugin = SimpleNamespace(__name__="one", paravirt_backends=hookimpl(lambda: (OneBackend,)))
    _, console = run(options={"assign": "one"}, plugins=(plugin,))
    assert results(console) == results(plain[1])
    assert seen == [(0xC3E00000, 0x2001063)]


def test_a_wrapper_sees_the_calls(plain: Any) -> None:
    seen: list[int] = []

    class Observer:
        @hookimpl(wrapper=True)
        def set_pte(self, ptep: int, pte: int) -> Any:
            seen.append(pte)
            return (yield)

    _, console = run(options={"assign": "native"}, plugins=(Observer(),))
    assert results(console) == results(plain[1]) and seen == [0x2000063]


# ------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("op", ["set_pte_at", "write_cr3", "iret", "alloc_pd", "irq_disable"])
@pytest.mark.parametrize("how", [{}, PORTABLE], ids=["accelerated", "portable"])
def test_an_invalid_opcode_ends_the_run_and_the_op_is_named(op: str, how: dict[str, Any]) -> None:
    broken = table_plugin(**{op: machine_code("0f 0b")})
    record, _ = run(options={"assign": "mutant"}, plugins=(broken,), **how)
    assert (record.outcome.kind, record.exit_code) == ("crash", 70)
    assert record.outcome.reason == f"op {op} (bytes 0f 0b) of the assigned table 'mutant': invalid opcode"
    assert record.outcome.symbol == f"{op} of mutant"


def test_a_host_function_that_raises_is_named() -> None:
    @hookimpl
    def set_pte(self: Any, ptep: int, pte: int) -> None:
        raise ValueError("not today")

    with pytest.raises(BackendError, match=r"op set_pte \(.*test_linux_ops.py:\d+\) called from .* "
                                           r"i386_start_kernel\+\S+: ValueError: not today"):
        run(options={"assign": "mutant"}, plugins=(table_plugin(set_pte=set_pte),))


def test_a_bad_guest_pointer_is_the_kernels_page_fault() -> None:
    @hookimpl
    def set_pte(self: Any, ptep: int, pte: int) -> None:
        self.guest.machine.vcpu.write_u64(0xDEAD0000, pte)

    record, console = run(options={"assign": "mutant"}, plugins=(table_plugin(set_pte=set_pte),))
    assert "Kernel panic - not syncing: exception 14 at c00f2" in console
    assert record.outcome.kind == "crash" and record.outcome.reason.startswith("kernel panic: exception 14 at c00f2")


def test_a_panic_that_spins_says_why() -> None:
    record, console = run("noreplace-paravirt panic")
    assert console.splitlines()[-1] == "Kernel panic - not syncing: asked for it, 3 times"
    assert (record.outcome.kind, record.exit_code) == ("crash", 70)
    assert record.outcome.reason == "kernel panic: asked for it, 3 times; the kernel spins and will not go on"


def test_too_few_rows_of_the_exception_table_are_an_error() -> None:
    """A table with the MSR ops of native.S, in the place of functions that have no fix-ups."""
    from paravirt import native

    class Clts(OpTable):
        clts = native.read_msr

    class RowsBackend(Backend):
        name = "rows"

        @hookimpl
        def paravirt_install_ops(self, guest: Guest) -> OpTable:
            return Clts(guest)

    plugin = SimpleNamespace(__name__="rows", paravirt_backends=hookimpl(lambda: (RowsBackend,)))
    with pytest.raises(PluginError, match=r"need 4 rows of the kernel's exception table, and .* have 0"):
        run(options={"assign": "rows"}, plugins=(plugin,))


def fails(match: str, error: type[ParavirtError], append: str = "noreplace-paravirt", **options: Any) -> None:
    with pytest.raises(error, match=match):
        run(append, **options)


def test_what_cannot_be_had_is_refused(tmp_path: Path) -> None:
    fails("--count-ops: put noreplace-paravirt on the kernel's command line", ConfigError, "quiet", count_ops=True)
    fails("-o assign=native: put noreplace", ConfigError, "", options={"assign": "native"})
    fails("-o assign: no backend 'nativ'; did you mean 'native'", PluginError, options={"assign": "nativ"})
    fails("-o assign: backend 'empty' has no op table", PluginError, options={"assign": "empty"},
          plugins=(SimpleNamespace(__name__="empty", paravirt_backends=hookimpl(lambda: (_named("empty"),))),))
    fails("--trace-ops .*: No such file", ConfigError, trace_ops=tmp_path / "none" / "ops")


def _named(backend: str) -> type[Backend]:
    class Empty(Backend):
        name = backend

    return Empty


def test_other_kernels_are_refused() -> None:
    with pytest.raises(ImageError, match="-o assign=native needs a vmlinux with its symbols"):
        boot(kernel("echo", "echo"), BootOptions(options={"assign": "native"}))
    with pytest.raises(ConfigError, match="takes its op table from the backend"):
        boot(None, BootOptions(options={"assign": "native"}))


def test_a_platform_without_pages_says_so() -> None:
    class Bare(Native):
        name = "bare"
        paravirt_stub_pages = None  # type: ignore[assignment]

    plugin = SimpleNamespace(__name__="bare", paravirt_backends=hookimpl(lambda: (Bare,)))
    fails("backend 'bare' gives no pages", PluginError, backend="bare", plugins=(plugin,), count_ops=True)


def test_a_backend_may_not_define_the_option() -> None:
    from pydantic import BaseModel

    class Model(BaseModel):
        assign: str = ""

    class Greedy(Native):
        name = "greedy"
        Options = Model

    plugin = SimpleNamespace(__name__="greedy", paravirt_backends=hookimpl(lambda: (Greedy,)))
    fails("its options define 'assign', which is the framework's own", PluginError, backend="greedy",
          plugins=(plugin,))


def test_the_example_implements_every_mmu_op() -> None:
    import importlib.util

    from paravirt.forms import form_of
    from paravirt.hookspecs import mmu

    spec = importlib.util.spec_from_file_location("python_mmu", EXAMPLES / "python_mmu.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    ops: Iterable[str] = [name for name, value in vars(mmu).items() if hasattr(value, "paravirt_spec")]
    in_guest = {name for name in ops if form_of(getattr(example.PythonMmu, name)) is not None}
    assert in_guest == {"kmap_atomic_pte"}
