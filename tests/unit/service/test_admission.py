import pytest

from service.admission import ByteBudget, Slots
from service.errors import OverloadedError


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_more_than_fits_is_refused_and_slots_are_given_back():
    slots = Slots(2, "are being received")
    for _ in range(3):
        with slots.take(), slots.take():
            assert slots.taken == 2
            with (
                pytest.raises(OverloadedError, match="2 requests are being received"),
                slots.take(),
            ):
                pytest.fail("a third was let in")
    assert slots.taken == 0


def test_a_batch_takes_all_of_its_slots_or_none():
    slots = Slots(5, "wait")
    with slots.take(3):
        with pytest.raises(OverloadedError, match="3 requests wait already, of 5; "):
            slots.take(3).__enter__()
        with slots.take(2):
            assert slots.is_full
        assert slots.taken == 3
    assert slots.taken == 0


def test_a_request_that_fails_gives_its_place_back():
    slots = Slots(1, "wait")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), slots.take():
            raise ZeroDivisionError


def leave(slots: Slots, clock: Clock, count: int, seconds_each: float) -> None:
    for _ in range(count):
        with slots.take():
            clock.now += seconds_each


def test_the_time_to_come_back_is_that_of_the_line_at_its_present_speed():
    clock = Clock()
    slots = Slots(20, "wait", clock=clock)
    leave(slots, clock, 10, seconds_each=0.5)
    assert slots.retry_after_s() == 1  # Nobody is there.
    slots.taken = 20
    assert 9 <= slots.retry_after_s() <= 10
    clock.now += 3600  # Nothing left for an hour: the speed of then says nothing.
    assert slots.retry_after_s() == 1


def test_the_time_to_come_back_has_bounds():
    clock = Clock()
    slots = Slots(10_000, "wait", clock=clock)
    leave(slots, clock, 2, seconds_each=4.0)
    slots.taken = 10_000
    assert slots.retry_after_s() == 60


def test_bytes_are_held_up_to_the_budget_and_not_one_more():
    budget = ByteBudget(10)
    budget.take(4)
    budget.take(6)
    with pytest.raises(OverloadedError, match="10 bytes"):
        budget.take(1)
    budget.give_back(1)
    budget.take(1)
    with pytest.raises(OverloadedError):
        budget.take(1)
