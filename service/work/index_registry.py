"""The indexes in service: found on disk, opened, swapped for newer versions, closed when unused."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import structlog

from index_builder.errors import (
    IndexFormatError,
    IndexModelMismatchError,
    IndexNotFoundError,
)
from index_builder.search.gallery import GalleryIndex, current_seal, list_indexes
from model.errors import RetrievalError
from service.errors import IndexUnavailableError

# A version that was refused is tried again, in case a copy was still under way; ever more rarely,
# since each attempt hashes every file.
_FIRST_RETRY_S = 5.0
_LONGEST_RETRY_S = 300.0

# An index that cannot be seen is served on until so many looks in a row have missed it: a mount
# that comes back in between costs nobody an answer, and open files outlive their names.
_LOOKS_UNTIL_GONE = 3

# What a client may read of a refusal; the error's own words, which may hold paths, go to the log.
_REASONS: dict[type[Exception], tuple[str, str]] = {
    IndexFormatError: (
        "index_damaged",
        "a file of this version is missing or damaged; see `python -m index_builder verify`",
    ),
    IndexModelMismatchError: (
        "index_model_mismatch",
        "made by another model or decode policy; build it again with the model in service",
    ),
    IndexNotFoundError: ("index_not_found", "the version was removed while it was being opened"),
}
_UNFORESEEN = ("internal_error", "the version could not be opened; see the log")

log = structlog.stdlib.get_logger()


@dataclass(frozen=True)
class Refused:
    """A version that could not be taken into service, why, and when it is tried again."""

    version: str | None
    seal: str | None
    code: str
    detail: str
    retry_at: float
    pause_s: float


@dataclass
class _Opened:
    """An open version: the seal that CURRENT had, when it was opened, requests at work on it."""

    index: GalleryIndex
    seal: str
    at: float
    users: int = 0
    is_retired: bool = False


@dataclass(frozen=True)
class IndexEntry:
    """One index as an operator sees it: the version that answers, and one that was refused.

    `opened_at` is when the first was taken into service, by the registry's clock; 0 without one.
    """

    name: str
    index: GalleryIndex | None
    refused: Refused | None
    opened_at: float = 0.0

    def serving(self) -> GalleryIndex:
        """The version that answers, not leased: what its manifest says may be read of it.

        Raises:
            IndexUnavailableError: no version could be opened.
        """
        if self.index is None:
            assert self.refused is not None  # noqa: S101 - one of the two there is.
            raise _unavailable(self.name, self.refused)
        return self.index


@dataclass
class IndexRegistry:
    """Every index of one data directory.

    `refresh` is called by one thread; `lease` by any. A request leases an index once and does all
    its work on that version; a version that was replaced closes when its last lease ends.
    """

    data_dir: Path
    fingerprint: str
    decode_policy: str
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _opened: dict[str, _Opened] = field(default_factory=dict[str, _Opened])
    _retired: dict[GalleryIndex, _Opened] = field(default_factory=dict[GalleryIndex, _Opened])
    _refused: dict[str, Refused] = field(default_factory=dict[str, Refused])
    _missed: dict[str, int] = field(default_factory=dict[str, int])

    @contextmanager
    def lease(self, name: str, version: GalleryIndex | None = None) -> Generator[GalleryIndex]:
        """The current version of an index, kept open until the block ends.

        Args:
            name: of the index.
            version: a version that somebody else has leased, to be leased once more; None: the
                current one.

        Raises:
            IndexNotFoundError: there is no index of that name.
            IndexUnavailableError: there is one, and no version of it could be opened; or the one
                that was wanted has been closed.
        """
        with self._lock:
            opened = self._opened.get(name)
            if version is not None and (opened is None or opened.index is not version):
                opened = self._retired.get(version)
                if opened is None:
                    raise IndexUnavailableError(f"index {name!r} {version.version} was closed")
            if opened is None:
                raise self._absent(name)
            opened.users += 1
        try:
            yield opened.index
        finally:
            with self._lock:
                opened.users -= 1
                is_last = opened.is_retired and opened.users == 0
                if is_last:
                    self._retired.pop(opened.index, None)
            if is_last:
                opened.index.close()

    def refresh(self) -> None:
        """Look at the disk once: open what is new, replace what changed, drop what is gone."""
        names = list_indexes(self.data_dir)
        for name in names:
            self._refresh_one(name)
        with self._lock:
            missing = self._opened.keys() - set(names)
            self._refused = {n: r for n, r in self._refused.items() if n in names}
        self._missed = {name: self._missed.get(name, 0) + 1 for name in missing}
        for name, looks in self._missed.items():
            if looks >= _LOOKS_UNTIL_GONE:
                log.info("index_gone", index=name)
                self._put(name, None)
            elif looks == 1:
                log.warning("index_missing", index=name)

    def entries(self) -> list[IndexEntry]:
        """What is in service and what was refused, by name."""
        with self._lock:
            names = sorted(self._opened.keys() | self._refused.keys())
            return [
                IndexEntry(
                    name,
                    self._opened[name].index if name in self._opened else None,
                    self._refused.get(name),
                    self._opened[name].at if name in self._opened else 0.0,
                )
                for name in names
            ]

    def entry(self, name: str) -> IndexEntry:
        """One index.

        Raises:
            IndexNotFoundError: there is none of that name.
        """
        for entry in self.entries():
            if entry.name == name:
                return entry
        raise self._absent(name)

    def close(self) -> None:
        """Take every index out of service; each closes when its last lease ends."""
        for name in list(self._opened):
            self._put(name, None)

    def _absent(self, name: str) -> RetrievalError:
        refused = self._refused.get(name)
        if refused is not None:
            return _unavailable(name, refused)
        return IndexNotFoundError(
            f"no index {name[:64]!r} is in service here; /v1/indexes lists those that are"
        )

    def _refresh_one(self, name: str) -> None:
        version = seal = None
        try:
            version, seal = current_seal(self.data_dir, name)
            if self._is_settled(name, version, seal):
                return
            opened = self._open(name)
        except Exception as error:  # Whatever is wrong with one must not stop the others.
            self._refuse(name, version, seal, error)
            return
        with self._lock:
            self._refused.pop(name, None)
        # Should CURRENT have moved on meanwhile, the next look sees another seal and opens again.
        self._put(name, _Opened(opened, seal, self.clock()))
        log.info("index_serving", index=name, version=opened.version, size=opened.size)

    def _is_settled(self, name: str, version: str, seal: str) -> bool:
        """Whether this version is served already, or was refused too short a time ago.

        The name alone says too little: a directory moved into place has a v000001 of its own.
        """
        opened, refused = self._opened.get(name), self._refused.get(name)
        if opened is not None and (opened.index.version, opened.seal) == (version, seal):
            with self._lock:
                self._refused.pop(name, None)
            return True
        return (
            refused is not None
            and (refused.version, refused.seal) == (version, seal)
            and self.clock() < refused.retry_at
        )

    def _open(self, name: str) -> GalleryIndex:
        index = GalleryIndex.open(
            self.data_dir,
            name,
            embedder_fingerprint=self.fingerprint,
            decode_policy=self.decode_policy,
        )
        if index.vector_count > 1:
            # Warm: the pages are read and the search structure is built before the first request.
            index.search(np.ones((1, index.dim)), min(index.vector_count - 1, 128))
        return index

    def _put(self, name: str, opened: _Opened | None) -> None:
        with self._lock:
            old = self._opened.pop(name, None)
            if opened is not None:
                self._opened[name] = opened
            if old is None:
                return
            old.is_retired = True
            is_unused = old.users == 0
            if not is_unused:
                self._retired[old.index] = old
        if is_unused:
            old.index.close()

    def _refuse(self, name: str, version: str | None, seal: str | None, error: Exception) -> None:
        known = self._refused.get(name)
        is_again = known is not None and (known.version, known.seal) == (version, seal)
        pause_s = min(2 * known.pause_s, _LONGEST_RETRY_S) if known and is_again else _FIRST_RETRY_S
        code, detail = _REASONS.get(type(error), _UNFORESEEN)
        retry_at = self.clock() + pause_s
        with self._lock:
            self._refused[name] = Refused(version, seal, code, detail, retry_at, pause_s)
        if known is None or not is_again or known.code != code:
            log.error(
                "index_refused",
                index=name,
                version=version,
                code=code,
                problem=str(error),
                # Our own errors say it all; what nobody foresaw needs its traceback.
                exc_info=None if type(error) in _REASONS else error,
            )


def _unavailable(name: str, refused: Refused) -> IndexUnavailableError:
    return IndexUnavailableError(
        f"index {name!r}: version {refused.version} was refused ({refused.code})"
    )
