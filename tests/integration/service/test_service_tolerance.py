"""Tolerances over HTTP: every member within a range keeps the answer, here and in the library."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import httpx
import numpy as np
import pytest
from paths import ROOT
from PIL import Image
from service_helpers import draw_picture, encode, open_client, run_builder

import service.schemas.tolerance as schema
from index_builder.search.certified import Answer, certified_search
from index_builder.search.gallery import GalleryIndex
from index_builder.search.statement import Statement, state
from model.embedder import Embedder
from model.pixels.decode import DecodedImage, decode_image
from model.pixels.tolerances.measure import FAMILIES, How, Measurement, Tolerance
from model.pixels.tolerances.pictures import PICTURE_FAMILIES
from model.pixels.tolerances.tables import TABLE_FAMILIES
from service.keys.keys import Key, Scope, add_entry, digest_of
from service.settings import Settings

EXAMPLES = ROOT / "examples"
K = 3


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the photographs of the examples as its index."""
    directory = tmp_path_factory.mktemp("photos")
    run_builder("build", EXAMPLES / "gallery" / "photos", "--data-dir", directory)
    return directory


@pytest.fixture(scope="module")
def photo_client(photos: Path) -> Iterator[httpx.Client]:
    with open_client(Settings(data_dir=photos)) as opened:
        yield opened


def small_photo(name: str, side: int) -> bytes:
    """A photograph of the examples as a PNG of at most this side."""
    with Image.open(EXAMPLES / "gallery" / "photos" / f"{name}.jpg") as picture:
        small = picture.convert("RGB")
        small.thumbnail((side, side))
        return encode(small)


class Library:
    """The same questions without a service."""

    def __init__(self, data_dir: Path) -> None:
        self.embedder = Embedder.load()
        self.index = GalleryIndex.open(data_dir)

    def ask(self, pixels: np.ndarray) -> Answer:
        embedding = self.embedder.embed_image(DecodedImage(pixels, "PNG"))
        (answer,) = certified_search(
            self.index,
            [embedding],
            lipschitz_bound=self.embedder.lipschitz_bound,
            output_scales=self.embedder.output_scales,
            k=K,
        )
        return answer

    def measure(self, pixels: np.ndarray, chain: int) -> tuple[Statement, dict[str, Tolerance]]:
        answer = self.ask(pixels)
        statement = state(answer, self.index, "result", None)

        def radius_of(picture, table) -> float:
            return statement.radius_in(self.ask(picture if table is None else table[picture]))

        measurement = Measurement(
            pixels,
            statement.radius_in(answer),
            FAMILIES,
            chain=chain,
            radius_of=radius_of,
            cpu_s=60.0,
        )
        while not measurement.go_on(1.0):
            pass
        return statement, measurement.tolerances()


def members(pixels: np.ndarray, found: dict[str, Tolerance], count: int) -> Iterator[np.ndarray]:
    """So many of each family by tables, as Pillow's `point` makes them, and all of the others."""
    for name, family in TABLE_FAMILIES.items():
        low, high = found[name].low, min(found[name].high, 50.0)
        for a in np.linspace(low, high, count).tolist():
            yield np.asarray(Image.fromarray(pixels).point([*family.table(a)] * 3))
    for name, family in PICTURE_FAMILIES.items():
        low, mildest = found[name].low, family.mildest(pixels.shape[1])
        for a in range(mildest + 1 if low is None else low, mildest + 1):
            yield family.edit(pixels, a)


def ask_tolerance(client: httpx.Client, image: bytes, **options: object) -> httpx.Response:
    fields = {name: str(value) for name, value in options.items()}
    return client.post("/v1/tolerance", files={"image": image}, data=fields)


