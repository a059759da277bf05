"""What an evaluation leaves in its folder, and which files and libraries its numbers are of."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from model.cli.files import write_aside
from model.errors import EvaluationError
from model.evaluate.rows import Row
from model.pixels.decode import DECODE_POLICY_VERSION

SCHEMA = "lipsim-evaluation-2"
_PACKAGES = ("lipsim-retrieval", "numpy", "torch", "pillow", "imagehash", "pdqhash")


@dataclass(frozen=True)
class FileList:
    """Files that were measured on, whatever they are called.

    Attributes:
        name: where they were read.
        digests: each file's sha256 in hex, sorted.
    """

    name: str
    digests: Sequence[str]

    def text(self) -> bytes:
        """The digests, one a line."""
        return "".join(f"{digest}\n" for digest in sorted(self.digests)).encode()

    def record(self) -> Row:
        """What results.json says of them; the digests have a file of their own."""
        sha256 = hashlib.sha256(self.text()).hexdigest()
        return {"name": self.name, "files": len(self.digests), "sha256": sha256}


def check_hashes(origins: Iterable[str], path: Path, *, is_part: bool) -> None:
    """Refuse pictures that are not those of a list.

    Origins are the sha256 of each picture, or of the file it was made of; the first word of a line
    of the list is a hash. A part may be some of them.

    Raises:
        EvaluationError: the list cannot be read, or the pictures are others.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise EvaluationError(f"{path}: no list of hashes: {exc}") from exc
    wanted, came = {line.split()[0] for line in lines if line.strip()}, set(origins)
    missing = set[str]() if is_part else wanted - came
    if missing or came - wanted:
        raise EvaluationError(
            f"these are not the pictures of {path}: {len(missing)} of its {len(wanted)} are"
            f" missing, {len(came - wanted)} others came"
        )


def versions() -> dict[str, str]:
    """Versions of whatever a number may depend on."""
    found = {"python": platform.python_version(), "decode_policy": DECODE_POLICY_VERSION}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_folder(
    folder: Path, record: Row, rows: Iterable[Row], files: Mapping[str, bytes]
) -> None:
    """Write results.json, measurements.jsonl and other files, each whole or not at all."""
    lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows]
    named = {
        **files,
        "measurements.jsonl": "".join(lines).encode(),
        "results.json": json.dumps(record, indent=1, allow_nan=False).encode() + b"\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in named.items():
        with write_aside(folder / name) as aside:
            aside.write_bytes(data)
