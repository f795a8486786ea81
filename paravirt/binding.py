"""Binds a backend's op table to the hook specification: every op has exactly one implementation.

pluggy finds the implementations and the wrappers around them. Its own rule for several of them (the first
result that is not None) is wrong for ops, whose results are often nothing: so one implementation an op, and
all gaps, doubles and mistakes are reported together, before the guest starts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

from paravirt.errors import PluginError, close_match
from paravirt.forms import NOP, Form, GuestAddress, GuestCode, KernelFunction, MachineCode, Null, OpTable, form_of
from paravirt.hookspecs import OpInfo, op_infos
from paravirt.hookspecs.tables import DATA_WORDS

HOST, GUEST, KERNEL, NO_OP, NULL_SLOT = "host function", "guest code", "kernel", "no-op", "NULL"


@dataclass
class Slot:
    """One op, bound. `number` is its stub in the gate page; `form` None means a host function.

    `where` names the code for people; `function` takes the op's arguments by position. `address`, `inline`
    and `clobbers` are filled in when the code is placed (install.py).
    """

    info: OpInfo
    number: int
    form: Form | None
    where: str
    function: Callable[..., Any] | None = None
    wrapped: bool = False
    address: int = 0
    inline: bytes | None = None
    clobbers: int = 7

    @property
    def kind(self) -> str:
        if self.form is None:
            return HOST
        if isinstance(self.form, Null):
            return NULL_SLOT
        if isinstance(self.form, KernelFunction):
            return KERNEL
        return NO_OP if self.form == NOP else GUEST

    @property
    def through_gate(self) -> bool:
        """The guest reaches it by its stub."""
        return self.form is None or self.wrapped


def bind(manager: pluggy.PluginManager, backend: str, table: OpTable, *, whole: bool = True) -> dict[str, Slot]:
    """Bind `table`, which is registered here, and the wrappers that `manager` knows.

    :param whole: every op must be there; else what is missing is left out of the result.
    :raises PluginError: naming all ops that are missing, doubled, misspelt, NULL where they may not be, or
        take arguments that the specification does not have.
    """
    infos = op_infos()
    problems = _data_problems(table) + _table_problems(table, infos)
    if not problems:
        manager.register(table, f"{backend} op table")
    slots: dict[str, Slot] = {}
    for number, (name, info) in enumerate(infos.items()):
        implementations, wrappers = _implementations(manager, name)
        own = getattr(table, name, None)
        if problems and own is not None:
            implementations.append(own)
        if not implementations and whole:
            problems.append(f"{name}: no implementation")
        elif len(implementations) > 1:
            problems.append(f"{name}: {len(implementations)} implementations, {', '.join(map(where, implementations))}")
        elif implementations:
            slots[name] = slot = _slot(info, number, implementations[0])
            _check(slot, wrappers, problems)
            if wrappers and slot.kind != NULL_SLOT:
                slot.wrapped = True
                slot.function = _through_pluggy(getattr(manager.hook, name), info)
    if problems:
        raise PluginError(f"backend {backend!r}: {len(problems)} mistakes in its op table:\n  " + "\n  ".join(problems)
                          if len(problems) > 1 else f"backend {backend!r}: op {problems[0]}")
    return slots


def _implementations(manager: pluggy.PluginManager, name: str) -> tuple[list[Any], list[Any]]:
    hook = getattr(manager.hook, name, None)
    found = hook.get_hookimpls() if hook is not None else []
    wrappers = [each.function for each in found if each.wrapper or each.hookwrapper]
    return [each.function for each in found if not (each.wrapper or each.hookwrapper)], wrappers


def _data_problems(table: OpTable) -> list[str]:
    problems = []
    for word in DATA_WORDS:
        value: object = getattr(table, word)
        if word == "name":
            if not isinstance(value, str) or not value.isprintable():
                problems.append(f"name: {value!r} is not a printable string")
        elif not isinstance(value, int) or not 0 <= value < 1 << 32:
            problems.append(f"{word}: {value!r} is not a 32-bit word")
    if table.kernel_rpl not in (0, 1, 2, 3):
        problems.append(f"kernel_rpl: {table.kernel_rpl!r} is not a ring")
    return problems


def _table_problems(table: OpTable, infos: Mapping[str, OpInfo]) -> list[str]:
    """Names that are no op, functions without the mark, arguments that the specification does not have."""
    problems = []
    for name in dir(type(table)):
        value = inspect.getattr_static(type(table), name)
        if name.startswith("_") or name in DATA_WORDS or not inspect.isroutine(value):
            continue
        marked = hasattr(value, "paravirt_impl")
        if name not in infos:
            if marked:
                problems.append(f"{name}: not an op{close_match(name, infos)}")
            continue
        if not marked:
            problems.append(f"{name}: the function lacks @hookimpl ({where(value)})")
            continue
        if form_of(value) is None:
            names = [param.name for param in infos[name].params]
            wrong = [each for each in _parameters(value) if each not in names]
            if wrong:
                expected = ", ".join(names) or "nothing"
                problems.append(f"{name}: takes {', '.join(wrong)}, but the op passes {expected} ({where(value)})")
    return problems


def _parameters(function: Any) -> list[str]:
    names = [name for name, each in inspect.signature(function).parameters.items()
             if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
             and each.default is each.empty]
    return names[1:] if names[:1] == ["self"] else names


def _slot(info: OpInfo, number: int, function: Any) -> Slot:
    form = form_of(function)
    slot = Slot(info, number, form, where(function))
    if form is None:
        names = _parameters(function)
        order = [param.name for param in info.params]
        slot.function = function if names == order or set(names) - set(order) else _by_name(function, names, order)
    elif isinstance(form, GuestCode | MachineCode):
        slot.clobbers = form.clobbers
    return slot


def _by_name(function: Any, names: list[str], order: list[str]) -> Callable[..., Any]:
    picked = [(name, order.index(name)) for name in names]
    return lambda *values: function(**{name: values[index] for name, index in picked})


def _through_pluggy(hook: Any, info: OpInfo) -> Callable[..., Any]:
    names = [param.name for param in info.params]
    return lambda *values: hook(**dict(zip(names, values, strict=True)))


def _check(slot: Slot, wrappers: list[Any], problems: list[str]) -> None:
    name = slot.info.name
    if slot.kind == NULL_SLOT and not slot.info.nullable:
        problems.append(f"{name}: may not be NULL")
    if slot.info.jumped and wrappers:
        problems.append(f"{name}: is jumped to and cannot be wrapped ({', '.join(map(where, wrappers))})")


def where_form(form: Form) -> str:
    """What a form names."""
    if isinstance(form, GuestCode):
        return f"{form.symbol} {form.object.with_suffix('.S').name}"
    if isinstance(form, KernelFunction):
        return f"{form.symbol} (kernel)"
    if isinstance(form, GuestAddress):
        return f"{form.what} {form.address:#x}"
    if isinstance(form, MachineCode):
        return f"bytes {form.code.hex(' ')}" if form.code else "nop"
    return "NULL"


def where(function: Any) -> str:
    """``module.function file:line`` of a host function, or what the form names."""
    form = form_of(function)
    if form is not None:
        return where_form(form)
    plain = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(plain, "__code__", None)
    place = f" {Path(code.co_filename).name}:{code.co_firstlineno}" if code else ""
    return f"{plain.__module__}.{plain.__qualname__}{place}"


__all__ = ["GUEST", "HOST", "KERNEL", "NO_OP", "NULL_SLOT", "Slot", "bind", "where", "where_form"]
