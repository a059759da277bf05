"""Rows of pictures on disk: made once, gone on with, and believed only as far as they can be."""

import io

import numpy as np
import pytest

from model.errors import TrainingError
from model.train import part_store
from model.train.distributed import World
from model.train.part_store import PART, PartStore

_COUNT = PART + 3


def _row(place):
    return np.full(2, place, dtype=np.float16)


@pytest.fixture
def store(tmp_path):
    return PartStore(tmp_path, "rows", _COUNT, (2,), "float16")


def _built(store, row=_row):
    return store.build(row, "rows", "cpu")


def test_rows_come_back_in_the_order_of_the_pictures_and_are_made_once(store, tmp_path):
    assert np.array_equal(_built(store)[:, 0], np.arange(_COUNT).astype(np.float16))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["rows.npy", "rows.npy.sha256"]
    assert _built(store, row=iter)[-1, 0] == _COUNT - 1


def test_processes_share_the_parts(store, monkeypatch):
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(part_store, "current", lambda rank=rank: World(rank, 2))
        parts += store.missing()
    assert parts == [range(PART), range(PART, _COUNT)]


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
def test_a_damaged_part_is_refused_by_name(store, tmp_path, damage):
    (tmp_path / "rows-000000000.part.npy").write_bytes(_DAMAGED[damage])
    with pytest.raises(TrainingError, match=r"rows-000000000\.part\.npy: finite .* delete this"):
        _built(store)


def test_rows_that_were_moved_are_refused_by_name_and_made_again(store):
    _built(store)
    np.save(store.gathered, np.roll(np.load(store.gathered), 1, axis=0))
    with pytest.raises(TrainingError, match=r"rows\.npy .*sha256 is another: delete it"):
        _built(store)
    store.gathered.unlink()
    assert _built(store)[0, 0] == 0


def test_rows_that_nobody_vouches_for_are_computed_again(store, tmp_path):
    _built(store)
    np.save(store.gathered, np.roll(np.load(store.gathered), 1, axis=0))
    (tmp_path / "rows.npy.sha256").unlink()
    assert _built(store)[0, 0] == 0


def test_a_part_that_is_interrupted_is_not_there(store, tmp_path):
    def interrupted(place):
        if place == PART + 1:
            raise KeyboardInterrupt
        return _row(place)

    with pytest.raises(KeyboardInterrupt):
        _built(store, interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["rows-000000000.part.npy"]
    asked = []

    def counted(place):
        asked.append(place)
        return _row(place)

    assert _built(store, counted)[-1, 0] == _COUNT - 1
    assert asked == list(range(PART, _COUNT))
