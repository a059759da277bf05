"""What one run measured, of what, and with what: the JSON file behind every table."""

import hashlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from model.errors import EvaluationError
from model.evaluate.measurement import Measurement
from model.pixels.decode import DECODE_POLICY_VERSION

SCHEMA = "lipsim-evaluation-1"
_PACKAGES = ("lipsim-retrieval", "numpy", "torch", "pillow", "imagehash", "pdqhash")


@dataclass(frozen=True)
class DataIdentity:
    """Which files were measured on, whatever they are called and wherever they lie.

    Attributes:
        name: where they were read.
        files: how many.
        sha256: of the text that holds each file's sha256 in hex on a line, sorted.
        hashes: those lines.
    """

    name: str
    files: int
    sha256: str
    hashes: tuple[str, ...] = field(repr=False)

    def record(self) -> dict[str, Any]:
        """What the JSON file says of it; the hashes have a file of their own."""
        return {"name": self.name, "files": self.files, "sha256": self.sha256}


@dataclass(frozen=True, eq=False)
class RadiusCurve:
    """What a certified share is made of: each case's radius and what it counts when certified.

    Attributes:
        task: of the measurements it belongs to.
        metric: its name.
        radii: ours, in the network's pixels, (C,).
        credits: 1 where the answer is right, or the share of votes for it, (C,).
    """

    task: str
    metric: str
    radii: Float64[np.ndarray, " C"]
    credits: Float64[np.ndarray, " C"]

    def shares(self, at: Float64[np.ndarray, " P"]) -> Float64[np.ndarray, " P"]:
        """The certified share at each of these budgets, (P,)."""
        order = np.argsort(self.radii)
        # What counts from each place of the ascending radii on; nothing after the last.
        beyond = np.append(np.cumsum(self.credits[order][::-1])[::-1], 0.0)
        places = np.searchsorted(self.radii[order], at, side="right")
        return beyond[places] / max(1, self.radii.size)

    def right_radii(self) -> Float64[np.ndarray, " R"]:
        """The finite radii of the cases that count at all, (R,)."""
        return self.radii[(self.credits > 0.0) & np.isfinite(self.radii)]


@dataclass(frozen=True)
class Results:
    """One run of an evaluation.

    Attributes:
        command: the command line.
        seed: of the edits.
        limit: how many pictures or triplets were taken; None for all.
        split: the part of the data; None for the usual one of its layout.
        data: by what it is: pictures, triplets.
        metrics: what is known of each, in the order of the command line.
        measurements: every number.
        curves: radii for the plots.
    """

    command: str
    seed: int
    limit: int | None
    split: str | None
    data: Mapping[str, DataIdentity]
    metrics: Sequence[Mapping[str, Any]]
    measurements: Sequence[Measurement]
    curves: Sequence[RadiusCurve] = ()

    def record(self) -> dict[str, Any]:
        """All of it as JSON; docs/evaluation.md has the schema."""
        return {
            "schema": SCHEMA,
            "command": self.command,
            "seed": self.seed,
            "limit": self.limit,
            "split": self.split,
            "versions": versions(),
            "data": {what: identity.record() for what, identity in self.data.items()},
            "metrics": [dict(metric) for metric in self.metrics],
            "measurements": [_without_defaults(one) for one in self.measurements],
            "radii": [_curve_record(curve) for curve in self.curves],
        }


def identify(name: str, digests: Sequence[str]) -> DataIdentity:
    """The identity of a set of files, from the sha256 of each in hex."""
    hashes = tuple(sorted(digests))
    return DataIdentity(name, len(hashes), hashlib.sha256(_lines(hashes)).hexdigest(), hashes)


def check_hashes(origins: Sequence[str], path: Path, *, is_part: bool) -> None:
    """Refuse pictures that are not those of a list.

    Args:
        origins: sha256 of each picture, or of the file it was made of.
        path: the list; the first word of a line is a hash.
        is_part: the pictures may be some of them.

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


def write_results(
    results: Results, directory: Path, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write `results.json`, with what is extra, and the lists of file hashes; returns the JSON."""
    record = {**results.record(), **(extra or {})}
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, allow_nan=False)
    write_aside(directory / "results.json", text.encode() + b"\n")
    for what, identity in results.data.items():
        write_aside(directory / f"{what}.sha256.txt", _lines(identity.hashes))
    return record


def write_aside(path: Path, data: bytes) -> None:
    """Write a file under another name and rename it, so that nobody reads a part of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _lines(hashes: Sequence[str]) -> bytes:
    return "".join(f"{digest}\n" for digest in hashes).encode()


def _without_defaults(measurement: Measurement) -> dict[str, Any]:
    """The fields that say something; infinite values become null."""
    fields = asdict(measurement)
    kept = {name: value for name, value in fields.items() if value not in (None, "")}
    return {**kept, "value": _finite(measurement.value)}


def _curve_record(curve: RadiusCurve) -> dict[str, Any]:
    """The curve at a hundred and one quantiles of its radii: enough to draw it again."""
    right = curve.right_radii()
    radii = np.quantile(right, np.linspace(0.0, 1.0, 101)) if right.size else right
    return {
        "task": curve.task,
        "metric": curve.metric,
        "unit": "input",
        "formula": "ours",
        "radii": radii.tolist(),
        "shares": curve.shares(radii).tolist(),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
