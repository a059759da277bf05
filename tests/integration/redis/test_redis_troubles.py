"""Redis may go, come back, hang, be full, be locked or be somebody else: answers go on."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import httpx
import pytest
import redis
import structlog
from paths import DOCS
from redis_tools import TIMEOUT_S, RedisServer, free_port, running_redis, stranger
from service_helpers import draw_picture, encode, wait_for

pytestmark = pytest.mark.without_shape_checks

OpenReplica = Callable[..., httpx.Client]
Lines = list[dict]

# A little less than a wait for Redis that ran out, as `timings_ms.cache` has it.
A_WAIT_MS = 800 * TIMEOUT_S
# Three waits that ran out, one after the other, open the circuit breaker; twice as many are no more
# than a busy machine makes of them. Were each of the twenty requests to wait, it would be twenty.
FEW = 6

_seeds = count(5000)


def ask(client: httpx.Client, requests: int = 20) -> int:
    """Ask about so many new pictures in turn; each is answered. How many waited for Redis."""
    waits = 0
    for _ in range(requests):
        picture = encode(draw_picture(next(_seeds)))
        response = client.post("/v1/search", files={"image": picture})
        assert response.status_code == 200
        waits += response.json()["timings_ms"]["cache"] >= A_WAIT_MS
    return waits


def ask_together(client: httpx.Client, requests: int = 32) -> int:
    """The same, sixteen at a time."""
    with ThreadPoolExecutor(16) as pool:
        return sum(pool.map(lambda _: ask(client, 1), range(requests)))


def is_decoded(client: httpx.Client, picture: bytes) -> bool:
    timings = client.post("/v1/embed", files={"image": picture}).json()["timings_ms"]
    return timings["decode"] > 0


def wait_until_remembered(client: httpx.Client) -> bytes:
    """A new picture, once Redis knows its embedding: writes are not waited for."""
    picture = encode(draw_picture(next(_seeds)))
    wait_for(lambda: not is_decoded(client, picture))
    return picture


def wait_for_status(client: httpx.Client, status: str, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while (ready := client.get("/readyz")).json()["redis"] != status:
        assert ready.status_code == 200
        assert time.monotonic() < deadline, f"redis never became {status}"
        time.sleep(0.02)
    assert ready.status_code == 200


def events(lines: Lines, *levels: str) -> list[str]:
    """What was said at these levels; that there are no keys is not about Redis."""
    said = [line["event"] for line in lines if line["log_level"] in levels]
    return [event for event in said if event != "no_keys"]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def test_without_redis_it_says_off(replica: OpenReplica):
    assert replica().get("/readyz").json()["redis"] == "off"


def test_it_is_killed_and_started_again(
    redis_server: RedisServer, replica: OpenReplica, lines: Lines
):
    client = replica(redis_url=redis_server.url, cache_bytes=0)
    wait_for_status(client, "ok")
    ask(client)
    redis_server.kill()
    assert ask(client) <= FEW
    wait_for_status(client, "degraded")
    assert events(lines, "warning", "error", "critical") == ["redis_away"]
    redis_server.start()
    wait_for_status(client, "ok")
    wait_until_remembered(client)  # It is used again.
    assert events(lines, "warning", "error", "critical") == ["redis_away"]


def test_it_is_started_again_between_two_requests_and_nobody_notices(
    redis_server: RedisServer, replica: OpenReplica, lines: Lines
):
    client = replica(redis_url=redis_server.url, cache_bytes=0)
    ask(client, 3)
    redis_server.kill()
    redis_server.start()
    ask(client, 5)
    assert client.get("/readyz").json()["redis"] == "ok"
    assert events(lines, "error", "critical") == []


def test_it_hangs_and_wakes_up(redis_server: RedisServer, replica: OpenReplica, lines: Lines):
    client = replica(redis_url=redis_server.url, cache_bytes=0)
    wait_for_status(client, "ok")
    redis_server.send(signal.SIGSTOP)
    assert ask(client) <= FEW
    assert client.get("/readyz").json()["redis"] == "degraded"
    # Known to hang, it costs nothing any more; probes are nobody's request.
    assert ask(client) <= 1
    redis_server.send(signal.SIGCONT)
    wait_for_status(client, "ok")
    assert events(lines, "warning", "error", "critical") == ["redis_away"]


def test_it_hangs_under_many_requests_at_once(
    redis_server: RedisServer, replica: OpenReplica, lines: Lines
):
    client = replica(redis_url=redis_server.url, cache_bytes=0)
    wait_for_status(client, "ok")
    redis_server.send(signal.SIGSTOP)
    ask_together(client)
    wait_for_status(client, "degraded")
    assert ask_together(client) <= FEW
    redis_server.send(signal.SIGCONT)
    wait_for_status(client, "ok")
    # No connection was lost to the waits that were given up: it is of use again.
    ask_together(client)
    wait_for_status(client, "ok")
    wait_until_remembered(client)
    assert events(lines, "error", "critical") == []


def test_it_is_full(tmp_path: Path, replica: OpenReplica, lines: Lines):
    with running_redis(tmp_path, "--maxmemory-policy", "noeviction") as server:
        client = replica(redis_url=server.url, cache_bytes=0)
        wait_for_status(client, "ok")
        known = wait_until_remembered(client)
        with server.client() as admin:
            admin.config_set("maxmemory", "1")
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                admin.set("x", "y")
            assert ask(client) <= FEW
            wait_for_status(client, "degraded")
            assert not is_decoded(client, known), "what it holds is still of use"
            admin.config_set("maxmemory", "0")
        ask(client, 1)
        wait_for_status(client, "ok")
        assert events(lines, "warning", "error", "critical") == ["redis_refuses_writes"]


def test_it_wants_another_password(tmp_path: Path, replica: OpenReplica, lines: Lines):
    with running_redis(tmp_path, "--requirepass", "right") as server:
        for user in ("", ":wrong@"):
            lines.clear()
            url = server.url.replace("//", f"//{user}")
            client = replica(redis_url=url, cache_bytes=0)
            wait_for_status(client, "degraded")
            assert ask(client) <= 1
            assert events(lines, "warning", "error", "critical") == ["redis_away"]
            assert "wrong" not in str(lines)
        right = replica(redis_url=server.url.replace("//", "//:right@"))
        wait_for_status(right, "ok")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0" * 100,
        b"+OK\r\n" * 3,
        b"-WHAT is this\r\n",
        b"$999999999\r\nshort",
        b"*3\r\n$1\r\nx\r\n",
        b":12\r\n",
        b"$-1\r\n",
        b"+\xff\xfe\r\n",
        b"",
    ],
)
def test_somebody_else_listens_there(answer: bytes, replica: OpenReplica, lines: Lines):
    with stranger(answer) as port:
        client = replica(redis_url=f"redis://127.0.0.1:{port}/0", cache_bytes=0)
        assert ask(client) <= FEW
        assert client.get("/readyz").status_code == 200
        assert events(lines, "error", "critical") == []
        assert len(events(lines, "warning")) <= 1


def test_a_connection_begins_with_its_first_command(replica: OpenReplica):
    heard: list[bytes] = []

    def note(said: bytes) -> bytes:
        heard.append(said)
        return b"+PONG\r\n"

    with stranger(note) as port:
        replica(redis_url=f"redis://127.0.0.1:{port}/0")
        wait_for(lambda: heard != [])
    assert heard[0] == b"*1\r\n$4\r\nPING\r\n"


def test_somebody_else_takes_its_place(
    redis_server: RedisServer, replica: OpenReplica, lines: Lines
):
    client = replica(redis_url=redis_server.url, cache_bytes=0)
    ask(client, 2)
    redis_server.kill()
    with stranger(b"$5\r\nhello\r\n", redis_server.port):
        ask(client)
        assert client.get("/readyz").status_code == 200
        assert events(lines, "error", "critical") == []


def test_nobody_is_there_at_the_start(replica: OpenReplica, tmp_path: Path, lines: Lines):
    url = f"redis://127.0.0.1:{free_port()}/0"
    client = replica(redis_url=url, cache_bytes=0)
    wait_for_status(client, "degraded")
    assert ask(client) <= 1
    unix = replica(redis_url=f"unix://{tmp_path}/no.sock", cache_bytes=0)
    wait_for_status(unix, "degraded")
    ask(unix)
    assert events(lines, "warning", "error", "critical") == ["redis_away"] * 2


def test_a_user_of_few_rights_is_enough(tmp_path: Path, replica: OpenReplica, lines: Lines):
    """The rights that docs/redis.md asks for are the ones that are needed."""
    page = (DOCS / "redis.md").read_text()
    rule = next(line for line in page.splitlines() if line.startswith("user lipsim "))
    rule = rule.replace("PASSWORD", "secret")
    with running_redis(tmp_path, "--user", *rule.split()[1:], "--user", "default", "off") as server:
        client = replica(redis_url=server.url.replace("//", "//lipsim:secret@"), cache_bytes=0)
        wait_for_status(client, "ok")
        wait_until_remembered(client)
        assert events(lines, "warning", "error", "critical") == []
