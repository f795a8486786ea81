"""Deferral: calls that wait in the shared page until the guest leaves CPU mode.

In mode 2, around a context switch, the ROM's code puts calls that would leave the guest into a queue (rom.S), and
SetLazyMode(0) makes up for all of them with one exit. Whatever needs their effect before makes up for them too: page
faults, IRET, SYSEXIT, Halt, TLB flushes, and changes of CR0 and CR4. In mode 1, around page-table loops, nothing has
to wait, since no call that may be deferred there leaves the guest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.api import GuestFault
from paravirt_vmi.platform import control, descriptors, ports
from paravirt_vmi.platform.layout import QUEUE_ENTRIES, QUEUE_ENTRY_BYTES, WORDS

if TYPE_CHECKING:
    from paravirt_vmi.platform.monitor import Monitor

MODES = 3
LDT, CR3, DR, TS, IOPL = 4, 17, 24, 28, 61  # numbers of the calls that may wait


def flush(m: Monitor) -> None:
    """Make the calls that wait, in order. The guest can write the queue: what stands there is checked as any call's
    arguments, and a call that does not belong there ends the guest."""
    length = m.byte("queued")
    if not length:
        return
    if length > QUEUE_ENTRIES:
        raise m.refuse("deferral", f"the queue says that it holds {length} calls, and has room for {QUEUE_ENTRIES}")
    m.set_byte("queued", 0)
    m.count("queue_flushes")
    start = (m.page_at + WORDS["queue"]) >> 2
    for entry in range(length):
        at = start + entry * (QUEUE_ENTRY_BYTES >> 2)
        number, first, second = (int(m.ram.words[at + i]) for i in range(3))
        m.count("deferred")
        try:
            if number == CR3:
                control.set_cr3(m, first)
            elif number == TS:
                control.clts(m)
            elif number == LDT:
                descriptors.set_ldt(m, first)
            elif number == DR:
                control.set_dr(m, first, second)
            elif number == IOPL:
                ports.set_iopl_mask(m, first)
            else:
                raise m.refuse("deferral", f"call {number} cannot wait in the queue")
        except GuestFault as fault:
            raise m.refuse("deferral", f"call {number} with {first:#x}, {second:#x} faults (vector {fault.vector}) "
                                       "when it is made up for") from None


def set_mode(m: Monitor, mode: int) -> None:
    """The ROM's code comes here to make up for deferred calls, and with a mode that there is not."""
    if mode >= MODES:
        raise m.refuse("SetLazyMode", f"there is no mode {mode}")
    m.set_word("lazy", mode)
    if not mode:
        m.make_up()
