"""Python, torch, FAISS and Pillow: are they there, once, and new enough."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator

import torch

from index_builder.search.faiss_flat import load_faiss
from model.errors import DependencyError
from service.doctor.findings import Finding, failed, ok, warning
from service.observability.tracing import exporter_of_environment

PACKAGE = "lipsim-retrieval"
_PROBE_S = 120.0


def check_python() -> Iterator[Finding]:
    """The interpreter; older ones cannot even import us."""
    yield ok(f"Python {platform.python_version()} ({sys.executable})")


def check_floors() -> Iterator[Finding]:
    """Every library against the least version that our own package data asks for.

    An older Pillow decodes by other rules, so that one file would have two pixel arrays.
    """
    old: list[str] = []
    for line in importlib.metadata.requires(PACKAGE) or []:
        found = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)\s*$", line)
        if found is None:  # An extra, which may be absent.
            continue
        name, floor = found.groups()
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            old.append(f"{name} is missing")
            continue
        if _numbers(version) < _numbers(floor):
            old.append(f"{name} {version} is older than {floor}")
    if old:
        yield failed("; ".join(old), f"pip install --upgrade {PACKAGE}")
    else:
        pillow = importlib.metadata.version("pillow")
        yield ok(f"every library is new enough (pillow {pillow}, torch {torch.__version__})")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+", 1)[0])[:3])


def check_torch() -> Iterator[Finding]:
    """Which build of torch this is, and whether its CUDA build has kernels for the devices here."""
    built_for = torch.version.cuda
    if built_for is None:
        yield ok(f"torch {torch.__version__}, CPU build")
        return
    if not torch.cuda.is_available():
        yield warning(
            f"torch {torch.__version__} is a CUDA build, and finds no device",
            "the network runs on the CPU anyway: install the CPU build, several GB smaller",
        )
        return
    kernels = torch.cuda.get_arch_list()
    for device in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(device)
        arch = torch.cuda.get_device_capability(device)
        found = f"{name} (sm_{arch[0]}{arch[1]}), torch built for CUDA {built_for}"
        if has_kernels(arch, kernels):
            yield ok(f"{found} has kernels for it")
        else:
            yield warning(
                f"{found} has kernels for {' '.join(kernels)} only",
                "the service runs the network on the CPU; take another build of torch for attacks",
            )


def has_kernels(arch: tuple[int, int], kernels: list[str]) -> bool:
    """Whether a device can run a build.

    Args:
        arch: compute capability, like (9, 0).
        kernels: as torch lists them: sm_80 runs on any 8.x from 8.0 on, compute_80 is compiled
            further for anything later; sm_90a and the like on exactly that.
    """
    for kernel in kernels:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", kernel)
        if found is None:
            continue
        kind, major, minor, exact = found.groups()
        built = (int(major), int(minor))
        if built == arch:
            return True
        if exact:
            continue
        if kind == "compute" and built <= arch:
            return True
        if kind == "sm" and built[0] == arch[0] and built <= arch:
            return True
    return False


def check_tracing(*, wanted: bool) -> Iterator[Finding]:
    """Where traces are wanted, what sends them is there; without it the service does not start."""
    try:
        exporter = exporter_of_environment() if wanted else None
    except DependencyError as error:
        yield failed(str(error), "install the extra `otel`, or drop LIPSIM_TRACING")
        return
    if exporter is None:
        yield ok("no traces are sent")
    else:
        exporter.shutdown()
        yield ok("traces are sent as OTEL_* says")


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
    done = subprocess.run(
        [sys.executable, "-m", "service.doctor.faiss_probe"],
        capture_output=True,
        timeout=_PROBE_S,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
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
