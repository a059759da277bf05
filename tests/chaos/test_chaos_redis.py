"""Redis is killed, hangs, is full, or is a liar: every answer comes, in time, and is right."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import redis
from chaos_load import Load, TruthOf, always
from chaos_tools import metric
from chaos_world import Claim, World
from redis_tools import SECRET, RedisServer, stranger
from service_helpers import Server, StartServer, wait_for

PROMISE = "every request gets its right answer, in bounded time; of use again by itself"
# Redis may be waited for 0.1 s a time; the rest is for a machine that does other things too.
AIR_S = 3.0
# The longest pause between two probes is 30 s.
BACK_S = 60.0


def status_of(server: Server) -> str:
    ready = httpx.get(f"{server.url}/readyz", timeout=60)
    assert ready.status_code == 200
    return ready.json()["redis"]


def hits(server: Server) -> float:
    return metric(server.url, 'lipsim_cache_lookups_total{found="redis"}')


@pytest.fixture
def server(world: World, own_redis: RedisServer, start_server: StartServer) -> Server:
    """A service that remembers in Redis alone, and counts a quota there too."""
    started = start_server(
        world.data_dir,
        redis_url=own_redis.url,
        cache_secret=SECRET,
        cache_bytes=0,
        rate_limit="1000000/minute",
    )
    started.wait_ready()
    wait_for(lambda: status_of(started) == "ok")
    return started


@contextmanager
def asked(server: Server, world: World) -> Iterator[Load]:
    """The service under load, with Redis of use at the begin."""
    with Load(server.url, world.queries) as load:
        load.wait_for_more(150)
        assert hits(server) > 0
        yield load


def is_in_time(load: Load, truth_of: TruthOf, trouble: float) -> bool:
    """Whether no answer from the trouble on took much longer than the longest before it."""
    before = load.tally(truth_of, until=trouble)
    after = load.tally(truth_of, since=trouble)
    return after.longest_s < 5 * before.longest_s + AIR_S


def wait_until_of_use(server: Server) -> float:
    """Seconds until Redis is asked again, and answers."""
    begun = time.monotonic()
    wait_for(lambda: status_of(server) == "ok", BACK_S)
    before = hits(server)
    wait_for(lambda: hits(server) > before, BACK_S)
    return time.monotonic() - begun


def test_it_is_killed_and_started_again(
    server: Server, own_redis: RedisServer, world: World, claim: Claim
):
    row = claim("Redis killed (SIGKILL), started again", PROMISE)
    with asked(server, world) as load:
        trouble = time.monotonic()
        own_redis.kill()
        load.wait_for_more(150)
        wait_for(lambda: status_of(server) == "degraded")
        own_redis.start()
        back_s = wait_until_of_use(server)
    truth_of = always(world.truths["default"])
    tally = load.tally(truth_of)
    row.happened = f"{tally}; of use again after {back_s:.1f} s"
    assert tally.is_flawless
    assert is_in_time(load, truth_of, trouble)


def test_it_hangs_and_wakes_up(server: Server, own_redis: RedisServer, world: World, claim: Claim):
    row = claim("Redis hangs (SIGSTOP), wakes up (SIGCONT)", PROMISE)
    with asked(server, world) as load:
        trouble = time.monotonic()
        own_redis.send(signal.SIGSTOP)
        load.wait_for_more(150)
        wait_for(lambda: status_of(server) == "degraded")
        own_redis.send(signal.SIGCONT)
        back_s = wait_until_of_use(server)
    truth_of = always(world.truths["default"])
    tally = load.tally(truth_of)
    row.happened = f"{tally}; of use again after {back_s:.1f} s"
    assert tally.is_flawless
    assert is_in_time(load, truth_of, trouble)


def test_it_is_full(server: Server, own_redis: RedisServer, world: World, claim: Claim):
    row = claim("Redis full (noeviction, 1 byte)", PROMISE)
    with asked(server, world) as load, own_redis.client() as operator:
        trouble = time.monotonic()
        operator.flushall()
        operator.config_set("maxmemory-policy", "noeviction")
        operator.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            operator.set("no", "room")
        load.wait_for_more(150)
        wait_for(lambda: status_of(server) == "degraded")
        operator.config_set("maxmemory", 0)
        back_s = wait_until_of_use(server)
    truth_of = always(world.truths["default"])
    tally = load.tally(truth_of)
    row.happened = f"{tally}; of use again after {back_s:.1f} s"
    assert tally.is_flawless
    assert is_in_time(load, truth_of, trouble)


# A record has 4172 bytes.
LIES = {
    "other bytes": b"$4172\r\n" + bytes(4172) + b"\r\n",
    "a short string": b"$5\r\nhello\r\n",
    "a number": b":7\r\n",
    "a list": b"*2\r\n:1\r\n$1\r\nx\r\n",
    "a truncated string": b"$4172\r\n" + bytes(100),
    "nonsense": b"\0\xff nonsense\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


class Liar:
    """Answers probes as Redis would, and everything else with a lie."""

    def __init__(self) -> None:
        self.lie = b""
        self.told = Counter[bytes]()
        self._lock = threading.Lock()

    def __call__(self, heard: bytes) -> bytes:
        if b"PING" in heard:
            return b"+PONG\r\n"
        if b"lipsim:probe" in heard:
            return b"+OK\r\n"
        with self._lock:
            self.told[self.lie] += 1
        return self.lie


def test_somebody_else_took_its_port_and_lies(
    server: Server, own_redis: RedisServer, world: World, claim: Claim
):
    row = claim("Redis's port taken by a liar (nonsense, wrong types, truncated values)", PROMISE)
    liar = Liar()
    with asked(server, world) as load:
        trouble = time.monotonic()
        own_redis.kill()
        with stranger(liar, own_redis.port):
            for lie in LIES.values():
                liar.lie = lie
                wait_for(lambda lie=lie: liar.told[lie] >= 3, BACK_S)
                load.wait_for_more(20)
        own_redis.start()
        back_s = wait_until_of_use(server)
    truth_of = always(world.truths["default"])
    tally = load.tally(truth_of)
    told = f"{liar.told.total()} lies of {len(LIES)} kinds told"
    row.happened = f"{told}; {tally}; of use again after {back_s:.1f} s"
    assert tally.is_flawless
    assert is_in_time(load, truth_of, trouble)
