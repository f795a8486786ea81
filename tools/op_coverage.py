"""Which op the reference kernel reaches, and where; what it does not reach, and why.

Three kinds of boots are counted on native: the boot up to the first test, the programs that then run (their kernel's
own tests left out, which call ops to test them), and the ends that a command line asks for. Every op is in the
conformance suite as well; those that the kernel does not reach are only there, and REASONS says why. The page that
this writes, docs/op-coverage.md, is held to the runs by a test.

Ref: the callers in Linux 2.6.23 are named in paravirt/hookspecs/.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a script, which has only its own folder on the path
    sys.path[:0] = [str(ROOT), str(ROOT / "backends" / "native")]
from paravirt import boot_sequence  # noqa: E402
from paravirt.conformance.suite import cases_of  # noqa: E402
from paravirt.console import Console  # noqa: E402
from paravirt.hookspecs import op_infos  # noqa: E402
from paravirt.options import BootOptions  # noqa: E402
from paravirt.record import Record  # noqa: E402

PAGE = ROOT / "docs" / "op-coverage.md"
FIRST_TEST, FIRST_PROGRAM = "selftest: kernel threads ok", "Running /init"
ENDS = ("reboot", "halt", "panic", "panic panic=1", "oops", "doublefault")

NO_APIC = "the PC has no local APIC, so Linux would not call it either"
ONE_CPU = "there is one CPU"
SUSPEND = "Linux calls it to suspend, which the kernel cannot"
REASONS: Mapping[str, str] = MappingProxyType({
    "post_allocator_init": "NULL on native: start_kernel calls it where a platform has one",
    "set_wallclock": "Linux calls it from its NTP code, which the kernel has not; its self-test calls it",
    "write_cr2": SUSPEND + "; its self-test calls it",
    "read_pmc": "the CPU has no performance counters",
    "store_idt": SUSPEND,
    "store_tr": SUSPEND,
    "apic_write": NO_APIC, "apic_write_atomic": NO_APIC, "apic_read": NO_APIC,
    "setup_boot_clock": NO_APIC, "setup_secondary_clock": NO_APIC, "startup_ipi_hook": NO_APIC,
    "flush_tlb_others": ONE_CPU,
    "alloc_pd_clone": "for page tables of two levels; the kernel has three",
    "console_read": "called by read on a console; no program of the kernel's reads there, its self-test does",
    "cpu_up": ONE_CPU + "; its self-test asks for another one, which must fail",
    "smp_send_stop": "panic calls it, behind the report of the crash that ends the run on native",
    "smp_send_reschedule": ONE_CPU,
    "smp_call_function_mask": ONE_CPU,
})


def run(append: str, mark: str | None = None) -> Record:
    pattern = re.compile(mark.encode()) if mark else None
    return boot_sequence.boot(None, BootOptions(append=append, count_ops=True, mark=pattern), Console())


def reached() -> dict[str, str]:
    """Where the kernel reaches each op first: ``boot``, ``programs``, or what stands on the command line."""
    found: dict[str, str] = {}
    whole = run("", f"{FIRST_TEST}|{FIRST_PROGRAM}")
    before_tests, before_programs = (mark.counts.ops for mark in whole.marks)
    for op in op_infos():
        if before_tests.get(op):
            found[op] = "boot"
        elif whole.counts.ops.get(op, 0) > before_programs.get(op, 0):
            found[op] = "programs"
    for append in ENDS:
        for op in run(f"noselftest {append}").counts.ops:
            found.setdefault(op, f"`{append}`")
    return found


def page(found: Mapping[str, str]) -> str:
    """The page, from where each op was reached."""
    lines = [
        "# Where each op is reached",
        "",
        "By the reference kernel on the native backend: in its *boot*, up to the first test; by its *programs*, the",
        "user part of its self-test; or at an end that the command line asks for. What the kernel tests itself, by",
        "calling ops, is not counted. The conformance suite has cases for every op; *cases* is their number. Where",
        "nothing reaches an op, the reason stands beside it. `make pages` writes this page, and a test holds it to the",
        "runs.",
        "",
        "| op | reached by | cases | why not |",
        "|---|---|--:|---|",
    ]
    lines += [f"| `{op}` | {found.get(op, 'conformance alone')} | {len(cases_of(op))} | {REASONS.get(op, '')} |"
              for op in op_infos()]
    totals = {"the kernel": len(found), "conformance alone": len(op_infos()) - len(found)}
    return "\n".join([*lines, "", ", ".join(f"{number} by {who}" for who, number in totals.items()) + ".", ""])


def main() -> int:
    PAGE.write_text(page(reached()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
