"""The record of a run: what ended it, what it cost, what it left behind. ``--json`` writes it.

Everything but `Record.host` is repeatable: two runs of the same command give equal records.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

SCHEMA = 1


def described(description: str, **default: Any) -> Any:
    """A field with its description, for docs/record.md."""
    return field(metadata={"description": description}, **default)


class _Part:
    """Base of what a record is made of. Pydantic reads it, in `Record.from_json` alone: it takes long to import."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """File names and symbols may hold bytes that are no UTF-8; JSON cannot."""
        for name, value in vars(self).items():
            if isinstance(value, str) and not value.isascii():
                text = value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                object.__setattr__(self, name, text)


@dataclass(frozen=True, kw_only=True)
class EngineRecord(_Part):
    """Which forms of the engine were in use."""

    name: str = described("accelerated, portable, or mixed")
    seams: dict[str, str] = described("form of each seam (machine/seams.py)")
    missing: dict[str, str] = described("why a seam is in its portable form")


@dataclass(frozen=True, kw_only=True)
class OutcomeRecord(_Part):
    """What ended the run."""

    kind: str = described("poweroff, reboot, halt, debug-exit, matched, stopped, crash, idle, timeout, limit, "
                                  "interrupted or error")
    reason: str = described("one sentence")
    eip: int | None = described("where the guest was")
    symbol: str = described("nearest symbol below eip, with the offset")


@dataclass(frozen=True, kw_only=True)
class StepRecord(_Part):
    """One step of the boot: a lifecycle hook, an op or a function of the kernel."""

    name: str
    op: str = described("the op that was called; empty for other steps")
    where: str = described("function and file:line of the implementation, or its symbol")
    kind: str = described("hook, guest code, host function, kernel, no-op or NULL")
    instructions: int = described("run meanwhile, by interrupts and other tasks too")
    virtual_ns: int
    traps: int = described("exits to the host meanwhile")
    ops: dict[str, int] = described("calls of ops meanwhile, as far as they are counted")


@dataclass(frozen=True, kw_only=True)
class Counts(_Part):
    """What a run cost; repeatable."""

    ops: dict[str, int] = described("calls by op")
    ops_counted: str = described("all, or host: without --count-ops only host functions count")
    patched_sites: int = described("call sites that were replaced")
    exceptions: dict[str, int] = described("exceptions and software interrupts by vector")
    interrupts: int = described("hardware interrupts delivered")
    port_io: int = described("IN and OUT that reached the bus")
    traps: int = described("all exits to the host")
    user_instructions: int | None = described("run in ring 3; null without --count-modes", default=None)
    backend: dict[str, int] = described("what the backend counts, by its own keys")


@dataclass(frozen=True, kw_only=True)
class MarkRecord(_Part):
    """The counters at one moment of the run."""

    text: str = described("of a mark: what the console had just printed")
    instructions: int
    virtual_ns: int
    counts: Counts


@dataclass(frozen=True, kw_only=True)
class HostRecord(_Part):
    """Figures of the host: not repeatable."""

    wall_seconds: float
    max_rss_kib: int
    tlb_fills: int
    late_input: int = described("bytes of input that came after the guest had begun to read")


@dataclass(frozen=True, kw_only=True)
class Record(_Part):
    """One run."""

    schema: int = described("version of this layout", default=SCHEMA)
    kernel: str = described("its file")
    sha256: str = described("of the kernel's file")
    backend: str = described("that was chosen")
    engine: EngineRecord | None = described("null if the run ended before there was a machine")
    outcome: OutcomeRecord
    exit_code: int = described("of the command")
    instructions: int = described("run by the guest; each round of a REP is one")
    virtual_ns: int = described("virtual time: 1 ns an instruction, charges for exits, and idle time")
    counts: Counts
    steps: tuple[StepRecord, ...]
    marks: tuple[MarkRecord, ...] = described("where the output matched --mark; at most 10000", default=())
    samples: tuple[MarkRecord, ...] = described("every so often, as --sample says; at most 1000", default=())
    state_hash: str = described("SHA-256 of memory, registers and devices; empty if not asked for")
    end_state: dict[str, Any] | None = described("of the reference kernel, at power off")
    console_sha256: str = described("of everything the guest printed")
    host: HostRecord

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: bytes) -> Record:
        """What `to_json` wrote. :raises ValueError: naming the field that is wrong."""
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_json(text)

    def repeatable(self) -> dict[str, Any]:
        """The record without the host's figures."""
        return {name: value for name, value in asdict(self).items() if name != "host"}


def write_record(record: Record, path: Path) -> None:
    """Write the record whole or not at all: a temporary name in the same folder, then rename."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent or Path("."))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(record.to_json())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
