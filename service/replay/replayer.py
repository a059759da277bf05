"""One record repeated: the image decoded, embedded and searched again, and the answers compared.

Nothing of the record is trusted but what it was asked. Two machines, or two batches, may sum in
another order; what that may change of an answer is proved, and nothing else may differ.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from index_builder.errors import FilterError
from index_builder.search.gallery import GalleryIndex
from model.embedder import Embedder
from model.pixels.decode import DecodedImage, DecodeLimits, decode_image, decoder_versions
from model.pixels.network_input import network_input
from model.pixels.trim import find_trim
from service.decoding.query_image import QueryImage
from service.errors import ReplayError
from service.replay.compare import compare_answers
from service.replay.recomputation import Recomputation
from service.schemas.search import OLD_RECORDS, RECORD, SearchAnswer, SearchOptions

_ODD = (KeyError, TypeError, ValueError, OverflowError, RecursionError, FilterError)
_NO_RECORD = "this is no answer to a search with include_audit"


@dataclass(frozen=True)
class ReplayResult:
    """One record, repeated.

    Attributes:
        image_sha256: which image it is about.
        differences: what does not hold, in words; empty if all does.
        largest_change: of a radius that was compared, in uploaded pixels.
        tolerance: what it could have been.
        unchecked: members that nothing here can be held against.
    """

    image_sha256: str
    differences: tuple[str, ...]
    largest_change: float
    tolerance: float
    unchecked: tuple[str, ...]


class Replayer:
    """Repeats records of one data directory with one model."""

    def __init__(self, embedder: Embedder, data_dir: Path, limits: DecodeLimits) -> None:
        self._embedder = embedder
        self._data_dir = data_dir
        self._limits = limits
        self._indexes: dict[tuple[str, str], GalleryIndex] = {}

    def replay(self, record: Mapping[str, Any], data: bytes) -> ReplayResult:
        """Repeat one answer.

        Args:
            record: the answer, as JSON gave it.
            data: the image file that was sent.

        Raises:
            ReplayError: it is no record of ours, or the image, model, or index version that it
                names is not what is here.
            ImageError: the image cannot be decoded any more.
            GalleryIndexError: the index version cannot be opened.
        """
        try:
            answer = read_answer(record)
            return self._repeat(answer, record, data)
        except _ODD as error:
            raise ReplayError(f"{_NO_RECORD} ({_first_words(error)})") from error

    def close(self) -> None:
        for index in self._indexes.values():
            index.close()

    def _repeat(self, answer: SearchAnswer, record: Mapping[str, Any], data: bytes) -> ReplayResult:
        audit = record["audit"]
        self._check_model(record)
        image = self._decode(record, audit, data)
        query = QueryImage(
            sha256=answer.query.sha256,
            format=image.format,
            input=None,
            embedding=self._embedder.embed_image(image),
            pixels_sha256=audit["pixels_sha256"],
            is_truncated=image.is_truncated,
        )
        options = SearchOptions.model_validate({**audit["options"], "include_audit": True})
        if options.trim:
            self._trim(query, image)
        recomputation = Recomputation(self._embedder, self._index(record, audit), query, options)
        comparison = compare_answers(answer, record, recomputation)
        has_changed = audit["decoders"] != decoder_versions()
        return ReplayResult(
            image_sha256=answer.query.sha256,
            differences=tuple(comparison.words),
            largest_change=max(comparison.changes, default=0.0),
            tolerance=comparison.tolerances.radius,
            unchecked=("timings_ms", *(["audit.decoders"] if has_changed else [])),
        )

    def _trim(self, query: QueryImage, image: DecodedImage) -> None:
        query.trim = find_trim(image.pixels)
        box = query.trim.box
        if box != (0, 0, image.width, image.height):
            inside = network_input(image, self._embedder.input_size, box)
            (embedding,) = self._embedder.embed_inputs([inside])
            query.crop = QueryImage(image.format, None, embedding=embedding)

    def _check_model(self, record: Mapping[str, Any]) -> None:
        wanted, here = record["model"]["fingerprint"], self._embedder.fingerprint
        if wanted != here:
            raise ReplayError(f"the answer is of model {wanted[:12]}; this one is {here[:12]}")
        if record["model"]["arithmetic"] != self._embedder.arithmetic:
            raise ReplayError(f"the answer was computed in {record['model']['arithmetic']}")

    def _decode(
        self, record: Mapping[str, Any], audit: Mapping[str, Any], data: bytes
    ) -> DecodedImage:
        wanted, here = record["query"]["sha256"], hashlib.sha256(data).hexdigest()
        if wanted != here:
            raise ReplayError(f"the answer is about file {wanted[:12]}; this one is {here[:12]}")
        # A record says whether its file was accepted though it ended early.
        is_truncated = record["query"].get("truncated") is True
        image = decode_image(data, replace(self._limits, accept_truncated=is_truncated))
        if hashlib.sha256(image.pixels.tobytes()).hexdigest() != audit["pixels_sha256"]:
            changed = {
                name: f"{version} then, {decoder_versions().get(name, 'none')} now"
                for name, version in audit["decoders"].items()
                if decoder_versions().get(name) != version
            }
            raise ReplayError(
                f"the file decodes to other pixels than it did; decoders that changed: "
                f"{changed or 'none'}; policy {audit['decode_policy']} then, "
                f"{self._embedder.decode_policy} now"
            )
        return image

    def _index(self, record: Mapping[str, Any], audit: Mapping[str, Any]) -> GalleryIndex:
        key = (record["index"]["name"], record["index"]["version"])
        if key not in self._indexes:
            self._indexes[key] = GalleryIndex.open(
                self._data_dir,
                key[0],
                version=key[1],
                embedder_fingerprint=self._embedder.fingerprint,
                decode_policy=self._embedder.decode_policy,
            )
        index = self._indexes[key]
        if index.manifest.seal != audit["index_seal"]:
            raise ReplayError(f"index {key[0]!r} {key[1]} is another version of that name")
        return index


def read_answer(record: object) -> SearchAnswer:
    """The answer of a record, every member of the right type.

    Raises:
        ReplayError: it is no answer with a record, or of another version.
    """
    audit: Any = record.get("audit") if isinstance(record, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(audit, dict):
        raise ReplayError(_NO_RECORD)
    if "record" in audit and audit["record"] not in (RECORD, *OLD_RECORDS):
        raise ReplayError(f"wanted a record {RECORD!r}, got {audit['record']!r:.80}")
    try:
        return SearchAnswer.model_validate(record, strict=True)
    except (ValidationError, OverflowError, RecursionError) as error:
        raise ReplayError(f"{_NO_RECORD} ({_first_words(error)})") from error


def _first_words(error: Exception) -> str:
    """What is wrong, and where; not the value, which may be long."""
    if not isinstance(error, ValidationError):
        return f"{error!r:.200}"
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
