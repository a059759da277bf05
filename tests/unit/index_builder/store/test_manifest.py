import dataclasses
import io
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from index_builder.errors import IndexFormatError
from index_builder.store.manifest import (
    DATA_FILES,
    SCHEMA,
    FileRecord,
    Manifest,
    Quarantined,
    VectorsWriter,
    map_vectors,
    norm_deviation,
    read_quarantine,
    vectors_header,
    write_quarantine,
)


def manifest(**changes: object) -> Manifest:
    fields = {
        "schema": SCHEMA,
        "version": "v000007",
        "model_name": "tiny",
        "model_fingerprint": "ab" * 32,
        "decode_policy": "lipsim-decode-1",
        "metric": "cosine",
        "entries": 3,
        "ids": 4,
        "dim": 5,
        "norm_deviation": 3.3e-8,
        "source": "a folder\u2026",
        "counts": {"added": 4},
        "created": "2026-01-01T00:00:00+00:00",
        "tool_version": "0.1.0",
        "files": {name: FileRecord(1, "00" * 32) for name in DATA_FILES},
    }
    return Manifest(**{**fields, **changes})


def unit_rows(raw: np.ndarray) -> np.ndarray:
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def test_a_manifest_comes_back_as_it_was_written():
    written = manifest()
    assert Manifest.from_bytes(written.to_bytes()) == written
    assert Manifest.from_bytes(written.to_bytes()).seal() == written.seal()


def test_a_flipped_bit_anywhere_in_a_manifest_is_noticed():
    raw = bytearray(manifest().to_bytes())
    for position in range(len(raw)):
        for bit in (1, 32):
            raw[position] ^= bit
            with pytest.raises(IndexFormatError, match=r"manifest\.json"):
                Manifest.from_bytes(bytes(raw))
            raw[position] ^= bit


@given(st.binary(max_size=300))
def test_no_bytes_are_a_manifest_by_accident(raw):
    with pytest.raises(IndexFormatError):
        Manifest.from_bytes(raw)


@pytest.mark.parametrize("cut", [0, 1, 50, -1])
def test_a_truncated_manifest_is_refused(cut):
    with pytest.raises(IndexFormatError, match="damaged"):
        Manifest.from_bytes(manifest().to_bytes()[:cut])


def test_an_unknown_schema_is_refused_by_name():
    wanted = r"wanted schema 'lipsim-index-1', 'lipsim-index-2' or .*, got 'lipsim-index-9'"
    with pytest.raises(IndexFormatError, match=wanted):
        Manifest.from_bytes(manifest(schema="lipsim-index-9").to_bytes())


@pytest.mark.parametrize(
    "changes",
    [
        {"metric": "l2"},
        {"entries": 5},
        {"entries": -1},
        {"entries": 0},
        {"dim": 0},
        {"dim": "5"},
        {"norm_deviation": 1e-3},
        {"norm_deviation": -1e-9},
        {"files": {"vectors.npy": FileRecord(1, "00" * 32)}},
        {"files": {name: FileRecord(1, "0") for name in (*DATA_FILES, "../x")}},
    ],
)
def test_values_that_no_build_writes_are_refused_though_the_seal_fits(changes):
    written = dataclasses.replace(manifest())
    for name, value in changes.items():
        object.__setattr__(written, name, value)
    with pytest.raises(IndexFormatError):
        Manifest.from_bytes(written.to_bytes())


@pytest.mark.parametrize(("entries", "dim"), [(0, 3), (1, 1), (7, 5), (300, 1792)])
def test_a_vectors_file_is_a_plain_npy_file(tmp_path, entries, dim):
    rows = np.random.default_rng(0).standard_normal((entries, dim)).astype("<f4")
    path = tmp_path / "vectors.npy"
    with path.open("wb") as file:
        writer = VectorsWriter(file, dim)
        numbers = [writer.append(row.tobytes()) for row in rows]
        writer.finish()
    assert numbers == list(range(entries))
    assert np.array_equal(np.load(path, allow_pickle=False), rows)
    assert np.array_equal(map_vectors(path, entries, dim), rows)
    with pytest.raises(IndexFormatError, match="damaged"):
        map_vectors(path, entries + 1, dim)


@given(st.integers(0, 10**12), st.integers(1, 10**6))
def test_every_header_has_one_length_and_numpy_reads_it(entries, dim):
    header = vectors_header(entries, dim)
    assert len(header) == 128
    file = io.BytesIO(header)
    assert np.lib.format.read_magic(file) == (1, 0)
    assert np.lib.format.read_array_header_1_0(file) == ((entries, dim), False, np.dtype("<f4"))


def test_a_row_of_another_length_is_refused(tmp_path):
    with (
        (tmp_path / "v").open("wb") as file,
        pytest.raises(IndexFormatError, match="wanted a row of 8 bytes, got 4"),
    ):
        VectorsWriter(file, 2).append(b"1234")


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


def test_the_quarantine_list_is_sorted_and_comes_back(tmp_path):
    path = tmp_path / "q.jsonl"
    listed = [Quarantined("b\n\u00e9", "format", "x"), Quarantined("a", "empty", "no bytes")]
    write_quarantine(path, listed)
    assert read_quarantine(path) == listed[::-1]
    path.write_text("[]\n")
    with pytest.raises(IndexFormatError, match=r"q\.jsonl is damaged"):
        read_quarantine(path)
