"""``paravirt inspect``, ``plugins`` and ``ops``: what there is, without running anything."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TextIO

from rich.console import Console as Terminal
from rich.table import Table
from rich.text import Text

from paravirt.backend import Backend
from paravirt.binding import Slot, bind
from paravirt.boot_sequence import REFERENCE_KERNEL
from paravirt.config import config_path, load_config
from paravirt.console import Console
from paravirt.errors import ImageError, ParavirtError, PluginError, printable
from paravirt.forms import OpTable
from paravirt.guest import Guest, KernelInfo
from paravirt.hookspecs.tables import DATA_WORDS, TABLES
from paravirt.image import BzImage, ElfImage, FlatImage, load_image
from paravirt.image.files import read_file
from paravirt.image.linux_ops import filled, linux_sites, linux_tables
from paravirt.image.multiboot import MEMORY_INFO, PAGE_ALIGN, VIDEO_MODE, find_multiboot
from paravirt.image.notes import xen_notes
from paravirt.install import place
from paravirt.machine.core import Machine
from paravirt.patch import CALL, JMP, UD2, generate
from paravirt.plugins import Plugins, load_plugins
from paravirt.trace import summary

WIDE = 200  # columns where the output is no terminal: nothing is cut or wrapped for a script


def _terminal(out: TextIO | None = None) -> Terminal:
    out = out or sys.stdout
    return Terminal(file=out, width=None if out.isatty() else WIDE, highlight=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    return table


def _row(table: Table, *cells: object) -> None:
    """Guest and user text is never markup."""
    table.add_row(*(Text(printable(str(cell), 4000)) for cell in cells))


def plugin_listing(plugins_file: Path | None) -> None:
    """Plugins, the backends they offer, their options, and what could not be loaded."""
    path = config_path(plugins_file)
    plugins = load_plugins(load_config(path))
    terminal = _terminal()
    table = _table("plugin", "source", "backends", "state")
    for row in plugins.rows:
        _row(table, row.name, row.source, ", ".join(row.backends), row.problem or "loaded")
    terminal.print(table)
    options = _table("option", "default", "meaning")
    for backend in plugins.backends.values():
        for name, field in backend.paravirt_options().model_fields.items():
            _row(options, f"{backend.name}: -o {name}", field.default, field.description or "")
    if options.row_count:
        terminal.print()
        terminal.print(options)
    print(f"(from {path})", file=sys.stderr)


def inspect_kernel(path: Path, plugins_file: Path | None) -> None:
    """What a kernel says of itself, and what every backend says to it; or what a plugin knows of another file."""
    plugins = load_plugins(load_config(config_path(plugins_file)))
    terminal = _terminal()
    facts = _table("what", "value")
    _row(facts, "file", path)
    other = plugins.manager.hook.paravirt_inspect(data=read_file(path), path=path)
    if other is not None:
        for name, value in other:
            _row(facts, name, value)
        terminal.print(facts)
        return
    info = KernelInfo.of(load_image(path))
    image = info.image
    if isinstance(image, BzImage):
        _row(facts, "kind", "bzImage")
        _row(facts, "version", image.kernel_version)
        _row(facts, "boot protocol", f"{image.version >> 8}.{image.version & 0xFF:02}")
        _row(facts, "command line", f"at most {image.cmdline_size} bytes")
    elif isinstance(image, ElfImage):
        _row(facts, "kind", "ELF, i386")
        _row(facts, "entry", f"{image.entry:#x} {image.symbols.nearest(image.entry)}")
        for segment in image.segments:
            _row(facts, "segment", f"virtual {segment.vaddr:#x} physical {segment.paddr:#x} "
                                   f"{segment.memsz} bytes, {segment.filesz} in the file")
        _row(facts, "symbols", len(image.symbols))
        for name, value in xen_notes(image).items():
            _row(facts, f"Xen {name}", hex(value) if isinstance(value, int) else value)
        if info.note is not None:
            _note(facts, info)
        else:
            _linux(facts, image)
    else:
        _row(facts, "kind", "a flat file with a multiboot header")
    _multiboot(facts, image, info)
    terminal.print(facts)
    verdicts = _table("backend", "answer", "reason")
    for name, backend in plugins.backends.items():
        verdict = plugins.probe(backend, info)
        _row(verdicts, name, verdict.answer.value, verdict.reason)
    terminal.print()
    terminal.print(verdicts)


def _multiboot(facts: Table, image: ElfImage | BzImage | FlatImage, info: KernelInfo) -> None:
    header = find_multiboot(image.data)
    if header is None:
        return
    wishes = [text for flag, text in ((PAGE_ALIGN, "aligned modules"), (MEMORY_INFO, "memory sizes"),
                                      (VIDEO_MODE, "a video mode, which no one sets")) if header.flags & flag]
    _row(facts, "multiboot", f"header at {header.offset:#x}, flags {header.flags:#x}"
                             + "".join(f", {wish}" for wish in wishes)
                             + ("" if info.multiboot else "; its own protocol goes first"))
    if header.has_addresses:
        _row(facts, "multiboot load", f"{header.load_addr:#x} to {header.load_end_addr:#x}, bss to "
                                      f"{header.bss_end_addr:#x}, header at {header.header_addr:#x}, "
                                      f"entry {header.entry_addr:#x}")


def _note(facts: Table, info: KernelInfo) -> None:
    note = info.note
    assert note is not None
    for name, layout in TABLES.items():
        _row(facts, name, f"{getattr(note, name):#x}, {len(layout.words)} words")
    _row(facts, "gate page", f"{note.gate_page:#x}")
    _row(facts, "room for ops", f"code {note.code_pages} pages at {note.code:#x}, "
                                f"data {note.data_pages} at {note.data:#x}")
    by_op: dict[str, int] = {}
    for site in info.call_sites:
        name = TABLES["paravirt_ops"].words[site.type]
        by_op[name] = by_op.get(name, 0) + 1
    _row(facts, "call sites", f"{len(info.call_sites)}: " + ", ".join(f"{name} {n}" for name, n in by_op.items()))


def _linux(facts: Table, image: ElfImage) -> None:
    """The op tables that a Linux kernel brings, and the call sites that it recorded."""
    try:
        tables = linux_tables(image)
        sites = linux_sites(image, tables) if tables is not None else ()
    except ImageError as error:
        _row(facts, "Linux op tables", f"cannot be read: {error}")
        return
    if tables is None:
        return
    full = sum(filled(image, slot) for slot in tables.slots)
    _row(facts, "Linux op tables", f"layout of {tables.version}, {', '.join(sorted(tables.features)) or 'no PAE'}: "
                                   f"{len(tables.slots)} words, {full} filled")
    for table in dict.fromkeys(slot.table for slot in tables.slots):
        own = [slot for slot in tables.slots if slot.table == table]
        empty = ", ".join(slot.word.name for slot in own if not filled(image, slot))
        _row(facts, table, f"{own[0].address:#x}, types {own[0].type} to {own[-1].type}"
                           + (f", empty: {empty}" if empty else ""))
    new = [slot.word.name for slot in tables.slots if not slot.word.op and slot.word.name not in DATA_WORDS]
    if new:
        _row(facts, "not in 2.6.23", ", ".join(new))
    names = {slot.type: slot.word.name for slot in tables.slots}
    by_name = Counter(names.get(site.type, f"type {site.type}") for site in sites)
    if sites:
        _row(facts, "call sites", f"{len(sites)}: " + ", ".join(f"{name} {n}" for name, n in by_name.items()))
        kinds = Counter((site.length, site.clobbers) for site in sites)
        _row(facts, "their forms", ", ".join(f"{n} of {length} bytes, clobbers {clobbers}"
                                             for (length, clobbers), n in kinds.most_common(8)))


def op_listing(name: str, kernel: Path | None, plugins_file: Path | None) -> None:
    """Op by op, what each backend does, and what a call site of it becomes.

    :raises ImageError: the kernel takes no op table. :raises PluginError: the backend is unknown or has none.
    """
    info = KernelInfo.of(load_image(kernel or REFERENCE_KERNEL))
    if info.note is None:
        raise ImageError(f'{info.image.path}: it has no note "Paravirt", so it takes its ops from no backend')
    config = load_config(config_path(plugins_file))
    names = [name] if name != "all" else list(load_plugins(config).backends)
    shown = 0
    for each in names:
        try:
            slots = bound_slots(load_plugins(config), each, info)
        except ParavirtError as error:
            if name != "all":
                raise
            print(f"{each}: {error}", file=sys.stderr)
            continue
        table = _table("op", f"{each}: kind", "implementation", "call site becomes")
        for slot in slots.values():
            _row(table, slot.info.name, slot.kind, slot.where, _patched(slots, slot))
        _terminal().print(table)
        shown += 1
    if not shown:
        raise PluginError("no backend has an op table for this kernel")


def bound_slots(plugins: Plugins, name: str, info: KernelInfo) -> dict[str, Slot]:
    """Bind a backend's table to the kernel's layout, in a machine that never runs."""
    backend: Backend
    backend, _ = plugins.select(name, info)
    with Machine(4 << 20) as machine:
        guest = Guest(machine, info, plugins.options(backend, {}), Console())
        table: OpTable | None = plugins.manager.hook.paravirt_install_ops(guest=guest)
        if table is None:
            raise PluginError(f"backend {name!r} has no op table")
        slots = bind(plugins.manager, name, table)
        place(guest, name, table, slots)
        return slots


def _patched(slots: dict[str, Slot], slot: Slot) -> str:
    words = TABLES["paravirt_ops"].words
    if slot.info.name not in words:
        return "-"
    clobbers = 0 if slot.info.jumped else 7
    code = generate(slots, words.index(slot.info.name), clobbers, 0, 6)
    if code is None:
        return "unchanged"
    if code == UD2:
        return "ud2"
    if code[:1] == bytes([CALL]) and len(code) == 5 and code != slot.inline:
        return "direct call"
    if code[:1] == bytes([JMP]) and len(code) == 5 and code != slot.inline:
        return "direct jump"
    return code.hex(" ") or "nops"


def trace_summary(path: Path, top: int) -> None:
    """Lane by lane, the most frequent events of a trace. :raises ConfigError: it is no trace."""
    counts, times, facts = summary(path)
    terminal = _terminal()
    table = _table("lane", "event", "count", "virtual us")
    for lane in sorted({lane for lane, _ in counts}):
        rows = sorted((row for row in counts if row[0] == lane), key=lambda row: (-counts[row], row))
        for row in rows[:top]:
            _row(table, lane, row[1], counts[row], f"{times[row] / 1000:.3f}" if times[row] else "")
        if len(rows) > top:
            _row(table, lane, f"{len(rows) - top} more", sum(counts[row] for row in rows[top:]), "")
    terminal.print(table)
    print("; ".join(f"{name} {printable(str(value))}" for name, value in facts.items()), file=sys.stderr)
