"""What a comparison of two images is asked and answers."""

from typing import Annotated

from pydantic import Field

from service.schemas.common import (
    CACHE_TIME,
    Epsilon,
    ImageInfo,
    ModelInfo,
    Options,
    PlainNumber,
    Radius,
    StageTimings,
    Wire,
)


class SimilarityOptions(Options):
    """Options of a comparison."""

    epsilon: Epsilon | None = Field(
        default=None, description="l2 budget in uploaded pixels; gives `interval`."
    )
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False), PlainNumber] | None = Field(
        default=None,
        description="Match if distance <= threshold; gives `match` and `certified_radius`.",
    )


class Interval(Wire):
    """Distances that an l2 change of at most epsilon can reach: [low, high], sound, outward."""

    a: tuple[float, float] = Field(description="Only image_a changes.")
    both: tuple[float, float] = Field(description="Each image changes by up to epsilon.")


class PairRadius(Wire):
    """Radius below which match / no match cannot flip, in uploaded pixels, l2; null: it cannot."""

    a: Radius = Field(description="Only image_a changes.")
    b: Radius = Field(description="Only image_b changes.")
    both: Radius = Field(description="Each image changes by less than this.")


class PairTimings(StageTimings):
    """Wall time of each stage, in milliseconds."""

    cache: float = Field(description=CACHE_TIME)
    queue: float
    decode: float
    embed: float
    certify: float
    total: float


class SimilarityAnswer(Wire):
    """Answer of /v1/similarity."""

    distance: float = Field(description="1 - cosine of the embeddings, 0 to 2.")
    similarity: float
    interval: Interval | None = Field(description="null without epsilon.")
    match: bool | None = Field(description="distance <= threshold; null without threshold.")
    certified_radius: PairRadius | None = Field(description="null without threshold.")
    image_a: ImageInfo
    image_b: ImageInfo
    model: ModelInfo
    unit: str = Field(description="What a radius and epsilon measure.")
    timings_ms: PairTimings
