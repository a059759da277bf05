"""What the client takes: pictures, options of a search, folders; and what many searches give."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from service.client.problems import ProblemError
from service.schemas.search import SearchAnswer

Image = bytes | str | os.PathLike[str]
"""The bytes of an image file, or where the file is."""

# An image that the service cannot use, or that took it too long, says nothing of the next one.
_ABOUT_ONE_IMAGE = frozenset({413, 415, 422, 500, 504})
# Of one request for several: more gain nothing, and a service takes 64 and 64 MiB unless told.
_MOST_IMAGES = 16
_ENOUGH_BYTES = 16 * 1024 * 1024


class SearchArguments(TypedDict, total=False):
    """The options of a search by name, as `service.schemas.search.SearchOptions` describes them."""

    k: int
    index: str
    max_distance: float | None
    epsilon: float | None
    operating_point: str | None
    require_exact: bool
    filter: dict[str, Any] | str | None
    trim: bool
    include_vector: bool
    include_metadata: bool
    include_audit: bool
    include_input: bool


class ToleranceArguments(TypedDict, total=False):
    """The same of tolerances, as `service.schemas.tolerance.ToleranceOptions` describes them."""

    k: int
    index: str
    max_distance: float | None
    filter: dict[str, Any] | str | None
    operating_point: str | None
    statement: Literal["result", "top1", "set", "verdict"]
    id: str | None
    chain: int
    families: str


@dataclass(frozen=True)
class Searched:
    """One image of many, and what became of it.

    Attributes:
        image: as it was given, or where it is in the folder that was.
        answer: None if there is an error.
        error: why this image has no answer; None if it has one.
    """

    image: Image
    answer: SearchAnswer | None = None
    error: ProblemError | OSError | None = None


def is_about_one_image(error: ProblemError) -> bool:
    """Whether other images may fare better."""
    return error.status in _ABOUT_ONE_IMAGE


def read_image(image: Image) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def images_of(images: Iterable[Image] | str | os.PathLike[str]) -> Iterable[Image]:
    """The images themselves; of a folder its files.

    Raises:
        NotADirectoryError: it is one path, and no folder is there.
    """
    if not isinstance(images, str | os.PathLike):
        return images
    folder = Path(images)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; one picture is for `search`")
    return files_of(folder)


def batches(images: Iterable[Image], most: int) -> Iterator[list[Image]]:
    """Images in lists of so many, or fewer where they are large; none is taken ahead."""
    batch: list[Image] = []
    size = 0
    for image in images:
        batch.append(image)
        size += len(image) if isinstance(image, bytes) else _size(image)
        if len(batch) >= most or size >= _ENOUGH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def batch_plan(concurrency: int) -> tuple[int, int]:
    """How many images one request holds, and how many requests are under way at once.

    Two, so that one is on its way while the other is answered; more where few images fill them.
    """
    most = min(_MOST_IMAGES, max(1, concurrency // 2))
    return most, max(1, concurrency // most)


def _size(image: str | os.PathLike[str]) -> int:
    with contextlib.suppress(OSError):  # Whoever reads it will say what is wrong.
        return Path(image).stat().st_size
    return 0


def files_of(folder: Path) -> Iterator[Path]:
    """The files of a folder, sorted, those below it too, none hidden."""
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(where, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def as_parameters(options: Mapping[str, Any]) -> dict[str, str]:
    """Options as a query or a form has them; those that are None are not given."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in options.items()
        if value is not None
    }
