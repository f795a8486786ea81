"""Where libunicorn keeps the CPU's registers.

Ref: Unicorn 2.1.4, qemu/target/i386/cpu.h (CPUX86State) as its wheels are built. A context that
``uc_context_save`` fills is a 40-byte header and a plain copy of CPUX86State, so the same offsets
serve the live state and a saved one. `verify` finds each of them again through the public
register interface: a build that differs is refused, never guessed at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

STATE_BYTES = 5568
CONTEXT_HEADER = 40

# General registers, in ModRM order, as indices of 64-bit words.
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)
# 64-bit word indices.
EIP = 128 // 8
CR = 424 // 8  # cr[0..4]
DR = 5400 // 8  # dr[0..7]
# 32-bit word indices.
EFLAGS = 136 // 4  # IF, IOPL, TF, NT, VM and so on; arithmetic flags are kept elsewhere, lazily
HFLAGS = 176 // 4
HFLAGS2 = 180 // 4
ERROR_CODE = 5384 // 4
IS_INT = 5388 // 4
NEXT_EIP = 5392 // 4
OLD_EXCEPTION = 5496 // 4

# Segment caches: selector u32, pad, base u64, limit u32, descriptor high word u32.
SEGMENT = struct.Struct("<I4xQII")
ES, CS, SS, DS, FS, GS = range(6)
SEGS, LDTR, TR, GDTR, IDTR = 184, 328, 352, 376, 400
SEGMENT_BYTES = SEGMENT.size


def segment_offset(index: int) -> int:
    """Byte offset of the cache of segment register `index` (ES 0 ... GS 5)."""
    return SEGS + SEGMENT_BYTES * index


# hflags: what the translator needs to know of the mode.
HF_CPL = 3
HF_SHADOW = 1 << 3
HF_CS32 = 1 << 4
HF_SS32 = 1 << 5
HF_ADDSEG = 1 << 6
HF_PE = 1 << 7
HF_TF = 1 << 8
HF_MP = 1 << 9
HF_EM = 1 << 10
HF_TS = 1 << 11
HF_IOPL = 3 << 12
HF_VM = 1 << 17
HF2_NMI = 1 << 2  # an NMI is being served: until IRET no other comes

# CPUState, around the live CPUX86State (raw state access only).
UC_TO_CPU = 0x1B8
CPU_TO_ENV = 0x8A50
CPU_INTERRUPT_REQUEST = 28
CPU_HALTED = 0x8198
UC_MEMORY_MAPPING = 0x120
UC_NO_EXIT_REQUEST = 0x7F2
ENV_EXIT_REQUEST = -0x10  # before CPUX86State: i32, negative when the translated code is to be left
ENV_BUDGET = -8  # padding; ours
INTERRUPT_HARD, INTERRUPT_NMI = 2, 0x200


class LayoutMismatch(Exception):
    """This build of libunicorn keeps its state elsewhere; the message says what differed."""


def verify(write_and_dump: Callable[[str, int], bytes]) -> None:
    """Check the offsets above against registers written through the public interface.

    :param write_and_dump: writes one register, by name, and returns the state's bytes after it.
    :raises LayoutMismatch: naming the first register that lies elsewhere.
    """
    expected = [
        ("dr0", DR * 8), ("dr3", DR * 8 + 24), ("eax", EAX * 8), ("edi", EDI * 8), ("esp", ESP * 8),
        ("cr2", CR * 8 + 16),
    ]
    for number, (name, offset) in enumerate(expected):
        value = 0x5A100001 + number * 0x01010101
        dump = write_and_dump(name, value)
        if struct.unpack_from("<Q", dump, offset)[0] != value:
            raise LayoutMismatch(f"{name} is not at offset {offset} of the CPU state")
        dump = write_and_dump(name, 0)
    if struct.unpack_from("<i", dump, OLD_EXCEPTION * 4)[0] != -1:
        raise LayoutMismatch(f"old_exception is not at offset {OLD_EXCEPTION * 4} of the CPU state")
