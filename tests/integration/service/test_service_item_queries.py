"""An item of the index in place of an image: what is most like it, and why nothing is certified."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from index_tools import CALIBRATION
from service_helpers import draw_picture, encode, open_client, run_builder

from index_builder.build.writer import seal_calibration, writing
from index_builder.search.gallery import GalleryIndex
from index_builder.store.layout import index_paths
from index_builder.store.manifest import read_manifest
from service.settings import Settings


def ask(client: httpx.Client, item: str, **options: object) -> dict:
    return client.post("/v1/search", json={"item": item, **options}).raise_for_status().json()


def found(answer: dict) -> list[str]:
    return [result["id"] for result in answer["results"]]


@pytest.fixture(scope="module", params=["none", "mirror"])
def views(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def data_dir(views: str, gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("items")
    run_builder("build", gallery, "--data-dir", directory, "--views", views)
    paths = index_paths(directory, "default")
    with writing(paths):
        seal_calibration(paths, read_manifest(paths.version("v000001")), CALIBRATION)
    return directory


@pytest.fixture(scope="module")
def client(data_dir: Path) -> Iterator[httpx.Client]:
    with open_client(Settings(data_dir=data_dir)) as opened:
        yield opened


@pytest.fixture(scope="module")
def index(data_dir: Path) -> Iterator[GalleryIndex]:
    with GalleryIndex.open(data_dir) as opened:
        yield opened


def similarities(index: GalleryIndex, number: int) -> np.ndarray:
    """Cosine of an entry's first row with the nearest row of every entry, by brute force."""
    vectors = index.vectors.astype(np.float64)
    query = vectors[index.rows.starts[number]]
    return np.maximum.reduceat(vectors @ query, index.rows.starts[:-1]) / np.linalg.norm(query)


@pytest.mark.parametrize("name", ["p05.jpg", "p07.jpg", "p59.jpg"])
@pytest.mark.parametrize("include_self", [False, True])
def test_the_answer_is_that_of_a_full_look_at_the_stored_vectors(
    client: httpx.Client, index: GalleryIndex, name: str, include_self: bool
):
    number = index.entry_by_id(name).number
    expected = similarities(index, number)
    order = [one for one in np.argsort(-expected) if include_self or one != number][:7]
    answer = ask(client, name, k=7, include_self=include_self)
    assert found(answer) == [entry.id for entry in index.entries(np.array(order))]
    measured = [result["similarity"] for result in answer["results"]]
    np.testing.assert_allclose(measured, expected[order], atol=1e-6)
    assert answer["query"] == {
        "item": name,
        "sha256": index.items.by_id(name).content_sha256,
    }


def test_every_radius_is_zero_and_the_answer_says_why(client: httpx.Client, index: GalleryIndex):
    for options in ({"k": 3}, {"k": 1000}, {"k": 3, "max_distance": 0.5, "require_exact": True}):
        answer = ask(client, "p05.jpg", epsilon=0.0, operating_point="balanced", **options)
        for result in answer["results"]:
            assert result["certified_radius"] == result["certified_rms_8bit"] == 0.0
            assert result["match_radius"] == 0.0
            assert result["certified"] is False
        for name in ("top1_radius", "set_radius", "order_radius"):
            assert answer["certificate"][name] == 0.0
        assert "no pixels" in answer["certificate"]["meaning"]
    everything = ask(client, "p05.jpg", k=1000)
    assert len(everything["results"]) == index.size - 1
    # Margins are as ever: nothing can displace one of all.
    assert {result["margin"] for result in everything["results"]} == {None}


