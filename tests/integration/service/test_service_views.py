"""An index whose entries own several vectors, asked over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps
from service_helpers import draw_picture, encode, open_client, run_builder

from index_builder.store.manifest import read_manifest
from model.embedder import Embedder
from model.pixels.decode import DecodeLimits
from model.pixels.views import VIEW_SETS
from service.replay.replayer import Replayer
from service.settings import Settings


@pytest.fixture(scope="module")
def data_dir(gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("views")
    run_builder("build", gallery, "--data-dir", directory, "--views", "mirror")
    return directory


@pytest.fixture(scope="module")
def client(data_dir: Path) -> Iterator[httpx.Client]:
    with open_client(Settings(data_dir=data_dir)) as opened:
        yield opened


def ask(client: httpx.Client, picture: Image.Image, **options: object) -> dict:
    form = {name: str(value) for name, value in options.items()} | {"include_audit": "true"}
    answer = client.post("/v1/search", files={"image": encode(picture)}, data=form)
    return answer.raise_for_status().json()


def shifted(picture: Image.Image) -> Image.Image:
    moved = Image.new("RGB", picture.size, "white")
    moved.paste(picture, (round(0.08 * picture.width), -round(0.08 * picture.height)))
    return moved


@pytest.mark.parametrize(
    ("change", "view"), [(ImageOps.mirror, "mirror"), (shifted, "move-right-up")]
)
def test_a_changed_copy_is_found_by_its_view_and_certified(client, change, view):
    for seed in (3, 11, 40):
        answer = ask(client, change(draw_picture(seed)), k=3)
        first = answer["results"][0]
        assert first["id"] == f"p{seed:02}.jpg"
        assert first["view"] == view
        assert first["certified_radius"] > 0.0


def test_ranks_count_pictures_and_the_index_says_how_many_vectors_there_are(client, data_dir):
    manifest = read_manifest(data_dir / "indexes/default/versions/v000001")
    assert manifest.entries == 60
    assert 60 * 6 < manifest.vector_count <= 60 * 7
    answer = ask(client, draw_picture(5), k=60)
    assert len({result["id"] for result in answer["results"]}) == 60
    assert all(result["certified_radius"] is None for result in answer["results"])
    counts = {"size": 60, "items": 60, "vectors": manifest.vector_count}
    assert answer["index"] == {"name": "default", "version": "v000001", **counts}
    (listed,) = client.get("/v1/indexes").json()["indexes"]
    assert listed["views"] == list(VIEW_SETS["mirror"])
    assert (listed["size"], listed["vectors"]) == (60, manifest.vector_count)


def test_a_distance_is_that_of_the_nearest_view(client):
    picture = draw_picture(9)
    whole = ask(client, picture, include_vector=True, k=1)["results"][0]
    assert whole["view"] == "whole"
    assert whole["distance"] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("options", [{"k": 5}, {"k": 1}, {"k": 60}, {"k": 3, "max_distance": 0.4}])
def test_recorded_answers_are_repeated(client, data_dir, options):
    replayer = Replayer(Embedder.load(), data_dir, DecodeLimits())
    try:
        for seed in (2, 700):
            picture = ImageOps.mirror(draw_picture(seed))
            outcome = replayer.replay(ask(client, picture, **options), encode(picture))
            assert outcome.differences == ()
    finally:
        replayer.close()


def test_noise_below_the_radius_leaves_a_picture_found_by_a_view_in_the_answer(client):
    pixels = np.array(ImageOps.mirror(draw_picture(17)))
    first = ask(client, Image.fromarray(pixels), k=3)["results"][0]
    rng = np.random.default_rng(1)
    for _ in range(5):
        noise = rng.choice([-1, 1], pixels.shape)
        levels = int(first["certified_rms_8bit"])
        moved = np.clip(pixels + levels * noise, 0, 255).astype(np.uint8)
        assert np.linalg.norm((moved - pixels.astype(float)) / 255) < first["certified_radius"]
        results = ask(client, Image.fromarray(moved), k=3)["results"]
        assert first["id"] in {result["id"] for result in results}
