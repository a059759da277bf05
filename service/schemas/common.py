"""What several questions or answers have in common."""

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

DEFAULT_INDEX = "default"
LONGEST_ID = 4096
CACHE_TIME = "Hashing the file and asking the caches, where there are any; on a hit, decode is 0."
UNIT = "uploaded pixels: decoded upright RGB, H x W x 3 values in [0, 1]"

Radius = float | None

Stage = Literal["cache", "queue", "decode", "embed", "search", "certify"]
"""Where the time of a request goes, as answers, metrics, log lines and traces name it."""


def _written_plainly(value: object) -> object:
    """A number in a form or a query looks as in JSON; Python would read `1_0` and ` 5 `, too."""
    if isinstance(value, str) and not set(value) <= set("+-.0123456789eE"):
        raise PydanticCustomError("plain_number", "Input should be a number as JSON writes it")
    return value


PlainNumber = BeforeValidator(_written_plainly)


_CLAUSES = {"type": "array", "items": {"type": "object"}}
# As it came, of a form or query its text: `index_builder.filters`, unknown to clients, checks it.
FilterJson = Annotated[
    SkipValidation[dict[str, Any] | str | None],
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "object",
                    "properties": dict.fromkeys(("must", "should", "must_not"), _CLAUSES),
                    "additionalProperties": False,
                },
                {"type": "null"},
            ]
        }
    ),
]


Epsilon = Annotated[
    float,
    Field(
        ge=0,
        allow_inf_nan=False,
        description="Budget: an l2 change of the uploaded pixels (values in [0, 1]) to judge by.",
    ),
    PlainNumber,
]


IncludeInput = Annotated[
    bool, Field(description="Return what the network saw of the image, as a PNG file in base64.")
]


class Options(BaseModel):
    """Options of one request; names that are not listed are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Wire(BaseModel):
    """Part of an answer."""

    # NaN must be found when it is written, not become null.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")


class StageTimings(Wire):
    """Wall time of each stage, in milliseconds."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Refuse, at import, a member that no stage fills.

        Raises:
            TypeError: there is one.
        """
        super().__pydantic_init_subclass__(**options)
        unknown = cls.model_fields.keys() - {*get_args(Stage), "total"}
        if unknown:
            raise TypeError(f"{cls.__name__} has members that are no stage: {sorted(unknown)}")


class ImageInfo(Wire):
    """One image as it was decoded."""

    sha256: str = Field(description="SHA-256 of the image bytes as sent, hex.")
    width: int = Field(description="Width of the upright image, pixels.")
    height: int = Field(description="Height of the upright image, pixels.")
    format: str = Field(description="Format of the content (not of the file name).")
    truncated: bool = Field(
        default=False,
        description="The file ended early and was decoded as far as it goes, the rest gray; only "
        "where LIPSIM_TRUNCATED is accept. Radii are about the decoded pixels.",
    )
    embedding_norm: float = Field(description="l2 norm of the raw embedding.")
    gain: float = Field(
        description="Proved upper bound of the resize's l2 operator norm; divides every radius."
    )


class SeenImage(ImageInfo):
    """One image as it was decoded; with include_input as the network saw it, too."""

    input_png: str | None = Field(
        default=None,
        description="The network's input, rounded to 8 bits: a PNG file in base64; only with "
        "include_input.",
    )


class IndexInfo(Wire):
    """The index version that answered: one version for the whole answer."""

    name: str
    version: str
    size: int = Field(description="Entries: ids whose vectors are all equal are one.")
    items: int | None = Field(
        default=None, description="What ranks, k and null radii count: the entries."
    )
    vectors: int | None = Field(
        default=None, description="Vectors of all items: each has one for each different view."
    )
    matching: int | None = Field(
        default=None,
        description="Entries of which an item matches the filter: what ranks, k and null radii "
        "count then. Only with filter.",
    )
    matching_ids: int | None = Field(
        default=None, description="Ids whose items match the filter; only with filter."
    )


class ModelInfo(Wire):
    """The network that answered, and what its numbers rest on."""

    name: str
    fingerprint: str = Field(description="SHA-256 over weights, config and decode policy, hex.")
    lipschitz_bound: float = Field(description="Proved upper bound of the Lipschitz constant.")
    forward_error: float = Field(
        description="E: proved upper bound of the l2 error of the computed embedding, with the "
        "resize of this image (the larger of the two in a comparison); already subtracted twice."
    )
    arithmetic: Literal["float64", "float32"]
    metric: Literal["isotropic", "head-aware"] = Field(
        default="isotropic",
        description="What radii of rank divide by: the Lipschitz bound alone, or, where the head "
        "is rotated, a bound for each direction, which gives larger radii.",
    )
    claim: Literal["program", "real-arithmetic"] = Field(
        description="program: radii hold for this service as it runs; real-arithmetic: for the "
        "network in exact arithmetic only."
    )


class FieldError(Wire):
    """One parameter and what is wrong with it."""

    field: str
    message: str


class Problem(Wire):
    """An error, RFC 9457; tell errors apart by `code`."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError] | None = Field(default=None, description="Field by field, on 400.")
    request_id: str | None = None
    retry_after_s: int | None = Field(
        default=None,
        description="Of one image of a batch, on 429 and 503: seconds after which to send it "
        "again. Any other answer has the header Retry-After.",
    )
