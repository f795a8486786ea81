"""Every hypercall number, with its answer, and the dispatcher.

`HYPERCALLS` is literal: number -> name, arguments, handler or fixed answer. The arguments are decoded from one
declarative signature, which trace and fuzzer read as well: names in the order of the registers, ``:u64`` for two
registers (low word first), ``:ptr`` for a guest-virtual address. Numbers that are not in the table do not exist.

Ref: Xen public/xen.h (numbers), arch/x86/pv/hypercall.c, common/multicall.c; answers of a 4.17 to a domU.
"""

from __future__ import annotations

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
INT_BYTES = 2  # of ``int 0x82``
MAX_ARGUMENTS = 5
UNKNOWN = -1
REGISTERS = (layout.EBX, layout.ECX, layout.EDX, layout.ESI, layout.EDI)


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


class Row(NamedTuple):
    """A row as the dispatcher uses it: `take` makes the handler's arguments of the five registers' words."""

    name: str
    handler: Handler
    take: Callable[[Sequence[int]], Sequence[int]]


def _taker(signature: tuple[Argument, ...]) -> Callable[[Sequence[int]], Sequence[int]]:
    places: list[tuple[int, bool]] = []
    at = 0
    for argument in signature:
        places.append((at, argument.kind == "u64"))
        at += 2 if argument.kind == "u64" else 1
    if not any(wide for _, wide in places):
        return lambda words: words[:at]
    return lambda words: [words[i] | words[i + 1] << 32 if wide else words[i] for i, wide in places]


def _row(call: Hypercall) -> Row:
    handler = call.handler
    if isinstance(handler, int):
        answer = handler

        def refuse(domain: Domain, *arguments: int) -> int:
            return answer

        handler = refuse
    return Row(call.name, handler, _taker(call.arguments))


class Dispatcher:
    """Answers ``int 0x82``, and the entries of a multicall.

    :ivar batches: multicalls by the number of their entries; see multicall.py.
    :ivar on_call: told of each call that is over: name, argument words, result. For traces and tests.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.rows = {number: _row(call) for number, call in HYPERCALLS.items()}
        self.batches: Counter[int] = Counter()
        self.on_call: Callable[[str, Sequence[int], int], None] | None = None
        self._direct: Counter[int] = Counter()  # by number
        self._inner: Counter[int] = Counter()  # in multicalls

    def call(self, number: int, words: Sequence[int], *, inner: bool = False) -> int:
        """Make one call with five argument words.

        :param inner: it is an entry of a multicall.
        :raises Preempted: the guest is to call again with other arguments.
        """
        row = self.rows.get(number)
        (self._inner if inner else self._direct)[number if row is not None else UNKNOWN] += 1
        if row is None:
            return -ENOSYS
        try:
            result = row.handler(self.domain, *row.take(words))
        except HypercallError as error:
            result = -error.errno
        if self.on_call is not None:
            self.on_call(row.name, words, result)
        return result

    def interrupt(self) -> None:
        """``int 0x82`` in ring 1, EIP past it: registers to arguments, result to EAX."""
        quads = self.domain.vcpu.state.quads
        words = [quads[register] & 0xFFFFFFFF for register in REGISTERS]
        quads[layout.EAX] = self.answer(quads[layout.EAX] & 0xFFFFFFFF, *words)

    def answer(self, number: int, *words: int) -> int:
        """A call of the guest's: what EAX becomes. It stays where the call goes on, EIP at the instruction again."""
        try:
            return self.call(number, words) & 0xFFFFFFFF
        except Preempted as preempted:
            vcpu = self.domain.vcpu
            for register, word in zip(REGISTERS, preempted.arguments, strict=False):
                vcpu.set_reg(register, word)
            vcpu.eip -= INT_BYTES
            return number

    def counts(self) -> dict[str, int]:
        """For the record: calls by name, those inside of multicalls by themselves, and sizes of multicalls."""
        found = {f"xen.hypercall.{self._name(number)}": count for number, count in self._direct.items()}
        found |= {f"xen.multicall.{self._name(number)}": count for number, count in self._inner.items()}
        return found | multicall.batch_counts(self.batches)

    def _name(self, number: int) -> str:
        return self.rows[number].name if number in self.rows else "unknown"
