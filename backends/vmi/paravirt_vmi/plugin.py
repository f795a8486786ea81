"""The vmi backend. It is not written yet: its probe says so."""

from __future__ import annotations

from collections.abc import Iterable

from paravirt.api import Answer, Backend, KernelInfo, Verdict, hookimpl


class Vmi(Backend):
    """Takes part in the listings only."""

    name = "vmi"
    summary = "VMware's Virtual Machine Interface"

    @hookimpl
    def paravirt_probe(self, kernel: KernelInfo) -> Verdict:
        return Verdict(Answer.NO, "not written yet")


@hookimpl
def paravirt_backends() -> Iterable[type[Backend]]:
    return (Vmi,)
