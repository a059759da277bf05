"""What an embedding is asked and answers."""

from pydantic import Field

from service.schemas.common import (
    CACHE_TIME,
    IncludeInput,
    ModelInfo,
    Options,
    SeenImage,
    StageTimings,
    Wire,
)


class EmbedOptions(Options):
    """Options of an embedding."""

    include_input: IncludeInput = False


class EmbedTimings(StageTimings):
    """Wall time of each stage, in milliseconds."""

    cache: float = Field(description=CACHE_TIME)
    queue: float
    decode: float
    embed: float
    total: float


class EmbedAnswer(Wire):
    """Answer of /v1/embed."""

    vector: list[float] = Field(description="Raw embedding (never normalised), float64.")
    norm: float
    fingerprint: str = Field(description="Vectors compare only under equal fingerprints.")
    image: SeenImage
    model: ModelInfo
    timings_ms: EmbedTimings
