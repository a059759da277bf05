"""What the tolerances of an answer are asked and answered."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from service.schemas.common import ImageInfo, IndexInfo, ModelInfo, PlainNumber, Radius, Wire
from service.schemas.indexes import OperatingPoint
from service.schemas.search import AskedOptions, SearchTimings

# Those of `model.pixels.tolerances.measure`, which takes numpy; a test holds them together.
FAMILIES = ("brightness", "contrast", "gamma", "jpeg", "resize")
How = Literal["exact", "every member", "chain"]
NOISE = "noise"
MOST_PASSES = 32

_NAMES = (*FAMILIES, NOISE)
_ONE = f"({'|'.join(_NAMES)})"


class ToleranceOptions(AskedOptions):
    """Options of a measurement: the question of a search, and the statement about its answer."""

    statement: Literal["result", "top1", "set", "verdict"] = Field(
        default="result",
        description="What is to stay true: `result`: the entry `id` is in the answer; `top1`: the "
        "first result is the first; `set`: the answer has the same entries; `verdict`: the "
        "`match` of the entry `id`, which needs operating_point.",
    )
    id: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="The entry that a result or a verdict is about; absent: the first result.",
    )
    chain: Annotated[int, PlainNumber] = Field(
        default=0,
        ge=0,
        le=MOST_PASSES,
        description="Passes of the network that may be spent on further centers, shared out evenly "
        "among the families: edited copies of the image for which the same statement came out, "
        "whose own radii carry each range further.",
    )
    families: str = Field(
        default=",".join(_NAMES),
        pattern=f"^{_ONE}(,{_ONE}){{0,{len(_NAMES) - 1}}}$",
        description=f"Which families of edits, of {', '.join(_NAMES)}, between commas.",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.statement == "verdict" and self.operating_point is None:
            raise ValueError("a verdict needs an operating_point")
        if self.statement in ("top1", "set") and self.id is not None:
            raise ValueError(f"a statement of {self.statement} takes no id")
        return self

    @property
    def edits(self) -> list[str]:
        """The families that are edits: all but noise."""
        return [name for name in self.names if name != NOISE]

    @property
    def names(self) -> list[str]:
        return [*dict.fromkeys(self.families.split(","))]


class StatementInfo(Wire):
    """The statement that the ranges are about."""

    kind: Literal["result", "top1", "set", "verdict"]
    id: str | None = Field(description="The entry, by its first id; null for `set`.")
    match: bool | None = Field(description="The verdict; null for the other kinds.")
    radius: Radius = Field(
        description="l2 change of the uploaded pixels below which it stays true; 0: nothing is "
        "proved, and every range is null. null: nothing can change it."
    )


class ToleranceInfo(Wire):
    """One family: a range of its parameter, both ends included."""

    model_config = ConfigDict(populate_by_name=True)

    low: int | float | None = Field(
        validation_alias="from",
        serialization_alias="from",
        description="Smallest parameter for which the statement provably stays true, rounded "
        "inwards; null: there is none.",
    )
    high: int | float | None = Field(
        validation_alias="to",
        serialization_alias="to",
        description="Largest such parameter; null with `from`, and for noise where nothing can "
        "change the statement.",
    )
    unit: str = Field(description="What the parameter is.")
    how: How = Field(
        description="exact: all that the radius proves; every member: each was made and measured; "
        "chain: with the radii of further centers."
    )
    complete: bool = Field(
        description="false: the time was up, or the image too large; what was looked at is proved."
    )
    radius: Radius = Field(description="The statement's radius for the image itself, l2.")
    passes: int = Field(description="Passes of the network spent on it.")
    reason: Literal["too_large"] | None = Field(
        description="Why it was not looked at; null: it was."
    )


class ToleranceAnswer(Wire):
    """Answer of /v1/tolerance."""

    query: ImageInfo
    index: IndexInfo
    model: ModelInfo
    operating_point: OperatingPoint | None
    statement: StatementInfo
    families: dict[str, ToleranceInfo] = Field(
        description="By name. A value v of the image becomes, with parameter a: brightness "
        "clip(rint(a v)), contrast clip(rint(128 + a (v - 128))), gamma clip(rint(255 (v/255)^a)); "
        "jpeg: written by Pillow in that quality (RGB, 4:2:0) and read back; resize: by Pillow, "
        "bicubic, to that width and back. noise: any change, in 8-bit levels rms below `to`."
    )
    passes: int = Field(description="Passes of the network, the image's own not counted.")
    cpu_s: float = Field(description="CPU time of the measurement, seconds.")
    versions: dict[str, str] = Field(description="Of what made the jpeg and resize members.")
    timings_ms: SearchTimings
