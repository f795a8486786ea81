"""The few instructions of guest code through which the suite calls an op.

One stub fills every general register from a frame in memory, calls the op, and stores what the op left; a second
one jumps, for the ops that return to user mode; a third is the handler of an interrupt vector, by which user code
comes back. The stubs take no argument: all is in the frame.

Ref: Intel SDM vol. 2, 2.1.5 (ModRM) and the instructions' own pages.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

# Offsets in the frame, in bytes. Registers stand in ModRM order; ESP's place is not used on the way in.
IN, OUT, COUNT, TARGET, ARGUMENTS, KEPT_ESP, WATCH, SEEN, FLAGS, RETURN_FRAME = (
    0, 32, 64, 68, 72, 104, 108, 112, 116, 120)
SEEN_BEFORE, REFUSED = 140, 144
FRAME_BYTES = 148
REGISTERS = (0, 1, 2, 3, 5, 6, 7)
EAX, ECX, EDX, EBX, ESP = range(5)
BACK_VECTOR = 0x91


class Stubs(NamedTuple):
    """The code, and where its parts begin."""

    code: bytes
    call: int
    jump: int
    back: int
    refused: int
    peek: int
    poke: int


def _load(register: int, address: int) -> bytes:
    return bytes([0x8B, 0x05 | register << 3]) + struct.pack("<I", address)


def _store(register: int, address: int) -> bytes:
    return bytes([0x89, 0x05 | register << 3]) + struct.pack("<I", address)


def _through(pointer: int, result: int) -> bytes:
    """The word that `pointer` points to, into `result`; uses EAX."""
    return _load(EAX, pointer) + b"\x8b\x00" + _store(EAX, result)


def _enter(frame: int, final: bytes) -> bytes:
    push = b"\xff\x34\x8d" + struct.pack("<I", frame + ARGUMENTS - 4)  # push frame.arguments[ecx - 1]
    loop = push + b"\x49"  # dec ecx
    return b"".join([
        b"\x60", _store(ESP, frame + KEPT_ESP), _through(frame + WATCH, frame + SEEN_BEFORE),
        _load(ECX, frame + COUNT),
        bytes([0xE3, len(loop) + 2]), loop, struct.pack("<Bb", 0xEB, -(len(loop) + 4)),
        *(_load(register, frame + IN + 4 * register) for register in REGISTERS),
        final + struct.pack("<I", frame + TARGET)])


def _leave(frame: int) -> bytes:
    return _load(ESP, frame + KEPT_ESP) + b"\x61\xc3"


def _results(frame: int) -> bytes:
    """The first instruction is the one behind the op's call: an interrupt may wait for it, but no longer."""
    stores = b"".join(_store(register, frame + OUT + 4 * register) for register in (*REGISTERS, ESP))
    flags = b"\x9c\x8f\x05" + struct.pack("<I", frame + FLAGS)
    return _store(EAX, frame + OUT) + _through(frame + WATCH, frame + SEEN) + _load(EAX, frame + OUT) + stores + flags


def assemble(frame: int) -> Stubs:
    """The stubs for a frame at address `frame`. The code may lie anywhere."""
    call = _enter(frame, b"\xff\x15") + _results(frame) + _leave(frame)
    jump = _enter(frame, b"\xff\x25")
    back = b"".join(_store(register, frame + OUT + 4 * register) for register in (*REGISTERS, ESP))
    back += b"".join(b"\x8f\x05" + struct.pack("<I", frame + RETURN_FRAME + 4 * word) for word in range(5))
    back += _leave(frame)
    code, starts = b"", []
    # The error code is on top of the frame of #GP.
    refused = b"\xff\x05" + struct.pack("<I", frame + REFUSED) + b"\x83\xc4\x04" + back
    for part in (call, jump, back, refused, b"\x8b\x00\xc3", b"\x89\x10\xc3"):
        starts.append(len(code))
        code += part.ljust(-(-len(part) // 16) * 16, b"\xcc")
    return Stubs(code, *starts)
