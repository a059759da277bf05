"""Folders of pictures beside index.jsonl, as a corpus has them."""

import json
from pathlib import Path
from typing import Any

from model.data.pictures import LIST


class ListWriter:
    """Writes pictures to ROOT/SPLIT, one file each, and their list when it is left."""

    def __init__(self, root: Path, split: str) -> None:
        self._folder = root / split
        self._lines: list[str] = []

    def __enter__(self) -> "ListWriter":
        self._folder.mkdir(parents=True)
        return self

    def add(self, key: str, data: bytes, suffix: str, fields: dict[str, Any] | None = None) -> None:
        (self._folder / f"{key}.{suffix}").write_bytes(data)
        line = {"id": key, "path": f"{key}.{suffix}", **(fields or {})}
        self._lines.append(json.dumps(line) + "\n")

    def __exit__(self, *_: object) -> None:
        (self._folder / LIST).write_text("".join(self._lines))
