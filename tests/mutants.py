"""Backends made for one test: native's table with something of it replaced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace

from paravirt.api import Backend, Guest, OpTable, hookimpl
from paravirt_native.plugin import Native
from paravirt_native.table import NativeOps


def backend_plugin(ops: Mapping[str, object], name: str = "mutant", base: type[OpTable] = NativeOps) -> object:
    """A plugin that offers one backend: native, with the attributes `ops` in its table. None removes an op."""
    table = type("MutantOps", (base,), {key: value for key, value in ops.items() if value is not None})
    for key in (key for key, value in ops.items() if value is None):
        setattr(table, key, property(lambda self: None))  # hides the inherited one from everybody

    class Mutant(Native):
        @hookimpl
        def paravirt_install_ops(self, guest: Guest) -> OpTable:
            made: OpTable = table(guest)
            return made

    Mutant.name = name

    def paravirt_backends() -> Iterable[type[Backend]]:
        return (Mutant,)

    return SimpleNamespace(__name__=f"{name} plugin", paravirt_backends=hookimpl(paravirt_backends))
