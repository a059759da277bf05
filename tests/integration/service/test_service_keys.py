"""API keys on real servers: every route, every kind of key, and what attackers send instead."""

import json
import socket
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from forked import run_program
from paths import DOCS
from service_helpers import StartServer, draw_picture, encode, open_client

from service.app import create_app
from service.http.auth import ADMIN_PREFIXES
from service.keys.keys import Key, Scope, add_entry, digest_of, new_key, remove_entry
from service.settings import Settings

PROBES = {"/livez", "/readyz"}


def operations_of(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Every method and path that the application serves, in the document or not."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from operations_of(route.original_router.routes)
        else:
            yield from ((method, route.path) for method in route.methods - {"HEAD"})


OPERATIONS = sorted(operations_of(create_app(Settings()).routes))
OPEN = PROBES | {"/", "/static/{name}"}
GUARDED = [(method, path) for method, path in OPERATIONS if path not in OPEN]
PNG = encode(draw_picture(1, 32, 32))

# Fixed, since they name tests; of the form that `new_key` gives.
READER, ADMIN, EXPIRED, STRANGER = (f"lipsim_{letter * 43}" for letter in "RAES")


def add(path: Path, name: str, key: str, scope: Scope = Scope.READ, **more: Any) -> None:
    add_entry(path, Key(name=name, scope=scope, sha256=digest_of(key.encode()), **more))


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    add(path, "reader", READER)
    add(path, "boss", ADMIN, Scope.ADMIN)
    add(path, "past", EXPIRED, Scope.ADMIN, expires=datetime(2020, 1, 1, tzinfo=UTC))
    return path


@pytest.fixture(scope="module")
def guarded(data_dir: Path, keys_file: Path) -> Iterator[httpx.Client]:
    """A service with three keys, one of them expired."""
    settings = Settings(data_dir=data_dir, keys_file=keys_file, challenge=True)
    with open_client(settings) as client:
        yield client


def own_path(path: str) -> str:
    name = "swagger-ui.css" if path.startswith("/static/") else "default"
    return path.replace("{name}", name)


def ask(client: httpx.Client, method: str, path: str, key: str | None, **how: Any):
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    url = own_path(path)
    needed = {"/item": "?id=p05.jpg", "/thumbnail": "?id=p05.jpg", "/values": "?key=any"}
    query = next((value for end, value in needed.items() if url.endswith(end)), "")
    if path.endswith("/list"):
        how["json"] = {}
    elif method == "POST":
        names = ("image_a", "image_b") if "similarity" in path else ("image",)
        how["files"] = dict.fromkeys(names, PNG)
    return client.request(method, url + query, headers=headers, **how)


def without_id(answer: httpx.Response) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name != "request_id"}


def test_these_are_all_the_routes_there_are():
    """Those of the document, and those that are not in it: a new one cannot be forgotten."""
    document = json.loads((DOCS / "openapi.json").read_text())
    listed = {
        (method.upper(), path) for path, found in document["paths"].items() for method in found
    }
    unlisted = {("GET", path) for path in ("/", "/docs", "/openapi.json", "/static/{name}")}
    assert set(OPERATIONS) == listed | unlisted


