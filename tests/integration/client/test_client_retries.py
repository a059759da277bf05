"""What is sent again, when, and what never is; against real sockets."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from service_helpers import children, draw_picture, encode, open_client

import service.client.problems as inner
from service.client import Client, ProblemError
from service.settings import Settings

QUERY = encode(draw_picture(7, 100, 75))
PAGE = b'{"items": [], "next": null, "index": {"name": "default", "version": "v1", "size": 0}}'
GOOD = (200, {}, PAGE)


@dataclass
class Script:
    """A server that answers from a list, the last over and over; None closes the connection."""

    answers: Sequence[tuple[int, Mapping[str, str], bytes] | None]
    url: str = ""
    times: list[float] = field(default_factory=list)

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("content-length", 0)))
        self.times.append(time.monotonic())
        answer = self.answers[min(len(self.times), len(self.answers)) - 1]
        handler.close_connection = answer is None
        if answer is not None:
            status, headers, body = answer
            handler.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)

    @property
    def pauses(self) -> list[float]:
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


@contextmanager
def answering(*answers: tuple[int, Mapping[str, str], bytes] | None) -> Iterator[Script]:
    script = Script(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            script.respond(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(url: str, **options: float) -> list[str]:
    with Client(url, **options) as client:
        return [item.id for item in client.items()]


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_is_sent_again_not_before_the_service_said(status: int):
    later = (status, {"Retry-After": "1"}, b"")
    with answering(later, later, GOOD) as script:
        assert ask(script.url) == []
    assert len(script.times) == 3
    assert all(1.0 <= pause < 2.0 for pause in script.pauses)


def test_a_date_to_retry_after_counts_as_well():
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    with answering((503, {"Retry-After": until}, b""), GOOD) as script:
        assert ask(script.url) == []
    assert script.pauses[0] >= 1.5  # A date has whole seconds.


def test_without_a_word_the_pauses_double(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inner, "_FIRST_PAUSE_S", 0.1)
    headers = {"Retry-After": "soon"}
    with answering((503, headers, b""), (503, {}, b""), None, GOOD) as script:
        assert ask(script.url) == []
    for wanted, pause in zip((0.1, 0.2, 0.4), script.pauses, strict=True):
        assert wanted <= pause < 2 * wanted + 0.2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 415, 422, 500, 502, 504])
def test_any_other_refusal_is_final(status: int):
    with answering((status, {"Retry-After": "0"}, b"no"), GOOD) as script:
        with pytest.raises(ProblemError) as caught:
            ask(script.url)
        assert len(script.times) == 1
    assert (caught.value.status, caught.value.code) == (status, "foreign_answer")


def test_the_last_refusal_is_raised_when_all_retries_are_used_up():
    body = (
        b'{"type": "about:blank", "title": "Too many", "status": 429, "code": "quota_exceeded",'
        b' "detail": "enough"}'
    )
    with answering((429, {"Retry-After": "0"}, body)) as script:
        with pytest.raises(ProblemError, match=r"Too many \(quota_exceeded\): enough") as caught:
            ask(script.url, retries=2)
        assert len(script.times) == 3
    assert caught.value.retry_after_s == 0.0


def test_a_wait_that_is_too_long_is_not_begun():
    with answering((429, {"Retry-After": "3600"}, b""), GOOD) as script:
        begun = time.monotonic()
        with pytest.raises(ProblemError) as caught:
            ask(script.url, longest_wait_s=5)
        assert time.monotonic() - begun < 4
        assert len(script.times) == 1
    assert caught.value.retry_after_s == 3600


def test_nobody_there_and_an_answer_that_is_none_are_problems_too():
    with answering() as script:
        pass
    with pytest.raises(ProblemError, match=r"127\.0\.0\.1") as caught:
        ask(script.url, retries=0)
    assert (caught.value.status, caught.value.code) == (0, "no_answer")
    with (
        answering((200, {}, b"<html>")) as other,
        pytest.raises(ProblemError, match="ItemPage") as caught,
    ):
        ask(other.url)
    assert caught.value.code == "foreign_answer"


def test_a_list_that_leads_back_to_a_page_is_not_followed_for_ever():
    pages = [(200, {}, PAGE.replace(b"null", b'"%s"' % name)) for name in (b"b", b"c", b"b")]
    with answering(*pages) as script:
        with pytest.raises(ProblemError, match=r"/items after 'c' that leads back") as caught:
            ask(script.url)
        assert len(script.times) == 3
    assert caught.value.code == "foreign_answer"
    with answering(pages[0]) as script:
        with pytest.raises(ProblemError, match="leads back"):
            ask(script.url)
        assert len(script.times) == 2


def test_an_answer_that_takes_too_long_is_not_asked_for_again():
    class Slow(Script):
        def respond(self, handler: BaseHTTPRequestHandler) -> None:
            time.sleep(1.0)
            super().respond(handler)

    with answering(GOOD) as script:
        script.__class__ = Slow
        with pytest.raises(ProblemError) as caught:
            ask(script.url, timeout_s=0.2)
        assert caught.value.code == "client_timeout"
        time.sleep(1.2)
        assert len(script.times) == 1


def test_a_real_quota_slows_down_and_refuses_nothing(data_dir: Path):
    settings = Settings(data_dir=data_dir, rate_limit="2/second")
    with open_client(settings) as plain:
        with Client(str(plain.base_url)) as client:
            begun = time.monotonic()
            found = list(client.search_many([QUERY] * 6, concurrency=2, k=1))
        assert all(one.answer is not None for one in found)
        assert time.monotonic() - begun >= 1.0


def test_an_image_that_would_have_to_wait_too_long_costs_no_other_its_answer(data_dir: Path):
    settings = Settings(data_dir=data_dir, workers=1, queue_timeout_s=0.3, decode_timeout_s=3.0)
    others = [encode(draw_picture(seed)) for seed in range(4)]
    before = children()
    with open_client(settings) as plain, Client(str(plain.base_url), longest_wait_s=0.1) as client:
        (decoder,) = children() - before
        client.search(QUERY)  # So that it needs no decoder any more.
        os.kill(decoder, signal.SIGSTOP)
        found = list(client.search_many([QUERY, *others], concurrency=10, k=1))
    assert [one.image for one in found] == [QUERY, *others]
    assert found[0].answer is not None
    errors = [one.error for one in found[1:] if isinstance(one.error, ProblemError)]
    assert sorted(error.status for error in errors) == [503, 503, 503, 504]
    assert all(error.retry_after_s for error in errors if error.status == 503)


def test_what_was_answered_before_a_quota_ended_is_kept(data_dir: Path):
    # More than the queue holds: asked one by one, and the batch itself counts as one request.
    settings = Settings(data_dir=data_dir, rate_limit="4/hour", max_queue=2)
    with open_client(settings) as plain, Client(str(plain.base_url)) as client:
        found = list(client.search_many([QUERY] * 6, concurrency=12, k=1))
        assert [one.answer is not None for one in found] == [True] * 3 + [False] * 3
        codes = [one.error.code for one in found if isinstance(one.error, ProblemError)]
        assert codes == ["quota_exceeded"] * 3
        with pytest.raises(ProblemError, match="quota_exceeded"):
            list(client.search_many([QUERY] * 6, k=1))


def test_the_status_is_the_one_that_came_whatever_the_document_says():
    said = b'{"type": "x", "title": "x", "status": 503, "code": "x", "detail": "x"}'
    with answering((400, {}, said)) as script, Client(script.url) as client:
        with pytest.raises(ProblemError) as error:
            list(client.items())
        assert (error.value.status, len(script.times)) == (400, 1)


def test_what_cannot_be_unpacked_is_a_problem():
    damaged = (200, {"Content-Encoding": "gzip"}, b"no gzip")
    with (
        answering(damaged) as script,
        Client(script.url, retries=0) as client,
        pytest.raises(ProblemError, match="no_answer"),
    ):
        list(client.items())


def test_a_server_that_drips_is_given_up():
    given_up = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not given_up.wait(0.05):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            Client(url, timeout_s=0.5, retries=0) as client,
            pytest.raises(ProblemError, match="client_timeout"),
        ):
            list(client.items())
        given_up.set()
        thread.join()
