"""The interrupt controllers of a PC/AT: two 8259A, the second on input 2 of the first.

An edge-triggered request lasts until it is acknowledged or its line falls; a level-triggered one lasts as
long as its line is high. A chip between its first and last initialisation word asks for nothing.

Ref: Intel 8259A data sheet (order 231468), "Programming the 8259A"; Intel 82371AB (PIIX4) data sheet
(order 290562), registers ELCR1 and ELCR2 (4D0h, 4D1h)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from paravirt.machine.bus import IrqLine

CASCADE = 2  # the master's input that the slave's INT output drives
SPURIOUS = 7  # the level that is acknowledged when no request is left

_FIXED_EDGE = (0x07, 0x21)  # IRQ 0-2 and 8, 13: the chipset keeps these edge-triggered


class Pic8259:
    """One 8259A: the command port at offset 0, the data port at offset 1.

    :param cascade: the input that a slave drives, or None.
    :param changed: called after anything that may have changed `asking`.
    """

    def __init__(self, cascade: int | None, changed: Callable[[], None]) -> None:
        self._cascade = 0 if cascade is None else 1 << cascade
        self._changed = changed
        self._lines = 0  # levels of the inputs; the wires keep them over a reset
        self._trigger = 0  # 1: the input is level-triggered
        self._power_on()

    def _power_on(self) -> None:
        self._edges = 0
        self._isr = 0
        self._imr = 0xFF
        self._base = 0
        self._icw3 = 0
        self._lowest = 7  # the level of lowest priority
        self._expected: tuple[int, ...] = (1,)  # initialisation words still to come; 1 stands for "none came yet"
        self._aeoi = False
        self._rotate_in_aeoi = False
        self._special_nested = False
        self._special_mask = False
        self._read_isr = False
        self._poll = False

    @property
    def irr(self) -> int:
        """The requests, masked or not."""
        return self._edges & ~self._trigger | self._lines & self._trigger

    def set_line(self, level: int, high: bool) -> None:
        """Set input `level` (0-7)."""
        bit = 1 << level
        if bool(self._lines & bit) == high:
            return
        if high:
            self._lines |= bit
            self._edges |= bit
        else:
            self._lines &= ~bit
            self._edges &= ~bit
        self._changed()

    def set_trigger(self, mask: int) -> None:
        """Make the inputs in `mask` level-triggered, the others edge-triggered."""
        self._trigger = mask
        self._changed()

    def asking(self) -> int | None:
        """The level that the INT output asks for, or None."""
        requests = self.irr & ~self._imr
        if not requests or self._expected:
            return None
        level = self._first(requests)
        serving = self._isr & ~self._imr if self._special_mask else self._isr
        if serving:
            busy = self._first(serving)
            again = self._special_nested and level == busy and 1 << level & self._cascade
            if self._rank(level) >= self._rank(busy) and not again:
                return None
        return level

    def acknowledge(self) -> int:
        """Answer an INTA cycle with a level. Level 7 without its in-service bit means: nothing was left."""
        level = self.asking()
        if level is None:
            return SPURIOUS
        self._edges &= ~(1 << level)
        if not self._aeoi:
            self._isr |= 1 << level
        elif self._rotate_in_aeoi:
            self._lowest = level
        self._changed()
        return level

    def vector(self, level: int) -> int:
        """The interrupt vector of a level."""
        return self._base | level

    def read(self, offset: int) -> int:
        if self._poll:
            self._poll = False
            asked = self.asking() is not None
            return 0x80 | self.acknowledge() if asked else 0
        if offset == 1:
            return self._imr
        return self._isr if self._read_isr else self.irr

    def write(self, offset: int, value: int) -> None:
        if offset == 0:
            if value & 0x10:
                self._icw1(value)
            elif value & 0x08:
                self._ocw3(value)
            else:
                self._ocw2(value)
        elif self._expected and self._expected[0] != 1:
            self._initialise(self._expected[0], value)
        else:
            self._imr = value
        self._changed()

    def _icw1(self, value: int) -> None:
        # The LTIM bit is not looked at: a chipset with edge/level control registers ignores it.
        self._power_on()
        self._imr = 0
        single, with_icw4 = value & 0x02, value & 0x01
        self._expected = (2, *(() if single else (3,)), *((4,) if with_icw4 else ()))

    def _initialise(self, word: int, value: int) -> None:
        self._expected = self._expected[1:]
        if word == 2:
            self._base = value & 0xF8
        elif word == 3:
            self._icw3 = value  # the wiring is fixed, so nothing hangs on it
        else:
            self._aeoi = bool(value & 0x02)
            self._special_nested = bool(value & 0x10)

    def _ocw2(self, value: int) -> None:
        rotate, specific, end = value & 0x80, value & 0x40, value & 0x20
        level = value & 7
        if end and not specific:
            # A masked level stays in service in special mask mode.
            served = self._isr & ~self._imr if self._special_mask else self._isr
            if not served:
                return
            level = self._first(served)
        if end:
            self._isr &= ~(1 << level)
        elif not specific:
            self._rotate_in_aeoi = bool(rotate)
            return
        if rotate:
            self._lowest = level

    def _ocw3(self, value: int) -> None:
        if value & 0x40:
            self._special_mask = bool(value & 0x20)
        if value & 0x04:
            self._poll = True
        elif value & 0x02:
            self._read_isr = bool(value & 0x01)

    def _rank(self, level: int) -> int:
        return (level - self._lowest - 1) & 7

    def _first(self, bits: int) -> int:
        """The level of highest priority in `bits`."""
        if self._lowest == 7:
            return (bits & -bits).bit_length() - 1
        return min((level for level in range(8) if bits >> level & 1), key=self._rank)

    def state(self) -> Mapping[str, object]:
        return {
            "irr": self.irr,
            "isr": self._isr,
            "imr": self._imr,
            "lines": self._lines,
            "edges": self._edges,
            "trigger": self._trigger,
            "base": self._base,
            "icw3": self._icw3,
            "lowest": self._lowest,
            "expected": self._expected,
            "aeoi": self._aeoi,
            "rotate_in_aeoi": self._rotate_in_aeoi,
            "special_nested": self._special_nested,
            "special_mask": self._special_mask,
            "read_isr": self._read_isr,
            "poll": self._poll,
        }

    def reset(self) -> None:
        # The chip has no reset input; firmware would initialise it, so until then it asks for nothing.
        self._power_on()
        self._changed()


class Elcr:
    """The edge/level control registers: IRQ 0-7 at offset 0, 8-15 at offset 1; a set bit means level."""

    def __init__(self, chips: tuple[Pic8259, Pic8259]) -> None:
        self._chips = chips
        self._bits = [0, 0]

    def read(self, offset: int) -> int:
        return self._bits[offset]

    def write(self, offset: int, value: int) -> None:
        self._bits[offset] = value & 0xFF & ~_FIXED_EDGE[offset]
        self._chips[offset].set_trigger(self._bits[offset])

    def state(self) -> Mapping[str, object]:
        return {"bits": tuple(self._bits)}

    def reset(self) -> None:
        for offset in range(2):
            self.write(offset, 0)


class Pic:
    """The pair and its edge/level registers, each a port device: `master`, `slave`, `elcr`.

    :param intr: the CPU's INTR input; called when its level changes and at no other time.
    """

    def __init__(self, intr: IrqLine) -> None:
        self._intr = intr
        self._high = False
        self.master = Pic8259(CASCADE, self._master_changed)
        self.slave = Pic8259(None, self._slave_changed)
        self.elcr = Elcr((self.master, self.slave))

    def _master_changed(self) -> None:
        high = self.master.asking() is not None
        if high != self._high:
            self._high = high
            self._intr(high)

    def _slave_changed(self) -> None:
        self.master.set_line(CASCADE, self.slave.asking() is not None)

    def line(self, irq: int) -> IrqLine:
        """The input of `irq`.

        :raises ValueError: not 0-15, or 2, which the cascade takes.
        """
        if not 0 <= irq < 16 or irq == CASCADE:
            raise ValueError(f"IRQ {irq} is no line that a device can drive")
        chip, level = (self.slave, irq - 8) if irq > 7 else (self.master, irq)
        return lambda high: chip.set_line(level, high)

    def acknowledge(self) -> int:
        """Answer the CPU's INTA cycles with the vector. Without a request it is that of IRQ 7 or IRQ 15."""
        level = self.master.acknowledge()
        if level != CASCADE:
            return self.master.vector(level)
        vector = self.slave.vector(self.slave.acknowledge())
        # The slave's INT output falls in every INTA cycle; if it asks again, the master sees a new edge.
        self.master.set_line(CASCADE, False)
        self._slave_changed()
        return vector

    def reset(self) -> None:
        for chip in (self.slave, self.master):
            chip.reset()
        self.elcr.reset()
