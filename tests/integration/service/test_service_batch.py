"""Many searches in one request: each answered as if it were alone, and none at another's cost."""

import base64
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from service_helpers import (
    children,
    draw_picture,
    encode,
    open_client,
    run_builder,
    wait_for,
)

from service.keys.keys import Key, Scope, add_entry, digest_of
from service.settings import Settings

BATCH = "/v1/search/batch"
PICTURES = [encode(draw_picture(400 + i, 40 + i, 30), "JPEG") for i in range(64)]
PNG = encode(draw_picture(1, 24, 24))
LARGE = encode(draw_picture(2, 2000, 2000), "JPEG")


def form(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"{number}.jpg", image)) for number, image in enumerate(images)]


def items(*images: bytes) -> list[dict[str, str]]:
    return [
        {"id": str(number), "image_base64": base64.b64encode(image).decode()}
        for number, image in enumerate(images)
    ]


def settled(answer: dict) -> dict:
    """What of an answer is the same whenever it is given, its radii aside."""
    rounded = ("distance", "similarity", "certified_radius", "certified_rms_8bit", "margin")
    results = [{n: v for n, v in r.items() if n not in rounded} for r in answer["results"]]
    return {"query": answer["query"]["sha256"], "index": answer["index"], "results": results}


def check_same(one: dict, other: dict) -> None:
    """Two answers to one question: the same entries, and radii within 2 E."""
    assert settled(one) == settled(other)
    apart = 2 * one["model"]["forward_error"] / one["query"]["gain"]
    for name in ("certified_radius", "margin", "distance"):
        values = [[result[name] for result in answer["results"]] for answer in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=20 * apart + 1e-12)


@pytest.fixture(scope="module")
def alone(client: httpx.Client) -> list[dict]:
    def ask(image: bytes) -> dict:
        return client.post("/v1/search", files={"image": image}, data={"k": "4"}).json()

    return [ask(image) for image in PICTURES]


@pytest.mark.parametrize("kind", ["form", "json"])
def test_sixty_four_images_get_the_answers_that_they_get_one_by_one(
    client: httpx.Client, alone: list[dict], kind: str
):
    if kind == "form":
        answer = client.post(BATCH, files=form(*PICTURES), data={"k": "4"})
    else:
        answer = client.post(BATCH, json={"items": items(*PICTURES), "k": 4})
    assert answer.status_code == 200, answer.text
    found = answer.json()["items"]
    assert [one["status"] for one in found] == [200] * 64
    suffix = ".jpg" if kind == "form" else ""
    assert [one["id"] for one in found] == [f"{number}{suffix}" for number in range(64)]
    for one, other in zip(found, alone, strict=True):
        check_same(one["answer"], other)


