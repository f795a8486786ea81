"""Host functions as the gate calls them: arguments out of registers and stack, results into registers, faults.

A host function is a leaf: it runs inside the exit and never calls the guest. The exception is a wrapper around
guest code (`HostOp.blocking`), which gets a frame of its own from calls.py.

Ref: gcc's regparm(3) for i386: EAX, EDX, ECX, then the stack; 64-bit results in EDX:EAX.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from paravirt.errors import BackendError, GuestFault
from paravirt.hookspecs import OpInfo
from paravirt.hookspecs.types import Location, carry
from paravirt.machine.core import Machine
from paravirt.machine.layout import EAX, ECX, EDX, ESP
from paravirt.machine.stubs import Leaf, leaf_changed

WORD = 0xFFFFFFFF
RETURN_BYTES = 4  # the return address, below the arguments on the stack
STUB_CALL_BYTES = 2  # int 0x83; what follows is the stub's ret


class HostOp:
    """:param blocking: it may call the guest (it is a wrapper around guest code), so it gets a frame of its own."""

    def __init__(self, info: OpInfo, function: Callable[..., object], where: str, *, blocking: bool = False) -> None:
        self.info, self.function, self.where, self.blocking = info, function, where, blocking
        self.locations: Sequence[Sequence[Location]] = carry(info.params)
        self.signed = [param.type.signed for param in info.params]

    @property
    def plain(self) -> bool:
        """The common case: a leaf whose arguments are unsigned."""
        return not (any(self.signed) or self.blocking or self.info.jumped)

    def plain_registers(self) -> list[tuple[int, int]]:
        """Registers of the low and high word (-1: it has none) of each argument that is in registers."""
        words = [[word.register for word in words if word.register is not None] for words in self.locations]
        return [(each[0], each[1] if len(each) > 1 else -1) for each in words if each]

    def stack_form(self) -> str:
        """What `struct` calls the arguments that are on the stack, which are the last ones."""
        return "".join("IQ"[len(words) - 1] for words in self.locations if words[0].register is None)


def from_registers(places: Sequence[tuple[int, int]], words: memoryview) -> Callable[[], Sequence[int]]:
    """What reads arguments out of registers, each in a low and a high one (-1: none), from the registers' halves.

    The common shapes are spelt out: this is most of what a call of Python costs.
    """
    low = [2 * register for register, _ in places]
    high = [2 * register for _, register in places]
    if not places:
        return lambda: ()
    if len(places) == 1 and high[0] < 0:
        only = low[0]
        return lambda: (words[only],)
    if len(places) == 1:
        first, second = low[0], high[0]
        return lambda: (words[first] | words[second] << 32,)
    if all(each < 0 for each in high):
        pick = operator.itemgetter(*low)
        return lambda: pick(words)
    if len(places) == 2 and high[0] < 0:  # a pointer and an entry, which set_pte and its like have
        pointer, first, second = low[0], low[1], high[1]
        return lambda: (words[pointer], words[first] | words[second] << 32)
    return lambda: [words[a] if b < 0 else words[a] | words[b] << 32 for a, b in zip(low, high, strict=True)]


def with_registers(op: HostOp, read: Callable[[int, int], bytes]) -> Callable[[int, int, int, int], object]:
    """`op`'s function with its arguments taken out of EAX, EDX, ECX and the stack at ESP, where regparm(3) has them.

    Spelt out by shape: this is most of what a call of Python costs.
    """
    on_stack = struct.Struct("<" + op.stack_form())
    size, unpack = on_stack.size, on_stack.unpack
    shape = tuple(1 if high < 0 else 2 for _, high in op.plain_registers())
    if size:
        pick: Callable[[int, int, int], tuple[int, ...]] = PICK[shape]
        return lambda a, d, c, esp: op.function(*pick(a, d, c), *unpack(read(esp + RETURN_BYTES, size)))
    if shape == ():
        return lambda a, d, c, esp: op.function()
    if shape == (1,):
        return lambda a, d, c, esp: op.function(a)
    if shape == (2,):
        return lambda a, d, c, esp: op.function(d << 32 | a)
    if shape == (1, 2):
        return lambda a, d, c, esp: op.function(a, c << 32 | d)
    pick = PICK[shape]
    return lambda a, d, c, esp: op.function(*pick(a, d, c))


# By the words of the arguments that are in registers.
PICK: Mapping[tuple[int, ...], Callable[[int, int, int], tuple[int, ...]]] = MappingProxyType({
    (): lambda a, d, c: (), (1,): lambda a, d, c: (a,), (2,): lambda a, d, c: (d << 32 | a,),
    (1, 1): lambda a, d, c: (a, d), (1, 2): lambda a, d, c: (a, c << 32 | d),
    (2, 1): lambda a, d, c: (d << 32 | a, c), (1, 1, 1): lambda a, d, c: (a, d, c),
})


class HostOps:
    """The host functions of one machine, by number; `calls` counts them."""

    def __init__(self, machine: Machine, ops: Sequence[HostOp | None]) -> None:
        self._machine, self._vcpu = machine, machine.vcpu
        self.ops = ops
        self.calls = [0] * len(ops)

    def entry(self, number: int, op: HostOp) -> Callable[[], None]:
        """What the op's stub calls. The common case, unsigned arguments of a leaf, has nothing to decide."""
        if not op.plain:
            return lambda: self.run(number, op)
        state = self._vcpu.state
        words, quads = state.words, state.quads
        in_registers, on_stack = from_registers(op.plain_registers(), words), struct.Struct("<" + op.stack_form())
        calls, result_words = self.calls, op.info.result_words
        read, unpack, size = self._vcpu.read, on_stack.unpack, on_stack.size

        def leaf() -> None:
            calls[number] += 1
            try:
                if size:
                    result = op.function(*in_registers(), *unpack(read(words[2 * ESP] + RETURN_BYTES, size)))
                else:
                    result = op.function(*in_registers())
            except Exception as error:
                self._failed(op, error)
                return
            if result_words:
                if not isinstance(result, int):
                    raise self._broken(op, TypeError(f"returned {result!r}, not an integer"))
                quads[EAX] = result & WORD
                if result_words == 2:
                    quads[EDX] = result >> 32 & WORD

        return leaf

    def leaves(self, first: int) -> dict[int, tuple[Leaf, int]]:
        """Those of the common case once more, as the C side of the engine calls them; keys are stubs, op 0 at `first`.
        """
        return {first + number: (self._leaf(number, op), op.info.result_words)
                for number, op in enumerate(self.ops) if op is not None and op.plain}

    def _leaf(self, number: int, op: HostOp) -> Leaf:
        call, calls, result_words = with_registers(op, self._vcpu.read), self.calls, op.info.result_words

        def leaf(eax: int, edx: int, ecx: int, esp: int) -> int:
            calls[number] += 1
            try:
                result = call(eax, edx, ecx, esp)
                if not result_words:
                    return 0
                if isinstance(result, int):
                    return result
                raise TypeError(f"returned {result!r}, not an integer")
            except BaseException as error:
                leaf_changed(self._machine.engine)
                try:
                    if not isinstance(error, Exception):
                        raise
                    self._failed(op, error)
                except BaseException as failure:
                    self._machine.engine.fail(failure)
                return 0

        return leaf

    def run(self, number: int, op: HostOp) -> None:
        """Any host function."""
        vcpu, info = self._vcpu, op.info
        self.calls[number] += 1
        eip, esp, ecx, edx = vcpu.eip, vcpu.esp, vcpu.reg(ECX), vcpu.reg(EDX)
        try:
            result = op.function(*self._arguments(op, esp))
        except Exception as error:
            vcpu.eip, vcpu.esp = eip, esp
            self._failed(op, error)
            return
        if op.blocking:  # it ran in between; the stub's ret is still to come, and callers may keep ECX and EDX
            vcpu.eip, vcpu.esp = eip, esp
            vcpu.set_reg(ECX, ecx)
            vcpu.set_reg(EDX, edx)
        if info.result_words and not info.jumped:
            if not isinstance(result, int):
                raise self._broken(op, TypeError(f"returned {result!r}, not an integer"))
            vcpu.set_reg(EAX, result)
            vcpu.set_reg(EDX, result >> 32 if info.result_words == 2 else edx)

    def _arguments(self, op: HostOp, esp: int) -> list[int]:
        vcpu = self._vcpu
        values = []
        for locations, signed in zip(op.locations, op.signed, strict=True):
            value = 0
            for shift, location in enumerate(locations):
                word = vcpu.reg(location.register) if location.register is not None else vcpu.read_u32(
                    esp + 4 + location.stack)
                value |= word << 32 * shift
            if signed and value >> (32 * len(locations) - 1):
                value -= 1 << 32 * len(locations)
            values.append(value)
        return values

    def _failed(self, op: HostOp, error: Exception) -> None:
        """A fault is delivered as if the op were one instruction: at the stub, and the op runs again."""
        if isinstance(error, GuestFault):
            vcpu = self._vcpu
            vcpu.eip -= STUB_CALL_BYTES
            if error.cr2 is not None:
                vcpu.set_cr2(error.cr2)
            self._machine.raise_exception(error.vector, error.error)
        elif isinstance(error, BackendError):
            raise error
        else:
            raise self._broken(op, error) from error

    def _broken(self, op: HostOp, error: Exception) -> BackendError:
        """What Python callers see when a host function raises."""
        try:
            caller = self._vcpu.read_u32(self._vcpu.esp)
        except GuestFault:
            caller = 0
        symbol = self._machine.symbolize(caller)
        place = f"{caller:#x} {symbol}" if symbol else f"{caller:#x}"
        return BackendError(
            f"op {op.info.name} ({op.where}) called from {place}: {type(error).__name__}: {error}",
            op=op.info.name, where=op.where)
