"""What Redis holds makes answers faster, never different: whoever writes there."""

import base64
import struct
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
import structlog
from PIL import ImageOps
from redis_tools import SECRET, RedisServer
from service_helpers import draw_picture, encode, open_client

from model.embedder import Embedder, ImageEmbedding
from model.pixels.decode import DecodeLimits, decoder_versions
from service.settings import Settings
from service.work.cache.memory import CachedEmbedding
from service.work.cache.shared import RecordCodec, cache_context

OpenReplica = Callable[..., httpx.Client]

PICTURES = [encode(draw_picture(seed, 150 + seed, 90 + seed), "PNG") for seed in range(6)]


def answers_to(client: httpx.Client, picture: bytes) -> list[dict]:
    """What is said of a picture by itself, without the time it took."""
    said = [
        client.post("/v1/embed", files={"image": picture}),
        client.post("/v1/search", files={"image": picture}, data={"k": 7, "epsilon": "0.3"}),
    ]
    assert [response.status_code for response in said] == [200] * 2
    found = [response.json() for response in said]
    for answer in found:
        del answer["timings_ms"]
    return found


def comparison_of(client: httpx.Client, picture: bytes) -> dict:
    """What is said of a picture and the last one, without the time it took.

    Two images that share a pass of the network agree with two that were embedded alone within the
    forward error only: comparisons are held against others that were made from the caches.
    """
    answer = client.post(
        "/v1/similarity",
        files={"image_a": picture, "image_b": PICTURES[-1]},
        data={"epsilon": "0.5", "threshold": "0.2"},
    ).json()
    del answer["timings_ms"]
    return answer


def was_decoded(client: httpx.Client, picture: bytes) -> bool:
    timings = client.post("/v1/embed", files={"image": picture}).json()["timings_ms"]
    return timings["decode"] > 0


def records_in(server: RedisServer, count: int = 1) -> list[bytes]:
    """Names of the records, once there are so many: they are written behind the answers."""
    deadline = time.monotonic() + 10
    with server.client() as client:
        while len(found := list(client.scan_iter("lipsim:e1:*"))) < count:
            assert time.monotonic() < deadline, "the records were not written"
            time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def plain(data_dir: Path):
    """Answers of a service that remembers nothing."""
    with open_client(Settings(data_dir=data_dir, cache_bytes=0, workers=1)) as client:
        yield {picture: answers_to(client, picture) for picture in PICTURES}


def test_hits_in_memory_and_in_redis_equal_the_answers_without_a_cache_bit_for_bit(
    plain: dict, redis_server: RedisServer, replica: OpenReplica
):
    first = replica(redis_url=redis_server.url)
    for picture in PICTURES:
        assert was_decoded(first, picture)
        assert not was_decoded(first, picture)
        assert answers_to(first, picture) == plain[picture]
    records_in(redis_server, len(PICTURES))
    compared = [comparison_of(first, picture) for picture in PICTURES]
    # Another replica, which keeps nothing of its own: whatever it knows came from Redis.
    second = replica(redis_url=redis_server.url, cache_bytes=0)
    for picture in PICTURES:
        assert not was_decoded(second, picture)
        assert answers_to(second, picture) == plain[picture]
    assert [comparison_of(second, picture) for picture in PICTURES] == compared


def test_replicas_share_a_file_with_its_trim_apart_from_the_file_as_it_is(
    redis_server: RedisServer, replica: OpenReplica
):
    boxed = encode(ImageOps.expand(draw_picture(3), (0, 60), "black"), "PNG")

    def ask(client: httpx.Client, picture: bytes, *, trim: bool) -> tuple[dict, bool]:
        form = {"trim": str(trim).lower()}
        answer = client.post("/v1/search", files={"image": picture}, data=form).json()
        return answer, answer.pop("timings_ms")["decode"] == 0.0

    first = replica(redis_url=redis_server.url)
    answers = [ask(first, picture, trim=True)[0] for picture in (boxed, PICTURES[0])]
    assert [answer["trimmed"]["results"] is None for answer in answers] == [False, True]
    records_in(redis_server, 4)
    second = replica(redis_url=redis_server.url, cache_bytes=0)
    for picture, answer in zip((boxed, PICTURES[0]), answers, strict=True):
        assert ask(second, picture, trim=True) == (answer, True)
        plain = {name: member for name, member in answer.items() if name != "trimmed"}
        assert ask(second, picture, trim=False) == (plain, True)


