import hashlib
import os
import shutil
import subprocess

import pytest
from corpus_tools import folder_of_drawings, recipe

from model.errors import CorpusError
from model.train.corpus.build import build_corpus
from model.train.corpus.packages import unpack
from model.train.corpus.recipe import Package, Source

HAS_TOOLS = shutil.which("dpkg-deb") is not None


def make_deb(folder, name="tiny-pictures", version="1:2.0-1"):
    """A real package of drawings with its copyright file; where there is no dpkg-deb, any bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = folder / "tree"
    folder_of_drawings(tree / "usr/share/pictures", 20)
    (tree / f"usr/share/doc/{name}").mkdir(parents=True)
    (tree / f"usr/share/doc/{name}/copyright").write_text("Files: *\nLicense: CC0-1.0\n")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: drawings\n"
    )
    deb = folder / f"{name}_{version.replace(':', '%3a')}_all.deb"
    if HAS_TOOLS:
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", tree, deb],
            check=True, capture_output=True,
        )  # fmt: skip
    else:
        deb.write_bytes(b"no tools")
    shutil.rmtree(tree)
    return deb


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def failed_without_tools(package, cache):
    """Where Debian's tools are missing, that is what is said; the rest cannot be asked."""
    if HAS_TOOLS:
        return False
    with pytest.raises(CorpusError, match="this machine has no dpkg-deb"):
        unpack(package, cache)
    return True


def test_a_package_in_the_cache_becomes_a_source_with_its_licence(tmp_path):
    deb = make_deb(tmp_path / "cache" / "debs")
    package = Package(name="tiny-pictures", version="1:2.0-1", sha256=digest(deb))
    if failed_without_tools(package, tmp_path / "cache"):
        return
    source = Source(
        name="drawings",
        licence="CC0-1.0",
        package="tiny-pictures",
        root="usr/share/pictures",
        licence_file="usr/share/doc/tiny-pictures/copyright",
        shares={"train": 0.5, "test": 0.5},
    )
    out = tmp_path / "out"
    chosen = recipe(source, packages=(package,))
    manifest = build_corpus(out, chosen, tmp_path / "cache", workers=1)
    assert manifest["packages"] == [
        {
            "name": "tiny-pictures",
            "version": "1:2.0-1",
            "sha256": digest(deb),
            "size_bytes": deb.stat().st_size,
            "is_recorded": True,
        }
    ]
    assert manifest["counts"]["test"]["by_source"]["drawings"] > 0
    assert "License: CC0-1.0" in (out / "licences/drawings.txt").read_text()


def test_an_unpacked_package_is_used_again(tmp_path):
    deb = make_deb(tmp_path / "debs")
    package = Package(name="tiny-pictures", version="1:2.0-1", sha256=digest(deb))
    if failed_without_tools(package, tmp_path):
        return
    first = unpack(package, tmp_path)
    marker = first.directory / "marker"
    marker.write_text("still here")
    assert unpack(package, tmp_path) == first
    assert marker.exists()
    assert [path.name for path in (tmp_path / "extracted").iterdir()] == [first.directory.name]


def test_another_version_is_used_and_said_to_be(tmp_path):
    deb = make_deb(tmp_path / "debs", version="3.0")
    package = Package(name="tiny-pictures", version="1:2.0-1", sha256="0" * 64)
    if failed_without_tools(package, tmp_path):
        return
    found = unpack(package, tmp_path)
    assert (found.version, found.sha256, found.is_recorded) == ("3.0", digest(deb), False)


def test_the_recorded_version_is_preferred_to_another_in_the_cache(tmp_path):
    make_deb(tmp_path / "debs", version="3.0")
    deb = make_deb(tmp_path / "debs")
    package = Package(name="tiny-pictures", version="1:2.0-1", sha256=digest(deb))
    if failed_without_tools(package, tmp_path):
        return
    assert unpack(package, tmp_path).is_recorded


def test_the_recorded_version_with_other_content_is_refused(tmp_path):
    deb = make_deb(tmp_path / "debs")
    package = Package(name="tiny-pictures", version="1:2.0-1", sha256="0" * 64)
    if failed_without_tools(package, tmp_path):
        return
    with pytest.raises(CorpusError, match="delete the file and run again") as error:
        unpack(package, tmp_path)
    assert digest(deb) in str(error.value)
    assert not (tmp_path / "extracted").exists()


def test_a_damaged_package_is_refused_and_half_of_it_never_used(tmp_path):
    deb = make_deb(tmp_path / "debs")
    if HAS_TOOLS:
        deb.write_bytes(deb.read_bytes()[:-200])
    package = Package(name="tiny-pictures")
    if failed_without_tools(package, tmp_path):
        return
    with pytest.raises(CorpusError, match="cannot be unpacked; delete it and run again"):
        unpack(package, tmp_path)
    assert list((tmp_path / "extracted").iterdir()) == []
    deb.write_bytes(b"no package")
    with pytest.raises(CorpusError, match="is no Debian package; delete it"):
        unpack(package, tmp_path)


def test_a_package_that_cannot_be_fetched_says_what_to_do_in_one_line(tmp_path):
    package = Package(name="no-such-package-of-pictures", version="1.0", sha256="0" * 64)
    with pytest.raises(CorpusError) as error:
        unpack(package, tmp_path)
    said = str(error.value)
    assert "\n" not in said
    assert "run `apt-get update`, or put its .deb into" in said
    assert list((tmp_path / "debs").iterdir()) == []


@pytest.mark.parametrize("offered", ["1:2.0-1", "3.0"])
def test_the_recorded_version_is_asked_for_first_then_the_one_on_offer(
    tmp_path, monkeypatch, offered
):
    """A stand-in for the archive only: it has one version, and everything else is real."""
    deb = make_deb(tmp_path / "archive", version=offered)
    tool = tmp_path / "bin" / "apt-get"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        f'case "$2" in tiny-pictures|"tiny-pictures={offered}") cp {deb} . ;;\n'
        '*) echo "E: Version not found" >&2; exit 100 ;; esac\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    package = Package(
        name="tiny-pictures", version="1:2.0-1", sha256=digest(deb) if offered == "1:2.0-1" else ""
    )
    if failed_without_tools(package, tmp_path / "cache"):
        return
    assert unpack(package, tmp_path / "cache").version == offered
    asked = (tmp_path / "asked").read_text().splitlines()
    wanted = ["download tiny-pictures=1:2.0-1", "download tiny-pictures"]
    assert asked == wanted[: 1 if offered == "1:2.0-1" else 2]
