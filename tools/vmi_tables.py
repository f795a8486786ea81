"""Write the table of docs/vmi.md: every VMI call.

``python tools/vmi_tables.py`` renews the page; a test holds it to the literal table of the monitor.
"""

from __future__ import annotations

from pathlib import Path

from paravirt_vmi.platform.calls import CALLS
from paravirt_vmi.platform.layout import CALL_REL, JUMP_REL, NONE, NOP
from paravirt_vmi.table import FETCH, FILL, JUMP, WRAP

PAGE = Path(__file__).resolve().parent.parent / "docs" / "vmi.md"
BEGIN, END = "<!-- table: written by tools/vmi_tables.py -->", "<!-- end of table -->"
ANSWERS = {NONE: "NONE", CALL_REL: "CALL", JUMP_REL: "JUMP", NOP: "NOP"}


def ops(name: str) -> str:
    """The ops of our own guest side that the call serves, by way of how they get there."""
    found = FILL[name][0].split() if name in FILL else list(WRAP.get(name, {}))
    found += [JUMP[name][0]] if name in JUMP else []
    for calls, bundle in FETCH:
        if calls[0] == name:
            found += bundle
    return " ".join(found)


def table() -> str:
    lines = ["| number | call | arguments | result | answer | where | ops | what it does |",
             "|--:|---|---|---|---|---|---|---|"]
    for call in CALLS:
        lines.append(f"| {call.number} | {call.name} | {call.arguments} | {call.result} | {ANSWERS[call.answer]} "
                     f"| {call.home.value} | {ops(call.name)} | {call.meaning} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """The page with its table renewed."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
