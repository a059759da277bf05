"""Whether the service lives, and whether it is ready."""

from typing import Literal

from pydantic import Field

from service.schemas.indexes import IndexStatus
from service.schemas.parts import Wire

Reason = Literal[
    "draining",
    "loading_model",
    "model_refused",
    "loading_indexes",
    "no_index",
    "index_refused",
    "worker_died",
]


class Live(Wire):
    """Answer of GET /livez."""

    status: Literal["live"]


class Ready(Wire):
    """Answer of GET /readyz, 200 and 503 alike; with keys in force, in full to who has one."""

    status: Literal["ready", "not_ready"]
    reason: Reason | None = Field(description="null when ready.")
    detail: str | None = None
    indexes: list[IndexStatus] | None = None
    redis: Literal["ok", "degraded", "off"] | None = Field(
        default=None,
        description="Whether the optional Redis is of use; readiness does not depend on it.",
    )
