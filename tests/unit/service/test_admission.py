import pytest

from service.admission import ByteBudget, Places
from service.errors import OverloadedError


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_more_than_fits_is_refused_and_places_are_given_back():
    places = Places(2, "are being received")
    for _ in range(3):
        with places.take(), places.take():
            assert places.taken == 2
            with (
                pytest.raises(OverloadedError, match="2 requests are being received"),
                places.take(),
            ):
                pytest.fail("a third was let in")
    assert places.taken == 0


def test_a_request_that_fails_gives_its_place_back():
    places = Places(1, "wait")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), places.take():
            raise ZeroDivisionError


def leave(places: Places, clock: Clock, count: int, seconds_each: float) -> None:
    for _ in range(count):
        with places.take():
            clock.now += seconds_each


def test_the_time_to_come_back_is_that_of_the_line_at_its_present_speed():
    clock = Clock()
    places = Places(20, "wait", clock=clock)
    leave(places, clock, 10, seconds_each=0.5)
    assert places.retry_after_s() == 1  # Nobody is there.
    places.taken = 20
    assert 9 <= places.retry_after_s() <= 10
    clock.now += 3600  # Nothing left for an hour: the speed of then says nothing.
    assert places.retry_after_s() == 1


def test_the_time_to_come_back_has_bounds():
    clock = Clock()
    places = Places(10_000, "wait", clock=clock)
    leave(places, clock, 2, seconds_each=4.0)
    places.taken = 10_000
    assert places.retry_after_s() == 60


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
