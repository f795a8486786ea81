"""All that a backend needs, and the only module of the framework that a backend imports."""

from typing import TYPE_CHECKING, Any

from paravirt import native
from paravirt.backend import Answer, Backend, Verdict
from paravirt.console import Console
from paravirt.devices.board import PcBoard, pc_board
from paravirt.devices.lapic import LocalApic
from paravirt.errors import BackendError, ConfigError, GuestFault, ImageError, ParavirtError, PluginError, close_match
from paravirt.forms import (
    NOP,
    NULL,
    GuestAddress,
    GuestCode,
    GuestObject,
    KernelFunction,
    MachineCode,
    OpTable,
    hookimpl,
    kernel_function,
    leaf,
    machine_code,
)
from paravirt.guest import Guest, KernelInfo
from paravirt.image import BzImage, ElfImage, FlatImage
from paravirt.image.linux import BOOT_CS, BOOT_DS, E820, BootPlan, pc_e820, plan_linux
from paravirt.image.notes import ParavirtNote, xen_notes
from paravirt.link import Area, Linker
from paravirt.linuxops.pages import StubPages, pc_stub_pages
from paravirt.machine import cpuid, idt, layout
from paravirt.machine.bus import Cancellable, Clock, IrqLine, MmioBus, PortBus
from paravirt.machine.core import Machine
from paravirt.machine.exits import Exit, ExitTable, Kind
from paravirt.machine.outcome import End, GuestExit, Outcome, crash
from paravirt.machine.platform_code import PlatformCode
from paravirt.machine.vcpu import Segment, Vcpu
from paravirt.pc import PC_EXITS, attach_pc, enter_protected_mode, plan_boot
from paravirt.trace import Trace

if TYPE_CHECKING:
    from paravirt.backend_options import BackendOptions


def __getattr__(name: str) -> Any:
    if name == "BackendOptions":  # it needs pydantic, which takes long to import
        from paravirt.backend_options import BackendOptions

        return BackendOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BOOT_CS", "BOOT_DS", "E820", "NOP", "NULL", "PC_EXITS", "Answer", "Area", "Backend", "BackendError",
    "BackendOptions", "BootPlan", "BzImage", "Cancellable", "Clock", "ConfigError", "Console", "ElfImage", "End",
    "Exit", "ExitTable", "FlatImage", "Guest", "GuestAddress", "GuestCode", "GuestExit", "GuestFault",
    "GuestObject", "ImageError", "IrqLine", "KernelFunction", "KernelInfo", "Kind", "Linker", "LocalApic", "Machine",
    "MachineCode", "MmioBus", "OpTable", "Outcome", "ParavirtError", "ParavirtNote", "PcBoard", "PlatformCode",
    "PluginError", "PortBus", "Segment", "StubPages", "Trace", "Vcpu", "Verdict", "attach_pc", "close_match",
    "cpuid", "crash", "enter_protected_mode", "hookimpl", "idt", "kernel_function", "layout", "leaf",
    "machine_code", "native", "pc_board", "pc_e820", "pc_stub_pages", "plan_boot", "plan_linux", "xen_notes",
]  # fmt: skip
