"""Between a call as Linux 2.6.32 makes it and an op as the hook specification has it: a few instructions of guest code.

Most slots need none: a 64-bit value passed as two words goes where regparm(3) puts it anyway. The rest differ in
arguments, in the structures they point to, or in the registers that the caller keeps.

Ref: Linux 2.6.32 arch/x86/include/asm/paravirt_types.h, processor.h (struct thread_struct), desc.h;
Linux 2.6.23 include/asm-i386/paravirt.h, processor.h; Intel SDM vol. 2 (encodings).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from paravirt.binding import GUEST, KERNEL, Slot
from paravirt.forms import CLOBBERS
from paravirt.hookspecs.types import ECX, EDX
from paravirt.image.linux_ops import CALLEE_SAVE, Word

CALL, JMP = b"\xe8", b"\xe9"
NEAR_BYTES = 5
Code = Sequence[bytes]  # CALL and JMP stand for a whole instruction, to the op


def _code(*parts: str | bytes) -> Code:
    return tuple(part if isinstance(part, bytes) else bytes.fromhex(part) for part in parts)


# write_*_entry: ECX points to the descriptor; the op takes its words in ECX and on the stack.
_DESCRIPTOR = _code(
    "ff 71 04",     # push 4(%ecx)
    "8b 09",        # mov (%ecx),%ecx
    CALL,
    "83 c4 04 c3",  # add $4,%esp; ret
)
ADAPTORS: Mapping[str, Code] = MappingProxyType({
    # EAX mm, EDX pfn; the op has the pfn alone
    "alloc_pmd": _code("89 d0", JMP),  # mov %edx,%eax
    # EDX: thread_struct, sp0 at 24 and sysenter_cs at 32. The op gets one where they are at 24 and 28.
    "load_sp0": _code(
        "83 ec 20",              # sub $32,%esp
        "8b 4a 18 89 4c 24 18",  # mov 24(%edx),%ecx; mov %ecx,24(%esp)
        "8b 4a 20 89 4c 24 1c",  # mov 32(%edx),%ecx; mov %ecx,28(%esp)
        "89 e2",                 # mov %esp,%edx
        CALL,
        "83 c4 20 c3",           # add $32,%esp; ret
    ),
    "write_ldt_entry": _DESCRIPTOR, "write_gdt_entry": _DESCRIPTOR, "write_idt_entry": _DESCRIPTOR,
})


def adaptor(word: Word, slot: Slot) -> Code:
    """What must stand before the op `slot` so that it can be called from `word`; empty if nothing."""
    if word.constant is not None:
        return _code(b"\xb8" + word.constant.to_bytes(4, "little"), JMP)  # mov $constant,%eax
    if word.name in ADAPTORS:
        return ADAPTORS[word.name]
    if word.convention == CALLEE_SAVE and slot.kind in (GUEST, KERNEL) and not slot.through_gate:
        spoilt = slot.clobbers & (CLOBBERS[ECX] | (CLOBBERS[EDX] if slot.info.result_words < 2 else 0))
        if spoilt:
            return _keeping([register for register in (ECX, EDX) if spoilt & CLOBBERS[register]])
    return ()


def _keeping(registers: Sequence[int]) -> Code:
    push = bytes(0x50 + register for register in registers)
    pop = bytes(0x58 + register for register in reversed(registers))
    return (push, CALL, pop + b"\xc3")


def size(code: Code) -> int:
    """Bytes of an adaptor."""
    return sum(NEAR_BYTES if part in (CALL, JMP) else len(part) for part in code)


def assemble(code: Code, address: int, target: int) -> bytes:
    """The adaptor at virtual `address`, for the op at `target`."""
    done = b""
    for part in code:
        if part in (CALL, JMP):
            done += part + ((target - address - len(done) - NEAR_BYTES) & 0xFFFFFFFF).to_bytes(4, "little")
        else:
            done += part
    return done
