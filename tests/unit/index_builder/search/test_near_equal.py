"""What a search costs does not explode where rows are nearly equal."""

import time

import numpy as np
import pytest
from near_equal import near_equal_rows, unit_rows
from test_certified import ArrayIndex, Embedding

from index_builder.search.certified import certified_search
from model.certificate import distances, scan
from model.certificate.pairs import compare

COUNT, DIMENSION, K = 5000, 512, 400
RNG = np.random.default_rng(3)
CENTRES = unit_rows(RNG.normal(size=(12, DIMENSION)))
QUERY = CENTRES[0] + 0.5 * RNG.normal(size=DIMENSION) / np.sqrt(DIMENSION)

NEAR = {
    "one group": near_equal_rows(COUNT, DIMENSION, CENTRES[0]),
    "groups": np.concatenate(
        [near_equal_rows(COUNT // 12, DIMENSION, centre) for centre in CENTRES]
    ),
}


def cpu_seconds(rows: np.ndarray) -> float:
    started = time.process_time()
    certified_search(ArrayIndex(rows), [Embedding(QUERY)], lipschitz_bound=1.0, k=K)
    return time.process_time() - started


@pytest.mark.parametrize("kind", NEAR)
def test_near_equal_rows_cost_at_most_twelve_times_what_random_rows_cost(kind: str):
    random = unit_rows(RNG.normal(size=(COUNT, DIMENSION)))
    taken = [(cpu_seconds(NEAR[kind]), cpu_seconds(random)) for _ in range(3)]
    near, other = (min(column) for column in zip(*taken, strict=True))
    assert near <= 12 * other


@pytest.mark.parametrize("kind", NEAR)
def test_few_pairs_are_compared_and_hardly_any_by_their_differences(
    kind: str, monkeypatch: pytest.MonkeyPatch
):
    differences = compared = 0
    form = distances.squared_differences

    def counting_form(first, second, scales):
        nonlocal differences
        differences += len(first)
        return form(first, second, scales)

    def counting_compare(first, second, gap):
        nonlocal compared
        compared += gap.size
        return compare(first, second, gap)

    monkeypatch.setattr(distances, "squared_differences", counting_form)
    monkeypatch.setattr(scan, "compare", counting_compare)
    cpu_seconds(NEAR[kind])
    # All pairs would be K x COUNT, each of them near; an entry and itself is one of each K.
    assert compared < 0.6 * K * COUNT
    assert differences < 10 * K


def test_many_copies_of_a_row_take_one_round_together(monkeypatch: pytest.MonkeyPatch):
    rounds = 0
    form = distances._by_products

    def counting(first, second):
        nonlocal rounds
        rounds += 1
        return form(first, second)

    monkeypatch.setattr(distances, "_by_products", counting)
    vectors = np.repeat(near_equal_rows(5, 64), 60, axis=0)
    rows = distances.CentredRows.around(np.zeros(64), vectors, np.arange(300))
    gap = compare(rows, rows, np.zeros((300, 300))).gap
    assert rounds <= 1 + 5
    assert (gap[:60, 60:] == 0.0).all()
    before = np.arange(60) >= np.arange(60)[:, None]
    assert (gap[:60, :60] == np.where(before, np.inf, -np.inf)).all()
