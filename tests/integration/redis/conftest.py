"""A Redis for each test, and replicas of the service that share it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from redis_tools import SECRET, TIMEOUT_S, RedisServer, running_redis
from service_helpers import open_client

from service.settings import Settings

OpenReplica = Callable[..., httpx.Client]


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture
def replica(data_dir: Path) -> Iterator[OpenReplica]:
    """Opens the service; with a `redis_url` it waits until Redis was looked at."""
    with ExitStack() as stack:

        def open_one(**settings: object) -> httpx.Client:
            usual = {"cache_secret": SECRET, "redis_timeout_s": TIMEOUT_S, "workers": 1}
            given = {"data_dir": data_dir, **usual, **settings}
            return stack.enter_context(open_client(Settings(**given)))

        yield open_one
