"""A search for many results among near-equal rows against the same in random rows: CPU time.

    python benchmarks/near_equal.py [--rows N] [--k K]

Frames of a fixed camera, scans of blank forms, a poisoner's gallery: there float32 proves no
ranking, so the search scores every row, and squared distances cancel. `clusters` are twenty groups
of such rows. One thread; the least of a few repeats, in turns.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse

import numpy as np
from search import ArrayIndex, Query, cpu_seconds

from index_builder.search.certified import certified_search

DIMENSION = 512
SPREAD = 1e-4


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def galleries(count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Galleries by name, and a query near the middle of the near-equal one."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(count, DIMENSION)) / np.sqrt(DIMENSION)
    centres = unit(rng.normal(size=(20, DIMENSION))).astype(np.float64)
    of = rng.integers(20, size=count)
    query = centres[0] + 0.5 * rng.normal(size=DIMENSION) / np.sqrt(DIMENSION)
    rows = {
        "random": unit(noise),
        "near-equal": unit(centres[0] + SPREAD * noise),
        "clusters": unit(centres[of] + SPREAD * noise),
    }
    return rows, query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rows, query = galleries(options.rows)
    indexes = {name: ArrayIndex(vectors) for name, vectors in rows.items()}
    seconds: dict[str, float] = dict.fromkeys(indexes, np.inf)
    for _ in range(options.repeats):
        for name, index in indexes.items():

            def search(index: ArrayIndex = index) -> None:
                certified_search(index, [Query(query)], lipschitz_bound=1.0, k=options.k)

            seconds[name] = min(seconds[name], cpu_seconds(search))
    print(f"{options.rows:,} x {DIMENSION}, k = {options.k}")
    for name, taken in seconds.items():
        print(f"  {name:<12}{taken:8.3f} s of CPU {taken / seconds['random']:8.1f} x random")


if __name__ == "__main__":
    main()
