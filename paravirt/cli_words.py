"""``paravirt boot`` with plain words, read without typer, which takes a tenth of a second to come to the same.

Whatever is not plain (help, an unknown or doubled option, a missing value, a number that is none) is None: then typer
reads it, and says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paravirt.cli_boot import Request

NUMBER, FRACTION = re.compile(r"\d{1,15}"), re.compile(r"\d{1,9}(\.\d{1,9})?")


def _number(text: str) -> int:
    if not NUMBER.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _fraction(text: str) -> float:
    if not FRACTION.fullmatch(text):
        raise ValueError(text)
    return float(text)


# Option -> field of Request, and what makes its value of the word behind it.
VALUES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "--backend": ("backend", str), "--initrd": ("initrd", Path), "--append": ("append", str),
    "--memory": ("memory", str), "--vcpus": ("vcpus", _number), "--engine": ("engine", str),
    "--until": ("until", str), "--until-output": ("until_output", str), "--mark": ("mark", str),
    "--sample": ("sample", _fraction), "--timeout": ("timeout", _fraction),
    "--max-instructions": ("max_instructions", _number), "--idle-limit": ("idle_limit", _fraction),
    "--rtc": ("rtc", str), "--console": ("console", str), "--json": ("json_file", Path), "--trace": ("trace", Path),
    "--trace-ops": ("trace_ops", Path),
    "--trace-limit": ("trace_limit", _number), "--plugins": ("plugins", Path),
}
REPEATED = {"-o": "options", "--no-accel": "no_accel"}
FLAGS: dict[str, tuple[str, bool]] = {
    "--count-ops": ("count_ops", True), "--count-modes": ("count_modes", True),
    "--noreplace-paravirt": ("noreplace", True), "--realtime": ("realtime", True),
    "--virtual-time": ("realtime", False), "--stats": ("stats", True), "--screen": ("screen", True),
    "--quiet": ("quiet", True), "-q": ("quiet", True), "--debug": ("", True),
}


def boot_request(words: Sequence[str]) -> Request | None:
    """What a command line that begins with ``boot`` asks for; None: typer has to look at it."""
    if words[:1] != ["boot"]:
        return None
    found: dict[str, Any] = {}
    repeated: dict[str, list[str]] = {field: [] for field in REPEATED.values()}
    rest = iter(words[1:])
    for word in rest:
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if option in FLAGS and not equals:
            field, setting = FLAGS[option]
            found[field] = setting
            continue
        if option in VALUES or option in REPEATED:
            value = value if equals else next(rest, "-")
            if value.startswith("-"):
                return None
            if option in REPEATED:
                repeated[REPEATED[option]].append(value)
                continue
            field, convert = VALUES[option]
        elif not word.startswith("-") and "kernel" not in found:
            field, convert, value = "kernel", Path, word
        else:
            return None
        if field in found:
            return None
        try:
            found[field] = convert(value)
        except ValueError:
            return None
    found.pop("", None)
    found |= {field: tuple(values) for field, values in repeated.items()}
    from paravirt.cli_boot import Request

    return Request(**found)
