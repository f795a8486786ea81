"""Writes the package: the template's files with names filled in, and a table with every op.

Ref: Python Packaging User Guide, "Names and normalization" (what a name may be).
"""

from __future__ import annotations

import inspect
import keyword
import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from paravirt import native
from paravirt.errors import ConfigError
from paravirt.hookspecs import MODULES, OpInfo
from paravirt.hookspecs._spec import INFO
from paravirt.hookspecs.tables import TABLES

NAME = re.compile(r"[a-z][a-z0-9_]*")
IDENTITY = {"pte_val", "pmd_val", "pgd_val", "make_pte", "make_pmd", "make_pgd"}
DOC_WIDTH = 110
SUFFIX = ".in"

HEAD = '''"""The op table of {name}: every op by group, with what stands in its slot.

A slot holds guest code (``machine_code("0f 06")``, ``code.{name}_read_cr2``), a function of the kernel by symbol
(``kernel_function("...")``), NULL where that means something, or a method with @hookimpl, a host function.
`paravirt ops --backend {name}` shows what comes of it; what an op must leave behind stands in
``paravirt.hookspecs``.
"""

from __future__ import annotations

from pathlib import Path

from paravirt.api import NOP, NULL, GuestObject, OpTable, native

code = GuestObject(Path(__file__).with_name("ops.o"))


class {class_name}Ops(OpTable):
    """As bare hardware does it."""

    kernel_rpl = 0  # the ring of the kernel
    shared_kernel_pmd = 1  # whether all address spaces share the kernel's page directory
    paravirt_enabled = 0  # whether the kernel is told that this is no PC
    name = "{name}"
'''


def make_backend(name: str, folder: Path) -> Path:
    """Create ``paravirt-NAME`` in `folder`; returns its path.

    :raises ConfigError: the name will not do, or there is such a folder already.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigError(f"new-backend {name}: a name is lower-case letters, digits and _, and no word of Python")
    target = folder / f"paravirt-{name}"
    package = f"paravirt_{name}"
    values = {"name": name, "package": package, "class_name": "".join(part.title() for part in name.split("_"))}
    try:
        target.mkdir()
        for path, text in _files(resources.files("paravirt.scaffold") / "template", Path()):
            place = target / Path(*(package if part == "package" else part for part in path.parts))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(Template(text).substitute(values))
        (target / package / "table.py").write_text(table(values["name"], values["class_name"]))
    except OSError as error:
        raise ConfigError(f"{error.filename or target}: {error.strerror}") from None
    return target


def _files(folder: Traversable, where: Path) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _files(entry, where / entry.name)
        elif entry.name.endswith(SUFFIX):  # of a template, so that no tool takes it for what it will be
            found.append((where / entry.name.removesuffix(SUFFIX), entry.read_text()))
    return found


def table(name: str, class_name: str) -> str:
    """The source of table.py."""
    words = {word for layout in TABLES.values() for word in layout.words}
    lines = [HEAD.format(name=name, class_name=class_name)]
    for module in MODULES:
        found = (getattr(function, INFO, None) for function in vars(module).values())
        infos = [info for info in found if isinstance(info, OpInfo) and info.name in words]
        if infos:
            lines.append(f"    # {(inspect.getdoc(module) or '').splitlines()[0]}")
            lines += [line for info in infos for line in _slot(name, info)]
            lines.append("")
    return "\n".join(lines)


def _slot(backend: str, info: OpInfo) -> list[str]:
    value = f"code.{backend}_read_cr2" if info.name == "read_cr2" else _native(info)
    return [f"    {info.name} = {value}  # {_summary(info, value)}".rstrip()]


def _native(info: OpInfo) -> str:
    if info.name in IDENTITY:
        return "native.identity"
    if hasattr(native, info.name):
        return f"native.{info.name}"
    return "NULL" if info.nullable else "NOP"


def _summary(info: OpInfo, value: str) -> str:
    """The op's first sentence, as far as the line has room."""
    sentence = re.split(r"(?<=\.)\s", " ".join(info.doc.split()))[0].rstrip(".")
    room = DOC_WIDTH - len(info.name) - len(value)
    return sentence if len(sentence) <= room else sentence[: room - 3].rsplit(" ", 1)[0] + "..."
