"""Debian packages fetched and unpacked into a cache: no root, nothing installed."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from model.cli.files import sha256_of, write_aside
from model.errors import CorpusError
from model.train.corpus.recipe import Package


@dataclass(frozen=True)
class Unpacked:
    """A package lying in the cache.

    Attributes:
        name: of the package.
        version: that was found.
        sha256: of its .deb.
        size_bytes: of its .deb.
        directory: what is inside it.
        is_recorded: version and sha256 are those of the recipe.
    """

    name: str
    version: str
    sha256: str
    size_bytes: int
    directory: Path
    is_recorded: bool


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
    version = deb_version(deb)
    sha256 = sha256_of(deb)
    if package.sha256 and version == package.version and sha256 != package.sha256:
        raise CorpusError(
            f"{deb} has sha256 {sha256}, the recipe records {package.sha256} for this version; "
            "delete the file and run again"
        )
    directory = _extract(deb, cache / "extracted" / f"{package.name}-{sha256[:16]}")
    is_recorded = (version, sha256) == (package.version, package.sha256)
    return Unpacked(package.name, version, sha256, deb.stat().st_size, directory, is_recorded)


def deb_version(deb: Path) -> str:
    """The version a .deb states.

    Raises:
        CorpusError: it is no package.
    """
    return _run(
        ["dpkg-deb", "--field", str(deb), "Version"],
        f"{deb} is no Debian package; delete it and run again",
    ).strip()


def _find(package: Package, debs: Path) -> Path | None:
    """The package's file in the cache: the recorded version's, else the last by name."""
    found = sorted(debs.glob(f"{package.name}_*.deb"))
    recorded = [one for one in found if package.version and deb_version(one) == package.version]
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
        fetched = next(Path(aside).glob("*.deb"), None)
        if fetched is None:
            raise CorpusError(advice)
        return fetched.rename(debs / fetched.name)


def _extract(deb: Path, directory: Path) -> Path:
    """The content of a .deb, written aside and renamed, so that what is there is whole."""
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    advice = f"{deb} cannot be unpacked; delete it and run again, and see that the disk has room"
    with write_aside(directory) as aside:
        _run(["dpkg-deb", "--extract", str(deb), str(aside)], advice)
    return directory


def _run(command: list[str], advice: str, directory: Path | None = None) -> str:
    """What a Debian tool prints; its failure is the advice and its own last line."""
    if shutil.which(command[0]) is None:
        raise CorpusError(f"{advice} (this machine has no {command[0]})")
    done = subprocess.run(  # noqa: S603 (fixed commands; names come from the caller's own recipe)
        command,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise CorpusError(f"{advice} ({said[-1].strip() if said else 'no reason given'})")
    return done.stdout
