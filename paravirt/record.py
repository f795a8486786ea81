"""The record of a run: what ended it, what it cost, what it left behind. ``--json`` writes it.

Everything but `Record.host` is repeatable: two runs of the same command give equal records.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SCHEMA = 1


def _utf8(text: str) -> str:
    """File names may hold bytes that are no UTF-8; JSON cannot."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


Text = Annotated[str, AfterValidator(_utf8)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineRecord(_Part):
    """Which forms of the engine were in use."""

    name: str = Field(description="accelerated, portable, or mixed")
    seams: dict[str, str] = Field(description="form of each seam (machine/seams.py)")
    missing: dict[str, str] = Field(description="why a seam is in its portable form")


class OutcomeRecord(_Part):
    """What ended the run."""

    kind: str = Field(description="poweroff, reboot, halt, debug-exit, matched, stopped, crash, idle, timeout, limit, "
                                  "interrupted or error")
    reason: Text = Field(description="one sentence")
    eip: int | None = Field(description="where the guest was")
    symbol: Text = Field(description="nearest symbol below eip, with the offset")


class StepRecord(_Part):
    """One step of the boot: a lifecycle hook, an op or a function of the kernel."""

    name: str
    op: str = Field(description="the op that was called; empty for other steps")
    where: Text = Field(description="function and file:line of the implementation, or its symbol")
    kind: str = Field(description="hook, guest code, host function, kernel, no-op or NULL")
    instructions: int = Field(description="run meanwhile, by interrupts and other tasks too")
    virtual_ns: int
    traps: int = Field(description="exits to the host meanwhile")
    ops: dict[str, int] = Field(description="calls of ops meanwhile, as far as they are counted")


class Counts(_Part):
    """What a run cost; repeatable."""

    ops: dict[str, int] = Field(description="calls by op")
    ops_counted: str = Field(description="all, or host: without --count-ops only host functions count")
    patched_sites: int = Field(description="call sites that were replaced")
    exceptions: dict[str, int] = Field(description="exceptions and software interrupts by vector")
    interrupts: int = Field(description="hardware interrupts delivered")
    port_io: int = Field(description="IN and OUT that reached the bus")
    traps: int = Field(description="all exits to the host")
    user_instructions: int | None = Field(None, description="run in ring 3; null if not counted (--count-ops does)")
    backend: dict[str, int] = Field(description="what the backend counts, by its own keys")


class MarkRecord(_Part):
    """The counters at one moment of the run."""

    text: Text = Field(description="of a mark: what the console had just printed")
    instructions: int
    virtual_ns: int
    counts: Counts


class HostRecord(_Part):
    """Figures of the host: not repeatable."""

    wall_seconds: float
    max_rss_kib: int
    tlb_fills: int
    late_input: int = Field(description="bytes of input that came after the guest had begun to read")


class Record(_Part):
    """One run."""

    schema_version: int = Field(SCHEMA, alias="schema", description="version of this layout")
    kernel: Text = Field(description="its file")
    sha256: str = Field(description="of the kernel's file")
    backend: str = Field(description="that was chosen")
    engine: EngineRecord | None = Field(description="null if the run ended before there was a machine")
    outcome: OutcomeRecord
    exit_code: int = Field(description="of the command")
    instructions: int = Field(description="run by the guest; each round of a REP is one")
    virtual_ns: int = Field(description="virtual time: 1 ns an instruction, charges for exits, and idle time")
    counts: Counts
    steps: tuple[StepRecord, ...]
    marks: tuple[MarkRecord, ...] = Field((), description="where the output matched --mark; at most 10000")
    samples: tuple[MarkRecord, ...] = Field((), description="every so often, as --sample says; at most 1000")
    state_hash: str = Field(description="SHA-256 of memory, registers and devices; empty if not asked for")
    end_state: dict[str, Any] | None = Field(description="of the reference kernel, at power off")
    console_sha256: str = Field(description="of everything the guest printed")
    host: HostRecord

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1) + "\n"

    def repeatable(self) -> dict[str, Any]:
        """The record without the host's figures."""
        return self.model_dump(exclude={"host"})


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
