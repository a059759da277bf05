"""GET /metrics of a real server against what was asked of it."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from service_helpers import draw_picture, encode, open_client

from service.app import create_app
from service.settings import Settings

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

PICTURES = [encode(draw_picture(seed)) for seed in (3, 7, 1000, 1001)]
RAW = {"content-type": "image/png"}


@pytest.fixture
def fresh(data_dir: Path) -> Iterator[httpx.Client]:
    """A service that nobody has asked anything of yet."""
    with open_client(Settings(data_dir=data_dir, workers=1)) as client:
        yield client


def scrape(client: httpx.Client) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"lipsim_{name}", frozenset(labels.items())), 0.0)


def series(samples: Samples) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {key for key in samples if key[0].startswith("lipsim_")}


def search(client: httpx.Client, data: bytes, **options: object) -> dict:
    response = client.post("/v1/search", content=data, headers=RAW, params=options)
    assert response.status_code == 200, response.text
    return response.json()


def test_requests_stages_and_batches_are_those_that_were(fresh: httpx.Client):
    for picture in PICTURES:
        search(fresh, picture)
    fresh.post("/v1/search", content=b"no image", headers=RAW)
    fresh.get("/v1/indexes/default")
    fresh.head("/livez")
    seen = scrape(fresh)
    route = {"route": "/v1/search"}
    assert value(seen, "requests_total", method="POST", status="200", **route) == 4
    assert value(seen, "requests_total", method="POST", status="415", **route) == 1
    assert value(seen, "requests_total", method="HEAD", route="/livez", status="200") == 1
    assert value(seen, "requests_total", method="GET", route="/v1/indexes/{name}", status="200")
    assert value(seen, "request_seconds_count", **route) == 5
    assert value(seen, "problems_total", code="unsupported_image_format") == 1
    for stage, count in {"queue": 5, "decode": 5, "embed": 4, "search": 4, "certify": 4}.items():
        assert value(seen, "stage_seconds_count", stage=stage) == count, stage
    assert value(seen, "batch_size_count") == value(seen, "batch_size_sum") == 4
    for stage in ("received", "working", "waiting"):
        assert value(seen, "requests_in_hand", stage=stage) == 0
    assert value(seen, "decode_processes") == 1
    assert value(seen, "decode_processes_busy") == 0
    assert seen["process_open_fds", frozenset()] > 0


def test_stage_seconds_are_those_that_the_answers_say(fresh: httpx.Client):
    timings = [search(fresh, picture)["timings_ms"] for picture in PICTURES]
    seen = scrape(fresh)
    for stage in ("queue", "decode", "embed", "search", "certify"):
        said = sum(timing[stage] for timing in timings) / 1000
        assert value(seen, "stage_seconds_sum", stage=stage) == pytest.approx(said, abs=1e-5)


def test_the_radius_histogram_is_that_of_the_answers(fresh: httpx.Client):
    # More results than entries: nothing can displace one, and every radius is null.
    answers = [search(fresh, picture, k=k) for picture in PICTURES for k in (1, 5, 1000)]
    results = [result for answer in answers for result in answer["results"]]
    first = [answer["results"][0]["certified_rms_8bit"] for answer in answers]
    radii = [radius for radius in first if radius is not None]
    seen = scrape(fresh)
    kinds = {"certified": 0, "zero": 0, "unlimited": 0}
    for result in results:
        radius = result["certified_radius"]
        kinds["unlimited" if radius is None else "certified" if radius else "zero"] += 1
    assert kinds["certified"] > 0
    assert kinds["unlimited"] > 0
    for kind, count in kinds.items():
        assert value(seen, "results_total", index="default", radius=kind) == count
    name = "top1_certified_rms_8bit"
    assert value(seen, f"{name}_count", index="default") == len(radii) == 8
    assert value(seen, f"{name}_sum", index="default") == pytest.approx(sum(radii))
    bounds = [
        (float(dict(labels)["le"]), found)
        for (sample, labels), found in seen.items()
        if sample == f"lipsim_{name}_bucket"
    ]
    for bound, found in bounds:
        assert found == sum(radius <= bound for radius in radii)


def test_index_and_model_are_those_in_service(fresh: httpx.Client):
    index = fresh.get("/v1/indexes/default").json()
    model = fresh.get("/v1/info").json()["models"][0]
    seen = scrape(fresh)
    assert value(seen, "index_info", index="default", version=index["version"]) == 1
    assert value(seen, "index_entries", index="default") == index["size"]
    assert 0 < value(seen, "index_open_seconds", index="default") < 300
    assert value(seen, "index_created_timestamp_seconds", index="default") > 1.7e9
    assert value(seen, "model_lipschitz_bound") == model["lipschitz_bound"]
    assert value(seen, "model_forward_error") == model["forward_error"]
    (labels,) = [dict(labels) for name, labels in seen if name == "lipsim_model_info"]
    assert labels["fingerprint"] == model["fingerprint"]
    assert value(seen, "ready") == 1


def test_no_client_can_add_a_series(fresh: httpx.Client):
    """Hundreds of paths, index names and methods, none of them ours."""
    search(fresh, PICTURES[0])

    def attack(start: int, count: int) -> None:
        for n in range(start, start + count):
            fresh.get(f"/v1/{n}-{'x' * (n % 50)}")
            if n % 10 == 0:
                fresh.get(f"/v1/indexes/made-up-{n}")
                fresh.post("/v1/search", content=b"", headers=RAW, params={"index": f"made-up-{n}"})
                fresh.post(
                    "/v1/search", content=PICTURES[0], headers=RAW, params={"index": f"m{n}"}
                )
            fresh.request(["BREW", "PROPFIND", "LOCK", "SUBSCRIBE", "SOURCE"][n % 5], "/v1/search")
            fresh.post("/v1/embed", params={f"option-{n}": "1"}, headers=RAW, content=b"x")

    attack(0, 11)
    scrape(fresh)  # Itself a route, from the second time on.
    before = series(scrape(fresh))
    attack(11, 200)
    after = scrape(fresh)
    assert series(after) == before
    assert not any("made-up" in str(key) or "option" in str(key) for key in after)
    assert value(after, "requests_total", method="GET", route="(none)", status="404") == 211


def test_refusals_are_counted_by_reason_and_metrics_are_answered_meanwhile(data_dir: Path):
    """One place, held by a body that does not end; the gate then refuses, and /metrics does not."""
    settings = Settings(data_dir=data_dir, workers=1, max_concurrent_requests=1, max_connections=3)
    with open_client(settings) as client:
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address) as holder:
            holder.sendall(
                b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
                b"Content-Length: 100\r\n\r\nxx"
            )
            while value(scrape(client), "requests_in_hand", stage="received") < 1:
                pass
            assert client.post("/v1/search", content=PICTURES[0], headers=RAW).status_code == 503
            # Asked to wait for `100 Continue`, the gate lets it through to the places themselves.
            waiting = client.post(
                "/v1/search", content=PICTURES[0], headers={**RAW, "expect": "100-continue"}
            )
            assert waiting.status_code == 503
            others = [socket.create_connection(address) for _ in range(3)]
            assert others[-1].recv(100).startswith(b"HTTP/1.1 503")
            for other in others:
                other.close()
            time.sleep(0.2)  # The server has to see that they are gone.
            seen = scrape(client)
    assert value(seen, "refusals_total", reason="gate") == 1
    assert value(seen, "refusals_total", reason="places") == 1
    assert value(seen, "refusals_total", reason="connections") == 1
    assert value(seen, "refusals_total", reason="bytes") == 0
    assert value(seen, "requests_in_hand_limit", stage="received") == 1


def test_requests_at_once_share_batches_whose_sizes_add_up(data_dir: Path):
    with open_client(Settings(data_dir=data_dir, workers=1)) as client:
        barrier = threading.Barrier(8)

        def ask(seed: int) -> None:
            barrier.wait()
            search(client, encode(draw_picture(seed, 64, 48)))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(8)))
        seen = scrape(client)
    assert value(seen, "batch_size_sum") == 8
    assert value(seen, "batch_size_count") <= 8


def test_the_log_line_says_where_the_time_went_and_names_only_indexes_that_exist(
    start_server, data_dir: Path
):
    server = start_server(data_dir, workers=1)
    server.wait_ready()
    with httpx.Client(base_url=server.url) as client:
        answer = search(client, PICTURES[0], k=3)
        client.post("/v1/search", content=PICTURES[0], headers=RAW, params={"index": "a\n\x1b[2J"})
    server.stop()
    text = server.log.read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    found, missing = [line for line in lines if line.get("path") == "/v1/search"]
    assert (found["index"], found["k"], found["batch_size"]) == ("default", 3, 1)
    timings = answer["timings_ms"]
    assert found["stages_ms"] == {name: timings[name] for name in found["stages_ms"]}
    assert set(found["stages_ms"]) == {"cache", "queue", "decode", "embed", "search", "certify"}
    assert missing["code"] == "index_not_found"
    assert "index" not in missing
    assert "\x1b" not in text


def test_two_applications_count_apart(data_dir: Path):
    first, second = (create_app(Settings(data_dir=data_dir)).state.metrics for _ in range(2))
    first.problems.labels("overloaded").inc()
    assert b"overloaded" in first.render()
    assert b"overloaded" not in second.render()
