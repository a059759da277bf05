"""The model, and a certificate issued and attacked here: a gallery in memory, brute force.

The attack is on the embedding. A change of the pixels below the radius moves the computed embedding
by less than L * gain * radius + 2 E; no movement of that length may displace a result. Just beyond
the nearest plane between the first result and another entry, on the other hand, one must.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from index_builder.search.certified import certified_search
from model.certificate.pairs import Candidates
from model.embedder import Embedder, ImageEmbedding
from model.errors import RetrievalError
from model.pixels.decode import DecodedImage
from service.doctor.checks import Finding, failed, ok, warning

_ENTRIES = 24
_K = 5
_RANDOM_CHANGES = 2000
# Relative: how near to a limit the changes go, on either side of it.
_STEP = 1e-6


Model = Callable[[], Embedder | RetrievalError]
"""Gives the model, or why it is refused."""


@cache
def load_model(
    checkpoint: Path | None, arithmetic: Literal["float64", "float32"]
) -> Embedder | RetrievalError:
    """The embedder of a checkpoint, or why it is refused; loaded once, when it is first needed."""
    try:
        return Embedder.load(checkpoint, arithmetic=arithmetic)
    except RetrievalError as error:
        return error


def check_model(model: Model) -> Finding:
    """The checkpoint is whole, and its bounds are proved again from the weights as read."""
    embedder = model()
    if isinstance(embedder, RetrievalError):
        return failed(
            str(embedder), "set LIPSIM_CHECKPOINT to a file of `model.train` or `convert`"
        )
    return ok(
        f"{embedder.name} {embedder.fingerprint[:16]}: Lipschitz bound "
        f"{embedder.lipschitz_bound:.9g}, forward error E {embedder.forward_error:.3g} "
        f"({embedder.arithmetic}, claim {embedder.claim}), proved"
    )


class MemoryGallery:
    """Unit vectors in memory; always scanned whole, so nothing is unseen."""

    def __init__(self, vectors: Float32[np.ndarray, "N D"]) -> None:
        self.vectors = vectors
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        # Twice what was measured, which is itself rounded in its last places.
        self._deviation = 2.0 * float(np.abs(norms - 1.0).max()) + 1e-12

    @property
    def vector_count(self) -> int:
        return len(self.vectors)

    @property
    def size(self) -> int:
        return len(self.vectors)

    @property
    def most_views(self) -> int:
        return 1

    def search(self, queries: Float64[np.ndarray, "B D"], m: int) -> list[Candidates]:
        del m
        return [self.everything() for _ in queries]

    def everything(self) -> Candidates:
        return Candidates(
            rows=np.arange(len(self.vectors)),
            vectors=self.vectors,
            unseen_score=-np.inf,
            size=len(self.vectors),
            norm_deviation=self._deviation,
        )

    def of_items(self, items: Int64[np.ndarray, " I"]) -> Candidates:
        del items
        return self.everything()


def check_certificate(model: Model) -> Finding:
    """Radii of a search hold against random and worst changes, and are not far too small."""
    embedder = model()
    if isinstance(embedder, RetrievalError):
        return warning("no model, so no certificate could be tried", "see the model")
    query, gallery = _scene(embedder)
    return attack(
        query,
        gallery,
        lipschitz_bound=embedder.lipschitz_bound,
        scales=embedder.output_scales,
    )


def attack(
    query: ImageEmbedding,
    gallery: MemoryGallery,
    *,
    lipschitz_bound: float,
    scales: Float64[np.ndarray, " D"],
) -> Finding:
    """Issue certificates for one query and try to break them; the finding says who won.

    A change of the pixels by r may move the embedding by r gain (scales o u) for any unit u.
    """
    vectors = gallery.vectors.astype(np.float64)
    shortest = float("inf")
    changes = 0
    for k in (1, _K):
        (answer,) = certified_search(
            gallery, [query], lipschitz_bound=lipschitz_bound, output_scales=scales, k=k
        )
        radii = answer.certificate.certified_radii
        rows = answer.candidates.rows[answer.certificate.positions]
        if rows.tolist() != top(query.vector, vectors, k).tolist():
            return failed("the search and a plain scan rank differently", _REPORT)
        for row, radius in zip(rows.tolist(), radii.tolist(), strict=True):
            if radius == 0.0:
                continue  # Nothing is promised about this one.
            moves = scales * unit(scales * directions(row, vectors))
            steps = query.gain * radius * moves + 2.0 * query.forward_error * unit(moves)
            steps *= 1.0 - _STEP
            changes += len(steps)
            if evicted(row, query.vector + steps, vectors, k).any():
                return failed("a change below the radius displaced a result", _REPORT)
        if k == 1:
            shortest = float(radii[0])
            if shortest == 0.0:
                return failed("the radius of a plain case is 0: nothing is proved", _REPORT)
            change, needed = crossing(int(rows[0]), query.vector, vectors, scales)
            beyond = query.vector + (1.0 + _STEP) * change
            if not evicted(int(rows[0]), beyond[None], vectors, 1).all():
                return failed("a change beyond the nearest plane displaced nothing", _REPORT)
            lost = 2.0 * query.forward_error / float(scales.min())
            if query.gain * shortest + lost < 0.99 * needed:
                return failed("the radius is far below what this method can prove", _REPORT)
    return ok(
        f"radius {shortest:.4g} of a small picture: {changes} changes below the radii displaced "
        "nothing, one beyond the nearest plane did"
    )


_REPORT = "do not serve from this installation: install it again, and report it if it stays"


def top(
    query: Float64[np.ndarray, " D"], vectors: Float64[np.ndarray, "N D"], k: int
) -> np.ndarray:
    """Rows of the k best scores of a plain scan, best first."""
    return np.argsort(-(vectors @ query), kind="stable")[:k]


def evicted(
    row: int, queries: Float64[np.ndarray, "B D"], vectors: Float64[np.ndarray, "N D"], k: int
) -> np.ndarray:
    """For each query, whether k entries score more than this one."""
    scores = queries @ vectors.T
    return (scores > scores[:, [row]]).sum(axis=1) >= k


def directions(row: int, vectors: Float64[np.ndarray, "N D"]) -> Float64[np.ndarray, "B D"]:
    """Changes: random ones, straight towards each other entry, and away from this one."""
    random = np.random.default_rng(row).standard_normal((_RANDOM_CHANGES, vectors.shape[1]))
    others = np.delete(vectors, row, axis=0) - vectors[row]
    return np.concatenate([random, others, others.mean(axis=0)[None], -vectors[[row]]])


def unit(rows: Float64[np.ndarray, "B D"]) -> Float64[np.ndarray, "B D"]:
    """Each row at length 1, or zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0.0, norms, 1.0)


