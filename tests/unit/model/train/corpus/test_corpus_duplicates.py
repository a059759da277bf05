import numpy as np
import pytest

from model.train.corpus.duplicates import _BLOCK, near_any, near_earlier, sift
from model.train.corpus.pictures import Prepared


def prepared(name, split, thumbnail, **fields):
    values = {
        "source": "s", "path": name, "sha256": name, "licence": "", "label": None,
        "kind": "photo", "crop": None, "parts": (), "pixels_sha256": name, "image": b"",
    } | fields  # fmt: skip
    return Prepared(split=split, thumbnail=np.asarray(thumbnail, np.uint8), **values)


def rms(a, b):
    return np.sqrt(((a.astype(float) - b.astype(float)) ** 2).mean()) / 255


def slow_near_earlier(thumbnails):
    kept, near = [], []
    for one in thumbnails:
        near.append(any(rms(one, other) < 0.05 for other in kept))
        if not near[-1]:
            kept.append(one)
    return near


@pytest.mark.parametrize("seed", range(5))
def test_the_matrix_product_finds_what_a_plain_loop_finds(seed):
    rng = np.random.default_rng(seed)
    # Steps of about the bound between neighbours, so that chains of near pairs arise.
    walk = np.cumsum(rng.normal(0, 9, (120, 768)), axis=0) + 128
    thumbnails = np.clip(walk, 0, 255).astype(np.uint8)[rng.permutation(120)]
    expected = slow_near_earlier(thumbnails)
    assert near_earlier(thumbnails).tolist() == expected
    assert 5 < sum(expected) < 115
    others = thumbnails[:40]
    plain = [any(rms(one, other) < 0.05 for other in others) for one in thumbnails[40:]]
    assert near_any(thumbnails[40:], others).tolist() == plain


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(0, 9, (90, 768)), axis=0) + 128
    thumbnails = np.clip(walk, 0, 255).astype(np.uint8)
    whole = near_earlier(thumbnails), near_any(thumbnails, thumbnails[::7])
    assert _BLOCK > 90
    monkeypatch.setattr("model.train.corpus.duplicates._BLOCK", 8)
    np.testing.assert_array_equal(near_earlier(thumbnails), whole[0])
    np.testing.assert_array_equal(near_any(thumbnails, thumbnails[::7]), whole[1])


def test_the_bound_is_met_to_the_last_unit():
    # (0.05 x 255)^2 x 768 = 124848, and 570 x 13^2 + 198 x 12^2 = 124842.
    black = np.zeros((1, 768), np.uint8)
    for thirteens, is_near in ((570, True), (571, False)):
        other = np.full((1, 768), 12, np.uint8)
        other[0, :thirteens] = 13
        assert near_any(other, black).tolist() == [is_near]
        assert near_any(255 - other, 255 - black).tolist() == [is_near]


def test_what_is_measured_on_stays_and_its_like_goes():
    like = np.full(768, 100)
    other = np.full(768, 200)
    pictures = [
        prepared("train-a", "train", like),
        prepared("validation-a", "validation", like + 2),
        prepared("test-a", "test", like + 4),
        prepared("test-b", "test", like + 5),
        prepared("train-b", "train", other),
        prepared("validation-b", "validation", other + 1),
    ]
    sifted = sift(pictures, [])
    assert [one.path for one in sifted.kept] == ["test-a", "validation-b"]
    assert {one.path: one.reason for one in sifted.dropped} == {
        "test-b": "near another test picture",
        "validation-a": "near a held-out picture",
        "train-a": "near a held-out picture",
        "train-b": "near a held-out picture",
    }


def test_crops_of_one_file_are_not_the_same_file():
    rng = np.random.default_rng(1)
    pictures = [
        prepared("a", "test", rng.integers(0, 256, 768), crop=(0, 0, 9, n), pixels_sha256=str(n))
        for n in (8, 9)
    ]
    assert len(sift(pictures, []).kept) == 2


def test_nothing_is_sifted_to_nothing():
    assert sift([], []).kept == []
