"""The xen backend. It is not written yet: its probe says so."""

from __future__ import annotations

from collections.abc import Iterable

from paravirt.api import Answer, Backend, KernelInfo, Verdict, hookimpl


class Xen(Backend):
    """Takes part in the listings only."""

    name = "xen"
    summary = "a paravirtual Xen domain"

    @hookimpl
    def paravirt_probe(self, kernel: KernelInfo) -> Verdict:
        return Verdict(Answer.NO, "not written yet")


@hookimpl
def paravirt_backends() -> Iterable[type[Backend]]:
    return (Xen,)
