"""What the service says of itself."""

from pydantic import Field

from service.schemas.parts import ModelInfo, Wire


class Limits(Wire):
    """What one request may ask for."""

    max_image_bytes: int
    max_image_pixels: int
    max_image_side: int
    formats: list[str]
    default_k: int
    max_k: int
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
