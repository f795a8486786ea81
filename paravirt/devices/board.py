"""A PC's devices on its bus: who answers which port, and who drives which interrupt line.

Ref: IBM PC/AT Technical Reference, "I/O Address Map" and "System Interrupts"; Intel 82371AB (PIIX4) data
sheet (order 290562), I/O map
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from paravirt.devices.fwcfg import FirmwareConfig
from paravirt.devices.i8042 import I8042
from paravirt.devices.misc import DebugExit, DebugOutput, Port92, Post, PowerOff
from paravirt.devices.pci import PciConfig
from paravirt.devices.pic import Pic
from paravirt.devices.pit import Pit
from paravirt.devices.rtc import Rtc
from paravirt.devices.uart import Uart
from paravirt.devices.vga import TEXT_BYTES, Vga
from paravirt.machine.bus import Clock, Device, IrqLine, PortBus, PortDevice, WidePortDevice
from paravirt.machine.shortcuts import PortShortcuts

PORTS = (
    (0x020, 2, "pic1"),  # first 8259A: IRQ 0-7
    (0x040, 4, "pit"),  # 8254: counters 0-2, control word
    (0x060, 1, "i8042"),  # keyboard controller: data
    (0x061, 1, "port61"),  # gate and output of counter 2, refresh toggle; between the controller's two ports
    (0x064, 1, "i8042-command"),  # keyboard controller: status, commands
    (0x070, 2, "rtc"),  # MC146818A: index, data
    (0x080, 1, "post"),  # POST code; kernels write here to wait
    (0x092, 1, "port92"),  # A20 gate, fast reset
    (0x0A0, 2, "pic2"),  # second 8259A: IRQ 8-15
    (0x0E9, 1, "debug-output"),  # where emulators print; no hardware is there
    (0x0F4, 4, "debug-exit"),  # where emulators put their exit for tests; nor there
    (0x3C0, 32, "vga"),  # display adapter, in colour: attributes, sequencer, palette, graphics, CRT controller
    (0x3F8, 8, "com1"),  # 16550A: the console
    (0x4D0, 2, "elcr"),  # edge or level, a bit for each IRQ
    (0x510, 2, "fw-cfg"),  # where emulators tell what the machine has; no hardware is there
    (0x604, 2, "pm1a-control"),  # ACPI power off, at the address that the usual emulated chipset has
    (0xCF8, 8, "pci"),  # configuration mechanism 1, and reset control at CF9h
)

# Text memory of the display adapter. RAM begins at 0 and has no hole there, and no memory map offers A0000h-BFFFFh
# to a kernel: so what a guest writes is simply there, at full speed, and part of the state hash.
VGA_TEXT = 0xB8000

IRQ_TIMER, IRQ_KEYBOARD, IRQ_COM1, IRQ_RTC, IRQ_AUX = 0, 1, 4, 8, 12


class Memory(Protocol):
    """Physical memory; bytes that are not there read as ones."""

    def read(self, address: int, length: int) -> bytes: ...


class PcBoard:
    """The devices by name and by port. Made by `pc_board`."""

    def __init__(self, pic: Pic, pit: Pit, rtc: Rtc, uart: Uart, i8042: I8042, vga: Vga, post: Post) -> None:
        self.pic, self.pit, self.rtc, self.uart, self.i8042, self.vga = pic, pit, rtc, uart, i8042, vga
        self.post = post
        self.devices: dict[str, Device] = {}

    def acknowledge(self) -> int:
        """Answer the CPU's interrupt acknowledge with a vector."""
        return self.pic.acknowledge()

    def vga_text(self, memory: Memory) -> list[str]:
        """What the screen shows in text mode, 25 lines of at most 80 characters in mode 3; none in a graphics mode."""
        return self.vga.text(memory.read(VGA_TEXT, TEXT_BYTES))

    def shortcuts(self) -> PortShortcuts:
        """What a kernel's printing and its measuring of clocks need not ask for."""
        base = {name: base for base, _, name in PORTS}
        first, second, third = (counter.countdown for counter in self.pit.counters)
        return PortShortcuts(self.uart.line, base["com1"], (first, second, third), base["pit"], self.post.latch,
                             base["post"])

    def state(self) -> dict[str, dict[str, object]]:
        """What each device remembers, by name; equal for two runs of the same command."""
        return {name: dict(device.state()) for name, device in self.devices.items()}

    def reset(self) -> None:
        """Pull the reset line. The clock keeps its time, and what the host has queued for the UART stays."""
        for device in self.devices.values():
            device.reset()
        self.pic.reset()  # once more, for edges that the other devices made on their way


def pc_board(
    ports: PortBus,
    clock: Clock,
    intr: IrqLine,
    *,
    epoch: int,
    memory: int,
    transmit: Callable[[bytes], None],
    reset: Callable[[str], None],
    debug_output: Callable[[bytes], None],
    debug_exit: Callable[[int], None],
    power_off: Callable[[], None],
) -> PcBoard:
    """Build a PC's devices and let them claim their ports.

    :param intr: the CPU's INTR input; called when its level changes.
    :param epoch: what the real-time clock shows at virtual time 0, in seconds since 1970 UTC.
    :param memory: bytes of RAM.
    :param transmit: called with each byte that the guest sends to the first serial port.
    :param reset: called with the name of the device that pulled the CPU's reset line.
    :param debug_output: called with each byte that the guest writes to the debug port.
    :param debug_exit: called with the value written to the debug exit.
    :param power_off: called when the guest switches off.
    :raises BusConflict: a port is claimed already.
    """
    pic = Pic(intr)
    pit = Pit(clock, pic.line(IRQ_TIMER))
    rtc = Rtc(clock, pic.line(IRQ_RTC), epoch, memory)
    uart = Uart(clock, pic.line(IRQ_COM1), transmit)
    i8042 = I8042(pic.line(IRQ_KEYBOARD), pic.line(IRQ_AUX), lambda: reset("i8042"))
    vga, post = Vga(clock), Post()
    devices: dict[str, PortDevice | WidePortDevice] = {
        "pic1": pic.master,
        "pit": pit,
        "i8042": i8042,
        "port61": pit.port61,
        "i8042-command": i8042.command,
        "rtc": rtc,
        "post": post,
        "port92": Port92(lambda: reset("port92")),
        "pic2": pic.slave,
        "debug-output": DebugOutput(debug_output),
        "debug-exit": DebugExit(debug_exit),
        "vga": vga,
        "com1": uart,
        "elcr": pic.elcr,
        "fw-cfg": FirmwareConfig(memory),
        "pm1a-control": PowerOff(power_off),
        "pci": PciConfig(reset=lambda: reset("pci")),
    }
    board = PcBoard(pic, pit, rtc, uart, i8042, vga, post)
    for base, length, name in PORTS:
        ports.claim(base, length, devices[name], name)
        board.devices[name] = devices[name]
    return board
