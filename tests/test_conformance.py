"""The conformance suite passes on native, and fails on everything that is not native.

A suite that a broken op passes is worth nothing. So each op of native is broken, when the kernel already stands, in
each of these ways: it does nothing, returns a wrong result, returns 0 and does nothing, changes a register that a
caller keeps. The cases of that op must fail, and name it; a mutant that survives stands in a table with its reason.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import pytest

from paravirt.conformance.bench import Bench
from paravirt.conformance.case import Result, Verdict, absent, run_case
from paravirt.conformance.suite import all_cases, by_op, cases_of, report, verdict
from paravirt.forms import CLOBBERS, NOP, MachineCode, Null, form_of, machine_code
from paravirt.hookspecs import op_infos
from paravirt_native.plugin import Native
from paravirt_native.table import NativeOps
from tests.mutants import backend_plugin
from tests.partial import partial_mutants

ROOT = Path(__file__).resolve().parent.parent
NOTHING, WRONG, ZERO = "does nothing", "wrong result", "returns 0"
CLOBBER, DECLARED, SOUND = "clobbers", "clobbers declared", "sound"
CODE = MappingProxyType({NOTHING: b"\xc3", WRONG: bytes.fromhex("b8 5a a5 5a 5a ba a5 5a 5a 5a c3"),
                         ZERO: bytes.fromhex("31 c0 31 d2 c3")})
CALLEE_SAVED = (3, 6, 7, 5)  # EBX, ESI, EDI, EBP by ModRM number
NEVER_BACK = {"machine_restart", "machine_halt", "machine_power_off", "machine_crash_shutdown",
              "machine_emergency_restart"}
BY_DEFINITION = "the machine has nothing that this op could change"
SURVIVORS = {
    ("wbinvd", NOTHING): f"{BY_DEFINITION}: no cache differs from memory",
    ("io_delay", NOTHING): f"{BY_DEFINITION} but time, and no time at all is the shortest of delays",
    **{(op, NOTHING): "a no-op by definition: there is no other CPU" for op in (
        "smp_prepare_boot_cpu", "smp_prepare_cpus", "smp_cpus_done", "smp_send_stop", "smp_send_reschedule")},
    ("flush_tlb_kernel", "keeps global pages"): "libunicorn drops global pages with the others when CR3 is loaded",
    ("smp_call_function_mask", ZERO): "no mutant: without another CPU, returning 0 is all that it does",
}


def _applies(op: str) -> bool:
    form = form_of(getattr(NativeOps, op))
    return not isinstance(form, Null) and not absent(Native(), op)


def _mutants() -> list[tuple[str, str]]:
    """Every way to break every op of native that its platform has a use for."""
    made = []
    for op, info in op_infos().items():
        form = form_of(getattr(NativeOps, op))
        if not _applies(op):
            continue
        if form != NOP and not (isinstance(form, MachineCode) and not form.code):
            made.append((op, NOTHING))
        if info.result_words:
            made += [(op, WRONG), (op, ZERO)]
        if op not in NEVER_BACK:
            made.append((op, CLOBBER))
        if getattr(form, "clobbers", 7) != 7 and not info.jumped:
            made.append((op, DECLARED))
    return made + list(partial_mutants())


def _break(op: str, how: str) -> Callable[[Bench], None]:
    """Replaces an op when the kernel stands: the boot is that of a sound backend, and only the cases can tell."""

    def prepare(bench: Bench) -> None:
        slot, at, keep = bench.slot, bench.code - 512, bench.frame + 4096 - 64
        if how in CODE:
            code = CODE[how]
        elif (op, how) in partial_mutants():
            code = partial_mutants()[op, how]
        else:
            if how == DECLARED:
                results = (0, 2)[: slot.info.result_words]
                kept = [each for each in (1, 2, 0) if not slot.clobbers & CLOBBERS[each]]
                register = next(each for each in kept if each not in results)
            else:
                register = CALLEE_SAVED[slot.number % len(CALLEE_SAVED)]
            spoil = b"\x90" * 5 if how == SOUND else bytes([0xB8 | register]) + struct.pack("<I", 0x0BADC0DE)
            target = bench.target()
            if slot.info.jumped:
                code = spoil + b"\xe9" + struct.pack("<i", target - (at + 10))
            else:  # the return address is kept aside, so that stack arguments are where they were
                call = b"\x8f\x05" + struct.pack("<I", keep) + b"\xe8" + struct.pack("<i", target - (at + 11))
                code = call + spoil + b"\xff\x25" + struct.pack("<I", keep)
        bench.write_code(at, code)
        slot.form, slot.address, slot.wrapped = MachineCode(code, slot.clobbers), at, False

    return prepare


def _failures(op: str, how: str) -> list[Result]:
    """Failed cases of a mutant, at most one."""
    for each in cases_of(op):
        result = run_case(each, "native", prepare=_break(op, how))
        if result.verdict is Verdict.FAIL:
            return [result]
    return []


@pytest.mark.parametrize(("op", "how"), _mutants())
def test_a_broken_op_fails_its_cases(op: str, how: str) -> None:
    failures = _failures(op, how)
    if (op, how) in SURVIVORS:
        assert not failures, f"no survivor any more: {failures}"
        return
    assert failures, f"{op} {how}, and no case of {[each.name for each in cases_of(op)]} failed"
    assert failures[0].op == op
    assert "expected" in failures[0].detail and "got" in failures[0].detail, failures[0].detail
    assert op in "\n".join(report(failures))


@pytest.mark.parametrize("op", sorted({op for op, _ in _mutants()}))
def test_the_replacement_itself_is_harmless(op: str) -> None:
    """The control: by the same detour, but with nothing spoilt, every case passes."""
    results = [run_case(each, "native", prepare=_break(op, SOUND)) for each in cases_of(op)]
    assert {each.verdict for each in results} == {Verdict.PASS}, results


def test_each_op_has_a_case() -> None:
    assert {each.op for each in all_cases()} == set(op_infos())
    assert len({(each.op, each.name) for each in all_cases()}) == len(all_cases())


def test_no_survivor_is_idle() -> None:
    assert set(SURVIVORS) <= set(_mutants())
    assert all(len(reason) > 20 for reason in SURVIVORS.values())


# ---------------------------------------------------------------------- whole backends

@pytest.mark.parametrize(("op", "form"), [
    ("clts", machine_code("")), ("save_fl", machine_code("31 c0")), ("set_pte", NOP), ("write_cr3", NOP),
    ("read_cr2", machine_code("0f 20 d0 31 c9", clobbers=1)),
])
def test_a_broken_backend_fails(op: str, form: object) -> None:
    """Broken from the start: the kernel may not even get there, and that is told too."""
    results = [run_case(each, "mutant", (backend_plugin({op: form}),)) for each in cases_of(op)]
    assert verdict(results) is Verdict.FAIL, results


def test_a_missing_op_is_missing() -> None:
    """Only that one, although the name of one op may end with that of another."""
    for gone, other in (("halt", "safe_halt"), ("safe_halt", "halt")):
        plugins = (backend_plugin({gone: None}),)
        assert run_case(cases_of(gone)[0], "mutant", plugins).verdict is Verdict.MISSING
        assert run_case(cases_of(other)[0], "mutant", plugins).verdict is Verdict.FAIL


def test_absent_ops_do_not_apply() -> None:
    for op, reason in (("apic_read", "local APIC"), ("read_pmc", "counters"), ("post_allocator_init", "NULL")):
        result = run_case(cases_of(op)[0], "native")
        assert result.verdict is Verdict.NOT_APPLICABLE
        assert reason in result.detail


def test_the_report_has_a_line_for_each_op() -> None:
    rows = [Result("clts", "a", Verdict.PASS), Result("clts", "b", Verdict.FAIL, "CR0: expected 1, got 2"),
            Result("halt", "c", Verdict.MISSING, "no implementation"),
            Result("cpu_up", "d", Verdict.NOT_APPLICABLE, "x")]
    assert list(by_op(rows)) == ["clts", "halt", "cpu_up"]
    assert report(rows) == [
        "clts                     fail            2 cases  b: CR0: expected 1, got 2",
        "halt                     missing         1 case  no implementation",
        "cpu_up                   not applicable  1 case  x",
        "1 fail, 1 missing, 1 not applicable",
    ]


def _pytest(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    installed = any(point.value == "paravirt.testing.plugin" for point in metadata.entry_points(group="pytest11"))
    load = () if installed else ("-p", "paravirt.testing.plugin")
    return subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *load, *arguments],
                          cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize(("backend", "summary"), [
    ("native", "99 pass, 5 not applicable"),  # NULL: post_allocator_init; no local APIC, no performance counters
    ("vmi", "99 pass, 5 not applicable"),  # the same
    ("xen", "99 pass, 5 not applicable"),  # NULL: irq_enable_sysexit; no local APIC, no performance counters
])
def test_a_backend_conforms(backend: str, summary: str) -> None:
    """As documented: the whole suite, by its package's name."""
    done = _pytest("--pyargs", "paravirt.conformance", "--paravirt-backend", backend)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert f"paravirt conformance: backend {backend}" in done.stdout
    assert "irq_enable               pass            2 cases" in done.stdout
    assert "read_pmc                 not applicable  1 case  the CPU has no performance counters" in done.stdout
    assert summary in done.stdout


