"""Loads plugins into a fresh pluggy manager, one a machine.

A plugin that cannot be loaded is a row of the listing with its reason; it is fatal only if the backend that it
should have offered is the one that is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pluggy

from paravirt import hookspecs
from paravirt.backend import Answer, Backend, Verdict
from paravirt.config import BackendRow, Config, describe
from paravirt.errors import ConfigError, PluginError, close_match
from paravirt.guest import KernelInfo
from paravirt.hookspecs import lifecycle

if TYPE_CHECKING:
    from pydantic import BaseModel

GROUP = "paravirt.backends"
ASSIGN = "assign"  # the option of every backend that is the framework's


@dataclass(frozen=True)
class PluginRow:
    """One plugin of the listing. `problem` is empty if it was loaded."""

    name: str
    source: str
    backends: tuple[str, ...] = ()
    problem: str = ""


class NoOptions:
    """The options of a backend that has none, and was given none."""


@dataclass
class Plugins:
    """The plugins of one machine: the manager, what was loaded, and the backends, not yet registered."""

    config: Config
    manager: pluggy.PluginManager
    rows: list[PluginRow] = field(default_factory=list)
    backends: dict[str, Backend] = field(default_factory=dict)

    def select(self, name: str, kernel: KernelInfo) -> tuple[Backend, list[tuple[str, Verdict]]]:
        """Probe every backend and choose: the one named, or with ``auto`` the one that suits best.

        :return: the backend, registered with the manager, and all verdicts.
        :raises PluginError: it is unknown, broken, or does not accept the kernel.
        """
        verdicts = [(each, self.probe(backend, kernel)) for each, backend in self.backends.items()]
        if name == "auto":
            name = self.config.default
        if name == "auto":
            name = self._choose(verdicts, kernel)
        if name not in self.backends:
            broken = [row for row in self.rows if row.problem and row.name == name]
            if broken:
                raise PluginError(f"backend {name!r} ({broken[0].source}): {broken[0].problem}")
            raise PluginError(f"no backend {name!r}{close_match(name, self.backends)}")
        verdict = dict(verdicts)[name]
        if verdict.answer is Answer.NO:
            raise PluginError(f"{kernel.image.path}: backend {name!r} cannot run it: {verdict.reason}")
        self.manager.register(self.backends[name], f"backend {name}")
        return self.backends[name], verdicts

    def _choose(self, verdicts: list[tuple[str, Verdict]], kernel: KernelInfo) -> str:
        """The only backend for the kernel, else the first that accepts it."""
        only = [name for name, verdict in verdicts if verdict.answer is Answer.ONLY]
        if len(only) > 1:
            raise PluginError(f"{kernel.image.path}: backends {' and '.join(only)} both say that they are the only one "
                              "for this kernel; choose with --backend")
        accepting = only or [name for name, verdict in verdicts if verdict.answer is Answer.YES]
        if not accepting:
            reasons = "; ".join(f"{name}: {verdict.reason}" for name, verdict in verdicts)
            raise PluginError(f"{kernel.image.path}: no backend accepts this kernel ({reasons or 'there is none'})")
        return accepting[0]

    def probe(self, backend: Backend, kernel: KernelInfo) -> Verdict:
        """A backend's verdict; a probe that raises says no."""
        probe = getattr(backend, "paravirt_probe", None)
        if probe is None:
            return Verdict(Answer.NO, "it has no paravirt_probe")
        try:
            verdict = probe(kernel=kernel)
        except Exception as error:
            return Verdict(Answer.NO, f"its probe raised {type(error).__name__}: {error}")
        return verdict if isinstance(verdict, Verdict) else Verdict(Answer.NO, f"its probe answered {verdict!r}")

    def assigned(self, backend: Backend, given: Mapping[str, str]) -> str | None:
        """The backend named by the option "assign", which belongs to the framework."""
        row = self.config.row(backend.name)
        name = {**(row.options if row else {}), **given}.get(ASSIGN)
        return None if name is None else str(name)

    def options(self, backend: Backend, given: Mapping[str, str]) -> BaseModel:
        """The backend's options: plugins.toml first, then the command line.

        :raises ConfigError: naming every option that is unknown or wrong.
        """
        row = self.config.row(backend.name)
        values: dict[str, Any] = {**(row.options if row else {}), **given}
        values.pop(ASSIGN, None)
        if not values and not backend.has_options():
            return cast("BaseModel", NoOptions())
        if not values and (defaults := backend.own_defaults()) is not None:
            return cast("BaseModel", SimpleNamespace(**defaults))
        from pydantic import ValidationError

        model = backend.paravirt_options()
        if ASSIGN in model.model_fields:
            raise PluginError(f"backend {backend.name!r}: its options define 'assign', which is the framework's own")
        try:
            return model.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"options of backend {backend.name!r}: "
                              f"{describe(error, tuple(model.model_fields) or ('none',))}") from None

    def reserved_memory(self, memory: int) -> int:
        """Bytes of RAM that the chosen backend's platform needs beside the `memory` of the guest."""
        reserved: int | None = self.manager.hook.paravirt_reserved_memory(memory=memory)
        return reserved or 0


