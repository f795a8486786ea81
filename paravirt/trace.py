"""A trace of a run: what happened when, in virtual time, as a file for Perfetto or for a script.

An event has a lane (``traps``, ``ops``, ``mode``, and what platforms add), a name, a time, and arguments. The file's
name decides the format: ``.jsonl`` is an object a line, anything else is Chrome's trace JSON, which opens in Perfetto
and in chrome://tracing. It is written as the run goes on, under a temporary name, and it is bounded: what comes after
the limit is counted and left out.

Ref: "Trace Event Format" (Google), JSON object format: phases X, i, M.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from paravirt.errors import ConfigError

LIMIT = 1_000_000
PROCESS = 1
NS_PER_US = 1000


class Trace:
    """
    :param now: virtual time in ns.
    :param limit: events that are kept.
    :raises ConfigError: the file cannot be written.
    """

    def __init__(self, path: Path, now: Callable[[], int] = lambda: 0, limit: int = LIMIT) -> None:
        self.path, self.now, self.limit = path, now, limit
        self.events = self.dropped = 0
        self._lanes: dict[str, int] = {}
        self._lines = path.suffix == ".jsonl"
        try:
            descriptor, self._temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        except OSError as error:
            raise ConfigError(f"--trace {path}: {error.strerror}") from None
        self._file: IO[str] = os.fdopen(descriptor, "w", encoding="utf-8")
        if not self._lines:
            self._file.write('{"displayTimeUnit":"ns","traceEvents":[\n')
        self._separator = ""

    def event(self, lane: str, name: str, arguments: Mapping[str, object] | None = None, *,
              since: int | None = None) -> None:
        """Something happened now, or lasted from `since` (virtual ns) until now.

        :param arguments: numbers and text, or lists of them.
        """
        if self.events >= self.limit:
            self.dropped += 1
            return
        self.events += 1
        now = self.now()
        begin = now if since is None else since
        if self._lines:
            row: dict[str, object] = {"lane": lane, "name": name, "ns": begin}
            if since is not None:
                row["duration_ns"] = now - since
            if arguments:
                row["args"] = arguments
            self._write(row)
            return
        made: dict[str, object] = {"name": name, "pid": PROCESS, "tid": self._lane(lane), "ts": begin / NS_PER_US}
        made |= {"ph": "i", "s": "t"} if since is None else {"ph": "X", "dur": (now - since) / NS_PER_US}
        if arguments:
            made["args"] = arguments
        self._write(made)

    def _lane(self, name: str) -> int:
        number = self._lanes.get(name)
        if number is None:
            number = self._lanes[name] = len(self._lanes) + 1
            self._write({"name": "thread_name", "ph": "M", "pid": PROCESS, "tid": number, "args": {"name": name}})
        return number

    def _write(self, row: dict[str, object]) -> None:
        text = json.dumps(row, separators=(",", ":"), default=str)
        self._file.write(text + "\n" if self._lines else f"{self._separator}{text}")
        self._separator = ",\n"

    def close(self, **about: object) -> None:
        """End the file and give it its name; nothing is lost however the run ended.

        :param about: facts of the run, for the file's head or last line.
        """
        if self._file.closed:
            return
        facts = {**about, "events": self.events, "dropped": self.dropped}
        if self._lines:
            self._write({"lane": "trace", "name": "end", "ns": self.now(), "args": facts})
        else:
            self._file.write(f'\n],"otherData":{json.dumps(facts, default=str)}}}\n')
        self._file.close()
        os.chmod(self._temporary, 0o644)
        os.replace(self._temporary, self.path)


def summary(path: Path) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], int], dict[str, object]]:
    """What a trace holds.

    :return: events by lane and name; virtual ns by lane and name, of those that last; facts of the run.
    :raises ConfigError: it is no trace.
    """
    counts: Counter[tuple[str, str]] = Counter()
    times: Counter[tuple[str, str]] = Counter()
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines()]
            facts = rows.pop()["args"] if rows and rows[-1]["lane"] == "trace" else {}
            for row in rows:
                counts[row["lane"], row["name"]] += 1
                times[row["lane"], row["name"]] += row.get("duration_ns", 0)
        else:
            document = json.loads(text)
            facts = document.get("otherData", {})
            lanes = {event["tid"]: event["args"]["name"] for event in document["traceEvents"] if event["ph"] == "M"}
            for event in document["traceEvents"]:
                if event["ph"] != "M":
                    key = lanes[event["tid"]], event["name"]
                    counts[key] += 1
                    times[key] += round(event.get("dur", 0) * NS_PER_US)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not a trace of ours: {type(error).__name__}: {error}") from None
    return dict(counts), dict(times), dict(facts)