@pytest.mark.parametrize(("method", "path"), [*GUARDED, ("GET", "/none")])
def test_no_route_answers_without_a_key_in_force(guarded: httpx.Client, method: str, path: str):
    answers = [
        ask(guarded, method, path, key)
        for key in (None, "x", STRANGER, EXPIRED, digest_of(READER.encode()), READER[:-1])
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert without_id(answer) == without_id(answers[0])
        assert answer.headers.keys() == answers[0].headers.keys()


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_every_route_answers_each_key_in_force(guarded: httpx.Client, method: str, path: str):
    """What counts and times everybody is the admins' alone; the rest is whoever's has a key."""
    good = 404 if path == "/v1/examples/{name}" else 200
    assert ask(guarded, method, path, ADMIN).status_code == good
    wanted = 403 if path in ADMIN_PREFIXES else good
    assert ask(guarded, method, path, READER).status_code == wanted
    answer = guarded.request(method, own_path(path), headers={"X-API-Key": ADMIN})
    assert answer.status_code not in (401, 403)


@pytest.mark.parametrize("path", sorted(OPEN))
def test_probes_and_the_page_need_no_key_and_mind_no_wrong_one(guarded: httpx.Client, path: str):
    for key in (None, STRANGER, EXPIRED, READER):
        assert ask(guarded, "GET", path, key).status_code == 200


def test_a_read_key_is_too_small_for_what_is_the_admins(guarded: httpx.Client):
    for path in ("/metrics", "/metrics%0A", "/metrics/", "/metrics?x=1", "/metric%73"):
        assert ask(guarded, "GET", path, None).status_code == 401
        refused = ask(guarded, "GET", path, READER)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert ask(guarded, "GET", path, ADMIN).status_code in (200, 404)


@pytest.mark.parametrize(
    "path",
    ["/livez%0A", "/livez/", "//livez", "/LIVEZ", "/livez/../v1/info", "/livez%00", "/readyz;x"],
)
def test_no_other_spelling_of_a_probe_is_open(guarded: httpx.Client, path: str):
    with connect(guarded) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert read_head(connection).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "PATCH", "POST"])
def test_no_method_is_a_way_around(guarded: httpx.Client, method: str):
    for path in ("/v1/search", "/v1/info", "/docs"):
        assert guarded.request(method, path).status_code == 401


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)


def read_head(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        assert chunk, f"hung up after {received!r}"
        received += chunk
    return received


POST = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 20000000\r\n",
        b"Content-Length: 20000000\r\nExpect: 100-continue\r\n",
        b"Content-Length: 99999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ],
)
@pytest.mark.parametrize("key", [None, STRANGER, EXPIRED])
def test_a_body_is_never_asked_for_before_the_key_is_known(
    guarded: httpx.Client, framing: bytes, key: str | None
):
    """The body is withheld: only a service that does not wait for it can answer at all."""
    shown = b"" if key is None else f"Authorization: Bearer {key}\r\n".encode()
    with connect(guarded) as connection:
        connection.sendall(POST + framing + shown + b"\r\n")
        head = read_head(connection)
    assert head.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in head.lower()


def test_with_a_key_the_body_is_asked_for(guarded: httpx.Client):
    with connect(guarded) as connection:
        shown = f"Authorization: Bearer {READER}\r\n".encode()
        connection.sendall(
            POST + b"Content-Length: 9\r\nExpect: 100-continue\r\n" + shown + b"\r\n"
        )
        assert read_head(connection).startswith(b"HTTP/1.1 100")
        connection.sendall(b"no image!")
        assert read_head(connection).startswith(b"HTTP/1.1 415")


def test_a_stranger_who_sends_on_still_reads_why(guarded: httpx.Client):
    for _ in range(3):
        response = guarded.post("/v1/search", content=b"x" * 30_000_000)
        assert response.status_code == 401
    assert ask(guarded, "GET", "/v1/info", READER).status_code == 200


def header(name: str, value: bytes) -> bytes:
    return name.encode() + b": " + value + b"\r\n"


