"""New versions are taken into service without dropping a request; damaged ones are refused."""

import re
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from forked import run_program
from service_helpers import (
    Server,
    StartServer,
    draw_picture,
    encode,
    open_client,
    run_builder,
    wait_for,
)

from index_builder.store.layout import Current, index_paths, write_current
from index_builder.store.manifest import read_manifest
from service.settings import Settings


def version_of(url: str, name: str = "default") -> str:
    return httpx.get(f"{url}/v1/indexes/{name}").json()["version"]


@pytest.fixture
def own(gallery: Path, data_dir: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A gallery and a data directory of the test's own."""
    shutil.copytree(gallery, tmp_path / "gallery")
    shutil.copytree(data_dir, tmp_path / "data")
    return tmp_path / "gallery", tmp_path / "data"


def test_a_rebuild_under_load_drops_nothing_and_mixes_nothing(
    own: tuple[Path, Path], start_server: StartServer
):
    source, data = own
    server = start_server(data, index_poll_interval_s=0.2, workers=1)
    server.wait_ready()
    query = encode(draw_picture(900))
    answers: list[dict] = []
    stop = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not stop.is_set():
                response = client.post("/v1/search", files={"image": query}, data={"k": "1"})
                answers.append({"status": response.status_code, **response.json()})
                stop.wait(0.02)  # The builder below shares this interpreter.

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    versions = {1: (60, None)}
    for round_number in (2, 3, 4):
        # Each version holds one more picture, nearer to the query than any other before.
        near = draw_picture(900).resize((160 - round_number, 120))
        near.save(source / f"near-{round_number}.png")
        run_builder("build", source, "--data-dir", data)
        expected = f"v{round_number:06}"
        wait_for(lambda expected=expected: version_of(server.url) == expected)
        versions[round_number] = (59 + round_number, f"near-{round_number}.png")
    wait_for(lambda: answers[-1].get("index", {}).get("version") == "v000004")
    stop.set()
    for thread in threads:
        thread.join()
    assert {answer["status"] for answer in answers} == {200}
    seen = set()
    for answer in answers:
        number = int(answer["index"]["version"][1:])
        seen.add(number)
        assert answer["index"]["size"] == versions[number][0]
        found = answer["results"][0]["id"]
        allowed = {f"near-{i}.png" for i in range(2, number + 1)}
        assert (found in allowed) if number > 1 else not found.startswith("near")
    assert seen == {1, 2, 3, 4}
    # Old versions are let go: their files may be pruned under a running service.
    run_builder("prune", "--data-dir", data)
    assert httpx.post(f"{server.url}/search", files={"image": query}).status_code == 200
    assert server.stop() == -signal.SIGTERM
    assert "Application shutdown complete" in server.log.read_text()


def test_a_damaged_version_is_refused_and_the_old_one_keeps_serving(own: tuple[Path, Path]):
    source, data = own
    settings = Settings(data_dir=data, index_poll_interval_s=0.1)
    with open_client(settings) as client:
        (source / "p00.jpg").unlink()
        aside = data.with_name("aside")
        shutil.copytree(data, aside)
        run_builder("build", source, "--data-dir", aside)
        new = aside / "indexes/default/versions/v000002"
        vectors = bytearray((new / "vectors.npy").read_bytes())
        vectors[-1] ^= 1
        (new / "vectors.npy").write_bytes(vectors)
        shutil.copytree(new, data / "indexes/default/versions/v000002")
        shutil.copy(aside / "indexes/default/CURRENT", data / "indexes/default/CURRENT")

        def refused() -> str | None:
            """The version; none while CURRENT is being copied, and read half."""
            return (client.get("/v1/indexes/default").json()["refused"] or {}).get("version")

        wait_for(lambda: refused() == "v000002")
        status = client.get("/v1/indexes/default").json()
        assert status["version"] == "v000001"
        assert status["refused"]["code"] == "index_damaged"
        assert str(data) not in str(status)
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["indexes"] == [status]
        answer = client.post("/search", files={"image": encode(draw_picture(1))}).json()
        assert answer["index"]["version"] == "v000001"
        # A good version after it is taken again, and the refusal forgotten.
        run_builder("build", source, "--data-dir", data, "--index", "other")
        wait_for(lambda: client.get("/v1/indexes/other").status_code == 200)
        shutil.rmtree(data / "indexes/default/versions/v000002")
        current = (data / "indexes/default/CURRENT").read_text()
        assert current.startswith("v000002")


def test_a_refused_version_is_forgotten_once_a_good_one_serves(own: tuple[Path, Path]):
    _, data = own
    current = data / "indexes/default/CURRENT"
    good = current.read_bytes()
    with open_client(Settings(data_dir=data, index_poll_interval_s=0.1)) as client:
        current.write_bytes(b"nonsense")
        wait_for(lambda: client.get("/v1/indexes/default").json()["refused"] is not None)
        assert client.get("/v1/indexes/default").json()["status"] == "serving"
        current.write_bytes(good)
        wait_for(lambda: client.get("/v1/indexes/default").json()["refused"] is None)


def test_a_damaged_index_at_the_start_is_not_ready_and_says_why(own: tuple[Path, Path]):
    _, data = own
    items = data / "indexes/default/versions/v000001/items.sqlite"
    damaged = bytearray(items.read_bytes())
    damaged[100] ^= 1
    items.write_bytes(damaged)
    with open_client(Settings(data_dir=data)) as client:
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["reason"] == "index_refused"
        assert int(ready.headers["retry-after"]) >= 1
        picture = encode(draw_picture(1))
        refused = client.post("/search", files={"image": picture})
        assert (refused.status_code, refused.json()["code"]) == (503, "index_unavailable")
        assert client.get("/v1/indexes/default/item?id=p01.jpg").status_code == 503
        assert client.post("/embed", files={"image": picture}).status_code == 200


def test_an_index_of_another_model_is_refused_by_name(own: tuple[Path, Path]):
    _, data = own
    version = data / "indexes/default/versions/v000001"
    manifest = replace(read_manifest(version), model_fingerprint="0" * 64)
    (version / "manifest.json").write_bytes(manifest.to_bytes())
    write_current(index_paths(data, "default"), Current("v000001", manifest.seal))
    with open_client(Settings(data_dir=data)) as client:
        status = client.get("/v1/indexes").json()["indexes"][0]
        assert status["status"] == "refused"
        assert status["refused"]["code"] == "index_model_mismatch"


def test_without_an_index_it_says_what_to_run_and_still_embeds(gallery: Path, tmp_path: Path):
    data = tmp_path / "nothing-here-yet"
    with open_client(Settings(data_dir=data, index_poll_interval_s=0.1)) as client:
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["reason"]) == (503, "no_index")
        assert "python -m index_builder build" in ready.json()["detail"]
        picture = encode(draw_picture(1))
        assert client.post("/search", files={"image": picture}).status_code == 404
        assert client.post("/embed", files={"image": picture}).status_code == 200
        pair = {"image_a": picture, "image_b": picture}
        assert client.post("/similarity", files=pair).status_code == 200
        run_builder("build", gallery, "--data-dir", data)
        wait_for(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/search", files={"image": picture}).status_code == 200
        shutil.rmtree(data)
        wait_for(lambda: client.get("/readyz").status_code == 503)
        assert client.post("/search", files={"image": picture}).status_code == 404


def test_a_killed_server_starts_again_with_the_same_answers(
    data_dir: Path, start_server: StartServer
):
    def ask(server: Server) -> dict:
        server.wait_ready()
        response = httpx.post(f"{server.url}/search", files={"image": encode(draw_picture(33))})
        answer = response.json()
        del answer["timings_ms"]
        return answer

    first = start_server(data_dir)
    before = ask(first)
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    assert ask(start_server(data_dir)) == before


def test_a_stopped_server_finishes_what_it_has_begun(data_dir: Path, start_server: StartServer):
    server = start_server(data_dir, workers=1)
    server.wait_ready()
    picture = encode(draw_picture(2, 2500, 2500), "JPEG")
    answers: list[int] = []

    def ask() -> None:
        answer = httpx.post(f"{server.url}/search", files={"image": picture}, timeout=60)
        answers.append(answer.status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()

    def in_hand() -> int:
        found = re.search(
            r'in_hand{stage="received"} (\d)', httpx.get(f"{server.url}/metrics").text
        )
        return int(found[1]) if found else 0

    wait_for(lambda: in_hand() + len(answers) == len(threads))
    assert server.stop() == -signal.SIGTERM
    assert "Application shutdown complete" in server.log.read_text()
    for thread in threads:
        thread.join()
    assert answers == [200] * 4


def test_a_refused_checkpoint_ends_the_process_and_says_why(tmp_path: Path, data_dir: Path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a checkpoint")
    arguments = ("--port", "0", "--data-dir", data_dir, "--checkpoint", broken)
    done = run_program("service", *arguments)
    assert done.returncode == 1
    assert "cannot serve" in done.stderr
