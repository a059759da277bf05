"""A certified metric whose smallest perturbation is known by heart: raw pixels."""

import numpy as np
import pytest

from model.attack.decisions import Top1
from model.attack.pixel_metric import PixelMetric, metric_of_input
from model.attack.questions import Block
from model.metrics.metric import unit_rows
from model.metrics.pixels import BlockMeans

SIDE = 16


@pytest.fixture(scope="session")
def metric() -> PixelMetric:
    """The map x -> x - 0.5 of 16 x 16 pictures: a translation, so of Lipschitz constant 1."""
    return metric_of_input(BlockMeans(SIDE, SIDE))


@pytest.fixture(scope="session")
def gray_pictures() -> np.ndarray:
    """Twelve pictures around mid-gray, far inside the box; the first six have a near twin each."""
    drawn = 0.02 * np.random.default_rng(5).standard_normal((12, 3, SIDE, SIDE))
    drawn[6:] = 0.8 * drawn[:6] + 0.6 * drawn[6:]
    return 0.5 + drawn


@pytest.fixture(scope="session")
def block(metric: PixelMetric, gray_pictures: np.ndarray) -> Block:
    """Six noisy copies that look for their originals among twelve."""
    gallery = unit_rows(metric.embed(gray_pictures))
    noise = np.random.default_rng(6).standard_normal((6, 3, SIDE, SIDE))
    queries = gray_pictures[:6] + 0.02 * noise
    vectors = metric.embed(queries)
    decision = Top1(gallery[None], np.arange(6), vectors)
    return Block(metric, decision, [f"q{i}" for i in range(6)], queries, vectors)


@pytest.fixture(scope="session")
def true_radii(block: Block, metric: PixelMetric, gray_pictures: np.ndarray) -> np.ndarray:
    """The smallest perturbation that turns each decision: the way to the nearest half-space."""
    rows = unit_rows(metric.embed(gray_pictures)).astype(np.float64)
    radii = []
    for entry, vector in enumerate(block.vectors):
        others = np.delete(np.arange(len(rows)), entry)
        normals = rows[entry] - rows[others]
        radii.append((normals @ vector / np.linalg.norm(normals, axis=1)).min())
    return np.array(radii)