FIXTURES = '''
def test_boot(boot, backend):
    record = boot(append="noselftest panic", count_ops=True)
    assert record.backend == backend
    assert record.outcome.kind == "crash" and "panic" in boot.output
    boot.assert_ops(load_gdt=1)

def test_recorder(boot, op_recorder):
    op_recorder("write_cr3", "load_gdt", "set_lazy_mode")
    boot(append="panic", plugins=(op_recorder.plugin,))
    assert op_recorder.counts["write_cr3"] >= 1 and op_recorder.calls[0][0] == "write_cr3"
    op_recorder.assert_counts(load_gdt=1)

def test_each(on_each_backend):
    state = on_each_backend("01 c8 89 43 04", eax=2, ecx=3)    # add eax, ecx; mov [ebx + 4], eax
    assert state.registers["eax"] == 5 and state.memory[:8] == bytes([0, 0, 0, 0, 5, 0, 0, 0])
    assert state.registers["ebx"] == 0 and state.flags & 0x40 == 0

def test_machine(machine):
    machine.ram.write(0x1000, b"x")
    assert machine.ram.read(0x1000, 1) == b"x"
'''


def test_the_fixtures_work(tmp_path: Path) -> None:
    """On every installed backend, as nobody names one."""
    (tmp_path / "test_fixtures.py").write_text(FIXTURES)
    path = ":".join(str(ROOT / part) for part in (".", "backends/native", "backends/xen", "backends/vmi"))
    done = _pytest("-q", "-o", f"pythonpath={path.replace(':', ' ')}", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout, "two tests run on each of the three backends that are installed here"
