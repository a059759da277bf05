"""What a certificate by randomised smoothing costs and proves, beside ours, on the same queries.

    python benchmarks/smoothing.py [--queries 12] [--samples 200] [--sigma 0.25] [--alpha 0.001]
        [--metric teacher:efficientnet-lite0@96] [--metric wave-96]

Queries are edited copies of gallery pictures, all squashed to the same 96 x 96 square, whose pixels
every radius is counted in. Smoothing asks the metric about `samples` noised copies of a query and
proves, but for a chance alpha, how far the entry it finds most often stays that. RetrievalGuard
(Wu, Zhang and Huang 2022) takes 100,000 samples a query; the cost of so many is extrapolated from
those drawn here, and says so. Our certificate is one float64 pass and one scan of the gallery.

The teacher was not trained with noise, as RetrievalGuard's own network is, so its radii are what
smoothing gives a network as it comes; the cost does not depend on training.

CPU seconds, one thread.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.smoothed_search import SmoothedSearch, largest_radius
from index_builder.store.vectors import norm_deviation
from model.certificate.pairs import Candidates
from model.certificate.search import certify_search
from model.cli.threads import limit_threads
from model.data.edits import edit, query_kinds
from model.data.pictures import open_pictures
from model.metrics.load import load_metric
from model.metrics.metric import DifferentiableMetric, squares, unit_rows
from model.metrics.ours import EmbedderMetric

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"
PUBLISHED_SAMPLES = 100_000
SIDE = 96
EPSILONS = (0.141, 0.5, 1.0)


@dataclass
class Query:
    """An edited copy of a gallery picture: its square, the original's entry, the kind of edit."""

    square: np.ndarray
    entry: int
    kind: str


@dataclass
class Outcome:
    """One certificate: the entry it is about, its radius, what it cost."""

    entry: int | None
    radius: float
    forwards: int
    seconds: float
    note: str = ""


def main() -> None:
    """Both certificates for each query, then what they cost."""
    options = _options()
    sys.stdout.reconfigure(line_buffering=True)
    limit_threads(1)
    rng = np.random.default_rng([options.seed, 0])
    pictures = [picture.pixels() for picture in map(open_pictures(GALLERY).__getitem__, _all())]
    queries = _queries(pictures, options.queries, rng)
    ours = load_metric("wave-96")
    assert isinstance(ours, EmbedderMetric)
    names = options.metric or ["teacher:efficientnet-lite0@96"]
    proved = _certify(ours, unit_rows(ours.embed(pictures)), queries)
    print(f"{len(pictures)} entries, {len(queries)} queries, radii in pixels of {SIDE} x {SIDE}")
    print(f"\n{ours.name}, certified: one pass each")
    _show(queries, proved)
    for name in names:
        metric = load_metric(name)
        if not isinstance(metric, DifferentiableMetric) or metric.input_size != SIDE:
            raise SystemExit(f"{name} does not look at {SIDE} x {SIDE} pixels")
        gallery = unit_rows(metric.embed(pictures))
        print(f"\n{metric.name} without noise: {_right(metric, gallery, queries):.2f} right")
        for sigma in options.sigma or [0.25]:
            smoothed = _smooth(metric, gallery, queries, sigma, options)
            print(
                f"{metric.name}, smoothed: sigma {sigma:g}, {options.selection} +"
                f" {options.samples} samples, alpha {options.alpha:g}; radius at most"
                f" {largest_radius(options.samples, sigma, options.alpha):.3f}, with"
                f" {PUBLISHED_SAMPLES} samples {_limit(sigma, options.alpha):.3f}"
            )
            _show(queries, smoothed)
            _compare(proved, smoothed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=12, help="12 meet every kind of edit")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--selection", type=int, default=50, help="samples that choose the entry")
    parser.add_argument("--sigma", type=float, action="append", help="repeatable")
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--metric", action="append", help="what is smoothed; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _all() -> range:
    return range(len(open_pictures(GALLERY)))


def _limit(sigma: float, alpha: float) -> float:
    return largest_radius(PUBLISHED_SAMPLES, sigma, alpha)


