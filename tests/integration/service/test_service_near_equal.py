"""A gallery of near-equal rows, searched for many results, takes the service from nobody."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from near_equal import near_equal_rows, seal_rows
from service_helpers import draw_picture, encode, open_client, wait_for

from index_builder.search import certified
from model.embedder import Embedder
from service.settings import Settings

PICTURES = [encode(draw_picture(seed, 48, 48)) for seed in range(40)]


@pytest.fixture(scope="module")
def near_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of 9,000 rows that float32 scores cannot order, and a small ordinary one."""
    directory = tmp_path_factory.mktemp("near")
    embedder = Embedder.load()
    rows = near_equal_rows(9000, embedder.dim, embedder.embed(PICTURES[0]).vector, within=1e-6)
    seal_rows(directory, "near", embedder, rows)
    seal_rows(directory, "default", embedder, rows[:40])
    return directory


@pytest.fixture
def one_worker(near_dir: Path) -> Iterator[httpx.Client]:
    settings = Settings(data_dir=near_dir, workers=1, request_timeout_s=300.0, queue_timeout_s=60.0)
    with open_client(settings) as client:
        yield client


def search(client: httpx.Client, picture: bytes, **options: object) -> httpx.Response:
    with httpx.Client(base_url=client.base_url, timeout=120.0) as own:
        return own.post("/v1/search", files={"image": picture}, data=options)


def test_other_searches_are_served_in_the_midst_of_a_burst_of_heavy_ones(
    one_worker: httpx.Client,
):
    ended: list[tuple[str, int]] = []

    def ask(index: str, picture: bytes, k: int) -> None:
        ended.append((index, search(one_worker, picture, index=index, k=k).status_code))

    heavy = [threading.Thread(target=ask, args=("near", picture, 300)) for picture in PICTURES[1:9]]
    for thread in heavy:
        thread.start()
    wait_for(lambda: bool(ended), timeout_s=120.0)
    light = [
        threading.Thread(target=ask, args=("default", picture, 5)) for picture in PICTURES[20:24]
    ]
    for thread in light:
        thread.start()
    for thread in (*heavy, *light):
        thread.join()
    assert [status for _, status in ended] == [200] * 12
    # The worker took turns: no light one waited for the last of the heavy ones.
    last = max(place for place, (index, _) in enumerate(ended) if index == "default")
    assert any(index == "near" for index, _ in ended[last + 1 :])


class SlowIndexWork:
    """Makes each block of work long, and counts: a search that nobody stops would take minutes."""

    def __init__(self) -> None:
        self.looks = 0
        self.begun = threading.Event()

    def keep_on(self) -> None:
        self.looks += 1
        self.begun.set()
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["timeout", "hang up"])
def test_a_request_given_up_frees_its_thread(
    near_dir: Path, how: str, monkeypatch: pytest.MonkeyPatch
):
    slow = SlowIndexWork()
    true_query = certified.Query

    def query(embedding: object, check_deadline: object) -> certified.Query:
        def look() -> None:
            slow.keep_on()
            check_deadline()

        return true_query(embedding, look)

    monkeypatch.setattr("service.work.engine.Query", query)
    # Some hundred looks a search: a thread that did not look would be held for many seconds.
    monkeypatch.setattr("model.certificate.distances._BLOCK_BYTES", 1 << 13)
    timeout = 1.0 if how == "timeout" else 600.0
    settings = Settings(
        data_dir=near_dir, workers=1, request_timeout_s=timeout, queue_timeout_s=60.0
    )
    with open_client(settings) as client:
        if how == "timeout":
            answer = search(client, PICTURES[1], index="near", k=1000)
            assert answer.status_code == 504
        else:
            with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=1.0) as impatient:
                impatient.post(
                    f"{client.base_url}/v1/search",
                    files={"image": PICTURES[1]},
                    data={"index": "near", "k": 1000},
                )
            assert slow.begun.is_set()
        looks = slow.looks
        started = time.monotonic()
        embedded = client.post("/v1/embed", files={"image": PICTURES[2]})
        assert embedded.status_code == 200
        # Within a second, three on a machine that is busy otherwise.
        assert time.monotonic() - started < 3.0
        assert slow.looks - looks < 50