def test_a_batch_may_hold_images_that_were_found_and_others(plain: dict, replica: OpenReplica):
    client = replica()
    known, unknown = PICTURES[0], PICTURES[1]
    assert was_decoded(client, known)
    answer = client.post(
        "/v1/similarity",
        json={
            "image_a_base64": base64.b64encode(known).decode(),
            "image_b_base64": base64.b64encode(unknown).decode(),
        },
    ).json()
    a, b = plain[known][0]["image"], plain[unknown][0]["image"]
    assert (answer["image_a"], answer["image_b"]) == (a, b)


def test_without_memory_and_redis_nothing_is_remembered(replica: OpenReplica):
    client = replica(cache_bytes=0)
    assert was_decoded(client, PICTURES[0])
    assert was_decoded(client, PICTURES[0])


def test_without_a_secret_redis_holds_no_embedding_and_the_log_says_so(
    redis_server: RedisServer, replica: OpenReplica
):
    with structlog.testing.capture_logs() as lines:
        client = replica(redis_url=redis_server.url, cache_secret=None)
    said = [line for line in lines if line["event"] == "redis_not_used_for_embeddings"]
    assert len(said) == 1
    assert "LIPSIM_CACHE_SECRET" in said[0]["why"]
    assert was_decoded(client, PICTURES[0])
    assert not was_decoded(client, PICTURES[0]), "memory needs no secret"
    time.sleep(0.2)
    with redis_server.client() as redis:
        assert set(redis.keys()) <= {b"lipsim:probe"}


def test_what_redis_holds_tells_neither_the_file_nor_lives_for_ever(
    redis_server: RedisServer, replica: OpenReplica
):
    client = replica(redis_url=redis_server.url, cache_ttl_s=1000)
    sha256 = client.post("/v1/embed", files={"image": PICTURES[0]}).json()["image"]["sha256"]
    (name,) = records_in(redis_server)
    with redis_server.client() as redis:
        assert 900 < redis.ttl(name) <= 1000
        assert sha256.encode() not in name
        assert bytes.fromhex(sha256) not in redis.get(name)


def _context_of_another_model(context: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in context)


class Forger:
    """Somebody who may write to Redis, and knows everything but the secret."""

    def __init__(self, sha256: str, embedder: Embedder, limits: DecodeLimits) -> None:
        self.sha256 = sha256
        self.context = cache_context(embedder, limits)
        self.dim = embedder.dim
        vector = np.full(self.dim, 0.25)
        self.lie = CachedEmbedding("PNG", ImageEmbedding(vector, 1e-9, 0.0, 90, 150))

    def forge(self, secret: str, *, context: bytes | None = None, sha256: str = "") -> bytes:
        codec = RecordCodec(secret.encode(), context or self.context, self.dim)
        return codec.pack(sha256 or self.sha256, self.lie)

    def forge_of_256(self) -> bytes:
        found = CachedEmbedding("PNG", ImageEmbedding(np.ones(256), 1.0, 0.0, 90, 150))
        return RecordCodec(SECRET.encode(), self.context, 256).pack(self.sha256, found)


