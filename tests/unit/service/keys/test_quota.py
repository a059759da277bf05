import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

from service.keys import quota as quota_module
from service.keys.quota import Allowance, LocalWindows, Quota
from service.settings import parse_rate

RATE = parse_rate("3/minute")


@pytest.mark.parametrize(
    ("text", "amount", "window_s"),
    [
        ("600/minute", 600, 60),
        ("1/second", 1, 1),
        ("5/hour", 5, 3600),
        ("2/days", 2, 86400),
        ("1000/5 minutes", 1000, 300),
    ],
)
def test_rates_are_read_as_they_are_written(text: str, amount: int, window_s: int):
    rate = parse_rate(text)
    assert (rate.amount, rate.get_expiry()) == (amount, window_s)


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "0/minute", "-1/minute", "5/0 minute", "5/fortnight", " 5/minute", "5/minute\n"),
        *("1/second;9/minute", "1/second, 9/minute", "5 per minute", "1e3/minute"),
        *("5\u0665/minute", "9" * 40 + "/minute"),
    ],
)
def test_what_is_no_rate_is_refused(text: str):
    with pytest.raises(ValueError, match="a rate is like 600/minute"):
        parse_rate(text)


class HandClock:
    """The clocks of windows in the process, moved by hand; the one of the wall can be set too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        self.set_by = 0.0
        fake = SimpleNamespace(time=lambda: self.now + self.set_by, monotonic=lambda: self.now)
        monkeypatch.setattr(quota_module, "time", fake)


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def told() -> None:
        await story()

    asyncio.run(told())


def test_a_window_has_so_many_requests_and_says_how_many_are_left(monkeypatch: pytest.MonkeyPatch):
    clock = HandClock(monkeypatch)

    async def story() -> None:
        quota = Quota()
        assert [await quota.take("a", RATE) for _ in range(3)] == [
            Allowance(False, 3, left, 60) for left in (2, 1, 0)
        ]
        assert await quota.take("a", RATE) == Allowance(True, 3, 0, 60)
        clock.now += 18.5
        assert await quota.take("a", RATE) == Allowance(True, 3, 0, 42)
        # Another caller, and the same one at another rate, have windows of their own.
        assert not (await quota.take("b", RATE)).is_exceeded
        assert not (await quota.take("a", parse_rate("4/minute"))).is_exceeded

    run(story)


def test_who_waits_as_long_as_told_is_let_in(monkeypatch: pytest.MonkeyPatch):
    clock = HandClock(monkeypatch)

    async def story() -> None:
        quota = Quota()
        for step in (0.0, 0.25, 12.34, 58.999):
            while not (last := await quota.take(f"{step}", RATE)).is_exceeded:
                clock.now += step / 4
            assert last.reset_s >= 1
            clock.now += last.reset_s
            assert not (await quota.take(f"{step}", RATE)).is_exceeded

    run(story)


def test_what_is_worth_several_is_counted_as_a_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
):
    clock = HandClock(monkeypatch)

    async def story() -> None:
        quota = Quota()
        assert await quota.take("a", RATE) == Allowance(False, 3, 2, 60)
        assert await quota.take("a", RATE, 3) == Allowance(True, 3, 2, 60)
        assert await quota.take("a", RATE, 2) == Allowance(False, 3, 0, 60)
        assert await quota.take("a", RATE, 2) == Allowance(True, 3, 0, 60)
        clock.now += 60
        assert await quota.take("a", RATE, 4) == Allowance(True, 3, 3, 60)

    run(story)


@pytest.mark.parametrize("set_by", [-86400.0, 86400.0])
def test_a_clock_that_is_set_makes_no_window_longer_or_shorter(
    monkeypatch: pytest.MonkeyPatch, set_by: float
):
    clock = HandClock(monkeypatch)

    async def story() -> None:
        quota = Quota()
        while not (await quota.take("a", RATE)).is_exceeded:
            pass
        clock.now += 10
        clock.set_by = set_by
        assert await quota.take("a", RATE) == Allowance(True, 3, 0, 50)
        clock.now += 50
        assert await quota.take("a", RATE) == Allowance(False, 3, 2, 60)

    run(story)


@pytest.mark.parametrize("asking", [1, 49, 50, 51, 400])
def test_of_any_number_at_once_exactly_as_many_are_let_in_as_the_rate_says(
    asking: int,
):
    async def story() -> None:
        quota = Quota()
        rate = parse_rate("50/hour")
        found = await asyncio.gather(*(quota.take("a", rate) for _ in range(asking)))
        let_in = [allowance.remaining for allowance in found if not allowance.is_exceeded]
        assert sorted(let_in, reverse=True) == [49 - i for i in range(min(50, asking))]

    run(story)


def test_counters_of_callers_who_left_are_thrown_away(monkeypatch: pytest.MonkeyPatch):
    clock = HandClock(monkeypatch)

    async def story() -> None:
        windows = LocalWindows()
        most = 0
        for i in range(20_000):
            assert windows.count(f"caller-{i}", 60) == (1, 60.0)
            clock.now += 0.1  # 600 callers are within their minute at any time.
            most = max(most, len(windows))
        assert most <= 1200 + 1024

    run(story)


def test_a_sweep_takes_no_counter_that_still_counts(monkeypatch: pytest.MonkeyPatch):
    clock = HandClock(monkeypatch)

    async def story() -> None:
        quota = Quota()
        rate = parse_rate("2/day")
        for _ in range(3):
            last = await quota.take("a", rate)
        assert last.is_exceeded
        for i in range(5000):
            await quota.take(f"other-{i}", RATE)
            clock.now += 0.1
        assert (await quota.take("a", rate)).is_exceeded

    run(story)


def test_callers_without_number_take_no_more_memory_than_so_many(monkeypatch: pytest.MonkeyPatch):
    """And nobody is refused for it; who asked last keeps the own count."""
    clock = HandClock(monkeypatch)
    monkeypatch.setattr(quota_module, "MOST_WINDOWS", 3000)

    async def story() -> None:
        windows = LocalWindows()
        for i in range(10_000):
            assert windows.count(f"address:2001:db8:{i:x}::/64", 86400)[0] == 1
            clock.now += 0.01
            assert len(windows) <= 3000
        # The window that began longest ago goes first: the newest are all there still.
        for i in range(7000, 10_000):
            assert windows.count(f"address:2001:db8:{i:x}::/64", 86400)[0] == 2

    run(story)


def test_a_flood_of_callers_costs_each_request_little(monkeypatch: pytest.MonkeyPatch):
    """Full, with nothing that has expired: no request may look through all counters."""
    monkeypatch.setattr(quota_module, "MOST_WINDOWS", 20_000)
    looks = 0
    real = LocalWindows._sweep

    def count(windows: LocalWindows, now: float) -> None:
        nonlocal looks
        looks += 1
        real(windows, now)

    monkeypatch.setattr(LocalWindows, "_sweep", count)

    windows = LocalWindows()
    for i in range(60_000):
        windows.count(f"{i}", 3600)
    assert looks < 10
