"""Every hypercall number, with its answer, and the dispatcher.

`HYPERCALLS` is literal: number -> name, arguments, handler or fixed answer. The arguments are decoded from one
declarative signature, which trace and fuzzer read as well: names in the order of the registers, ``:u64`` for two
registers (low word first), ``:ptr`` for a guest-virtual address. Numbers that are not in the table do not exist.

Ref: Xen public/xen.h (numbers), arch/x86/pv/hypercall.c, common/multicall.c; answers of a 4.17 to a domU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from paravirt.api import layout
from paravirt_xen.platform import (
    callbacks,
    console,
    eventop,
    mmu,
    mmuext,
    physdev,
    sched,
    timers,
    vcpuop,
    version,
)
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import ENOSYS, EOPNOTSUPP, EPERM, HypercallError, Preempted

Handler = Callable[..., int]
INT_BYTES = 2  # of ``int 0x82``
MAX_ARGUMENTS = 5
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
    0: Hypercall("set_trap_table", "traps:ptr", unwritten),
    1: Hypercall("mmu_update", "requests:ptr count done:ptr foreign_domain", mmu.mmu_update),
    2: Hypercall("set_gdt", "frames:ptr entries", unwritten),
    3: Hypercall("stack_switch", "ss esp", unwritten),
    4: Hypercall("set_callbacks", "event_cs event_eip failsafe_cs failsafe_eip", callbacks.set_callbacks),
    5: Hypercall("fpu_taskswitch", "set", unwritten),
    6: Hypercall("sched_op_compat", "command argument", sched.sched_op_compat),
    7: Hypercall("platform_op", "op:ptr", -EPERM),
    8: Hypercall("set_debugreg", "register value", unwritten),
    9: Hypercall("get_debugreg", "register", unwritten),
    10: Hypercall("update_descriptor", "machine_address:u64 descriptor:u64", unwritten),
    12: Hypercall("memory_op", "command argument:ptr", unwritten),
    13: Hypercall("multicall", "calls:ptr count", unwritten),
    14: Hypercall("update_va_mapping", "va value:u64 flags", mmu.update_va_mapping),
    15: Hypercall("set_timer_op", "when:u64", timers.set_timer_op),
    16: Hypercall("event_channel_op_compat", "op:ptr", eventop.event_channel_op_compat),
    17: Hypercall("xen_version", "command argument:ptr", version.xen_version),
    18: Hypercall("console_io", "command count buffer:ptr", console.console_io),
    19: Hypercall("physdev_op_compat", "op:ptr", physdev.physdev_op_compat),
    20: Hypercall("grant_table_op", "command argument:ptr count", unwritten),
    21: Hypercall("vm_assist", "command type", unwritten),
    22: Hypercall("update_va_mapping_otherdomain", "va value:u64 flags domain", mmu.update_va_mapping_otherdomain),
    23: Hypercall("iret", "", unwritten),
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

    handler: Handler
    take: Callable[[list[int]], tuple[int, ...]]
    key: str


def _taker(signature: tuple[Argument, ...]) -> Callable[[list[int]], tuple[int, ...]]:
    places: list[tuple[int, bool]] = []
    at = 0
    for argument in signature:
        places.append((at, argument.kind == "u64"))
        at += 2 if argument.kind == "u64" else 1
    if not any(wide for _, wide in places):
        return lambda words: tuple(words[:at])
    return lambda words: tuple(words[i] | words[i + 1] << 32 if wide else words[i] for i, wide in places)


def _row(call: Hypercall) -> Row:
    handler = call.handler
    if isinstance(handler, int):
        answer = handler

        def refuse(domain: Domain, *arguments: int) -> int:
            return answer

        handler = refuse
    return Row(handler, _taker(call.arguments), f"xen.hypercall.{call.name}")


class Dispatcher:
    """Answers ``int 0x82``, and the entries of a multicall.

    :param on_call: told of each call that is over: name, argument words, result. For traces and tests.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.rows = {number: _row(call) for number, call in HYPERCALLS.items()}
        self.on_call: Callable[[str, list[int], int], None] | None = None

    def call(self, number: int, words: list[int]) -> int:
        """Make one call with five argument words.

        :raises Preempted: the guest is to call again with other arguments.
        """
        row = self.rows.get(number)
        if row is None:
            self.domain.counts["xen.hypercall.unknown"] += 1
            return -ENOSYS
        self.domain.counts[row.key] += 1
        try:
            result = row.handler(self.domain, *row.take(words))
        except HypercallError as error:
            result = -error.errno
        if self.on_call is not None:
            self.on_call(row.key, words, result)
        return result

    def interrupt(self) -> None:
        """``int 0x82`` in ring 1, EIP past it: registers to arguments, result to EAX."""
        vcpu = self.domain.vcpu
        words = [vcpu.reg(register) for register in REGISTERS]
        try:
            result = self.call(vcpu.reg(layout.EAX), words)
        except Preempted as preempted:
            for register, word in zip(REGISTERS, preempted.arguments, strict=False):
                vcpu.set_reg(register, word)
            vcpu.eip -= INT_BYTES
            return
        vcpu.set_reg(layout.EAX, result)