@pytest.mark.timeout(900)
@pytest.mark.without_shape_checks
@pytest.mark.parametrize(("name", "chain"), [("coffee", 0), ("chelsea", 32)])
def test_no_member_within_a_range_changes_the_statement(
    photos: Path, photo_client: httpx.Client, name: str, chain: int
):
    image = small_photo(name, 96)
    pixels = decode_image(image).pixels
    library = Library(photos)
    statement, found = library.measure(pixels, chain)
    answer = ask_tolerance(photo_client, image, k=K, chain=chain)
    assert answer.status_code == 200, answer.text
    over_http = answer.json()["families"]
    for family, tolerance in found.items():
        said = over_http[family]
        assert (said["from"], said["to"]) == (tolerance.low, tolerance.high), family
        assert (said["how"], said["passes"]) == (tolerance.how, tolerance.passes)
        assert said["complete"]
    assert answer.json()["passes"] <= chain
    wanted = answer.json()["statement"]["id"]
    checked = 0
    for picture in members(pixels, found, 50):
        assert statement.entries <= set(numbers(library.ask(picture)))
        if checked % 4 == 0:
            png = encode(Image.fromarray(picture))
            results = photo_client.post("/search", files={"image": png}, data={"k": str(K)}).json()
            assert wanted in [result["id"] for result in results["results"]]
        checked += 1
    assert checked > 200


def numbers(answer: Answer) -> list[int]:
    return answer.candidates.numbers[answer.certificate.positions].tolist()


def test_the_document_names_the_families_that_are_measured():
    assert (*get_args(schema.How),) == (*get_args(How),)
    assert schema.FAMILIES == FAMILIES


def test_a_chain_carries_every_family_as_far_or_farther(photo_client: httpx.Client):
    image = small_photo("coffee", 128)
    plain = ask_tolerance(photo_client, image).json()["families"]
    chained = ask_tolerance(photo_client, image, chain=32).json()["families"]
    for name in FAMILIES:
        assert chained[name]["from"] <= plain[name]["from"]
        assert chained[name]["to"] >= plain[name]["to"]
    assert chained["brightness"]["how"] == "chain"
    assert chained["brightness"]["to"] - 1 > 2 * (plain["brightness"]["to"] - 1)
    # Shared out: tables, which find their ends first, leave the others theirs.
    assert max(chained[name]["passes"] for name in FAMILIES) <= 7
    assert chained["resize"]["passes"] > 0
    assert chained["resize"]["from"] < plain["resize"]["from"]
    assert chained["noise"] == plain["noise"]


@pytest.mark.parametrize("statement", ["top1", "set", "result"])
def test_each_statement_has_the_radius_of_the_search(client: httpx.Client, statement: str):
    image = encode(draw_picture(3))
    found = ask_tolerance(client, image, k=2, statement=statement, families="noise").json()
    search = client.post("/search", files={"image": image}, data={"k": "2"}).json()
    radii = search["certificate"] | {"result_radius": search["results"][0]["certified_radius"]}
    assert found["statement"]["radius"] == radii[f"{statement}_radius"]
    noise = found["families"]["noise"]
    assert noise["to"] == pytest.approx(255 * noise["radius"] / (3 * 160 * 120) ** 0.5)
    assert found["statement"]["id"] == (None if statement == "set" else "p03.jpg")
    assert [*found["families"]] == ["noise"]


