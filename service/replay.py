"""`python -m service.replay`: repeat recorded answers offline, and say whether they hold.

A record is the JSON answer to a search with `include_audit`. The image is decoded, embedded and
searched again with the same index version and model; nothing of the record is trusted but what it
was asked. Two machines, or two batches, may sum in another order: embeddings lie within E of the
real-arithmetic one each, so a radius may differ by 2 E / (L gain), and an entry without a radius
may be another.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from index_builder.certified_search import Answer, certified_search
from index_builder.gallery_index import GalleryIndex
from model.embedder import Embedder, ImageEmbedding
from model.errors import RetrievalError
from model.image import DecodedImage, DecodeLimits, decode_image, decoder_versions
from service.errors import ReplayError
from service.verdicts import find_point
from service.wire import wire_radius

RECORD = "lipsim-audit-1"
_ROUNDING = 1e-12
"""Relative, of a handful of float64 operations on the way from an embedding to a radius."""


@dataclass(frozen=True)
class Replayed:
    """One record, repeated.

    Attributes:
        image_sha256: which image it is about.
        differences: what does not hold, in words; empty if all does.
        largest_change: of a radius that was compared, in uploaded pixels.
        tolerance: what it could have been.
    """

    image_sha256: str
    differences: tuple[str, ...]
    largest_change: float
    tolerance: float


class Replayer:
    """Repeats records of one data directory with one model."""

    def __init__(self, embedder: Embedder, data_dir: Path, limits: DecodeLimits) -> None:
        """With the checkpoint that the records name, and the directory their indexes are in."""
        self._embedder = embedder
        self._data_dir = data_dir
        self._limits = limits
        self._indexes: dict[tuple[str, str], GalleryIndex] = {}

    def replay(self, record: Mapping[str, Any], data: bytes) -> Replayed:
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
            audit, asked = record["audit"], record["audit"]["options"]
            self._check_model(record, audit)
            image = self._decode(record, audit, data)
            index = self._index(record, audit)
            rule, _ = find_point(index, asked["operating_point"])
            query = self._embedder.embed_image(image)
            (answer,) = certified_search(
                index,
                [query],
                lipschitz_bound=self._embedder.lipschitz_bound,
                k=asked["k"],
                max_distance=asked["max_distance"],
                require_exact=True,
                rule=rule,
            )
            return _compare(record, answer, index, query, self._embedder.lipschitz_bound)
        except (KeyError, TypeError, ValueError) as error:
            raise ReplayError(
                f"this is no answer to a search with include_audit ({error!r})"
            ) from error

    def close(self) -> None:
        """Close every index that was opened."""
        for index in self._indexes.values():
            index.close()

    def _check_model(self, record: Mapping[str, Any], audit: Mapping[str, Any]) -> None:
        if audit["record"] != RECORD:
            raise ReplayError(f"wanted a record {RECORD!r}, got {audit['record']!r}")
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
        image = decode_image(data, self._limits)
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
        if index.manifest.seal() != audit["index_seal"]:
            raise ReplayError(f"index {key[0]!r} {key[1]} is another version of that name")
        return index


def _compare(
    record: Mapping[str, Any],
    answer: Answer,
    index: GalleryIndex,
    query: ImageEmbedding,
    lipschitz_bound: float,
) -> Replayed:
    tolerance = 2.0 * query.forward_error / (lipschitz_bound * query.gain)
    changes = Changes(tolerance)
    proof = answer.certificate
    entries = index.entries(answer.candidates.rows[proof.positions].tolist())
    found = {entry.id: place for place, entry in enumerate(entries)}
    for result in record["results"]:
        place = found.get(result["id"])
        if place is None:
            if result["certified_radius"] != 0.0:
                changes.say(f"{result['id']} had a radius and is not in the answer any more")
            continue
        radius = wire_radius(float(proof.certified_radii[place]))
        if result["exact"]:
            changes.same(f"certified_radius of {result['id']}", result["certified_radius"], radius)
        else:
            changes.at_most(
                f"certified_radius of {result['id']}", result["certified_radius"], radius
            )
        if answer.verdicts is not None and (result["match_radius"] or 1.0) > tolerance:
            matches = bool(answer.verdicts.matches[place])
            if matches != result["match"]:
                changes.say(f"match of {result['id']} was {result['match']} and is {matches}")
    for name in ("top1_radius", "set_radius"):
        changes.at_most(name, record["certificate"][name], wire_radius(getattr(proof, name)))
    return Replayed(record["query"]["sha256"], tuple(changes.words), changes.largest, tolerance)


class Changes:
    """Radii then and now, and what of them does not agree."""

    def __init__(self, tolerance: float) -> None:
        """With the most that a radius may differ by, in uploaded pixels."""
        self.words: list[str] = []
        self.largest = 0.0
        self._tolerance = tolerance

    def say(self, words: str) -> None:
        """Note what does not hold."""
        self.words.append(words)

    def same(self, name: str, then: float | None, now: float | None) -> None:
        """The two must agree, but for rounding."""
        if then is None or now is None:
            if then is not now:
                self.say(f"{name} was {then} and is {now}")
            return
        self.largest = max(self.largest, abs(then - now))
        if abs(then - now) > self._tolerance + _ROUNDING * then:
            self.say(f"{name} was {then!r} and is {now!r}")

    def at_most(self, name: str, then: float | None, now: float | None) -> None:
        """What was claimed must be proved now too; more may be, since now the search was deeper."""
        if now is None:
            return
        if then is None or then - now > self._tolerance + _ROUNDING * now:
            self.say(f"{name} was {then!r}, and {now!r} is all that is proved")


def main(
    records: Annotated[Path, typer.Argument(help="A JSON answer, or JSON Lines of many.")],
    images: Annotated[
        Path, typer.Argument(help="The image, or a folder that holds it; found by its SHA-256.")
    ],
    data_dir: Annotated[Path, typer.Option(help="Where the indexes are.")] = Path("data"),
    checkpoint: Annotated[Path | None, typer.Option(help="Weight file; default: ours.")] = None,
) -> None:
    """Repeat recorded answers offline; exit code 1 if one does not hold, 2 if one cannot be."""
    try:
        replayer = Replayer(Embedder.load(checkpoint), data_dir, DecodeLimits())
        files = _files_by_hash(images)
        outcomes = list(_replay_all(replayer, _read_records(records), files))
    except (RetrievalError, OSError) as error:
        typer.echo(f"cannot replay: {error}", err=True)
        raise typer.Exit(2) from error
    failed = sum(outcome is None or bool(outcome.differences) for outcome in outcomes)
    changes = [outcome.largest_change for outcome in outcomes if outcome is not None]
    typer.echo(
        f"{len(outcomes)} answers: {len(outcomes) - failed} hold, {failed} do not; "
        f"largest change of a radius {max(changes, default=0.0):.3g}"
    )
    raise typer.Exit(2 if None in outcomes else 1 if failed else 0)


def _replay_all(
    replayer: Replayer, records: Iterable[Mapping[str, Any]], files: Mapping[str, Path]
) -> Iterator[Replayed | None]:
    for number, record in enumerate(records, 1):
        try:
            sha256 = str(record["query"]["sha256"])
            if sha256 not in files:
                raise ReplayError(f"no file here has the SHA-256 {sha256}")
            outcome = replayer.replay(record, files[sha256].read_bytes())
        except (RetrievalError, KeyError, TypeError) as error:
            typer.echo(f"record {number}: cannot be replayed: {error}")
            yield None
            continue
        for words in outcome.differences:
            typer.echo(f"record {number} (image {outcome.image_sha256[:12]}): {words}")
        yield outcome


def _read_records(path: Path) -> list[Mapping[str, Any]]:
    text = path.read_text(encoding="utf-8")
    try:
        try:
            records = [json.loads(text)]
        except json.JSONDecodeError:
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise ReplayError(f"{path} is neither JSON nor JSON Lines: {error}") from error
    if not records:
        raise ReplayError(f"{path} holds no record")
    return records


def _files_by_hash(path: Path) -> dict[str, Path]:
    paths = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]
    if not paths:
        raise ReplayError(f"{path} holds no file")
    return {hashlib.sha256(p.read_bytes()).hexdigest(): p for p in paths}


if __name__ == "__main__":
    sys.exit(typer.run(main))
