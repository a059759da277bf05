"""Whether the service lives, and whether it is ready."""

from typing import Literal

from pydantic import Field

from service.schemas.indexes import IndexStatus
from service.schemas.parts import Wire


class Live(Wire):
    """Answer of GET /livez."""

    status: Literal["live"]


class Ready(Wire):
    """Answer of GET /readyz, 200 and 503 alike."""

    status: Literal["ready", "not_ready"]
    reason: (
        Literal[
            "draining",
            "loading_model",
            "model_refused",
            "loading_indexes",
            "no_index",
            "index_refused",
        ]
        | None
    ) = Field(description="null when ready.")
    detail: str | None
    indexes: list[IndexStatus]
    redis: Literal["ok", "degraded", "off"] = Field(
        description="Whether the optional Redis is of use; readiness does not depend on it."
    )
