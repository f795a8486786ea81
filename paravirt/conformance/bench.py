"""What a case works with: one op to call, guest memory to call it with, and checks that name what differs.

`call` runs an op through a guest stub that fills every register first. Behind it the registers that C keeps over a
call must be as they were, ESP must be where it was, and so must those of EAX, ECX and EDX that the backend's table
says the op does not change.

Ref: System V ABI, Intel386 supplement, chapter 3 (EBX, ESI, EDI, EBP and ESP belong to the caller, DF is clear).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from paravirt.binding import NULL_SLOT, Slot
from paravirt.conformance import stubs
from paravirt.conformance.stubs import ARGUMENTS, COUNT, FLAGS, FRAME_BYTES, IN, OUT, SEEN, SEEN_BEFORE, WATCH
from paravirt.forms import CLOBBERS
from paravirt.hookspecs.types import carry
from paravirt.machine import layout
from paravirt.machine.paging import PAE_SHIFTS
from paravirt.testing.boots import Stopped

PAGE = 4096
EFLAGS_IF, EFLAGS_DF = 0x200, 0x400
KERNEL_CS, USER_CS, USER_DS = 0x60, 0x73, 0x7B
PATTERN = tuple(0x11A50011 * (number + 1) & 0xFFFFFFFF for number in range(8))
NAMES = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
CALLEE_SAVED = (3, 5, 6, 7)
PRESENT, USER, NX = 1, 4, 1 << 63
ADDRESS = 0x0000_000F_FFFF_F000


class Mismatch(AssertionError):
    """A case failed: what was looked at, what was expected, what was found."""

    def __init__(self, what: str, expected: object, got: object) -> None:
        super().__init__(f"{what}: expected {_text(expected)}, got {_text(got)}")
        self.what, self.expected, self.got = what, expected, got


class NotApplicable(Exception):
    """The op has no effect to look for on this backend; the message says why."""


class Called(NamedTuple):
    """What a call left. `before` and `after` are the watched word just before it and one instruction behind it."""

    result: int
    registers: tuple[int, ...]
    eflags: int
    before: int
    after: int


class UserState(NamedTuple):
    """Registers and interrupt frame with which user code came back."""

    registers: tuple[int, ...]
    eip: int
    cs: int
    eflags: int
    esp: int
    ss: int
    kernel_esp: int


class Bench:
    """:param name: the op that the case is about."""

    def __init__(self, stopped: Stopped, name: str) -> None:
        self.name, self.stopped = name, stopped
        self.machine, self.guest, self.vcpu = stopped.machine, stopped.guest, stopped.machine.vcpu
        self.ops, self.kernel, self.ram = stopped.ops, stopped.kernel, stopped.machine.ram
        self.frame = self.page()
        self._stubs = stubs.assemble(self.frame)
        note = stopped.kernel.note
        self.code = note.code + PAGE * note.code_pages - len(self._stubs.code)
        self.write_code(self.code, self._stubs.code)

    @property
    def slot(self) -> Slot:
        return self.ops.slots[self.name]

    # ------------------------------------------------------------------ checks

    @staticmethod
    def equal(what: str, got: object, expected: object) -> None:
        """:raises Mismatch: they differ."""
        if got != expected:
            raise Mismatch(what, expected, got)

    @staticmethod
    def holds(what: str, condition: bool, got: object = "not so") -> None:
        """:raises Mismatch: `condition` is false; `what` says what should be."""
        if not condition:
            raise Mismatch(what, "so", got)

    # ------------------------------------------------------------------ memory

    def page(self) -> int:
        """A zeroed page of the kernel's."""
        address = self.kernel.get_page()
        self.holds("the kernel has a free page", address != 0)
        return address

    def physical(self, va: int) -> int:
        return self.vcpu.translate(va)

    def word(self, va: int) -> int:
        return self.vcpu.read_u32(va)

    def quad(self, va: int) -> int:
        return int.from_bytes(self.vcpu.read(va, 8), "little")

    def write(self, va: int, data: bytes) -> None:
        self.vcpu.write(va, data)

    def set_quad(self, va: int, value: int) -> None:
        self.write(va, struct.pack("<Q", value))

    def write_code(self, va: int, code: bytes) -> None:
        """Store code in the kernel's text."""
        self.ram.write(self.physical(va), code)

    def entries(self, va: int) -> list[int]:
        """Physical addresses of the page-table entries of `va`, top level first."""
        table, found = self.vcpu.cr(3) & ~31, []
        for shift in PAE_SHIFTS:
            index = va >> shift & (3 if shift == PAE_SHIFTS[0] else 511)
            found.append(table + 8 * index)
            entry = self.ram.quads[found[-1] // 8]
            if not entry & PRESENT or (shift != 12 and entry & 0x80 and shift != 30):
                break
            table = entry & ADDRESS
        return found

    def set_entry(self, va: int, value: int, *, flush: bool = True) -> None:
        """Replace the page-table entry of `va` behind everybody's back."""
        self.ram.write_u64(self.entries(va)[-1], value)
        if flush:
            self.vcpu.flush_tlb()

    def entry(self, va: int) -> int:
        return int(self.ram.quads[self.entries(va)[-1] // 8])

    def table_of(self, offset: int) -> tuple[int, int]:
        """Base and limit of GDTR, IDTR, LDTR or TR (layout.GDTR ...)."""
        segment = self.vcpu.table(offset)
        return segment.base, segment.limit

    @property
    def interrupts_on(self) -> bool:
        """The flag as the guest sees it."""
        return bool(self.ops.save_fl() & EFLAGS_IF)

    def ticks(self) -> int:
        return self.word(self.kernel.symbol("jiffies"))

    def wait(self, ns: int) -> None:
        """Let virtual time pass, idle."""
        until = self.machine.engine.now() + ns
        while self.machine.engine.now() < until:
            self.ops.safe_halt()

    def quiet(self) -> None:
        """No interrupt from now on, whatever the flag says: all lines masked at the controllers."""
        self.machine.ports.write(0x21, 1, 0xFF)
        self.machine.ports.write(0xA1, 1, 0xFF)

    # ------------------------------------------------------------------ calls

    def target(self, slot: Slot | None = None) -> int:
        """Where a call site of the op goes."""
        slot = slot or self.slot
        return self.stopped.calls.stub(slot.number) if slot.through_gate else slot.address

    def call(self, *arguments: int, watch: int | None = None) -> Called:
        """Call the op; check what every call must keep.

        :param watch: address of a word to read just before the call and right behind it.
        """
        slot, info = self.slot, self.slot.info
        if slot.kind == NULL_SLOT:
            raise NotApplicable(f"NULL: {info.null_means}")
        registers, stack = list(PATTERN), []
        for locations, value in zip(carry(info.params), arguments, strict=True):
            for shift, location in enumerate(locations):
                word = value >> 32 * shift & 0xFFFFFFFF
                if location.register is None:
                    stack.append(word)
                else:
                    registers[location.register] = word
        self._fill(registers, stack, self.target(), watch)
        self.stopped.calls.invoke(self.code + self._stubs.call, {}, [], wide=False)
        out = struct.unpack("<8I", self.vcpu.read(self.frame + OUT, 32))
        self._check_kept(slot, registers, out, len(stack))
        eflags = self.word(self.frame + FLAGS)
        self.equal("the direction flag", eflags & EFLAGS_DF, 0)
        result = out[0] if info.result_words == 1 else out[2] << 32 | out[0] if info.result_words else 0
        if info.signed_result and result >> (32 * info.result_words - 1):
            result -= 1 << 32 * info.result_words
        return Called(result, out, eflags, self.word(self.frame + SEEN_BEFORE), self.word(self.frame + SEEN))

    def _fill(self, registers: Sequence[int], stack: Sequence[int], target: int, watch: int | None) -> None:
        words = bytearray(FRAME_BYTES)
        struct.pack_into("<8I", words, IN, *registers)
        struct.pack_into(f"<{len(stack)}I", words, ARGUMENTS, *stack)
        struct.pack_into("<II", words, COUNT, len(stack), target)
        struct.pack_into("<I", words, WATCH, watch or self.frame)
        self.write(self.frame, bytes(words))

    def _check_kept(self, slot: Slot, before: Sequence[int], after: Sequence[int], words: int) -> None:
        kept = list(CALLEE_SAVED)
        results = (0, 2)[: slot.info.result_words]
        kept += [each for each in (0, 1, 2) if not slot.clobbers & CLOBBERS[each] and each not in results]
        for register in kept:
            self.equal(f"{NAMES[register]} after the call", after[register], before[register])
        esp = self.word(self.frame + stubs.KEPT_ESP) - 4 * words
        self.equal("esp after the call", after[4], esp)

    def peek(self, va: int) -> int:
        """Read a word as the guest does, through its TLB."""
        return self.stopped.calls.call(self.code + self._stubs.peek, va)

    def poke(self, va: int, value: int) -> None:
        """Store a word as the guest does."""
        self.stopped.calls.call(self.code + self._stubs.poke, va, value)

    def load_fs(self, selector: int) -> int:
        """Load FS with a selector and give it back; it is null again afterwards."""
        return self.stopped.calls.call(self.code + self._stubs.load_fs, selector)

    # ------------------------------------------------------------------ user mode

    def user_page(self, code: bytes) -> int:
        """A page that user code may run and write, with `code` in it."""
        va = self.page()
        self.write(va, code)
        for level, physical in enumerate(self.entries(va)):
            if level:
                self.ram.write_u64(physical, (self.ram.quads[physical // 8] | USER) & ~NX)
        self.vcpu.flush_tlb()
        return va

    def prepare_return(self, stack: int) -> None:
        """Let user code come back by ``int 0x91``; the kernel is entered on `stack`, which ends a page."""
        self.quiet()
        handler = self.code + self._stubs.back
        base, _ = self.table_of(layout.IDTR)
        self.ops.write_idt_entry(base, stubs.BACK_VECTOR, KERNEL_CS << 16 | handler & 0xFFFF,
                                 handler & 0xFFFF0000 | 0xEE00)
        if stack:
            self.vcpu.write_u32(self.vcpu.table(layout.TR).base + 4, stack)

    def jump(self, target: int, registers: Sequence[int], stack: Sequence[int]) -> UserState:
        """Jump to an op with these registers and words on the stack; returns when user code comes back."""
        self._fill(registers, stack, target, None)
        self.stopped.calls.invoke(self.code + self._stubs.jump, {}, [], wide=False)
        out = struct.unpack("<8I", self.vcpu.read(self.frame + OUT, 32))
        words = struct.unpack("<5I", self.vcpu.read(self.frame + stubs.RETURN_FRAME, 20))
        return UserState(out, words[0], words[1] & 0xFFFF, words[2], words[3], words[4] & 0xFFFF, out[4])


def _text(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 9 else str(value)
