"""Whether FAISS finds what a plain scan finds: run in a process of its own, which it may end.

Without torch, which takes seconds to import.
"""

import numpy as np

from index_builder.search.faiss_flat import open_flat_search


def probe_faiss() -> None:
    """End with an error unless a small search by FAISS and a plain scan find the same.

    Raises:
        AssertionError: they do not.
    """
    random = np.random.default_rng(0)
    vectors = random.standard_normal((3000, 64)).astype(np.float32)
    queries = random.standard_normal((9, 64)).astype(np.float32)
    search = open_flat_search(vectors)
    _, rows = search.search(queries, 10)
    search.close()
    plain = np.argsort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)
    if not (np.asarray(rows) == plain[:, :10]).all():
        raise AssertionError("FAISS and a plain scan find different rows")
