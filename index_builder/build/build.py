"""Build, add to, and take from an index: read, hash, decode, embed, write aside, seal."""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

from index_builder.build.embedding import EmbedderLike, EmbeddingPipeline, Rejected
from index_builder.build.journal import EmbeddedImage, Journal
from index_builder.build.plan import Plan
from index_builder.build.writer import ModelIdentity, Planned, seal_version, writing
from index_builder.errors import (
    GalleryIndexError,
    IndexFormatError,
    IndexNotFoundError,
    ItemNotFoundError,
    SourceError,
)
from index_builder.search.gallery import GalleryIndex
from index_builder.sources.base import Problem, Source, SourceItem, is_sidecar
from index_builder.store import layout
from index_builder.store.items import Item
from index_builder.store.manifest import QUARANTINE, Manifest, Quarantined, read_quarantine
from model.cli.progress import Progress
from model.pixels.decode import DecodeLimits


@dataclass(frozen=True)
class BuildReport:
    """What a command did to an index.

    Attributes:
        manifest: of the version now served.
        changed: whether it is a new version; a run that finds what is served writes none.
        counts: what this run did, as a manifest lists it.
        quarantined: the files of this run that could not become items.
        seconds: wall time.
        dropped: names of the operating points that the new version does not have any more: another
            model made it, or it has too few entries for them.
    """

    manifest: Manifest
    changed: bool
    counts: dict[str, int]
    quarantined: list[Quarantined]
    seconds: float
    dropped: list[str]


