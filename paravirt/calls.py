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

from greenlet import getcurrent, greenlet

from paravirt.errors import BackendError, GuestFault
from paravirt.hookspecs import OpInfo
from paravirt.hookspecs.types import Location, carry
from paravirt.machine.core import Machine
from paravirt.machine.layout import EAX, ECX, EDX
from paravirt.machine.outcome import GuestExit, crash

STUB_BYTES = 8
STUB = b"\xcd\x83\xc3" + b"\xcc" * 5
START_KERNEL, RETURN, FIRST_OP = 0, 1, 2
GATE_NS = 1000  # a call of the host costs time, or a hypercall would look cheaper than an instruction


class HostOp:
    """A host function as the gate calls it: where each argument is, and what comes back.

    :param blocking: it may call the guest (it is a wrapper around guest code), so it gets a frame of its own.
    """

    def __init__(self, info: OpInfo, function: Callable[..., object], where: str, *, blocking: bool = False) -> None:
        self.info, self.function, self.where, self.blocking = info, function, where, blocking
        self.locations: Sequence[Sequence[Location]] = carry(info.params)
        self.signed = [param.type.signed for param in info.params]


class Calls:
    """The two directions of one machine. `ops` are by number, None where an op is not a host function."""

    def __init__(self, machine: Machine, gate_page: int, ops: Sequence[HostOp | None]) -> None:
        self._machine, self._vcpu, self._gate_page = machine, machine.vcpu, gate_page
        self._ops = ops
        self._hub = getcurrent()
        self._waiting: dict[int, greenlet] = {}
        self._boot: greenlet | None = None
        self.host_calls = [0] * len(ops)
        self.on_fault: Callable[[GuestFault], None] = self._deliver
        self.after_op: Callable[[], None] = lambda: None
        machine.dispatcher.gate = self._enter
        machine.dispatcher.gate_start = gate_page
        machine.dispatcher.gate_end = gate_page + 4096
        machine.engine.gate_page(gate_page, gate_page + 4096)

    @staticmethod
    def page(count: int) -> bytes:
        """The gate page for `count` ops."""
        return (STUB * (FIRST_OP + count)).ljust(4096, b"\xcc")

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

    def _enter(self, stub: int) -> None:
        """From the exit: ``int 0x83`` in the gate page, EIP at the stub's ret."""
        self._machine.engine.charge(GATE_NS)
        if stub >= FIRST_OP:
            number = stub - FIRST_OP
            op = self._ops[number] if number < len(self._ops) else None
            if op is None:
                raise crash(f"stub {stub} of the gate page is not a host function")
            if op.blocking:
                greenlet(lambda: self._run_op(number, op), self._hub).switch()
            else:
                self._host_op(number, op)
        elif stub == RETURN:
            frame = self._waiting.pop(self._vcpu.esp, None)
            if frame is None:
                raise crash(f"return to the gate page on an unknown stack {self._vcpu.esp:#x}")
            frame.switch()
        elif self._boot is None or self._boot:
            raise crash("the kernel entered start_kernel twice")
        else:
            self._boot.switch()

    def _run_op(self, number: int, op: HostOp) -> None:
        try:
            self._host_op(number, op)
        except BaseException as error:
            if self._machine.outcome is None or not isinstance(error, GuestExit):
                self._machine.engine.fail(error)

    def _host_op(self, number: int, op: HostOp) -> None:
        vcpu, info = self._vcpu, op.info
        self.host_calls[number] += 1
        eip, esp, ecx, edx = vcpu.eip, vcpu.esp, vcpu.reg(ECX), vcpu.reg(EDX)
        try:
            result = op.function(*self._arguments(op, esp))
        except GuestFault as fault:
            # As if the op were one instruction: the fault is at the stub, and the op runs again.
            vcpu.eip, vcpu.esp = eip - 2, esp
            self.on_fault(fault)
            return
        except (BackendError, GuestExit):
            raise
        except Exception as error:
            raise self.broken(op, error) from error
        if op.blocking:  # it ran in between; the stub's ret is still to come, and callers may keep ECX and EDX
            vcpu.eip, vcpu.esp = eip, esp
            vcpu.set_reg(ECX, ecx)
            vcpu.set_reg(EDX, edx)
        if not info.jumped:
            if info.result_words and not isinstance(result, int):
                raise self.broken(op, TypeError(f"returned {result!r}, not an integer"))
            if isinstance(result, int) and info.result_words:
                vcpu.set_reg(EAX, result)
                vcpu.set_reg(EDX, result >> 32 if info.result_words == 2 else edx)
        self.after_op()

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

    def broken(self, op: HostOp, error: BaseException) -> BackendError:
        """What Python callers see when a host function raises."""
        caller = self._vcpu.read_u32(self._vcpu.esp) if self._vcpu.cpl < 3 else 0
        symbol = self._machine.symbolize(caller)
        place = f"{caller:#x} {symbol}" if symbol else f"{caller:#x}"
        return BackendError(
            f"op {op.info.name} ({op.where}) called from {place}: {type(error).__name__}: {error}",
            op=op.info.name, where=op.where)

    def _deliver(self, fault: GuestFault) -> None:
        if fault.cr2 is not None:
            self._vcpu.set_cr2(fault.cr2)
        self._machine.raise_exception(fault.vector, fault.error)
