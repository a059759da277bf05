"""The registry over real index files: leases, retirement, and when a refusal is tried again."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from service_helpers import open_client, run_builder

from index_builder.errors import IndexNotFoundError
from index_builder.search.gallery import GalleryIndex
from model.pixels.decode import DECODE_POLICY_VERSION
from service.errors import IndexUnavailableError
from service.settings import Settings
from service.work.index_registry import IndexRegistry


@pytest.fixture
def own(data_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(data_dir, tmp_path / "data")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def registry(own: Path) -> Iterator[IndexRegistry]:
    with GalleryIndex.open(own) as index:
        fingerprint = index.manifest.model_fingerprint
    opened = IndexRegistry(own, fingerprint, DECODE_POLICY_VERSION, clock=Clock())
    yield opened
    opened.close()


def is_open(index: GalleryIndex) -> bool:
    return index._manifest_file >= 0


def test_a_version_that_is_replaced_closes_when_its_last_lease_ends(
    registry: IndexRegistry, own: Path, gallery: Path, tmp_path: Path
):
    registry.refresh()
    source = shutil.copytree(gallery, tmp_path / "fewer")
    (source / "p01.jpg").unlink()
    with registry.lease("default") as first, registry.lease("default") as again:
        assert first is again
        run_builder("build", source, "--data-dir", own)
        registry.refresh()
        with registry.lease("default") as second:
            assert (first.version, second.version) == ("v000001", "v000002")
        assert is_open(first)
        assert first.entries([0])[0].id
        assert first.search(np.ones((1, first.dim)), 5)[0].size == 60
    assert not is_open(first)
    assert is_open(second)
    registry.close()
    assert not is_open(second)
    with pytest.raises(IndexNotFoundError), registry.lease("default"):
        pytest.fail("a closed registry gave a lease")


def test_a_version_is_opened_once(registry: IndexRegistry):
    registry.refresh()
    with registry.lease("default") as first:
        registry.refresh()
        with registry.lease("default") as second:
            assert first is second


def test_a_refused_version_is_tried_again_ever_more_rarely(registry: IndexRegistry, own: Path):
    vectors = own / "indexes/default/versions/v000001/vectors.npy"
    good = vectors.read_bytes()
    vectors.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    clock = registry.clock
    assert isinstance(clock, Clock)
    pauses = []
    for _ in range(8):
        registry.refresh()
        refused = registry.entry("default").refused
        assert refused is not None
        assert refused.code == "index_damaged"
        pauses.append(refused.pause_s)
        registry.refresh()
        assert registry.entry("default").refused == refused
        clock.now = refused.retry_at
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
    with pytest.raises(IndexUnavailableError, match="index_damaged"), registry.lease("default"):
        pytest.fail("a damaged index was leased")
    vectors.write_bytes(good)
    registry.refresh()
    assert registry.entry("default").refused is None
    with registry.lease("default") as index:
        assert index.size == 60


def test_an_index_that_is_gone_is_let_go_at_the_third_look(registry: IndexRegistry, own: Path):
    registry.refresh()
    shutil.rmtree(own / "indexes/default")
    for _ in range(2):
        registry.refresh()
        with registry.lease("default") as index:
            assert index.search(np.ones((1, index.dim)), 5)[0].size == 60
    registry.refresh()
    assert registry.entries() == []
    assert not is_open(index)


def test_a_version_that_somebody_holds_can_be_leased_again_after_it_was_replaced(
    registry: IndexRegistry, own: Path, other: Path
):
    registry.refresh()
    with registry.lease("default") as held:
        move_into_place(own, other)
        registry.refresh()
        with registry.lease("default") as newer:
            assert newer is not held
        with registry.lease("default", held) as again:
            assert again is held
        assert is_open(held)
    assert not is_open(held)
    with pytest.raises(IndexUnavailableError, match="closed"), registry.lease("default", held):
        pytest.fail("a closed version was leased")


def test_a_directory_that_comes_back_in_time_was_never_gone(registry: IndexRegistry, own: Path):
    registry.refresh()
    with registry.lease("default") as first:
        pass
    for _ in range(3):
        (own / "indexes").rename(own / "away")
        registry.refresh()
        registry.refresh()
        (own / "away").rename(own / "indexes")
        registry.refresh()
        with registry.lease("default") as index:
            assert index is first


def move_into_place(own: Path, other: Path) -> None:
    (own / "indexes/default").rename(own / "replaced")
    (other / "indexes/default").rename(own / "indexes/default")


@pytest.fixture
def other(gallery: Path, tmp_path: Path) -> Path:
    """Another data directory, of five pictures, whose only version is v000001 too."""
    source = tmp_path / "five"
    source.mkdir()
    for seed in range(5):
        shutil.copy(gallery / f"p{seed:02}.jpg", source)
    run_builder("build", source, "--data-dir", tmp_path / "other")
    return tmp_path / "other"


def test_another_index_of_the_same_version_name_is_noticed(
    registry: IndexRegistry, own: Path, other: Path
):
    registry.refresh()
    move_into_place(own, other)
    registry.refresh()
    with registry.lease("default") as index:
        assert (index.version, index.size) == ("v000001", 5)


def test_a_refused_version_is_not_kept_waiting_for_another_of_its_name(
    registry: IndexRegistry, own: Path, other: Path
):
    (own / "indexes/default/versions/v000001/items.sqlite").unlink()
    registry.refresh()
    move_into_place(own, other)
    registry.refresh()
    assert registry.entry("default").refused is None
    with registry.lease("default") as index:
        assert index.size == 5


def test_the_running_service_answers_from_an_index_moved_into_place(
    own: Path, other: Path, gallery: Path
):
    image = (gallery / "p09.jpg").read_bytes()
    with open_client(Settings(data_dir=own, index_poll_interval_s=0.1)) as client:
        found = client.post("/v1/search", files={"image": image}).json()
        assert (found["index"]["size"], found["results"][0]["id"]) == (60, "p09.jpg")
        move_into_place(own, other)
        deadline = time.monotonic() + 20
        while client.get("/v1/indexes/default").json()["size"] != 5:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        found = client.post("/v1/search", files={"image": image}).json()
        assert (found["index"]["size"], found["index"]["version"]) == (5, "v000001")
        assert "p09.jpg" not in {result["id"] for result in found["results"]}


def test_a_refusal_shows_no_path(registry: IndexRegistry, own: Path):
    (own / "indexes/default/versions/v000001/items.sqlite").unlink()
    registry.refresh()
    refused = registry.entry("default").refused
    assert refused is not None
    assert str(own) not in refused.detail


def test_float32_arithmetic_claims_less(data_dir: Path, gallery: Path):
    image = (gallery / "p02.jpg").read_bytes()
    with open_client(Settings(data_dir=data_dir, arithmetic="float32")) as client:
        answer = client.post("/v1/search", files={"image": image}).json()
        pair = client.post("/v1/similarity", files={"image_a": image, "image_b": image}).json()
    for model in (answer["model"], pair["model"]):
        assert model["arithmetic"] == "float32"
        assert model["claim"] == "real-arithmetic"
    assert "real arithmetic" in answer["certificate"]["meaning"]
    assert answer["results"][0]["id"] == "p02.jpg"