K, OTHER = READER.encode(), STRANGER.encode()


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (header("authorization", b"bearer " + K), 200),
        (header("AUTHORIZATION", b"BeArEr    " + K + b"  "), 200),
        (header("Authorization", b"Bearer " + K) * 2, 200),
        (header("Authorization", b"Bearer " + K) + header("X-API-Key", K), 200),
        (header("Authorization", b"Basic Ym9iOmJvYg==") + header("X-Api-Key", K), 200),
        (
            header("Authorization", b"Bearer " + K) + header("Authorization", b"Bearer " + OTHER),
            400,
        ),
        (
            header("Authorization", b"Bearer " + OTHER) + header("Authorization", b"Bearer " + K),
            400,
        ),
        (header("Authorization", b"Bearer " + K) + header("X-API-Key", OTHER), 400),
        (header("Authorization", b"Bearer") + header("X-API-Key", K), 400),
        (header("Authorization", b"Bearer " + K + b" " + K), 401),
        (header("Authorization", b"Bearer " + K + b", Bearer " + K), 401),
        (header("Authorization", b"Bearer\t" + K), 401),
        (header("Authorization", b"Bearer" + K), 401),
        (header("Authorization", b"Token " + K), 401),
        (header("Authorization", K), 401),
        (header("Authorization", b'Bearer "' + K + b'"'), 401),
        (header("Authorization", b"Bearer \xff\xfe\x80" + K), 401),
        (header("Authorization", "Bearer ключ".encode()), 401),
        (header("Authorization", b"Bearer " + b"x" * 60_000), 401),
        (header("Authorization", b"Bearer " + K + b"x" * 60_000), 401),
        (header("Authorization", b"Bearer \0" + K), 400),
        (header("X-API-Key", b""), 401),
        (header("Cookie", b"X-API-Key=" + K), 401),
        (header("Proxy-Authorization", b"Bearer " + K), 401),
        (header("X-Forwarded-Authorization", b"Bearer " + K), 401),
        (header("X_API_Key", K), 401),
    ],
    ids=lambda value: repr(value[:50]) if isinstance(value, bytes) else str(value),
)
def test_headers_of_every_shape(guarded: httpx.Client, lines: bytes, status: int):
    with connect(guarded) as connection:
        connection.sendall(b"GET /v1/info HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
        head = read_head(connection)
    assert head.startswith(b"HTTP/1.1 %d" % status), head
    assert K not in head
    assert ask(guarded, "GET", "/v1/info", READER).status_code == 200


def test_a_key_in_a_trailer_is_no_key(guarded: httpx.Client):
    """Nor is anything else there, which no proxy has looked at; sent in one piece with the head."""
    with connect(guarded) as connection:
        trailer = b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + header("X-API-Key", K) + b"\r\n"
        connection.sendall(POST + trailer)
        assert read_head(connection).startswith(b"HTTP/1.1 401")


def test_a_key_without_end_is_cut_off(guarded: httpx.Client):
    with connect(guarded) as connection:
        try:
            connection.sendall(
                b"GET /v1/info HTTP/1.1\r\nAuthorization: Bearer " + b"x" * 2_000_000
            )
            assert read_head(connection).startswith(b"HTTP/1.1 400")
        except ConnectionError:  # Hung up on while it was still sending: as good an answer.
            pass
    assert ask(guarded, "GET", "/v1/info", READER).status_code == 200


def test_many_keys_in_a_row_on_one_connection_are_each_judged_alone(guarded: httpx.Client):
    """Pipelined: nothing of one request may stick to the next."""
    line = b"GET /v1/info HTTP/1.1\r\nHost: x\r\n"
    good = line + header("Authorization", b"Bearer " + K) + b"\r\n"
    with connect(guarded) as connection:
        connection.sendall((good + line + b"\r\n") * 5 + line + b"Connection: close\r\n\r\n")
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"401"] * 5 + [b"401"]


def test_keys_come_and_go_while_the_service_runs(
    tmp_path: Path, data_dir: Path, start_server: StartServer
):
    """And neither a key nor what was tried instead is in the log or in an answer."""
    path = tmp_path / "keys.json"
    old, new = new_key(), new_key()
    add(path, "old", old)
    server = start_server(data_dir, keys_file=path, log_level="debug")
    said = ""

    def status(key: str) -> int:
        nonlocal said
        answer = httpx.get(f"{server.url}/v1/nothing", headers={"Authorization": f"Bearer {key}"})
        said += answer.text + str(answer.headers)
        return answer.status_code

    assert (status(old), status(new)) == (404, 401)
    add(path, "new", new, Scope.ADMIN)
    assert (status(old), status(new)) == (404, 404)
    remove_entry(path, "old")
    assert (status(old), status(new)) == (401, 404)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert [(status(old), status(new)) for _ in range(3)] == [(401, 404)] * 3
    path.unlink()
    assert (status(old), status(new)) == (401, 404)
    path.write_text('{"keys": []}')
    assert (status(old), status(new)) == (401, 401)
    httpx.get(f"{server.url}/v1/info?api_key={new}", headers={"X-API-Key": old})
    httpx.post(f"{server.url}/v1/search", headers={"X-API-Key": old, "X-Request-Id": new})
    server.stop()
    log = server.log.read_text()
    for key in (old, new):
        # A client that names its request after its key has itself to blame; nobody else says it.
        lines = [line for line in log.splitlines() if json_of(line).get("request_id") != key]
        assert not any(key in line or digest_of(key.encode()) in line for line in lines)
        assert key not in said
    lines = [json_of(line) for line in log.splitlines()]
    assert [line.get("key") for line in lines if line.get("status") == 404][:2] == ["old", "old"]
    assert all("key" not in line for line in lines if line.get("status") == 401)
    refused = [line for line in lines if line.get("event") == "keys_file_refused"]
    assert len(refused) == 2
    assert any(line.get("event") == "keys_in_force" for line in lines)