def test_any_result_can_be_meant_by_any_of_its_ids(client: httpx.Client):
    image = encode(draw_picture(7))
    for name in ("p07.jpg", "p07-again.jpg"):
        assert ask_tolerance(client, image, id=name, families="noise").status_code == 200
    last = client.post("/search", files={"image": image}).json()["results"][-1]
    found = ask_tolerance(client, image, id=last["id"], families="noise").json()
    assert found["statement"]["radius"] == last["certified_radius"]


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"statement": "verdict"}, 400, "invalid_parameter"),
        ({"statement": "set", "id": "p03.jpg"}, 400, "invalid_parameter"),
        ({"statement": "rank"}, 400, "invalid_parameter"),
        ({"families": "crop"}, 400, "invalid_parameter"),
        ({"families": "jpeg\n"}, 400, "invalid_parameter"),
        ({"chain": 33}, 400, "invalid_parameter"),
        ({"k": 501}, 400, "invalid_parameter"),
        ({"operating_point": "strict"}, 400, "unknown_operating_point"),
        ({"id": "p59.jpg", "k": 1}, 404, "item_not_found"),
        ({"max_distance": 0, "id": "p03.jpg"}, 404, "item_not_found"),
        ({"max_distance": 0, "statement": "top1"}, 404, "item_not_found"),
        ({"index": "none"}, 404, "index_not_found"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(
    client: httpx.Client, options: dict, status: int, code: str
):
    answer = ask_tolerance(client, encode(draw_picture(3, 80, 60)), **options)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_an_empty_answer_is_a_set_that_has_tolerances_too(client: httpx.Client):
    image = encode(draw_picture(2000))
    answer = ask_tolerance(client, image, max_distance=0.0001, statement="set")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["statement"]["radius"] > 0.0
    assert found["families"]["brightness"]["to"] > 1.0


def large_png(width: int, height: int) -> bytes:
    return encode(draw_picture(5, width, height))


def test_large_pictures_are_not_looked_at_one_by_one(photos: Path):
    with open_client(Settings(data_dir=photos)) as client:
        found = ask_tolerance(client, large_png(2400, 1700)).json()["families"]
    for name in PICTURE_FAMILIES:
        assert found[name]["reason"] == "too_large"
        assert (found[name]["from"], found[name]["complete"]) == (None, False)
    assert found["brightness"]["complete"]
    assert found["brightness"]["reason"] is None


@pytest.mark.timeout(600)
def test_fifty_megapixels_stay_within_the_time_allowed(photos: Path):
    buffer = io.BytesIO()
    draw_picture(5, 10_000, 5_000).save(buffer, "JPEG", quality=50)
    settings = Settings(
        data_dir=photos, tolerance_cpu_s=1.0, decode_timeout_s=300, request_timeout_s=600
    )
    with open_client(settings) as client:
        client.timeout = httpx.Timeout(500)
        found = ask_tolerance(client, buffer.getvalue(), chain=32).json()
    # A step is not interrupted: one look at the counts, one center.
    assert found["cpu_s"] < 1.0 + 3.0
    assert found["families"]["noise"]["complete"]


def test_a_measurement_out_of_time_says_so_and_what_it_has_is_proved(photos: Path):
    with open_client(Settings(data_dir=photos, tolerance_cpu_s=0.05)) as client:
        found = ask_tolerance(client, small_photo("coffee", 512), chain=32).json()["families"]
    assert not found["resize"]["complete"]
    assert found["resize"]["from"] <= 512


def test_a_measurement_counts_as_what_it_may_cost(data_dir: Path, tmp_path: Path):
    key = Key(name="alice", scope=Scope.READ, sha256=digest_of(b"alice"), rate_limit="60/hour")
    add_entry(tmp_path / "keys.json", key)
    image = encode(draw_picture(3, 80, 60))
    with open_client(Settings(data_dir=data_dir, keys_file=tmp_path / "keys.json")) as client:
        client.headers["X-API-Key"] = "alice"
        answer = ask_tolerance(client, image, chain=5)
        assert answer.headers["ratelimit-remaining"] == str(60 - 26)
        answer = ask_tolerance(client, image, families="brightness,noise")
        assert answer.headers["ratelimit-remaining"] == str(60 - 27)
        refused = ask_tolerance(client, image, chain=14)
        assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
        assert int(refused.headers["retry-after"]) > 3000
        # Of what did not fit nothing was counted but the request itself.
        answer = ask_tolerance(client, image, families="gamma")
        assert answer.headers["ratelimit-remaining"] == str(60 - 29)


def test_more_measurements_than_workers_are_told_to_come_back(photos: Path):
    image = small_photo("coffee", 256)
    with open_client(Settings(data_dir=photos, workers=1)) as client:
        with ThreadPoolExecutor(6) as threads:
            answers = [*threads.map(lambda _: ask_tolerance(client, image, chain=32), range(6))]
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 503}
        for answer in answers:
            if answer.status_code == 503:
                assert answer.json()["code"] == "overloaded"
                assert int(answer.headers["retry-after"]) >= 1
        assert client.post("/search", files={"image": image}).status_code == 200
