"""Two hundred answers of a busy server, repeated offline and by another server: the same.

Batches form by themselves under load, so no two rounds sum in the same order. What may differ is
what the forward error allows, and nothing else. Rounds with several threads are slow on a busy
machine: REPLAY_ALL=1 has them with all the answers.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
import pytest
from service_helpers import Server, draw_picture, encode, start_process
from test_replay import ask, run_replay

ANSWERS = 200
REPLAY_ALL = os.environ.get("REPLAY_ALL") == "1"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
OPTIONS = (
    {"k": 1},
    {"k": 5},
    {"k": 10, "max_distance": 0.5},
    {"k": 20, "require_exact": True},
    {"k": 3, "max_distance": 1e-3},
    {"k": 60},
    {"k": 7, "max_distance": 1.9, "require_exact": True},
)
# Another size of a batch, another number of threads and processes, in each round.
RECORDING = {"max_batch": 16, "workers": 1, "threads_per_worker": 1}
OTHERS = (
    ({"max_batch": 5, "workers": 3}, ANSWERS),
    ({"max_batch": 1, "workers": 1, "threads_per_worker": 2}, ANSWERS if REPLAY_ALL else 20),
)


@dataclass(frozen=True)
class Question:
    image: bytes
    options: dict[str, object]


def draw_question(number: int) -> Question:
    """Pictures of the gallery in another size, and strangers, in every format.

    Small ones: batches form where the network is slower than the decoder.
    """
    seed = number // 2 % 60 if number % 2 else 700 + number
    picture = draw_picture(seed, 40 + 37 * number % 161, 30 + 53 * number % 97)
    return Question(encode(picture, FORMATS[number % 5]), OPTIONS[number % 7])


@cache
def questions() -> list[Question]:
    """Drawn once and late: whoever collects the tests does not wait for two hundred pictures."""
    return [draw_question(number) for number in range(ANSWERS)]


@contextmanager
def serving(data_dir: Path, log: Path, **settings: object) -> Iterator[Server]:
    server = start_process(data_dir, log, settings)
    try:
        server.wait_ready()
        yield server
        server.stop()
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def answers_of(server: Server, count: int = ANSWERS) -> list[dict]:
    """The first questions, asked two dozen at a time."""
    with (
        httpx.Client(base_url=server.url, timeout=60) as client,
        ThreadPoolExecutor(24) as threads,
    ):
        return list(threads.map(lambda q: ask(client, q.image, **q.options), questions()[:count]))


@pytest.fixture(scope="module")
def recorded(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], Path]:
    """The answers of a server that has ended since, and its log."""
    log = tmp_path_factory.mktemp("recording") / "server.log"
    with serving(data_dir, log, **RECORDING) as server:
        return answers_of(server), log


def test_the_answers_came_from_batches(recorded: tuple[list[dict], Path]):
    lines = [json.loads(line) for line in recorded[1].read_text().splitlines() if line[:1] == "{"]
    sizes = [line.get("batch_size", 1) for line in lines if line.get("path") == "/v1/search"]
    assert len(sizes) == ANSWERS
    assert sum(size > 1 for size in sizes) > ANSWERS / 10
    assert len(set(sizes)) > 2


@pytest.mark.parametrize("threads", [None, "3"] if REPLAY_ALL else [None])
def test_they_hold_when_they_are_repeated_one_by_one(
    recorded: tuple[list[dict], Path], data_dir: Path, tmp_path: Path, threads: str | None
):
    images = tmp_path / "images"
    images.mkdir()
    for number, question in enumerate(questions()):
        (images / str(number)).write_bytes(question.image)
    records = tmp_path / "records.jsonl"
    records.write_text("\n".join(json.dumps(record) for record in recorded[0]))
    done = run_replay(records, images, "--data-dir", data_dir, threads=threads)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{ANSWERS} answers: {ANSWERS} hold, 0 do not" in done.stdout


@pytest.mark.parametrize(("settings", "count"), OTHERS, ids=str)
def test_another_server_says_the_same(
    recorded: tuple[list[dict], Path],
    data_dir: Path,
    tmp_path: Path,
    settings: dict[str, object],
    count: int,
):
    with serving(data_dir, tmp_path / "server.log", **settings) as server:
        again = answers_of(server, count)
    pairs = zip(recorded[0][:count], again, strict=True)
    assert sum(compare(then, now) for then, now in pairs) > 2 * count


def compare(then: dict, now: dict) -> int:
    """Radii that were positive and are the same again; an entry without one may be another."""
    assert then["audit"] == now["audit"]
    model, gain = then["model"], then["query"]["gain"]
    tolerance = 2.0 * model["forward_error"] / (model["lipschitz_bound"] * gain) + 1e-12
    assert 0.0 < tolerance < 1e-6
    found = {result["id"]: result for result in now["results"]}
    compared = 0
    for result in then["results"]:
        radius = result["certified_radius"]
        if radius is not None and radius <= tolerance:
            continue
        other = found[result["id"]]
        if result["exact"] and other["exact"]:
            assert_same(radius, other["certified_radius"], tolerance)
            compared += 1
    for name in ("top1_radius", "set_radius", "order_radius"):
        assert_same(then["certificate"][name], now["certificate"][name], tolerance)
    return compared


def assert_same(then: float | None, now: float | None, tolerance: float) -> None:
    if then is None or now is None:
        assert then is now
    else:
        assert abs(then - now) <= tolerance + 1e-12 * then
