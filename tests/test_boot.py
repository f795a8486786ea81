"""The reference kernel boots, tests itself, and leaves the same end state however its ops are implemented.

Patching, counting and the engine are ways to run the same thing: `end_state` and the console (time stamps and
measured frequencies apart) may not depend on them. Counts may, and say by how much.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import paravirt
from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.errors import ImageError
from paravirt.forms import hookimpl
from paravirt.hookspecs import op_infos
from paravirt.machine import accel
from paravirt.options import BootOptions
from paravirt.record import Record

VARIANTS = {
    "patched": BootOptions(),
    "noreplace-paravirt": BootOptions(replace_paravirt=False),
    "count-ops": BootOptions(count_ops=True),
    "portable": BootOptions(engine="portable"),
    **{f"no {name}": BootOptions(no_accel=(name,)) for name in accel.NAMES},
}


@cache
def booted(variant: str) -> tuple[Record, str]:
    output = bytearray()
    record = boot(None, VARIANTS[variant], Console(output.extend))
    return record, output.decode()


def normal(console: str) -> list[str]:
    """Lines without time stamps; without what is measured in virtual time, or counts patched sites."""
    lines = [re.sub(r"^\[ *\d+\.\d+\] ", "", line) for line in console.splitlines()]
    return [line for line in lines if not re.search(r"MHz processor|BogoMIPS|sites patched", line)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_powers_off_with_the_same_end_state(variant: str) -> None:
    record, console = booted(variant)
    expected, expected_console = booted("patched")
    assert (record.outcome.kind, record.exit_code) == ("poweroff", 0), record.outcome.reason
    assert normal(console) == normal(expected_console)
    assert record.end_state is not None
    assert record.end_state == expected.end_state


def test_the_end_state_holds_what_it_should() -> None:
    state = booted("patched")[0].end_state
    assert state is not None
    assert len(state["selftest"]) >= 20 and all(state["selftest"].values())
    assert len(state["spaces"]) >= 2
    assert any(process["exited"] and process["status"] for process in state["processes"]), "none was killed"
    user = [row for space in state["spaces"] for row in space["ranges"] if row["start"] < 0xC0000000]
    assert any(row["prot"] == 0b1101 and "sha256" in row for row in user), "no read-only text with contents"
    assert any(row["prot"] & 0b1110 == 0b1000 and "sha256" in row for row in user), "no data that a fork shares"


def test_programs_find_what_unix_has() -> None:
    """Pipes, handlers, mappings and the vDSO, each with its errors, from user mode."""
    record, console = booted("patched")
    assert record.end_state is not None
    assert {"pipes", "pipe errors", "signal handlers", "fault handlers", "interrupted system calls",
            "bad signal frames", "mmap", "mprotect", "munmap", "vdso"} <= set(record.end_state["selftest"])
    assert "vdso: nosegneg clear" in console.splitlines(), "segments reach 4 GiB on bare hardware"
    assert console.count("bad frame for the return") == 3, "a lost stack segment; bad CS and SS in a signal frame"


BENCHMARKS = ("nothing", "null syscall", "null syscall (vdso)", "signal", "fork", "fork+exec", "pipe latency",
              "pipe without a switch", "context switch", "page fault", "protection fault", "mmap", "mprotect")


def run_with(append: str) -> tuple[Record, str]:
    output = bytearray()
    record = boot(None, BootOptions(append=append), Console(output.extend))
    return record, output.decode()


def test_the_benchmark_is_deterministic() -> None:
    record, console = run_with("noselftest init=/bench")
    assert record.outcome.kind == "poweroff", record.outcome.reason
    times = dict(re.findall(r"^bench: (.*) [1-9]\d* operations took (\d+) ns each\r$", console, re.MULTILINE))
    assert tuple(times) == BENCHMARKS
    cost = {name: int(ns) for name, ns in times.items()}
    assert 0 < cost["context switch"] < cost["pipe latency"] / 2
    assert cost["null syscall"] < cost["signal"] < cost["fork"] < cost["fork+exec"]
    assert cost["page fault"] < cost["mmap"], "four pages of it are touched"
    again, same = run_with("noselftest init=/bench")
    assert (same, again.repeatable()) == (console, record.repeatable())


def test_a_double_fault_ends_in_its_task() -> None:
    """A push without a stack: the page fault cannot be delivered, and another task's stack tells of it."""
    record, console = run_with("doublefault")
    assert (record.outcome.kind, record.exit_code) == ("crash", 70)
    assert "kernel panic: double fault" in record.outcome.reason
    assert re.search(r"eip = c01[0-9a-f]{5}, esp = fffff000, eflags = [0-9a-f]{8}, cr2 = ffffeffc", console)


def test_a_missing_program_is_told() -> None:
    assert "No init found (error -2)" in run_with("noselftest init=/none")[0].outcome.reason


def test_the_log_reads_like_linux() -> None:
    console = booted("patched")[1]
    assert re.search(r"^\[    0\.000000\]  BIOS-e820: 0+ - 0+9fc00 \(usable\)", console, re.MULTILINE)
    assert "Booting paravirtualized kernel on bare hardware" in console
    assert f"paravirt: {booted('patched')[0].counts.patched_sites} sites patched" in console


