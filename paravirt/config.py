"""plugins.toml: which plugins are there, in which order, with which options.

The file is looked for in this order: ``--plugins FILE``, the working directory, the user's configuration
folder, the copy inside the package. Plugins of installed packages (entry points of the group
``paravirt.backends``) need no row; a row for them gives options or switches them off.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from paravirt.errors import ConfigError, close_match

FILE_NAME = "plugins.toml"


class BackendRow(BaseModel):
    """One ``[[backend]]`` of plugins.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="the backend's name, as --backend takes it")
    plugin: str | None = Field(
        None, min_length=1, description="module that holds the plugin, or entry point of group paravirt.backends; "
        "default: the entry point of the backend's name")
    enabled: bool = Field(True, description="false: the backend is not loaded")
    options: dict[str, Any] = Field(default_factory=dict, description="the backend's own options; -o overrides them")


class Config(BaseModel):
    """plugins.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: str = Field("auto", description="backend to use without --backend: a name, or auto")
    backend: tuple[BackendRow, ...] = Field((), description="backends, in the order in which they are probed")
    plugin: tuple[str, ...] = Field((), description="modules of further plugins, observers for instance")

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
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error)}") from None
    names = [row.name for row in config.backend]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(f"{path}: backend {', '.join(map(repr, doubled))} has more than one row")
    if config.default != "auto" and config.default not in names:
        raise ConfigError(f"{path}: default: no backend {config.default!r}{close_match(config.default, names)}")
    return config


def describe(error: ValidationError, fields: tuple[str, ...] = ()) -> str:
    """pydantic's findings in one line: each field with what is wrong with it.

    :param fields: names to offer for one that is unknown; default: the model's where pydantic tells.
    """
    parts = []
    for each in error.errors():
        place = ".".join(str(item) for item in each["loc"]) or "the document"
        if each["type"] == "extra_forbidden":
            known = fields or _fields_at(each["loc"])
            parts.append(f"{place}: unknown{close_match(str(each['loc'][-1]), known)}")
        else:
            parts.append(f"{place}: {each['msg'][0].lower()}{each['msg'][1:]}")
    return "; ".join(parts)


def _fields_at(location: tuple[int | str, ...]) -> tuple[str, ...]:
    model = BackendRow if location[:1] == ("backend",) else Config
    return tuple(model.model_fields)
