"""A builder tells through Redis how far it is; services show it, and look as soon as it is done."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from redis_tools import RedisServer, free_port
from service_helpers import draw_picture, run_builder, wait_for

from index_builder.build.shared_progress import SharedProgress, progress_key

OpenReplica = Callable[..., httpx.Client]
POLL_S = 600.0


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(6):
        draw_picture(seed).save(folder / f"{seed}.png")
    return folder


def build_of(client: httpx.Client) -> dict | None:
    return client.get("/v1/indexes/default").raise_for_status().json()["build"]


def test_a_service_shows_what_a_builder_tells(redis_server: RedisServer, replica: OpenReplica):
    client = replica(redis_url=redis_server.url)
    progress = SharedProgress(None, redis_server.url, "default")
    with progress.counter("embedding", 3, "files") as advance:
        begun = build_of(client)
        for _ in range(3):
            advance()
    done = build_of(client)
    progress.end(has_new_version=False)
    assert begun is not None
    assert done is not None
    assert (begun["stage"], begun["done"], begun["total"]) == ("embedding", 0, 3)
    assert done["done"] == 3
    assert abs(done["started"] - time.time()) < 60
    assert build_of(client) is None


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"stage": 1, "done": 0, "total": 1, "started": 0}',
        b'{"stage": "x", "done": -1, "total": 1, "started": 0}',
        b'{"stage": "x", "done": 1, "total": 1, "started": NaN}',
        b'{"stage": "x", "done": 1, "total": 1, "started": 1, "more": 1}',
        json.dumps({"stage": "x" * 2000, "done": 1, "total": 1, "started": 1}).encode(),
    ],
)
def test_what_somebody_else_tells_is_not_shown(
    redis_server: RedisServer, replica: OpenReplica, told: bytes
):
    client = replica(redis_url=redis_server.url)
    with redis_server.client() as other:
        other.set(progress_key("default"), told)
        assert build_of(client) is None
        other.delete(progress_key("default"))
        other.rpush(progress_key("default"), "x")
    assert build_of(client) is None


def test_a_new_version_is_taken_up_at_once(
    redis_server: RedisServer, replica: OpenReplica, pictures: Path, tmp_path: Path
):
    data = tmp_path / "data"
    run_builder("build", pictures, "--data-dir", data)
    client = replica(
        redis_url=redis_server.url, data_dir=data, index_poll_interval_s=POLL_S, workers=1
    )
    draw_picture(99).save(pictures / "99.png")
    environment = {"LIPSIM_REDIS_URL": redis_server.url}
    run_builder("build", pictures, "--data-dir", data, environment=environment)
    wait_for(lambda: client.get("/v1/indexes/default").json()["version"] == "v000002", 30)
    with redis_server.client() as other:
        assert not list(other.scan_iter("lipsim:build:*"))


def test_a_build_goes_on_without_redis(redis_server: RedisServer, pictures: Path, tmp_path: Path):
    for number, url in enumerate((redis_server.url, f"redis://127.0.0.1:{free_port()}/0")):
        redis_server.send(signal.SIGSTOP)
        begun = time.monotonic()
        data = tmp_path / str(number)
        run_builder("build", pictures, "--data-dir", data, "--redis-url", url)
        assert time.monotonic() - begun < 60
        redis_server.send(signal.SIGCONT)
