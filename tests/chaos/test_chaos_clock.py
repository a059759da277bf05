"""The clock of the service is set by a day, back and forward, while it runs; and the builder's."""

import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
from chaos_load import Asked, Gist, Load, always, search
from chaos_tools import metric, version_of
from chaos_world import Claim, World
from redis_tools import SECRET, RedisServer
from service_helpers import Server, StartServer, draw_picture, encode, wait_for

DAY_S = 86400
BODY_S = 3
WINDOW_S = 10
TTL_S = 3600
# For a machine that does other things too.
AIR_S = 6.0


class Clock:
    """The clock of the processes that get its environment; the machine's own is left alone."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._file = folder / "offset"
        self.set_by(0)
        self.environment = {"LD_PRELOAD": str(library), "SET_CLOCK_FILE": str(self._file)}

    def set_by(self, seconds: int) -> None:
        """Set the clock so far ahead of the true time; below 0, behind it."""
        # Into the file that is there: it is mapped, and eight bytes are written in one step.
        with open(self._file, "r+b" if self._file.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("=q", seconds))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed (apt-get install gcc libc6-dev)")
    library = tmp_path / "set_clock.so"
    source = Path(__file__).with_name("set_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return Clock(tmp_path, library)


def hours_off(server: Server) -> int:
    """How far the service's clock is off, as the Date of its answers shows it."""
    said = httpx.get(f"{server.url}/livez", timeout=60).headers["date"]
    return round((parsedate_to_datetime(said).timestamp() - time.time()) / 3600)


def seconds_of_a_body_that_stops(server: Server, clock: Clock, set_by: int) -> float:
    """How long the service waits for the rest of a body, while its clock is set; it says 408."""
    url = httpx.URL(server.url)
    head = b"POST /v1/embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    with socket.create_connection((url.host, url.port), timeout=60) as connection:
        begun = time.monotonic()
        connection.sendall(head + b"Content-Length: 100\r\n\r\nx")
        time.sleep(0.5)
        clock.set_by(set_by)
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")
        return time.monotonic() - begun


def test_the_clock_of_a_busy_service_is_set(
    world: World, clock: Clock, start_server: StartServer, claim: Claim
):
    row = claim(
        "clock set back by a day, then forward by two, under load",
        f"right answers as before; a body is waited for {BODY_S} s; ages of versions are true",
    )
    server = start_server(
        world.data_dir, environment=clock.environment, body_timeout_s=BODY_S, cache_bytes=0
    )
    server.wait_ready()
    assert hours_off(server) == 0
    waits = []
    with Load(server.url, world.queries) as load:
        load.wait_for_more(60)
        for days in (-1, 1):
            waits.append(seconds_of_a_body_that_stops(server, clock, days * DAY_S))
            # uvicorn writes its Date anew each second.
            wait_for(lambda days=days: hours_off(server) == 24 * days)
            load.wait_for_more(60)
            served_s = metric(server.url, 'lipsim_index_open_seconds{index="default"}')
            assert 0 < served_s < DAY_S / 2
    tally = load.tally(always(world.truths["default"]))
    row.happened = f"{tally}; bodies waited for {waits[0]:.1f} and {waits[1]:.1f} s"
    assert tally.is_flawless, tally.problems
    assert all(0.9 * BODY_S < waited < BODY_S + AIR_S for waited in waits)


@pytest.fixture(params=["memory", "Redis"])
def counting_server(
    request: pytest.FixtureRequest,
    world: World,
    clock: Clock,
    own_redis: RedisServer,
    start_server: StartServer,
) -> Server:
    """A service with a quota, counted in its memory or in Redis."""
    shared = {"redis_url": own_redis.url, "cache_secret": SECRET, "cache_ttl_s": TTL_S}
    server = start_server(
        world.data_dir,
        environment=clock.environment,
        rate_limit=f"20/{WINDOW_S} seconds",
        **(shared if request.param == "Redis" else {}),
    )
    server.wait_ready()
    return server


