"""What a backend is: a class whose methods are the lifecycle hooks, one object a machine."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from paravirt.forms import hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel


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
    :cvar Options: the model of its options; None: it has none.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    Options: ClassVar[type[BaseModel] | None] = None
    # The options when none is given, by name, so that pydantic need not be imported for them. None: it is asked, and so
    # it is for a class that derives from one with defaults: its options may be others.
    defaults: ClassVar[Mapping[str, object] | None] = None
    # Groups of ops that this backend's platform does not have, with the reason; for listings and tests.
    absent: ClassVar[Mapping[str, str]] = {}

    @hookimpl
    def paravirt_options(self) -> type[BaseModel]:
        from paravirt.backend_options import BackendOptions

        return self.Options or BackendOptions

    def own_defaults(self) -> Mapping[str, object] | None:
        """`defaults`, if this very class gives them."""
        return self.defaults if "defaults" in vars(type(self)) else None

    def has_options(self) -> bool:
        """Whether its options need to be looked at when none is given."""
        return self.Options is not None or type(self).paravirt_options is not Backend.paravirt_options


__all__ = ["Answer", "Backend", "Verdict", "hookimpl"]
