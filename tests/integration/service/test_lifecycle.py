"""Readiness says what has ended; what can go on goes on."""

import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_helpers import StartServer, draw_picture, encode, open_client, wait_for

from service import lifecycle
from service.app import create_app
from service.settings import Settings
from service.work.index_registry import IndexRegistry

PNG = encode(draw_picture(1, 32, 32))


def test_a_look_that_fails_in_any_way_is_counted_and_the_next_one_is_taken(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    looks = iter([ValueError("of a GPU that would not let go"), MemoryError()])
    own = tmp_path / "data"
    own.symlink_to(data_dir)

    def refresh(registry: IndexRegistry) -> bool:
        if registry.data_dir == own:  # Services of other tests may be looking in this process.
            for failure in looks:
                raise failure
        return whole_refresh(registry)

    whole_refresh = IndexRegistry.refresh
    monkeypatch.setattr(IndexRegistry, "refresh", refresh)
    with open_client(Settings(data_dir=own, workers=1, index_poll_interval_s=0.05)) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/v1/search", files={"image": PNG}).status_code == 200
        assert "lipsim_index_look_failures_total 2.0" in client.get("/metrics").text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_dies_makes_the_service_unready_and_says_why(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    load_faiss = lifecycle.load_faiss

    def load_or_die() -> Any:
        if threading.current_thread().name.startswith("batcher"):
            raise PermissionError("as a thread that may not change its own priority")
        return load_faiss()

    monkeypatch.setattr(lifecycle, "load_faiss", load_or_die)
    with open_client(Settings(data_dir=data_dir, workers=2)) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["reason"]) == (503, "worker_died")
        assert client.get("/livez").status_code == 200


def test_only_the_workers_step_back_for_other_programs_and_only_a_little(
    data_dir: Path, start_server: StartServer
):
    server = start_server(data_dir, workers=2)
    server.wait_ready()
    assert httpx.post(f"{server.url}/v1/search", files={"image": PNG}).status_code == 200
    threads = Path(f"/proc/{server.process.pid}/task").iterdir()
    niceness = Counter(os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in threads)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    a_little = min(own + 3, 19)
    assert set(niceness) <= {own, a_little}
    # A worker's own helpers, if it has any, stand where it stands.
    assert niceness[a_little] >= 2


def test_another_server_can_make_the_application_of_the_environment_alone(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("LIPSIM_MAX_K", "77")
    (k, *_) = create_app().openapi()["paths"]["/v1/search"]["post"]["parameters"]
    assert k["schema"]["maximum"] == 77
