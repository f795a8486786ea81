"""Who may import whom. The layers are the design: core knows no backend, backends know only the public
interface, devices know only the bus, nothing but the machine touches Unicorn, only calls.py knows greenlets.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = {"paravirt_native", "paravirt_xen", "paravirt_vmi"}
STDLIB_ONLY_FOR_DEVICES = {"paravirt.machine.bus", "paravirt.machine.shortcuts", "paravirt.devices"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, with the names of ``from`` imports that may be modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            package = ".".join(path.relative_to(ROOT).parts[: -node.level]) + "." if node.level else ""
            yield package + node.module


def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, folder
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", files("paravirt"), ids=lambda p: str(p.relative_to(ROOT)))
def test_core_imports_no_backend(path: Path) -> None:
    for module in imports(path):
        assert not any(within(module, backend) for backend in BACKENDS), module


@pytest.mark.parametrize("path", files("backends"), ids=lambda p: str(p.relative_to(ROOT)))
def test_backends_import_the_public_interface_only(path: Path) -> None:
    own = path.relative_to(ROOT / "backends").parts[1]
    for module in imports(path):
        if within(module, "paravirt"):
            assert module == "paravirt.api", module
        assert not any(within(module, backend) for backend in BACKENDS - {own}), module


@pytest.mark.parametrize("path", files("paravirt/devices"), ids=lambda p: p.name)
def test_devices_know_the_bus_only(path: Path) -> None:
    for module in imports(path):
        if within(module, "paravirt"):
            assert any(within(module, allowed) for allowed in STDLIB_ONLY_FOR_DEVICES), module


def test_only_the_machine_imports_unicorn() -> None:
    users = {path.relative_to(ROOT).as_posix() for path in files("paravirt") + files("backends")
             if any(within(module, "unicorn") for module in imports(path))}
    assert users == {"paravirt/machine/library.py"}


def test_only_calls_imports_greenlet() -> None:
    users = {path.relative_to(ROOT).as_posix() for path in files("paravirt") + files("backends")
             if any(within(module, "greenlet") for module in imports(path))}
    assert users == {"paravirt/calls.py"}


def test_the_machine_knows_nothing_above_it() -> None:
    for path in files("paravirt/machine"):
        for module in imports(path):
            if within(module, "paravirt"):
                assert within(module, "paravirt.machine") or module in ("paravirt.errors", "paravirt"), (path, module)


def test_no_module_level_state() -> None:
    """Nothing at module level is a mutable container that code could use as a registry, nor is ``global`` used."""
    for path in files("paravirt") + files("backends"):
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.Global) for node in ast.walk(tree)), path
        for node in tree.body:
            value = getattr(node, "value", None)
            empty = isinstance(value, ast.List | ast.Dict | ast.Set) and not (
                value.keys if isinstance(value, ast.Dict) else value.elts)
            assert not empty, f"{path}:{node.lineno}: an empty container at module level"