def test_patching_shows_in_the_counts_alone() -> None:
    assert booted("patched")[0].counts.patched_sites > 100
    assert booted("noreplace-paravirt")[0].counts.patched_sites == 0


def test_counting_changes_nothing_but_the_counts() -> None:
    plain, counted = booted("patched")[0], booted("count-ops")[0]
    assert counted.instructions == plain.instructions
    assert counted.state_hash == plain.state_hash
    assert (plain.counts.ops_counted, counted.counts.ops_counted) == ("host", "all")
    # every op that a PC without a local APIC and with one CPU has a use for is reached
    for name in ("set_pte", "set_pmd", "set_pud", "write_cr3", "save_fl", "irq_disable", "iret", "load_esp0", "clts",
                 "safe_halt", "write_idt_entry", "load_tls", "set_lazy_mode", "read_tsc", "console_write", "patch"):
        assert counted.counts.ops[name] > 0, name
    assert set(counted.counts.ops) <= set(op_infos())
    assert plain.counts.ops == {"patch": counted.counts.ops["patch"]}


def test_two_boots_give_equal_records() -> None:
    again = boot(None, VARIANTS["patched"], Console())
    assert again.repeatable() == booted("patched")[0].repeatable()


def test_python_and_c_delivery_are_the_same_machine() -> None:
    """Same clock, same exits: everything but who delivers exceptions is equal to the last bit."""
    assert booted("no delivery")[0].state_hash == booted("patched")[0].state_hash
    assert booted("no stores")[0].state_hash == booted("patched")[0].state_hash


def test_every_step_is_in_the_record() -> None:
    steps = {step.name: step for step in booted("count-ops")[0].steps}
    assert list(steps)[:7] == ["load_plugins", "load_image", "paravirt_probe", "paravirt_devices",
                               "paravirt_build_guest", "paravirt_install_ops", "paravirt_machine_ready"]
    assert steps["write_cr3"].kind == "guest code" and steps["write_cr3"].op == "write_cr3"
    assert steps["pagetable_init"].instructions > 100_000
    assert steps["pagetable_init"].ops["set_pte"] > 1000
    assert steps["patch"].ops["patch"] == booted("count-ops")[0].counts.patched_sites
    assert steps["post_allocator_init"].kind == "NULL"
    assert steps["get_cpu_khz"].traps > 100, "the PIT is polled"


@pytest.mark.parametrize("step", ["pagetable_setup_done", "trap_init", "paravirt_build_guest"])
def test_until_stops_behind_a_step(step: str) -> None:
    record = boot(None, BootOptions(until=step), Console())
    assert (record.outcome.kind, record.exit_code) == ("stopped", 0)
    assert record.steps[-1].name == step


class Observer:
    """Wraps a host function, guest code and a function of the kernel."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[Any, Any]]] = {}

    def _note(self, name: str, argument: Any, result: Any) -> Any:
        self.seen.setdefault(name, []).append((argument, result))
        return result

    @hookimpl(wrapper=True)
    def patch(self, site_type: int):  # type: ignore[no-untyped-def]
        return self._note("patch", site_type, (yield))

    @hookimpl(wrapper=True)
    def read_cr0(self):  # type: ignore[no-untyped-def]
        return self._note("read_cr0", None, (yield))

    @hookimpl(wrapper=True)
    def set_pte_at(self, ptep: int, pte: int):  # type: ignore[no-untyped-def]
        return self._note("set_pte_at", (ptep, pte), (yield))

    @hookimpl(wrapper=True)
    def memory_setup(self):  # type: ignore[no-untyped-def]
        return self._note("memory_setup", None, (yield))


def test_observers_see_real_arguments_and_results() -> None:
    observer = Observer()
    record = boot(None, BootOptions(plugins=(observer,)), Console())
    assert record.outcome.kind == "poweroff", record.outcome.reason
    assert record.end_state == booted("patched")[0].end_state
    assert len(observer.seen["patch"]) == record.counts.ops["patch"]
    assert all(isinstance(result, int) and result & 0x80000001 == 0x80000001 for _, result in observer.seen["read_cr0"])
    assert all(pte for (_, pte), _ in observer.seen["set_pte_at"])
    assert isinstance(observer.seen["memory_setup"][0][1], int)


def test_the_public_interface() -> None:
    record = paravirt.boot(backend="native", append="noselftest")
    assert record.outcome.kind == "poweroff"
    with paravirt.Machine() as machine:
        assert machine.ram.size == 128 << 20


def test_an_initrd_is_bytes_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "initrd"
    file.write_bytes(b"some initrd")
    records = [boot(None, BootOptions(initrd=initrd)) for initrd in (file, b"some initrd")]
    assert records[0].repeatable() == records[1].repeatable()
    with pytest.raises(ImageError, match="cannot read the initrd"):
        boot(None, BootOptions(initrd=tmp_path / "missing"))
