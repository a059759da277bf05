"""What a search has found and proved, as the schemas of an answer have it."""

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from jaxtyping import Float64
from PIL import Image
from pydantic import TypeAdapter

from index_builder.filters.language import parse_filter
from index_builder.search.certified import Answer
from index_builder.search.filtered import FilteredIndex, Searched
from index_builder.search.gallery import GalleryIndex
from index_builder.store.items import Item
from index_builder.store.operating_points import Calibration, Measured, OperatingPoint
from model.certificate.match import MatchRule
from model.certificate.search import SearchCertificate
from model.embedder import Claim, Embedder
from model.errors import CertificateError
from model.pixels.decode import decoder_versions
from service.decoding.query_image import QueryImage
from service.errors import FieldProblem, UnknownOperatingPointError
from service.schemas import indexes as schemas
from service.schemas.common import UNIT, IndexInfo, ModelInfo
from service.schemas.embed import EmbedOptions
from service.schemas.search import (
    RECORD,
    AnswerCertificate,
    Audit,
    AuditedOptions,
    ItemQuery,
    QueryInfo,
    SearchOptions,
    SearchResult,
    TrimBox,
    TrimmedAnswer,
)

AMONG = (
    " All of this is said among the items that match the filter, as of an index of these alone; "
    "but match and match_radius are about the whole index."
)

MEANING: dict[Claim | Literal["item"], str] = {
    "program": "Any image of the same size whose decoded pixels differ from the query's by less "
    "than a radius (l2) gets, from this program, index version and model, an answer that agrees in "
    "what that radius is about.",
    "real-arithmetic": "Any image of the same size whose decoded pixels differ from the query's by "
    "less than a radius (l2) gets, from this index version and this network in real arithmetic, an "
    "answer that agrees in what that radius is about; float32 rounding is not covered.",
    "item": "The query is an item of the index, by its stored vector: there are no pixels that "
    "could change, so every radius is 0 and nothing is proved.",
}


# Ids that stand in an address as they are; most do, and finding out by `quote` takes long.
_PLAIN = re.compile(r"[\w.~/-]*", re.ASCII)
_RESULTS = TypeAdapter(list[SearchResult])


def image_fields(image: QueryImage) -> dict[str, object]:
    """What every answer says of an image, for its schema."""
    embedding = image.embedded
    return {
        "sha256": image.sha256,
        "width": embedding.width,
        "height": embedding.height,
        "format": image.format,
        "truncated": image.is_truncated,
        "embedding_norm": image.norm,
        "gain": embedding.gain,
    }


def input_field(image: QueryImage, options: SearchOptions | EmbedOptions) -> dict[str, str]:
    """What the network saw of an image, as its schema has it; nothing where it is not asked for."""
    if not options.include_input or image.input is None:
        return {}
    levels = np.rint(255.0 * image.input.values.clip(0.0, 1.0)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels.transpose(1, 2, 0)).save(file, "PNG")
    return {"input_png": base64.b64encode(file.getvalue()).decode()}


def build_index(index: Searched) -> IndexInfo:
    """The version that answered and, of a search with a filter, how much of it matches."""
    matching = {}
    if isinstance(index, FilteredIndex):
        matching = {"matching": index.size, "matching_ids": index.matching_ids}
        index = index.gallery
    return IndexInfo(
        name=index.name,
        version=index.version,
        size=index.size,
        items=index.size,
        vectors=index.vector_count,
        **matching,
    )


def build_model(embedder: Embedder, forward_error: float) -> ModelInfo:
    """The model as an answer names it, with the error bound of that answer's images."""
    return ModelInfo(
        name=embedder.name,
        fingerprint=embedder.fingerprint,
        lipschitz_bound=embedder.lipschitz_bound,
        forward_error=forward_error,
        arithmetic=embedder.arithmetic,
        metric=embedder.metric,
        claim=embedder.claim,
    )


