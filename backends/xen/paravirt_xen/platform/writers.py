"""Instructions that write memory, one function a kind, for `ptwrite`.

Each takes the operands of an `Instruction`, asks `target` for the memory operand, and does what the CPU would do to
it, to the registers and to the flags. EIP is the caller's.

Ref: Intel SDM vol. 2 (each instruction); vol. 1, 3.4.3.1 (status flags).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from paravirt.api import layout
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.instruction import Instruction, Undecoded

CF, PF, AF, ZF, SF, OF = 1, 4, 0x10, 0x40, 0x80, 0x800
STATUS = CF | PF | AF | ZF | SF | OF
EAX, ECX, EDX, EBX, ESP = layout.EAX, layout.ECX, layout.EDX, layout.EBX, layout.ESP


class Memory(Protocol):
    """A memory operand."""

    size: int

    def read(self) -> int: ...
    def write(self, value: int, *, exchange: bool = False) -> None: ...


Find = Callable[[int, int], Memory]
Writer = Callable[[Domain, Instruction, Find], None]


def _register(instruction: Instruction, number: int, size: int) -> int:
    """A register of 1, 2 or 4 bytes; of one byte, 4 to 7 are AH to BH."""
    if size == 1:
        return instruction.vcpu.reg(number & 3) >> (8 if number & 4 else 0) & 0xFF
    return instruction.vcpu.reg(number) & (1 << 8 * size) - 1


def _set_register(instruction: Instruction, number: int, size: int, value: int) -> None:
    shift = 8 if size == 1 and number & 4 else 0
    index = number & 3 if size == 1 else number
    mask = (1 << 8 * size) - 1 << shift
    instruction.vcpu.set_reg(index, instruction.vcpu.reg(index) & ~mask | value << shift & mask)


def _set_flags(domain: Domain, flags: int, changed: int = STATUS) -> None:
    domain.vcpu.eflags = domain.vcpu.eflags & ~changed | flags & changed


def _result_flags(result: int, size: int) -> int:
    flags = ZF if not result else 0
    if result >> 8 * size - 1 & 1:
        flags |= SF
    if not (result & 0xFF).bit_count() & 1:
        flags |= PF
    return flags


def _sum_flags(a: int, b: int, carry: int, size: int) -> tuple[int, int]:
    """a + b + carry, with the flags."""
    total = a + b + carry
    result = total & (1 << 8 * size) - 1
    flags = _result_flags(result, size) | (CF if total != result else 0) | (a ^ b ^ result) & AF
    if (a ^ result) & (b ^ result) & 1 << 8 * size - 1:
        flags |= OF
    return result, flags


def _difference_flags(a: int, b: int, borrow: int, size: int) -> tuple[int, int]:
    """a - b - borrow, with the flags."""
    result = a - b - borrow & (1 << 8 * size) - 1
    flags = _result_flags(result, size) | (CF if a < b + borrow else 0) | (a ^ b ^ result) & AF
    if (a ^ b) & (a ^ result) & 1 << 8 * size - 1:
        flags |= OF
    return result, flags


def _arithmetic(domain: Domain, operation: int, a: int, b: int, size: int) -> int:
    """Operation 0 to 6 of the first group: ADD, OR, ADC, SBB, AND, SUB, XOR; sets the flags."""
    carry = domain.vcpu.eflags & CF
    if operation in (0, 2):
        result, flags = _sum_flags(a, b, carry if operation == 2 else 0, size)
    elif operation in (3, 5):
        result, flags = _difference_flags(a, b, carry if operation == 3 else 0, size)
    elif operation in (1, 4, 6):
        result = a | b if operation == 1 else a & b if operation == 4 else a ^ b
        flags = _result_flags(result, size)
    else:
        raise Undecoded("CMP writes nothing")
    _set_flags(domain, flags)
    return result


def _size(instruction: Instruction) -> int:
    return instruction.wide if instruction.opcode & 1 else 1


def _modify(domain: Domain, instruction: Instruction, memory: Memory, operation: int, value: int) -> None:
    """memory := memory op value. The flags are changed only if the write is not refused."""
    before = domain.vcpu.eflags
    result = _arithmetic(domain, operation, memory.read(), value, memory.size)
    try:
        memory.write(result, exchange=instruction.lock)
    except BaseException:
        domain.vcpu.eflags = before
        raise


def _arithmetic_register(domain: Domain, instruction: Instruction, find: Find) -> None:
    memory = find(instruction.memory_operand(), _size(instruction))
    value = _register(instruction, instruction.register, memory.size)
    _modify(domain, instruction, memory, instruction.opcode >> 3 & 7, value)


def _arithmetic_immediate(domain: Domain, instruction: Instruction, find: Find) -> None:
    size = _size(instruction)
    address = instruction.memory_operand()
    short = instruction.opcode == 0x83
    value = instruction.immediate(1 if short else size, signed=short) & (1 << 8 * size) - 1
    _modify(domain, instruction, find(address, size), instruction.register, value)


def _one_operand(domain: Domain, instruction: Instruction, find: Find) -> None:
    """F6 and F7: NOT, NEG; FE and FF: INC, DEC."""
    memory = find(instruction.memory_operand(), _size(instruction))
    old, unary, operation = memory.read(), instruction.opcode < 0xF8, instruction.register
    changed = STATUS & ~CF
    if unary and operation == 2:
        result, flags, changed = ~old, 0, 0
    elif unary and operation == 3:
        result, flags = _difference_flags(0, old, 0, memory.size)
        changed = STATUS
    elif not unary and operation in (0, 1):
        change = _sum_flags if operation == 0 else _difference_flags
        result, flags = change(old, 1, 0, memory.size)
    else:
        raise Undecoded(f"operation {operation} of {instruction.opcode:#x}")
    memory.write(result, exchange=instruction.lock)
    _set_flags(domain, flags, changed)


def _move_register(domain: Domain, instruction: Instruction, find: Find) -> None:
    memory = find(instruction.memory_operand(), _size(instruction))
    memory.write(_register(instruction, instruction.register, memory.size))


def _move_immediate(domain: Domain, instruction: Instruction, find: Find) -> None:
    size = _size(instruction)
    address = instruction.memory_operand()
    if instruction.register:
        raise Undecoded("no MOV")
    value = instruction.immediate(size)
    find(address, size).write(value)


def _move_accumulator(domain: Domain, instruction: Instruction, find: Find) -> None:
    size = _size(instruction)
    memory = find(instruction.linear(instruction.immediate(4), layout.DS), size)
    memory.write(_register(instruction, EAX, size))


def _move_around(domain: Domain, instruction: Instruction, find: Find) -> None:
    """MOVNTI."""
    find(instruction.memory_operand(), 4).write(_register(instruction, instruction.register, 4))


def _exchange(domain: Domain, instruction: Instruction, find: Find) -> None:
    memory = find(instruction.memory_operand(), _size(instruction))
    old = memory.read()
    memory.write(_register(instruction, instruction.register, memory.size), exchange=True)
    _set_register(instruction, instruction.register, memory.size, old)


def _exchange_add(domain: Domain, instruction: Instruction, find: Find) -> None:
    memory = find(instruction.memory_operand(), _size(instruction))
    old = memory.read()
    result, flags = _sum_flags(old, _register(instruction, instruction.register, memory.size), 0, memory.size)
    memory.write(result, exchange=instruction.lock)
    _set_register(instruction, instruction.register, memory.size, old)
    _set_flags(domain, flags)


def _compare_exchange(domain: Domain, instruction: Instruction, find: Find) -> None:
    memory = find(instruction.memory_operand(), _size(instruction))
    old = memory.read()
    _, flags = _difference_flags(_register(instruction, EAX, memory.size), old, 0, memory.size)
    if flags & ZF:
        memory.write(_register(instruction, instruction.register, memory.size), exchange=True)
    else:
        _set_register(instruction, EAX, memory.size, old)
    _set_flags(domain, flags)


def _compare_exchange_8(domain: Domain, instruction: Instruction, find: Find) -> None:
    address = instruction.memory_operand()
    if instruction.register != 1:
        raise Undecoded("no CMPXCHG8B")
    memory, vcpu = find(address, 8), domain.vcpu
    old = memory.read()
    if old == vcpu.reg(EDX) << 32 | vcpu.reg(EAX):
        memory.write(vcpu.reg(ECX) << 32 | vcpu.reg(EBX), exchange=True)
        _set_flags(domain, ZF, ZF)
    else:
        vcpu.set_reg(EAX, old)
        vcpu.set_reg(EDX, old >> 32)
        _set_flags(domain, 0, ZF)


def _bit(domain: Domain, instruction: Instruction, find: Find) -> None:
    """BTS, BTR, BTC. A bit number in a register reaches beyond the operand."""
    size = instruction.wide
    address = instruction.memory_operand()
    if instruction.opcode == 0x0FBA:
        operation, number = instruction.register, instruction.byte()
    else:
        operation = instruction.opcode >> 3 & 7
        number = _register(instruction, instruction.register, size)
        number -= number >> 8 * size - 1 << 8 * size  # signed
        address = address + (number >> (3 + size // 2)) * size & 0xFFFFFFFF
    bit = 1 << (number & 8 * size - 1)
    if operation not in (5, 6, 7):
        raise Undecoded("BT writes nothing")
    memory = find(address, size)
    old = memory.read()
    memory.write(old | bit if operation == 5 else old & ~bit if operation == 6 else old ^ bit,
                 exchange=instruction.lock)
    _set_flags(domain, CF if old & bit else 0, CF)


def _push(domain: Domain, instruction: Instruction, find: Find) -> None:
    """PUSH of a register or an immediate."""
    opcode, size = instruction.opcode, instruction.wide
    if opcode in (0x68, 0x6A):
        value = instruction.immediate(1 if opcode == 0x6A else size, signed=opcode == 0x6A)
    else:
        value = _register(instruction, opcode & 7, size)
    esp = domain.vcpu.esp - size & 0xFFFFFFFF
    find(esp + domain.vcpu.segment(layout.SS).base & 0xFFFFFFFF, size).write(value)
    domain.vcpu.esp = esp


WRITERS: dict[int, Writer] = {
    **{8 * operation + wide: _arithmetic_register for operation in range(7) for wide in (0, 1)},
    0x50: _push, 0x51: _push, 0x52: _push, 0x53: _push, 0x54: _push, 0x55: _push, 0x56: _push, 0x57: _push,
    0x68: _push, 0x6A: _push,
    0x80: _arithmetic_immediate, 0x81: _arithmetic_immediate, 0x83: _arithmetic_immediate,
    0x86: _exchange, 0x87: _exchange,
    0x88: _move_register, 0x89: _move_register,
    0xA2: _move_accumulator, 0xA3: _move_accumulator,
    0xC6: _move_immediate, 0xC7: _move_immediate,
    0xF6: _one_operand, 0xF7: _one_operand, 0xFE: _one_operand, 0xFF: _one_operand,
    0x0FAB: _bit, 0x0FB3: _bit, 0x0FBB: _bit, 0x0FBA: _bit,
    0x0FB0: _compare_exchange, 0x0FB1: _compare_exchange,
    0x0FC0: _exchange_add, 0x0FC1: _exchange_add,
    0x0FC3: _move_around,
    0x0FC7: _compare_exchange_8,
}  # fmt: skip
