"""The tolerances of one answer, in steps between which a worker does other work."""

import time
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8

from index_builder.search.certified import (
    Answer,
    Query,
    SearchQuestion,
    answer_queries,
    search_depths,
)
from index_builder.search.filtered import Searched
from index_builder.search.statement import Statement, state
from model.embedder import Embedder, ImageEmbedding
from model.errors import RetrievalError
from model.pixels.decode import DecodedImage, decoder_versions
from model.pixels.network_input import network_input
from model.pixels.tolerances.measure import Measurement, Tolerance
from model.pixels.tolerances.tables import Table
from service.schemas.common import ImageInfo
from service.schemas.indexes import OperatingPoint
from service.schemas.search import SearchTimings
from service.schemas.tolerance import NOISE, StatementInfo, ToleranceAnswer, ToleranceInfo
from service.work.answers import build_index, build_model, image_fields, rms_8bit, wire_radius
from service.work.encoding import encode
from service.work.jobs import ToleranceJob

# Of one step; others wait for their turn meanwhile.
STEP_S = 0.25

_VERSIONS = ("pillow", "libjpeg", "libjpeg_turbo")


def ask(
    index: Searched,
    embedding: ImageEmbedding,
    question: SearchQuestion,
    check_deadline: Callable[[], None],
) -> Answer:
    """The answer to one query.

    Raises:
        RetrievalError: there is none, or nobody waits for it any more.
    """
    query, depths = Query(embedding, check_deadline), search_depths(index, question.k)
    ((_, answer),) = answer_queries(index, [query], question, depths)
    if isinstance(answer, RetrievalError):
        raise answer
    return answer


def tolerance_steps(
    job: ToleranceJob,
    index: Searched,
    embedder: Embedder,
    question: SearchQuestion,
    *,
    point: OperatingPoint | None,
    check_deadline: Callable[[], None],
) -> Iterator[bytes | None]:
    """Measure, a little a step; the last step gives the answer as JSON, those before it None."""
    (image,), options = job.images, job.options
    assert image.pixels is not None  # noqa: S101 - they were asked for.
    answer = ask(index, image.embedded, question, check_deadline)
    job.watch.lap("search")
    statement = state(answer, index, options.statement, options.id)
    radius = statement.radius_in(answer)

    def radius_of(pixels: UInt8[np.ndarray, "H W 3"], table: Table | None) -> float:
        check_deadline()
        edited = network_input(DecodedImage(pixels, image.format), embedder.input_size, table=table)
        (embedding,) = embedder.embed_inputs([edited])
        return statement.radius_in(ask(index, embedding, question, check_deadline))

    measurement = Measurement(
        image.pixels,
        radius,
        options.edits,
        chain=options.chain,
        radius_of=radius_of,
        cpu_s=job.cpu_s,
    )
    end = time.perf_counter() + job.patience_s
    while not measurement.go_on(STEP_S) and time.perf_counter() < end:
        job.watch.lap("certify")
        yield None
        check_deadline()
    job.watch.lap("certify")
    values = image.pixels.size
    found = measurement.tolerances()
    yield encode(
        ToleranceAnswer(
            query=ImageInfo.model_validate(image_fields(image)),
            index=build_index(index),
            model=build_model(embedder, image.embedded.forward_error),
            operating_point=point,
            statement=describe(statement, radius, index),
            families={
                name: _noise(radius, values) if name == NOISE else _edit(found[name], radius)
                for name in options.names
            },
            passes=measurement.passes,
            cpu_s=round(measurement.spent_s, 3),
            versions={name: v for name, v in decoder_versions().items() if name in _VERSIONS},
            timings_ms=SearchTimings(**job.watch.timings_ms()),
        )
    )


def describe(statement: Statement, radius: float, index: Searched) -> StatementInfo:
    """The statement as answers have it."""
    is_one = statement.kind != "set"
    return StatementInfo(
        kind=statement.kind,
        id=index.entries(list(statement.entries))[0].id if is_one else None,
        match=statement.match,
        radius=wire_radius(radius),
    )


def _edit(found: Tolerance, radius: float) -> ToleranceInfo:
    return ToleranceInfo(
        low=found.low,
        high=found.high,
        unit=found.unit,
        how=found.how,
        complete=found.is_complete,
        radius=wire_radius(radius),
        passes=found.passes,
        reason=found.reason,
    )


def _noise(radius: float, values: int) -> ToleranceInfo:
    """The radius itself; `to` is not included: a strict bound."""
    most = wire_radius(radius)
    return ToleranceInfo(
        low=None if radius == 0.0 else 0.0,
        high=None if most is None or most == 0.0 else float(rms_8bit(most, values)),
        unit="8-bit levels rms",
        how="exact",
        complete=True,
        radius=most,
        passes=0,
        reason=None,
    )
