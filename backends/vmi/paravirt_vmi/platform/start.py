"""Puts a monitor on a machine: ROM, exit table, C side, counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.api import ConfigError, Guest
from paravirt_vmi.platform import lazy
from paravirt_vmi.platform.calls import CALLS
from paravirt_vmi.platform.monitor import Monitor
from paravirt_vmi.platform.native_side import NativeSide
from paravirt_vmi.platform.traps import Traps
from paravirt_vmi.rom import Rom, build

if TYPE_CHECKING:
    from paravirt_vmi.options import VmiOptions


def rom_for(options: VmiOptions) -> Rom:
    """The ROM that the options ask for.

    :raises ConfigError: the file that they name is not a ROM of this monitor.
    """
    rom = build(trap_all=options.trap == "all", none=options.none, deferral=options.deferral,
                virtual_top=options.virtual_top)
    return rom if options.rom is None else _from_file(options, rom)


def start_monitor(guest: Guest, rom: Rom, rom_at: int) -> Monitor:
    """A monitor that waits for its guest to call VMI_Init.

    :param rom_at: physical address of the ROM.
    """
    monitor = Monitor(guest, rom, rom_at)
    monitor.make_up = lambda: lazy.flush(monitor)
    traps = Traps(monitor)
    native = NativeSide(monitor, traps)
    guest.machine.connect(native.exit_table(traps.exit_table()))
    native.attach()
    guest.more_counts.append(native.counts)
    if guest.count_ops:
        _count_in_the_rom(monitor)
    return monitor


def _from_file(options: VmiOptions, built: Rom) -> Rom:
    """The file's header with the code that this monitor knows: only the header may differ."""
    assert options.rom is not None
    try:
        data = options.rom.read_bytes()
    except OSError as error:
        raise ConfigError(f"{options.rom}: {error.strerror}") from None
    return built.with_header(data, str(options.rom))


def _count_in_the_rom(m: Monitor) -> None:
    """Count every call where its code begins, those too that never leave the guest."""
    engine = m.machine.engine
    entries = {call.name: m.rom.entries[call.name] for call in CALLS}
    entries["GetRelocationInfo"] = m.rom.symbols["GetRelocationInfo"]

    def begin() -> None:
        if m.active and not begun:
            begun.append(True)
            for entry in entries.values():
                engine.code.count_at(m.base + entry)

    def counts() -> dict[str, int]:
        if not begun:
            return {}
        found = {f"vmi.call.{name}": engine.code.counted(m.base + entry) for name, entry in entries.items()}
        return {name: count for name, count in found.items() if count}

    begun: list[bool] = []
    m.on_change.append(begin)
    m.guest.more_counts.append(counts)
