"""A small search by FAISS against a plain scan: `python -m service.doctor.faiss_probe`."""

import numpy as np

from index_builder.search.faiss_flat import open_flat_search

ROWS, DIM, DEPTH = 3000, 64, 10


def main() -> None:
    """End with an error unless both find the same.

    Raises:
        AssertionError: they do not.
    """
    random = np.random.default_rng(0)
    vectors = random.standard_normal((ROWS, DIM)).astype(np.float32)
    queries = random.standard_normal((9, DIM)).astype(np.float32)
    search = open_flat_search(vectors)
    _, rows = search.search(queries, DEPTH)
    search.close()
    plain = np.argsort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)
    if not (np.asarray(rows) == plain[:, :DEPTH]).all():
        raise AssertionError("FAISS and a plain scan find different rows")


if __name__ == "__main__":
    main()
