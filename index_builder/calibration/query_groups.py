"""Which queries show one picture: those are never parted, and count once.

A file's bytes and name say little: a picture may be saved again, linked, or listed by another path.
Two queries belong together when they are of one entry of the index, or when their files decode to
the same pixels; and whatever belongs to both of two groups makes them one.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8


def pixels_name(pixels: UInt8[np.ndarray, "H W 3"]) -> str:
    """What decoded pixels are called: equal for two files exactly if they show the same."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return f"pixels {digest.hexdigest()}"


def merged_groups(groups: Sequence[str], pixels: Sequence[str]) -> list[str]:
    """The group of each query: a connected component over known groups and equal pixels.

    It is named after the smallest known group in it, whatever order the queries come in.
    """
    leader: dict[tuple[str, str], tuple[str, str]] = {}

    def find(node: tuple[str, str]) -> tuple[str, str]:
        leader.setdefault(node, node)
        while leader[node] != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for group, picture in zip(groups, pixels, strict=True):
        # Kinds sort before each other, so that a component is led by a group, never by pixels.
        first, second = sorted((find(("group", group)), find(("pixels", picture))))
        leader[second] = first
    return [find(("group", group))[1] for group in groups]