FORGERIES: dict[str, Callable[[Forger, bytes, bytes], bytes]] = {
    "one bit of the vector": lambda _f, own, _o: own[:60] + bytes([own[60] ^ 1]) + own[61:],
    "one bit of the gain": lambda _f, own, _o: own[:28] + bytes([own[28] ^ 1]) + own[29:],
    "torn": lambda _f, own, _o: own[: len(own) // 2],
    "one byte short": lambda _f, own, _o: own[:-1],
    "a byte too many": lambda _f, own, _o: own + b"\0",
    "twice": lambda _f, own, _o: own + own,
    "nothing but zeros": lambda _f, own, _o: bytes(len(own)),
    "text": lambda _f, _own, _o: b"not a record at all",
    "a pickle": lambda _f, _own, _o: b"cos\nsystem\n(S'true'\ntR.",
    "the record of another file": lambda _f, _own, other: other,
    "a lie under a guessed secret": lambda f, _own, _o: f.forge("x" * 32),
    "a true secret, another model": lambda f, _own, _o: f.forge(
        SECRET, context=_context_of_another_model(f.context)
    ),
    "a true secret, another file": lambda f, _own, _o: f.forge(SECRET, sha256="0" * 64),
    "NaN": lambda _f, own, _o: own[:44] + struct.pack("<d", float("nan")) + own[52:],
    "infinity": lambda _f, own, _o: own[:44] + struct.pack("<d", float("inf")) + own[52:],
    "another dim": lambda _f, own, _o: own[:8] + struct.pack("<I", 256) + own[12:],
    "a record of 256 numbers": lambda f, _own, _o: RecordCodec(
        SECRET.encode(), f.context, 256
    ).pack(f.sha256, CachedEmbedding("PNG", ImageEmbedding(np.ones(256), 1.0, 0.0, 90, 150))),
    "huge": lambda _f, own, _o: own + bytes(64 * 1024 * 1024),
}


def test_whatever_is_written_to_redis_no_answer_changes(
    plain: dict, redis_server: RedisServer, replica: OpenReplica
):
    """Every forgery is a miss, and is replaced by what is true."""
    victim, other = PICTURES[0], PICTURES[1]
    client = replica(redis_url=redis_server.url, cache_bytes=0)
    sha256 = client.post("/v1/embed", files={"image": victim}).json()["image"]["sha256"]
    (name,) = records_in(redis_server)
    client.post("/v1/embed", files={"image": other})
    (other_name,) = set(records_in(redis_server, 2)) - {name}
    client.post("/v1/embed", files={"image": PICTURES[-1]})
    records_in(redis_server, 3)
    compared = comparison_of(client, victim)
    forger = Forger(sha256, Embedder.load(), DecodeLimits())
    with redis_server.client() as redis:
        own, others = redis.get(name), redis.get(other_name)
        assert not was_decoded(client, victim)
        for what, forge in FORGERIES.items():
            redis.set(name, forge(forger, own, others))
            begun = time.perf_counter()
            embed = client.post("/v1/embed", files={"image": victim}).json()
            assert embed.pop("timings_ms")["decode"] > 0, what
            assert embed == plain[victim][0], what
            assert time.perf_counter() - begun < 5, what
            _wait_until(lambda: redis.get(name) == own, what)
            redis.set(name, forge(forger, own, others))
            assert answers_to(client, victim) == plain[victim], what
            _wait_until(lambda: redis.get(name) == own, what)
            redis.set(name, forge(forger, own, others))
            assert comparison_of(client, victim) == compared, what
            _wait_until(lambda: redis.get(name) == own, what)
        redis.delete(name)
        redis.rpush(name, own)
        assert answers_to(client, victim) == plain[victim], "a list"
        _wait_until(lambda: redis.type(name) == b"string", "a list")
    assert client.get("/readyz").json()["redis"] == "ok"


def test_a_record_of_one_file_is_worth_nothing_under_another_name(
    plain: dict, redis_server: RedisServer, replica: OpenReplica
):
    """Names exchanged, every record true: still nothing but misses."""
    client = replica(redis_url=redis_server.url, cache_bytes=0)
    for picture in PICTURES[:2]:
        client.post("/v1/embed", files={"image": picture})
    one, two = records_in(redis_server, 2)
    with redis_server.client() as redis:
        held = redis.get(one), redis.get(two)
        redis.mset({one: held[1], two: held[0]})
    for picture in PICTURES[:2]:
        assert answers_to(client, picture) == plain[picture]


def test_a_replica_with_other_limits_uses_no_record_of_others(
    redis_server: RedisServer, replica: OpenReplica
):
    """Or it would answer for a file that it has to refuse."""
    picture = PICTURES[0]
    first = replica(redis_url=redis_server.url)
    assert first.post("/v1/embed", files={"image": picture}).status_code == 200
    records_in(redis_server)
    strict = {"max_image_pixels": 1000}, {"max_image_side": 100}, {"allowed_formats": "JPEG"}
    for limits in strict:
        other = replica(redis_url=redis_server.url, **limits)
        assert other.post("/v1/embed", files={"image": picture}).status_code in (415, 422)


def test_other_arithmetic_uses_no_record_of_others(redis_server: RedisServer, replica: OpenReplica):
    first = replica(redis_url=redis_server.url)
    exact = first.post("/v1/embed", files={"image": PICTURES[0]}).json()
    records_in(redis_server)
    second = replica(redis_url=redis_server.url, arithmetic="float32")
    short = second.post("/v1/embed", files={"image": PICTURES[0]}).json()
    assert short["timings_ms"]["decode"] > 0
    assert short["model"]["forward_error"] > 1e3 * exact["model"]["forward_error"]


def test_other_decoders_use_no_record_of_others(monkeypatch: pytest.MonkeyPatch):
    """Two builds of one Pillow may give other pixels, and the radius is about those."""
    embedder, limits = Embedder.load(), DecodeLimits()
    here = cache_context(embedder, limits)
    others = {**decoder_versions(), "libjpeg_turbo": "2.0.0"}
    monkeypatch.setattr("service.work.cache.shared.decoder_versions", lambda: others)
    assert cache_context(embedder, limits) != here


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
