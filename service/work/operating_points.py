"""Operating points as the wire says them: which an index has, and which one a request means."""

from typing import Any

from index_builder.search.gallery import GalleryIndex
from index_builder.store.operating_points import Calibration, Measured, OperatingPoint
from model.certificate.match import MatchRule
from service.errors import FieldProblem, UnknownOperatingPointError
from service.schemas import indexes


def find_point(
    index: GalleryIndex, name: str | None
) -> tuple[MatchRule | None, indexes.OperatingPoint | None]:
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
    return calibration.rule(point), indexes.OperatingPoint(**_fields(calibration, point))


def operating_points(index: GalleryIndex) -> list[indexes.CalibratedPoint]:
    """Every operating point of a version, with what it was measured on."""
    calibration = index.manifest.calibration
    if calibration is None:
        return []
    return [
        indexes.CalibratedPoint.model_validate(
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
        "k": calibration.k,
        "threshold": point.threshold,
        "target_false_positive_rate": point.target_false_positive_rate,
        "false_positive_upper": point.false_positive_upper,
        "stale": calibration.stale,
        **_rates(point.total),
    }


def _rates(measured: Measured) -> dict[str, float | int | None]:
    return {name: getattr(measured, name) for name in indexes.KindRates.model_fields}
