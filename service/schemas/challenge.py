"""What an attack on one result is asked and answered."""

from typing import Annotated

from pydantic import Field

from service.schemas.common import ImageInfo, IndexInfo, ModelInfo, PlainNumber, Wire
from service.schemas.search import AskedOptions, SearchTimings
from service.schemas.tolerance import StatementInfo

MOST_STEPS = 40


class ChallengeOptions(AskedOptions):
    """Options of an attack: the question of a search, the result to push out, and the budget."""

    id: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="The entry to push out of the answer; absent: the first result.",
    )
    budget: Annotated[float, PlainNumber] = Field(
        default=1.0,
        gt=0,
        le=10_000,
        allow_inf_nan=False,
        description="l2 change of the uploaded pixels (values in [0, 1]) that the attack may make.",
    )
    steps: Annotated[int, PlainNumber] = Field(
        default=20, ge=1, le=MOST_STEPS, description="Steps of the gradient, at most."
    )


class ChallengeAnswer(Wire):
    """Answer of /v1/challenge."""

    query: ImageInfo
    index: IndexInfo
    model: ModelInfo
    statement: StatementInfo = Field(description="What the attack tried to make untrue.")
    budget: float
    l2: float = Field(
        description="l2 distance of the attacked picture, 8 bits a value, to the one sent; never "
        "more than the budget."
    )
    steps: int = Field(description="Steps that were made; fewer where the attack won before.")
    changed: bool = Field(description="Whether the answer to the attacked picture lacks the entry.")
    image_base64: str = Field(description="The attacked picture as PNG: search with it, and see.")
    timings_ms: SearchTimings
