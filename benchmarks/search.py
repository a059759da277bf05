"""Search and certificate against FAISS's flat search alone: ratios of CPU time, side by side.

    python benchmarks/search.py [--quick]

One thread on both sides. FAISS is tuned first, for both: its own threshold leaves batches of 8 to
64 on the slow path, and every ratio would flatter us. The gallery is synthetic: clusters of
clusters whose directions have a power-law spectrum; queries are held-out members. Each ratio is
the least time of one side over the least of the other, taken in turns, so that a busy machine
slows both alike.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from index_builder.search.certified import certified_search
from index_builder.search.faiss_flat import CpuFlatSearch, load_faiss
from index_builder.search.gallery import GalleryIndex
from index_builder.store.vectors import Rows, norm_deviation
from model.certificate.pairs import Candidates

K = 10
BLOCK = 1 << 16


@dataclass(frozen=True)
class Case:
    """One row: a gallery's shape, a batch size, and the ratio the product promises."""

    entries: int
    dimension: int
    batch: int
    promised: float


QUICK = (Case(100_000, 512, 1, 1.25), Case(100_000, 512, 32, 1.7))
LARGE = (Case(1_000_000, 256, 32, 1.15),)


@dataclass(frozen=True)
class Query:
    """An embedding as the embedder would give it."""

    vector: np.ndarray
    gain: float = 0.5
    forward_error: float = 1e-9


class ArrayIndex(GalleryIndex):
    """The production index's search, over an array that no build wrote."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.name = "benchmark"
        self.vectors = vectors
        self.norm_deviation = norm_deviation(vectors)
        self.rows = Rows.of_old(len(vectors))
        self._cpu = self._search = CpuFlatSearch(vectors)
        self._everything = Candidates(
            rows=np.arange(len(vectors)),
            vectors=vectors,
            unseen_score=-np.inf,
            size=len(vectors),
            norm_deviation=self.norm_deviation,
        )

    @property
    def vector_count(self) -> int:
        """Number of rows."""
        return self.vectors.shape[0]

    @property
    def dim(self) -> int:
        """Length of a row."""
        return self.vectors.shape[1]


def clustered(entries: int, dimension: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit float32 rows in clusters of clusters, and raw float64 queries from the same."""
    rng = np.random.default_rng(7)
    spectrum = np.arange(1, dimension + 1) ** -0.5
    centres = np.zeros((1, dimension))
    for clusters, width in ((100, 1.0), (entries // 100, 0.7)):
        parents = centres[rng.integers(centres.shape[0], size=clusters)]
        centres = parents + width * rng.normal(size=(clusters, dimension)) * spectrum

    def members(count: int) -> np.ndarray:
        noise = rng.normal(size=(count, dimension)) * spectrum
        return centres[rng.integers(centres.shape[0], size=count)] + 0.7 * noise

    gallery = np.empty((entries, dimension), dtype=np.float32)
    for start in range(0, entries, BLOCK):
        rows = members(min(BLOCK, entries - start))
        gallery[start : start + BLOCK] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return gallery, members(queries)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(case: Case, gallery: np.ndarray, queries: np.ndarray, repeats: int) -> None:
    """Print one row of the table."""
    faiss = load_faiss()
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexFlatIP(case.dimension)
    flat.add(gallery)
    index = ArrayIndex(gallery)
    ours: list[float] = []
    search: list[float] = []
    theirs: list[float] = []
    exact: list[bool] = []
    for repeat in range(repeats):
        batch = np.roll(queries, -repeat * case.batch, axis=0)[: case.batch]
        asked = [Query(vector) for vector in batch]
        single = batch.astype(np.float32)

        def certify(asked: list[Query] = asked) -> None:
            for answer in certified_search(index, asked, lipschitz_bound=1.0, k=K):
                exact.extend(answer.certificate.exact.tolist())

        theirs.append(cpu_seconds(lambda single=single: flat.search(single, K)))
        ours.append(cpu_seconds(certify))
        search.append(cpu_seconds(lambda batch=batch: index.search(batch, 128)))
    ratio = min(ours) / min(theirs)
    print(
        f"{case.entries:>9,} x {case.dimension}  batch {case.batch:>2}"
        f"  flat {1e3 * min(theirs):8.2f} ms  search m=128 {min(search) / min(theirs):5.2f}"
        f"  search + certificate {ratio:5.2f}  (at most {case.promised})"
        f"  exact {np.mean(exact):.3f}"
        f"  {'ok' if ratio <= case.promised else 'MISSED'}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the million rows")
    parser.add_argument("--repeats", type=int, default=12)
    options = parser.parse_args()
    print("one thread; CPU time over tuned IndexFlatIP k = 10; least of each, in turns")
    for cases in (QUICK,) if options.quick else (QUICK, LARGE):
        gallery, queries = clustered(cases[0].entries, cases[0].dimension, 256)
        for case in cases:
            measure(case, gallery, queries, options.repeats * (4 if case.batch == 1 else 1))
        threshold = load_faiss().cvar.distance_compute_blas_threshold
        print(f"           (distance_compute_blas_threshold = {threshold})", flush=True)


if __name__ == "__main__":
    main()