def crossing(
    row: int,
    query: Float64[np.ndarray, " D"],
    vectors: Float64[np.ndarray, "N D"],
    scales: Float64[np.ndarray, " D"],
) -> tuple[Float64[np.ndarray, " D"], float]:
    """A change after which this entry and some other one score the same: what it takes least.

    Returns:
        The change, and how far the network's input must move for it.
    """
    normals = vectors[row] - np.delete(vectors, row, axis=0)
    lengths = np.linalg.norm(scales * normals, axis=1)
    distances = (normals @ query) / lengths
    nearest = int(distances.argmin())
    change = -distances[nearest] * scales**2 * normals[nearest] / lengths[nearest]
    return change, float(distances[nearest])


def _scene(embedder: Embedder) -> tuple[ImageEmbedding, MemoryGallery]:
    """A query and a gallery that holds a near copy of it, all drawn from code."""
    pictures = [_picture(seed) for seed in range(_ENTRIES)]
    embedded = embedder.embed_images([DecodedImage(pixels, "PNG") for pixels in pictures])
    changed = np.clip(pictures[0].astype(np.int16) + 3, 0, 255).astype(np.uint8)
    query = embedder.embed_image(DecodedImage(changed, "PNG"))
    vectors = np.stack([one.vector for one in embedded])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return query, MemoryGallery(vectors.astype(np.float32))


def _picture(seed: int) -> np.ndarray:
    """Blots of colour, 96 x 80."""
    blots = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.kron(blots, np.ones((16, 16, 1), np.uint8))
