"""Pictures that are in the corpus already: the same file, the same pixels, or nearly the same.

Nearly the same are thumbnails of 16 x 16 pixels with a root mean square difference below 0.05 of
the range. All distances come from matrix products of whole numbers, which float64 holds exactly:
the answer depends neither on threads nor on the order of a sum.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from model.train.corpus.pictures import THUMBNAIL_SIDE, Prepared, Refused
from model.train.corpus.recipe import Source
from model.train.corpus.split import uniform

_PIXELS = 3 * THUMBNAIL_SIDE**2
_NEAR = (255.0 * 0.05) ** 2 * _PIXELS
"""Squared distance of two thumbnails below which they are nearly the same."""

# What is measured on is the last to give way, what trains the first.
_PRECEDENCE = ("test", "validation", "train")
_BLOCK = 2048


class Sifted(NamedTuple):
    """What stays, in the order it came, and what goes, each with its reason."""

    kept: list[Prepared]
    dropped: list[Refused]


def sift(pictures: Sequence[Prepared], sources: Iterable[Source]) -> Sifted:
    """Take duplicates out, and what a source has above its limit.

    A test picture stays and its like in validation and training goes, so that nothing measured was
    trained on. Within a split the first stays.
    """
    kept, dropped = Sifted([], [])
    files: set[tuple[str, object]] = set()
    pixels: set[str] = set()
    for split in _PRECEDENCE:
        unique: list[Prepared] = []
        for one in (one for one in pictures if one.split == split):
            is_file = (one.sha256, one.crop) in files
            if is_file or one.pixels_sha256 in pixels:
                dropped.append(_refused(one, "same file" if is_file else "same pixels"))
                continue
            files.add((one.sha256, one.crop))
            pixels.add(one.pixels_sha256)
            unique.append(one)
        outside = drop_near(unique, kept)
        near = near_earlier(_thumbnails(outside.kept))
        inside = _parted(outside.kept, near.tolist(), f"near another {split} picture")
        kept += inside.kept
        dropped += outside.dropped + inside.dropped
    limited, above = _limited(kept, sources)
    order = {id(one): place for place, one in enumerate(pictures)}
    return Sifted(sorted(limited, key=lambda one: order[id(one)]), dropped + above)


def drop_near(pictures: Sequence[Prepared], held_out: Sequence[Prepared]) -> Sifted:
    """Take out the pictures that are nearly one of those held out."""
    near = near_any(_thumbnails(pictures), _thumbnails(held_out))
    return _parted(pictures, near.tolist(), "near a held-out picture")


def near_any(
    thumbnails: UInt8[np.ndarray, "N P"], others: UInt8[np.ndarray, "M P"]
) -> Bool[np.ndarray, " N"]:
    """Whether each thumbnail is near one of the others."""
    near = np.zeros(len(thumbnails), dtype=bool)
    for start in range(0, len(thumbnails), _BLOCK):
        block = slice(start, start + _BLOCK)
        for first in range(0, len(others), _BLOCK):
            distances = _squared_distances(thumbnails[block], others[first : first + _BLOCK])
            near[block] |= (distances < _NEAR).any(axis=1)
    return near


def near_earlier(thumbnails: UInt8[np.ndarray, "N P"]) -> Bool[np.ndarray, " N"]:
    """Whether each thumbnail is near an earlier one that is not itself so."""
    near = np.zeros(len(thumbnails), dtype=bool)
    for start in range(0, len(thumbnails), _BLOCK):
        block = thumbnails[start : start + _BLOCK]
        is_near = near_any(block, thumbnails[:start][~near[:start]])
        close = np.tril(_squared_distances(block, block) < _NEAR, -1)
        for row in np.flatnonzero(close.any(axis=1)):
            is_near[row] |= bool((close[row] & ~is_near).any())
        near[start : start + len(block)] = is_near
    return near


def _limited(pictures: list[Prepared], sources: Iterable[Source]) -> Sifted:
    """At most `most` of each source, those that come first by a hash of their name."""
    above: set[int] = set()
    for source in (source for source in sources if source.most):
        own = [one for one in pictures if one.source == source.name]
        own.sort(key=lambda one: uniform(f"most:{one.source}:{one.path}:{one.crop}"))
        above |= {id(one) for one in own[source.most :]}
    return _parted(pictures, [id(one) in above for one in pictures], "above the limit")


def _parted(pictures: Iterable[Prepared], drops: Sequence[bool], reason: str) -> Sifted:
    sifted = Sifted([], [])
    for one, is_dropped in zip(pictures, drops, strict=True):
        if is_dropped:
            sifted.dropped.append(_refused(one, reason))
        else:
            sifted.kept.append(one)
    return sifted


def _squared_distances(
    left: UInt8[np.ndarray, "N P"], right: UInt8[np.ndarray, "M P"]
) -> Float64[np.ndarray, "N M"]:
    a, b = left.astype(np.float64), right.astype(np.float64)
    return (a * a).sum(axis=1)[:, None] - 2.0 * (a @ b.T) + (b * b).sum(axis=1)[None]


def _thumbnails(pictures: Sequence[Prepared]) -> UInt8[np.ndarray, "N P"]:
    rows = [one.thumbnail for one in pictures]
    return np.stack(rows) if rows else np.zeros((0, _PIXELS), dtype=np.uint8)


def _refused(one: Prepared, reason: str) -> Refused:
    return Refused(one.source, one.path, reason, f"{one.split}; {one.crop or 'whole'}")
