"""What a search is asked and answers."""

from typing import Annotated, Final, Literal

from pydantic import Field

from service.schemas.common import (
    CACHE_TIME,
    DEFAULT_INDEX,
    LONGEST_ID,
    Epsilon,
    FilterJson,
    IncludeInput,
    IndexInfo,
    ModelInfo,
    Options,
    PlainNumber,
    Radius,
    SeenImage,
    StageTimings,
    Wire,
)
from service.schemas.indexes import OperatingPoint

# A member more of an answer is a new name here and in `Audit.record`, once from one release to the
# next; the one before goes into OLD_RECORDS, and all there get the member, or each answer recorded
# under them would differ.
RECORD: Final = "lipsim-audit-3"
# Of earlier releases, and the members that those did not know.
_BEFORE_THE_COSINE = frozenset({"match_statistic", "cosine_weight", "filter", "thumbnail"})
OLD_RECORDS: Final = {
    "lipsim-audit-1": _BEFORE_THE_COSINE | {"metric", "items", "vectors", "view", "trim"},
    "lipsim-audit-2": _BEFORE_THE_COSINE,
}

PROMISE = (
    "Let x be the decoded image sent (upright RGB, H x W x 3, values / 255) and x' any other "
    "decoded image of the same height and width with ||x' - x||_2 strictly less than this number. "
    "Sent with the same k, max_distance and filter and answered by the same index version, model "
    "fingerprint and decode policy, x' has this entry in its answer too. 0: nothing is proved. "
    "null: no other entry can displace it. Not measured: file bytes, compression, rounding when "
    "saving, crops, rotations, resizing. Nothing is promised about rank, score, other index "
    "versions, or requests that are refused. With arithmetic float32 (claim real-arithmetic) this "
    "holds for the network in real arithmetic, not for the program."
)


class AskedOptions(Options):
    """What a search is about: its index, how many results, and what counts."""

    k: Annotated[int, PlainNumber] = Field(
        default=10, ge=1, description="How many results at most."
    )
    index: str = Field(default=DEFAULT_INDEX, description="Name of the index.")
    max_distance: (
        Annotated[
            float,
            Field(ge=0, allow_inf_nan=False, description="Largest distance kept."),
            PlainNumber,
        ]
        | None
    ) = Field(
        default=None,
        description="Leave out results farther than this (1 - cosine, 0 to 2). The radii then "
        "answer for the threshold too.",
    )
    filter: FilterJson = Field(
        default=None,
        description="Search among the items that match alone: must, should and must_not of clauses "
        "on metadata and ids (docs/filters.md). The answer and its radii are those of an index of "
        "these items; `match` stays about the whole gallery. As JSON text in a form or query.",
    )
    operating_point: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="Name of one of the index's operating points, like strict or balanced (see "
        "/v1/indexes/{name}); each result then says whether it is a match. k and max_distance do "
        "not matter to that: a verdict is about an entry and the whole gallery.",
    )


class SearchOptions(AskedOptions):
    """Options of a search: form fields in multipart, members in JSON, query parameters with raw."""

    epsilon: Epsilon | None = Field(
        default=None,
        description="l2 budget in uploaded pixels; each result then says whether it is certified "
        "against it (epsilon < certified_radius; a null radius is certified).",
    )
    require_exact: bool = Field(
        default=False,
        description="Search deeper until each radius is the largest this method can prove.",
    )
    trim: bool = Field(
        default=False,
        description="Search without uniform borders (letterboxes, frames, bars) too: the answer "
        "gains `trimmed`, and is otherwise as without it.",
    )
    include_vector: bool = Field(default=False, description="Return the query's embedding.")
    include_metadata: bool = Field(default=True, description="Return the metadata of each result.")
    include_input: IncludeInput = False
    include_audit: bool = Field(
        default=False,
        description="Return what `python -m service.replay` needs to repeat the answer offline.",
    )


class SingleSearchOptions(SearchOptions):
    """Those of a search with one query, which may be an item of the index in place of an image."""

    item: Annotated[str, Field(min_length=1, max_length=LONGEST_ID)] | None = Field(
        default=None,
        description="Id of an item of the index, in place of the image: its stored vector, that of "
        "the whole picture, is the query. There are no pixels then: every radius is 0.",
    )
    include_self: bool = Field(
        default=False,
        description="Keep the entry of `item` in the answer and in the margins of the others.",
    )


class QueryInfo(SeenImage):
    """The query; `vector` only with include_vector."""

    vector: list[float] | None = Field(
        default=None, description="Raw embedding, float64; only with include_vector."
    )