def test_one_broken_image_among_sixty_four_costs_only_itself(
    client: httpx.Client, alone: list[dict]
):
    broken = [*PICTURES]
    broken[40] = broken[40][: len(broken[40]) // 2]
    found = client.post(BATCH, files=form(*broken), data={"k": "4"}).json()["items"]
    assert [one["status"] for one in found] == [200] * 40 + [422] + [200] * 23
    single = client.post("/v1/search", files={"image": broken[40]}).json()
    problem = found[40]["problem"]
    assert {**problem, "request_id": ""} == {**single, "request_id": ""}
    assert "answer" not in found[40]
    for number in (0, 39, 41, 63):
        check_same(found[number]["answer"], alone[number])


def test_each_way_in_which_an_image_can_be_wrong_is_told_at_its_place(client: httpx.Client):
    sent = items(PNG, b"", b"GIF87a", b"hello", PNG + b"\0" * 2_000_001, PNG)
    sent[3]["image_base64"] = "no base64!"
    found = client.post(BATCH, json={"items": sent, "k": 1}).json()["items"]
    told = [(one["status"], one.get("problem", {}).get("code")) for one in found]
    assert told == [
        (200, None),
        (422, "empty_image"),
        (422, "undecodable_image"),
        (400, "malformed_body"),
        (413, "image_too_large"),
        (200, None),
    ]


def test_options_are_those_of_every_image(client: httpx.Client):
    options = {"k": 2, "epsilon": 0.1, "include_audit": True, "trim": True, "include_vector": True}
    found = client.post(BATCH, json={"items": items(*PICTURES[:3]), **options}).json()["items"]
    for one in found:
        answer = one["answer"]
        assert len(answer["results"]) == 2
        assert {"trimmed", "audit"} <= set(answer)
        assert len(answer["query"]["vector"]) > 0
        assert "certified" in answer["results"][0]


@pytest.mark.parametrize(
    ("how", "status", "code", "says"),
    [
        ({"files": form(*[PNG] * 65)}, 400, "invalid_parameter", "64"),
        ({"json": {"items": items(*[PNG] * 65)}}, 400, "invalid_parameter", "64"),
        ({"json": {"items": []}}, 400, "invalid_parameter", "items"),
        ({"json": {"k": 3}}, 400, "missing_field", "items"),
        ({"data": {"k": "3"}, "files": {"k": "3"}}, 400, "invalid_parameter", "k"),
        ({"json": {"items": [{"id": "a"}]}}, 400, "invalid_parameter", "items.0.image_base64"),
        ({"json": {"items": [{"image_base64": ""}]}}, 400, "invalid_parameter", "items.0.id"),
        ({"json": {"items": [{"id": 1, "image_base64": ""}]}}, 400, "invalid_parameter", "id"),
        ({"json": {"items": [3]}}, 400, "invalid_parameter", "items.0"),
        ({"json": {"items": "x"}}, 400, "invalid_parameter", "items"),
        ({"json": {"items": items(PNG), "image_base64": ""}}, 400, "invalid_parameter", "field"),
        ({"json": {"items": items(PNG), "item": "p05.jpg"}}, 400, "invalid_parameter", "item"),
        ({"json": {"items": items(PNG), "k": 501}}, 400, "invalid_parameter", "k"),
        ({"json": {"items": items(PNG), "index": "none"}}, 404, "index_not_found", "none"),
        ({"json": {"items": items(PNG), "operating_point": "none"}},
         400, "unknown_operating_point", "none"),
        ({"files": form(PNG), "params": {"k": 3}, "data": {"k": "3"}},
         400, "invalid_parameter", "k"),
        ({"content": PNG, "headers": {"Content-Type": "image/png"}},
         415, "unsupported_media_type", "two or more"),
        ({}, 400, "missing_field", "image"),
    ],
)  # fmt: skip
def test_a_batch_that_is_wrong_as_a_whole_is_refused_as_a_whole(
    client: httpx.Client, how: dict, status: int, code: str, says: str
):
    answer = client.post(BATCH, **how)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert says in answer.json()["detail"]


def test_names_are_echoed_whatever_they_are(client: httpx.Client):
    names = ["", "../../etc/passwd", '<img src=x>"', "ü" * 1000, "same", "same"]
    sent = [{"id": name, "image_base64": items(PNG)[0]["image_base64"]} for name in names]
    content = json.dumps({"items": sent, "k": 1})
    answer = client.post(BATCH, content=content, headers={"Content-Type": "application/json"})
    assert [one["id"] for one in json.loads(answer.content)["items"]] == names
    nameless = client.post(BATCH, files=[("image", (None, PNG))]).json()["items"]
    assert [one["id"] for one in nameless] == [None]


@pytest.fixture(scope="module")
def small(data_dir: Path) -> Iterator[httpx.Client]:
    settings = Settings(data_dir=data_dir, max_batch_bytes=200_000, max_queue=8, workers=1)
    with open_client(settings) as opened:
        yield opened


def test_the_body_is_bounded_as_a_whole_in_json_too(small: httpx.Client):
    room = 200_000 - 2_000
    assert small.get("/v1/info").json()["limits"]["max_batch_bytes"] == 200_000
    half = PNG + b"\0" * (room // 2 - len(PNG))
    assert small.post(BATCH, files=form(half, half)).status_code == 200
    assert small.post(BATCH, files=form(half, half, half)).status_code == 413
    assert small.post(BATCH, json={"items": items(half, half)}).status_code == 413
    # The largest image that is taken alone.
    assert small.post("/v1/search", files={"image": half * 3}).status_code != 413


def test_more_images_than_there_are_places_can_never_be_taken(small: httpx.Client):
    answer = small.post(BATCH, files=form(*[PNG] * 9))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
    assert "8" in answer.json()["detail"]
    assert small.post(BATCH, files=form(*[PNG] * 8)).status_code == 200


def test_a_batch_takes_its_places_at_once_or_not_at_all(data_dir: Path):
    settings = Settings(data_dir=data_dir, max_queue=8, workers=1, cache_bytes=0)
    with open_client(settings) as client, ThreadPoolExecutor(1) as threads:
        busy = threads.submit(client.post, BATCH, files=form(*[LARGE] * 6))
        wait_for(lambda: in_work(client) == 6)
        refused = client.post(BATCH, files=form(*[PNG] * 3))
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert in_work(client) == 6, "it is over too soon for this test"
        assert client.post(BATCH, files=form(*[PNG] * 2)).status_code == 200
        assert [one["status"] for one in busy.result().json()["items"]] == [200] * 6
        assert in_work(client) == 0


def test_an_image_that_takes_too_long_costs_only_itself(data_dir: Path):
    """One of two decode processes hangs: the image that it was given is given up."""
    settings = Settings(data_dir=data_dir, workers=2, decode_timeout_s=5.0, cache_bytes=0)
    before = children()
    with open_client(settings) as client:
        hung = min(children() - before)
        os.kill(hung, signal.SIGSTOP)
        found = client.post(BATCH, files=form(*[PNG] * 4)).json()["items"]
        codes = sorted((one["status"], one.get("problem", {}).get("code", "")) for one in found)
        assert codes == [(200, "")] * 3 + [(504, "decode_timeout")]


def test_an_image_that_waited_too_long_is_told_when_to_come_back(data_dir: Path):
    settings = Settings(
        data_dir=data_dir, workers=1, cache_bytes=0, queue_timeout_s=0.3, decode_timeout_s=3.0
    )
    before = children()
    with open_client(settings) as client:
        os.kill(min(children() - before), signal.SIGSTOP)
        found = client.post(BATCH, files=form(*[PNG] * 5)).json()["items"]
    problems = [one["problem"] for one in found if one["status"] == 503]
    assert len(problems) >= 3
    assert all(problem["retry_after_s"] >= 1 for problem in problems)
    (late,) = [one["problem"] for one in found if one["status"] == 504]
    assert "retry_after_s" not in late


def test_each_image_counts_against_the_quota_and_a_batch_over_it_costs_one(
    data_dir: Path, tmp_path: Path
):
    for name in ("alice", "bob"):
        key = Key(name=name, scope=Scope.READ, sha256=digest_of(name.encode()))
        add_entry(tmp_path / "keys.json", key)
    settings = Settings(data_dir=data_dir, keys_file=tmp_path / "keys.json", rate_limit="10/hour")
    with open_client(settings) as client:

        def ask(*images: bytes, key: str = "alice") -> httpx.Response:
            return client.post(BATCH, files=form(*images), headers={"X-API-Key": key})

        first = ask(*[PNG] * 6)
        assert (first.status_code, first.headers["ratelimit-remaining"]) == (200, "4")
        work = client.get("/metrics").text
        refused = ask(*[PNG] * 6)
        assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
        assert "items" not in refused.json()
        assert int(refused.headers["retry-after"]) > 1
        # What was not done is not charged: only the request itself.
        assert refused.headers["ratelimit-remaining"] == "3"
        assert client.get("/metrics").text.count("lipsim_batch_size") == work.count(
            "lipsim_batch_size"
        )
        last = ask(*[PNG] * 3)
        assert (last.status_code, last.headers["ratelimit-remaining"]) == (200, "0")
        assert ask(PNG).status_code == 429
        assert ask(*[PNG] * 10, key="bob").status_code == 200


def test_a_client_that_hangs_up_cancels_all_of_its_batch(data_dir: Path):
    with open_client(Settings(data_dir=data_dir, workers=1, cache_bytes=0)) as client:
        request = client.build_request("POST", BATCH, files=form(*[LARGE] * 12))
        body = request.read()
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(f"POST {BATCH} HTTP/1.1\r\n{head}\r\n".encode() + body)
            wait_for(lambda: in_work(client) == 12)
        begun = time.monotonic()
        wait_for(lambda: in_work(client) == 0)
        # One picture of the twelve may still be decoded; the others never are.
        assert client.post("/v1/search", files={"image": PNG}).status_code == 200
        gone_after = time.monotonic() - begun
        begun = time.monotonic()
        client.post(BATCH, files=form(*[LARGE] * 12)).raise_for_status()
        assert gone_after < (time.monotonic() - begun) / 2


def in_work(client: httpx.Client) -> int:
    """Places that are taken."""
    (line,) = re.findall(r'requests_in_hand{stage="working"} (.*)', client.get("/metrics").text)
    return int(float(line))


def test_one_version_of_the_index_answers_a_whole_batch(gallery: Path, tmp_path: Path):
    """A version that is replaced while a batch is under way goes on answering it."""
    run_builder("build", gallery, "--data-dir", tmp_path)
    settings = Settings(
        data_dir=tmp_path, workers=1, max_batch=1, cache_bytes=0, index_poll_interval_s=0.05,
        decode_timeout_s=60, queue_timeout_s=60,
    )  # fmt: skip
    before = children()
    with open_client(settings) as client, ThreadPoolExecutor(1) as threads:
        (decoder,) = children() - before
        os.kill(decoder, signal.SIGSTOP)
        batch = threads.submit(client.post, BATCH, files=form(*[PNG] * 6))
        wait_for(lambda: in_work(client) == 6)
        run_builder("remove", "p50.jpg", "--data-dir", tmp_path)
        wait_for(lambda: client.get("/v1/indexes/default").json()["version"] == "v000002")
        os.kill(decoder, signal.SIGCONT)
        found = batch.result().json()["items"]
        assert [one["answer"]["index"]["version"] for one in found] == ["v000001"] * 6
        after = client.post(BATCH, files=form(PNG)).json()["items"]
        assert [one["answer"]["index"]["version"] for one in after] == ["v000002"]