def test_margins_and_verdicts_are_those_of_a_gallery_without_the_item(
    client: httpx.Client, views: str, gallery: Path, tmp_path: Path
):
    """Its own picture as a query, of a gallery that lacks it: the same, but for a pass's error."""
    for picture in gallery.iterdir():
        if picture.name != "p05.jpg":
            (tmp_path / picture.name).write_bytes(picture.read_bytes())
    run_builder("build", tmp_path, "--data-dir", tmp_path / "data", "--views", views)
    paths = index_paths(tmp_path / "data", "default")
    with writing(paths):
        seal_calibration(paths, read_manifest(paths.version("v000001")), CALIBRATION)
    picture = {"image": (gallery / "p05.jpg").read_bytes()}
    options = {"k": "6", "operating_point": "balanced"}
    with open_client(Settings(data_dir=tmp_path / "data")) as other:
        expected = other.post("/v1/search", files=picture, data=options).json()
    answer = ask(client, "p05.jpg", k=6, operating_point="balanced")
    assert found(answer) == found(expected)
    for name in ("margin", "match_margin", "match_statistic", "similarity"):
        measured = [[result[name] for result in one["results"]] for one in (answer, expected)]
        np.testing.assert_allclose(*measured, atol=1e-6)
    assert [r["match"] for r in answer["results"]] == [r["match"] for r in expected["results"]]


def test_another_id_of_the_same_vector_is_the_same_query_and_left_out_too(client: httpx.Client):
    one, other = ask(client, "p07.jpg", k=60), ask(client, "p07-again.jpg", k=60)
    assert found(one) == found(other)
    assert not {"p07.jpg", "p07-again.jpg"} & set(found(one))
    assert other["query"]["item"] == "p07-again.jpg"


def test_the_vector_that_is_shown_is_the_stored_one(client: httpx.Client, index: GalleryIndex):
    answer = ask(client, "p11.jpg", include_vector=True, include_metadata=False)
    row = index.rows.starts[index.entry_by_id("p11.jpg").number]
    assert answer["query"]["vector"] == index.vectors[row].astype(np.float64).tolist()


def test_an_item_is_named_in_every_kind_of_request(client: httpx.Client):
    expected = found(ask(client, "p05.jpg", k=4))
    fields = {"item": (None, "p05.jpg"), "k": (None, "4")}
    for how in (
        {"params": {"item": "p05.jpg", "k": 4}},
        {"files": fields},
        {"json": {"k": 4}, "params": {"item": "p05.jpg"}},
    ):
        answer = client.post("/v1/search", **how)
        assert answer.status_code == 200, answer.text
        assert found(answer.json()) == expected


PNG = encode(draw_picture(1, 24, 24))
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("how", "status", "code", "says"),
    [
        ({"json": {"item": "nope"}}, 404, "item_not_found", "'nope'"),
        ({"json": {"item": "../p05.jpg"}}, 404, "item_not_found", "p05"),
        ({"content": b'{"item": "\\ud800"}', "headers": JSON}, 400, "invalid_parameter", "item"),
        ({"json": {"item": "p05.jpg", "index": "none"}}, 404, "index_not_found", "none"),
        ({"json": {"item": ""}}, 400, "invalid_parameter", "item"),
        ({"json": {"item": "x" * 4097}}, 400, "invalid_parameter", "item"),
        ({"json": {"item": None}}, 400, "missing_field", "image_base64"),
        ({"json": {"item": "p05.jpg", "trim": True}}, 400, "invalid_parameter", "trim"),
        ({"json": {"item": "p05.jpg", "include_input": True}}, 400, "invalid_parameter", "pixels"),
        (
            {"json": {"item": "p05.jpg"}, "params": {"include_audit": "true"}},
            400,
            "invalid_parameter",
            "pixels",
        ),
        ({"files": {"image": PNG}, "params": {"item": "p05.jpg"}}, 400, "invalid_parameter", "one"),
        ({"params": {"include_self": "true"}}, 400, "missing_field", "image"),
    ],
)
def test_what_cannot_be_asked_of_an_item_is_refused_by_name(
    client: httpx.Client, how: dict, status: int, code: str, says: str
):
    answer = client.post("/v1/search", **how)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert says in answer.json()["detail"]