class ItemQuery(Wire):
    """The query where it is an item of the index."""

    item: str = Field(description="Its id, as it was asked for.")
    sha256: str = Field(description="SHA-256 of its file's bytes, hex.")
    vector: list[float] | None = Field(
        default=None, description="Its stored vector, of norm 1; only with include_vector."
    )


class SearchResult(Wire):
    """One entry of the answer."""

    rank: int = Field(description="1 is the nearest.")
    id: str
    view: str = Field(
        default="whole",
        description="The view of the entry that is nearest to the query; nothing is proved of it.",
    )
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
        description="The verdict of the operating point: match_statistic >= its threshold and, "
        "where the cosine counts, the result is among the first k of the point. null without "
        "operating_point."
    )
    match_margin: float | None = Field(
        description="The result's margin in a search with the operating point's k, without "
        "max_distance. null without operating_point."
    )
    match_statistic: float | None = Field(
        default=None,
        description="The value that was judged, the operating point's statistic: match_margin, or "
        "margin + cosine_weight x cosine, for entries of several views taken view by view. null "
        "without operating_point.",
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
    thumbnail: str = Field(
        default="",
        description="Path of its thumbnail; of another picture under this id it is another path.",
    )
    certified: bool | None = Field(
        default=None, description="epsilon < certified_radius (or null); only with epsilon."
    )
    metadata: dict[str, object] | None = Field(
        default=None, description="As given to the index; absent with include_metadata=false."
    )


class AnswerCertificate(Wire):
    """Radii of the answer as a whole, in the same unit as the results'."""

    top1_radius: Radius = Field(
        description="Below it the first result stays the first; null too for an empty answer, of "
        "which `set_radius` says how long it stays empty."
    )
    set_radius: Radius = Field(description="Below it the set of results stays the same.")
    order_radius: Radius = Field(description="Below it the results keep their order.")
    unit: str = Field(description="What a radius measures.")
    norm: Literal["l2"]
    strict: Literal[True] = Field(description="Promises hold for changes strictly smaller.")
    meaning: str = Field(description="The promise in one sentence.")


class TrimBox(Wire):
    """A part of the upright image, in pixels: what is left without its uniform borders."""

    left: int
    top: int
    right: int = Field(description="The first column outside.")
    bottom: int = Field(description="The first row outside.")


class TrimmedAnswer(Wire):
    """What the image finds without its uniform borders, beside what it finds with them."""

    box: TrimBox
    trim_radius: Radius = Field(
        description="l2 change of the uploaded pixels below which the box stays; it limits every "
        "radius in here. null: no change of pixels can move it."
    )
    results: list[SearchResult] | None = Field(
        description="As in the answer, of the image inside the box; radii are in uploaded pixels "
        "all the same. null where the box is the whole image: the answer itself says all."
    )
    certificate: AnswerCertificate | None = Field(description="Of these results; null with them.")


class SearchTimings(StageTimings):
    """Wall time of each stage, in milliseconds."""

    cache: float = Field(description=CACHE_TIME)
    queue: float
    decode: float
    embed: float = Field(description="Resize and network.")
    search: float
    certify: float
    total: float = Field(description="From the complete body to the answer.")


class AuditedOptions(Wire):
    """What was asked, with every default filled in."""

    k: int
    max_distance: float | None
    require_exact: bool
    operating_point: str | None
    epsilon: float | None
    trim: bool = False
    filter: dict[str, object] | None = None
    include_vector: bool
    include_metadata: bool


class Audit(Wire):
    """What, beside the answer, `python -m service.replay` holds its own work against."""

    record: Literal["lipsim-audit-3", "lipsim-audit-2", "lipsim-audit-1"]
    pixels_sha256: str = Field(
        description="SHA-256 of the decoded upright RGB pixels, H x W x 3 bytes, row by row, hex: "
        "what every radius of this answer is about."
    )
    decode_policy: str = Field(description="Version of the rules from bytes to pixels.")
    decoders: dict[str, str] = Field(description="Versions of the libraries that decoded.")
    index_seal: str = Field(description="SHA-256 that the index version's manifest is sealed with.")
    options: AuditedOptions


class SearchAnswer(Wire):
    """Answer of /v1/search."""

    query: QueryInfo | ItemQuery
    index: IndexInfo
    model: ModelInfo
    operating_point: OperatingPoint | None = Field(
        description="What `match` was decided by; null without operating_point."
    )
    results: list[SearchResult]
    certificate: AnswerCertificate
    trimmed: TrimmedAnswer | None = Field(default=None, description="Only with trim.")
    timings_ms: SearchTimings
    audit: Audit | None = Field(default=None, description="Only with include_audit.")
