"""The rights that docs/redis.md asks for are enough."""

import re
from collections.abc import Callable

import httpx
from paths import DOCS
from redis_tools import RedisServer
from service_helpers import draw_picture, encode
from structlog.testing import capture_logs

OpenReplica = Callable[..., httpx.Client]
PAGE = DOCS / "redis.md"


def rights() -> list[str]:
    """What stands behind the password of the page's line."""
    found = re.search(r"^user lipsim on >PASSWORD (.+)$", PAGE.read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


def ask_twice(client: httpx.Client) -> list[httpx.Response]:
    picture = encode(draw_picture(8100))
    return [client.post("/v1/embed", files={"image": picture}) for _ in range(2)]


def test_the_rights_of_the_page_are_enough(redis_server: RedisServer, replica: OpenReplica):
    with redis_server.client() as root:
        root.execute_command("ACL", "SETUSER", "lipsim", "on", ">right", *rights())
        url = redis_server.url.replace("//", "//lipsim:right@")
        with capture_logs() as lines:
            client = replica(redis_url=url, cache_bytes=0, rate_limit="100/minute")
            answers = ask_twice(client)
        assert [answer.status_code for answer in answers] == [200, 200]
        assert client.get("/readyz").json()["redis"] == "ok"
        names = sorted(name.decode().split(":")[1] for name in root.scan_iter("*"))
        assert names == ["e1", "probe", "quota"]
        assert root.execute_command("ACL", "LOG") == []
    said = [line["event"] for line in lines if line["event"].startswith(("redis_", "quota_"))]
    assert said == ["redis_here"]
