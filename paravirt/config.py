"""plugins.toml: which plugins are there, in which order, with which options.

The file is looked for in this order: ``--plugins FILE``, the working directory, the user's configuration
folder, the copy inside the package. Plugins of installed packages (entry points of the group
``paravirt.backends``) need no row; a row for them gives options or switches them off.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from paravirt.errors import ConfigError, close_match

if TYPE_CHECKING:
    from pydantic import ValidationError

FILE_NAME = "plugins.toml"
PYDANTIC = {"extra": "forbid"}


@dataclass(frozen=True)
class BackendRow:
    """One ``[[backend]]`` of plugins.toml.

    :ivar name: the backend's name, as --backend takes it.
    :ivar plugin: module that holds the plugin, or entry point of group paravirt.backends; default: the entry point of
        the backend's name.
    :ivar enabled: false: the backend is not loaded.
    :ivar options: the backend's own options; -o overrides them.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = PYDANTIC

    name: str
    plugin: str | None = None
    enabled: bool = True
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """plugins.toml.

    :ivar default: backend to use without --backend: a name, or auto.
    :ivar backend: backends, in the order in which they are probed.
    :ivar plugin: modules of further plugins, observers for instance.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = PYDANTIC

    default: str = "auto"
    backend: tuple[BackendRow, ...] = ()
    plugin: tuple[str, ...] = ()

    def row(self, name: str) -> BackendRow | None:
        """The row of a backend, if it has one."""
        return next((row for row in self.backend if row.name == name), None)


def config_path(explicit: Path | None = None) -> Path:
    """The file that counts."""
    if explicit is not None:
        return explicit
    from platformdirs import user_config_path

    for folder in (Path.cwd(), user_config_path("paravirt")):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return Path(__file__).parent / "data" / FILE_NAME


def load_config(path: Path) -> Config:
    """Read a plugins.toml.

    :raises ConfigError: naming the file, and the line or every wrong field.
    """
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    config = _plain(document) or _validated(path, document)
    empty = [f"backend.{n}.{name}" for n, row in enumerate(config.backend)
             for name, value in (("name", row.name), ("plugin", row.plugin)) if value == ""]
    if empty:
        raise ConfigError(f"{path}: {', '.join(empty)}: must not be empty")
    names = [row.name for row in config.backend]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(f"{path}: backend {', '.join(map(repr, doubled))} has more than one row")
    if config.default != "auto" and config.default not in names:
        raise ConfigError(f"{path}: default: no backend {config.default!r}{close_match(config.default, names)}")
    return config


def _plain(document: Mapping[str, Any]) -> Config | None:
    """The file's contents, if each value has just the type that it should have. Pydantic, which finds out what is
    wrong otherwise, takes longer to import than a small guest to run."""
    rows = document.get("backend", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    if not all(_fits(row, {"name": str, "plugin": str, "enabled": bool, "options": dict}) for row in rows):
        return None
    if not _fits(document, {"default": str, "backend": list, "plugin": list}):
        return None
    modules = document.get("plugin", [])
    if not all("name" in row for row in rows) or not all(isinstance(module, str) for module in modules):
        return None
    return Config(document.get("default", "auto"), tuple(BackendRow(**row) for row in rows), tuple(modules))


def _fits(values: Mapping[str, Any], types: Mapping[str, type]) -> bool:
    return all(type(value) is types.get(name) for name, value in values.items())


def _validated(path: Path, document: Mapping[str, Any]) -> Config:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Config).validate_python(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error)}") from None


def describe(error: ValidationError, fields: tuple[str, ...] = ()) -> str:
    """pydantic's findings in one line: each field with what is wrong with it.

    :param fields: names to offer for one that is unknown; default: the model's where pydantic tells.
    """
    parts = []
    for each in error.errors():
        place = ".".join(str(item) for item in each["loc"]) or "the document"
        if each["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = fields or _fields_at(each["loc"])
            parts.append(f"{place}: unknown{close_match(str(each['loc'][-1]), known)}")
        else:
            parts.append(f"{place}: {each['msg'][0].lower()}{each['msg'][1:]}")
    return "; ".join(parts)


def _fields_at(location: tuple[int | str, ...]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(BackendRow if location[:1] == ("backend",) else Config))
