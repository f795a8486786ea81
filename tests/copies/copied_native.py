"""Backends for the comparison's tests: native, and native with one thing that is different."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from paravirt.api import NOP, Backend, Guest, OpTable, hookimpl
from paravirt_native.plugin import Native
from paravirt_native.table import NativeOps

TSS_ESP0, THREAD_ESP0 = 4, 24


class Copy(Native):
    """Native under another name."""

    name = "copy"
    summary = "native once more"
    Ops: ClassVar[type[OpTable]] = NativeOps

    @hookimpl
    def paravirt_install_ops(self, guest: Guest) -> OpTable:
        return self.Ops(guest)


class SlowSwitchOps(NativeOps):
    """The kernel stack of the next task is told to the host: one trap a context switch."""

    name = "bare hardware"

    @hookimpl
    def load_esp0(self, tss: int, thread: int) -> None:
        vcpu = self.guest.machine.vcpu
        vcpu.write_u32(tss + TSS_ESP0, vcpu.read_u32(thread + THREAD_ESP0))


class SlowSwitch(Copy):
    name = "slow-switch"
    Ops = SlowSwitchOps


class WrongOps(NativeOps):
    name = "bare hardware"
    set_iopl_mask = NOP


class Wrong(Copy):
    name = "wrong"
    Ops = WrongOps


class Broken(Copy):
    name = "broken"

    @hookimpl
    def paravirt_build_guest(self, guest: Guest) -> None:
        raise ValueError("out of order")


@hookimpl
def paravirt_backends() -> Iterable[type[Backend]]:
    return (Copy, SlowSwitch, Wrong, Broken)
