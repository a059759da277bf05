"""Wire types: what is asked and what is answered, field by field, with units."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_INDEX = "default"

UNIT = "uploaded pixels: decoded upright RGB, H x W x 3 values in [0, 1]"
PROMISE = (
    "Let x be the decoded image sent (upright RGB, H x W x 3, values / 255) and x' any other "
    "decoded image of the same height and width with ||x' - x||_2 strictly less than this number. "
    "Sent with the same k and max_distance and answered by the same index version, model "
    "fingerprint and decode policy, x' has this entry in its answer too. 0: nothing is proved. "
    "null: no other entry can displace it. Not measured: file bytes, compression, rounding when "
    "saving, crops, rotations, resizing. Nothing is promised about rank, score, other index "
    "versions, or requests that are refused. With arithmetic float32 (claim real-arithmetic) this "
    "holds for the network in real arithmetic, not for the program."
)

Radius = float | None

_Epsilon = Annotated[
    float,
    Field(
        ge=0,
        allow_inf_nan=False,
        description="Budget: an l2 change of the uploaded pixels (values in [0, 1]) to judge by.",
    ),
]


class Options(BaseModel):
    """Options of one request; names that are not listed are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SearchOptions(Options):
    """Options of a search: form fields in multipart, members in JSON, query parameters with raw."""

    k: int = Field(default=10, ge=1, description="How many results at most.")
    index: str = Field(default=DEFAULT_INDEX, description="Name of the index.")
    max_distance: (
        Annotated[float, Field(ge=0, allow_inf_nan=False, description="Largest distance kept.")]
        | None
    ) = Field(
        default=None,
        description="Leave out results farther than this (1 - cosine, 0 to 2). The radii then "
        "answer for the threshold too.",
    )
    epsilon: _Epsilon | None = Field(
        default=None,
        description="l2 budget in uploaded pixels; each result then says whether it is certified "
        "against it (epsilon < certified_radius; a null radius is certified).",
    )
    operating_point: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="Name of one of the index's operating points, like strict or balanced (see "
        "/v1/indexes/{name}); each result then says whether it is a match. k and max_distance do "
        "not matter to that: a verdict is about an entry and the whole gallery.",
    )
    require_exact: bool = Field(
        default=False,
        description="Search deeper until each radius is the largest this method can prove.",
    )
    include_vector: bool = Field(default=False, description="Return the query's embedding.")
    include_metadata: bool = Field(default=True, description="Return the metadata of each result.")


class SimilarityOptions(Options):
    """Options of a comparison."""

    epsilon: _Epsilon | None = Field(
        default=None, description="l2 budget in uploaded pixels; gives `interval`."
    )
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="Match if distance <= threshold; gives `match` and `certified_radius`.",
    )


class EmbedOptions(Options):
    """Options of an embedding: none."""


