"""Debian packages fetched and unpacked into a cache: no root, nothing installed."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from model.cli.files import sha256_of, write_aside
from model.errors import CorpusError
from model.train.corpus.recipe import Package


class Unpacked(NamedTuple):
    """A package lying in the cache: its .deb, what is inside it, and if it is the recipe's."""

    name: str
    version: str
    sha256: str
    size_bytes: int
    is_recorded: bool
    directory: Path


def unpack(package: Package, cache: Path) -> Unpacked:
    """The package unpacked in the cache, fetched where it is not there yet.

    `apt-get download` checks the file against the signed lists of the distribution. Another version
    than the recipe's is used, and said to be; the recorded version with another content is refused.

    Raises:
        CorpusError: it cannot be fetched or unpacked, or its content is not the one recorded.
    """
    debs = cache / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    deb = _find(package, debs) or _download(package, debs)
    version, sha256 = _version(deb), sha256_of(deb)
    if package.sha256 and version == package.version and sha256 != package.sha256:
        raise CorpusError(
            f"{deb} has sha256 {sha256}, the recipe records {package.sha256} for this version; "
            "delete the file and run again"
        )
    is_recorded = (version, sha256) == (package.version, package.sha256)
    directory = cache / "extracted" / f"{package.name}-{sha256[:16]}"
    if not directory.is_dir():
        directory.parent.mkdir(exist_ok=True)
        advice = f"{deb} cannot be unpacked; delete it and run again, and see that there is room"
        with write_aside(directory) as aside:
            _run(["dpkg-deb", "--extract", str(deb), str(aside)], advice)
    return Unpacked(package.name, version, sha256, deb.stat().st_size, is_recorded, directory)


def _version(deb: Path) -> str:
    advice = f"{deb} is no Debian package; delete it and run again"
    return _run(["dpkg-deb", "--field", str(deb), "Version"], advice).strip()


def _find(package: Package, debs: Path) -> Path | None:
    """The package's file in the cache: the recorded version's, else the last by name."""
    found = sorted(debs.glob(f"{package.name}_*.deb"))
    recorded = [one for one in found if package.version and _version(one) == package.version]
    return next(iter(recorded or found[::-1]), None)


def _download(package: Package, debs: Path) -> Path:
    """Fetch the recorded version, or the one on offer where that is gone."""
    advice = (
        f"package {package.name} cannot be fetched: run `apt-get update`, or put its .deb into "
        f"{debs}"
    )
    with tempfile.TemporaryDirectory(dir=debs, prefix=".fetching-") as aside:
        wanted = [f"{package.name}={package.version}"] if package.version else []
        for name in [*wanted, package.name]:
            try:
                _run(["apt-get", "download", name], advice, Path(aside))
                break
            except CorpusError:
                if name == package.name:
                    raise
        fetched = next(Path(aside).glob("*.deb"))
        return fetched.rename(debs / fetched.name)


def _run(command: list[str], advice: str, directory: Path | None = None) -> str:
    """What a Debian tool prints; its failure is the advice and its own last line."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(  # noqa: S603 (fixed commands; names are the caller's own recipe's)
            command, cwd=directory, capture_output=True, text=True, check=True, env=environment
        ).stdout
    except FileNotFoundError as exc:
        raise CorpusError(f"{advice} (this machine has no {command[0]})") from exc
    except subprocess.CalledProcessError as exc:
        said = exc.stderr.strip().splitlines() or ["no reason given"]
        raise CorpusError(f"{advice} ({said[-1]})") from exc
