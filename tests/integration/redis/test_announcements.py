"""A replica that sees a new version tells the others; they look for themselves."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from redis_tools import RedisServer
from service_helpers import run_builder

from service.redis.announcements import CHANNEL

OpenReplica = Callable[..., httpx.Client]


@pytest.fixture
def own(gallery: Path, data_dir: Path, tmp_path: Path) -> tuple[Path, Path]:
    shutil.copytree(gallery, tmp_path / "gallery")
    shutil.copytree(data_dir, tmp_path / "data")
    return tmp_path / "gallery", tmp_path / "data"


def build_without(source: Path, data: Path, name: str) -> None:
    (source / name).unlink()
    run_builder("build", source, "--data-dir", data)


def seconds_until(client: httpx.Client, version: str, within_s: float = 20) -> float:
    begun = time.monotonic()
    while client.get("/v1/indexes/default").json()["version"] != version:
        assert time.monotonic() - begun < within_s, f"{version} was never served"
        time.sleep(0.02)
    return time.monotonic() - begun


def test_a_replica_that_seldom_looks_hears_of_a_new_version(
    own: tuple[Path, Path], redis_server: RedisServer, replica: OpenReplica
):
    source, data = own
    often = replica(data_dir=data, redis_url=redis_server.url, index_poll_interval_s=0.2)
    seldom = replica(data_dir=data, redis_url=redis_server.url, index_poll_interval_s=3600)
    alone = replica(data_dir=data, index_poll_interval_s=3600)
    build_without(source, data, "p00.jpg")
    seconds_until(often, "v000002")
    assert seconds_until(seldom, "v000002") < 3
    # Again, after Redis was away for a while: the subscription was renewed.
    redis_server.kill()
    build_without(source, data, "p01.jpg")
    seconds_until(often, "v000003")
    assert seldom.get("/v1/indexes/default").json()["version"] == "v000002"
    redis_server.start()
    seconds_until(seldom, "v000003")
    build_without(source, data, "p02.jpg")
    seconds_until(often, "v000004")
    assert seconds_until(seldom, "v000004") < 3
    assert alone.get("/v1/indexes/default").json()["version"] == "v000001"


def test_a_message_is_a_hint_to_look_and_never_believed(
    own: tuple[Path, Path], redis_server: RedisServer, replica: OpenReplica
):
    source, data = own
    client = replica(data_dir=data, redis_url=redis_server.url, index_poll_interval_s=3600)
    time.sleep(1)
    with redis_server.client() as redis:
        for lie in (
            b"v000099",
            b"",
            b"\xff" * 1000,
            b'{"version": "../../etc"}',
            bytes(10_000_000),
        ):
            assert redis.publish(CHANNEL, lie) == 1
        time.sleep(1)
        assert client.get("/v1/indexes/default").json()["version"] == "v000001"
        build_without(source, data, "p00.jpg")
        redis.publish(CHANNEL, b"any")
        assert seconds_until(client, "v000002") < 3


def test_a_flood_of_messages_does_not_make_it_look_all_the_time(
    own: tuple[Path, Path], redis_server: RedisServer, replica: OpenReplica
):
    _, data = own
    client = replica(data_dir=data, redis_url=redis_server.url, index_poll_interval_s=3600)
    with redis_server.client() as redis:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            redis.publish(CHANNEL, b"look")
    begun = time.perf_counter()
    assert client.get("/readyz").status_code == 200
    assert time.perf_counter() - begun < 2
