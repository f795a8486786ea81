"""The tables of docs/native.md: what leaves the guest, the devices, and the CPU's features, from the source."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from paravirt.devices.board import PORTS, pc_board
from paravirt.machine import cpuid
from paravirt.machine.bus import PortBus
from paravirt.machine.callbacks import EXCEPTION_NS
from paravirt.machine.core import Machine
from paravirt.machine.exits import CPUID_NS, PORT_NS, Kind
from paravirt.pc import PC_EXITS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "native.md"
SHARED = ("paravirt.devices.misc",)  # a module of several devices
PARTS = ("Port61", "Elcr", "CommandPort")  # devices that stand in another's module
MACHINE_BYTES = 16 << 20
CHARGES = {Kind.EXCEPTION: EXCEPTION_NS, Kind.SOFTWARE_INTERRUPT: EXCEPTION_NS, Kind.INTERRUPT: EXCEPTION_NS,
           Kind.PORT_IN: PORT_NS, Kind.PORT_OUT: PORT_NS, Kind.CPUID: CPUID_NS, Kind.SYSENTER: 0}


def native_page() -> str:
    """docs/native.md, with its tables anew."""
    text = PAGE.read_text()
    for name, lines in (("exits", _exits()), ("devices", _devices()), ("cpu", _cpu())):
        begin, end = f"<!-- {name}: written by tools/pages.py -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin, 1)
        text = before + begin + "\n\n" + "\n".join(lines) + "\n\n" + end + rest.split(end, 1)[1]
    return text


def _exits() -> Iterable[str]:
    yield "| exit | who answers | charge, ns |"
    yield "|---|---|--:|"
    for row, handler in PC_EXITS.items():
        place = f"{handler.__module__.removeprefix('paravirt.')}.{handler.__qualname__}"
        yield f"| {row.kind.value} | `{place}` | {CHARGES[row.kind]} |"


def _devices() -> Iterable[str]:
    yield "| ports | device | what |"
    yield "|---|---|---|"
    with Machine(MACHINE_BYTES) as machine:
        board = pc_board(PortBus(), machine.timeline, lambda level: None, epoch=0, memory=MACHINE_BYTES,
                         transmit=lambda data: None, reset=lambda how: None, debug_output=lambda data: None,
                         debug_exit=lambda value: None,
                         power_off=lambda: None)
        for base, length, name in PORTS:
            ports = f"{base:x}h" if length == 1 else f"{base:x}h-{base + length - 1:x}h"
            yield f"| {ports} | `{name}` | {_summary(board.devices[name])} |"


def _summary(device: object) -> str:
    """The first sentence on the device: its module's, where it has one of its own."""
    module = sys.modules[type(device).__module__]
    about = type(device) if module.__name__ in SHARED or type(device).__name__ in PARTS else module
    words = " ".join((inspect.getdoc(about) or "").split())
    return re.split(r"(?<=\.)\s", words)[0].rstrip(".")


def _cpu() -> Iterable[str]:
    names = [name for name in ("FPU", "DE", "PSE", "TSC", "MSR", "PAE", "CX8", "SEP", "PGE", "CMOV", "CLFSH", "MMX",
                               "FXSR", "SSE", "SSE2") if getattr(cpuid, name) & cpuid.FEATURES_EDX]
    family, model = cpuid.cpuid(1, 0)[0] >> 8 & 15, cpuid.cpuid(1, 0)[0] >> 4 & 15
    yield (f"Family {family}, model {model}, as CPUID says it: {', '.join(names)}, SSE3, and NX in the extended leaf. "
           "Both engines answer CPUID from one table.")