def json_of(line: str) -> dict[str, Any]:
    return json.loads(line) if line.startswith("{") else {}


def serve(**settings: object) -> subprocess.CompletedProcess[str]:
    """A start that must fail."""
    given = {f"LIPSIM_{name.upper()}": str(value) for name, value in settings.items()}
    return run_program("service", "--port", "0", environment=given)


def test_the_network_is_not_served_without_keys(tmp_path: Path):
    done = serve(host="0.0.0.0", data_dir=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "LIPSIM_KEYS_FILE" in done.stderr
    assert "LIPSIM_ALLOW_NO_KEYS=true" in done.stderr


def test_the_network_is_served_with_keys_or_on_purpose(tmp_path: Path, start_server: StartServer):
    add(tmp_path / "keys", "a", READER)
    misspelt = {"key_file": tmp_path / "keys", "allow_no_keys": 1}
    for settings, status in (({"keys_file": tmp_path / "keys"}, 401), (misspelt, 404)):
        server = start_server(tmp_path, host="0.0.0.0", **settings)
        local = server.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{local}/none").status_code == status
        told = server.log.read_text()
        assert ('"no_keys"' in told) is (settings is misspelt)
        assert ("LIPSIM_KEY_FILE" in told) is (settings is misspelt)


def test_a_keys_file_that_cannot_be_used_ends_the_start(tmp_path: Path):
    (tmp_path / "damaged").write_text('{"keys": [{"name": "lipsim_oops')
    done = serve(keys_file=tmp_path / "damaged", data_dir=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "is damaged" in done.stderr
    assert "lipsim_oops" not in done.stderr


def test_a_probe_tells_a_stranger_that_it_is_ready_and_no_more(guarded: httpx.Client):
    for headers in ({}, {"X-API-Key": STRANGER}, {"X-API-Key": "a", "Authorization": "Bearer b"}):
        answer = guarded.get("/readyz", headers=headers)
        assert answer.json() == {"status": "ready", "reason": None}
    known = guarded.get("/readyz", headers={"X-API-Key": READER}).json()
    listed = guarded.get("/v1/indexes", headers={"X-API-Key": READER}).json()
    assert known["indexes"] == listed["indexes"] != []
    assert known["redis"] == "off"


def test_what_keys_and_quota_refuse_is_counted_and_logged_by_its_code(
    data_dir: Path, tmp_path: Path, start_server: StartServer
):
    add(tmp_path / "keys.json", "reader", READER, rate_limit="1/hour")
    add(tmp_path / "keys.json", "boss", ADMIN, Scope.ADMIN)
    server = start_server(data_dir, keys_file=tmp_path / "keys.json", workers=1)
    wanted = {"unauthorized": 401, "forbidden": 403, "quota_exceeded": 429}
    with httpx.Client(base_url=server.url, headers={"X-API-Key": READER}) as client:
        statuses = [
            client.get("/v1/info", headers={"X-API-Key": STRANGER}).status_code,
            client.get("/metrics").status_code,
            *[client.get("/v1/nothing").status_code for _ in range(2)],
        ]
        assert statuses == [401, 403, 404, 429]
        counted = client.get("/metrics", headers={"X-API-Key": ADMIN}).text
    server.stop()
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line[0] == "{"]
    logged = {line["code"]: line["status"] for line in lines if "code" in line}
    for code, status in wanted.items():
        assert f'lipsim_problems_total{{code="{code}"}} 1.0' in counted
        assert logged[code] == status