class Wire(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(frozen=True)


class ImageInfo(Wire):
    """One image as it was decoded."""

    sha256: str = Field(description="SHA-256 of the image bytes as sent, hex.")
    width: int = Field(description="Width of the upright image, pixels.")
    height: int = Field(description="Height of the upright image, pixels.")
    format: str = Field(description="Format of the content (not of the file name).")
    embedding_norm: float = Field(description="l2 norm of the raw embedding.")
    gain: float = Field(
        description="Proved upper bound of the resize's l2 operator norm; divides every radius."
    )


class QueryInfo(ImageInfo):
    """The query; `vector` only with include_vector."""

    vector: list[float] | None = Field(
        default=None, description="Raw embedding, float64; only with include_vector."
    )


class IndexInfo(Wire):
    """The index version that answered: one version for the whole answer."""

    name: str
    version: str
    size: int = Field(description="Entries, after equal vectors are collapsed.")


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
    claim: Literal["program", "real-arithmetic"] = Field(
        description="program: radii hold for this service as it runs; real-arithmetic: for the "
        "network in exact arithmetic only."
    )


class SearchResult(Wire):
    """One entry of the answer."""

    rank: int = Field(description="1 is the nearest.")
    id: str
    distance: float = Field(description="1 - cosine of the embeddings, 0 to 2.")
    similarity: float = Field(description="Cosine of the embeddings.")
    certified_radius: Radius = Field(description=PROMISE)
    certified_rms_8bit: Radius = Field(
        description="The radius as a root mean square over the H x W x 3 values, in 8-bit levels: "
        "255 r / sqrt(3 H W)."
    )
    margin: Radius = Field(
        description="Radius in embedding space over the embedding's norm: free of image size and "
        "brightness, for thresholds; never a promise in pixels. null like the radius."
    )
    match: bool | None = Field(
        description="The verdict of the operating point: match_margin >= its threshold. null "
        "without operating_point."
    )
    match_margin: float | None = Field(
        description="The margin that was judged: the result's margin in a search with the "
        "operating point's k, without max_distance. null without operating_point."
    )
    match_radius: float | None = Field(
        description="l2 change of the uploaded pixels below which `match` stays as it is, for an "
        "image that has this entry in its answer; 0: nothing is proved. null without "
        "operating_point."
    )
    exact: bool = Field(
        description="Whether the radius is the largest this method can prove; false: the bound for "
        "entries that were not looked at was the smaller."
    )
    duplicates: list[str] = Field(description="Other ids with the same vector.")
    certified: bool | None = Field(
        default=None, description="epsilon < certified_radius (or null); only with epsilon."
    )
    metadata: dict[str, object] | None = Field(
        default=None, description="As given to the index; absent with include_metadata=false."
    )


class AnswerCertificate(Wire):
    """Radii of the answer as a whole, in the same unit as the results'."""

    top1_radius: Radius = Field(description="Below it the first result stays the first.")
    set_radius: Radius = Field(description="Below it the set of results stays the same.")
    order_radius: Radius = Field(description="Below it the results keep their order.")
    unit: str = Field(description="What a radius measures.")
    norm: Literal["l2"]
    strict: Literal[True] = Field(description="Promises hold for changes strictly smaller.")
    meaning: str = Field(description="The promise in one sentence.")


class SearchTimings(Wire):
    """Wall time of each stage, in milliseconds."""

    queue: float
    decode: float
    embed: float = Field(description="Resize and network.")
    search: float
    certify: float
    total: float = Field(description="From the complete body to the answer.")


class OperatingPoint(Wire):
    """A named threshold on the margin, and how it did on this index when it was calibrated.

    Rates were measured on queries that the threshold was not chosen by.
    """

    name: str
    statistic: Literal["margin"]
    k: int = Field(description="The margin meant is that of a search with this k.")
    threshold: float = Field(description="A result matches if its margin is this or more.")
    target_false_positive_rate: float = Field(description="What the threshold was chosen for.")
    false_positive_rate: float | None = Field(
        description="Share of the queries without an original in the gallery that had any match."
    )
    false_positive_upper: float = Field(
        description="95 % upper bound of that rate, one-sided; copies of one picture count once."
    )
    recall: float | None = Field(
        description="Share of the queries with an original in the gallery whose original matched."
    )
    false_positives: int
    negatives: int = Field(description="Queries without an original, of which false_positives.")
    hits: int
    positives: int = Field(description="Queries with an original, of which hits.")


class KindRates(Wire):
    """Rates of one kind of query, as edited copies of one kind are."""

    recall: float | None
    false_positive_rate: float | None
    hits: int
    positives: int
    false_positives: int
    negatives: int


class CalibratedPoint(OperatingPoint):
    """An operating point with what it was measured on."""

    by_kind: dict[str, KindRates]
    pairs: Literal["synthetic", "labelled"] = Field(
        description="synthetic: edited copies of pictures of the index; labelled: a list of pairs."
    )
    pictures: int = Field(description="Distinct pictures that all queries were made from.")
    queries: int = Field(description="All queries, of both halves.")


class SearchAnswer(Wire):
    """Answer of /v1/search."""

    query: QueryInfo
    index: IndexInfo
    model: ModelInfo
    operating_point: OperatingPoint | None = Field(
        description="What `match` was decided by; null without operating_point."
    )
    results: list[SearchResult]
    certificate: AnswerCertificate
    timings_ms: SearchTimings


class Interval(Wire):
    """Distances that an l2 change of at most epsilon can reach: [low, high], sound, outward."""

    a: tuple[float, float] = Field(description="Only image_a changes.")
    both: tuple[float, float] = Field(description="Each image changes by up to epsilon.")


class PairRadius(Wire):
    """Radius below which match / no match cannot flip, in uploaded pixels, l2; null: it cannot."""

    a: Radius = Field(description="Only image_a changes.")
    b: Radius = Field(description="Only image_b changes.")
    both: Radius = Field(description="Each image changes by less than this.")


class PairTimings(Wire):
    """Wall time of each stage, in milliseconds."""

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


class EmbedTimings(Wire):
    """Wall time of each stage, in milliseconds."""

    queue: float
    decode: float
    embed: float
    total: float


class EmbedAnswer(Wire):
    """Answer of /v1/embed."""

    vector: list[float] = Field(description="Raw embedding (never normalised), float64.")
    norm: float
    fingerprint: str = Field(description="Vectors compare only under equal fingerprints.")
    image: ImageInfo
    model: ModelInfo
    timings_ms: EmbedTimings


class Refusal(Wire):
    """A version that was not taken into service, and why."""

    version: str | None
    code: str
    detail: str


class IndexStatus(Wire):
    """One index of the data directory."""

    name: str
    status: Literal["serving", "refused"] = Field(
        description="serving: a version answers; refused: no version could be opened."
    )
    version: str | None = Field(description="The version that answers.")
    size: int | None
    dim: int | None
    fingerprint: str | None
    created: str | None
    operating_points: list[CalibratedPoint] = Field(
        description="What `operating_point` may name in a search; empty before `calibrate`."
    )
    refused: Refusal | None = Field(
        description="A newer version that was refused; the one above keeps serving."
    )


class IndexList(Wire):
    """Answer of GET /v1/indexes."""

    indexes: list[IndexStatus]


class Item(Wire):
    """Answer of GET /v1/indexes/{name}/item."""

    id: str = Field(description="First id of the entry.")
    duplicates: list[str] = Field(description="Other ids with the same vector.")
    sha256: str = Field(description="SHA-256 of the file's bytes, hex.")
    width: int
    height: int
    format: str
    metadata: dict[str, object]
    index: IndexInfo


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


class Live(Wire):
    """Answer of GET /livez."""

    status: Literal["live"]


class Ready(Wire):
    """Answer of GET /readyz, 200 and 503 alike."""

    status: Literal["ready", "not_ready"]
    reason: (
        Literal["loading_model", "model_refused", "loading_indexes", "no_index", "index_refused"]
        | None
    ) = Field(description="null when ready.")
    detail: str | None
    indexes: list[IndexStatus]


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
