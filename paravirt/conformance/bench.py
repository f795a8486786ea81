"""What a case works with: one op to call, guest memory to call it with, and checks that name what differs.

`call` runs an op through a guest stub that fills every register first. Behind it the registers that C keeps over a
call must be as they were, ESP must be where it was, and so must those of EAX, ECX and EDX that the backend's table
says the op does not change.

Cases ask what the guest can see: whether a selector loads and with which base, which page is read at an address, on
which stack the kernel is entered, whether a port may be read. The CPU's own registers are asked only where the
kernel owns them, in ring 0 (`needs_ring_0`); frame numbers only through the ops that convert them.

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
from paravirt.machine.vcpu import Segment
from paravirt.testing.boots import Stopped

PAGE = 4096
EFLAGS_IF, EFLAGS_DF = 0x200, 0x400
KERNEL_CS, USER_CS, USER_DS = 0x60, 0x73, 0x7B
PATTERN = tuple(0x11A50011 * (number + 1) & 0xFFFFFFFF for number in range(8))
NAMES = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
CALLEE_SAVED = (3, 5, 6, 7)
NX = 1 << 63
DATA, USER_CODE = 0x063, 0x067  # present, writable, accessed, dirty; and for ring 3
PAGE_OFFSET = 0xC0000000
FS = 4
# struct thread and struct thread_info of the reference kernel.
THREAD_ESP0, THREAD_FS, THREAD_BYTES = 24, 36, 40
STACK_BYTES = 8192
GENERAL_PROTECTION = 13
INTERRUPT_GATE_OF_RING_3 = 0xEE00


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
    """Registers and interrupt frame with which code came back. `refused`: by #GP."""

    registers: tuple[int, ...]
    eip: int
    cs: int
    eflags: int
    esp: int
    ss: int
    kernel_esp: int
    refused: bool