def build_audit(
    options: SearchOptions, k: int, pixels_sha256: str, embedder: Embedder, index: GalleryIndex
) -> Audit:
    """What it takes to repeat an answer: the pixels, what decoded them, the index, the question.

    `k` is as it was settled, which `options` may leave to the deployment.
    """
    asked = options.model_dump(include=AuditedOptions.model_fields.keys() - {"k"})
    if options.filter is not None:
        asked["filter"] = json.loads(parse_filter(options.filter).text)
    return Audit(
        record=RECORD,
        pixels_sha256=pixels_sha256,
        decode_policy=embedder.decode_policy,
        decoders=decoder_versions(),
        index_seal=index.manifest.seal,
        options=AuditedOptions(**asked, k=k),
    )


def build_query(
    query: QueryImage, options: SearchOptions, item: str | None = None
) -> QueryInfo | ItemQuery:
    """The query as the answer shows it; `item` is its id, if it is one of the index."""
    shown = {"vector": query.embedded.vector.tolist()} if options.include_vector else {}
    if item is not None:
        return ItemQuery(item=item, sha256=query.sha256, **shown)
    return QueryInfo.model_validate({**image_fields(query), **shown, **input_field(query, options)})


def build_results(
    answer: Answer, index: Searched, query: QueryImage, options: SearchOptions
) -> list[SearchResult]:
    proof = answer.certificate
    entries = index.entries(answer.candidates.numbers[proof.positions])
    radii = _wire_radii(proof.certified_radii)
    rms = rms_8bit(proof.certified_radii, 3 * query.embedded.height * query.embedded.width)
    columns: dict[str, Sequence[object]] = {
        "rank": range(1, len(entries) + 1),
        "id": [entry.id for entry in entries],
        "view": index.views(answer.candidates.rows[proof.positions]),
        "distance": proof.distances.tolist(),
        "similarity": proof.similarities.tolist(),
        "certified_radius": radii,
        "certified_rms_8bit": [
            None if radius is None else one for radius, one in zip(radii, rms.tolist(), strict=True)
        ],
        "margin": _wire_radii(proof.margins),
        **_verdicts(proof),
        "exact": proof.exact.tolist(),
        "duplicates": [entry.duplicates for entry in entries],
        "thumbnail": [thumbnail_path(index.name, entry.item) for entry in entries],
    }
    if options.epsilon is not None:
        columns["certified"] = [radius is None or options.epsilon < radius for radius in radii]
    if options.include_metadata:
        columns["metadata"] = [entry.metadata for entry in entries]
    rows = zip(*columns.values(), strict=True)
    return _RESULTS.validate_python([dict(zip(columns, row, strict=True)) for row in rows])


def thumbnail_path(index: str, item: Item) -> str:
    """Where the thumbnail of an item is: as the content is named, it may be kept for good."""
    item_id = item.id if _PLAIN.fullmatch(item.id) else quote(item.id)
    return f"/v1/indexes/{index}/thumbnail?id={item_id}&content={item.content_sha256}"


def _verdicts(proof: SearchCertificate) -> dict[str, list[Any]]:
    verdicts = proof.verdicts
    if verdicts is None:
        nothing = [None] * len(proof.positions)
        names = ("match", "match_margin", "match_statistic", "match_radius")
        return dict.fromkeys(names, nothing)
    return {
        "match": verdicts.matches.tolist(),
        "match_margin": verdicts.margins.tolist(),
        "match_statistic": verdicts.statistics.tolist(),
        "match_radius": _wire_radii(verdicts.radii),
    }


def build_certificate(
    answer: Answer, index: Searched, claim: Claim | Literal["item"]
) -> AnswerCertificate:
    proof = answer.certificate
    return AnswerCertificate(
        top1_radius=wire_radius(proof.top1_radius),
        set_radius=wire_radius(proof.set_radius),
        order_radius=wire_radius(proof.order_radius),
        unit=UNIT,
        norm="l2",
        strict=True,
        meaning=MEANING[claim] + (AMONG if isinstance(index, FilteredIndex) else ""),
    )


