import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_tools import CALIBRATION

from index_builder.errors import IndexFormatError
from index_builder.store.manifest import (
    DATA_FILES,
    SCHEMA,
    FileRecord,
    Manifest,
    Quarantined,
    read_quarantine,
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
        "vectors": 5,
        "views": ("whole", "mirror"),
    }
    return Manifest(**{**fields, **changes})


OLD = {
    "schema": "lipsim-index-1",
    "files": {
        name: FileRecord(1, "00" * 32)
        for name in DATA_FILES
        if name not in ("rows.npy", "columns.sqlite")
    },
    "vectors": None,
    "views": None,
}


@pytest.mark.parametrize("changes", [{}, OLD])
def test_a_manifest_comes_back_as_it_was_written(changes: dict[str, object]):
    written = manifest(**changes)
    assert Manifest.from_bytes(written.to_bytes()) == written
    assert Manifest.from_bytes(written.to_bytes()).seal == written.seal


def test_another_manifest_has_another_seal_though_the_first_was_asked_for():
    first = manifest()
    assert first.seal
    for other in (dataclasses.replace(first, version="v000002"), first.calibrated(CALIBRATION)):
        assert other.seal != first.seal
        assert Manifest.from_bytes(other.to_bytes()) == other


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
    wanted = r"wanted schema 'lipsim-index-3' or lipsim-index-1, .*, got 'lipsim-index-9'"
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
        {"files": OLD["files"]},
        {"schema": "lipsim-index-1"},
        {"schema": "lipsim-index-2"},
        {"vectors": 2},
        {"vectors": 7},
        {"vectors": None},
        {"vectors": "5"},
        {"views": None},
        {"views": ()},
        {"views": ("mirror", "whole")},
        {"views": ("whole", "whole")},
        {"views": ("whole", "upside down")},
        {**OLD, "schema": SCHEMA},
        {**OLD, "vectors": 3},
    ],
)
def test_values_that_no_build_writes_are_refused_though_the_seal_fits(changes):
    written = dataclasses.replace(manifest())
    for name, value in changes.items():
        object.__setattr__(written, name, value)
    with pytest.raises(IndexFormatError):
        Manifest.from_bytes(written.to_bytes())


def test_the_quarantine_list_is_sorted_and_comes_back(tmp_path):
    path = tmp_path / "q.jsonl"
    listed = [Quarantined("b\n\u00e9", "format", "x"), Quarantined("a", "empty", "no bytes")]
    write_quarantine(path, listed)
    assert read_quarantine(path) == listed[::-1]
    path.write_text("[]\n")
    with pytest.raises(IndexFormatError, match=r"q\.jsonl is damaged"):
        read_quarantine(path)