def _queries(pictures: list[np.ndarray], count: int, rng: np.random.Generator) -> list[Query]:
    found = []
    for number, entry in enumerate(rng.choice(len(pictures), count, replace=False)):
        kind = query_kinds(number)[0]
        square = squares([edit(pictures[entry], kind, rng)], SIDE)[0]
        found.append(Query(square, int(entry), kind))
    return found


def _certify(metric: EmbedderMetric, gallery: np.ndarray, queries: list[Query]) -> list[Outcome]:
    """Our certificate of the first result, in the pixels of the square."""
    rows, deviation = np.arange(len(gallery)), norm_deviation(gallery)
    everything = Candidates(rows, gallery, -np.inf, len(gallery), deviation)
    outcomes = []
    for number, query in enumerate([queries[0], *queries]):  # the first once more, to warm up
        start = time.process_time()
        vector = metric.embedder.embed_pixels(query.square[None])[0]
        answer = certify_search(
            vector,
            everything,
            k=1,
            lipschitz_bound=metric.lipschitz_bound,
            gain=1.0,
            forward_error=metric.forward_error,
        )
        seconds = time.process_time() - start
        if number:
            entry, radius = int(answer.positions[0]), float(answer.certified_radii[0])
            outcomes.append(Outcome(entry, radius, 1, seconds))
    return outcomes


def _right(metric: DifferentiableMetric, gallery: np.ndarray, queries: list[Query]) -> float:
    """Share of queries that the metric as it is finds the original of."""
    with torch.inference_mode():
        vectors = metric.network(torch.tensor(np.stack([q.square for q in queries]))).numpy()
    nearest = (vectors @ gallery.T.astype(np.float64)).argmax(axis=1)
    return float(np.mean(nearest == [query.entry for query in queries]))


def _smooth(
    metric: DifferentiableMetric,
    gallery: np.ndarray,
    queries: list[Query],
    sigma: float,
    options: argparse.Namespace,
) -> list[Outcome]:
    search = SmoothedSearch(metric, gallery, sigma=sigma)
    outcomes = []
    for number, query in enumerate(queries):
        rng = np.random.default_rng([options.seed, 1, number])
        start = time.process_time()
        answer = search.ask(
            query.square,
            samples=options.samples,
            selection=options.selection,
            alpha=options.alpha,
            rng=rng,
        )
        seconds = time.process_time() - start
        forwards = options.samples + options.selection
        note = f"{answer.votes} of {answer.samples} votes"
        outcomes.append(Outcome(answer.entry, answer.radius, forwards, seconds, note))
    return outcomes


def _show(queries: list[Query], outcomes: list[Outcome]) -> None:
    print("  edit      answer     radius  forwards   CPU s")
    for query, outcome in zip(queries, outcomes, strict=True):
        right = {None: "abstains", query.entry: "right"}.get(outcome.entry, "wrong")
        print(
            f"  {query.kind:9s} {right:9s} {outcome.radius:7.3f}  {outcome.forwards:8d}"
            f"  {outcome.seconds:6.3f}  {outcome.note}".rstrip()
        )
    is_right = [q.entry == o.entry for q, o in zip(queries, outcomes, strict=True)]
    radii = np.array([o.radius if r else 0.0 for o, r in zip(outcomes, is_right, strict=True)])
    shares = ", ".join(f"{np.mean(radii >= epsilon):.2f} at {epsilon:g}" for epsilon in EPSILONS)
    print(f"  right {np.mean(is_right):.2f}; right and certified {shares};", end=" ")
    print(f"median radius {np.median(radii):.3f} (0 where not right)")


def _compare(proved: list[Outcome], smoothed: list[Outcome]) -> None:
    one = float(np.median([o.seconds for o in proved]))
    forward = float(np.median([o.seconds / o.forwards for o in smoothed]))
    print(f"  a noised copy costs {1e3 * forward:.1f} ms, our whole certificate {1e3 * one:.1f} ms")
    print(
        f"  {PUBLISHED_SAMPLES} samples a query, extrapolated from those drawn:"
        f" {forward * PUBLISHED_SAMPLES:.0f} CPU s,"
        f" {forward * PUBLISHED_SAMPLES / one:.2g} times our certificate"
    )


if __name__ == "__main__":
    main()
