"""A backend that somebody else wrote: native, with three ops of its own and one option."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from paravirt.api import Backend, BackendOptions, Guest, GuestObject, OpTable, hookimpl, machine_code
from paravirt_native.plugin import Native
from paravirt_native.table import NativeOps

code = GuestObject(Path(__file__).with_name("ops.o"))


class AcmeOps(NativeOps):
    """One op in each form: bytes, guest code with data, a host function."""

    name = "acme"
    paravirt_enabled = 1

    clts = machine_code("90 0f 06", clobbers=0)
    read_cr2 = code.acme_read_cr2

    @hookimpl
    def set_wallclock(self, seconds: int) -> int:
        self.guest.counts["acme.set_wallclock"] += 1
        return -1


class Acme(Native):
    """Native with a greeting."""

    name = "acme"
    summary = "somebody else's"

    class Options(BackendOptions):
        """Options of acme."""

        greeting: str = Field("hello", min_length=1, description="what the backend says when the machine is ready")

    @hookimpl
    def paravirt_install_ops(self, guest: Guest) -> OpTable:
        return AcmeOps(guest)

    @hookimpl
    def paravirt_machine_ready(self, guest: Guest) -> None:
        assert isinstance(guest.options, Acme.Options)
        guest.console.write(f"acme says {guest.options.greeting}\n".encode())


@hookimpl
def paravirt_backends() -> Iterable[type[Backend]]:
    return (Acme,)
