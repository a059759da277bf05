"""A gallery without one entry is searched as one that was built without it, however deep."""

import numpy as np
import pytest
from test_certified import Embedding, ask, random_index, unit

from index_builder.search.others import OtherEntries
from model.certificate.pairs import Candidates


def one_row_items(index):
    """The array index, which may be asked for the rows of items, each of which has one."""
    index.of_items = lambda items: Candidates(
        items, index.vectors[items], -np.inf, index.vector_count, index.deviation
    )
    return index


@pytest.mark.parametrize("count", [2, 40, 3000])
@pytest.mark.parametrize("k", [1, 10, 200])
@pytest.mark.parametrize("require_exact", [False, True])
def test_it_is_as_if_the_entry_were_not_there(count, k, require_exact):
    whole = one_row_items(random_index(count, seed=count))
    entry = count // 2
    smaller = type(whole)(np.delete(whole.vectors, entry, axis=0))
    query = Embedding(whole.vectors[entry].astype(np.float64), forward_error=0.0)
    [found] = ask(OtherEntries(whole, entry), [query], k, require_exact=require_exact)
    [expected] = ask(smaller, [query], k, require_exact=require_exact)
    rows = expected.candidates.rows[expected.certificate.positions]
    answer = found.candidates.rows[found.certificate.positions]
    assert answer.tolist() == (rows + (rows >= entry)).tolist()
    for name in ("margins", "certified_radii", "similarities"):
        ours, theirs = (getattr(one.certificate, name) for one in (found, expected))
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)
    assert found.certificate.is_proved


def test_equal_neighbours_beyond_every_depth_are_found_by_a_full_look():
    rng = np.random.default_rng(5)
    near = np.repeat(unit(rng.normal(size=(1, 16))), 3000, axis=0)
    whole = one_row_items(random_index(3000))
    whole.vectors[:] = near
    query = Embedding(near[7].astype(np.float64), forward_error=0.0)
    [found] = ask(OtherEntries(whole, 7), [query], 5)
    assert "everything" in whole.depths
    assert found.candidates.size == found.candidates.rows.size == 2999
    assert found.certificate.is_proved
    assert 7 not in found.candidates.rows
