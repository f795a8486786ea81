"""The ways back to user mode, by a round trip: two instructions of ring 3, the second of which comes back.

Ref: paravirt/hookspecs/cpu.py; Intel SDM vol. 2, IRET and SYSEXIT; vol. 3A, 6.12.1 (stack switch).
"""

from __future__ import annotations

from paravirt.conformance.bench import EFLAGS_IF, KERNEL_CS, NAMES, PAGE, PATTERN, USER_CS, USER_DS, Bench, UserState
from paravirt.conformance.case import case

INC_EDI_COME_BACK = b"\x47\xcd\x91"
EDI, ESP = 7, 4
RESERVED = 2
CARRY = 1


def _user_state(bench: Bench, back: UserState, code: int, stack: int) -> None:
    bench.equal("eip in user mode", back.eip, code + len(INC_EDI_COME_BACK))
    bench.equal("cs, ss in user mode", (back.cs, back.ss), (USER_CS, USER_DS))
    bench.equal("esp in user mode", back.esp, stack)


def _registers(bench: Bench, back: UserState, given: tuple[int, ...], lost: tuple[int, ...] = ()) -> None:
    expected = list(given)
    expected[EDI] += 1
    for register, name in enumerate(NAMES):
        if register != ESP and register not in lost:
            bench.equal(f"{name} in user mode", back.registers[register], expected[register])


@case("iret")
def iret_enters_user_mode(bench: Bench) -> None:
    code = bench.user_page(INC_EDI_COME_BACK)
    bench.prepare_return(bench.kernel_stack())
    bench.ops.irq_disable()
    for flags in (EFLAGS_IF, EFLAGS_IF | CARRY):  # INC leaves CF alone
        stack = code + PAGE - 16
        back = bench.jump(bench.target(), PATTERN, [code, USER_CS, flags | RESERVED, stack, USER_DS])
        _user_state(bench, back, code, stack)
        _registers(bench, back, PATTERN)
        bench.equal("IF and CF in user mode", back.eflags & (EFLAGS_IF | CARRY), flags)


@case("iret")
def iret_returns_to_the_kernel(bench: Bench) -> None:
    """Within the kernel the frame has three words, and the flag is the frame's."""
    bench.prepare_return()
    code = bench.code - 16
    bench.write_code(code, INC_EDI_COME_BACK)
    for flags in (0, EFLAGS_IF):
        (bench.ops.irq_enable if not flags else bench.ops.irq_disable)()
        back = bench.jump(bench.target(), PATTERN, [code, KERNEL_CS | bench.ring, flags | RESERVED])
        bench.equal("eip", back.eip, code + len(INC_EDI_COME_BACK))
        bench.equal("cs", back.cs, KERNEL_CS | bench.ring)
        _registers(bench, back, PATTERN)
        bench.equal("IF of the frame", back.eflags & EFLAGS_IF, flags)


def _refused(bench: Bench) -> None:
    """At the return itself, or, where a hypervisor does it, as a fault of the user code that was never reached."""
    text = bench.stopped.output.decode("latin-1")
    told = "bad frame for the return" in text or (bench.ring and "general protection fault at eip" in text)
    bench.holds("the kernel's fix-up reports the frame", bool(told), text[-200:])


@case("iret", ends=("crash", "stopped", "idle", "limit"), after=_refused)
def a_bad_frame_goes_to_the_fix_up(bench: Bench) -> None:
    code = bench.user_page(INC_EDI_COME_BACK)
    bench.ops.load_esp0(bench.symbol("cpu_tss"), bench.thread(bench.kernel_stack()))
    bench.jump(bench.target(), PATTERN, [code, 0x0F0B, EFLAGS_IF | RESERVED, code + PAGE, USER_DS])


@case("irq_enable_sysexit")
def sysexit_enters_user_mode_with_interrupts_on(bench: Bench) -> None:
    code = bench.user_page(INC_EDI_COME_BACK)
    bench.prepare_return(bench.kernel_stack())
    bench.ops.irq_disable()
    stack = code + PAGE - 32
    registers = list(PATTERN)
    registers[1], registers[2] = stack, code
    back = bench.jump(bench.target(), registers, [])
    _user_state(bench, back, code, stack)
    _registers(bench, back, tuple(registers))
    bench.equal("IF in user mode", back.eflags & EFLAGS_IF, EFLAGS_IF)
