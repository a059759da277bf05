import dataclasses
import hashlib
from contextlib import contextmanager

import pytest
from image_files import encoded, photo
from listed_pictures import ListWriter

from model.data.edits import EDIT_KINDS, query_of
from model.data.pictures import open_pictures
from model.data.triplets import Triplet, load_triplet_pixels
from model.errors import DataError
from model.evaluate.embedding import embed_pictures, embed_triplets
from model.metrics.load import load_metric
from model.pixels.resize import resize_operator
from model.pixels.views import VIEW_SETS, VIEWS


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
    found = embed_pictures(pictures, metrics, counting, seed=3)
    assert found.originals.tolist() == [n for n in range(20) for _ in range(2)]
    for number in (0, 7, 19):
        pixels = pictures[number].pixels()
        for name, metric in metrics.items():
            assert (found.metrics[name].pictures[number] == metric.embed([pixels])[0]).all()
            for query in (2 * number, 2 * number + 1):
                kind = found.edits[query]
                copy = query_of(pixels, kind, seed=3, number=number)
                assert (found.metrics[name].queries[query] == metric.embed([copy])[0]).all()
                operator = resize_operator(*copy.shape[:2], 64)
                assert found.metrics["block"].gains[query] == operator.gain
    assert found.metrics["hash"].gains is None
    assert counts == [20] + [1] * 20


def test_facts_are_what_the_set_knows(folder, metrics):
    pictures = open_pictures(folder)
    facts = embed_pictures(pictures, metrics, counting, seed=0, copies=0).facts
    assert facts[0].label == "class0"
    assert facts[0].source == facts[0].kind == ""
    data = (folder / pictures.ids[5]).read_bytes()
    assert facts[5].digest == hashlib.sha256(data).hexdigest() == facts[5].origin


def test_a_seed_is_a_set_of_queries(folder, metrics):
    pictures = open_pictures(folder)
    runs = [embed_pictures(pictures, metrics, counting, seed=seed).metrics for seed in (1, 1, 2)]
    assert (runs[0]["block"].queries == runs[1]["block"].queries).all()
    assert (runs[0]["block"].pictures == runs[2]["block"].pictures).all()
    assert (runs[0]["block"].queries != runs[2]["block"].queries).any()


def test_a_limit_takes_evenly_and_asks_each_picture_twice(folder, metrics):
    found = embed_pictures(open_pictures(folder), metrics, counting, seed=0, limit=5)
    every = embed_pictures(open_pictures(folder), metrics, counting, seed=0, copies=0)
    assert found.facts == [every.facts[place] for place in (0, 4, 8, 12, 16)]
    assert len(found.edits) == 10
    assert found.metrics["hash"].queries.shape == (10, 64)
    assert set(found.edits) <= set(EDIT_KINDS)


def test_without_queries_there_are_none(folder, metrics):
    found = embed_pictures(open_pictures(folder), metrics, counting, seed=0, copies=0)
    assert found.metrics["block"].queries.shape == (0, 192)
    assert found.originals.size == 0
    assert found.metrics["block"].pictures.shape == (20, 192)


def test_triplets_are_embedded_in_their_order_and_a_bad_file_is_named(folder, metrics, tmp_path):
    files = sorted(folder.rglob("*.png"))
    triplets = [
        Triplet(str(n), *files[n : n + 3], vote=1.0, votes=None, split="test") for n in range(17)
    ]
    found = embed_triplets(triplets, metrics, counting)
    assert counts == [17] + [1] * 17
    for name, metric in metrics.items():
        for number in (0, 9, 16):
            reference, left, right = metric.embed(load_triplet_pixels(triplets[number]))
            assert (found[name].queries[number] == reference).all()
            assert (found[name].pictures[2 * number] == left).all()
            assert (found[name].pictures[2 * number + 1] == right).all()
    size = load_triplet_pixels(triplets[9])[0].shape[:2]
    assert found["block"].gains[9] == resize_operator(*size, 64).gain
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG no more")
    with pytest.raises(DataError, match=r"bad\.png"):
        embed_triplets([dataclasses.replace(triplets[0], left=bad)], metrics, counting)


@pytest.mark.parametrize("said", ["zz", "", 7, "0" * 63, "g" * 64, ["0" * 64]])
def test_an_origin_that_is_no_hash_is_refused_by_name(tmp_path, metrics, said):
    with ListWriter(tmp_path, "test") as writer:
        writer.add("a", encoded(photo(), "PNG"), "png", {"sha256": said})
    with pytest.raises(DataError, match=r"a\.png: its sha256 must be 64 hex digits"):
        embed_pictures(open_pictures(tmp_path), metrics, counting, seed=0)


def test_origins_are_told_apart_by_their_values_not_by_how_they_are_written(tmp_path, metrics):
    with ListWriter(tmp_path, "test") as writer:
        writer.add("a", encoded(photo(), "PNG"), "png", {"sha256": "AB" * 32})
        writer.add("b", encoded(photo(), "PNG"), "png", {"sha256": None})
    found = embed_pictures(open_pictures(tmp_path), metrics, counting, seed=0)
    assert found.origins == ["ab" * 32, found.facts[1].digest]


def test_a_source_is_a_package_without_the_file_in_it(tmp_path, metrics):
    with ListWriter(tmp_path, "test") as writer:
        writer.add("a", encoded(photo(), "PNG"), "png", {"source": "clipart 0.18: animals/cat.png"})
    found = embed_pictures(open_pictures(tmp_path), metrics, counting, seed=0)
    assert found.divisions()["source"] == ["clipart 0.18"] * 2


def test_a_picture_has_its_views_side_by_side_and_the_picture_itself_first(folder, metrics):
    pictures, names = open_pictures(folder), VIEW_SETS["mirror"]
    found = embed_pictures(pictures, metrics, counting, seed=3, copies=1, views=names)
    plain = embed_pictures(pictures, metrics, counting, seed=3, copies=1)
    assert found.views == len(names)
    for name, metric in metrics.items():
        rows = found.metrics[name].pictures
        assert (rows[:: len(names)] == plain.metrics[name].pictures).all()
        assert (found.metrics[name].queries == plain.metrics[name].queries).all()
        seen = [VIEWS[view].of(pictures[7].pixels()) for view in names]
        assert (rows[7 * len(names) :][: len(names)] == metric.embed(seen)).all()


def test_the_forward_error_is_that_of_the_worst_resize_too(folder, metrics):
    found = embed_pictures(open_pictures(folder), metrics, counting, seed=3)
    errors = [resize_operator(30 + n, 40, 64).input_error for n in range(20)]
    proof, metric = found.metrics["block"].proof, metrics["block"]
    assert proof.forward_error >= metric.forward_error + metric.lipschitz_bound * max(errors)


def test_more_copies_are_more_kinds(folder, metrics):
    found = embed_pictures(open_pictures(folder), metrics, counting, seed=3, copies=12)
    assert len(found.edits) == 240
    assert all(set(found.edits[n : n + 12]) == set(EDIT_KINDS) for n in range(0, 240, 12))
