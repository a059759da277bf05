import io
import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from index_builder.errors import IndexFormatError
from index_builder.store.vectors import (
    Rows,
    VectorsWriter,
    map_vectors,
    norm_deviation,
    read_rows,
    vectors_header,
)


def unit_rows(raw: np.ndarray) -> np.ndarray:
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def write(
    folder: Path, entries: list[np.ndarray], views: list[list[int]], dim: int
) -> tuple[Path, Path]:
    """The two files of some entries, each of several vectors; norms count from 1."""
    paths = folder / "vectors.npy", folder / "rows.npy"
    with paths[0].open("wb") as vectors, paths[1].open("wb") as rows:
        writer = VectorsWriter(vectors, rows, dim)
        norms = map(float, itertools.count(1))
        numbers = [
            writer.append(
                [(row.tobytes(), view, next(norms)) for row, view in zip(own, seen, strict=True)]
            )
            for own, seen in zip(entries, views, strict=True)
        ]
        writer.finish()
    assert numbers == list(range(len(entries)))
    return paths


@pytest.mark.parametrize(("entries", "dim"), [(0, 3), (1, 1), (7, 5), (300, 1792)])
def test_both_files_are_plain_npy_files(tmp_path: Path, entries: int, dim: int):
    rng = np.random.default_rng(0)
    views = [sorted(rng.permutation(5)[: rng.integers(1, 4)].tolist()) for _ in range(entries)]
    own = [rng.standard_normal((len(seen), dim)).astype("<f4") for seen in views]
    vectors, rows = write(tmp_path, own, views, dim)
    count = sum(map(len, views))
    whole = np.concatenate([np.empty((0, dim), "<f4"), *own])
    assert np.array_equal(np.load(vectors, allow_pickle=False), whole)
    assert np.array_equal(map_vectors(vectors, count, dim), whole)
    with pytest.raises(IndexFormatError, match="damaged"):
        map_vectors(vectors, count + 1, dim)
    table = np.load(rows, allow_pickle=False)
    found = read_rows(rows, count, entries=entries, views=5)
    assert table["entry"].tolist() == found.entries.tolist()
    assert table["view"].tolist() == found.views.tolist() == [v for seen in views for v in seen]
    assert table["embedding_norm"].tolist() == found.embedding_norms.tolist()
    assert found.most_views == max(map(len, views), default=1)
    chosen = rng.permutation(entries)[:5]
    wanted = [np.flatnonzero(found.entries == entry) for entry in chosen]
    assert found.of_entries(chosen).tolist() == [row for own in wanted for row in own]


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("entry", 0, 1),
        ("entry", 2, 0),
        ("entry", 4, 1),
        ("entry", 4, 3),
        ("view", 1, 0),
        ("view", 4, 5),
        ("embedding_norm", 3, 0.0),
        ("embedding_norm", 3, -1.0),
        ("embedding_norm", 3, np.inf),
    ],
)
def test_rows_that_no_build_writes_are_refused(tmp_path: Path, column: str, row: int, value: float):
    _, path = write(
        tmp_path, [np.ones((2, 1), "<f4")] * 2 + [np.ones((1, 1), "<f4")], [[0, 3], [0, 1], [0]], 1
    )
    assert read_rows(path, 5, entries=3, views=5).starts.tolist() == [0, 2, 4, 5]
    table = np.load(path)
    table[column][row] = value
    path.write_bytes(path.read_bytes()[:192] + table.tobytes())
    with pytest.raises(IndexFormatError, match=r"rows\.npy is damaged"):
        read_rows(path, 5, entries=3, views=5)


def test_a_rows_file_of_another_length_or_header_is_refused(tmp_path: Path):
    _, path = write(tmp_path, [np.ones((1, 1), "<f4")] * 3, [[0]] * 3, 1)
    raw = path.read_bytes()
    for wrong in (raw[:-1], raw + b"x", raw[:100], b"", raw.replace(b"<f8", b"<f4")):
        path.write_bytes(wrong)
        with pytest.raises(IndexFormatError, match=r"rows\.npy is damaged"):
            read_rows(path, 3, entries=3, views=1)


def test_a_norm_that_is_not_known_is_nan_and_read(tmp_path: Path):
    path = tmp_path / "rows.npy"
    with (tmp_path / "v").open("wb") as vectors, path.open("wb") as rows:
        writer = VectorsWriter(vectors, rows, 1)
        writer.append([(np.ones(1, "<f4").tobytes(), 0, float("nan"))])
        writer.finish()
    assert np.isnan(read_rows(path, 1, entries=1, views=1).embedding_norms).all()
    assert np.isnan(Rows.of_old(3).embedding_norms).all()


@given(st.integers(0, 10**12), st.integers(1, 10**6))
def test_every_header_has_one_length_and_numpy_reads_it(entries: int, dim: int):
    header = vectors_header(entries, dim)
    assert len(header) == 128
    file = io.BytesIO(header)
    assert np.lib.format.read_magic(file) == (1, 0)
    assert np.lib.format.read_array_header_1_0(file) == ((entries, dim), False, np.dtype("<f4"))


def test_a_row_of_another_length_is_refused(tmp_path: Path):
    with (
        (tmp_path / "v").open("wb") as vectors,
        (tmp_path / "r").open("wb") as rows,
        pytest.raises(IndexFormatError, match="wanted a row of 8 bytes, got 4"),
    ):
        VectorsWriter(vectors, rows, 2).append([(b"1234", 0, 1.0)])


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 40)),
        elements=st.floats(0.01, 1).flatmap(lambda x: st.sampled_from([x, -x])),
    )
)
def test_the_norm_deviation_is_a_bound_in_exact_arithmetic(raw):
    rows = unit_rows(raw)
    bound = Fraction(norm_deviation(rows))
    for row in rows:
        square = sum(Fraction(float(value)) ** 2 for value in row)
        assert (1 - bound) ** 2 <= square <= (1 + bound) ** 2


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1.0])
def test_rows_that_are_not_finite_unit_vectors_are_refused(poison):
    rows = unit_rows(np.random.default_rng(0).standard_normal((5, 8)))
    rows[3, 2] = poison
    with pytest.raises(IndexFormatError, match=r"row 3|wanted unit vectors"):
        norm_deviation(rows)


def test_no_rows_deviate_by_nothing():
    assert norm_deviation(np.empty((0, 4), dtype=np.float32)) == 0.0
