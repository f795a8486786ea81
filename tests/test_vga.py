"""Kernels write to the text screen long before they find a serial port, and their last words may stand only there.

What must hold: registers keep what is written through the right ports, in the state; the screen is where the CRT
controller says, wraps as the memory does, and every byte has a glyph; a guest that waits for the beam sees it move;
the screen can be printed without harm to the user's terminal.
"""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.devices.board import VGA_TEXT
from paravirt.machine.ram import Ram
from paravirt.report import print_screen
from tests.commandline import HALT, ROOT, command, environment, paravirt
from tests.kernels import raw_kernel
from tests.pcbench import SECOND, Pc

VMLINUZ = ROOT / "guests" / "vmlinuz"
FRAME = 14_268_413  # ns: 449 lines of 900 dots at 28.322 MHz, 70.09 frames a second


@pytest.fixture
def pc() -> Pc:
    return Pc()


@pytest.fixture
def ram() -> Ram:
    return Ram(1 << 20)


def crtc(pc: Pc, index: int, value: int | None = None) -> int:
    pc.out(0x3D4, index)
    if value is not None:
        pc.out(0x3D5, value)
    return pc.read(0x3D5)


def put(ram: Ram, offset: int, text: bytes, attribute: int = 0x07) -> None:
    """`text` from character `offset` of display memory."""
    ram.write(VGA_TEXT + 2 * offset, b"".join(bytes((byte, attribute)) for byte in text))


# ---------------------------------------------------------------- registers


def test_the_crt_controller_is_in_mode_3(pc: Pc) -> None:
    """As firmware leaves it; registers 0 to 7 are protected, but for one bit."""
    assert [crtc(pc, index) for index in (0x01, 0x06, 0x07, 0x09, 0x0A, 0x0B, 0x12, 0x13, 0x17)] == [
        0x4F, 0xBF, 0x1F, 0x4F, 0x0D, 0x0E, 0x8F, 0x28, 0xA3]
    assert crtc(pc, 0x0E) << 8 | crtc(pc, 0x0F) == 24 * 80
    assert crtc(pc, 0x01, 0x27) == 0x4F
    assert crtc(pc, 0x07, 0x00) == 0x0F  # bit 4 belongs to the line compare
    crtc(pc, 0x11, 0x0E)
    assert crtc(pc, 0x01, 0x27) == 0x27


def test_the_cursor_as_a_word(pc: Pc) -> None:
    """Drivers write index and data in one access."""
    pc.ports.write(0x3D4, 2, 0x120E)
    pc.ports.write(0x3D4, 2, 0x340F)
    assert (crtc(pc, 0x0E), crtc(pc, 0x0F)) == (0x12, 0x34)
    assert pc.board.state()["vga"]["crtc"] == pc.board.vga.crtc.state()


def test_the_attribute_port_takes_index_and_data_in_turn(pc: Pc) -> None:
    """Reading input status 1 makes it take an index. The palette is set so, and the screen switched on with 20h."""
    pc.out(0x3C0, 0x05)
    pc.read(0x3DA)
    pc.out(0x3C0, 0x06, 0x06, 0x20)
    assert (pc.read(0x3C0), pc.read(0x3C1)) == (0x20, 0x00)
    pc.read(0x3DA)
    pc.out(0x3C0, 0x06)
    assert pc.read(0x3C1) == 0x06
    pc.read(0x3DA)
    pc.out(0x3C0, 0x1F, 0x55)  # no such register
    assert pc.read(0x3C1) == 0


def test_the_palette_counts_on(pc: Pc) -> None:
    pc.out(0x3C7, 0x3E)
    assert [pc.read(0x3C9) for _ in range(6)] == [0x3F, 0x3F, 0x15, 0x3F, 0x3F, 0x3F]  # light yellow, white
    assert (pc.read(0x3C8), pc.read(0x3C7)) == (0x40, 3)
    pc.out(0x3C8, 0xFF)
    pc.out(0x3C9, 0xFF, 0x02, 0x03, 0x04)
    assert (pc.read(0x3C8), pc.read(0x3C7)) == (0x00, 0)
    pc.out(0x3C7, 0xFF)
    assert [pc.read(0x3C9) for _ in range(4)] == [0x3F, 0x02, 0x03, 0x04]  # six bits each


