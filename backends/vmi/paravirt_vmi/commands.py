"""``paravirt vmi rom``: write the option ROM, and list what is in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from paravirt.api import ConfigError
from paravirt_vmi.options import VmiOptions
from paravirt_vmi.platform.calls import CALLS
from paravirt_vmi.platform.layout import CALL_REL, INIT_ENTRY, JUMP_REL, NONE, NOP, RELOCATION_ENTRY, SLOTS
from paravirt_vmi.rom import ATTENTION, Rom, build

ANSWERS = {NONE: "NONE", CALL_REL: "CALL_REL", JUMP_REL: "JUMP_REL", NOP: "NOP"}


def add(app: typer.Typer) -> None:
    """Add the commands of the backend."""
    vmi = typer.Typer(no_args_is_help=True, help="VMI: the option ROM.")

    @vmi.callback()
    def group() -> None:
        """VMI: the option ROM."""

    @vmi.command()
    def rom(
        output: Annotated[Path | None, typer.Option(metavar="FILE", help="write the ROM's image")] = None,
        option: Annotated[list[str] | None, typer.Option("-o", metavar="KEY=VALUE",
                                                         help="an option of the backend that changes the ROM")] = None,
    ) -> None:
        """Build the option ROM and list it: where everything lies, and how each call is answered."""
        image = build_rom(option or [])
        for line in listing(image):
            print(line)
        if output is not None:
            try:
                output.write_bytes(image.image)
            except OSError as error:
                raise ConfigError(f"{output}: {error.strerror}") from None
            print(f"{output}: {len(image.image)} bytes", file=sys.stderr)

    app.add_typer(vmi, name="vmi")


def build_rom(words: list[str]) -> Rom:
    """The ROM for ``-o`` words. :raises ConfigError: they are not of the model."""
    values = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            raise ConfigError(f"-o {word!r}: not KEY=VALUE")
        values[key] = value
    try:
        options = VmiOptions.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(f"-o {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
                          ) from None
    return build(trap_all=options.trap == "all", none=options.none, deferral=options.deferral,
                 virtual_top=options.virtual_top)


def listing(rom: Rom) -> list[str]:
    """Lines for people: the parts by offset, then each call."""
    places = [(0, "header"), (INIT_ENTRY, "VMI_Init: ud2, ret"), (RELOCATION_ENTRY, "GetRelocationInfo: a jump"),
              (SLOTS, f"slots: hlt, ret; one for each of {len(CALLS)} calls")]
    called = {rom.symbols.get(call.name) for call in CALLS}
    places += [(at, name) for name, at in rom.symbols.items() if at not in called]
    lines = [f"{at:#06x}  {what}" for at, what in sorted(places)]
    lines += [f"{len(rom.fixups)} words are absolute and get the ROM's address at VMI_Init", "",
              "call  name                answer    at      where"]
    for call in CALLS:
        answer = rom.answers[call.number]
        at = rom.entries[call.name]
        reached = answer in (CALL_REL, JUMP_REL)
        where = "" if not reached else "leaves the guest" if rom.traps.get(at, ATTENTION) != ATTENTION \
            else call.home.value
        lines.append(f"{call.number:4}  {call.name:18}  {ANSWERS[answer]:8}  "
                     f"{f'{at:#06x}' if reached else '':6}  {where}".rstrip())
    return lines
