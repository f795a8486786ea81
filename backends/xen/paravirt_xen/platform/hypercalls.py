"""Every hypercall number, with its answer, and the dispatcher.

`HYPERCALLS` is literal: number -> name, arguments, handler or fixed answer. The arguments are decoded from one
declarative signature, which trace and fuzzer read as well: names in the order of the registers, ``:u64`` for two
registers (low word first), ``:ptr`` for a guest-virtual address. Numbers that are not in the table do not exist.

Ref: Xen public/xen.h (numbers), arch/x86/pv/hypercall.c, common/multicall.c; answers of a 4.17 to a domU.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from paravirt.api import layout
from paravirt_xen.platform import (
    callbacks,
    console,
    debugregs,
    descriptors,
    eventop,
    grants,
    iret,
    memory,
    mmu,
    mmuext,
    multicall,
    physdev,
    sched,
    timers,
    trapops,
    vcpuop,
    version,
)
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import ENOSYS, EOPNOTSUPP, EPERM, HypercallError, Preempted

Handler = Callable[..., int]
Entry = Callable[[int, int, int, int, int], int]
INT_BYTES = 2  # of ``int 0x82``
MAX_ARGUMENTS = 5
REGISTERS = (layout.EBX, layout.ECX, layout.EDX, layout.ESI, layout.EDI)


OnCall = Callable[[str, Sequence[int], int, bool], None]


class Argument(NamedTuple):
    """One argument: `kind` is u32, u64 (two registers) or ptr."""

    name: str
    kind: str


class Hypercall(NamedTuple):
    """A row. `handler` is called with the domain and the arguments; an int is the answer itself."""

    name: str
    signature: str
    handler: Handler | int

    @property
    def arguments(self) -> tuple[Argument, ...]:
        words = [word.partition(":") for word in self.signature.split()]
        return tuple(Argument(name, kind or "u32") for name, _, kind in words)


def unwritten(domain: Domain, *arguments: int) -> int:
    """A call that this hypervisor does not know yet."""
    raise HypercallError(ENOSYS, "not written yet")


HYPERCALLS: dict[int, Hypercall] = {
    0: Hypercall("set_trap_table", "traps:ptr", trapops.set_trap_table),
    1: Hypercall("mmu_update", "requests:ptr count done:ptr foreign_domain", mmu.mmu_update),
    2: Hypercall("set_gdt", "frames:ptr entries", descriptors.set_gdt),
    3: Hypercall("stack_switch", "ss esp", trapops.stack_switch),
    4: Hypercall("set_callbacks", "event_cs event_eip failsafe_cs failsafe_eip", callbacks.set_callbacks),
    5: Hypercall("fpu_taskswitch", "on", trapops.fpu_taskswitch),
    6: Hypercall("sched_op_compat", "command argument", sched.sched_op_compat),
    7: Hypercall("platform_op", "op:ptr", -EPERM),
    8: Hypercall("set_debugreg", "register value", debugregs.set_debugreg),
    9: Hypercall("get_debugreg", "register", debugregs.get_debugreg),
    10: Hypercall("update_descriptor", "machine_address:u64 descriptor:u64", descriptors.update_descriptor),
    12: Hypercall("memory_op", "command argument:ptr", memory.memory_op),
    13: Hypercall("multicall", "calls:ptr count", multicall.multicall),
    14: Hypercall("update_va_mapping", "va value:u64 flags", mmu.update_va_mapping),
    15: Hypercall("set_timer_op", "when:u64", timers.set_timer_op),
    16: Hypercall("event_channel_op_compat", "op:ptr", eventop.event_channel_op_compat),
    17: Hypercall("xen_version", "command argument:ptr", version.xen_version),
    18: Hypercall("console_io", "command count buffer:ptr", console.console_io),
    19: Hypercall("physdev_op_compat", "op:ptr", physdev.physdev_op_compat),
    20: Hypercall("grant_table_op", "command argument:ptr count", grants.grant_table_op),
    21: Hypercall("vm_assist", "command type", trapops.vm_assist),
    22: Hypercall("update_va_mapping_otherdomain", "va value:u64 flags domain", mmu.update_va_mapping_otherdomain),
    23: Hypercall("iret", "", iret.iret),
    24: Hypercall("vcpu_op", "command vcpu argument:ptr", vcpuop.vcpu_op),
    25: Hypercall("set_segment_base", "register base", -ENOSYS),  # x86-64 only
    26: Hypercall("mmuext_op", "ops:ptr count done:ptr foreign_domain", mmuext.mmuext_op),
    27: Hypercall("xsm_op", "op:ptr", -ENOSYS),  # without a security module
    28: Hypercall("nmi_op", "command argument:ptr", callbacks.nmi_op),
    29: Hypercall("sched_op", "command argument:ptr", sched.sched_op),
    30: Hypercall("callback_op", "command argument:ptr", callbacks.callback_op),
    31: Hypercall("xenoprof_op", "command argument:ptr", -EPERM),
    32: Hypercall("event_channel_op", "command argument:ptr", eventop.event_channel_op),
    33: Hypercall("physdev_op", "command argument:ptr", physdev.physdev_op),
    34: Hypercall("hvm_op", "command argument:ptr", -ENOSYS),  # for HVM guests
    35: Hypercall("sysctl", "op:ptr", -EPERM),
    36: Hypercall("domctl", "op:ptr", -EPERM),
    37: Hypercall("kexec_op", "command argument:ptr", -EPERM),
    38: Hypercall("tmem_op", "op:ptr", -ENOSYS),  # no longer part of Xen
    39: Hypercall("argo_op", "command argument1:ptr argument2:ptr argument3 argument4", -EOPNOTSUPP),
    40: Hypercall("xenpmu_op", "command argument:ptr", -EOPNOTSUPP),
    41: Hypercall("dm_op", "domain count buffers:ptr", -EPERM),
    42: Hypercall("hypfs_op", "command argument1:ptr argument2 argument3:ptr argument4", -EPERM),
    48: Hypercall("mca", "op:ptr", -EPERM),  # arch_0
    49: Hypercall("paging_domctl_cont", "op:ptr", -EPERM),  # arch_1
}


# How the words of the registers become a handler's arguments, by the widths of its signature. Literal, for a call
# of the right number of arguments is what a hypercall costs.
SHAPES: dict[str, Callable[[Domain, Handler], Entry]] = {
    "": lambda domain, handler: lambda a, b, c, d, e: handler(domain),
    "1": lambda domain, handler: lambda a, b, c, d, e: handler(domain, a),
    "2": lambda domain, handler: lambda a, b, c, d, e: handler(domain, a | b << 32),
    "11": lambda domain, handler: lambda a, b, c, d, e: handler(domain, a, b),
    "22": lambda domain, handler: lambda a, b, c, d, e: handler(domain, a | b << 32, c | d << 32),
    "111": lambda domain, handler: lambda a, b, c, d, e: handler(domain, a, b, c),
    "121": lambda domain, handler: lambda a, b, c, d, e: handler(domain, a, b | c << 32, d),
    "1111": lambda domain, handler: lambda a, b, c, d, e: handler(domain, a, b, c, d),
    "1211": lambda domain, handler: lambda a, b, c, d, e: handler(domain, a, b | c << 32, d, e),
}
LIMIT = 64  # numbers from here on do not exist, and are counted as the last one below, which does not either


def _entry(domain: Domain, number: int) -> Entry:
    call = HYPERCALLS.get(number)
    handler = call.handler if call is not None else -ENOSYS
    if call is None or isinstance(handler, int):
        return lambda a, b, c, d, e: handler  # type: ignore[return-value]
    shape = "".join("2" if argument.kind == "u64" else "1" for argument in call.arguments)
    return SHAPES[shape](domain, handler)


class Dispatcher:
    """Answers ``int 0x82``, and the entries of a multicall.

    :ivar direct: calls by number; :ivar inner: those inside of multicalls; :ivar batches: multicalls by the number
        of their entries. C counts there too.
    :ivar on_call: told of each call that is over: name, argument words, result, whether inside of a multicall.
    :ivar allow_native: told whether C may answer calls without asking here.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.direct, self.inner = array("Q", bytes(8 * LIMIT)), array("Q", bytes(8 * LIMIT))
        self.batches = array("Q", bytes(8 * multicall.SIZES))
        self._on_call: OnCall | None = None
        self.allow_native: Callable[[bool], None] = lambda on: None
        self._entries = [_entry(domain, number) for number in range(LIMIT)]

    @property
    def on_call(self) -> OnCall | None:
        return self._on_call

    @on_call.setter
    def on_call(self, function: OnCall | None) -> None:
        self._on_call = function
        self.allow_native(function is None)

    def call(self, number: int, words: Sequence[int], *, inner: bool = False) -> int:
        """Make one call with five argument words; the result may be negative.

        :param inner: it is an entry of a multicall.
        :raises Preempted: the guest is to call again with other arguments.
        """
        number = min(number, LIMIT - 1)
        (self.inner if inner else self.direct)[number] += 1
        try:
            result = self._entries[number](*words)
        except HypercallError as error:
            result = -error.errno
        if self._on_call is not None:
            self._on_call(self._name(number), words, result, inner)
        return result

    def answer(self, number: int, ebx: int, ecx: int, edx: int, esi: int, edi: int) -> int:
        """A call of the guest's: what EAX becomes. It stays where the call goes on, EIP at the instruction again."""
        try:
            return self.call(number, (ebx, ecx, edx, esi, edi)) & 0xFFFFFFFF
        except Preempted as preempted:
            self.go_on(preempted)
            return number

    def go_on(self, preempted: Preempted) -> None:
        """The guest is to make the call again, with other arguments."""
        vcpu = self.domain.vcpu
        for register, word in zip(REGISTERS, preempted.arguments, strict=False):
            vcpu.set_reg(register, word)
        vcpu.eip -= INT_BYTES

    def interrupt(self) -> None:
        """``int 0x82`` in ring 1, EIP past it: registers to arguments, result to EAX."""
        vcpu = self.domain.vcpu
        vcpu.set_reg(layout.EAX, self.answer(vcpu.reg(layout.EAX), *(vcpu.reg(register) for register in REGISTERS)))

    def counts(self) -> dict[str, int]:
        """For the record: calls by name, those inside of multicalls by themselves, and sizes of multicalls."""
        total: Counter[str] = Counter()
        for kind, counts in (("hypercall", self.direct), ("multicall", self.inner)):
            for number, count in enumerate(counts):
                if count:
                    total[f"xen.{kind}.{self._name(number)}"] += count
        return total | multicall.batch_counts(self.batches)

    def _name(self, number: int) -> str:
        return HYPERCALLS[number].name if number in HYPERCALLS else "unknown"
