"""FAISS behind one small interface: the best m rows of a flat float32 matrix, exactly.

CPU: `faiss.knn` over the memory map itself, so the gallery is in memory once. GPU: one flat index a
device, each owned by one worker thread, as FAISS demands. Both score in IEEE float32 with a sum of
d products, which is all the bound on unseen scores relies on.
"""

import importlib
import importlib.metadata
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from model.errors import DependencyError

# From this many queries on, one matrix product beats separate scans: see docs/index-format.md.
BLAS_BATCH = 8
# FAISS's GPU kernels select at most this many.
GPU_MAX_DEPTH = 2048
_GPU_SCRATCH_BYTES = 256 << 20
_DISTRIBUTIONS = ("faiss-cpu", "faiss-gpu")

Found = tuple[Float32[np.ndarray, "B M"], Int64[np.ndarray, "B M"]]


@runtime_checkable
class FlatSearch(Protocol):
    """Exact search over a fixed matrix."""

    @property
    def max_depth(self) -> int:
        """The largest m that `search` takes."""
        ...

    def search(self, queries: Float32[np.ndarray, "B D"], m: int, /) -> Found:
        """Scores and rows of the m largest inner products of each query, best first."""
        ...

    def close(self) -> None: ...


@cache
def load_faiss() -> Any:
    """The FAISS module, once exactly one distribution of it is installed.

    Raises:
        DependencyError: none is installed, or two that overwrite each other's files.
    """
    installed = [name for name in _DISTRIBUTIONS if _is_installed(name)]
    check_distributions(installed)
    try:
        return importlib.import_module("faiss")
    except ImportError as exc:
        raise DependencyError(
            "FAISS cannot be imported: pip install 'lipsim-retrieval[cpu]' (or [gpu])"
        ) from exc


def check_distributions(installed: Sequence[str]) -> None:
    """Refuse two FAISS distributions: they install the same module over each other."""
    if len(installed) > 1:
        raise DependencyError(
            f"{' and '.join(installed)} overwrite each other: pip uninstall -y "
            f"{' '.join(installed)}, then pip install 'lipsim-retrieval[cpu]' (or [gpu])"
        )


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def open_flat_search(vectors: Float32[np.ndarray, "N D"]) -> FlatSearch:
    """Search on every GPU FAISS sees, else on the CPU."""
    faiss = load_faiss()
    # A build without GPU support lacks the symbols below, and some lack the counter too.
    count = getattr(faiss, "get_num_gpus", lambda: 0)()
    if count == 0 or not hasattr(faiss, "StandardGpuResources") or len(vectors) == 0:
        return CpuFlatSearch(vectors)
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "1":
        raise DependencyError(
            "NVIDIA_TF32_OVERRIDE=1 makes the GPU round products to 10 bits, so no search could be "
            "proved exact: unset it"
        )
    parts = np.array_split(vectors, min(count, len(vectors)))
    shards = [GpuFlatSearch(part, device) for device, part in enumerate(parts)]
    return ShardedSearch(shards, [len(part) for part in parts])


class CpuFlatSearch:
    """Scans the matrix where it lies; safe to call from many threads."""

    def __init__(self, vectors: Float32[np.ndarray, "N D"]) -> None:
        self._faiss = load_faiss()
        self._vectors = vectors
        _tune_blas(self._faiss, vectors.shape[1])

    @property
    def max_depth(self) -> int:
        return sys.maxsize

    def search(self, queries: Float32[np.ndarray, "B D"], m: int, /) -> Found:
        depth = min(m, len(self._vectors))
        return self._faiss.knn(queries, self._vectors, depth, self._faiss.METRIC_INNER_PRODUCT)

    def close(self) -> None:
        """Nothing to give back: the matrix is the caller's."""


_tuning_lock = threading.Lock()
_tuned_dim = 0


def _tune_blas(faiss: Any, dim: int) -> None:
    """Let batches of BLAS_BATCH queries or more use one matrix product, smaller ones a scan.

    FAISS compares queries x dim with one number of the whole process; it is set when an index is
    opened, never by a search. With several dimensions open the largest decides, so that no single
    query ever takes the slow way.
    """
    global _tuned_dim  # noqa: PLW0603 (the setting itself is FAISS's global)
    with _tuning_lock:
        if dim > _tuned_dim:
            _tuned_dim = dim
            faiss.cvar.distance_compute_blas_threshold = BLAS_BATCH * dim


class GpuFlatSearch:
    """A flat index on one GPU and the one thread that may touch it."""

    def __init__(self, vectors: Float32[np.ndarray, "N D"], device: int) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"faiss-gpu-{device}")
        self._rows = vectors.shape[0]
        self._index: Any = self._worker.submit(self._build, vectors, device).result()

    @property
    def max_depth(self) -> int:
        return GPU_MAX_DEPTH

    def search(self, queries: Float32[np.ndarray, "B D"], m: int, /) -> Found:
        """Scores and rows, best first; callers wait for their turn on the device."""
        return self._worker.submit(self._index.search, queries, min(m, self._rows)).result()

    def close(self) -> None:
        """Free the device's memory and end the thread."""

        def free() -> None:
            self._index = self._resources = None

        self._worker.submit(free).result()
        self._worker.shutdown()

    def _build(self, vectors: Float32[np.ndarray, "N D"], device: int) -> Any:
        faiss = load_faiss()
        self._resources: Any = faiss.StandardGpuResources()
        self._resources.setTempMemory(_GPU_SCRATCH_BYTES)
        config = faiss.GpuIndexFlatConfig()
        config.device = device
        config.useFloat16 = False
        index = faiss.GpuIndexFlatIP(self._resources, vectors.shape[1], config)
        index.add(np.ascontiguousarray(vectors))
        return index


class ShardedSearch:
    """Several searches over consecutive blocks of rows, merged: as exact as its parts."""

    def __init__(self, shards: Sequence[FlatSearch], sizes: Sequence[int]) -> None:
        self._shards = shards
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._callers = ThreadPoolExecutor(len(shards), thread_name_prefix="faiss-shards")

    @property
    def max_depth(self) -> int:
        return min(shard.max_depth for shard in self._shards)

    def search(self, queries: Float32[np.ndarray, "B D"], m: int, /) -> Found:
        """Scores and rows over all parts, best first; equal scores by row."""

        def search_one(shard: FlatSearch) -> tuple[Any, Any]:
            return shard.search(queries, m)

        found = list(self._callers.map(search_one, self._shards))
        scores = np.concatenate([s for s, _ in found], axis=1)
        rows = np.concatenate(
            [np.where(r >= 0, r + at, -1) for (_, r), at in zip(found, self._starts, strict=True)],
            axis=1,
        )
        scores = np.where(rows >= 0, scores, -np.inf).astype(np.float32)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :m]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)

    def close(self) -> None:
        self._callers.shutdown()
        for shard in self._shards:
            shard.close()
