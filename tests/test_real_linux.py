"""Linux 2.6.32, built by nobody here, has its ops counted, traced and replaced, and does not notice.

What must hold, for a UP and an SMP build on one CPU: a run that is counted or traced is the run itself, console byte
for byte; with native's table or with mmu ops in Python in the place of its own it prints the same user-space lines,
those of sigreturn with bad segments among them; an op that cannot go on stops the boot and is named.

These kernels cannot be fetched: without $PARAVIRT_GUESTS the tests are skipped. test_linux_ops.py asks the same of a
kernel of the project's own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.machine.outcome import End
from paravirt.options import BootOptions
from paravirt.record import Record
from tests.mutants import backend_plugin
from tests.realguests import guest_file

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
APPEND = "console=ttyS0,115200 earlyprintk=serial,ttyS0,115200 noreplace-paravirt"
builds = pytest.mark.parametrize("build", ["up", "smp"])
CALLED = """activate_mm alloc_pd alloc_pd_clone alloc_pt clts cpuid dup_mmap exit_mmap flush_tlb_kernel flush_tlb_single
flush_tlb_user iret irq_disable irq_enable load_esp0 load_gdt load_idt load_tls load_tr_desc make_pgd make_pmd make_pte
pgd_val pmd_clear pmd_val pte_update pte_val read_cr0 read_cr2 read_cr3 read_cr4 read_msr read_tsc release_pd release_pt
restore_fl safe_halt save_fl sched_clock set_lazy_mode set_ldt set_pmd set_pte set_pte_at set_pud write_cr0 write_cr3
write_cr4 write_gdt_entry write_idt_entry write_msr""".split()


def run(build: str, tests: str = "none", **options: Any) -> tuple[Record, str]:
    output = bytearray()
    initrd = guest_file("initrd-run.gz").read_bytes()
    settings = BootOptions(backend="native", append=f"{APPEND} gtest={tests}", initrd=initrd, timeout=300, **options)
    record = boot(guest_file(f"kernels/{build}/vmlinux"), settings, Console(output.extend))
    return record, output.decode("utf-8", "replace").replace("\r", "")


def user_lines(console: str) -> list[str]:
    """What init and its programs print; the kernel's lines begin with the time."""
    assert "INIT-RUN" in console and "USERSPACE-OK" in console, console[-2000:]
    text = console[console.index("INIT-RUN"):console.index("USERSPACE-OK")]
    return [line for line in text.splitlines() if not line.startswith("[")]


@builds
def test_a_watched_run_is_the_run_itself(build: str, tmp_path: Path) -> None:
    (plain, console), (counted, other), (traced, third) = (
        run(build, **options) for options in ({}, {"count_ops": True}, {"trace_ops": tmp_path / "ops"}))
    assert plain.outcome.kind == "reboot" and console == other == third
    assert plain.instructions == counted.instructions == traced.instructions
    assert plain.virtual_ns == counted.virtual_ns == traced.virtual_ns
    assert plain.counts.exceptions == counted.counts.exceptions and plain.counts.traps == traced.counts.traps
    ops = counted.counts.ops
    assert ops == traced.counts.ops and set(CALLED) <= set(ops), set(CALLED) - set(ops)
    with (tmp_path / "ops").open() as lines:
        first = json.loads(next(lines))
    assert first["op"] == "irq_disable" and first["caller"]["symbol"].startswith("start_kernel+")


def xen(tests: str = "none", build: str = "up", **options: Any) -> tuple[Record, bytes]:
    output = bytearray()
    append = f"console=hvc0 earlyprintk=xen gexit=poweroff gtest={tests} noreplace-paravirt"
    settings = BootOptions(**{"backend": "xen", "append": append, "timeout": 300,
                              "initrd": guest_file("initrd-run.gz").read_bytes(), **options})
    return boot(guest_file(f"kernels/{build}/vmlinux"), settings, Console(output.extend)), bytes(output)


@builds
def test_a_watched_run_under_xen_is_the_run_itself(build: str, tmp_path: Path) -> None:
    """The tables are full at start_kernel; later functions find slots that Linux has changed since."""
    (plain, console), (counted, other), (traced, third) = (
        xen("core", build, **options) for options in ({}, {"count_ops": True}, {"trace_ops": tmp_path / "ops"}))
    assert plain.outcome.kind == "poweroff" and console == other == third
    assert plain.instructions == counted.instructions == traced.instructions
    assert plain.virtual_ns == counted.virtual_ns == traced.virtual_ns
    assert plain.counts.backend == counted.counts.backend == traced.counts.backend
    ops = counted.counts.ops
    assert ops == traced.counts.ops
    assert ops["set_pte"] >= 65536 and ops["make_pte"] > ops["set_pte"] and ops["iret"] > 1000
    assert {"read_cr2", "save_fl", "irq_enable", "load_gdt", "set_lazy_mode", "flush_tlb_single"} <= set(ops)


def test_a_dozen_ops_in_python_serve_it_under_xen(monkeypatch: pytest.MonkeyPatch) -> None:
    """They do straight in the hypervisor's tables what the kernel asks for by hypercall."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    (plain, console), (served, other) = xen("core"), xen(
        "core", backend="xen-python", options={"assign": "xen-python"}, plugins_file=EXAMPLES / "python_xen.toml")
    assert served.outcome.kind == plain.outcome.kind == "poweroff", served.outcome
    lines = [user_lines(text.decode().replace("\r", "")) for text in (console, other)]
    assert lines[0] == lines[1]
    assert len(served.counts.ops) == 12 and served.counts.ops["set_pte_at"] > 1000

    def hypercalls(record: Record) -> int:
        return sum(count for name, count in record.counts.backend.items() if name.startswith("xen.hypercall."))

    assert hypercalls(served) < hypercalls(plain) * 2 / 3


@builds
def test_other_tables_serve_it(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    expected = user_lines(run(build, "core")[1])
    assert any(line.startswith("sigreturn cs=b7: killed by signal") for line in expected)
    for options in ({"options": {"assign": "native"}},
                    {"options": {"assign": "python-mmu"}, "plugins_file": EXAMPLES / "python_mmu.toml"}):
        record, console = run(build, "core", **options)
        assert record.outcome.kind == "reboot", record.outcome
        assert user_lines(console) == expected


@builds
@pytest.mark.parametrize("op", ["set_pte_at", "write_cr3", "iret"])
def test_an_invalid_opcode_stops_the_boot_and_is_named(build: str, op: str) -> None:
    from paravirt.api import machine_code

    broken = backend_plugin({op: machine_code("0f 0b")})
    record, console = run(build, options={"assign": "mutant"}, plugins=(broken,))
    assert record.outcome.kind == End.CRASH.word and "INIT-RUN" not in console
    assert record.outcome.reason == f"op {op} (bytes 0f 0b) of the assigned table 'mutant': invalid opcode"


def test_a_panic_that_spins_says_why() -> None:
    output = bytearray()
    kernel = guest_file("kernels/up/vmlinux")
    record = boot(kernel, BootOptions(backend="native", append="console=ttyS0", timeout=300), Console(output.extend))
    assert record.outcome.kind == "crash" and b"Kernel panic - not syncing: " in output
    assert record.outcome.reason.startswith("kernel panic: No init found."), record.outcome