def build_trimmed(
    query: QueryImage,
    answer: Answer | None,
    index: Searched,
    options: SearchOptions,
    claim: Claim,
) -> TrimmedAnswer:
    """The second answer of an image that was looked at for borders; `answer` is its crop's.

    No radius is larger than that of the box: beyond it, another crop may be what is searched.
    """
    assert query.trim is not None  # noqa: S101 - it was asked for.
    box, radius = query.trim
    results = certificate = None
    if query.crop is not None and answer is not None:
        answer = replace(answer, certificate=answer.certificate.within(radius))
        results = build_results(answer, index, query.crop, options)
        certificate = build_certificate(answer, index, claim)
    return TrimmedAnswer(
        box=TrimBox(**box._asdict()),
        trim_radius=wire_radius(radius),
        results=results,
        certificate=certificate,
    )


def rms_8bit(radius: float | Float64[np.ndarray, "..."], values: int) -> Float64[np.ndarray, "..."]:
    """An l2 radius over [0, 1] values as 8-bit levels per value, rounded down."""
    with np.errstate(over="ignore"):  # Of what a record claims, which may be any number.
        below = np.nextafter(255.0 * np.asarray(radius) / math.sqrt(values), 0.0)
    return np.asarray(np.maximum(0.0, below * (1.0 - 1e-15)))


def _wire_radii(radii: Float64[np.ndarray, " K"]) -> list[float | None]:
    """`wire_radius` of each."""
    wrong = radii[~(radii >= 0.0)]
    if wrong.size:
        wire_radius(float(wrong[0]))
    return [None if radius == math.inf else radius for radius in radii.tolist()]


def wire_radius(radius: float | None) -> float | None:
    """A radius as JSON has it: infinity, "nothing can change it", is null.

    Raises:
        CertificateError: it is NaN or negative, which no certificate gives.
    """
    if radius is None or radius == math.inf:
        return None
    if math.isnan(radius) or radius < 0.0:
        raise CertificateError(f"a radius must be >= 0, got {radius}")
    return radius


def find_point(
    index: GalleryIndex, name: str | None
) -> tuple[MatchRule | None, schemas.OperatingPoint | None]:
    """The rule and the description of an operating point; nothing where none is asked for.

    Raises:
        UnknownOperatingPointError: this version of the index has none of that name.
    """
    if name is None:
        return None, None
    calibration = index.manifest.calibration
    point = calibration.point(name) if calibration is not None else None
    if calibration is None or point is None:
        known = ", ".join(calibration.names) if calibration is not None else ""
        has = f"knows {known}" if known else "has none: `python -m index_builder calibrate`"
        message = f"index {index.name!r} {index.version} {has}; got {name!r}"
        raise UnknownOperatingPointError([FieldProblem("operating_point", message)])
    return calibration.rule(point), schemas.OperatingPoint(**_fields(calibration, point))


def build_operating_points(index: GalleryIndex) -> list[schemas.CalibratedPoint]:
    calibration = index.manifest.calibration
    if calibration is None:
        return []
    return [
        schemas.CalibratedPoint.model_validate(
            {
                **_fields(calibration, point),
                "by_kind": {kind: _rates(one) for kind, one in point.measured.items()},
                "pairs": calibration.pairs,
                "pictures": calibration.pictures,
                "queries": calibration.queries,
            }
        )
        for point in calibration.operating_points
    ]


def _fields(calibration: Calibration, point: OperatingPoint) -> dict[str, Any]:
    return {
        "name": point.name,
        "statistic": calibration.statistic,
        "cosine_weight": calibration.cosine_weight,
        "k": calibration.k,
        "threshold": point.threshold,
        "target_false_positive_rate": point.target_false_positive_rate,
        "false_positive_upper": point.false_positive_upper,
        "stale": calibration.stale,
        **_rates(point.total),
    }


def _rates(measured: Measured) -> dict[str, float | int | None]:
    return {name: getattr(measured, name) for name in schemas.KindRates.model_fields}
