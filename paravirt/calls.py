"""Calls between Python and the guest, both ways, as plain blocking calls.

Python's start_kernel calls ops and functions of the kernel; the kernel's call sites call host
functions. One vcpu, one engine: while Python waits for a guest function, the guest runs, takes
interrupts, switches tasks and may call other host functions. So a Python frame must be able to stand
still while the CPU goes on, and libunicorn must not be entered twice. Greenlets do that, and only this
module knows of them:

* the *hub* is the greenlet that runs ``emu_start``;
* start_kernel is a second one. `Calls.call` sets the registers, pushes a return address that is a stub
  of the gate page and switches to the hub; when the function returns, the stub's ``int 0x83`` comes
  back here and switches to the frame that waits on that stack pointer;
* host functions are leaves and run inside the exit itself.

The gate page is a page of the kernel's text, named by its note and filled here, as Xen fills a
hypercall page: every stub is ``int 0x83; ret``. Stub 0 is start_kernel (the kernel's entry jumps to
it), stub 1 the return address, stub 2 + n the op with number n.

Ref: gcc's regparm(3) for i386: EAX, EDX, ECX, then the stack; 64-bit results in EDX:EAX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from greenlet import getcurrent, greenlet

from paravirt.errors import GuestFault
from paravirt.hookspecs import OpInfo
from paravirt.hookspecs.types import carry
from paravirt.host_ops import HostOp, HostOps
from paravirt.machine.core import Machine
from paravirt.machine.layout import EAX, ECX, EDX
from paravirt.machine.outcome import GuestExit, crash
from paravirt.machine.stubs import host_leaves

STUB_BYTES = 8
STUB = b"\xcd\x83\xc3" + b"\xcc" * 5
START_KERNEL, RETURN, FIRST_OP = 0, 1, 2
PAGE = 4096


class Calls:
    """The two directions of one machine. `ops` are by number, None where an op is not a host function."""

    def __init__(self, machine: Machine, gate_page: int, ops: Sequence[HostOp | None]) -> None:
        self._machine, self._vcpu, self._gate_page = machine, machine.vcpu, gate_page
        self._host = HostOps(machine, ops)
        self.host_calls = self._host.calls
        self._hub = getcurrent()
        self._waiting: dict[int, greenlet] = {}
        self._boot: greenlet | None = None
        machine.dispatcher.gates = self._gates()
        if not machine.exits_watched:
            host_leaves(machine.engine, self._host.leaves(FIRST_OP))
        machine.engine.gate_page(gate_page, gate_page + PAGE)

    @staticmethod
    def page(count: int) -> bytes:
        """The gate page for `count` ops."""
        return (STUB * (FIRST_OP + count)).ljust(PAGE, b"\xcc")

    @staticmethod
    def stub_at(gate_page: int, number: int) -> int:
        """Address in `gate_page` that calls op `number`."""
        return gate_page + STUB_BYTES * (FIRST_OP + number)

    def stub(self, number: int) -> int:
        """Address that calls op `number`."""
        return self.stub_at(self._gate_page, number)

    # ------------------------------------------------------------------ running

    def run(self, body: Callable[[], None]) -> None:
        """Run the machine; `body` starts when the kernel jumps to stub 0. Never returns.

        :raises GuestExit: the outcome, raised in `body` too, at the line that waits.
        """
        self._hub = getcurrent()
        self._boot = greenlet(lambda: self._run_body(body), self._hub)
        try:
            self._machine.run()
        except BaseException as error:
            end = error if isinstance(error, GuestExit) else GuestExit(crash(str(error)).outcome)
            self._unwind(end)
            raise

    def _run_body(self, body: Callable[[], None]) -> None:
        try:
            body()
        except GuestExit as end:
            if self._machine.outcome is None:
                self._machine.engine.fail(end)
            return
        except BaseException as error:
            self._machine.engine.fail(error)
            return
        self._machine.engine.fail(crash("start_kernel returned"))

    def _unwind(self, end: GuestExit) -> None:
        waiting, self._waiting = self._waiting, {}
        for key in sorted(waiting):
            waiting[key].throw(end)

    # ------------------------------------------------------------------ Python calls the guest

    def call(self, address: int, *arguments: int, wide: bool = False) -> int:
        """Run a guest function on the current guest stack. Blocks the calling frame, nothing else.

        :param arguments: 32-bit words, in order: three in registers, the rest on the stack.
        :param wide: the result is EDX:EAX.
        :raises GuestExit: the run ended while the function ran.
        """
        return self.invoke(address, dict(zip((EAX, EDX, ECX), arguments, strict=False)), arguments[3:], wide=wide)

    def call_op(self, info: OpInfo, address: int, arguments: Sequence[int]) -> int:
        """Run an op that is guest code, with its arguments where regparm(3) has them."""
        registers: dict[int, int] = {}
        stack: list[int] = []
        for locations, value in zip(carry(info.params), arguments, strict=True):
            for shift, location in enumerate(locations):
                word = value >> 32 * shift & 0xFFFFFFFF
                if location.register is not None:
                    registers[location.register] = word
                else:
                    stack.append(word)
        result = self.invoke(address, registers, stack, wide=info.result_words == 2)
        sign = 1 << (32 * info.result_words - 1) if info.result_words else 0
        return result - 2 * sign if info.signed_result and result & sign else result

    def invoke(self, address: int, registers: Mapping[int, int], stack: Sequence[int], *, wide: bool) -> int:
        vcpu, frame = self._vcpu, getcurrent()
        if frame is self._hub:
            raise RuntimeError("host functions are leaves: they may not call the guest")
        if vcpu.cpl == 3:
            raise RuntimeError("a guest call while the CPU runs user code")
        esp = vcpu.esp
        try:
            for word in reversed(stack):
                esp -= 4
                vcpu.write_u32(esp, word)
            vcpu.write_u32(esp - 4, self._gate_page + STUB_BYTES * RETURN)
        except GuestFault as fault:
            raise crash(f"no stack to call the guest on: {fault}") from None
        for register, word in registers.items():
            vcpu.set_reg(register, word)
        vcpu.esp, vcpu.eip = esp - 4, address
        stale = self._waiting.pop(esp, None)
        self._waiting[esp] = frame
        if stale is not None:  # its task died inside the call, and the stack is in use again
            stale.throw(GuestExit(crash("the task that was called is gone").outcome))
        self._hub.switch()
        vcpu.esp = esp + 4 * len(stack)
        low = vcpu.reg(EAX)
        return vcpu.reg(EDX) << 32 | low if wide else low

    def current(self) -> object:
        """The Python frame that runs, as a key for what belongs to it alone."""
        return getcurrent()

    # ------------------------------------------------------------------ the guest calls Python

    def _gates(self) -> list[Callable[[], None]]:
        """What each stub of the gate page does."""
        gates = [self._enter_boot, self._enter_return]
        for number, op in enumerate(self._host.ops):
            if op is None:
                gates.append(partial(self._enter_nothing, number))
            elif op.blocking:
                gates.append(partial(self._enter_blocking, number, op))
            else:
                gates.append(self._host.entry(number, op))
        used = len(gates)
        return gates + [partial(self._enter_nothing, number) for number in range(used, PAGE // STUB_BYTES + 1)]

    def _enter_boot(self) -> None:
        if self._boot is None or self._boot:
            raise crash("the kernel entered start_kernel twice")
        self._boot.switch()

    def _enter_return(self) -> None:
        frame = self._waiting.pop(self._vcpu.esp, None)
        if frame is None:
            raise crash(f"return to the gate page on an unknown stack {self._vcpu.esp:#x}")
        frame.switch()

    def _enter_nothing(self, number: int) -> None:
        raise crash(f"stub {number} of the gate page is not a host function")

    def _enter_blocking(self, number: int, op: HostOp) -> None:
        greenlet(lambda: self._run_blocking(number, op), self._hub).switch()

    def _run_blocking(self, number: int, op: HostOp) -> None:
        try:
            self._host.run(number, op)
        except BaseException as error:
            if self._machine.outcome is None or not isinstance(error, GuestExit):
                self._machine.engine.fail(error)
