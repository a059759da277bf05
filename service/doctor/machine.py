"""The machine and its libraries: torch, FAISS, cores, open files, memory, disk, clock."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch

from index_builder.errors import GalleryIndexError
from index_builder.search.faiss_flat import load_faiss
from index_builder.search.gallery import list_indexes
from index_builder.store.layout import existing_version, index_paths, read_current
from index_builder.store.manifest import Manifest, read_manifest
from model.cli.threads import usable_cores
from model.errors import DependencyError
from service.doctor.checks import Finding, failed, ok, warning
from service.http.server import RESERVED_FILES

_GIBIBYTE = 1 << 30
_PROBE_S = 120.0
# Measured: what a decode process holds idle, and the service itself with its model.
_DECODER_BYTES = 45 << 20
_SERVICE_BYTES = 700 << 20
_CLOCK_SLACK_S = 300.0
# Nothing of ours is older: a clock that says less has lost its battery.
_BORN = datetime(2026, 1, 1, tzinfo=UTC)


def check_torch() -> Finding:
    """Which build of torch this is; the network runs on the CPU whichever it is."""
    found = f"Python {platform.python_version()}, torch {torch.__version__}"
    if torch.version.cuda is not None and not torch.cuda.is_available():
        return warning(
            f"{found} is a CUDA build, and finds no device",
            "the network runs on the CPU anyway: install the CPU build, several GB smaller",
        )
    return ok(f"{found}, {'CPU' if torch.version.cuda is None else 'CUDA'} build")


def check_faiss() -> Iterator[Finding]:
    """FAISS is there, once, and finds what a plain scan finds, on the CPU or on its GPUs."""
    try:
        faiss = load_faiss()
    except DependencyError as error:
        yield failed(str(error), "install exactly one of the extras [cpu] and [gpu]")
        return
    count = getattr(faiss, "get_num_gpus", lambda: 0)()
    where = f"{count} GPU(s)" if count else "the CPU"
    if count == 0 and torch.cuda.is_available():
        yield warning(
            "FAISS searches on the CPU, and there is a GPU",
            "pip uninstall -y faiss-cpu, then pip install 'lipsim-retrieval[gpu]'",
        )
    # In a process of its own: a GPU without kernels can end it.
    # With our path: its own would begin with the folder that one happens to be in.
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        "from service.doctor.faiss_probe import probe_faiss; probe_faiss()"
    )
    try:
        done = subprocess.run(  # noqa: S603 (a fixed program)
            [sys.executable, "-P", "-c", program],
            capture_output=True,
            timeout=_PROBE_S,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield failed(
            f"FAISS {faiss.__version__} on {where} did not end a small search in {_PROBE_S:g} s",
            "install faiss-cpu again",
        )
        return
    if done.returncode == 0:
        yield ok(f"FAISS {faiss.__version__} on {where} finds what a plain scan finds")
        return
    why = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it says nothing"]
    yield failed(
        f"FAISS {faiss.__version__} on {where} failed a small search "
        f"(exit {done.returncode}): {why[0]:.200}",
        "its build has no kernels for this GPU: install faiss-cpu instead, or set "
        "CUDA_VISIBLE_DEVICES= to the empty string"
        if count
        else "install faiss-cpu again",
    )


def check_threads(workers: int, threads_per_worker: int) -> Finding:
    cores = usable_cores()
    wanted = workers * threads_per_worker
    says = f"{workers} workers x {threads_per_worker} threads on {cores:g} usable cores"
    if wanted > 2 * cores:
        return warning(says, "set LIPSIM_WORKERS to the number of cores: more wait for each other")
    return ok(says)


def check_open_files(max_connections: int) -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft - RESERVED_FILES >= max_connections:
        return ok(f"{soft} open files allowed, {max_connections} connections wanted")
    allowed = max(1, soft - RESERVED_FILES)
    return warning(
        f"{soft} open files leave room for {allowed} of {max_connections} connections",
        f"raise the limit to {max_connections + RESERVED_FILES} (ulimit -n, LimitNOFILE=)",
    )


def check_memory(workers: int, *, image_bytes: int, body_bytes: int, data_dir: Path) -> Finding:
    """Free memory against what the service may come to hold at the worst moment.

    Args:
        workers: decode processes; at that moment each has the largest image allowed in work.
        image_bytes: what one image may take there, as its process is bounded by the kernel.
        body_bytes: all bodies together.
        data_dir: its indexes are held as well.
    """
    indexes = sum(_vectors_bytes(data_dir))
    images = workers * (_DECODER_BYTES + image_bytes)
    wanted = _SERVICE_BYTES + images + body_bytes + indexes
    free = _free_memory()
    says = (
        f"{free / _GIBIBYTE:.1f} GiB free, up to {wanted / _GIBIBYTE:.1f} GiB wanted "
        f"({images / _GIBIBYTE:.1f} by {workers} of the largest images at once, "
        f"{indexes / _GIBIBYTE:.1f} by indexes)"
    )
    if free < wanted:
        return warning(
            says,
            "lower LIPSIM_WORKERS, LIPSIM_MAX_IMAGE_PIXELS or LIPSIM_MAX_BODY_BYTES_HELD, or add "
            "memory",
        )
    return ok(says)


def check_disk(data_dir: Path) -> Finding:
    """Free space: a rebuild writes the next version beside the one that serves."""
    place = next(p for p in (data_dir.absolute(), *data_dir.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    wanted = max([_GIBIBYTE, *(2 * size for size in _vectors_bytes(data_dir))])
    says = f"{free / _GIBIBYTE:.1f} GiB free where the indexes are"
    if free < wanted:
        return warning(
            f"{says}, a rebuild may take {wanted / _GIBIBYTE:.1f}",
            "free space, or `python -m index_builder prune`",
        )
    return ok(says)


def check_clock(data_dir: Path) -> Finding:
    """The clock is not before what was written here already."""
    now = datetime.now(UTC)
    if now < _BORN:
        return failed(f"the clock says {now:%Y-%m-%d}", "set the clock: start an NTP client")
    for manifest in _manifests(data_dir):
        created = datetime.fromisoformat(manifest.created)
        if (created - now).total_seconds() > _CLOCK_SLACK_S:
            return warning(
                f"the clock says {now:%Y-%m-%d %H:%M}, an index was written at {created}",
                "set the clock here, or on the machine that built the index",
            )
    return ok(f"{now:%Y-%m-%dT%H:%M:%SZ}")


def _manifests(data_dir: Path) -> Iterator[Manifest]:
    """Those of the versions in service, as far as they can be read."""
    try:
        names = list_indexes(data_dir)
    except OSError:
        return
    for name in names:
        try:
            paths = index_paths(data_dir, name)
            yield read_manifest(existing_version(paths, read_current(paths).version))
        except (GalleryIndexError, OSError):
            continue  # The check of the indexes says so.


def _vectors_bytes(data_dir: Path) -> list[int]:
    return [4 * manifest.vector_count * manifest.dim for manifest in _manifests(data_dir)]


def _free_memory() -> float:
    """Bytes that may still be taken: the machine's, or the container's if that is less."""
    lines = _read(Path("/proc/meminfo")).splitlines()
    free = float("inf")
    for line in lines:
        if line.startswith("MemAvailable:"):
            free = 1024.0 * int(line.split()[1])
    most, used = (
        _read(Path(f"/sys/fs/cgroup/memory.{name}")).strip() for name in ("max", "current")
    )
    if most.isdecimal() and used.isdecimal():
        free = min(free, float(int(most) - int(used)))
    return free


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
