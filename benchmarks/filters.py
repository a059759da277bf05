"""A filtered search against the same search without a filter: ratios of CPU time, side by side.

    python benchmarks/filters.py [--entries N] [--dimension D] [--repeats R]

One thread. The gallery and the queries are those of `search.py`; which items pass is drawn by lot.
First searches whose set of items is known, at several shares of the gallery; then what a clause
costs that nobody asked before, over one scan. Each ratio is the least time of one side over the
least of the other, taken in turns.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from search import ArrayIndex, K, Query, clustered, cpu_seconds

from index_builder.filters.evaluate import FilterCache, passing_items
from index_builder.filters.language import parse_filter
from index_builder.search.certified import certified_search
from index_builder.search.filtered import FilteredIndex
from index_builder.store.columns import Columns, ColumnsWriter

WANTED = {0.001: 0.1, 0.01: 0.25, 0.1: 1.1, 0.5: 1.3, 0.9: 1.3}
CLAUSE_WANTED = 0.3
SHARE = {"key": "lot", "range": {"lt": 0.1}}
CLAUSES = {
    "value of a text": {"key": "label", "match": {"value": "label 7"}},
    "any of 20 texts": {"key": "label", "match": {"any": [f"label {n}" for n in range(20)]}},
    "text that begins so": {"key": "label", "match": {"text_prefix": "label 1"}},
    "except": {"key": "label", "match": {"except": ["label 7"]}},
    "range of a million numbers": SHARE,
    "value of a list": {"key": "tags", "match": {"value": "tag 3"}},
    "is_empty": {"is_empty": {"key": "tags"}},
}


class Gallery(ArrayIndex):
    """The array with columns of its own, as far as filters look at a version."""

    def __init__(self, vectors: np.ndarray, columns: Columns) -> None:
        super().__init__(vectors)
        self.manifest = SimpleNamespace(ids=len(vectors), seal="benchmark", entries=len(vectors))
        self._columns = columns

    @property
    def columns(self) -> Columns:
        """Those that were made for this benchmark."""
        return self._columns


def make_columns(path: Path, lots: np.ndarray) -> Columns:
    """Metadata of a million items: a number of their own, one of a thousand texts, some tags."""
    rng = np.random.default_rng(11)
    labels, tags = rng.integers(1000, size=lots.size), rng.integers(50, size=(lots.size, 2))
    writer = ColumnsWriter()
    for entry, (lot, label, own) in enumerate(
        zip(lots.tolist(), labels.tolist(), tags.tolist(), strict=True)
    ):
        said = {"lot": lot, "label": f"label {label}", "tags": [f"tag {tag}" for tag in own]}
        writer.add(entry, said)
    writer.write(path).close()
    return Columns.open(path, ids=lots.size, entries=lots.size)


def least(works: dict[str, object], repeats: int) -> dict[str, float]:
    """The least CPU time of each, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(cpu_seconds(work))
    return {name: min(found) for name, found in times.items()}


def measure_shares(index: Gallery, queries: np.ndarray, batch: int, repeats: int) -> float:
    """Print the ratio of each share, and give the time of the search without a filter."""
    cache = FilterCache(1 << 24)
    filters = {
        share: parse_filter({"must": [{"key": "lot", "range": {"lt": share}}]}) for share in WANTED
    }
    turns: dict[float | None, int] = {}

    def search(share: float | None) -> None:
        turns[share] = turns.get(share, -1) + 1  # Each share is asked the same.
        start = turns[share] * batch % (len(queries) - batch + 1)
        asked = [Query(vector) for vector in queries[start : start + batch]]
        part = index if share is None else FilteredIndex.of(index, filters[share], cache)
        certified_search(part, asked, lipschitz_bound=1.0, k=K)

    works = {share: lambda share=share: search(share) for share in (None, *WANTED)}
    for work in works.values():  # fills the cache
        work()
    found = least(works, repeats)
    for share, wanted in WANTED.items():
        ratio = found[share] / found[None]
        print(
            f"{index.vector_count:>9,} x {index.dim}  batch {batch:>2}  share {share:6.1%}"
            f"  without {1e3 * found[None]:8.2f} ms  ratio {ratio:5.2f}  (at most {wanted})"
            f"  {'ok' if ratio <= wanted else 'MISSED'}",
            flush=True,
        )
    return found[None]


def measure_clauses(index: Gallery, scan: float, repeats: int) -> None:
    """Print what clauses cost that no cache knows."""
    filters = {name: parse_filter({"must": [clause]}) for name, clause in CLAUSES.items()}
    works = {
        name: lambda wanted=wanted: passing_items(wanted, index.columns, index.items)
        for name, wanted in filters.items()
    }
    for name, seconds in least(works, repeats).items():
        print(
            f"{name:<28} {1e3 * seconds:7.2f} ms  {seconds / scan:6.3f} of a scan"
            f"  (at most {CLAUSE_WANTED})  {'ok' if seconds <= CLAUSE_WANTED * scan else 'MISSED'}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=6)
    options = parser.parse_args()
    print("one thread; CPU time over the same search without a filter; least of each, in turns")
    gallery, queries = clustered(options.entries, options.dimension, 256)
    with tempfile.TemporaryDirectory() as folder:
        lots = np.random.default_rng(3).random(options.entries)
        columns = make_columns(Path(folder) / "columns.sqlite", lots)
        index = Gallery(gallery, columns)
        index.items = None  # no clause here asks for ids
        scan = measure_shares(index, queries, 1, 2 * options.repeats)
        measure_shares(index, queries, 32, options.repeats)
        measure_clauses(index, scan, options.repeats)
        columns.close()


if __name__ == "__main__":
    main()
