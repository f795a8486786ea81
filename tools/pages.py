"""Writes the pages of docs/ that follow from the source: the op reference and the record's schema.

``make pages`` writes them; a test holds them to what this prints.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel

from paravirt.compare.result import Comparison
from paravirt.hookspecs import MODULES, OpInfo
from paravirt.hookspecs._spec import INFO
from paravirt.hookspecs.tables import DATA_WORDS, TABLES
from paravirt.record import Record
from tools.native_tables import native_page

DOCS = Path(__file__).resolve().parent.parent / "docs"


def ops_page() -> str:
    """docs/ops.md."""
    lines = [
        "# The ops", "",
        "What each slot of a backend's table must do, by group. Written by `make pages` from",
        "`paravirt/hookspecs/`; `paravirt ops --backend NAME` shows what a backend puts there.", "",
        "Arguments are carried as gcc's regparm(3) carries them: EAX, EDX, ECX, then the stack. From Python an op is a",
        "plain call, `ops.write_cr3(value)`, unless it is jumped to.", "",
    ]
    for module in MODULES:
        lines += _group(module)
    lines += ["## The tables", "", "| table | words |", "|---|---|"]
    for layout in TABLES.values():
        words = ", ".join(f"*{word}*" if word in DATA_WORDS else f"`{word}`" for word in layout.words)
        lines.append(f"| `{layout.name}` | {words} |")
    return "\n".join([*lines, "", "Words in italics are data.", ""])


def _group(module: ModuleType) -> Iterable[str]:
    yield f"## {module.__name__.rpartition('.')[2]}"
    yield ""
    yield " ".join((inspect.getdoc(module) or "").split("\n\n")[0].split())
    yield ""
    for function in vars(module).values():
        info = getattr(function, INFO, None)
        if isinstance(info, OpInfo):
            yield from _op(info)


def _op(info: OpInfo) -> Iterable[str]:
    yield f"### {info.name}"
    yield ""
    yield f"`{info.prototype}`" + (" (jumped to)" if info.jumped else "")
    yield ""
    for paragraph in info.doc.split("\n\n"):
        if not paragraph.lstrip().startswith(":"):
            yield " ".join(paragraph.split())
            yield ""
    rows = [f"* `{each.name}` ({each.type.name}): {' '.join(each.doc.split())}" for each in info.params if each.doc]
    if info.nullable:
        rows.append(f"* NULL means: {info.null_means}")
    if rows:
        yield from rows
        yield ""


def record_page() -> str:
    """docs/record.md."""
    lines = [
        "# The record", "",
        "What `paravirt boot --json FILE` writes and `paravirt.boot()` returns. Everything but `host` is repeatable:",
        "two runs of one command give equal records. Written by `make pages` from `paravirt/record.py`.", "",
        *_model("", Record), "# The comparison", "",
        "What `paravirt compare --json FILE` writes.", "", *_model("", Comparison, known={Record}),
    ]
    return "\n".join(lines)


def _model(path: str, model: type, known: set[type] | None = None) -> list[str]:
    known = known if known is not None else set()
    known.add(model)
    lines = [*([f"## {path}", ""] if path else []), *([_sentence(model), ""] if path else []),
             "| field | type | meaning |", "|---|---|---|"]
    parts: list[tuple[str, type]] = []
    for shown, annotation, description in _fields(model):
        inner = next((each for each in _models(annotation)), None)
        if inner is not None and inner not in known:
            parts.append((f"{path}.{shown}".lstrip("."), inner))
        about = description or (_sentence(inner) if inner is not None else "")
        lines.append(f"| `{shown}` | {_type(annotation)} | {about} |")
    lines.append("")
    for place, inner in parts:
        if inner not in known:
            lines += _model(place, inner, known)
    return lines


def _fields(model: type) -> Iterable[tuple[str, Any, str]]:
    """Name, type and description of each field."""
    if issubclass(model, BaseModel):
        for name, each in model.model_fields.items():
            yield each.alias or each.serialization_alias or name, each.annotation, each.description or ""
    elif dataclasses.is_dataclass(model):
        types = get_type_hints(model)
        for field in dataclasses.fields(model):
            yield field.name, types[field.name], field.metadata.get("description", "")


def _sentence(model: type) -> str:
    return (inspect.getdoc(model) or "").split("\n")[0]


def _models(annotation: Any) -> Iterable[type]:
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)


def _type(annotation: Any) -> str:
    found = list(_models(annotation))
    text = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    for model in found:
        text = text.replace(f"{model.__module__}.{model.__name__}", model.__name__)
    if text.startswith("typing.Annotated"):
        text = "str"
    for long in ("collections.abc.", "typing."):
        text = text.replace(long, "")
    return text.replace("|", "or")


PAGES = {"native.md": native_page, "ops.md": ops_page, "record.md": record_page}


def main() -> int:
    """Write the pages whose text has changed."""
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"docs/{name}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
