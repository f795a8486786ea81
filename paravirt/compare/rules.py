"""What may differ in the console of two backends and mean nothing.

Each rule is a named regular expression; what it finds is replaced by ``<name>`` and nothing else is, so another
difference on the same line is still reported. `OPTIONAL` names lines that a platform may not have at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class Rule(NamedTuple):
    """:ivar pattern: what may differ."""

    name: str
    pattern: re.Pattern[str]


TIME = Rule("time", re.compile(r"^\[ *\d+\.\d{6}\]"))  # of printk; every kernel has it

# Of the reference kernel alone: the same down to its ops, so everything else that it prints must agree.
PARAVIRT: tuple[Rule, ...] = (
    Rule("platform", re.compile(r"(?<= Booting paravirtualized kernel on ).+")),
    Rule("command-line", re.compile(r"(?<= Command line:) .*")),
    Rule("memory-map", re.compile(r"\S+(?=-provided physical RAM map:)")),
    Rule("memory-map-entry", re.compile(r"\S+: [0-9a-f]{16} - [0-9a-f]{16} \(\w+\)$")),
    Rule("memory-size", re.compile(r"(?<= )\d+(?=MB LOWMEM available)|(?<=Normal 0 -> )\d+|"
                                   r"(?<= Memory: )\d+k/\d+k(?= available)")),
    Rule("sites", re.compile(r"(?<= paravirt: )\d+(?= sites patched)")),
    Rule("clock", re.compile(r"(?<= Detected )\d+\.?\d*(?= MHz processor)|\d+\.?\d*(?= BogoMIPS)")),
    Rule("bench-time", re.compile(r"(?<= took )\d+(?= ns each)")),
    Rule("nosegneg", re.compile(r"(?<=^vdso: nosegneg )(set|clear)$")),
)

# Lines that may be missing: what a kernel tests on bare hardware only, what it says when it finds a platform, how many
# entries a memory map has, and who the hypervisor is.
OPTIONAL: tuple[Rule, ...] = (
    Rule("halt-test", re.compile(r" Checking 'hlt' instruction... OK\.$")),
    Rule("platform-found", re.compile(r" \w+: Found .+ API version [\d.]+, ROM version [\d.]+$")),
    Rule("more-memory-map", re.compile(r" <memory-map-entry>$")),
    Rule("signature", re.compile(r" Hypervisor signature: \S+$")),
)

# Of other kernels: what they print before their log begins, where there is a console that early.
EARLY: tuple[Rule, ...] = (
    Rule("early-console", re.compile(r"^(mapping kernel into physical memory|about to get started\.\.\.)$")),
)

KERNEL_LOG = re.compile(r"^(<\d>)?\[ *\d+\.\d{6}\] ")


def normalise(console: bytes, *, paravirt: bool) -> list[str]:
    """The console's lines as they are compared.

    :param paravirt: the kernel is the same down to its ops, and all that it prints counts. Of another kernel the log
        is its platform's business, and the lines of user space count.
    """
    lines = console.decode("utf-8", "backslashreplace").replace("\r\n", "\n").rstrip("\n").split("\n")
    if not paravirt:
        return [line for line in lines
                if not KERNEL_LOG.match(line) and not any(rule.pattern.search(line) for rule in EARLY)]
    changed = (apply(line, (TIME, *PARAVIRT)) for line in lines)
    return [line for line in changed if not any(rule.pattern.search(line) for rule in OPTIONAL)]


def apply(line: str, rules: Iterable[Rule]) -> str:
    """One line with every rule applied, in order."""
    for rule in rules:
        line = rule.pattern.sub(f"<{rule.name}>", line)
    return line
