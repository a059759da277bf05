"""Rows of pictures on disk: made once, gone on with, and believed only as far as they can be."""

import hashlib
import io

import numpy as np
import pytest

from model.errors import TrainingError
from model.train.copies.part_store import PART, PartStore
from model.train.distributed import World

_COUNT = PART + 3


def _row(place):
    return np.full(2, place, dtype=np.float16)


def _counting(_what, items, _total):
    return items


def _store(folder, **changes):
    fields = {"folder": folder, "stem": "rows", "pictures": _COUNT, "shape": (2,)}
    return PartStore(**{**fields, "dtype": "float16", **changes})


@pytest.fixture
def built(tmp_path):
    store = _store(tmp_path)
    store.build(_row, "rows", World(), _counting)
    return store


def test_rows_come_back_in_the_order_of_the_pictures(built):
    for mapped in (False, True):
        rows = np.concatenate(built.load(mapped=mapped))
        assert np.array_equal(rows[:, 0], np.arange(_COUNT).astype(np.float16))


def test_processes_share_the_parts_and_what_is_there_stays(tmp_path):
    store = _store(tmp_path)
    store.build(_row, "rows", World(1, 2), _counting)
    (last,) = tmp_path.glob("*.npy")
    before = last.stat().st_mtime_ns
    store.build(_row, "rows", World(0, 1), _counting)
    assert last.stat().st_mtime_ns == before
    assert len(store.load()) == 2


def _saved(array, **kinds):
    whole = io.BytesIO()
    (np.savez if kinds else np.save)(whole, array)
    return whole.getvalue()


_WHOLE = _saved(np.zeros((PART, 2), np.float16))
_DAMAGED = {
    "cut": _WHOLE[:-1],
    "empty": b"",
    "archive": b"PK" + _WHOLE[2:],
    "int8": _saved(np.zeros((PART, 2), np.int8)),
    "text": _saved(np.full((PART, 2), "text")),
    "wide": _saved(np.zeros((PART, 3), np.float16)),
    "nan": _saved(np.full((PART, 2), np.nan, np.float16)),
    "several": _saved(np.zeros((PART, 2), np.float16), several=True),
}


@pytest.mark.parametrize("damage", _DAMAGED)
@pytest.mark.parametrize("has_its_digest", [False, True])
def test_a_damaged_part_is_refused_by_name(built, tmp_path, damage, has_its_digest):
    (tmp_path / "rows-00000.npy").write_bytes(_DAMAGED[damage])
    if has_its_digest:
        digest = hashlib.sha256(_DAMAGED[damage]).hexdigest()
        (tmp_path / "rows-00000.npy.sha256").write_text(digest)
    with pytest.raises(TrainingError, match=r"rows-00000\.npy .*delete it"):
        built.load()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_part_whose_rows_were_moved_is_refused_by_name(built, tmp_path, mapped):
    part = tmp_path / "rows-00000.npy"
    np.save(part, np.roll(np.load(part), 1, axis=0))
    with pytest.raises(TrainingError, match=r"rows-00000\.npy .*sha256 is another: delete it"):
        built.load(mapped=mapped)
    part.unlink()
    built.build(_row, "rows", World(), _counting)
    assert np.concatenate(built.load())[0, 0] == 0


def test_a_part_that_nobody_vouches_for_is_computed_again(built, tmp_path):
    part = tmp_path / "rows-00000.npy"
    np.save(part, np.roll(np.load(part), 1, axis=0))
    (tmp_path / "rows-00000.npy.sha256").unlink()
    built.build(_row, "rows", World(), _counting)
    assert np.concatenate(built.load())[0, 0] == 0


def test_a_part_that_is_interrupted_is_not_there(tmp_path):
    def interrupted(place):
        if place == PART + 1:
            raise KeyboardInterrupt
        return _row(place)

    store = _store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.build(interrupted, "rows", World(), _counting)
    assert [path.name for path in tmp_path.glob("rows-*.npy")] == ["rows-00000.npy"]
    store.build(_row, "rows", World(), _counting)
    assert np.concatenate(store.load())[-1, 0] == _COUNT - 1
