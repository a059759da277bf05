"""Whether the service lives and is ready, what it runs, and what one request may ask for."""

from typing import Literal

from pydantic import Field

from service.schemas.common import ModelInfo, Wire
from service.schemas.indexes import IndexStatus

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


class Limits(Wire):
    """What one request may ask for."""

    max_image_bytes: int
    max_batch_bytes: int
    max_image_pixels: int
    max_image_side: int
    formats: list[str]
    default_k: int
    max_k: int
    challenge: bool = Field(description="Whether /v1/challenge may be asked.")
    body_timeout_s: float
    queue_timeout_s: float
    request_timeout_s: float


class ServedModel(ModelInfo):
    """The model, and the shape of what it gives."""

    forward_error: float = Field(
        description="E of the network alone; an answer's own adds the resize of its image."
    )
    dim: int
    input_size: int = Field(description="Side of the network's input, pixels.")
    decode_policy: str


class Info(Wire):
    """Answer of GET /v1/info."""

    name: str
    version: str
    versions: dict[str, str] = Field(description="Libraries that take part in an answer.")
    limits: Limits
    models: list[ServedModel]
    indexes: list[str] = Field(description="Names of the indexes in service.")
    examples: list[str] = Field(
        description="Names of pictures to try, as /v1/examples/{name} gives them."
    )
