"""What a backend is: a class whose methods are the lifecycle hooks, one object a machine."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict

from paravirt.forms import hookimpl


class BackendOptions(BaseModel):
    """Base of a backend's options: values are checked and converted, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(enum.Enum):
    """ONLY: the kernel was made for this backend; YES: it can run there, or that cannot be told; NO."""

    ONLY = "only"
    YES = "yes"
    NO = "no"


class Verdict(NamedTuple):
    """A probe's answer, with its reason in one sentence."""

    answer: Answer
    reason: str


class Backend:
    """Base of every backend.

    :cvar name: what ``--backend`` is given; :cvar summary: one line for listings.
    :cvar Options: the model of its options.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    Options: ClassVar[type[BaseModel]] = BackendOptions
    # Groups of ops that this backend's platform does not have, with the reason; for listings and tests.
    absent: ClassVar[Mapping[str, str]] = {}

    @hookimpl
    def paravirt_options(self) -> type[BaseModel]:
        return self.Options


__all__ = ["Answer", "Backend", "BackendOptions", "Verdict", "hookimpl"]
