"""The base of backends' options. A module of its own, since pydantic takes long to import."""

from pydantic import BaseModel, ConfigDict


class BackendOptions(BaseModel):
    """Base of a backend's options: values are checked and converted, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