def load_plugins(config: Config, extra: Iterable[object] = ()) -> Plugins:
    """Load everything that plugins.toml and installed packages offer.

    :param extra: further plugin objects, for tests and Python callers: observers, or modules with backends.
    """
    manager = pluggy.PluginManager("paravirt")
    manager.add_hookspecs(lifecycle)
    for module in hookspecs.MODULES:
        manager.add_hookspecs(module)
    plugins = Plugins(config, manager)
    installed = {point.name: point for point in _entry_points()}
    listed = [(row.name, row) for row in config.backend]
    unlisted = [(name, BackendRow(name=name, plugin=None)) for name in sorted(installed) if not config.row(name)]
    for name, row in listed + unlisted:
        if row.enabled:
            _load(plugins, name, row.plugin or name, installed)
    for source in config.plugin:
        _load(plugins, source, source, installed)
    for number, plugin in enumerate(extra):
        name = getattr(plugin, "__name__", f"{type(plugin).__name__} {number}")
        _register(plugins, name, name, plugin)
    return plugins


@cache
def _entry_points() -> tuple[metadata.EntryPoint, ...]:
    """Scanning the installed packages takes longer than a boot; they do not change under a process."""
    return tuple(metadata.entry_points(group=GROUP))


def _load(plugins: Plugins, name: str, source: str, installed: Mapping[str, metadata.EntryPoint]) -> None:
    try:
        point = installed.get(source)
        plugin: object = point.load() if point is not None else importlib.import_module(source)
    except BaseException as error:  # an import may raise anything, SystemExit too
        if isinstance(error, KeyboardInterrupt):
            raise
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and error.name == source.partition(".")[0]:
            reason = f"no module {source!r}{close_match(source, installed)}"
        plugins.rows.append(PluginRow(name, source, problem=reason))
        return
    _register(plugins, name, source, plugin)


def _register(plugins: Plugins, name: str, source: str, plugin: object) -> None:
    manager = plugins.manager
    if manager.is_registered(plugin):  # two rows of one module
        return
    try:
        manager.register(plugin, source)
        further = getattr(plugin, "paravirt_hookspecs", None)
        for module in further() if further is not None else ():
            manager.add_hookspecs(module)
        offered = _backends(plugin)
    except Exception as error:
        if manager.is_registered(plugin):
            manager.unregister(plugin)
        plugins.rows.append(PluginRow(name, source, problem=f"{type(error).__name__}: {error}"))
        return
    problem = ""
    for each in offered:
        if each.name in plugins.backends:
            problem = f"backend {each.name!r} is offered by an earlier plugin already"
        else:
            plugins.backends[each.name] = each
    names = tuple(each.name for each in offered)
    plugins.rows.append(PluginRow(name, source, names, problem))


def _backends(plugin: object) -> list[Backend]:
    offer = getattr(plugin, "paravirt_backends", None)
    backends = []
    for each in offer() if offer is not None else ():
        if not (isinstance(each, type) and issubclass(each, Backend)):
            raise TypeError(f"paravirt_backends offers {each!r}, which is not a subclass of Backend")
        if not each.name or not isinstance(each.name, str):
            raise TypeError(f"backend {each.__qualname__} has no name")
        backends.append(each())
    return backends


__all__ = ["GROUP", "PluginRow", "Plugins", "load_plugins"]
