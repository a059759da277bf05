"""No text of a client's choosing is in the log, of a real server and in either form."""

import io
import json
import re
import socket
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from PIL.PngImagePlugin import PngInfo
from service_helpers import Server, StartServer, draw_picture

# What would be a line of its own, an order to a terminal, or a member of its own.
MARK = "FORGED"
HOSTILE = f'x\r\n{{"event": "{MARK}"}}\x1b[2J\x9b1m\u2028"{MARK}": 1, %s %n'


def picture_with_comment(end: int | None) -> bytes:
    """A picture whose metadata speak; whole, or cut so that its decoder has something to say."""
    info = PngInfo()
    info.add_text("Comment", HOSTILE)
    info.add_text(MARK, "x", zip=True)
    file = io.BytesIO()
    draw_picture(3, 40, 30).save(file, "PNG", pnginfo=info)
    return file.getvalue()[:end]


def attack(server: Server, url: str) -> None:
    """Put the text wherever a request has room for text."""
    raw = {"content-type": "image/png"}
    with httpx.Client(base_url=url, timeout=20) as client:
        client.get(f"/{quote(HOSTILE)}")
        client.get(f"/v1/indexes/{quote(HOSTILE)}")
        client.get("/v1/indexes/default/item", params={"id": HOSTILE})
        client.get("/v1/indexes/default/thumbnail", params={"id": HOSTILE, HOSTILE: HOSTILE})
        for name in ("X-Request-ID", "User-Agent", "Referer", "Authorization", "X-API-Key"):
            client.get("/v1/info", headers={name: MARK.encode() + b'"\x9b1m{}'})
        client.get("/v1/info", headers={"X-Forwarded-For": f"{MARK}, 1.2.3.4%{MARK}"})
        client.get("/v1/info", headers={"X-Forwarded-Proto": MARK, "Forwarded": f"for={MARK}"})
        for member in ("k", "index", "epsilon", "operating_point", HOSTILE):
            client.post("/v1/search", json={"image_base64": "", member: HOSTILE})
            client.post("/v1/search", files={"image": b"x"}, data={member: HOSTILE})
        client.post("/v1/search", json={"image_base64": HOSTILE})
        client.post("/v1/search", files={"image": (HOSTILE, b"x", f"image/{MARK}")})
        client.post("/v1/embed", content=b"x", headers={"content-type": f"text/{MARK}"})
        client.post("/v1/embed", content=b"x", headers={**raw, "content-encoding": MARK})
        for end in (None, -30, 200):
            client.post("/v1/embed", content=picture_with_comment(end), headers=raw)
        client.post("/v1/embed", content=HOSTILE.encode(), headers=raw)
    url_parts = httpx.URL(url)
    lines = (
        f"{MARK} / HTTP/1.1\r\n\r\n",
        f"GET / {MARK}/1.1\r\n\r\n",
        f"GET / HTTP/1.1\r\n{HOSTILE}\r\n\r\n",
        f"GET /{MARK} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: {MARK}\r\n\r\n",
        f"POST /v1/embed HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{MARK}\r\n",
    )
    for line in lines:
        with socket.create_connection((url_parts.host, url_parts.port), 10) as connection:
            connection.sendall(line.encode())
            connection.recv(65536)
    assert server.process.poll() is None


@pytest.mark.parametrize("style", ["json", "console"])
def test_nothing_that_a_client_sends_is_in_the_log(
    data_dir: Path, start_server: StartServer, style: str
):
    server = start_server(
        data_dir,
        log_format=style,
        log_level="debug",
        workers=1,
        rate_limit="1000/minute",
        trusted_proxies="127.0.0.1",
    )
    server.wait_ready()
    attack(server, server.url)
    server.stop()
    lines = server.log.read_text().splitlines()
    requests = [line for line in lines if "/v1/" in line]
    assert len(requests) > 20
    for line in lines:
        assert MARK not in line
        assert line.isprintable()
        if style == "json":
            assert {"event", "level", "timestamp"} <= json.loads(line).keys()
        else:
            assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[(debug|info|warning|error) ", line)
