"""The PC under a guest: devices on the buses, and the first moment, as a loader leaves it.

What bare hardware and every hypervisor that leaves the PC's devices to its guest have in common.

Ref: Linux Documentation/arch/x86/boot.rst, "32-bit Boot Protocol"; Multiboot Specification 0.6.96, 3.2; Intel SDM
vol. 3A, table 9-1 (state at reset).
"""

from __future__ import annotations

import struct

from paravirt.devices.board import PcBoard, pc_board
from paravirt.devices.lapic import LocalApic
from paravirt.guest import Guest
from paravirt.image import BzImage, FlatImage
from paravirt.image.linux import BootPlan, plan_linux
from paravirt.image.multiboot_plan import plan_multiboot
from paravirt.machine import cpuid, idt, layout
from paravirt.machine.bus import IrqLine
from paravirt.machine.exits import Exit, ExitTable, Kind
from paravirt.machine.outcome import End
from paravirt.machine.shortcuts import port_in, port_out
from paravirt.machine.sysenter import sysenter
from paravirt.machine.vcpu import Segment, Vcpu, parse_descriptor

EFLAGS_RESERVED = 2
APIC_BASE, APIC_BYTES = 0xFEE00000, 0x1000
APIC_BASE_BSP, APIC_BASE_ENABLE = 1 << 8, 1 << 11  # of the MSR IA32_APIC_BASE
CPUID_APIC = 1 << 9  # leaf 1, EDX
CR0_PE, CR0_ET = 1, 0x10


def attach_pc(guest: Guest, intr: IrqLine | None = None, *, local_apic: bool = False) -> PcBoard:
    """Put a PC's devices on the machine's buses and let the guest's console be COM1.

    :param intr: what the interrupt controller drives; None: the CPU's INTR pin.
    :param local_apic: between the two there is the CPU's local APIC, disabled in its MSR as some firmware does: CPUID
        shows it when the guest has enabled it. Its registers answer at any time.
    """
    machine, console = guest.machine, guest.console

    def debug_exit(value: int) -> None:
        machine.end(End.DEBUG_EXIT, f"the guest wrote {value:#x} to the debug-exit port", status=value & 0xFF)

    def transmit(data: bytes) -> None:
        console.write(data, board.uart.sent_at)

    def debug_output(data: bytes) -> None:
        board.uart.settle()  # what was sent before goes before
        console.write(data)

    line = intr or machine.interrupt_line
    lapic = LocalApic(machine.timeline, line, lambda: board.acknowledge(), nmi=machine.engine.request_nmi,
                      virtual_wire=True) if local_apic else None
    board = pc_board(
        machine.ports, machine.timeline, lapic.pic_line if lapic else line, epoch=guest.epoch, memory=guest.memory,
        transmit=transmit, reset=lambda how: machine.end(End.REBOOT, f"the guest reset the machine by {how}"),
        debug_output=debug_output, debug_exit=debug_exit,
        power_off=lambda: machine.end(End.POWEROFF, "the guest powered the machine off"))
    if not console.watched:
        board.uart.collect()
    machine.port_shortcuts, machine.settle = board.shortcuts(), board.uart.settle
    machine.acknowledge, machine.device_state = board.acknowledge, board.state
    if lapic is not None:
        machine.mmio.claim(APIC_BASE, APIC_BYTES, lapic, "local APIC")
        machine.acknowledge = lapic.acknowledge
        machine.device_state = lambda: {**board.state(), "lapic": lapic.state()}
        machine.engine.record.apic_base = APIC_BASE | APIC_BASE_BSP
    guest.vga_text = lambda: board.vga_text(machine.ram)
    console.connect(board.uart.receive)
    return board


def plan_boot(guest: Guest) -> BootPlan:
    """How a PC's loader starts the guest's kernel: by multiboot, if `KernelInfo.multiboot` has a header, or by Linux's
    32-bit boot protocol.

    :raises ImageError: if the kernel asks for what cannot be, or does not fit into RAM.
    """
    kernel = guest.kernel
    image, header = kernel.image, kernel.multiboot
    if header is not None and not isinstance(image, BzImage):
        return plan_multiboot(image, header, memory=guest.memory, command_line=guest.command_line,
                              initrd=guest.initrd, initrd_name=guest.initrd_name)
    assert not isinstance(image, FlatImage)
    return plan_linux(image, memory=guest.memory, command_line=guest.command_line, initrd=guest.initrd)


def enter_protected_mode(vcpu: Vcpu, plan: BootPlan) -> None:
    """Carry a boot plan out: memory, descriptor table, flat segments, registers, EIP at the entry."""
    for address, data in plan.writes:
        vcpu.ram.write(address, data)
    vcpu.state.load()
    for index in range(6):
        selector = plan.cs if index == layout.CS else plan.ds
        low, high = struct.unpack_from("<II", plan.gdt, selector)
        vcpu.set_segment(index, parse_descriptor(selector, low, high), cpl=0 if index == layout.CS else None)
    vcpu.set_table(layout.GDTR, Segment(0, plan.gdt_address, len(plan.gdt) - 1, 0))
    vcpu.set_table(layout.IDTR, Segment(0, 0, 0, 0))
    for register in range(8):
        vcpu.set_reg(register, 0)
    for register, value in ((layout.ESI, plan.esi), (layout.EAX, plan.eax), (layout.EBX, plan.ebx)):
        vcpu.set_reg(register, value)
    vcpu.eflags = EFLAGS_RESERVED
    vcpu.eip = plan.entry
    vcpu.state.store()
    vcpu.set_cr(0, CR0_PE | CR0_ET)


def cpuid_leaf(vcpu: Vcpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """CPUID as the machine has it; the APIC bit is that of the MSR, as on the hardware.

    The portable engine cannot see the MSR written: there the bit stays off.
    """
    a, b, c, d = cpuid.cpuid(leaf, subleaf)
    apic = leaf == 1 and vcpu.engine.record.apic_base & APIC_BASE_ENABLE
    return a, b, c, d | CPUID_APIC if apic else d


PC_EXITS: ExitTable = {
    Exit(Kind.EXCEPTION): idt.exception,  # through the guest's IDT, as the CPU does
    Exit(Kind.SOFTWARE_INTERRUPT): idt.exception,
    Exit(Kind.INTERRUPT): idt.interrupt,
    Exit(Kind.PORT_IN): port_in,
    Exit(Kind.PORT_OUT): port_out,
    Exit(Kind.CPUID): cpuid_leaf,
    Exit(Kind.SYSENTER): sysenter,
}
