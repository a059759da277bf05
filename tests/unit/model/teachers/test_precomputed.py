"""Embeddings on disk: what is written is read, and what is damaged or hostile is refused."""

import hashlib
import json

import numpy as np
import pytest

from model.errors import MetricError
from model.teachers.precomputed import PrecomputedEmbeddings, write_embeddings

RECORD = {"teacher": "someone", "weights_sha256": "0" * 64}
IDS = ["a/1.png", "a/2.png", "b ü.webp"]
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def folder(tmp_path):
    write_embeddings(tmp_path / "e", IDS, [VECTORS[:2], VECTORS[2:]], RECORD)
    return tmp_path / "e"


def test_what_is_written_is_read_in_any_order(folder):
    found = PrecomputedEmbeddings(folder)
    assert (found.name, found.dim, found.count) == ("someone", 4, 3)
    assert found.record.items() >= RECORD.items()
    digest = hashlib.sha256((folder / "embeddings.npy").read_bytes()).hexdigest()
    assert found.sha256 == found.record["embeddings_sha256"] == digest
    rows = found.rows([IDS[2], IDS[0], IDS[2]])
    assert rows.dtype == np.float32
    assert np.array_equal(rows, VECTORS[[2, 0, 2]])
    assert found.rows([]).shape == (0, 4)


def test_half_precision_is_kept_on_disk(tmp_path):
    write_embeddings(tmp_path / "h", IDS, [VECTORS.astype(np.float16)], RECORD)
    assert np.load(tmp_path / "h" / "embeddings.npy").dtype == np.float16
    assert np.array_equal(PrecomputedEmbeddings(tmp_path / "h").rows(IDS), VECTORS)


def test_equal_embeddings_are_equal_bytes(tmp_path):
    for name in "xy":
        write_embeddings(tmp_path / name, IDS, [VECTORS], RECORD, {"mean": np.zeros(4)})
    for file in (tmp_path / "x").iterdir():
        assert file.read_bytes() == (tmp_path / "y" / file.name).read_bytes()


def test_a_picture_without_embedding_is_named(folder):
    with pytest.raises(MetricError, match=r"no embedding of c\.png"):
        PrecomputedEmbeddings(folder).rows(["a/1.png", "c.png"])


@pytest.mark.parametrize(
    ("ids", "chunks", "words"),
    [
        (IDS[:2], [VECTORS], "2 embeddings were wanted, more came"),
        (IDS, [VECTORS[:2]], "3 embeddings were wanted, 2 came"),
        (["a", "b", "a"], [VECTORS], "the id a comes twice"),
        (["a", "b\nc", "d"], [VECTORS], "breaks a line"),
        (["a", "b\u2028c", "d"], [VECTORS], "breaks a line"),
        (["a", "", "d"], [VECTORS], "is empty or breaks a line"),
        (IDS, [VECTORS[:1], np.full((2, 4), np.nan, np.float32)], r"embedding of a/2\.png is not"),
        ([], [], "0 embeddings were wanted"),
    ],
)
def test_what_does_not_fit_is_not_written(tmp_path, ids, chunks, words):
    with pytest.raises(MetricError, match=words):
        write_embeddings(tmp_path / "e", ids, chunks, RECORD)
    assert not (tmp_path / "e").exists()


def test_a_folder_that_is_there_is_left_alone(folder):
    before = (folder / "embeddings.npy").read_bytes()
    with pytest.raises(MetricError, match="there already"):
        write_embeddings(folder, IDS, [VECTORS + 1], RECORD)
    assert (folder / "embeddings.npy").read_bytes() == before


def damage(folder, file, content):
    (folder / file).write_bytes(content)
    with pytest.raises(MetricError, match=folder.name):
        PrecomputedEmbeddings(folder).rows(IDS)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": "other"}', b"\xff\xfe", b'{"format": "lipsim-embeddings-1"}'],
)
def test_a_damaged_record_is_refused(folder, content):
    damage(folder, "embeddings.json", content)


def test_a_record_that_holds_more_than_texts_is_refused(folder):
    about = json.loads((folder / "embeddings.json").read_text())
    about["record"]["teacher"] = ["x"]
    damage(folder, "embeddings.json", json.dumps(about).encode())


def test_damaged_vectors_are_refused(folder):
    whole = (folder / "embeddings.npy").read_bytes()
    for content in (b"", whole[:-4], whole[:20], b"not numpy"):
        damage(folder, "embeddings.npy", content)
    for array in (VECTORS.astype(np.int64), VECTORS[0], np.array([{"a": 1}], dtype=object)):
        np.save(folder / "embeddings.npy", array)
        with pytest.raises(MetricError, match=folder.name):
            PrecomputedEmbeddings(folder)


def test_ids_of_another_number_are_refused(folder):
    damage(folder, "ids.txt", b"a/1.png\na/2.png\n")
    damage(folder, "ids.txt", b"a/1.png\na/1.png\nb\n")
    (folder / "ids.txt").unlink()
    with pytest.raises(MetricError, match="damaged"):
        PrecomputedEmbeddings(folder)


@pytest.mark.parametrize("other", [VECTORS[::-1], VECTORS + 1, VECTORS[:, :0], VECTORS[:2]])
def test_embeddings_that_are_not_those_of_the_record_are_refused(folder, other):
    wanted = PrecomputedEmbeddings(folder).sha256
    np.save(folder / "embeddings.npy", other)
    came = hashlib.sha256((folder / "embeddings.npy").read_bytes()).hexdigest()
    words = rf"embeddings\.npy: sha256 {wanted} was wanted by embeddings\.json, {came} came"
    with pytest.raises(MetricError, match=words):
        PrecomputedEmbeddings(folder)


def test_a_record_of_other_counts_is_refused(folder):
    whole = json.loads((folder / "embeddings.json").read_text())
    for change in ({"count": 2}, {"count": None}, {"dim": "four"}, {"dim": 0}):
        (folder / "embeddings.json").write_text(json.dumps(whole | change))
        with pytest.raises(MetricError, match=folder.name):
            PrecomputedEmbeddings(folder)


def test_a_folder_of_nothing_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(MetricError, match=r"embeddings\.json cannot be read"):
            PrecomputedEmbeddings(path)
