"""Write the tables of docs/xen.md: every hypercall, and the commands of those that have commands.

``python tools/xen_tables.py`` renews the page; a test holds it to the literal tables of the hypervisor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from paravirt_xen.platform import errors, eventop, grants, memory, mmuext, physdev, sched, vcpuop, version
from paravirt_xen.platform.hypercalls import HYPERCALLS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "xen.md"
BEGIN, END = "<!-- tables: written by tools/xen_tables.py -->", "<!-- end of tables -->"

COMMANDS: Mapping[str, Mapping[int, object]] = {
    "memory_op": memory.COMMANDS,
    "xen_version": version.COMMANDS,
    "grant_table_op": {**grants.SINGLE, **grants.LISTS},
    "vcpu_op": vcpuop.COMMANDS,
    "mmuext_op": mmuext.OPERATIONS,
    "sched_op": sched.COMMANDS,
    "event_channel_op": eventop.OPERATIONS,
    "physdev_op": physdev.COMMANDS,
}


def errno_name(number: int) -> str:
    names = [name for name, value in vars(errors).items() if name.isupper() and value == number]
    return f"-{names[0]}" if names else str(-number)


def answer(handler: Callable[..., int] | int) -> str:
    """Who answers, or what the answer always is."""
    if isinstance(handler, int):
        return f"always {errno_name(-handler)}" if handler < 0 else f"always {handler}"
    return f"`{handler.__module__.rpartition('.')[2]}.py`"


def command_numbers(commands: Iterable[int]) -> str:
    """``0-3, 5``."""
    runs: list[list[int]] = []
    for number in sorted(commands):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def tables() -> str:
    lines = ["| number | hypercall | arguments | answered by | commands |", "|--:|---|---|---|---|"]
    for number, call in sorted(HYPERCALLS.items()):
        arguments = " ".join(argument.name if argument.kind == "u32" else f"{argument.name}:{argument.kind}"
                             for argument in call.arguments)
        commands = command_numbers(COMMANDS[call.name]) if call.name in COMMANDS else ""
        lines.append(f"| {number} | {call.name} | {arguments} | {answer(call.handler)} | {commands} |")
    return "\n".join(lines)


def with_tables(page: str) -> str:
    """The page with its tables renewed."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
