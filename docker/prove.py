"""Proves a Dockerfile on a machine without Docker: runs each step, then the image.

    python docker/prove.py docker/cpu.Dockerfile      (root, Debian's debootstrap; minutes, 5 GB)
    python docker/prove.py docker/gpu.Dockerfile --build-only --skip 'runtime-gpu|...'

The base image is stood in for by a small Debian of the same release with Debian's Python 3.11, so
this proves our steps and our settings, not the base's bytes. Root file system, namespaces, user,
capabilities and signals are the kernel's own, as in a container.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from claims import REPOSITORY, Proof, check_contents, check_settings, prove_service, prove_training
from dockerfile import read_dockerfile
from rootfs import size_mb
from stages import Builder, Image, inside


def main() -> None:
    """Build each target, look at it, and run it."""
    given = _arguments()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise SystemExit("root and Debian's debootstrap are needed (apt-get install debootstrap)")
    given.work.mkdir(parents=True, exist_ok=True)
    builder = Builder(read_dockerfile(given.file), REPOSITORY, given.work, skip=given.skip)
    proof = Proof()
    try:
        for target in given.target:
            began = time.monotonic()
            image = builder.build(target)
            print(f"\nbuilt in {time.monotonic() - began:.0f} s")
            _report(target, given.work, image)
            _prove(proof, target, image, build_only=given.build_only)
            builder.drop(target)
    finally:
        if not given.keep:
            shutil.rmtree(given.work)
    for step in builder.not_run:
        print(f"NOT RUN: {step}")
    left = len(builder.not_run)
    print(f"{given.file.name}: {proof.held} claims held, {left} steps not run")


def _prove(proof: Proof, target: str, image: Image, *, build_only: bool) -> None:
    check_settings(proof, image)
    if build_only:
        return
    check_contents(proof, image)
    (prove_service if target == "service" else prove_training)(proof, image)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--target", nargs="+", default=["service", "training"])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "images")
    parser.add_argument(
        "--skip", help="RUN steps that match this expression are not run, and named"
    )
    parser.add_argument("--build-only", action="store_true", help="start nothing")
    parser.add_argument("--keep", action="store_true", help="leave the folders where they are")
    return parser.parse_args()


def _report(target: str, work: Path, image: Image) -> None:
    whole, base = size_mb(image.root), size_mb(work / "debian")
    ours = whole - base
    print(f"{target}: {whole:.0f} MB, the stand-in base {base:.0f} MB, on top of it {ours:.0f} MB")
    site = inside(image.root, "/opt/venv/lib/python3.11/site-packages")
    if site.is_dir():
        largest = sorted(((size_mb(p), p.name) for p in site.iterdir()), reverse=True)[:6]
        print("largest packages: " + ", ".join(f"{name} {size:.0f} MB" for size, name in largest))


if __name__ == "__main__":
    sys.exit(main())
