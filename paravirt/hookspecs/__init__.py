"""The hook specification: what a kernel asks of the platform it boots on.

One typed module a group of ops; each function is the specification of one slot, its docstring the machine state
that an implementation must leave behind. `TABLES` says where a slot lies in the kernel's tables, `op_infos`
what is known of each op.

Ref: Linux 2.6.23, include/asm-i386/paravirt.h, reboot.h, smp.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType, ModuleType

from paravirt.hookspecs import apic, console, cpu, descriptors, init, irq, lazy, machine, mmu, smp, time
from paravirt.hookspecs._spec import INFO, OpInfo, Param
from paravirt.hookspecs.tables import DATA_WORDS, TABLES, TableLayout, slot

__all__ = ["DATA_WORDS", "MODULES", "TABLES", "OpInfo", "Param", "TableLayout", "op_infos", "slot"]

MODULES: tuple[ModuleType, ...] = (init, time, cpu, descriptors, irq, apic, mmu, lazy, machine, console, smp)


@cache
def op_infos() -> Mapping[str, OpInfo]:
    """Every op by name, in the order of the tables and of their words.

    The position of an op in this mapping is a number for it that no data word and no second table disturbs.
    """
    found = {
        info.name: info
        for module in MODULES
        for function in vars(module).values()
        if isinstance(info := getattr(function, INFO, None), OpInfo)
    }
    words = (word for table in TABLES.values() for word in table.words if word not in DATA_WORDS)
    return MappingProxyType({word: found[word] for word in words})
