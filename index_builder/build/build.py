"""Build, add to, and take from an index: open what is served, read, compare, seal."""

import contextlib
import json
import time
from collections.abc import Generator, Sequence
from dataclasses import astuple, dataclass, field
from itertools import compress
from pathlib import Path

from index_builder.build.embedding import EmbedderLike
from index_builder.build.ingest import Counts, Ingest, stored_image
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
from index_builder.filters.evaluate import passing_items
from index_builder.filters.language import Filter
from index_builder.search.gallery import GalleryIndex
from index_builder.sources.base import Source
from index_builder.store import layout
from index_builder.store.items import Item
from index_builder.store.manifest import QUARANTINE, Manifest, Quarantined, read_quarantine
from model.cli.progress import Progress
from model.pixels.decode import DecodeLimits
from model.pixels.views import DEFAULT_VIEWS, VIEW_SETS


@dataclass(frozen=True)
class BuildReport:
    """What a command did to an index.

    Attributes:
        manifest: of the version now served.
        changed: whether it is a new version; a run that finds what is served writes none.
        counts: as a manifest lists them, but of this run.
        quarantined: the files of this run that could not become items.
        skipped: the first files passed over, as no pictures are expected under their names.
        seconds: wall time.
        dropped: operating points that the new version does not have any more: another model made
            it, or it has too few entries for them.
    """

    manifest: Manifest
    changed: bool
    counts: dict[str, int]
    seconds: float
    dropped: list[str]
    quarantined: list[Quarantined] = field(default_factory=list[Quarantined])
    skipped: list[str] = field(default_factory=list[str])


@dataclass
class _Run:
    """One build under the index's lock: what is served (if it can be read), and what shall be."""

    paths: layout.IndexPaths
    model: ModelIdentity
    previous: GalleryIndex | None
    ingest: Ingest

    def keep_previous(self) -> list[Quarantined]:
        """Make it a union; gives the quarantine list with what of the old one still holds."""
        previous, found = self.previous, self.ingest
        if previous is None:
            return found.quarantined
        listed = read_quarantine(self.paths.version(previous.version) / QUARANTINE)
        read_now = {entry.path for entry in found.quarantined}
        if listed:
            read_now.update(item.path for item in found.plan.sorted())
        found.plan.fill(_planned(item) for item in previous.items.items())
        return [*(entry for entry in listed if entry.path not in read_now), *found.quarantined]

    def compare(self) -> None:
        """Count what differs between what is planned and what is served."""
        plan, counts = self.ingest.plan, self.ingest.counts
        known = 0
        for item in self.previous.items.items() if self.previous is not None else ():
            planned = plan.get(item.id)
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
        counts.added = plan.size() - known

    def served(self, quarantined: list[Quarantined]) -> Manifest | None:
        """The served version's manifest, if it holds just what was planned, by the same model."""
        served, counts = self.ingest.reusable, self.ingest.counts
        if served is None or served.manifest.model_name != self.model.name:
            return None
        if counts.added or counts.updated or counts.removed:
            return None
        listed = read_quarantine(self.paths.version(served.version) / QUARANTINE)
        if sorted(map(astuple, listed)) != sorted(map(astuple, quarantined)):
            return None
        return served.manifest

    def seal(self, source_name: str, quarantined: list[Quarantined]) -> Manifest:
        return seal_version(
            self.paths,
            model=self.model,
            views=self.ingest.views,
            planned=self.ingest.plan.sorted(),
            embedded=self.ingest.embedded,
            quarantined=quarantined,
            source=source_name,
            counts=dict(vars(self.ingest.counts)),
            served=None if self.previous is None else self.previous.manifest,
        )


