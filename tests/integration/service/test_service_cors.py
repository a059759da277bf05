"""Pages of other origins: those that are named may ask from a browser, and nobody else's."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from service_helpers import draw_picture, encode, open_client

from service.keys.keys import Key, Scope, add_entry, digest_of
from service.settings import Settings

APP, OTHER = "https://app.example.org", "https://evil.example.org"
KEY = f"lipsim_{'C' * 43}"
PNG = encode(draw_picture(3, 40, 30))


@pytest.fixture(scope="module")
def client(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    add_entry(keys, Key(name="page", scope=Scope.READ, sha256=digest_of(KEY.encode())))
    origins = f"http://localhost:5173, {APP}"
    settings = Settings(
        data_dir=data_dir, keys_file=keys, cors_origins=origins, rate_limit="9/hour"
    )
    with open_client(settings) as client:
        yield client


def may_ask(client: httpx.Client, origin: str, path: str = "/v1/search") -> httpx.Response:
    """What a browser asks before it sends a page's request with a key in a header."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,if-none-match",
    }
    return client.options(path, headers=headers)


@pytest.mark.parametrize("origin", [APP, "http://localhost:5173"])
def test_a_named_origin_may_ask_with_a_key_and_reads_what_a_client_needs(
    client: httpx.Client, origin: str
):
    asked = may_ask(client, origin)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == origin
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    answer = client.post(
        "/v1/search",
        content=PNG,
        headers={
            "Origin": origin,
            "Authorization": f"Bearer {KEY}",
            "Content-Type": "application/octet-stream",
        },
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["vary"] == "Origin"
    readable = answer.headers["access-control-expose-headers"].lower().split(", ")
    assert {"x-request-id", "retry-after"} <= set(readable)
    assert {name for name in answer.headers if name.startswith("ratelimit")} <= set(readable)


def test_a_refusal_can_be_read_by_the_page_too(client: httpx.Client):
    refused = client.get("/v1/indexes", headers={"Origin": APP})
    assert refused.status_code == 401
    assert refused.json()["code"] == "unauthorized"
    assert refused.headers["access-control-allow-origin"] == APP


@pytest.mark.parametrize(
    "origin", [OTHER, APP.upper(), APP + ".evil.org", APP + "/", APP + ":444", "null", "*", ""]
)
def test_another_origin_may_not(client: httpx.Client, origin: str):
    assert "access-control-allow-origin" not in may_ask(client, origin).headers
    answer = client.get("/livez", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_may_i_ask_counts_against_no_quota_and_opens_nothing(client: httpx.Client):
    for _ in range(12):
        assert may_ask(client, APP, "/metrics").status_code == 200
    assert client.get("/metrics", headers={"Origin": APP}).status_code == 401
    # Without the header that makes it a browser's question it is a request as any other.
    assert client.options("/v1/search", headers={"Origin": APP}).status_code == 401


def test_no_page_of_another_origin_may_ask_unless_it_is_named(data_dir: Path):
    with open_client(Settings(data_dir=data_dir)) as client:
        assert may_ask(client, APP).status_code == 405
        assert (
            "access-control-allow-origin"
            not in client.get("/livez", headers={"Origin": APP}).headers
        )


def test_any_origin_may_be_named(data_dir: Path):
    with open_client(Settings(data_dir=data_dir, cors_origins="*")) as client:
        assert may_ask(client, OTHER).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "origins",
    ["app.example.org", APP + "/", "https://App.example.org", "ftp://x", f"{APP} {OTHER}"],
)
def test_what_no_browser_sends_is_refused(origins: str):
    with pytest.raises(ValueError, match=r"an origin is like https://app\.example\.org, got"):
        Settings(cors_origins=origins)
