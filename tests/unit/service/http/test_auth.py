import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.errors import InvalidParameterError
from service.http.auth import AuthMiddleware, address_of, needed_scope, presented_key
from service.keys.keys import Key, KeyRing, Scope, add_entry, digest_of
from service.keys.quota import Quota


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/livez", None),
        ("/readyz", None),
        ("/metrics", Scope.ADMIN),
        ("/metrics\n", Scope.ADMIN),
        ("/metrics/", Scope.ADMIN),
        ("/livez\n", Scope.READ),
        ("/livez/", Scope.READ),
        ("/LIVEZ", Scope.READ),
        ("//livez", Scope.READ),
        ("/livez/../v1/info", Scope.READ),
        ("/", None),
        ("/static/app.js", None),
        ("/static/nothing.js", Scope.READ),
        ("/static/../app.js", Scope.READ),
        ("/static/app.js\n", Scope.READ),
        ("/static/index.html", Scope.READ),
        ("", Scope.READ),
        ("/docs", Scope.READ),
        ("/openapi.json", Scope.READ),
        ("/nowhere", Scope.READ),
    ],
)
def test_what_is_not_in_the_table_needs_a_key(path: str, scope: Scope | None):
    assert needed_scope(path) == scope


def auth(value: bytes) -> tuple[bytes, bytes]:
    return (b"authorization", value)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], None),
        ([auth(b"Bearer k")], b"k"),
        ([auth(b"bearer k")], b"k"),
        ([auth(b"BEARER   k ")], b"k"),
        ([auth(b"Bearer k k")], b"k k"),
        ([auth(b"Bearer k, Bearer k")], b"k, Bearer k"),
        ([auth(b"Bearer \xff")], b"\xff"),
        ([auth(b"Bearer")], b""),
        ([auth(b"Bearerk")], None),
        ([auth(b"Basic azpr")], None),
        ([auth(b"k")], None),
        ([(b"x-api-key", b" k ")], b"k"),
        ([auth(b"Basic azpr"), (b"x-api-key", b"k")], b"k"),
        ([auth(b"Bearer k"), (b"x-api-key", b"k")], b"k"),
        ([auth(b"Bearer k"), auth(b"Bearer k")], b"k"),
        ([(b"cookie", b"key=k"), (b"proxy-authorization", b"Bearer k")], None),
    ],
)
def test_a_key_is_read_from_the_two_headers_alone(
    headers: list[tuple[bytes, bytes]], key: bytes | None
):
    assert presented_key(headers) == key


@pytest.mark.parametrize(
    "headers",
    [
        [auth(b"Bearer k"), auth(b"Bearer j")],
        [auth(b"Bearer k"), (b"x-api-key", b"j")],
        [(b"x-api-key", b"k"), (b"x-api-key", b"j")],
        [auth(b"Bearer"), (b"x-api-key", b"j")],
    ],
)
def test_two_keys_that_differ_are_refused_and_not_repeated(headers: list[tuple[bytes, bytes]]):
    with pytest.raises(InvalidParameterError) as caught:
        presented_key(headers)
    assert (
        str(caught.value)
        == "Authorization, X-API-Key: the request presents several keys, and they differ"
    )


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("10.0.0.1", 5), "10.0.0.1"),
        (("::ffff:10.0.0.1", 5), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 5), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::", 5), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5), "fe80::/64"),
        (("not an address", 5), "unknown"),
        (None, "unknown"),
    ],
)
def test_one_client_is_one_address_or_one_network(client: Any, address: str):
    assert address_of({"client": client}) == address


async def _never(*_: object) -> Any:
    raise AssertionError("nobody may ask for the body, nor be let in")


def refuse(ring: KeyRing, path: str, *headers: tuple[bytes, bytes]) -> list[dict[str, Any]]:
    """Ask for what must be refused, with a body that must not be read."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    access = AuthMiddleware(_never, keys=ring, quota=Quota(), rate=None)
    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
    asyncio.run(access(scope, _never, send))
    return sent


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    add_entry(tmp_path / "k", Key(name="reader", scope=Scope.READ, sha256=digest_of(b"key")))
    return KeyRing(tmp_path / "k")


def test_refusals_come_before_the_body_and_all_alike(ring: KeyRing):
    absent = refuse(ring, "/v1/search")
    wrong = refuse(ring, "/v1/search", auth(b"Bearer wrong"))
    assert absent == wrong
    assert absent[0]["status"] == 401
    assert (b"www-authenticate", b"Bearer") in absent[0]["headers"]
    assert refuse(ring, "/metrics", auth(b"Bearer key"))[0]["status"] == 403


def test_an_empty_key_never_counts_even_if_the_file_has_its_hash(tmp_path: Path):
    """As a script leaves it there whose variable was not set."""
    add_entry(tmp_path / "k", Key(name="slip", scope=Scope.ADMIN, sha256=digest_of(b"")))
    ring = KeyRing(tmp_path / "k")
    for headers in ([], [auth(b"Bearer")], [auth(b"Bearer  ")], [(b"x-api-key", b"")]):
        assert refuse(ring, "/v1/info", *headers)[0]["status"] == 401
