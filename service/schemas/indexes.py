"""What is said of an index: its state, its operating points, its entries."""

from typing import Annotated, Literal

from pydantic import Field

from service.schemas.common import FilterJson, IndexInfo, Options, PlainNumber, Wire

LONGEST_ID = 4096


class OperatingPoint(Wire):
    """A named threshold on a statistic, and how it did on this index when it was calibrated.

    Rates were measured on queries that the threshold was not chosen by.
    """

    name: str
    statistic: Literal["margin", "margin + cosine"] = Field(
        description="What a result is judged by: its margin, or margin + cosine_weight x cosine."
    )
    cosine_weight: float = Field(
        default=0.0, description="What the cosine counts beside the margin; 0 where it does not."
    )
    k: int = Field(description="The margin meant is that of a search with this k.")
    threshold: float = Field(
        description="A result matches if its statistic is this or more and, where the cosine "
        "counts, it is among the first k."
    )
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
    stale: bool = Field(
        default=False,
        description="Whether the index has changed since: the rates are those of the old gallery.",
    )


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
    vectors: int | None = Field(default=None, description="Vectors of all entries.")
    quarantined: int | None = Field(
        default=None, description="Files that the build of this version left out."
    )
    views: list[str] = Field(default=[], description="The views that each picture was embedded in.")
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


class ListOptions(Options):
    """Which items to list: those of a page, and of these the ones that match."""

    limit: Annotated[int, PlainNumber] = Field(
        default=100, ge=1, le=1000, description="How many at most."
    )
    after: str = Field(
        default="",
        max_length=LONGEST_ID,
        description="Items whose ids come after this one, by code point.",
    )
    filter: FilterJson = Field(
        default=None, description="List the items that match alone (docs/filters.md)."
    )


class ListedItem(Wire):
    """One item of an index."""

    id: str
    sha256: str = Field(description="SHA-256 of the file's bytes, hex.")
    width: int
    height: int
    format: str
    metadata: dict[str, object]
    thumbnail: str = Field(
        description="Path of its thumbnail; of another picture under this id it is another path."
    )


class Item(ListedItem):
    """Answer of GET /v1/indexes/{name}/item."""

    duplicates: list[str] = Field(description="Other ids with the same vector.")
    index: IndexInfo


class KeyPage(Wire):
    """Answer of GET /v1/indexes/{name}/metadata."""

    keys: list[str] = Field(
        description="Keys of the metadata, as a filter names them, by byte; none of over 4096."
    )
    next: str | None = Field(
        description="What to ask for as `after` for the next page; null after the last key."
    )
    index: IndexInfo


class HeldValue(Wire):
    """A value that a filter may ask for."""

    value: bool | int | float | str
    items: int = Field(description="How many items hold it; an array holds its elements.")


class ValueList(Wire):
    """Answer of GET /v1/indexes/{name}/metadata/values."""

    key: str
    values: list[HeldValue] = Field(
        description="Booleans, numbers, texts, each in their order; no text of over 4096 bytes."
    )
    complete: bool = Field(description="False: the key has more values than were asked for.")
    index: IndexInfo


class ItemPage(Wire):
    """Answer of GET /v1/indexes/{name}/items and of POST /v1/indexes/{name}/items/list."""

    items: list[ListedItem] = Field(description="By id, in order of code points.")
    next: str | None = Field(
        description="What to ask for as `after` for the next page; null after the last item."
    )
    index: IndexInfo