def test_other_registers(pc: Pc) -> None:
    assert (pc.read(0x3CC), pc.read(0x3C6), pc.read(0x3C3)) == (0x67, 0xFF, 0x01)
    pc.out(0x3C2, 0xE3)
    assert pc.read(0x3CC) == 0xE3
    for port, index, value in ((0x3C4, 0x02, 0x04), (0x3CE, 0x05, 0x00)):
        pc.ports.write(port, 2, value << 8 | index)
        assert (pc.read(port), pc.read(port + 1)) == (index, value)
        pc.ports.write(port, 2, 0x55FF)
        assert pc.read(port + 1) == 0
    pc.out(0x3DA, 0x01)
    assert pc.read(0x3CA) == 0x01
    assert [pc.read(port) for port in (0x3CB, 0x3CD, 0x3D0, 0x3DF, 0x3B4)] == [0xFF] * 5


def test_the_beam_moves(pc: Pc) -> None:
    """Bit 0: nothing is shown; bit 3: vertical retrace, once a frame."""
    for when, status in ((0, 0), (26_000, 1), (32_000, 0), (FRAME * 400 // 449 + 100, 1), (FRAME * 413 // 449, 9),
                         (FRAME * 414 // 449 + 100, 1), (FRAME + 100, 0)):
        pc.now = when
        assert pc.read(0x3DA) == status, when
    starts, before = 0, False
    for pc.now in range(0, SECOND, 30_000):
        retrace = bool(pc.read(0x3DA) & 8)
        starts += retrace and not before
        before = retrace
    assert starts == 70


def test_state_tells_what_was_written_and_a_reset_forgets(pc: Pc) -> None:
    fresh = dict(pc.board.state()["vga"])
    crtc(pc, 0x0C, 0x12)
    pc.out(0x3C8, 1)
    pc.out(0x3C9, 1)
    pc.out(0x3C0, 1)
    used = pc.board.state()["vga"]
    assert {key for key in fresh if fresh[key] != used[key]} == {"crtc", "colours", "colour", "attribute",
                                                                 "attribute_data"}
    pc.board.reset()
    assert pc.board.state()["vga"] == fresh
    assert pc.read(0x3D5) == 0x5F  # the ports lead to the new registers


# ---------------------------------------------------------------- the screen


def test_an_empty_screen_has_25_lines(pc: Pc, ram: Ram) -> None:
    assert pc.board.vga_text(ram) == [""] * 25


def test_lines_and_columns(pc: Pc, ram: Ram) -> None:
    put(ram, 0, b"first" + b" " * 75 + b"second")
    put(ram, 24 * 80, b"x" * 80, attribute=0x4F)
    put(ram, 25 * 80, b"below")
    lines = pc.board.vga_text(ram)
    assert (lines[0], lines[1], lines[24]) == ("first", "second", "x" * 80)
    assert lines[2:24] == [""] * 22


def test_the_start_address_scrolls(pc: Pc, ram: Ram) -> None:
    put(ram, 25 * 80, b"below")
    crtc(pc, 0x0D, 80)
    assert pc.board.vga_text(ram)[24] == "below"
    put(ram, 0x3FF0, b"round the end of")
    put(ram, 0, b" the memory")
    crtc(pc, 0x0C, 0x3F)
    crtc(pc, 0x0D, 0xF0)
    assert pc.board.vga_text(ram)[0] == "round the end of the memory"


def test_every_byte_has_one_glyph(pc: Pc, ram: Ram) -> None:
    put(ram, 0, bytes(range(256)))
    shown = "".join(line.ljust(80) for line in pc.board.vga_text(ram))[:256]
    assert shown[0x20:0x7F] == "".join(map(chr, range(0x20, 0x7F)))
    for byte, glyph in ((0x01, "☺"), (0x10, "►"), (0x16, "▬"), (0x1F, "▼"), (0x7F, "⌂"), (0x80, "Ç"), (0xB3, "│"),
                        (0xC9, "╔"), (0xDB, "█"), (0xE1, "ß"), (0xFE, "■")):
        assert shown[byte] == glyph, hex(byte)
    assert all(character.isprintable() for character in shown)
    assert [byte for byte in range(256) if shown[byte] == " "] == [0x00, 0x20, 0xFF]


def test_other_text_modes(pc: Pc, ram: Ram) -> None:
    """50 lines with characters of 8 lines; 40 columns."""
    put(ram, 40 * 80, b"deep")
    crtc(pc, 0x09, 0x47)
    assert len(pc.board.vga_text(ram)) == 50
    assert pc.board.vga_text(ram)[40] == "deep"
    for index, value in ((0x09, 0x4F), (0x11, 0x0E), (0x01, 0x27), (0x13, 0x14)):
        crtc(pc, index, value)
    put(ram, 40, b"narrow")
    assert pc.board.vga_text(ram)[1] == "narrow"


def test_a_graphics_mode_has_no_text(pc: Pc, ram: Ram) -> None:
    pc.ports.write(0x3CE, 2, 0x0506)
    assert pc.board.vga_text(ram) == []


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0x3C0, 0x3DF), st.integers(0, 255)), max_size=60), st.integers(0, 10**9))
def test_no_setting_is_too_strange(writes: list[tuple[int, int]], when: int) -> None:
    pc, ram = Pc(), Ram(1 << 20)
    pc.now = when
    crtc(pc, 0x11, 0)
    for port, value in writes:
        pc.out(port, value)
        assert 0 <= pc.read(port) <= 0xFF
    lines = pc.board.vga_text(ram)
    assert len(lines) <= 1024 and all(len(line) <= 256 for line in lines)


