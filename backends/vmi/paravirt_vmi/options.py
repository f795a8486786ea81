"""What ``-o`` can say of the VMI backend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from paravirt.api import BackendOptions, close_match
from paravirt_vmi.platform.calls import CALLS
from paravirt_vmi.platform.layout import AREA_END, AREA_FIRST, AREA_STEP, DEFAULT_BASE, PAGE_BYTES, ROM_BYTES

Number = Annotated[int, BeforeValidator(lambda value: int(value, 0) if isinstance(value, str) else value)]


class VmiOptions(BackendOptions):
    """The model of the backend's options."""

    trap: Literal["few", "all"] = Field("few", description="all: every call leaves the guest, for counting and tests")
    deferral: bool = Field(True, description="calls may wait until the guest leaves CPU-lazy mode")
    none: tuple[str, ...] = Field((), description="calls that GetRelocationInfo answers with NONE, by name or number, "
                                                  "with commas between them")
    base: Number = Field(DEFAULT_BASE, description="physical address of the ROM, 0xc0000 to 0xde000")
    virtual_top: Number = Field(0, description="lowest linear address that belongs to the hypervisor; 0: none does")
    apic: bool = Field(False, description="a local APIC, through which alarms may come as well")
    rom: Path | None = Field(None, description="a ROM written by `paravirt vmi rom`, in place of the built one")

    @field_validator("none", mode="before")
    @classmethod
    def _calls(cls, value: object) -> object:
        words = [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value
        if not isinstance(words, list | tuple):
            return value
        names = {call.name: call for call in CALLS} | {str(call.number): call for call in CALLS}
        for word in words:
            if word not in names:
                raise ValueError(f"there is no call {word!r}{close_match(word, [call.name for call in CALLS])}")
            if names[word].needed:
                raise ValueError(f"no guest can do without {names[word].name}")
        return tuple(names[word].name for word in words)

    @field_validator("base")
    @classmethod
    def _base(cls, value: int) -> int:
        if value % 0x1000 or not AREA_FIRST <= value <= AREA_END - ROM_BYTES - PAGE_BYTES:
            raise ValueError(f"{value:#x} is no multiple of 4096 in the area of option ROMs, {AREA_FIRST:#x} to "
                             f"{AREA_END:#x} (guests look at every {AREA_STEP:#x} bytes)")
        return value

    @field_validator("virtual_top")
    @classmethod
    def _top(cls, value: int) -> int:
        if value and (value % 0x1000 or not 0xF0000000 <= value < 1 << 32):
            raise ValueError(f"{value:#x} is not a page boundary from 0xf0000000 on")
        return value
