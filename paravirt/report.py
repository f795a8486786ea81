"""What a boot prints on stderr: its steps, its cost, its screen, and the machine where it stopped."""

from __future__ import annotations

from typing import TextIO

from paravirt.errors import printable
from paravirt.guest import Guest
from paravirt.machine import layout, paging
from paravirt.record import Record
from paravirt.steps import Step

REGISTERS = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
MAX_RUNS = 40
MAX_COLUMNS = 256
CHOOSING = ("load_plugins", "load_image", "paravirt_probe")


class StepPrinter:
    """Prints each step as a line when it is over. The first ones wait for the machine: until then a mistake in
    the command is likely, and its message should stand alone."""

    def __init__(self, out: TextIO, *, enabled: bool) -> None:
        self._out, self._enabled, self._begun = out, enabled, False
        self._held: list[Step] = []

    def step(self, step: Step) -> None:
        if not self._enabled:
            return
        self._held.append(step)
        if step.name in CHOOSING:
            return
        try:
            self._print()
        except BrokenPipeError:  # nobody reads stderr any more; the guest may have its readers still
            self._enabled = False

    def _print(self) -> None:
        if not self._begun:
            self._begun = True
            print(f"{'step':<26} {'kind':<14} {'instructions':>12} {'traps':>6}  where", file=self._out)
        for step in self._held:
            call = f"ops.{step.op}" if step.op else step.name
            print(f"{call:<26} {step.kind:<14} {step.instructions:>12} {step.traps:>6}  {printable(step.where)}",
                  file=self._out, flush=True)
        self._held.clear()

    def close(self) -> None:
        self._enabled = False


def print_stats(record: Record, out: TextIO) -> None:
    """What the run cost."""
    counts = record.counts
    exceptions = ", ".join(f"{vector}: {count}" for vector, count in counts.exceptions.items())
    engine = record.engine
    seams = ", ".join(f"{name} {form}" for name, form in engine.seams.items()) if engine else ""
    for name, value in (
        ("engine", f"{engine.name} ({seams})" if engine else "none"),
        ("instructions", record.instructions), ("virtual time", f"{record.virtual_ns / 1e9:.6f} s"),
        ("traps", counts.traps), ("port I/O", counts.port_io), ("interrupts", counts.interrupts),
        ("exceptions", exceptions or "none"), ("patched sites", counts.patched_sites),
        ("wall time", f"{record.host.wall_seconds:.3f} s"), ("memory", f"{record.host.max_rss_kib >> 10} MiB"),
        ("state hash", record.state_hash),
        ("end state", record.end_state["digest"] if record.end_state else "none"),
    ):
        print(f"{name:>14}: {value}", file=out)
    for name, value in counts.backend.items():
        print(f"{name:>14}: {value}", file=out)
    _print_ops(counts.ops, counts.ops_counted, out)


def _print_ops(ops: dict[str, int], counted: str, out: TextIO) -> None:
    print(f"{'ops':>14}: {sum(ops.values())} ({counted} functions)" if counted == "host" else
          f"{'ops':>14}: {sum(ops.values())}", file=out)
    for name, count in sorted(ops.items(), key=lambda row: (-row[1], row[0])):
        print(f"{count:>14}  {name}", file=out)


def print_state(guest: Guest, record: Record, out: TextIO) -> None:
    """Registers, address space and op counts at the moment the run stopped."""
    vcpu = guest.machine.vcpu
    for row in (REGISTERS[:4], REGISTERS[4:]):
        print("  ".join(f"{name} {vcpu.reg(REGISTERS.index(name)):08x}" for name in row), file=out)
    eip = vcpu.eip
    print(f"eip {eip:08x}  eflags {vcpu.eflags:08x}  cpl {vcpu.cpl}  {guest.machine.symbolize(eip)}", file=out)
    print("  ".join(f"cr{n} {vcpu.cr(n):08x}" for n in (0, 2, 3, 4)), file=out)
    print("  ".join(f"{name} {vcpu.segment(i).selector:04x}" for i, name in enumerate(SEGMENTS)), file=out)
    for name, offset in (("gdtr", layout.GDTR), ("idtr", layout.IDTR), ("ldtr", layout.LDTR), ("tr", layout.TR)):
        table = vcpu.table(offset)
        print(f"{name:<4} {table.selector:04x} base {table.base:08x} limit {table.limit:x}", file=out)
    tables = vcpu.tables()
    if tables.cr0 & paging.CR0_PG:
        runs = paging.mappings(guest.machine.ram, tables, 0, 1 << 32)
        print(f"address space ({len(runs)} ranges):", file=out)
        for run in runs[:MAX_RUNS]:
            rights = "".join(letter if has else "-" for letter, has in
                             (("w", run.writable), ("x", run.executable), ("u", run.user)))
            print(f"  {run.start:08x}-{run.end - 1:08x} r{rights}", file=out)
        if len(runs) > MAX_RUNS:
            print(f"  ... {len(runs) - MAX_RUNS} more", file=out)
    else:
        print("paging is off", file=out)
    if guest.vga_text is not None and any(guest.vga_text()):
        print_screen(guest, out)
    _print_ops(record.counts.ops, record.counts.ops_counted, out)


def print_screen(guest: Guest, out: TextIO) -> None:
    """The text screen, without the blank lines at its end."""
    if guest.vga_text is None:
        print("screen: this platform has none", file=out)
        return
    lines = guest.vga_text()
    last = max((number for number, line in enumerate(lines, 1) if line), default=0)
    print("screen:" if last else "screen: blank" if lines else "screen: in a graphics mode", file=out)
    for line in lines[:last]:
        print(f"  {printable(line, MAX_COLUMNS)}".rstrip(), file=out)
