"""Directions in which a query's embedding falls out of an answer soonest."""

import numpy as np


def normals(gallery, entry, others):
    """Unit normals of the planes between an entry and others, pointing to the others' side."""
    difference = gallery[others].astype(np.float64) - gallery[entry].astype(np.float64)
    apart = np.linalg.norm(difference, axis=1, keepdims=True)
    return difference / np.where(apart > 0, apart, 1.0)


def projection(planes, depths, sweeps=200):
    """Smallest step that reaches all planes at once, by Hildreth's cyclic projections.

    Args:
        planes: unit normals, (J, D).
        depths: how far the query is from each plane, (J,).
        sweeps: rounds over the planes.
    """
    gram = planes @ planes.T
    weights = np.zeros(depths.size)
    for _ in range(sweeps):
        for j in range(depths.size):
            wanted = depths[j] - gram[j] @ weights + weights[j]
            weights[j] = max(0.0, wanted)
    return weights @ planes


def directions(rng, query, gallery, entry, k):
    """Steps of every kind against one result, as unit vectors."""
    others = np.delete(np.arange(gallery.shape[0]), entry)
    planes = normals(gallery, entry, others)
    depths = -planes @ query
    order = np.argsort(depths)
    near = order[: 2 * k]
    steps = list(planes[order[: k + 2]])
    steps.append(planes[order[:k]].sum(axis=0))
    subsets = (order[:k], rng.permutation(near)[:k], rng.permutation(near)[:k])
    # A hair beyond each plane, so that a step of full length evicts rather than ties.
    steps.extend(projection(planes[j], depths[j] * (1 + 1e-9) + 1e-14) for j in subsets)
    steps.extend(rng.exponential(size=(3, near.size)) @ planes[near])
    steps.append(rng.normal(size=query.size))
    lengths = [np.linalg.norm(step) for step in steps]
    return [step / length for step, length in zip(steps, lengths, strict=True) if length > 0]


def move(query, direction, length):
    """The query moved by strictly less than `length`, as computed."""
    if length == 0.0:
        return query
    off = 0.0
    while True:
        moved = query + direction * (length * (1.0 - off))
        if np.linalg.norm(moved - query) < length:
            return moved
        off = min(1.0, max(1e-15, 2.0 * off))
