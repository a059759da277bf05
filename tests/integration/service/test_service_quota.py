"""Quota on real servers: exact under many clients, each caller for itself, true headers."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from service_helpers import draw_picture, encode, open_client

from service.keys.keys import Key, Scope, add_entry, digest_of
from service.settings import Settings

PNG = encode(draw_picture(1, 24, 24))
Ask = Callable[..., httpx.Response]


def as_caller(client: httpx.Client, key: str) -> Ask:
    def ask(path: str = "/v1/info", method: str = "GET", **how: object) -> httpx.Response:
        return client.request(method, path, headers={"X-API-Key": key}, **how)  # type: ignore[arg-type]

    return ask


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    for name, rate in (("alice", None), ("bob", None), ("trial", "2/hour")):
        digest = digest_of(name.encode())
        add_entry(path, Key(name=name, scope=Scope.READ, sha256=digest, rate_limit=rate))
    return path


def test_exactly_as_many_as_the_rate_says_however_many_come_at_once(
    data_dir: Path, keys_file: Path
):
    settings = Settings(data_dir=data_dir, keys_file=keys_file, rate_limit="20/hour")
    with open_client(settings) as client, ThreadPoolExecutor(16) as threads:
        alice = as_caller(client, "alice")

        def ask(i: int) -> httpx.Response:
            if i % 4:
                return alice(f"/v1/{('info', 'nothing')[i % 2]}")
            return alice("/v1/embed", "POST", content=PNG)

        answers = list(threads.map(ask, range(60)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) == 40
        left = [a.headers["ratelimit-remaining"] for a in answers if a.status_code != 429]
        assert sorted(map(int, left)) == list(range(20))
        for answer in refused:
            assert answer.json()["code"] == "quota_exceeded"
            assert 1 <= int(answer.headers["retry-after"]) <= 3600
            assert answer.headers["retry-after"] == answer.headers["ratelimit-reset"]
            assert answer.headers["ratelimit-remaining"] == "0"
        assert {answer.headers["ratelimit-limit"] for answer in answers} == {"20"}
        # Others have a quota of their own, probes have none, and refusals by key cost nothing.
        assert as_caller(client, "bob")().headers["ratelimit-remaining"] == "19"
        assert [as_caller(client, "trial")().status_code for _ in range(3)] == [200, 200, 429]
        for path in ("/livez", "/readyz"):
            probe = alice(path)
            assert probe.status_code == 200
            assert "ratelimit-limit" not in probe.headers
        assert as_caller(client, "bob")("/metrics").status_code == 403
        assert as_caller(client, "bobby")().status_code == 401
        assert as_caller(client, "bob")().headers["ratelimit-remaining"] == "18"


def test_a_body_over_quota_is_refused_unread(data_dir: Path, keys_file: Path):
    settings = Settings(data_dir=data_dir, keys_file=keys_file)
    with open_client(settings) as client:
        trial = as_caller(client, "trial")
        assert [trial().status_code for _ in range(2)] == [200, 200]
        assert as_caller(client, "alice")().headers.get("ratelimit-limit") is None
        refused = trial("/v1/search", "POST", content=b"x" * 30_000_000)
        assert refused.status_code == 429
        assert refused.headers["connection"] == "close"


def from_address(client: httpx.Client, address: str, **headers: str) -> int:
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(base_url=client.base_url, transport=transport) as other:
        return other.get("/v1/info", headers=headers).status_code


def test_without_keys_each_address_has_its_quota_and_cannot_claim_another(data_dir: Path):
    with open_client(Settings(data_dir=data_dir, rate_limit="3/hour")) as client:
        claimed = [
            from_address(client, "127.0.0.2", **{"X-Forwarded-For": f"10.0.0.{i}"})
            for i in range(5)
        ]
        assert claimed == [200, 200, 200, 429, 429]
        assert from_address(client, "127.0.0.3") == 200


def test_a_proxy_that_is_trusted_speaks_for_its_clients(data_dir: Path):
    settings = Settings(data_dir=data_dir, rate_limit="2/hour", trusted_proxies="127.0.0.2")

    def ask(proxy: str, for_whom: str) -> int:
        return from_address(client, proxy, **{"X-Forwarded-For": for_whom})

    with open_client(settings) as client:
        assert [ask("127.0.0.2", "10.0.0.1") for _ in range(3)] == [200, 200, 429]
        assert ask("127.0.0.2", "10.0.0.2") == 200
        # What the client wrote itself stands on the left, and does not count.
        assert ask("127.0.0.2", "10.9.9.9, 10.0.0.1") == 429
        # Another address is a client like any other.
        assert [ask("127.0.0.3", f"10.1.0.{i}") for i in range(3)] == [200, 200, 429]


def test_without_a_rate_nothing_is_counted(client: httpx.Client):
    answers = [client.get("/v1/info") for _ in range(50)]
    assert Counter(answer.status_code for answer in answers) == {200: 50}
    assert not any("ratelimit-limit" in answer.headers for answer in answers)
