"""What a backend may put into a slot of its op table.

A table is a class whose attributes are the slots, as Linux's ``struct paravirt_ops xen = { .clts =
native_clts, ... }`` is::

    class XenOps(OpTable):
        name = "Xen"
        clts = native.clts                  # guest code of the core
        save_fl = code.xen_save_fl          # guest code of the backend's own ops.S
        init_IRQ = kernel_function("xen_init_IRQ")
        post_allocator_init = NULL
        @hookimpl
        def banner(self) -> None: ...       # a host function
        @leaf
        def next_port(self) -> int: ...     # a host function that guest code of ops.S asks

pluggy knows functions only, so a form becomes a function that stands for it (`OpTable.__init_subclass__`);
binding reads the form back from it and never calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pluggy

from paravirt.hookspecs.types import EAX, ECX, EDX

if TYPE_CHECKING:
    from paravirt.guest import Guest

hookimpl = pluggy.HookimplMarker("paravirt")
FORM, LEAF = "__paravirt_form__", "__paravirt_leaf__"
# Clobber bits of a call site (.parainstructions): what the code there may change.
CLOBBERS = {EAX: 1, ECX: 2, EDX: 4}
CLOBBER_ANY = 7


@dataclass(frozen=True)
class GuestCode:
    """Machine code from a relocatable object, run at the guest's own privilege.

    :param symbol: the function; `symbol` to ``symbol_end``, without the closing ret, is what may be put in
        place of a call.
    :param clobbers: registers the code changes, as the mask of a call site.
    """

    object: Path
    symbol: str
    clobbers: int = CLOBBER_ANY


@dataclass(frozen=True)
class MachineCode:
    """Machine code given as bytes, without the closing ret. It must not depend on where it lies."""

    code: bytes
    clobbers: int = CLOBBER_ANY


@dataclass(frozen=True)
class KernelFunction:
    """A function of the kernel itself, by symbol, as Linux's ``.init_IRQ = native_init_IRQ``."""

    symbol: str


@dataclass(frozen=True)
class Null:
    """An empty slot, where the ABI gives that a meaning."""


@dataclass(frozen=True)
class GuestAddress:
    """Code that the guest has at an address which is known at run time only: for `Ops.assign`.

    :param what: names it for people.
    """

    address: int
    what: str
    clobbers: int = CLOBBER_ANY


Form = GuestCode | MachineCode | KernelFunction | GuestAddress | Null
# To a type checker a slot is Any: a table that derives from another may put any form there, a method too.
Slotted = Any

NULL: Slotted = Null()
NOP: Slotted = MachineCode(b"", clobbers=0)
"""Does nothing, and as a function of one 64-bit argument returns it (it comes and goes in EDX:EAX)."""


def machine_code(hexadecimal: str, clobbers: int = CLOBBER_ANY) -> Slotted:
    """``machine_code("0f 06")``: guest code of a few bytes."""
    return MachineCode(bytes.fromhex(hexadecimal), clobbers)


def kernel_function(symbol: str) -> Slotted:
    """A function that the kernel brings."""
    return KernelFunction(symbol)


class GuestObject:
    """The guest code of one assembled ``ops.S``: every symbol is an attribute.

    ``code = GuestObject(Path(__file__).with_name("ops.o"))``, then ``save_fl = code.xen_save_fl`` or, with
    fewer registers changed than a call may change, ``code("xen_save_fl", clobbers=1)``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getattr__(self, symbol: str) -> Slotted:
        if symbol.startswith("__"):
            raise AttributeError(symbol)
        return GuestCode(self.path, symbol)

    def __call__(self, symbol: str, clobbers: int = CLOBBER_ANY) -> Slotted:
        return GuestCode(self.path, symbol, clobbers)


class OpTable:
    """Base of every backend's op table. One instance a machine.

    Class attributes `kernel_rpl`, `shared_kernel_pmd`, `paravirt_enabled` and `name` are the table's data
    words; every other public attribute is an op.
    """

    kernel_rpl: ClassVar[int] = 0
    shared_kernel_pmd: ClassVar[int] = 1
    paravirt_enabled: ClassVar[int] = 0
    name: ClassVar[str] = "unnamed"

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in list(vars(cls).items()):
            if isinstance(value, Form):
                setattr(cls, name, _function(cls, name, value))


def leaf(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a method of a table as a leaf: a host function that is no op. The table's own guest code calls it as
    ``paravirt_leaf_NAME``, with words in EAX, EDX and ECX; if it says ``-> int``, EAX is what it returns."""
    setattr(function, LEAF, True)
    return function


def leaves_of(table: OpTable) -> list[tuple[str, Callable[..., Any]]]:
    """Name and bound method of each of a table's leaves, in a fixed order."""
    names = [name for name in sorted(dir(type(table))) if hasattr(getattr(type(table), name), LEAF)]
    return [(name, getattr(table, name)) for name in names]


def form_of(function: object) -> Form | None:
    """The form that a table's function stands for; None for a host function."""
    form = getattr(function, FORM, None)
    return form if isinstance(form, Form) else None


def _function(owner: type, name: str, form: Form) -> object:
    def stand_in(self: OpTable) -> object:
        # pluggy comes here only from under a wrapper; wrappers cannot change arguments, so they need not pass.
        return self.guest.ops.run_wrapped(name)

    stand_in.__name__, stand_in.__qualname__ = name, f"{owner.__qualname__}.{name}"
    setattr(stand_in, FORM, form)
    return hookimpl(stand_in)
