"""Picture files: every one below a folder, or those that were named one by one."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from index_builder.errors import SourceError
from index_builder.sources.base import (
    SourceItem,
    id_problem,
    item_from,
    printable,
    read_file,
    read_inside,
)


class FolderSource:
    """Every file below a folder, sorted; hidden files and folders are passed over."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root.resolve()
        self._max_bytes = max_bytes
        self._paths = self._list()

    @property
    def size(self) -> int | None:
        return len(self._paths)

    def items(self) -> Iterator[SourceItem]:
        for path in self._paths:
            problem = id_problem(path)
            if problem is None:
                content = read_inside(self._root, path, self._max_bytes)
                yield item_from(path, path, content)
            else:
                yield SourceItem(printable(path), printable(path), problem=problem)

    def _list(self) -> list[str]:
        def refuse(error: OSError) -> None:
            raise SourceError(f"folder {error.filename} cannot be listed: {error.strerror}")

        found: list[str] = []
        for folder, subfolders, files in os.walk(self._root, onerror=refuse):
            # A linked folder is not entered (os.walk's default), so no loop and no way out.
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            relative = Path(folder).relative_to(self._root)
            found += [(relative / n).as_posix() for n in files if not n.startswith(".")]
        return sorted(found)


class FilesSource:
    """Picture files named one by one; each has its file's name as id."""

    def __init__(self, paths: Sequence[Path], *, max_bytes: int) -> None:
        self._paths, self._max_bytes = paths, max_bytes
        seen: dict[str, Path] = {}
        for path in paths:
            if seen.setdefault(path.name, path) is not path:
                raise SourceError(
                    f"{seen[path.name]} and {path} have one name, which is their id: add one at a "
                    "time from a folder of its own, or write a .csv list with ids"
                )

    @property
    def size(self) -> int | None:
        return len(self._paths)

    def items(self) -> Iterator[SourceItem]:
        for path in self._paths:
            name = printable(path.name)
            content = id_problem(path.name) or read_file(path, self._max_bytes)
            yield item_from(name, name, content)