@dataclass
class _Counts:
    """Counts of one run, as the manifest lists them."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    embedded: int = 0
    reused: int = 0
    quarantined: int = 0
    skipped: int = 0


@dataclass
class _Run:
    """One run of the builder: where embeddings come from and what became of each file."""

    plan: Plan
    journal: Journal
    reusable: GalleryIndex | None
    max_errors: int | None
    counts: _Counts = field(default_factory=_Counts)
    quarantined: list[Quarantined] = field(default_factory=list[Quarantined])
    rejected: dict[str, Problem] = field(default_factory=dict[str, Problem])

    def is_stored(self, content_sha256: str) -> bool:
        """Whether these bytes need not be embedded: the served version or the journal has them."""
        if self.reusable is not None and self.reusable.items.by_content(content_sha256):
            return True
        return self.journal.get(content_sha256) is not None

    def embedded(self, content_sha256: str) -> EmbeddedImage:
        """The embedding of an item that was planned.

        Raises:
            GalleryIndexError: another process took it out of the journal.
        """
        image = stored_image(self.reusable, content_sha256) if self.reusable else None
        image = image or self.journal.get(content_sha256)
        if image is None:
            raise GalleryIndexError(
                f"the embedding of content {content_sha256[:16]} was lost from the journal during "
                "the build: run it again"
            )
        return image

    def take(self, item: SourceItem, pipeline: EmbeddingPipeline) -> None:
        """Plan one file of the collection, and have it embedded unless that was done before."""
        if item.problem is not None:
            self.quarantine(item.path, item.problem)
            return
        content = hashlib.sha256(item.data).hexdigest()
        planned = Planned(item.id, item.path, content, len(item.data), item.metadata)
        if content in self.rejected:
            self._reject(planned, self.rejected[content])
            return
        if self.plan.holds_content(content) or self.is_stored(content):
            self.counts.reused += 1
        else:
            pipeline.submit(content, item.data)
        self.plan.put(planned)

    def keep(self, results: Iterable[EmbeddedImage | Rejected]) -> None:
        """Put embeddings in the journal, and set aside what gave none."""
        images: list[EmbeddedImage] = []
        for result in results:
            if isinstance(result, Rejected):
                self.reject(result)
            else:
                images.append(result)
        if images:
            self.journal.add(images)
            self.counts.embedded += len(images)

    def quarantine(self, path: str, problem: Problem) -> None:
        """Set one file aside.

        Raises:
            SourceError: it is one more than `max_errors`.
        """
        self.quarantined.append(Quarantined(path, problem.code, problem.reason))
        self.counts.quarantined += 1
        if self.max_errors is not None and len(self.quarantined) > self.max_errors:
            raise SourceError(
                f"stopped at more than {self.max_errors} bad files; the last is {path!r}: "
                f"{problem.reason}. The index is as it was"
            )

    def reject(self, rejected: Rejected) -> None:
        """Set aside every planned file of a content that gave no vector."""
        self.rejected[rejected.content_sha256] = rejected.problem
        planned = self.plan.by_content(rejected.content_sha256)
        self.counts.reused -= len(planned) - 1
        for item in planned:
            self.plan.remove(item.id)
            self._reject(item, rejected.problem)

    def _reject(self, item: Planned, problem: Problem) -> None:
        if problem.code == "format" and is_sidecar(item.path):
            self.counts.skipped += 1
        else:
            self.quarantine(item.path, problem)


def build_index(
    data_dir: Path,
    name: str,
    source: Source,
    embedder: EmbedderLike,
    *,
    source_name: str,
    union: bool = False,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 (frozen)
    max_errors: int | None = None,
    allow_empty: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Make an index hold exactly a collection, or, with `union`, that collection as well.

    Embeddings of unchanged content by the same model under the same decode policy are taken from
    the served version, or from the journal of a build that was interrupted. In a union, an id that
    is there already takes the new content; a file that cannot be used leaves the old item in place.
    Where the served version holds just that already, it stays and nothing is written.

    Args:
        data_dir: the directory that holds `indexes/`.
        name: of the index; made if there is none.
        source: the collection.
        embedder: from network inputs to embeddings.
        source_name: the collection's name in the manifest.
        union: keep what the index holds.
        limits: what an image may be.
        max_errors: stop when more files than this are bad; None never stops.
        allow_empty: let the index become empty.
        progress: told of each step.

    Raises:
        SourceError: the collection breaks off, is empty, or has too many bad files.
        IndexLockedError: another writer is at work.
        IndexModelMismatchError: a union with an index made by another model.
        IndexFormatError: a union with an index that is damaged.
    """
    started = time.monotonic()
    progress = progress or Progress()
    model = ModelIdentity(embedder.name, embedder.fingerprint, embedder.decode_policy, embedder.dim)
    paths = layout.index_paths(data_dir, name)
    with contextlib.ExitStack() as stack:
        stack.enter_context(writing(paths))
        previous = _open_previous(data_dir, name, model, union=union, progress=progress)
        if previous is not None:
            stack.enter_context(previous)
        journal = Journal(paths.journal, model=model.key, dim=model.dim)
        stack.callback(journal.close)
        plan = Plan()
        stack.callback(plan.close)
        reusable = previous if previous is not None and _is_of(previous.manifest, model) else None
        run = _Run(plan, journal, reusable, max_errors)
        _ingest(run, source, embedder, limits, progress)
        earlier: list[Quarantined] = []
        if union and previous is not None:
            earlier = _still_quarantined(paths, previous, run)
            plan.fill(_planned(item) for item in previous.items.items())
        _count_changes(run, previous)
        if not allow_empty and next(plan.sorted(), None) is None:
            raise SourceError(
                f"{source_name} gives no item ({run.counts.quarantined} files quarantined, "
                f"{run.counts.skipped} skipped); the index is as it was. To make it empty, say "
                "--allow-empty"
            )
        quarantined = [*earlier, *run.quarantined]
        changed = True
        if reusable is not None and _is_served(paths, run, reusable, model, quarantined):
            manifest, changed = reusable.manifest, False
        else:
            progress.step("writing and verifying the version")
            manifest = seal_version(
                paths,
                model=model,
                planned=plan.sorted(),
                embedded=run.embedded,
                quarantined=quarantined,
                source=source_name,
                counts=dict(vars(run.counts)),
                served=None if previous is None else previous.manifest,
            )
        journal.delete()
    counts = {**vars(run.counts), "duplicates": manifest.ids - manifest.entries}
    dropped = _dropped(previous.manifest, manifest) if previous is not None else []
    seconds = time.monotonic() - started
    return BuildReport(manifest, changed, counts, run.quarantined, seconds, dropped)


def remove_items(data_dir: Path, name: str, ids: Sequence[str]) -> BuildReport:
    """Make a version without these ids.

    Raises:
        ItemNotFoundError: an id is not in the index; then nothing is removed.
        IndexNotFoundError: there is no such index.
        IndexFormatError: it is damaged.
        IndexLockedError: another writer is at work.
    """
    started = time.monotonic()
    paths = layout.index_paths(data_dir, name)
    layout.read_current(paths)  # before a lock file is made for an index that is not there
    with writing(paths), GalleryIndex.open(data_dir, name) as previous:
        gone = set(ids)
        for item_id in ids:
            try:
                previous.entry_by_id(item_id)
            except ItemNotFoundError as exc:
                raise ItemNotFoundError(f"{exc}; nothing was removed") from exc
        old = previous.manifest
        kept = old.ids - len(gone)

        def embedded(content_sha256: str) -> EmbeddedImage:
            image = stored_image(previous, content_sha256)
            assert image is not None  # noqa: S101 (the same version listed it)
            return image

        manifest = seal_version(
            paths,
            model=ModelIdentity.of(old),
            planned=(_planned(item) for item in previous.items.items() if item.id not in gone),
            embedded=embedded,
            quarantined=read_quarantine(paths.version(old.version) / QUARANTINE),
            source=old.source,
            counts=dict(vars(_Counts(removed=len(gone), unchanged=kept))),
            served=old,
        )
    seconds = time.monotonic() - started
    return BuildReport(manifest, True, manifest.counts, [], seconds, _dropped(old, manifest))


