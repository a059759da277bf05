"""Answers of /v1/search over HTTP, held against a float64 brute force over the stored vectors."""

import hashlib
import io
import math
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from service_helpers import draw_picture, encode, run_builder


def search(client: httpx.Client, image: bytes, **options: object) -> dict:
    fields = {name: str(value) for name, value in options.items()}
    response = client.post("/v1/search", files={"image": image}, data=fields)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture(scope="module")
def exported(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Ids, float64 vectors and the metric's scales, by the builder's own export command."""
    out = tmp_path_factory.mktemp("export") / "out.npz"
    run_builder("export", out, "--data-dir", data_dir)
    with np.load(out) as arrays:
        vectors = arrays["vectors"].astype(np.float64)
        return list(arrays["ids"]), vectors, arrays["output_scales"]


def brute_force_radii(
    query: np.ndarray, vectors: np.ndarray, scales: np.ndarray, kept: list[int], k: int
) -> list[float]:
    """k-th smallest signed distance, before the head, to the planes that part i from others."""
    radii = []
    for i in kept:
        gaps = vectors[i] - np.delete(vectors, i, axis=0)
        planes = (gaps @ query) / np.linalg.norm(scales * gaps, axis=1)
        radii.append(float(np.sort(planes)[k - 1]))
    return radii


@pytest.mark.parametrize("seed", [0, 3, 7, 200, 201, 202])
@pytest.mark.parametrize("k", [1, 5, 59])
def test_results_and_radii_equal_brute_force(
    client: httpx.Client, exported: tuple, seed: int, k: int
):
    ids, vectors, scales = exported
    answer = search(client, encode(draw_picture(seed)), k=k, include_vector=True)
    query = np.array(answer["query"]["vector"])
    scores = vectors @ query
    order = np.lexsort((np.arange(len(ids)), -scores))[:k]
    results = answer["results"]
    assert [result["id"] for result in results] == [ids[i] for i in order]
    assert [result["rank"] for result in results] == list(range(1, k + 1))
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    expected = np.clip(1 - (scores / norms)[order], 0, 2)
    np.testing.assert_allclose([r["distance"] for r in results], expected, atol=1e-7)
    model, gain = answer["model"], answer["query"]["gain"]
    truth = brute_force_radii(query, vectors, scales, list(order), k)
    for result, radius in zip(results, truth, strict=True):
        assert result["certified_radius"] <= radius / gain
        # Only twice the forward error and rounding may be given away.
        slack = (3 * model["forward_error"] + 1e-9) / scales.min()
        assert result["certified_radius"] >= (radius - slack) / gain
        assert result["exact"] is True


def test_every_member_of_the_contract_is_there(client: httpx.Client, gallery: Path):
    image = (gallery / "p05.jpg").read_bytes()
    answer = search(client, image, k=2, epsilon=0.25)
    assert set(answer) == {
        *("query", "index", "model", "operating_point", "results", "certificate", "timings_ms")
    }
    assert answer["operating_point"] is None
    assert answer["query"] == {
        "sha256": hashlib.sha256(image).hexdigest(),
        "width": 160,
        "height": 120,
        "format": "JPEG",
        "truncated": False,
        "embedding_norm": answer["query"]["embedding_norm"],
        "gain": answer["query"]["gain"],
    }
    counts = {"size": 60, "items": 60, "vectors": 60}
    assert answer["index"] == {"name": "default", "version": "v000001", **counts}
    assert answer["model"]["claim"] == "program"
    assert answer["model"]["arithmetic"] == "float64"
    assert len(answer["model"]["fingerprint"]) == 64
    certificate = answer["certificate"]
    assert certificate["strict"] is True
    assert certificate["norm"] == "l2"
    assert certificate["top1_radius"] > 0
    first = answer["results"][0]
    assert first["id"] == "p05.jpg"
    item = client.get("/v1/indexes/default/item", params={"id": "p05.jpg"}).json()
    assert first["thumbnail"] == item["thumbnail"]
    linked = client.get(first["thumbnail"])
    assert linked.content[:3] == b"\xff\xd8\xff"
    assert linked.headers["cache-control"] == "private, max-age=31536000, immutable"
    # One more is a new RECORD: service/schemas/search.py.
    assert set(first) == {
        *("rank", "id", "distance", "similarity", "certified_radius", "certified_rms_8bit"),
        *("margin", "match", "match_margin", "match_statistic", "match_radius"),
        *("view", "exact", "duplicates", "thumbnail", "certified", "metadata"),
    }
    verdict = ("match", "match_margin", "match_statistic", "match_radius")
    assert [first[name] for name in verdict] == [None] * 4
    assert first["certified"] is (first["certified_radius"] > 0.25)
    rms = 255 * first["certified_radius"] / math.sqrt(3 * 160 * 120)
    assert rms * (1 - 1e-12) <= first["certified_rms_8bit"] <= rms
    in_embedding = first["margin"] * answer["query"]["embedding_norm"]
    scale = answer["model"]["lipschitz_bound"] * answer["query"]["gain"]
    # The metric of the head proves more than the margin, which is of embedding space.
    assert answer["model"]["metric"] == "head-aware"
    assert first["certified_radius"] > in_embedding / scale
    stages = {"cache", "queue", "decode", "embed", "search", "certify", "total"}
    assert set(answer["timings_ms"]) == stages


def test_members_that_were_not_asked_for_are_absent(client: httpx.Client, gallery: Path):
    image = (gallery / "p05.jpg").read_bytes()
    answer = search(client, image, include_metadata=False)
    assert "certified" not in answer["results"][0]
    assert "metadata" not in answer["results"][0]
    assert "vector" not in answer["query"]
    assert len(answer["results"]) == 10


def test_a_result_names_its_duplicates(client: httpx.Client, gallery: Path):
    answer = search(client, (gallery / "p07.jpg").read_bytes(), k=1)
    found = answer["results"][0]
    assert {found["id"], *found["duplicates"]} == {"p07.jpg", "p07-again.jpg"}


def test_where_nothing_can_be_displaced_the_radius_is_null_and_counts_as_certified(
    client: httpx.Client,
):
    answer = search(client, encode(draw_picture(300)), k=60, epsilon=1e9)
    assert len(answer["results"]) == 60
    for result in answer["results"]:
        assert result["certified_radius"] is None
        assert result["certified_rms_8bit"] is None
        assert result["margin"] is None
        assert result["certified"] is True
    assert answer["certificate"]["set_radius"] is None
    assert answer["certificate"]["order_radius"] > 0


def test_a_threshold_bounds_the_answer_and_its_radii(client: httpx.Client, gallery: Path):
    image = (gallery / "p05.jpg").read_bytes()
    free = search(client, image, k=60)
    near = search(client, image, k=60, max_distance=0.3)
    assert [r["id"] for r in near["results"]] == ["p05.jpg"]
    assert near["results"][0]["certified_radius"] is not None
    assert free["results"][0]["certified_radius"] is None
    assert near["certificate"]["set_radius"] <= near["results"][0]["certified_radius"]


def test_an_empty_answer_is_certified_too(client: httpx.Client):
    answer = search(client, encode(draw_picture(301)), max_distance=0.0)
    assert answer["results"] == []
    assert answer["certificate"]["top1_radius"] is None
    assert answer["certificate"]["set_radius"] > 0


@pytest.mark.parametrize("target", [0, 4])
def test_no_random_change_below_the_radius_evicts_a_result(client: httpx.Client, target: int):
    """Over HTTP, in 8-bit pixels: the l2 norm is taken after rounding, as the promise says."""
    pixels = np.asarray(draw_picture(302), dtype=np.float64)
    before = search(client, encode(draw_picture(302)), k=5)
    wanted = before["results"][target]
    rng = np.random.default_rng(target)
    # So many values change by one level, up or down: rounding leaves the norm as it is.
    count = min(pixels.size, int((0.98 * 255 * wanted["certified_radius"]) ** 2))
    assert count > 0
    for _ in range(12):
        moved = pixels.reshape(-1).copy()
        places = rng.choice(moved.size, count, replace=False)
        moved[places] += np.where(moved[places] > 127, -1, 1)
        moved = moved.reshape(pixels.shape)
        assert 0 < np.linalg.norm(moved - pixels) / 255 < wanted["certified_radius"]
        after = search(client, encode(Image.fromarray(moved.astype(np.uint8))), k=5)
        assert wanted["id"] in [result["id"] for result in after["results"]]


def test_the_alias_answers_the_same(client: httpx.Client, gallery: Path):
    image = (gallery / "p11.jpg").read_bytes()
    versioned = client.post("/v1/search", files={"image": image}).json()
    plain = client.post("/search", files={"image": image}).json()
    for answer in (versioned, plain):
        del answer["timings_ms"]
    assert versioned == plain


def test_an_orientation_is_applied_before_the_size_is_said(client: httpx.Client):
    picture = draw_picture(5, 64, 32)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=exif)
    query = search(client, buffer.getvalue())["query"]
    assert (query["width"], query["height"]) == (32, 64)
