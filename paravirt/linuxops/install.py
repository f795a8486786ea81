"""Connects what was asked for to a kernel with op tables of its own: counting, tracing, an assigned table.

All of it needs ``noreplace-paravirt`` on the kernel's command line: with call sites patched, most calls go past the
slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from paravirt.binding import Slot, bind
from paravirt.counters import OpCounters
from paravirt.errors import ConfigError, ImageError, PluginError, close_match
from paravirt.guest import Guest
from paravirt.image.elf import ElfImage
from paravirt.image.linux_ops import PAE, LinuxTables, linux_tables
from paravirt.install import connect_gate
from paravirt.linuxops.assigned import AssignedTable
from paravirt.linuxops.counting import CountingStubs
from paravirt.linuxops.pages import MAX_SLOTS, PAGE, StubPages
from paravirt.linuxops.slots import LinuxSlots
from paravirt.linuxops.tracing import TracingStubs
from paravirt.plugins import ASSIGN, Plugins
from paravirt.run import Run

UNPATCHED = "noreplace-paravirt"
INVALID_OPCODE = 6


def serve_linux(plugins: Plugins, guest: Guest, run: Run, assign: str | None) -> None:
    """Put what was asked for behind the slots of a Linux kernel; nothing, if nothing was or it has none.

    :param assign: name of the backend whose table is to stand in the kernel's place.
    :raises ParavirtError: it cannot be had for this kernel, or on this backend.
    """
    options = run.options
    wanted = [f"-o {ASSIGN}={assign}"] * (assign is not None) + ["--trace-ops"] * (options.trace_ops is not None)
    tables = _tables(guest, wanted) if wanted or options.count_ops else None
    if tables is None:
        return
    wanted = wanted or ["--count-ops"]
    pages: StubPages | None = run.call(plugins.manager.hook.paravirt_stub_pages, guest=guest)
    if UNPATCHED not in guest.command_line.split() and not (pages is not None and pages.patched):
        raise ConfigError(f"{wanted[0]}: put {UNPATCHED} on the kernel's command line (--append): "
                          "a call site that the kernel has patched does not pass its op's slot")
    if pages is None:
        raise PluginError(f"backend {run.backend!r} gives no pages to put behind the slots of a Linux kernel, "
                          f"so {wanted[0]} cannot be had")
    table, ops = _bound(plugins, guest, tables, assign, pages)
    counters = OpCounters(guest.machine.engine, enabled=False)
    bound, calls = connect_gate(guest, pages.virtual, table.table if table is not None else None, ops, counters,
                                run.steps)
    bound.patched = True  # a table may change its slots until call sites are patched, which never happens here
    if calls.stub(len(calls.host_calls)) > pages.slot_stub(0):
        raise PluginError(f"backend {assign!r}: its table has more leaves than the page of stubs has room for")
    guest.machine.engine.gate_page(pages.virtual, pages.virtual + PAGE, free=pages.slot_stub(0))
    pages.write(guest.machine.ram, pages.virtual, calls.page(len(calls.host_calls))[: pages.gate_bytes])
    stubs: CountingStubs | TracingStubs | None = None
    if options.trace_ops is not None:
        stubs = TracingStubs(guest, tables.slots, run.closing(_file(options.trace_ops)))
    elif options.count_ops:
        stubs = CountingStubs(guest.machine.engine, tables.slots, pages)
    guest.machine.engine.step_over = stubs.step_over if stubs is not None else None
    run.op_counts = stubs.counts if stubs is not None else bound.counts
    run.ops_counted = "all" if stubs is not None else "host"
    if table is not None:
        for address, data in table.writes:
            pages.write(guest.machine.ram, address, data)
        _name(guest, table)
    LinuxSlots(guest, tables.slots, pages, table.targets if table is not None else {}, stubs,
               table.take_rows if table is not None else lambda replaced: None)
    run.body = lambda: calls.run(lambda: None)


def _tables(guest: Guest, wanted: list[str]) -> LinuxTables | None:
    """The kernel's tables, if something is to be done with them."""
    image = guest.kernel.image
    if guest.kernel.note is not None:
        if wanted:
            raise ConfigError(f"{wanted[0]}: {image.path} takes its op table from the backend; "
                              "this is for kernels that bring their own")
        return None
    tables = linux_tables(image) if isinstance(image, ElfImage) else None
    if tables is not None and (tables.version != "2.6.32" or len(tables.slots) > MAX_SLOTS):
        tables = None
    if tables is None and wanted:
        raise ImageError(f"{image.path}: {wanted[0]} needs a vmlinux with its symbols and the pv_*_ops tables "
                         "of Linux 2.6.32")
    return tables


def _bound(plugins: Plugins, guest: Guest, tables: LinuxTables, assign: str | None,
           pages: StubPages) -> tuple[AssignedTable | None, Mapping[str, Slot]]:
    """The table to be assigned, and its ops."""
    if assign is None:
        return None, {}
    if assign not in plugins.backends:
        raise PluginError(f"-o {ASSIGN}: no backend {assign!r}{close_match(assign, plugins.backends)}")
    if PAE not in tables.features:
        raise ImageError(f"{guest.kernel.image.path}: -o {ASSIGN} needs a kernel with PAE: the ops' page-table "
                         "entries are 64 bits wide")
    install = getattr(plugins.backends[assign], "paravirt_install_ops", None)
    table = install(guest=guest) if install is not None else None
    if table is None:
        raise PluginError(f"-o {ASSIGN}: backend {assign!r} has no op table")
    ops = bind(plugins.manager, assign, table, whole=False)
    return AssignedTable(guest, assign, table, ops, tables.slots, pages), ops


def _name(guest: Guest, table: AssignedTable) -> None:
    """Let messages name the table's ops, and the run end where one of them cannot go on."""
    machine = guest.machine
    kernel = machine.symbolize
    machine.symbolize = lambda address: table.symbolize(address) or kernel(address)
    machine.watch_exception(INVALID_OPCODE, table.invalid_opcode)


def _file(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--trace-ops {path}: {error.strerror}") from None

