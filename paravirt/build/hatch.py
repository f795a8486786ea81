"""A hatchling build hook for backend packages: assembles their ops when a wheel is built.

In the backend's pyproject.toml::

    [build-system]
    requires = ["hatchling", "paravirt[build]"]
    build-backend = "hatchling.build"

    [tool.hatch.build.hooks.paravirt-ops]
    sources = ["my_backend/ops.S"]

`my_backend/ops.o` then lies beside its source, in an editable install and in the wheel.

Ref: hatchling, "Build hook plugins": `BuildHookInterface`, `hatch_register_build_hook`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.plugin import hookimpl

from .guestcode import assemble_step
from .toolchain import BuildError, make


class OpsBuildHook(BuildHookInterface[BuilderConfig]):
    """Config: `sources`, the assembly files, relative to the project."""

    PLUGIN_NAME = "paravirt-ops"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Assemble each source and add the object to the wheel. :raises BuildError: naming field or file."""
        if self.target_name != "wheel":
            return
        pairs = self.pairs()
        for output in make([assemble_step(source, output) for source, output in pairs]):
            self.app.display_info(f"assembled {output.relative_to(self.root)}")
        for _, output in pairs:
            # The slash anchors the pattern; objects are commonly ignored by git, artifacts are not.
            build_data["artifacts"].append("/" + output.relative_to(self.root).as_posix())

    def clean(self, versions: list[str]) -> None:
        """Delete what `initialize` made."""
        for _, output in self.pairs():
            output.unlink(missing_ok=True)
            output.with_name(output.name + ".stamp").unlink(missing_ok=True)

    def pairs(self) -> list[tuple[Path, Path]]:
        """(source, object) of each entry of `sources`. :raises BuildError: naming the entry."""
        field = f"tool.hatch.build.hooks.{self.PLUGIN_NAME}.sources"
        sources = self.config.get("sources")
        if not isinstance(sources, list) or not sources:
            raise BuildError(f'{field} must be a list of assembly files, such as ["my_backend/ops.S"]')
        root = Path(self.root)
        pairs = []
        for entry in sources:
            if not isinstance(entry, str) or not entry.endswith(".S"):
                raise BuildError(f"{field}: {entry!r} is not the name of a .S file")
            source = root / entry
            if not source.resolve().is_relative_to(root.resolve()):
                raise BuildError(f"{field}: {entry!r} lies outside the project")
            if not source.is_file():
                raise BuildError(f"{field}: there is no file {entry!r}")
            pairs.append((source, source.with_suffix(".o")))
        return pairs


@hookimpl
def hatch_register_build_hook() -> type[OpsBuildHook]:
    """Called by hatchling."""
    return OpsBuildHook
