import hashlib
from contextlib import contextmanager

import numpy as np
import pytest
from image_files import encoded, photo
from listed_pictures import ListWriter

from model.data.edits import EDIT_KINDS
from model.data.pictures import open_pictures
from model.errors import DataError
from model.evaluate.gathering import gather, gather_files, query_of
from model.metrics.load import load_metric
from model.pixels.resize import resize_operator


@contextmanager
def counting(text, total):
    assert text.startswith("embedding ")
    counts.append(total)
    yield lambda: counts.append(1)


counts = []


@pytest.fixture(autouse=True)
def no_counts():
    counts.clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for number in range(20):
        (root / f"class{number % 3}").mkdir(exist_ok=True)
        picture = photo(30 + number, 40, seed=number)
        (root / f"class{number % 3}" / f"{number:02}.png").write_bytes(encoded(picture, "PNG"))
    return root


@pytest.fixture(scope="module")
def metrics():
    return {"block": load_metric("blockmean8"), "hash": load_metric("phash")}


def test_every_metric_sees_the_same_pictures_and_copies(folder, metrics):
    pictures = open_pictures(folder)
    gathered = gather(pictures, metrics, counting, seed=3)
    assert gathered.queries.originals.tolist() == [n for n in range(20) for _ in range(2)]
    for number in (0, 7, 19):
        pixels = pictures[number].pixels()
        for name, metric in metrics.items():
            assert (gathered.vectors[name].pictures[number] == metric.embed([pixels])[0]).all()
            for query in (2 * number, 2 * number + 1):
                kind = gathered.queries.edits[query]
                copy = query_of(pixels, kind, seed=3, number=number)
                assert (gathered.vectors[name].queries[query] == metric.embed([copy])[0]).all()
                operator = resize_operator(*copy.shape[:2], 64)
                assert gathered.resizes["block"].gains[query] == operator.gain
                assert gathered.resizes["block"].input_errors[query] == operator.input_error
    assert "hash" not in gathered.resizes
    assert counts == [20] + [1] * 20


def test_the_sheet_says_what_the_set_knows(folder, metrics):
    sheet = gather(open_pictures(folder), metrics, counting, seed=0, with_queries=False).sheet
    assert sheet.ids[0] == "class0/00.png"
    assert sheet.labels[0] == "class0"
    assert sheet.sources[0] == sheet.kinds[0] == ""
    data = (folder / sheet.ids[5]).read_bytes()
    assert sheet.digests[5] == hashlib.sha256(data).hexdigest() == sheet.origins[5]


def test_a_seed_is_a_set_of_queries(folder, metrics):
    pictures = open_pictures(folder)
    runs = [gather(pictures, metrics, counting, seed=seed).vectors for seed in (1, 1, 2)]
    assert (runs[0]["block"].queries == runs[1]["block"].queries).all()
    assert (runs[0]["block"].pictures == runs[2]["block"].pictures).all()
    assert (runs[0]["block"].queries != runs[2]["block"].queries).any()


def test_a_limit_takes_evenly_and_asks_each_picture_twice(folder, metrics):
    gathered = gather(open_pictures(folder), metrics, counting, seed=0, limit=5)
    ids = open_pictures(folder).ids
    assert gathered.sheet.ids == tuple(ids[place] for place in (0, 4, 8, 12, 16))
    assert len(gathered.queries.edits) == 10
    assert gathered.vectors["hash"].queries.shape == (10, 64)
    assert set(gathered.queries.edits) <= set(EDIT_KINDS)


def test_without_queries_there_are_none(folder, metrics):
    gathered = gather(open_pictures(folder), metrics, counting, seed=0, with_queries=False)
    assert gathered.vectors["block"].queries.shape == (0, 192)
    assert gathered.queries.originals.size == 0
    assert gathered.vectors["block"].pictures.shape == (20, 192)


def test_files_are_embedded_in_their_order_and_a_bad_one_is_named(folder, metrics, tmp_path):
    files = sorted(folder.rglob("*.png"))
    digests, vectors, resizes = gather_files(files, metrics, counting)
    assert digests[3] == hashlib.sha256(files[3].read_bytes()).hexdigest()
    again = gather_files(files[3:4], metrics, counting)
    assert (vectors["block"][3] == again[1]["block"][0]).all()
    assert resizes["block"].gains[3] == again[2]["block"].gains[0]
    assert np.isfinite(resizes["block"].gains).all()
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG no more")
    with pytest.raises(DataError, match=r"bad\.png"):
        gather_files([files[0], bad], metrics, counting)


@pytest.mark.parametrize("said", ["zz", "", 7, "0" * 63, "g" * 64, ["0" * 64]])
def test_an_origin_that_is_no_hash_is_refused_by_name(tmp_path, metrics, said):
    with ListWriter(tmp_path, "test") as writer:
        writer.add("a", encoded(photo(), "PNG"), "png", {"sha256": said})
    with pytest.raises(DataError, match=r"a\.png: its sha256 must be 64 hex digits"):
        gather(open_pictures(tmp_path), metrics, counting, seed=0)


def test_origins_are_told_apart_by_their_values_not_by_how_they_are_written(tmp_path, metrics):
    with ListWriter(tmp_path, "test") as writer:
        writer.add("a", encoded(photo(), "PNG"), "png", {"sha256": "AB" * 32})
        writer.add("b", encoded(photo(), "PNG"), "png", {"sha256": None})
    sheet = gather(open_pictures(tmp_path), metrics, counting, seed=0).sheet
    assert sheet.origins == ("ab" * 32, sheet.digests[1])
