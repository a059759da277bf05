"""Queries whose answer is known: edited copies of pictures in the gallery, or a list of pairs.

A query belongs to a group, and groups are never split between the half that thresholds are chosen
on and the half that they are measured on: all copies of one picture are one group. What makes two
files one picture is in `index_builder.calibration.query_groups`.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from index_builder.build.embedding import EmbedderLike
from index_builder.calibration.query_groups import pixels_name
from index_builder.errors import ItemNotFoundError, SourceError
from index_builder.search.gallery import GalleryIndex
from index_builder.sources.base import Problem, Source, path_inside, read_inside
from index_builder.sources.lists import csv_rows, named_by_list, path_problem
from index_builder.store.operating_points import PairsKind, is_kind
from model.cli.progress import Progress
from model.data.edits import EDIT_KINDS, edit
from model.errors import ImageError
from model.pixels.decode import DecodeLimits, decode_image
from model.pixels.resize import resize_operator

# Edited copies are made at this size at most, as the evaluation's are: what a copy goes through
# does not depend on the camera, and a thousand edits of full photographs take an hour.
EDITED_SIDE = 256
_BATCH = 16
_MAX_THREADS = 8
_PLAIN_KIND = "pair"


@dataclass(frozen=True)
class Label:
    """What is known of one query.

    Attributes:
        group: what it must not be parted from; empty until its file was seen, where neither
            original nor bytes are known.
        kind: of edit, or what a list calls it.
        entry: number of the entry it is a copy of; None if its original is not in the gallery.
        name: for people: the file, and how it was edited.
        pixels: name of the decoded pixels that it was made from; empty until they are decoded.
    """

    group: str
    kind: str
    entry: int | None
    name: str
    pixels: str = ""


@dataclass(frozen=True)
class _Job:
    """One file, what messages call it, and the queries to be made of it."""

    data: bytes
    name: str
    labels: list[Label]
    seed: int | None


@dataclass(frozen=True, eq=False)
class Query:
    """One query and its raw embedding."""

    label: Label
    vector: Float64[np.ndarray, " D"]


class Listing(NamedTuple):
    """The files in turn, how many queries they give, of which groups, and where they were found.

    A group is "" where only the decoded file will tell it.
    """

    jobs: Iterable[_Job]
    total: int
    groups: list[str]
    found: str


class SyntheticPairs:
    """Edited copies of those pictures of some collections whose bytes are in the index.

    Files of one entry, such as one picture saved twice, are one picture: one of them is used, for
    at most one query of each kind. Each collection is opened and read twice.
    """

    kind: PairsKind = "synthetic"

    def __init__(
        self, openers: Mapping[str, Callable[[], Source]], *, source: str, queries: int
    ) -> None:
        """Take collections, each by its name for people."""
        self._openers, self.source, self._queries = openers, source, queries

    def jobs(
        self,
        index: GalleryIndex,
        seed: int,
        limits: DecodeLimits,  # noqa: ARG002 (the source knows how many bytes a file may have)
        progress: Progress,
    ) -> Listing:
        """Choose pictures by hash, so that the choice depends on the gallery and the seed only."""
        entries = {item.content_sha256: item.number for item in index.items.items()}
        found: set[str] = set()
        files = 0
        for name, opener in self._openers.items():
            source = opener()
            here: set[str] = set()
            told = f"looking for pictures of the index in {name}"
            with progress.counter(told, source.size, "files") as advance:
                for content, _, _ in _contents(source):
                    here.add(content)
                    files += 1
                    advance()
            if not here & entries.keys():
                raise SourceError(
                    f"no file of {name} is in index {index.name!r} {index.version}: calibrate "
                    "with the collections it was built from, or with --pairs"
                )
            found |= here
        # Of the files of an entry the one of the smallest hash: it comes last and stays.
        pictures = {entries[one]: one for one in sorted(found & entries.keys(), reverse=True)}
        chosen = sorted(pictures.values(), key=lambda content: _hash(seed, content))
        kinds = _kinds_of(chosen, self._queries)
        queries = sum(map(len, kinds.values()))
        told = f"{len(pictures)} of {index.size} entries, found among {files} files"
        if len(kinds) < len(pictures):
            told += f", of which --queries {self._queries} takes {len(kinds)}"
        return Listing(self._jobs(entries, kinds, seed), queries, list(kinds), told)

    def _jobs(
        self, entries: dict[str, int], kinds: dict[str, list[str]], seed: int
    ) -> Iterator[_Job]:
        waiting = set(kinds)
        contents = chain.from_iterable(_contents(opener()) for opener in self._openers.values())
        for content, path, data in contents:
            if content in waiting:
                waiting.remove(content)
                labels = [
                    Label(content, kind, entries[content], f"{path} ({kind})")
                    for kind in kinds[content]
                ]
                yield _Job(data, path, labels, seed)


class LabelledPairs:
    """Queries that somebody listed: a CSV file with columns path, id and, if wanted, kind.

    `path` is relative to the file's folder; `id` is the gallery item it is a copy of, or empty for
    a picture that is not in the gallery.
    """

    kind: PairsKind = "labelled"

    def __init__(self, path: Path) -> None:
        self._path, self.source = path, str(path)

    def jobs(
        self,
        index: GalleryIndex,
        seed: int,  # noqa: ARG002 (nothing is drawn)
        limits: DecodeLimits,
        progress: Progress,  # noqa: ARG002
    ) -> Listing:
        """Check the whole list, then read its files in turn."""
        labels: dict[str, Label] = {}
        root = self._path.resolve().parent
        for number, fields in csv_rows(self._path, ("id", "path")):
            where = f"{self._path.name}, line {number}"
            labels[where] = _label(fields, where, index)
            # Before an hour is spent on the others.
            real = path_inside(root, labels[where].name)
            if isinstance(real, Problem):
                raise _unread(real, labels[where], where)
        if not labels:
            raise SourceError(f"{self._path.name} lists no query")
        groups = [label.group for label in labels.values()]
        told = f"{len(labels)} queries of {self._path.name}"
        return Listing(self._jobs(labels, limits), len(labels), groups, told)

    def _jobs(self, labels: dict[str, Label], limits: DecodeLimits) -> Iterator[_Job]:
        root = self._path.resolve().parent
        for where, label in labels.items():
            data = read_inside(root, label.name, limits.max_image_bytes)
            if isinstance(data, Problem):
                raise _unread(data, label, where)
            yield _Job(data, f"{where}: {label.name!r}", [label], None)


Pairs = SyntheticPairs | LabelledPairs


def embedded_queries(
    jobs: Iterable[_Job], embedder: EmbedderLike, limits: DecodeLimits
) -> Generator[list[Query]]:
    """Decode, edit and embed on every core; batches come in the order of the jobs.

    Raises:
        SourceError: a file is no picture that the decode policy accepts; it is named.
        EmbeddingError: an embedding is not finite.
    """
    workers = min(_MAX_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="calibrate")
    under_way: deque[Future[list[Query]]] = deque()
    try:
        for batch in _batches(jobs):
            under_way.append(pool.submit(_embed, batch, embedder, limits))
            if len(under_way) > 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _embed(jobs: list[_Job], embedder: EmbedderLike, limits: DecodeLimits) -> list[Query]:
    labels: list[Label] = []
    inputs: list[Float64[np.ndarray, "3 S S"]] = []
    for job in jobs:
        try:
            pixels = decode_image(job.data, limits).pixels
        except ImageError as exc:
            raise SourceError(f"{job.name} cannot be used: {exc}") from exc
        name = pixels_name(pixels)
        labels += [replace(one, group=one.group or name, pixels=name) for one in job.labels]
        inputs += _inputs(job, pixels, embedder.input_size)
    vectors = embedder.embed_pixels(np.stack(inputs))
    return list(map(Query, labels, vectors))


def _inputs(
    job: _Job, pixels: UInt8[np.ndarray, "H W 3"], side: int
) -> Iterator[Float64[np.ndarray, "3 S S"]]:
    """The network's input of each query of a job."""
    if job.seed is None:
        yield resize_operator(pixels.shape[0], pixels.shape[1], side).apply(pixels)
        return
    picture = Image.fromarray(pixels)
    picture.thumbnail((EDITED_SIDE, EDITED_SIDE), Image.Resampling.BICUBIC)
    small = np.array(picture)
    for label in job.labels:
        place = EDIT_KINDS.index(label.kind)
        rng = np.random.default_rng([job.seed, int(label.group[:16], 16), place])
        copy = edit(small, label.kind, rng)
        yield resize_operator(copy.shape[0], copy.shape[1], side).apply(copy)