# ---------------------------------------------------------------- with guests

HELLO = bytes.fromhex(
    "be30001000"  # mov $text, %esi
    "bf00800b00"  # mov $0xb8000, %edi
    "b90a000000"  # mov $10, %ecx
    "b407"  # mov $7, %ah
    "ac66abe2fb"  # 1: lodsb; stosw; loop 1b
).ljust(0x20, b"\x90") + HALT
HELLO = HELLO.ljust(0x30, b"\0") + b"hello\x1b[2J\x01"


def test_the_command_prints_the_screen(tmp_path: Path) -> None:
    """Escape sequences that a guest puts on its screen are glyphs there, and stay harmless here."""
    result = paravirt("boot", raw_kernel(tmp_path / "k", HELLO), "-q", "--memory", "2M", "--screen")
    lines = result.stderr.decode().splitlines()
    assert (result.returncode, result.stdout, lines[:2]) == (0, b"", ["screen:", "  hello←[2J☺"])
    assert lines[2].startswith("paravirt: halt: ") and len(lines) == 3


def test_a_blank_screen_is_shown_on_demand_only(tmp_path: Path) -> None:
    """The state that --until prints has the screen if there is something on it."""
    result = paravirt("boot", raw_kernel(tmp_path / "k", HALT), "-q", "--memory", "2M", "--screen", "--until",
                      "paravirt_build_guest")
    assert result.stderr.startswith(b"eax ")
    assert result.stderr.count(b"screen") == 1 and b"\nscreen: blank\n" in result.stderr


def test_screens_that_are_none() -> None:
    """Guest-made text for a terminal: what is not printable is escaped."""
    for text, said in ((None, "screen: this platform has none\n"), (lambda: [], "screen: in a graphics mode\n"),
                       (lambda: ["", "x\x1b", ""], "screen:\n\n  x\\x1b\n")):
        out = io.StringIO()
        print_screen(SimpleNamespace(vga_text=text), out)  # type: ignore[arg-type]
        assert out.getvalue() == said


@pytest.mark.skipif(not VMLINUZ.exists(), reason="guests/ has no vmlinuz: make guests")
@pytest.mark.parametrize(("instructions", "said"), [
    (80_000_000, "KASLR disabled: 'nokaslr' on cmdline."),  # what unpacks the kernel, on the last line
    (2_400_000_000, "Freeing SMP alternatives memory: 32K"),  # the VGA console driver, which scrolls by start address
])
def test_a_real_kernel_on_the_screen(instructions: int, said: str) -> None:
    """No serial console: all that it says is on the screen."""
    result = subprocess.run(
        command("boot", VMLINUZ, "-q", "--memory", "64M", "--append", "earlyprintk=vga nokaslr", "--screen",
                f"--max-instructions={instructions}"),
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, env=environment(), check=False)
    assert (result.returncode, result.stdout) == (124, b"")
    screen = result.stderr.decode()
    assert screen.startswith("screen:\n") and said in screen, screen
