"""Synthetic galleries of every kind a certificate must survive, and exact retrieval from them."""

from dataclasses import replace

import numpy as np

from model.certificate.pairs import Candidates
from model.certificate.rounding import UNIT_ROUNDOFF_32, gamma


def unit_rows(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def isotropic(rng, count, dimension):
    """Gaussian directions, and Gaussian queries."""
    return unit_rows(rng.normal(size=(count, dimension))), rng.normal(size=(16, dimension))


def _clusters(rng, count, dimension, clusters=200):
    """Clusters of clusters, all of whose directions have a power-law spectrum."""
    spectrum = np.arange(1, dimension + 1) ** -0.5
    centres = np.zeros((1, dimension))
    for children, width in ((clusters // 10, 1.0), (clusters, 0.7)):
        parents = centres[rng.integers(centres.shape[0], size=children)]
        centres = parents + width * rng.normal(size=(children, dimension)) * spectrum
    members = centres[rng.integers(centres.shape[0], size=count)]
    return members + 0.7 * rng.normal(size=(count, dimension)) * spectrum


def clustered(rng, count, dimension):
    """Hierarchical clusters; the queries are held-out members of them."""
    rows = _clusters(rng, count + 16, dimension)
    return unit_rows(rows[:count]), rows[count:]


def near_duplicates(rng, count, dimension):
    """Clustered bases with six noisy edits each; the queries are further edits.

    Edits are of relative size 1e-3 to 1e-0.7; two in a hundred rows are exact copies of another.
    """
    bases = _clusters(rng, max(1, count // 7), dimension, clusters=20)
    lengths = np.linalg.norm(bases, axis=1, keepdims=True)

    def edits(of):
        noise = rng.normal(size=(of.size, dimension)) / np.sqrt(dimension)
        return bases[of] + noise * lengths[of] * 10.0 ** rng.uniform(-3.0, -0.7, (of.size, 1))

    of = rng.integers(bases.shape[0], size=count - bases.shape[0])
    rows = unit_rows(np.concatenate((bases, edits(of))))
    copies = rng.integers(count, size=(2, count // 50))
    rows[copies[0]] = rows[copies[1]]
    return rows[rng.permutation(count)], edits(rng.integers(bases.shape[0], size=16))


def copies_only(rng, count, dimension):
    """A handful of distinct rows, each many times over: what collapsing at ingest would remove."""
    distinct = unit_rows(rng.normal(size=(max(1, count // 9), dimension)))
    rows = distinct[rng.integers(distinct.shape[0], size=count)]
    return rows, rng.normal(size=(16, dimension))


def neighbouring_floats(rng, count, dimension):
    """Rows that differ by single float32 steps, far below what a Gram matrix can tell apart."""
    base = unit_rows(rng.normal(size=(1, dimension)))
    rows = np.repeat(base, count, axis=0)
    for row in rows:
        touched = rng.integers(dimension, size=rng.integers(0, 4))
        row[touched] = np.nextafter(row[touched], np.float32(rng.choice([-1.0, 1.0])))
    return rows, base + 0.3 * rng.normal(size=(16, dimension)) / np.sqrt(dimension)


def near_equal(rng, count, dimension):
    """Rows within 1e-4 of one vector, and one in ten anywhere: frames of a camera that stands."""
    base = unit_rows(rng.normal(size=(1, dimension)))
    rows = unit_rows(base + 1e-4 * rng.normal(size=(count, dimension)) / np.sqrt(dimension))
    rows[::10] = unit_rows(rng.normal(size=(len(rows[::10]), dimension)))
    return rows, base + 0.5 * rng.normal(size=(16, dimension)) / np.sqrt(dimension)


def tight_clusters(rng, count, dimension):
    """A few clusters of rows 1e-5 apart, so that no one centre is amid them all."""
    bases = unit_rows(rng.normal(size=(5, dimension)))
    chosen = bases[rng.integers(5, size=count)]
    rows = unit_rows(chosen + 1e-5 * rng.normal(size=(count, dimension)) / np.sqrt(dimension))
    return rows, bases.mean(axis=0) + rng.normal(size=(16, dimension)) / np.sqrt(dimension)


KINDS = {
    "isotropic": isotropic,
    "clustered": clustered,
    "near_duplicates": near_duplicates,
    "copies_only": copies_only,
    "neighbouring_floats": neighbouring_floats,
    "near_equal": near_equal,
    "tight_clusters": tight_clusters,
}


def norm_deviation(gallery):
    if gallery.shape[0] == 0:
        return 0.0
    norms = np.linalg.norm(gallery.astype(np.float64), axis=1)
    return float(np.abs(norms - 1.0).max()) + gamma(gallery.shape[1] + 8)


def everything(gallery, items=None):
    return Candidates(
        rows=np.arange(gallery.shape[0]),
        vectors=gallery,
        unseen_score=-np.inf,
        size=gallery.shape[0],
        norm_deviation=norm_deviation(gallery),
        items=items,
        item_count=None if items is None else int(items.max(initial=-1)) + 1,
    )


def retrieve(query, gallery, m, items=None):
    """The m best rows of a float32 scan, with a bound on the others' scores in real arithmetic."""
    whole = everything(gallery, items)
    if m >= whole.size:
        return whole
    dimension, deviation = gallery.shape[1], whole.norm_deviation
    single = query.astype(np.float32)
    scores = gallery @ single
    order = np.argsort(-scores, kind="stable")[:m]
    length = np.linalg.norm(single.astype(np.float64))
    lost = np.linalg.norm(query - single.astype(np.float64))
    rounding = gamma(dimension, UNIT_ROUNDOFF_32) * length + lost
    bound = float(scores[order[-1]]) + 1.0001 * (1.0 + deviation) * rounding
    return replace(
        whole,
        rows=order,
        vectors=gallery[order],
        unseen_score=bound,
        items=None if items is None else items[order],
    )
