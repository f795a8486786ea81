"""The decorator that makes a typed function the specification of an op.

The function's signature is the interface: its parameter names are what implementations name, its annotations
say how the guest carries each value (`paravirt.hookspecs.types`), its docstring is what `paravirt ops` prints.
What the signature cannot say stands in the decorator: the table, the C prototype, whether the slot may be NULL,
whether it is jumped to.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

import pluggy

from paravirt.hookspecs.types import ArgType

PROJECT = "paravirt"
INFO = "__op_info__"

_hookspec = pluggy.HookspecMarker(PROJECT)
_Spec = TypeVar("_Spec", bound=Callable[..., object])


@dataclass(frozen=True)
class Param:
    """One argument of an op: the name implementations use, how it is carried, and its ``:param:`` line."""

    name: str
    type: ArgType
    doc: str = ""


@dataclass(frozen=True)
class OpInfo:
    """All that is known of an op without an implementation.

    `result_words` is 0 (void), 1 (EAX) or 2 (EDX:EAX). `null_means` says what an empty slot stands for, and is
    "" where the slot must be filled. A `jumped` op is entered by a jump and returns to its caller's caller, so
    it cannot be called from Python.
    """

    name: str
    table: str
    nullable: bool
    jumped: bool
    params: tuple[Param, ...]
    result_words: int
    signed_result: bool
    prototype: str
    null_means: str
    doc: str


def op(
    *, prototype: str, table: str = "paravirt_ops", null: str | None = None, jumped: bool = False
) -> Callable[[_Spec], _Spec]:
    """Mark a function as the spec of an op and attach its `OpInfo` as ``__op_info__``.

    :param prototype: the slot's C declaration, for example ``void (*clts)(void)``.
    :param table: the table that has the slot.
    :param null: what an empty slot means; None if the slot must be filled.
    :param jumped: the kernel jumps to the op instead of calling it.
    :raises TypeError: when an annotation is missing or is not one of the argument types.
    """

    def mark(function: _Spec) -> _Spec:
        setattr(function, INFO, _describe(function, prototype, table, null, jumped))
        # The first result that is not None ends the call; binding checks that there is one implementation.
        return _hookspec(firstresult=True)(function)

    return mark


def _describe(function: Callable[..., object], prototype: str, table: str, null: str | None, jumped: bool) -> OpInfo:
    name = function.__name__
    doc = inspect.getdoc(function) or ""
    hints = get_type_hints(function, include_extras=True)
    about = _param_docs(doc)
    params = tuple(
        Param(param, _arg_type(name, param, hints.get(param)), about.get(param, ""))
        for param in inspect.signature(function).parameters
    )
    result = None if hints.get("return") is type(None) else _arg_type(name, "return", hints.get("return"))
    return OpInfo(
        name=name,
        table=table,
        nullable=null is not None,
        jumped=jumped,
        params=params,
        result_words=result.words if result else 0,
        signed_result=bool(result and result.signed),
        prototype=prototype,
        null_means=null or "",
        doc=doc,
    )


def _arg_type(op_name: str, param: str, hint: Any) -> ArgType:
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, ArgType):
            return extra
    raise TypeError(f"op {op_name}: {param} is annotated {hint!r}, not with a type of paravirt.hookspecs.types")


def _param_docs(doc: str) -> dict[str, str]:
    """The ``:param name: text`` fields of a docstring; a field goes on over indented lines."""
    fields = re.findall(r"^:param (\w+):((?:.*)(?:\n[ \t]+.*)*)", doc, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in fields}