def test_a_quota_outlives_a_clock_that_is_set(
    counting_server: Server, clock: Clock, own_redis: RedisServer, claim: Claim
):
    server, has_redis = counting_server, is_redis_in_use(counting_server)
    row = claim(
        f"clock set back, then forward, quota counted in {'Redis' if has_redis else 'memory'}",
        f"a window of {WINDOW_S} s stays one"
        + has_redis * f"; Redis keeps an embedding for {TTL_S} s",
    )
    said = []
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for days in (-1, 1):
            told_s, waited_s = wait_out_quota(client, server, clock, days)
            said.append(f"told {told_s} s, let in after {waited_s:.1f} s")
            assert told_s <= WINDOW_S
            # Redis counts in whole seconds, and so do we.
            assert told_s - 2 < waited_s < told_s + AIR_S
        answer = search(client, encode(draw_picture(950)))
        assert answer.status_code == 200
    if has_redis:
        ttl = seconds_kept(own_redis)
        said.append(f"kept for {ttl} s")
        assert TTL_S - 60 < ttl <= TTL_S
    row.happened = "; ".join(said)


def wait_out_quota(
    client: httpx.Client, server: Server, clock: Clock, days: int
) -> tuple[int, float]:
    """Use the quota up, have the clock set, and wait; seconds that were told, and that it took."""

    def status() -> int:
        return client.get("/v1/info").status_code

    wait_for(lambda: status() == 429, 60)
    clock.set_by(days * DAY_S)
    wait_for(lambda: hours_off(server) == 24 * days)
    refused = client.get("/v1/info")
    assert refused.status_code == 429
    begun = time.monotonic()
    wait_for(lambda: status() == 200, 10 * WINDOW_S)
    return int(refused.headers["retry-after"]), time.monotonic() - begun


def is_redis_in_use(server: Server) -> bool:
    return httpx.get(f"{server.url}/readyz", timeout=60).json()["redis"] != "off"


def seconds_kept(own_redis: RedisServer) -> int:
    """How long Redis will keep the one embedding that it has been given."""
    with own_redis.client() as client:
        wait_for(lambda: any(client.scan_iter("lipsim:e1:*")))
        (name,) = client.scan_iter("lipsim:e1:*")
        return client.ttl(name)


def test_a_version_of_an_earlier_time_becomes_current(
    world: World, clock: Clock, tmp_path: Path, start_server: StartServer, claim: Claim
):
    row = claim(
        "builder's clock a day behind, then a day ahead",
        "the version built last is current, whatever time it bears",
    )
    data = tmp_path / "data"
    shutil.copytree(world.data_dir / "indexes/default", data / "indexes/default")
    gallery_of = {"v000001": "a"}

    def truth_of(asked: Asked) -> Gist:
        assert asked.gist is not None
        return world.truths[gallery_of[asked.gist.version]][asked.query]

    server = start_server(data, index_poll_interval_s=0.2, cache_bytes=0)
    server.wait_ready()
    created = [created_at(server)]
    with Load(server.url, world.queries) as load:
        for version, letter, days in (("v000002", "b", -1), ("v000003", "a", 1)):
            clock.set_by(days * DAY_S)
            gallery_of[version] = letter
            folder = world.galleries[letter]
            # A process of its own: the clock is set where a program is loaded.
            build = [sys.executable, "-m", "index_builder", "build", folder, "--data-dir", data]
            subprocess.run(build, env={**os.environ, **clock.environment}, check=True)
            wait_for(lambda version=version: version_of(server.url) == version)
            load.wait_for_more(30)
            created.append(created_at(server))
    tally = load.tally(truth_of)
    hours = [round((at - created[0]) / 3600) for at in created[1:]]
    row.happened = f"versions {hours[0]} and {hours[1]:+} hours from the first served; {tally}"
    assert hours == [-24, 24]
    assert tally.is_flawless, tally.problems


def created_at(server: Server) -> float:
    return metric(server.url, 'lipsim_index_created_timestamp_seconds{index="default"}')
