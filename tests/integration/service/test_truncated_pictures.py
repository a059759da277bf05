"""Files that end early, under both settings: built, searched, cached and replayed by one rule."""

import json
from pathlib import Path

import pytest
from service_helpers import draw_picture, encode, open_client, try_builder

from model.embedder import Embedder
from model.pixels.decode import DecodeLimits
from service.replay.replayer import Replayer
from service.settings import Settings

WHOLE = encode(draw_picture(700, 200, 160), "JPEG")
UNENDED, HALF = WHOLE[:-2], WHOLE[: len(WHOLE) * 2 // 3]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three pictures and one that lacks its end, built under `accept`."""
    root = tmp_path_factory.mktemp("truncated")
    (root / "gallery").mkdir()
    for number in range(3):
        (root / "gallery" / f"{number}.png").write_bytes(encode(draw_picture(710 + number)))
    (root / "gallery" / "cut.jpg").write_bytes(HALF)
    arguments = ("build", root / "gallery", "--json", "--data-dir")
    refused = try_builder(*arguments, root / "strict")
    assert refused.exit_code == 3
    assert [entry["path"] for entry in json.loads(refused.stdout)["quarantined"]] == ["cut.jpg"]
    done = try_builder(*arguments, root / "data", environment={"LIPSIM_TRUNCATED": "accept"})
    assert done.exit_code == 0, done.stdout
    return root / "data"


def test_by_default_a_file_without_its_end_is_422(built: Path):
    with open_client(Settings(data_dir=built)) as client:
        for image in (UNENDED, HALF):
            answer = client.post("/search", files={"image": image})
            assert answer.status_code == 422
            assert answer.json()["code"] == "undecodable_image"
        answer = client.post("/search", files={"image": WHOLE}).raise_for_status()
    assert answer.json()["query"]["truncated"] is False


def test_where_it_is_accepted_the_answer_says_so_and_the_gallery_went_through_the_same(
    built: Path,
):
    with open_client(Settings(data_dir=built, truncated="accept")) as client:
        for _ in range(2):  # a cache must not forget it
            answer = (
                client.post("/search", files={"image": HALF}, data={"k": "2"})
                .raise_for_status()
                .json()
            )
            assert answer["query"]["truncated"] is True
            assert answer["results"][0]["id"] == "cut.jpg"
            assert answer["results"][0]["distance"] < 1e-7
            assert answer["results"][0]["certified_radius"] > 0
        again = client.post("/search", files={"image": WHOLE}).raise_for_status().json()
        assert again["query"]["truncated"] is False
        pair = {"image_a": UNENDED, "image_b": WHOLE}
        judged = client.post("/similarity", files=pair).raise_for_status().json()
    assert (judged["image_a"]["truncated"], judged["image_b"]["truncated"]) == (True, False)
    assert judged["distance"] < 1e-7


def test_a_record_of_such_a_file_is_replayed_and_its_flag_cannot_be_falsified(built: Path):
    with open_client(Settings(data_dir=built, truncated="accept")) as client:
        form = {"include_audit": "true"}
        records = [
            client.post("/search", files={"image": image}, data=form).raise_for_status().json()
            for image in (HALF, WHOLE)
        ]
    replayer = Replayer(Embedder.load(), built, DecodeLimits())
    assert replayer.replay(records[0], HALF).differences == ()
    old = {name: value for name, value in records[1]["query"].items() if name != "truncated"}
    assert replayer.replay(records[1] | {"query": old}, WHOLE).differences == ()
    claimed = records[1] | {"query": records[1]["query"] | {"truncated": True}}
    assert replayer.replay(claimed, WHOLE).differences != ()
    replayer.close()
