"""`trim`: a second answer without uniform borders, beside the unchanged one, and proved as well."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from borders import boxes, decisions, rounded, steps
from near_equal import near_equal_rows, seal_rows
from PIL import Image
from service_helpers import draw_picture, encode, open_client

from model.embedder import Embedder
from model.pixels.trim import find_trim
from service.settings import Settings

RADII = ("top1_radius", "set_radius", "order_radius")


def bordered(seed: int, *, across: int, down: int, colour: tuple[int, int, int]) -> Image.Image:
    """A gallery picture on a canvas of one colour."""
    picture = draw_picture(seed)
    canvas = Image.new("RGB", (picture.width + 2 * across, picture.height + 2 * down), colour)
    canvas.paste(picture, (across, down))
    return canvas


def letterbox(seed: int) -> Image.Image:
    return bordered(seed, across=0, down=60, colour=(0, 0, 0))


def viewer(seed: int) -> Image.Image:
    return bordered(seed, across=110, down=40, colour=(32, 33, 36))


def search(client: httpx.Client, image: bytes, **options: object) -> dict:
    fields = {name: str(value) for name, value in options.items()}
    response = client.post("/v1/search", files={"image": image}, data=fields)
    assert response.status_code == 200, response.text
    return response.json()


def untimed(answer: dict) -> dict:
    return {name: member for name, member in answer.items() if name != "timings_ms"}


def first_id(answer: dict) -> str:
    return answer["results"][0]["id"]


@pytest.mark.parametrize("copy", [letterbox, viewer])
def test_copies_with_borders_are_found_in_the_second_answer(client: httpx.Client, copy):
    lost = 0
    for seed in range(10, 40):
        answer = search(client, encode(copy(seed), "JPEG"), k=3, trim=True)
        assert first_id(answer["trimmed"]) == f"p{seed}.jpg"
        lost += first_id(answer) != f"p{seed}.jpg"
    assert lost > 0, "the borders must hide something"


@pytest.mark.parametrize("copy", [letterbox, draw_picture])
def test_the_answer_beside_is_the_one_without_trim(client: httpx.Client, copy):
    image = encode(copy(4), "PNG")
    answer = search(client, image, k=4, trim=True)
    trimmed = answer.pop("trimmed")
    assert untimed(answer) == untimed(search(client, image, k=4))
    assert (trimmed["results"] is None) == (copy is draw_picture)


def test_a_picture_without_borders_has_its_whole_box_and_trim_radius_and_no_second_list(
    client: httpx.Client,
):
    picture = draw_picture(4)
    trimmed = search(client, encode(picture), trim=True)["trimmed"]
    assert trimmed == {
        "box": {"left": 0, "top": 0, "right": 160, "bottom": 120},
        "trim_radius": find_trim(np.asarray(picture)).radius,
        "results": None,
        "certificate": None,
    }
    # Sides below 16 are never trimmed: no change of pixels can bring a border about.
    tiny = search(client, encode(draw_picture(4, 15, 12)), trim=True)["trimmed"]
    assert tiny["trim_radius"] is None


def test_the_second_answer_is_the_crops_own_with_no_radius_above_the_trim_radius(
    client: httpx.Client,
):
    canvas = letterbox(9)
    trimmed = search(client, encode(canvas), k=5, trim=True)["trimmed"]
    box, limit = trimmed["box"], trimmed["trim_radius"]
    assert box == {"left": 0, "top": 60, "right": 160, "bottom": 180}
    assert limit == find_trim(np.asarray(canvas)).radius
    alone = search(client, encode(canvas.crop(tuple(box.values()))), k=5)
    for inside, own in zip(trimmed["results"], alone["results"], strict=True):
        assert inside["certified_radius"] == pytest.approx(min(limit, own["certified_radius"]))
        assert inside["certified_radius"] <= limit
        rms = 255 * inside["certified_radius"] / np.sqrt(3 * canvas.width * canvas.height)
        assert inside["certified_rms_8bit"] == pytest.approx(rms)
        assert inside["id"] == own["id"]
        for name in ("distance", "similarity", "margin"):
            assert inside[name] == pytest.approx(own[name])
    for name in RADII:
        wanted = min(limit, alone["certificate"][name])
        assert trimmed["certificate"][name] == pytest.approx(wanted)
    assert max(own["margin"] for own in alone["results"]) > 0.1, "the crop is sure of something"


def test_what_nothing_can_displace_stays_null(client: httpx.Client):
    answer = search(client, encode(letterbox(9)), k=500, trim=True)
    results = answer["trimmed"]["results"]
    assert len(results) == answer["index"]["size"]
    assert {result["certified_radius"] for result in results} == {None}
    assert answer["trimmed"]["certificate"]["set_radius"] is None
    assert answer["trimmed"]["certificate"]["top1_radius"] <= answer["trimmed"]["trim_radius"]


def test_trim_is_an_option_of_every_kind_of_body_and_of_search_alone(client: httpx.Client):
    image = encode(letterbox(9))
    asked = search(client, image, trim="true")["trimmed"]
    raw = client.post(
        "/search?trim=true", content=image, headers={"content-type": "image/png"}
    ).json()
    text = base64.b64encode(image).decode()
    members = client.post("/v1/search", json={"image_base64": text, "trim": True}).json()
    assert raw["trimmed"] == members["trimmed"] == asked
    assert "trimmed" not in search(client, image, trim="false")
    for path, files in (
        ("/v1/embed", {"image": image}),
        ("/v1/similarity", {"image_a": image, "image_b": image}),
    ):
        refused = client.post(path, files=files, data={"trim": "true"})
        assert refused.json()["code"] == "invalid_parameter"


def test_a_trimmed_answer_is_cached_apart_from_the_plain_one(client: httpx.Client):
    image = encode(letterbox(21))

    def ask(**options: object) -> tuple[dict, bool]:
        answer = search(client, image, k=3, **options)
        return untimed(answer), answer["timings_ms"]["decode"] == 0.0

    assert not ask()[1]
    trimmed, was_cached = ask(trim=True)
    assert not was_cached, "nobody has seen its borders yet"
    assert ask(trim=True) == (trimmed, True)
    del trimmed["trimmed"]
    assert ask() == (trimmed, True)


def aimed(picture: np.ndarray, radius: float, count: int) -> Iterator[bytes]:
    """8-bit PNGs at l2 below a radius, aimed at the weakest row and the weakest column."""
    rng = np.random.default_rng(0)
    every = sorted(decisions(picture, rng), key=lambda decision: decision.room)
    weakest = [next(d for d in every if d.axis == axis) for axis in (0, 1)]
    for changed in rounded(steps(picture, radius, weakest, count, rng), picture, radius):
        yield encode(Image.fromarray(changed.astype(np.uint8)))


def noisy(seed: int) -> np.ndarray:
    """A letterbox whose bars have seen a bad camera."""
    rng = np.random.default_rng(seed)
    canvas = np.asarray(letterbox(seed)).astype(float)
    bars = np.abs(np.arange(canvas.shape[0]) - 119.5) > 60
    canvas[bars] += 20 + rng.uniform(3, 6) * rng.standard_normal(canvas[bars].shape)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_no_change_of_pixels_at_0_999_of_the_radius_leaves_the_second_answer(
    client: httpx.Client, seed: int
):
    picture = noisy(seed) if seed % 2 else np.asarray(letterbox(seed))
    trimmed = search(client, encode(Image.fromarray(picture)), k=3, trim=True)["trimmed"]
    ids = [result["id"] for result in trimmed["results"]]
    radius = min(result["certified_radius"] for result in trimmed["results"])
    assert radius > 0.0
    changed = list(aimed(picture, 0.999 * radius, 24))
    assert len(changed) >= 12
    for image in changed:
        again = search(client, image, k=3, trim=True)["trimmed"]
        assert again["box"] == trimmed["box"]
        found = [result["id"] for result in again["results"]]
        assert set(found) == set(ids)
        assert found[0] == ids[0]


def test_beyond_the_trim_radius_one_noisy_line_undoes_the_trim(client: httpx.Client):
    """So the attack above would see a radius that is too large."""
    picture = noisy(1)
    trimmed = search(client, encode(Image.fromarray(picture)), trim=True)["trimmed"]
    moved = [
        search(client, image, trim=True)["trimmed"]["box"] != trimmed["box"]
        for image in aimed(picture, 1.1 * trimmed["trim_radius"], 12)
    ]
    assert any(moved)


def test_the_attacks_measure_the_box_as_the_service_does():
    for picture in (noisy(3), np.asarray(viewer(3))):
        assert find_trim(picture).box == tuple(boxes(picture[None].astype(float))[0])


@pytest.fixture(scope="module")
def near_equal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A gallery of 3,000 rows that a picture in a letterbox is near to, all of them equally."""
    directory, embedder = tmp_path_factory.mktemp("near"), Embedder.load()
    rows = near_equal_rows(3000, embedder.dim, embedder.embed(encode(draw_picture(0))).vector)
    seal_rows(directory, "default", embedder, rows)
    with open_client(Settings(data_dir=directory)) as opened:
        yield opened


