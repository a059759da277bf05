"""Quotas that replicas share: one count for all, and whoever writes to Redis breaks nothing."""

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
import redis
from redis_tools import RedisServer

from service.keys.quota import Allowance, Quota
from service.redis.link import RedisLink
from service.settings import parse_rate

OpenReplica = Callable[..., httpx.Client]
RATE = parse_rate("3/hour")
HOUR = 3600
# Far below what a client without the setting would wait.
TIMEOUT_S = 0.02

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


def run(
    server: RedisServer,
    story: Callable[[Quota, RedisLink], Awaitable[None]],
    timeout_s: float = 0.5,
) -> None:
    """A quota in a real Redis, which has been found to answer."""

    async def told() -> None:
        link = RedisLink(server.url, timeout_s=timeout_s)
        link.start()
        while link.status != "ok":
            await asyncio.sleep(0.01)
        try:
            await story(Quota(link), link)
        finally:
            await link.stop()

    asyncio.run(told())


def counters_in(client: redis.Redis) -> list[bytes]:
    return list(client.scan_iter("lipsim:quota:*"))


def test_what_is_worth_several_is_counted_for_all_replicas_or_not_at_all(
    redis_server: RedisServer,
):
    async def story(quota: Quota, link: RedisLink) -> None:
        other = Quota(link)
        assert (await quota.take("batch", RATE)).remaining == 2
        refused = await other.take("batch", RATE, 3)
        assert (refused.is_exceeded, refused.remaining) == (True, 2)
        taken = await other.take("batch", RATE, 2)
        assert (taken.is_exceeded, taken.remaining) == (False, 0)
        assert (await quota.take("batch", RATE)).is_exceeded

    run(redis_server, story)


@pytest.mark.parametrize("what", POISONS)
def test_a_poisoned_counter_is_thrown_away_and_the_quota_goes_on(
    redis_server: RedisServer, what: str
):
    async def story(quota: Quota, _link: RedisLink) -> None:
        assert (await quota.take("a", RATE)).remaining == 2
        with redis_server.client() as other:
            (name,) = counters_in(other)
            POISONS[what](other, name)
            # Counted in this process once; then anew.
            assert await quota.take("a", RATE) == Allowance(False, 3, 2, HOUR)
            while counters_in(other):
                await asyncio.sleep(0.01)
        found = [await quota.take("a", RATE) for _ in range(4)]
        assert [allowance.is_exceeded for allowance in found] == [False, False, False, True]
        assert all(0 < allowance.reset_s <= HOUR for allowance in found)

    run(redis_server, story)


def test_a_window_is_one_to_its_last_moment(redis_server: RedisServer):
    """Also in the last half second, which whole seconds would round to none."""

    async def story(quota: Quota, _link: RedisLink) -> None:
        rate = parse_rate("5/2 seconds")
        begun = time.monotonic()
        let_in = 0
        while True:
            allowance = await quota.take("a", rate)
            if time.monotonic() - begun > 1.95:  # It may belong to the next one.
                break
            let_in += not allowance.is_exceeded
            await asyncio.sleep(0.01)
        assert let_in == 5
        await asyncio.sleep(2.1)
        assert await quota.take("a", rate) == Allowance(False, 5, 4, 2)

    run(redis_server, story)


def test_a_counter_used_up_by_somebody_else_ends_with_its_window(redis_server: RedisServer):
    """What cannot be told from the truth: a quota that is used up. It shuts out until then."""

    async def story(quota: Quota, _link: RedisLink) -> None:
        await quota.take("a", RATE)
        with redis_server.client() as other:
            (name,) = counters_in(other)
            other.set(name, 10**9, ex=HOUR)
        assert await quota.take("a", RATE) == Allowance(True, 3, 0, HOUR)
        assert (await quota.take("b", RATE)).remaining == 2

    run(redis_server, story)


def test_it_counts_on_where_an_earlier_version_began(redis_server: RedisServer):
    """That one counted by the library `limits`, whose names and values these are."""

    async def story(quota: Quota, _link: RedisLink) -> None:
        with redis_server.client() as other:
            other.set("lipsim:quota:LIMITER/a/3/1/hour", 2, ex=1800)
        assert await quota.take("a", RATE) == Allowance(False, 3, 0, 1800)
        assert (await quota.take("a", RATE)).is_exceeded

    run(redis_server, story)


def test_redis_that_drops_every_packet_is_waited_for_as_long_as_the_setting_says(
    redis_server: RedisServer,
):
    """Also by requests that arrive while others wait; then nobody waits, and all are counted."""

    async def story(quota: Quota, link: RedisLink) -> None:
        await quota.take("a", RATE)
        redis_server.kill()
        with dropping_packets(redis_server.port):
            for _ in range(4):
                asked = [asyncio.create_task(quota.take("a", RATE)) for _ in range(8)]
                yardstick = asyncio.create_task(twenty_waits())
                await asyncio.wait([*asked, yardstick], return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait(asked)
                assert not yardstick.done()
                yardstick.cancel()
            assert link.status == "degraded"
        assert (await quota.take("a", RATE)).is_exceeded

    run(redis_server, story, TIMEOUT_S)


def test_redis_that_hangs_neither_opens_the_door_nor_shuts_it(redis_server: RedisServer):
    async def story(quota: Quota, link: RedisLink) -> None:
        assert (await quota.take("a", RATE)).remaining == 2
        redis_server.send(signal.SIGSTOP)
        found = [(await quota.take("a", RATE)).is_exceeded for _ in range(5)]
        assert found == [False, False, False, True, True]
        redis_server.send(signal.SIGCONT)
        while link.status != "ok":
            await asyncio.sleep(0.01)
        # What it was asked while it hung it may have done when it woke up.
        assert (await quota.take("a", RATE)).remaining <= 1

    run(redis_server, story, TIMEOUT_S)


async def twenty_waits() -> None:
    """A yardstick on the same loop: a busy machine makes each of its steps longer too."""
    for _ in range(20):
        await asyncio.sleep(TIMEOUT_S)


@contextmanager
def dropping_packets(port: int) -> Iterator[None]:
    """A port that answers no attempt to connect, as behind a firewall: its queue is full."""
    with socket.socket() as listener, ExitStack() as waiting:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield


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
