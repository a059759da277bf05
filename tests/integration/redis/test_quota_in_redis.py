"""Quotas that replicas share: one count for all, and whoever writes to Redis breaks nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
import redis
from redis_tools import RedisServer

from service.quota.quota import Allowance, Quota
from service.redis.counters import SharedCounters
from service.settings import parse_rate

OpenReplica = Callable[..., httpx.Client]
RATE = parse_rate("3/hour")
HOUR = 3600

POISONS: dict[str, Callable[[redis.Redis, str], object]] = {
    "text": lambda r, name: r.set(name, "many", ex=HOUR),
    "text of a log": lambda r, name: r.set(name, "1\r\nrequest status=200", ex=HOUR),
    "a fraction": lambda r, name: r.set(name, "0.5", ex=HOUR),
    "the largest number": lambda r, name: r.set(name, 2**63 - 1, ex=HOUR),
    "below nothing": lambda r, name: r.set(name, -(10**15), ex=HOUR),
    "no end": lambda r, name: r.set(name, 10**9),
    "an end far away": lambda r, name: r.set(name, 10**9, ex=10**9),
    "a list": lambda r, name: (r.delete(name), r.rpush(name, "1")),
    "a hash": lambda r, name: (r.delete(name), r.hset(name, "1", "1")),
    "64 MB": lambda r, name: r.set(name, b"9" * 64_000_000, ex=HOUR),
}


def run(server: RedisServer, story: Callable[[Quota, Callable], Awaitable[None]]) -> None:
    """A quota in a real Redis, its own clock for rests, and the seconds to move that clock by."""

    async def told() -> None:
        now = 0.0

        def rest() -> None:
            nonlocal now
            now += 60

        counters = SharedCounters(server.url, timeout_s=0.5)
        await story(Quota(counters, monotonic=lambda: now), rest)
        await counters.close()

    asyncio.run(told())


@pytest.mark.parametrize("what", POISONS)
def test_a_poisoned_counter_is_thrown_away_and_the_quota_goes_on(
    redis_server: RedisServer, what: str
):
    async def story(quota: Quota, rest: Callable[[], None]) -> None:
        assert (await quota.take("a", RATE)).remaining == 2
        with redis_server.client() as other:
            (name,) = other.keys()
            POISONS[what](other, name)
        # Counted in this process once, or until the storage is asked again; then anew.
        begun = time.monotonic()
        assert await quota.take("a", RATE) == Allowance(False, 3, 2, HOUR)
        assert time.monotonic() - begun < 2
        rest()
        found = [await quota.take("a", RATE) for _ in range(4)]
        assert [allowance.is_exceeded for allowance in found] == [False, False, False, True]
        assert all(0 < allowance.reset_s <= HOUR for allowance in found)

    run(redis_server, story)


def test_a_window_is_one_to_its_last_moment(redis_server: RedisServer):
    """Also in the last half second, which whole seconds would round to none."""

    async def story(quota: Quota, _rest: Callable[[], None]) -> None:
        rate = parse_rate("5/2 seconds")
        begun = time.monotonic()
        let_in = 0
        while time.monotonic() - begun < 1.95:
            let_in += not (await quota.take("a", rate)).is_exceeded
            await asyncio.sleep(0.01)
        assert let_in == 5
        await asyncio.sleep(0.1)
        assert await quota.take("a", rate) == Allowance(False, 5, 4, 2)

    run(redis_server, story)


def test_a_counter_used_up_by_somebody_else_ends_with_its_window(redis_server: RedisServer):
    """What cannot be told from the truth: a quota that is used up. It shuts out until then."""

    async def story(quota: Quota, _rest: Callable[[], None]) -> None:
        await quota.take("a", RATE)
        with redis_server.client() as other:
            (name,) = other.keys()
            other.set(name, 10**9, ex=HOUR)
        assert await quota.take("a", RATE) == Allowance(True, 3, 0, HOUR)
        assert (await quota.take("b", RATE)).remaining == 2

    run(redis_server, story)


def test_replicas_share_one_count_and_a_poisoned_one_is_never_an_error(
    redis_server: RedisServer, replica: OpenReplica
):
    replicas = [replica(redis_url=redis_server.url, rate_limit="4/hour") for _ in range(2)]
    answers = [replicas[i % 2].get("/v1/info") for i in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
    with redis_server.client() as other:
        names = list(other.scan_iter("*address*"))
        assert len(names) == 1
        for poison in (b"x", b"-1" + b"0" * 15):
            other.set(names[0], poison, ex=HOUR)
            for client in replicas * 3:
                answer = client.get("/v1/info")
                assert answer.status_code in (200, 429)
                assert 0 <= int(answer.headers["ratelimit-remaining"]) < 4
                assert 0 < int(answer.headers["ratelimit-reset"]) <= HOUR
