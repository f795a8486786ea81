"""The keyboard controller of a PC/AT, with a keyboard on which nobody types and no mouse.

Ref: IBM PS/2 Technical Reference, "Keyboard and Auxiliary Device Controller" (commands 20h-FFh, status, output
port) and "101/102-Key Keyboard" (commands EDh-FFh); Intel 8042 data sheet
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from paravirt.machine.bus import IrqLine

STATUS_FULL, STATUS_SYSTEM, STATUS_COMMAND, STATUS_UNLOCKED = 0x01, 0x04, 0x08, 0x10
STATUS_AUX, STATUS_TIMEOUT = 0x20, 0x40
MODE_IRQ1, MODE_IRQ12, MODE_SYSTEM, MODE_NO_KEYBOARD, MODE_NO_AUX, MODE_TRANSLATE = 0x01, 0x02, 0x04, 0x10, 0x20, 0x40
_FIRMWARE_MODE = MODE_IRQ1 | MODE_SYSTEM | MODE_TRANSLATE
OUTPUT_NOT_RESET, OUTPUT_A20, OUTPUT_FULL, OUTPUT_AUX_FULL = 0x01, 0x02, 0x10, 0x20
ACK, RESEND = 0xFA, 0xFE

_WRITE_OUTPUT, _WRITE_KEYBOARD_BUFFER, _WRITE_AUX_BUFFER, _WRITE_AUX = 0xD1, 0xD2, 0xD3, 0xD4
_TAKES_DATA = (_WRITE_OUTPUT, _WRITE_KEYBOARD_BUFFER, _WRITE_AUX_BUFFER, _WRITE_AUX, *range(0x60, 0x80))

_KEYBOARD_ANSWERS = {
    0xEE: (0xEE,),  # echo
    0xF2: (ACK, 0xAB, 0x83),  # identity
    0xF4: (ACK,),  # enable
    0xF5: (ACK,),  # disable, defaults
    0xF6: (ACK,),  # defaults
    0xFF: (ACK, 0xAA),  # reset and self-test
}
_KEYBOARD_PARAMETERS = (0xED, 0xF0, 0xF3)  # LEDs, scan code set, typing rate: one byte follows
_TRANSLATED = {0x83: 0x41}  # set 2 to set 1; of all that this keyboard says, only its identity differs


class _Byte(NamedTuple):
    value: int
    aux: bool
    timeout: bool


class CommandPort:
    """Port 64h of an `I8042`: status and commands."""

    def __init__(self, read: Callable[[], int], write: Callable[[int], None]) -> None:
        self._read, self._write = read, write

    def read(self, offset: int) -> int:
        return self._read()

    def write(self, offset: int, value: int) -> None:
        self._write(value)

    def state(self) -> Mapping[str, object]:
        return {}

    def reset(self) -> None:
        """The controller remembers everything."""


class I8042:
    """The device itself is the data port, 60h; `command` is 64h. Answers are there at once.

    :param irq1: raised for each byte from the keyboard or controller, if enabled.
    :param irq12: raised for each byte from the auxiliary device, if enabled.
    :param reset: called when the guest pulls the CPU's reset line.
    """

    def __init__(self, irq1: IrqLine, irq12: IrqLine, reset: Callable[[], None]) -> None:
        self._irq1, self._irq12, self._reset_cpu = irq1, irq12, reset
        self.command = CommandPort(self._status, self._command)
        self._power_on()

    def _power_on(self) -> None:
        self._ram = bytearray(32)
        self._ram[0] = _FIRMWARE_MODE
        self._queue: deque[_Byte] = deque()
        self._last = _Byte(0, False, False)
        self._output = OUTPUT_NOT_RESET | OUTPUT_A20
        self._pending = 0  # the command that waits for a byte at the data port
        self._keyboard_pending = 0
        self._scan_set = 2
        self._after_command = False

    def _put(self, *values: int, aux: bool = False, timeout: bool = False) -> None:
        empty = not self._queue
        self._queue.extend(_Byte(value, aux, timeout) for value in values)
        if empty:
            self._raise()

    def _keyboard_says(self, *values: int) -> None:
        if self._ram[0] & MODE_TRANSLATE:
            values = tuple(_TRANSLATED.get(value, value) for value in values)
        self._put(*values)

    def _raise(self) -> None:
        """Set the line of the first byte in the queue, if it is enabled."""
        front = self._queue[0] if self._queue else None
        self._irq1(front is not None and not front.aux and bool(self._ram[0] & MODE_IRQ1))
        self._irq12(front is not None and front.aux and bool(self._ram[0] & MODE_IRQ12))

    def _status(self) -> int:
        status = STATUS_UNLOCKED | self._ram[0] & STATUS_SYSTEM
        if self._after_command:
            status |= STATUS_COMMAND
        if self._queue:
            front = self._queue[0]
            status |= STATUS_FULL | (STATUS_AUX if front.aux else 0) | (STATUS_TIMEOUT if front.timeout else 0)
        return status

    def read(self, offset: int) -> int:
        if self._queue:
            self._last = self._queue.popleft()
            self._irq1(False)
            self._irq12(False)
            self._raise()
        return self._last.value

    def _command(self, value: int) -> None:
        self._after_command = True
        self._pending = value if value in _TAKES_DATA else 0
        if 0x20 <= value < 0x40:
            self._put(self._ram[value & 31])
        elif value >= 0xF0:
            if not value & OUTPUT_NOT_RESET:  # the low bits say which lines are left alone
                self._reset_cpu()
        else:
            self._simple_command(value)

    def _simple_command(self, value: int) -> None:
        match value:
            case 0xA7:
                self._ram[0] |= MODE_NO_AUX
            case 0xA8:
                self._ram[0] &= ~MODE_NO_AUX
            case 0xA9 | 0xAB:
                self._put(0)  # the lines of the port are good
            case 0xAA:
                self._ram[0] |= MODE_SYSTEM
                self._put(0x55)
            case 0xAD:
                self._ram[0] |= MODE_NO_KEYBOARD
            case 0xAE:
                self._ram[0] &= ~MODE_NO_KEYBOARD
            case 0xC0:
                self._put(0x80)  # input port: the lock is open
            case 0xD0:
                full = OUTPUT_AUX_FULL if self._queue and self._queue[0].aux else OUTPUT_FULL
                self._put(self._output | (full if self._queue else 0))

    def write(self, offset: int, value: int) -> None:
        self._after_command = False
        command, self._pending = self._pending, 0
        if command == _WRITE_OUTPUT:
            self._output = value & (OUTPUT_NOT_RESET | OUTPUT_A20)
            if not value & OUTPUT_NOT_RESET:
                self._reset_cpu()
        elif command == _WRITE_KEYBOARD_BUFFER:
            self._put(value)
        elif command == _WRITE_AUX_BUFFER:
            self._put(value, aux=True)
        elif command == _WRITE_AUX:
            self._put(RESEND, aux=True, timeout=True)  # nothing answers there
        elif command:
            self._ram[command & 31] = value
            self._raise()
        else:
            self._keyboard(value)

    def _keyboard(self, value: int) -> None:
        self._ram[0] &= ~MODE_NO_KEYBOARD  # talking to the keyboard enables it
        command, self._keyboard_pending = self._keyboard_pending, 0
        if command and value < 0x80:
            if command == 0xF0 and value == 0:
                self._keyboard_says(ACK, self._scan_set)
                return
            if command == 0xF0:
                self._scan_set = value
            self._keyboard_says(ACK)
        elif value in _KEYBOARD_PARAMETERS:
            self._keyboard_pending = value
            self._keyboard_says(ACK)
        elif value == 0xFE:
            self._put(self._last.value)
        else:
            self._keyboard_says(*_KEYBOARD_ANSWERS.get(value, (RESEND,)))

    def state(self) -> Mapping[str, object]:
        return {
            "ram": bytes(self._ram),
            "queue": tuple(tuple(byte) for byte in self._queue),
            "last": self._last.value,
            "output": self._output,
            "pending": self._pending,
            "keyboard_pending": self._keyboard_pending,
            "scan_set": self._scan_set,
            "after_command": self._after_command,
        }

    def reset(self) -> None:
        self._power_on()
        self._raise()