class Bench:
    """:param name: the op that the case is about. :param given: the arguments of start_kernel's own call, for a
    case that runs in its place.

    :ivar result: of the last call.
    """

    def __init__(self, stopped: Stopped, name: str, given: tuple[int, ...] = ()) -> None:
        self.name, self.stopped, self.given, self.result = name, stopped, given, 0
        self.machine, self.guest, self.vcpu = stopped.machine, stopped.guest, stopped.machine.vcpu
        self.ops, self.kernel, self.ram = stopped.ops, stopped.kernel, stopped.machine.ram
        note = stopped.kernel.note
        self.frame = note.scratch + PAGE - FRAME_BYTES
        self._stubs = stubs.assemble(self.frame)
        self.code = note.code + PAGE * note.code_pages - len(self._stubs.code)
        self.write_code(self.code, self._stubs.code)
        self.ring, = struct.unpack("<I", stopped.kernel.read(note.paravirt_ops, 4))

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

    def needs_ring_0(self, why: str) -> None:
        """:raises NotApplicable: the kernel does not run in ring 0; `why` says what a case wants to look at."""
        if self.ring:
            raise NotApplicable(f"the kernel runs in ring {self.ring}: {why}")

    # ------------------------------------------------------------------ memory

    def page(self) -> int:
        """A zeroed page of the kernel's."""
        address = self.kernel.get_page()
        self.holds("the kernel has a free page", address != 0)
        return address

    def word(self, va: int) -> int:
        return self.vcpu.read_u32(va)

    def quad(self, va: int) -> int:
        return int.from_bytes(self.vcpu.read(va, 8), "little")

    def symbol(self, name: str) -> int:
        return self.kernel.symbol(name)

    def variable(self, name: str) -> int:
        """The word of one of the kernel's variables."""
        return self.word(self.kernel.symbol(name))

    def write(self, va: int, data: bytes) -> None:
        self.vcpu.write(va, data)

    def set_quad(self, va: int, value: int) -> None:
        self.write(va, struct.pack("<Q", value))

    def write_code(self, va: int, code: bytes) -> None:
        """Store code in the kernel's text."""
        self.ram.write(self.vcpu.translate(va), code)

    def pte_at(self, va: int) -> int:
        """Address of init_mm's entry for a kernel address."""
        return self.kernel.kernel_pte(va)

    def entry_for(self, page: int, flags: int = DATA) -> int:
        """What stands in a table for a page of the kernel's."""
        return self.ops.make_pte((page - PAGE_OFFSET) | flags)

    def map(self, va: int, page: int, flags: int = DATA, *, flush: bool = True) -> None:
        """Let a kernel address lead to another page. Without `flush` the CPU may go on with what it knows."""
        self.ops.set_pte(self.pte_at(va), self.entry_for(page, flags))
        if flush:
            self.ops.flush_tlb_single(va)

    def table_of(self, offset: int) -> tuple[int, int]:
        """Base and limit of the CPU's GDTR, IDTR, LDTR or TR (layout.GDTR ...)."""
        segment = self.vcpu.table(offset)
        return segment.base, segment.limit

    @property
    def interrupts_on(self) -> bool:
        """The flag as the guest sees it."""
        return bool(self.ops.save_fl() & EFLAGS_IF)

    def ticks(self) -> int:
        return self.variable("jiffies")

    def wait(self, ns: int) -> None:
        """Let virtual time pass, idle."""
        until = self.machine.engine.now() + ns
        while self.machine.engine.now() < until:
            self.ops.safe_halt()

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
        self.result = result
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

    def segment(self, selector: int) -> Segment | None:
        """The segment that FS gets from a selector; None if the CPU refuses it. FS is null again afterwards."""
        thread = self.page()
        found = None
        for value in (selector, 0):
            self.write(thread + THREAD_FS, struct.pack("<HH", value, 0))
            self.kernel.load_segments(thread)  # a selector that faults becomes 0
            found = self.vcpu.segment(FS) if value else found
        return found if found is not None and found.selector == selector else None

    # ------------------------------------------------------------------ user mode

    def user_page(self, code: bytes) -> int:
        """A page that user code may run and write, with `code` in it."""
        va = self.page()
        self.write(va, code)
        self.map(va, va, USER_CODE)
        return va

    def gate(self, vector: int, handler: int) -> tuple[int, int]:
        """The two words of an interrupt gate that ring 3 may use."""
        selector = (KERNEL_CS | self.ring) << 16
        return selector | handler & 0xFFFF, handler & 0xFFFF0000 | INTERRUPT_GATE_OF_RING_3

    def kernel_stack(self) -> int:
        """The end of a kernel stack: that of the boot's own task, so that a tick in user mode finds it."""
        below = self.page()
        while (above := self.page()) % STACK_BYTES == 0 or above != below + PAGE:
            below = above
        self.write(below, struct.pack("<I", self.symbol("init_task")))
        return above + PAGE

    def thread(self, stack: int) -> int:
        """A struct thread with that kernel stack."""
        thread = self.page()
        self.write(thread + THREAD_ESP0, struct.pack("<II", stack, self.variable("sysenter_cs")))
        return thread

    def prepare_return(self, stack: int = 0) -> None:
        """Let user code come back by ``int 0x91``, or by #GP; the kernel is entered on `stack`."""
        table = self.symbol("idt_table")
        for vector, part in ((stubs.BACK_VECTOR, self._stubs.back), (GENERAL_PROTECTION, self._stubs.refused)):
            self.ops.write_idt_entry(table, vector, *self.gate(vector, self.code + part))
        if stack:
            self.ops.load_esp0(self.symbol("cpu_tss"), self.thread(stack))

    @property
    def back(self) -> int:
        """Address of the handler by which code comes back to `jump`."""
        return self.code + self._stubs.back

    def jump(self, target: int, registers: Sequence[int], stack: Sequence[int]) -> UserState:
        """Jump to an op, or to code, with these registers and words on the stack; returns when it comes back."""
        self._fill(registers, stack, target, None)
        self.stopped.calls.invoke(self.code + self._stubs.jump, {}, [], wide=False)
        out = struct.unpack("<8I", self.vcpu.read(self.frame + OUT, 32))
        words = struct.unpack("<5I", self.vcpu.read(self.frame + stubs.RETURN_FRAME, 20))
        return UserState(out, words[0], words[1] & 0xFFFF, words[2], words[3], words[4] & 0xFFFF, out[4],
                         bool(self.word(self.frame + stubs.REFUSED)))


def _text(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 9 else str(value)