def _dropped(before: Manifest, now: Manifest) -> list[str]:
    """The operating points of one version that another does not have."""
    return before.operating_points if now.calibration is None else []


def stored_image(index: GalleryIndex, content_sha256: str) -> EmbeddedImage | None:
    """What a sealed version keeps of a file of these bytes."""
    item = index.items.by_content(content_sha256)
    if item is None:
        return None
    return EmbeddedImage(
        content_sha256=content_sha256,
        vector=index.vectors[item.row].tobytes(),
        width=item.width,
        height=item.height,
        format=item.format,
        thumbnail=index.items.thumbnail_by_content(content_sha256) or b"",
    )


def _open_previous(
    data_dir: Path, name: str, model: ModelIdentity, *, union: bool, progress: Progress
) -> GalleryIndex | None:
    """The served version, to take embeddings from; a union cannot do without it."""
    try:
        if not union:
            return GalleryIndex.open(data_dir, name)
        return GalleryIndex.open(
            data_dir,
            name,
            embedder_fingerprint=model.fingerprint,
            decode_policy=model.decode_policy,
        )
    except IndexNotFoundError:
        if layout.index_paths(data_dir, name).current.exists() and union:
            raise
        return None
    except IndexFormatError as exc:
        if union:
            raise
        progress.step(f"the served version is damaged, nothing is taken from it: {exc}")
        return None


def _is_of(manifest: Manifest, model: ModelIdentity) -> bool:
    return (manifest.model_fingerprint, manifest.decode_policy, manifest.dim) == (
        model.fingerprint,
        model.decode_policy,
        model.dim,
    )


def _ingest(
    run: _Run, source: Source, embedder: EmbedderLike, limits: DecodeLimits, progress: Progress
) -> None:
    """Read the collection through: plan every item and embed what is not known yet."""
    pipeline = EmbeddingPipeline(embedder, limits=limits)
    with contextlib.closing(pipeline), progress.counter("embedding", source.size, "files") as count:
        for item in source.items():
            run.take(item, pipeline)
            run.keep(pipeline.ready())
            count()
        run.keep(pipeline.rest())


def _planned(item: Item) -> Planned:
    return Planned(item.id, item.id, item.content_sha256, item.bytes, item.metadata)


def _still_quarantined(
    paths: layout.IndexPaths, previous: GalleryIndex, run: _Run
) -> list[Quarantined]:
    """The served version's quarantine list without the files that this run read."""
    listed = read_quarantine(paths.version(previous.version) / QUARANTINE)
    read_now = {entry.path for entry in run.quarantined}
    if listed:
        read_now.update(item.path for item in run.plan.sorted())
    return [entry for entry in listed if entry.path not in read_now]


def _count_changes(run: _Run, previous: GalleryIndex | None) -> None:
    """Compare what is planned with what is served."""
    counts = run.counts
    known = 0
    for item in previous.items.items() if previous is not None else ():
        planned = run.plan.get(item.id)
        if planned is None:
            counts.removed += 1
            continue
        known += 1
        if planned.content_sha256 == item.content_sha256 and _is_equal_json(
            planned.metadata, item.metadata
        ):
            counts.unchanged += 1
        else:
            counts.updated += 1
    counts.added = run.plan.size() - known


def _is_equal_json(one: object, other: object) -> bool:
    """Whether two values are stored alike; to Python, 1, 1.0 and true are equal."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _is_served(
    paths: layout.IndexPaths,
    run: _Run,
    served: GalleryIndex,
    model: ModelIdentity,
    quarantined: list[Quarantined],
) -> bool:
    """Whether the plan is what is served, by the same model, down to the quarantine list."""
    counts = run.counts
    if counts.added or counts.updated or counts.removed or served.manifest.model_name != model.name:
        return False
    listed = read_quarantine(paths.version(served.version) / QUARANTINE)
    return sorted(map(astuple, listed)) == sorted(map(astuple, quarantined))