def build_index(
    data_dir: Path,
    name: str,
    source: Source,
    embedder: EmbedderLike,
    *,
    source_name: str,
    union: bool = False,
    views: Sequence[str] | None = None,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 (frozen)
    max_errors: int | None = None,
    allow_empty: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Make an index hold exactly a collection, or, with `union`, that collection as well.

    Embeddings of unchanged content by the same model under the same decode policy are taken from
    the served version, or from the journal of a build that was interrupted. In a union, an id that
    is there already takes the new content; a file that cannot be used leaves the old item in place.
    `views` name the views that pictures are embedded in; None: those of the served version, if it
    is by the same model, or the default set.
    Where the served version holds just that already, it stays and nothing is written. It stops when
    more than `max_errors` files are bad, and never becomes empty but with `allow_empty`.

    Raises:
        SourceError: the collection breaks off, is empty, or has too many bad files; or a union
            with an index of other views.
        IndexModelMismatchError: a union with an index made by another model.
        IndexFormatError: a union with an index that is damaged.
    """
    started = time.monotonic()
    progress = progress or Progress()
    model = ModelIdentity(embedder.name, embedder.fingerprint, embedder.decode_policy, embedder.dim)
    paths = layout.index_paths(data_dir, name)
    wanted = None if views is None else tuple(views)
    with _run(data_dir, paths, model, wanted, max_errors, union=union, progress=progress) as run:
        found = run.ingest
        found.read(source, embedder, limits, progress)
        if union and found.plan.size() == 0 and not found.quarantined:
            raise SourceError(f"{source_name} gives no item; nothing was changed")
        quarantined = run.keep_previous() if union else found.quarantined
        run.compare()
        if not allow_empty and found.plan.size() == 0:
            raise SourceError(_no_item(source_name, found, union=union))
        manifest = run.served(quarantined)
        changed = manifest is None
        if manifest is None:
            progress.step("writing and verifying the version")
            manifest = run.seal(source_name, quarantined)
        found.journal.delete()
    return BuildReport(
        manifest,
        changed,
        counts={**vars(found.counts), "duplicates": manifest.ids - manifest.entries},
        quarantined=found.quarantined,
        skipped=found.skipped,
        seconds=time.monotonic() - started,
        dropped=_dropped(run.previous.manifest, manifest) if run.previous else [],
    )


def remove_items(
    data_dir: Path,
    name: str,
    ids: Sequence[str],
    *,
    matching: Filter | None = None,
    allow_empty: bool = False,
) -> BuildReport:
    """Make a version without these ids, and without the items that match a filter.

    Where no item is to go, the served version stays. A filter never takes the last item but with
    `allow_empty`.

    Raises:
        ItemNotFoundError: an id is not in the index; then nothing is removed.
        GalleryIndexError: the filter would leave nothing.
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
        if matching is not None:
            passing = passing_items(matching, previous.columns, previous.items)
            gone.update(item.id for item in compress(previous.items.items(), passing))
            if len(gone) == old.ids and not allow_empty:
                raise GalleryIndexError(
                    f"the filter matches all of the {old.ids} items; nothing was removed. To make "
                    "the index empty, say --allow-empty"
                )
        counts = dict(vars(Counts(removed=len(gone), unchanged=old.ids - len(gone))))
        if not gone:
            taken = time.monotonic() - started
            return BuildReport(old, changed=False, counts=counts, seconds=taken, dropped=[])

        def embedded(content_sha256: str) -> EmbeddedImage:
            image = stored_image(previous, content_sha256)
            assert image is not None  # noqa: S101 (the same version listed it)
            return image

        manifest = seal_version(
            paths,
            model=ModelIdentity.of(old),
            views=old.view_names,
            planned=(_planned(item) for item in previous.items.items() if item.id not in gone),
            embedded=embedded,
            quarantined=read_quarantine(paths.version(old.version) / QUARANTINE),
            source=old.source,
            counts=counts,
            served=old,
        )
    return BuildReport(
        manifest,
        changed=True,
        counts=manifest.counts,
        seconds=time.monotonic() - started,
        dropped=_dropped(old, manifest),
    )


@contextlib.contextmanager
def _run(
    data_dir: Path,
    paths: layout.IndexPaths,
    model: ModelIdentity,
    wanted: tuple[str, ...] | None,
    max_errors: int | None,
    *,
    union: bool,
    progress: Progress,
) -> Generator[_Run]:
    """The index's lock, what is served, a plan and a journal, all closed in the end."""
    with (
        writing(paths),
        _open_previous(data_dir, paths, model if union else None, progress) as previous,
        contextlib.closing(Plan()) as plan,
    ):
        served = None if previous is None else previous.manifest
        is_ours = served is not None and ModelIdentity.of(served).key == model.key
        ours = served if is_ours else None
        views = wanted or (tuple(VIEW_SETS[DEFAULT_VIEWS]) if ours is None else ours.view_names)
        if union and served is not None and served.view_names != views:
            raise SourceError(
                f"index {paths.root.name!r} holds the views {', '.join(served.view_names)} of each "
                f"picture, not {', '.join(views)}: add in those, or build it anew"
            )
        key = f"{model.key} {' '.join(views)}"
        with contextlib.closing(Journal(paths.journal, model=key, dim=model.dim)) as journal:
            is_same = ours is not None and ours.view_names == views
            ingest = Ingest(plan, journal, previous if is_same else None, views, max_errors)
            yield _Run(paths, model, previous, ingest)


def _open_previous(
    data_dir: Path, paths: layout.IndexPaths, union_with: ModelIdentity | None, progress: Progress
) -> contextlib.AbstractContextManager[GalleryIndex | None]:
    """The served version, to take embeddings from; a union cannot do without it."""
    try:
        return GalleryIndex.open(
            data_dir,
            paths.root.name,
            embedder_fingerprint=union_with.fingerprint if union_with else None,
            decode_policy=union_with.decode_policy if union_with else None,
        )
    except IndexNotFoundError:
        if union_with and paths.current.exists():
            raise
    except IndexFormatError as exc:
        if union_with:
            raise
        progress.step(f"the served version is damaged, nothing is taken from it: {exc}")
    return contextlib.nullcontext()


def _no_item(source_name: str, found: Ingest, *, union: bool) -> str:
    first = f", the first {found.quarantined[0].path}: " if found.quarantined else ""
    reason = found.quarantined[0].reason if found.quarantined else ""
    way_out = "" if union else ". To make the index empty, say --allow-empty"
    return (
        f"{source_name} gives no item ({found.counts.quarantined} files quarantined{first}{reason}"
        f"; {found.counts.skipped} skipped); nothing was changed{way_out}"
    )


def _dropped(before: Manifest, now: Manifest) -> list[str]:
    """The operating points of one version that another does not have."""
    return before.operating_points if now.calibration is None else []


def _planned(item: Item) -> Planned:
    return Planned(item.id, item.id, item.content_sha256, item.bytes, item.metadata)


def _is_equal_json(one: object, other: object) -> bool:
    """Whether two values are stored alike; to Python, 1, 1.0 and true are equal."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