@pytest.mark.parametrize("copy", [letterbox, draw_picture])
def test_a_search_that_must_look_at_everything_is_answered_twice_as_well(
    near_equal: httpx.Client, copy
):
    image = encode(copy(0))
    options = {"k": 40, "require_exact": True, "include_metadata": False}
    answer = search(near_equal, image, trim=True, **options)
    trimmed = answer.pop("trimmed")
    assert untimed(answer) == untimed(search(near_equal, image, **options))
    if copy is letterbox:
        crop = encode(copy(0).crop(tuple(trimmed["box"].values())))
        own = search(near_equal, crop, **options)["results"]
        assert [r["id"] for r in trimmed["results"]] == [r["id"] for r in own]


def test_a_file_that_ends_early_is_trimmed_as_it_was_drawn(data_dir: Path):
    whole = encode(letterbox(5), "JPEG")
    with open_client(Settings(data_dir=data_dir, truncated="accept")) as client:
        answer = search(client, whole[: len(whole) * 3 // 4], trim=True)
    assert answer["query"]["truncated"]
    # The rest is drawn gray, which is a border of one colour, too.
    assert 50 < answer["trimmed"]["box"]["top"] <= 60
    assert answer["trimmed"]["box"]["bottom"] <= 180


def test_the_pictures_are_what_they_say():
    with Image.open(io.BytesIO(encode(letterbox(0)))) as image:
        assert image.size == (160, 240)