def _batches(jobs: Iterable[_Job]) -> Iterator[list[_Job]]:
    """Jobs together until they give a batch of queries."""
    batch: list[_Job] = []
    for job in jobs:
        batch.append(job)
        if sum(len(one.labels) for one in batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _contents(source: Source) -> Iterator[tuple[str, str, bytes]]:
    for item in source.items():
        if item.problem is None:
            yield hashlib.sha256(item.data).hexdigest(), item.path, item.data


def _hash(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed} {group}".encode()).hexdigest()


def is_held_out(seed: int, group: str) -> bool:
    """Whether a group is of the half that rates are measured on."""
    return int(_hash(seed, f"half {group}")[0], 16) % 2 == 1


def _kinds_of(chosen: list[str], queries: int) -> dict[str, list[str]]:
    """Kinds of edits for each picture: as many pictures as possible, kinds in balance."""
    count = len(EDIT_KINDS)
    pictures = chosen[:queries]
    kinds: dict[str, list[str]] = {}
    for place, content in enumerate(pictures):
        wanted = (queries - place + len(pictures) - 1) // len(pictures)
        kinds[content] = [EDIT_KINDS[(place + i) % count] for i in range(min(wanted, count))]
    return kinds


def _unread(problem: Problem, label: Label, where: str) -> SourceError:
    return SourceError(named_by_list(problem, f"{where}: {label.name!r}").reason)


def _label(fields: dict[str, str], where: str, index: GalleryIndex) -> Label:
    path, item_id = fields["path"], fields["id"]
    problem = path_problem(path)
    if problem is not None or not path:
        raise SourceError(f"{where}: {problem.reason if problem else 'wanted a path, got none'}")
    kind = fields.get("kind") or _PLAIN_KIND
    if not is_kind(kind):
        raise SourceError(f"{where}: a kind is 1 to 64 printable characters, got {kind[:80]!r}")
    if not item_id:
        return Label("", kind, None, path)
    try:
        entry = index.entry_by_id(item_id).number
    except ItemNotFoundError as exc:
        raise SourceError(f"{where}: {exc}") from exc
    return Label(f"entry {entry}", kind, entry, path)
