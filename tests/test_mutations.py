"""Every op is needed: break one, and the end state, a self-test line or the outcome tells.

A kernel that boots although an op does nothing has not used the op, or something behind its back does the work.
So one native op after another is replaced, by nothing and by a wrong result; what goes unnoticed must stand in
a table here with the reason. The same for the calls that start_kernel itself makes: leaving one out must show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import pytest

from paravirt import boot_sequence
from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.forms import NOP, MachineCode, Null, form_of, machine_code
from paravirt.hookspecs import op_infos
from paravirt.options import BootOptions
from paravirt.record import Record
from tests.mutants import backend_plugin

WRONG = {1: machine_code("b8 5a a5 5a 5a"), 2: machine_code("b8 5a a5 5a 5a ba a5 5a 5a 5a")}
MAX_INSTRUCTIONS = 100_000_000  # a boot takes a third of that

# Not reached by a boot that ends in power off: these command lines reach them.
REACHED_BY = {
    "machine_restart": "reboot", "machine_emergency_restart": "panic panic=1", "machine_halt": "halt",
    "machine_crash_shutdown": "panic",
}
ONE_CPU = "the machine has one CPU"
NO_APIC = "the machine has no local APIC"
EXCUSED = {
    "patch": "changes no result by design; test_boot.py asserts what it does by the count of patched sites",
    "banner": "prints; test_prints_show_on_the_console asserts the line",
    "wbinvd": "the machine has no caches whose contents could differ from memory",
    "io_delay": "costs time, which no result depends on",
    "store_gdt": "read by the double-fault report alone; conformance",
    "store_idt": "for suspend, which the kernel has not; conformance",
    "store_tr": "for suspend, which the kernel has not; conformance",
    "read_pmc": "the CPU has no performance counters, so nothing calls it",
    "console_read": "nothing reads the console in a run without input",
    "machine_shutdown": "called by kexec alone, which the kernel has not",
    "apic_write": NO_APIC, "apic_write_atomic": NO_APIC, "apic_read": NO_APIC,
    "alloc_pd_clone": "for kernels without PAE", "flush_tlb_others": ONE_CPU,
    "smp_prepare_boot_cpu": ONE_CPU, "smp_prepare_cpus": ONE_CPU, "cpu_up": ONE_CPU, "smp_cpus_done": ONE_CPU,
    "smp_send_stop": ONE_CPU, "smp_send_reschedule": ONE_CPU, "smp_call_function_mask": ONE_CPU,
}
PRINTS = {"banner": "Booting paravirtualized kernel on bare hardware", "console_write": "selftest: "}
EXCUSED["console_write"] = "prints; test_prints_show_on_the_console asserts its lines"


def run(append: str = "", ops: Mapping[str, object] = MappingProxyType({})) -> tuple[Record, str]:
    output = bytearray()
    plugin = backend_plugin(ops)
    options = BootOptions(backend="mutant", plugins=(plugin,), append=append, max_instructions=MAX_INSTRUCTIONS,
                          memory=32 << 20)
    return boot(None, options, Console(output.extend)), output.decode("utf-8", "replace")


@cache
def sound(append: str = "") -> tuple[Record, str]:
    return run(append)


def told(mutant: Record, reference: Record) -> bool:
    """Outcome or end state differ; a failed self-test is in both."""
    return mutant.outcome.kind != reference.outcome.kind or mutant.end_state != reference.end_state


def native_form(name: str) -> Any:
    from paravirt_native.table import NativeOps

    return form_of(getattr(NativeOps, name))


def mutations() -> list[tuple[str, str]]:
    cases = []
    for name, info in op_infos().items():
        form = native_form(name)
        if not isinstance(form, Null) and form != NOP:  # where native does nothing, nothing cannot be told
            cases.append((name, "no effect"))
        if info.result_words:
            cases.append((name, "wrong result"))
    return cases


@pytest.mark.parametrize(("name", "how"), mutations())
def test_a_broken_op_is_told(name: str, how: str) -> None:
    form: MachineCode = NOP if how == "no effect" else WRONG[op_infos()[name].result_words]
    append = REACHED_BY.get(name, "")
    reference, _ = sound(append)
    mutant, console = run(append, {name: form})
    if name in EXCUSED:
        return  # whether it shows is not the point; that it does no harm to the host is
    assert told(mutant, reference), f"{name} with {how}: {mutant.outcome.reason}\n{console[-2000:]}"


def test_no_excuse_is_idle() -> None:
    """Each op of the table exists, and is one that can be broken on native."""
    assert set(EXCUSED) <= {name for name, _ in mutations()} | {"smp_prepare_boot_cpu", "flush_tlb_others",
                                                                "alloc_pd_clone"}
    assert all(len(reason) > 10 for reason in EXCUSED.values())
    assert not set(EXCUSED) & set(REACHED_BY)


@pytest.mark.parametrize("name", PRINTS)
def test_prints_show_on_the_console(name: str) -> None:
    assert PRINTS[name] in sound()[1]
    assert PRINTS[name] not in run(ops={name: NOP})[1]


@pytest.mark.parametrize(("append", "kind"), [
    ("reboot", "reboot"), ("halt", "halt"), ("panic", "crash"), ("panic panic=1", "reboot"), ("", "poweroff"),
])
def test_the_ends_that_are_compared_with(append: str, kind: str) -> None:
    assert sound(append)[0].outcome.kind == kind


# ---------------------------------------------------------------------- the calls of start_kernel

CALLED = {
    "irq_disable": "the boot protocol enters with interrupts off",
    "arch_setup": "native has nothing to set up",
    "memory_setup": "",
    "pagetable_setup_start": "native builds its tables without preparation",
    "pagetable_setup_done": "native builds its tables without completion",
    "write_cr3": "",
    "flush_tlb_kernel": "the boot page tables have no global pages, and the load of CR3 has dropped all others",
    "post_allocator_init": "NULL on native",
    "init_IRQ": "",
    "get_wallclock": "",
    "get_cpu_khz": "",
    "irq_enable": "",
    "time_init": "",
    "patch": "changes no result by design; the count of patched sites tells",
    "save_fl": "around patching the flag is saved and put back; the kernel runs with interrupts on behind it",
    "restore_fl": "",
    "banner": "prints; the console tells",
}


class Without:
    """Ops with one that start_kernel calls left out."""

    def __init__(self, ops: Any, name: str) -> None:
        self._ops, self._name = ops, name

    def __getattr__(self, name: str) -> Callable[..., Any]:
        real: Callable[..., Any] = getattr(self._ops, name)
        return (lambda *arguments: 0) if name == self._name else real


@pytest.mark.parametrize("name", [name for name, reason in CALLED.items() if not reason])
def test_start_kernel_does_the_work_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, real = sound()[0], boot_sequence.start_kernel
    monkeypatch.setattr(boot_sequence, "start_kernel",
                        lambda ops, kernel: real(Without(ops, name), kernel))  # type: ignore[arg-type]
    mutant, console = run()
    assert told(mutant, reference), f"without {name}: {mutant.outcome.reason}\n{console[-2000:]}"


def test_all_calls_of_start_kernel_are_covered() -> None:
    from tests.test_start_kernel import ORDER

    assert {call.removeprefix("ops.") for call in ORDER if call.startswith("ops.")} == set(CALLED)
