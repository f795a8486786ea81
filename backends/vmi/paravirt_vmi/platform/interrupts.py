"""The interrupt flag that the guest believes in, and how exceptions and interrupts reach it.

The CPU's IF stays set and IOPL 0 while the guest's own flag is a word of the shared page: the ROM's code sets and
clears it with a store, PUSHF in user mode shows IF and IOPL as they should be, and a raw POPF of the kernel changes
nothing. The word stands for IF wherever an interrupt may be taken (Engine.virtual_flag). For a delivery through the
guest's IDT it is put into EFLAGS, so that the frame shows it, and taken out again, since an interrupt gate clears it.

Ref: Intel SDM vol. 3A, 6.8.1 (masking), 6.12 (handling); vol. 2B, SYSENTER (operation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.api import PC_EXITS, End, Exit, GuestExit, Kind, Outcome, Segment, Vcpu, idt, layout
from paravirt_vmi.platform.control import SYSENTER_CS, SYSENTER_EIP, SYSENTER_ESP
from paravirt_vmi.platform.layout import EFLAGS_IF, EFLAGS_IOPL, GUEST_RING

if TYPE_CHECKING:
    from paravirt_vmi.platform.monitor import Monitor

GP = 13
USER_RING, FRAME_CS = 3, 8  # behind a return address and EIP
AP_STATE_BYTES = 92
FLAT_CODE, FLAT_DATA = 0x00CF9B00 | GUEST_RING << 13, 0x00CF9300 | GUEST_RING << 13
EFLAGS_SYSENTER_CLEARS = 0x30000  # VM, RF; IF is the shared page's


def show_flag(m: Monitor) -> None:
    """Before a delivery: the frame is to show the guest's flag."""
    words = m.vcpu.state.words
    words[layout.EFLAGS] = words[layout.EFLAGS] & ~EFLAGS_IF | m.word("flag") & EFLAGS_IF


def hide_flag(m: Monitor) -> None:
    """After a delivery: what the gate made of it is the guest's flag, and the CPU's is set again."""
    words = m.vcpu.state.words
    m.set_word("flag", words[layout.EFLAGS] & EFLAGS_IF)
    set_iopl(m, 0)
    words[layout.EFLAGS] |= EFLAGS_IF


def set_iopl(m: Monitor, level: int) -> None:
    """The CPU's own IOPL: 0 in ring 1, where CLI and STI are to fault, and what SetIOPLMask said in ring 3."""
    words = m.vcpu.state.words
    for index in (layout.EFLAGS, layout.HFLAGS):
        words[index] = words[index] & ~EFLAGS_IOPL | level << 12


def deliver(m: Monitor, vector: int, error: int, software: bool) -> None:
    """An exception or INT n goes to the guest's IDT."""
    show_flag(m)
    idt.exception(m.vcpu, vector, error, software)
    hide_flag(m)


def external(m: Monitor, vcpu: Vcpu, vector: int) -> None:
    """So does an interrupt, which is taken only while the flag is set."""
    if not m.active:
        idt.interrupt(vcpu, vector)
        return
    show_flag(m)
    idt.interrupt(vcpu, vector)
    hide_flag(m)


def sysenter(m: Monitor, vcpu: Vcpu) -> None:
    """SYSENTER enters ring 1, once there is one."""
    if not m.active:
        PC_EXITS[Exit(Kind.SYSENTER)](vcpu)
        return
    selector = vcpu.msr(SYSENTER_CS) & 0xFFFC
    if not selector:
        vcpu.machine.raise_exception(GP, 0)
        return
    vcpu.set_segment(layout.CS, Segment(selector | GUEST_RING, 0, 0xFFFFFFFF, FLAT_CODE), cpl=GUEST_RING)
    vcpu.set_segment(layout.SS, Segment(selector + 8 | GUEST_RING, 0, 0xFFFFFFFF, FLAT_DATA))
    vcpu.state.words[layout.EFLAGS] &= ~EFLAGS_SYSENTER_CLEARS
    set_iopl(m, 0)
    vcpu.state.words[layout.EFLAGS] |= EFLAGS_IF
    m.flag = False
    vcpu.esp, vcpu.eip = vcpu.msr(SYSENTER_ESP), vcpu.msr(SYSENTER_EIP)


def enable(m: Monitor) -> None:
    m.flag = True
    attention(m)


def disable(m: Monitor) -> None:
    m.flag = False


def get_mask(m: Monitor) -> int:
    return EFLAGS_IF if m.flag else 0


def set_mask(m: Monitor, mask: int) -> None:
    m.flag = bool(mask & EFLAGS_IF)
    attention(m)


def attention(m: Monitor) -> None:
    """ROM code has found that something waits: an interrupt, which is asked for once more, or deferred calls."""
    m.make_up()
    if m.interrupt_waits:
        m.machine.interrupt_line(True)


def leaving(m: Monitor, *, system_call: bool) -> None:
    """IRET or SYSEXIT has found something to do first: deferred calls, or an IOPL for ring 3.

    :raises GuestFault: the frame of the IRET cannot be read.
    """
    attention(m)
    if m.iopl and (system_call or m.vcpu.read_u32(m.vcpu.esp + FRAME_CS) & 3 == USER_RING):
        set_iopl(m, m.iopl)


def leave(m: Monitor) -> None:
    """IRET and SYSEXIT, when every call leaves the guest: the ROM's code does them, behind the trap."""


def halt(m: Monitor) -> None:
    """Interrupts on, and wait. One that waits already is taken at once."""
    m.make_up()
    m.flag = True
    if m.interrupt_waits:
        m.machine.interrupt_line(True)
    else:
        m.machine.engine.halt()


def reboot(m: Monitor, how: int) -> None:
    raise GuestExit(Outcome(End.REBOOT, f"the guest asked VMI for a {'hard' if how else 'soft'} reboot"))


def shutdown(m: Monitor) -> None:
    raise GuestExit(Outcome(End.HALT, "the guest asked VMI to stop its CPU"))


def set_initial_ap_state(m: Monitor, pointer: int, cpu: int) -> None:
    """There is no other CPU to start. The state has to be readable all the same."""
    m.vcpu.read(pointer, AP_STATE_BYTES)
