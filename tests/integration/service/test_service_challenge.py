"""The challenge: inside the radius nothing moves, far outside mostly all; l2 is measured."""

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from paths import ROOT
from PIL import Image
from service_helpers import draw_picture, encode, open_client, run_builder

from service.keys.keys import Key, Scope, add_entry, digest_of
from service.settings import Settings

PHOTOS = ROOT / "examples" / "gallery" / "photos"


@pytest.fixture(scope="module")
def attacked_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    directory = tmp_path_factory.mktemp("attacked")
    run_builder("build", PHOTOS, "--data-dir", directory)
    with open_client(Settings(data_dir=directory, challenge=True)) as opened:
        yield opened


def photo(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((128, 128))
    return small


def challenge(client: httpx.Client, image: bytes, **options: object) -> httpx.Response:
    fields = {name: str(value) for name, value in options.items()}
    return client.post("/v1/challenge", files={"image": image}, data=fields)


def search(client: httpx.Client, image: bytes) -> dict:
    return client.post("/search", files={"image": image}, data={"k": "1"}).json()


@pytest.mark.timeout(900)
def test_inside_the_radius_nothing_moves_and_far_outside_it_mostly_does(
    attacked_client: httpx.Client,
):
    moved = 0
    paths = sorted(PHOTOS.iterdir())[:12]
    for path in paths:
        picture = photo(path)
        image = encode(picture)
        before = search(attacked_client, image)["results"][0]
        for factor in (0.999, 3.0):
            budget = factor * before["certified_radius"]
            answer = challenge(attacked_client, image, k=1, budget=budget, steps=10).json()
            png = base64.b64decode(answer["image_base64"])
            with Image.open(io.BytesIO(png)) as attacked:
                pixels = np.asarray(attacked).astype(np.float64)
            distance = float(np.linalg.norm(pixels - np.asarray(picture)) / 255)
            assert answer["l2"] == pytest.approx(distance, rel=1e-12)
            assert answer["l2"] <= budget
            assert answer["statement"]["radius"] == before["certified_radius"]
            after = search(attacked_client, png)["results"][0]["id"]
            assert answer["changed"] == (after != before["id"])
            if factor < 1.0:
                assert not answer["changed"], path.name
                assert answer["l2"] > 0.9 * budget, "the attack must use its budget"
                assert answer["steps"] == 10
            else:
                moved += answer["changed"]
    assert moved > len(paths) / 2, moved


def test_any_result_can_be_challenged_and_an_empty_place_cannot(attacked_client: httpx.Client):
    image = encode(photo(sorted(PHOTOS.iterdir())[0]))
    options = {"budget": 2.0, "steps": 2, "k": 3}
    results = attacked_client.post("/search", files={"image": image}, data={"k": "3"}).json()
    third = results["results"][2]["id"]
    assert challenge(attacked_client, image, id=third, **options).json()["statement"]["id"] == third
    absent = challenge(attacked_client, image, id="nobody", **options)
    assert (absent.status_code, absent.json()["code"]) == (404, "item_not_found")
    # Nothing can be displaced: every step is made, and the entry stays.
    whole = challenge(attacked_client, image, k=16, budget=2.0, steps=2).json()
    assert (whole["changed"], whole["statement"]["radius"]) == (False, None)


@pytest.mark.parametrize(
    ("options", "size", "status", "code"),
    [
        ({"steps": 41}, 80, 400, "invalid_parameter"),
        ({"budget": 0}, 80, 400, "invalid_parameter"),
        ({"budget": "1e999"}, 80, 400, "invalid_parameter"),
        ({"chain": 1}, 80, 400, "invalid_parameter"),
        ({}, 1100, 422, "image_dimensions"),
    ],
)
def test_what_is_not_offered_is_refused(
    attacked_client: httpx.Client, options: dict, size: int, status: int, code: str
):
    answer = challenge(attacked_client, encode(draw_picture(1, size, size)), **options)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_it_is_off_unless_it_was_turned_on(client: httpx.Client):
    answer = challenge(client, encode(draw_picture(1)))
    assert (answer.status_code, answer.json()["code"]) == (403, "challenge_disabled")
    assert not client.get("/v1/info").json()["limits"]["challenge"]


def test_it_needs_an_admin_and_counts_three_requests_a_step(data_dir: Path, tmp_path: Path):
    for name, scope in (("reader", Scope.READ), ("admin", Scope.ADMIN)):
        key = Key(name=name, scope=scope, sha256=digest_of(name.encode()), rate_limit="60/hour")
        add_entry(tmp_path / "keys.json", key)
    image = encode(draw_picture(3, 80, 60))
    settings = Settings(data_dir=data_dir, keys_file=tmp_path / "keys.json", challenge=True)
    with open_client(settings) as client:
        client.headers["X-API-Key"] = "reader"
        assert challenge(client, image).json()["code"] == "forbidden"
        client.headers["X-API-Key"] = "admin"
        answer = challenge(client, image, steps=3)
        assert answer.status_code == 200, answer.text
        assert answer.headers["ratelimit-remaining"] == str(60 - 9)
        assert challenge(client, image, steps=18).status_code == 429


def test_one_attack_is_in_work_at_a_time(attacked_client: httpx.Client):
    image = encode(draw_picture(3, 900, 900))
    with ThreadPoolExecutor(4) as threads:
        asked = [
            threads.submit(challenge, attacked_client, image, budget=0.001, steps=6)
            for _ in range(4)
        ]
        answers = [one.result() for one in asked]
    assert sorted(answer.status_code for answer in answers) == [200, 503, 503, 503]
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["code"] == "overloaded"
            assert int(answer.headers["retry-after"]) >= 1
