"""A VGA's registers in text mode, and what its screen shows.

Display memory is plain RAM (see `board.py`), so text costs nothing until somebody looks. Registers remember what
is written; those that place the text on the screen are honoured by `Vga.text`, the others do nothing. There are no
planes and no graphics modes. The adapter starts as firmware leaves it: mode 3, 80 by 25 characters in colour.

Ref: IBM Personal System/2 Hardware Interface Technical Reference, "Video Subsystem", VGA registers and the table
of mode 3's values; code page 437.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from paravirt.machine.bus import FLOATING, Clock

# Offsets from 3C0h, for the colour addresses of the CRT controller.
ATTRIBUTE, ATTRIBUTE_READ, MISC_WRITE, ENABLE = 0x00, 0x01, 0x02, 0x03
SEQUENCER, SEQUENCER_DATA = 0x04, 0x05
DAC_MASK, DAC_READ_INDEX, DAC_WRITE_INDEX, DAC_DATA = 0x06, 0x07, 0x08, 0x09
FEATURE_READ, MISC_READ, GRAPHICS, GRAPHICS_DATA = 0x0A, 0x0C, 0x0E, 0x0F
CRTC, CRTC_DATA, STATUS_1 = 0x14, 0x15, 0x1A
INPUT_STATUS_0, FEATURE_WRITE = MISC_WRITE, STATUS_1  # the same ports, the other direction

# Registers of the CRT controller.
COLUMNS, OVERFLOW, CHARACTER_HEIGHT = 0x01, 0x07, 0x09
START_HIGH, START_LOW, CURSOR_HIGH, CURSOR_LOW = 0x0C, 0x0D, 0x0E, 0x0F
RETRACE_END, DISPLAY_END, PITCH = 0x11, 0x12, 0x13
PROTECT, OVERFLOW_LINE_COMPARE = 0x80, 0x10  # in RETRACE_END; in OVERFLOW, the bit that is never protected
GRAPHICS_MISC, GRAPHICS_MODE = 0x06, 0x01

TEXT_BYTES = 0x8000  # the window at B8000h: a character and its attribute, 16384 times

_MISC = 0x67
_CRTC = bytes.fromhex("5f4f50825581bf1f004f0d0e000007809c8e8f281f96b9a3ff")  # cursor at the start of the last line
_SEQUENCER = bytes.fromhex("0300030002")
_GRAPHICS = bytes.fromhex("0000000000100e00ff")
_ATTRIBUTE = bytes.fromhex("000102030405140738393a3b3c3d3e3f0c000f0800")
_ATTRIBUTE_INDEX = 0x20  # palette address source: the screen is on

# Mode 3's frame: 449 lines of 900 dots at 28.322 MHz. Lines from 400 on are dark, 412 and 413 are the retrace.
_DOTS, _SHOWN_DOTS, _LINES, _SHOWN_LINES, _RETRACE = 900, 720, 449, 400, (412, 414)
_DOT_KHZ = 28_322
_STATUS_DARK, _STATUS_RETRACE = 0x01, 0x08

_LOW_GLYPHS = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
_GLYPHS = _LOW_GLYPHS + bytes(range(0x20, 0x7F)).decode("cp437") + "⌂" + bytes(range(0x80, 0xFF)).decode("cp437") + " "


def _first_colours() -> bytes:
    """64 colours of two bits for each of red, green and blue, as the attribute controller numbers them; 192 black."""
    colours = bytearray()
    for number in range(64):
        for strong in (2, 1, 0):
            colours.append(0x2A * (number >> strong & 1) + 0x15 * (number >> strong + 3 & 1))
    return bytes(colours.ljust(3 * 256, b"\0"))


class _Bank:
    """Registers behind an index port and a data port. What is not there reads as zero."""

    def __init__(self, initial: bytes, index: int = 0) -> None:
        self.index, self.registers = index, bytearray(initial)

    def read(self) -> int:
        return self.registers[self.index] if self.index < len(self.registers) else 0

    def write(self, value: int) -> None:
        if self.index < len(self.registers):
            self.registers[self.index] = value

    def select(self, value: int) -> None:
        self.index = value

    def state(self) -> tuple[int, bytes]:
        return self.index, bytes(self.registers)


class Vga:
    """32 ports from 3C0h.

    :param clock: moves the beam, which guests wait for.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._power_on()

    def _power_on(self) -> None:
        self.crtc = _Bank(_CRTC)
        self._sequencer, self._graphics = _Bank(_SEQUENCER), _Bank(_GRAPHICS)
        self._attribute = _Bank(_ATTRIBUTE, _ATTRIBUTE_INDEX)
        self._attribute_data = False  # the next write of the attribute port is data
        self._misc, self._feature = _MISC, 0
        self._colours = bytearray(_first_colours())
        self._colour_mask = 0xFF
        self._colour = self._component = 0
        self._colour_reads = False
        self._readers: dict[int, Callable[[], int]] = {
            ATTRIBUTE: lambda: self._attribute.index,
            ATTRIBUTE_READ: self._read_attribute,
            INPUT_STATUS_0: lambda: 0,
            ENABLE: lambda: 1,
            SEQUENCER: lambda: self._sequencer.index,
            SEQUENCER_DATA: self._sequencer.read,
            DAC_MASK: lambda: self._colour_mask,
            DAC_READ_INDEX: lambda: 3 if self._colour_reads else 0,
            DAC_WRITE_INDEX: lambda: self._colour,
            DAC_DATA: self._read_colour,
            FEATURE_READ: lambda: self._feature,
            MISC_READ: lambda: self._misc,
            GRAPHICS: lambda: self._graphics.index,
            GRAPHICS_DATA: self._graphics.read,
            CRTC: lambda: self.crtc.index,
            CRTC_DATA: self.crtc.read,
            STATUS_1: self._read_status,
        }
        self._writers: dict[int, Callable[[int], None]] = {
            ATTRIBUTE: self._write_attribute,
            MISC_WRITE: self._write_misc,
            SEQUENCER: self._sequencer.select,
            SEQUENCER_DATA: self._sequencer.write,
            DAC_MASK: self._write_colour_mask,
            DAC_READ_INDEX: lambda value: self._select_colour(value, reads=True),
            DAC_WRITE_INDEX: lambda value: self._select_colour(value, reads=False),
            DAC_DATA: self._write_colour,
            GRAPHICS: self._graphics.select,
            GRAPHICS_DATA: self._graphics.write,
            CRTC: self.crtc.select,
            CRTC_DATA: self._write_crtc,
            FEATURE_WRITE: self._write_feature,
        }

    # ------------------------------------------------------------------ ports

    def read(self, offset: int) -> int:
        reader = self._readers.get(offset)
        return reader() if reader is not None else FLOATING

    def write(self, offset: int, value: int) -> None:
        writer = self._writers.get(offset)
        if writer is not None:
            writer(value)

    def _read_attribute(self) -> int:
        registers, index = self._attribute.registers, self._attribute.index & 0x1F
        return registers[index] if index < len(registers) else 0

    def _write_attribute(self, value: int) -> None:
        if not self._attribute_data:
            self._attribute.index = value & 0x3F
        elif (index := self._attribute.index & 0x1F) < len(self._attribute.registers):
            self._attribute.registers[index] = value
        self._attribute_data = not self._attribute_data

    def _read_status(self) -> int:
        self._attribute_data = False
        dot = self._clock.now() * _DOT_KHZ // 1_000_000 % (_DOTS * _LINES)
        line, column = divmod(dot, _DOTS)
        first, last = _RETRACE
        dark = line >= _SHOWN_LINES or column >= _SHOWN_DOTS
        return (_STATUS_DARK if dark else 0) | (_STATUS_RETRACE if first <= line < last else 0)

    def _write_crtc(self, value: int) -> None:
        index, registers = self.crtc.index, self.crtc.registers
        if registers[RETRACE_END] & PROTECT and index <= OVERFLOW:
            if index != OVERFLOW:
                return
            value = registers[OVERFLOW] & ~OVERFLOW_LINE_COMPARE | value & OVERFLOW_LINE_COMPARE
        self.crtc.write(value)

    def _write_misc(self, value: int) -> None:
        self._misc = value

    def _write_feature(self, value: int) -> None:
        self._feature = value

    def _write_colour_mask(self, value: int) -> None:
        self._colour_mask = value

    def _select_colour(self, number: int, *, reads: bool) -> None:
        self._colour, self._component, self._colour_reads = number, 0, reads

    def _next_component(self) -> int:
        """Where the colour component lies whose turn it is."""
        at = 3 * self._colour + self._component
        self._component = (self._component + 1) % 3
        if self._component == 0:
            self._colour = (self._colour + 1) % 256
        return at

    def _read_colour(self) -> int:
        return self._colours[self._next_component()]

    def _write_colour(self, value: int) -> None:
        self._colours[self._next_component()] = value & 0x3F

    # ------------------------------------------------------------------ the screen

    def text(self, memory: bytes) -> list[str]:
        """The lines on the screen, without spaces at their ends; none in a graphics mode.

        :param memory: TEXT_BYTES of display memory. The screen goes on at its start where it reaches past its end.
        """
        if self._graphics.registers[GRAPHICS_MISC] & GRAPHICS_MODE:
            return []
        registers = self.crtc.registers
        overflow = registers[OVERFLOW]
        scan_lines = (registers[DISPLAY_END] | (overflow & 0x02) << 7 | (overflow & 0x40) << 3) + 1
        rows = scan_lines // ((registers[CHARACTER_HEIGHT] & 0x1F) + 1)
        columns, pitch = registers[COLUMNS] + 1, 2 * registers[PITCH]
        start = registers[START_HIGH] << 8 | registers[START_LOW]
        characters = memory[::2]
        return ["".join(_GLYPHS[characters[(start + row * pitch + column) % len(characters)]]
                        for column in range(columns)).rstrip()
                for row in range(rows)]

    # ------------------------------------------------------------------ state

    def state(self) -> Mapping[str, object]:
        return {
            "crtc": self.crtc.state(),
            "sequencer": self._sequencer.state(),
            "graphics": self._graphics.state(),
            "attribute": self._attribute.state(),
            "attribute_data": self._attribute_data,
            "misc": self._misc,
            "feature": self._feature,
            "colours": bytes(self._colours),
            "colour_mask": self._colour_mask,
            "colour": (self._colour, self._component, self._colour_reads),
        }

    def reset(self) -> None:
        # Firmware runs after a reset and sets mode 3; display memory is not touched here.
        self._power_on()
