"""Which example stands where: a pure function, and every epoch sees each example once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from train_tools import Shown

from model.errors import TrainingError
from model.train.distributed import places_of
from model.train.sampling import Part, evenly, example_at, held_out, ids_digest, view_generator


@given(st.integers(0, 5), st.integers(1, 40), st.integers(0, 4))
def test_every_epoch_holds_every_example_once(seed, examples, epoch):
    places = range(epoch * examples, (epoch + 1) * examples)
    assert sorted(example_at(seed, examples, place) for place in places) == list(range(examples))


def test_epochs_and_seeds_are_shuffled_apart():
    def row(seed, epoch):
        return [example_at(seed, 50, epoch * 50 + place) for place in range(50)]

    rows = [row(0, 0), row(0, 1), row(1, 0)]
    assert len({tuple(one) for one in rows}) == 3
    assert row(0, 1) == rows[1]


def test_a_view_is_drawn_from_seed_and_place_alone_and_not_from_the_order():
    assert view_generator(3, 7).random() == view_generator(3, 7).random()
    draws = {view_generator(seed, place).random() for seed in range(5) for place in range(5)}
    assert len(draws) == 25


@given(st.integers(1, 8), st.integers(1, 8))
def test_processes_share_a_batch_without_gap_or_overlap(world, each):
    size = world * each
    shares = [places_of(3, size, rank, world) for rank in range(world)]
    assert [place for share in shares for place in share] == list(range(3 * size, 4 * size))


def test_an_uneven_batch_is_refused():
    with pytest.raises(TrainingError, match="batch_size 10 is not divisible by 4 processes"):
        places_of(0, 10, 0, 4)


def test_what_is_held_out_hangs_on_names_and_not_on_places():
    names = [f"{i}.png" for i in range(200)]
    out = {names[i] for i in held_out(names, 1000)}
    assert len(out) == 20  # at most a tenth
    assert out == {names[::-1][i] for i in held_out(names[::-1], 1000)}
    assert len(held_out(names, 5)) == 5
    assert len(held_out(["a", "b"], 5)) == 1
    # One more picture takes at most one other's place.
    more = [*names, "new.png"]
    assert len(out - {more[i] for i in held_out(more, 1000)}) <= 1


@given(st.integers(1, 60), st.integers(0, 60))
def test_a_spread_choice_is_ascending_and_whole_where_nothing_is_said(count, most):
    chosen = evenly(count, most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == (min(most, count) if most else count)
    assert all(0 <= place < count for place in chosen)


def test_a_part_of_a_set_is_a_set():
    shown = Shown(5)
    part = Part(shown, [4, 1])
    assert (len(part), list(part.ids), part.labels) == (2, ["004.png", "001.png"], [None, None])
    assert part[0].id == "004.png"
    assert ids_digest(part.ids) != ids_digest(shown.ids)
