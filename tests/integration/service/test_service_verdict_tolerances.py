"""Edits within the tolerances of a verdict leave it as it is, by margin and by margin + cosine."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from service_helpers import draw_picture, encode, open_client
from test_service_tolerance import ask_tolerance
from test_service_verdicts import search
from test_service_weighted_verdicts import judged_index

from model.pixels.tolerances.measure import FAMILIES
from model.pixels.tolerances.pictures import PICTURE_FAMILIES
from model.pixels.tolerances.tables import TABLE_FAMILIES
from service.settings import Settings

pytestmark = pytest.mark.without_shape_checks

# A copy and a stranger, and the point whose threshold lies next to what each is judged by.
POINTS = {5: "strict", 400: "balanced"}
NEXT = 0.002


@pytest.fixture(scope="module", params=[0.0, 1.0], ids=["margin", "margin+cosine"])
def judging(
    request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    weight, folder = request.param, tmp_path_factory.mktemp("judged")
    with open_client(Settings(data_dir=judged_index(data_dir, folder / "a", weight))) as client:
        copy, stranger = (
            search(client, encode(draw_picture(seed)), operating_point="balanced")["results"][0]
            for seed in POINTS
        )
    thresholds = {
        "strict": copy["match_statistic"] - NEXT,
        "balanced": stranger["match_statistic"] + NEXT,
    }
    directory = judged_index(data_dir, folder / "b", weight, **thresholds)
    with open_client(Settings(data_dir=directory)) as opened:
        yield opened


def edited(picture: Image.Image, family: str, parameter: float) -> bytes:
    """A member of a family, by the formula that its page prints."""
    if family in TABLE_FAMILIES:
        return encode(picture.point([*TABLE_FAMILIES[family].table(parameter)] * 3))
    pixels = PICTURE_FAMILIES[family].edit(np.asarray(picture), int(parameter))
    return encode(Image.fromarray(pixels))


def verdict_on(client: httpx.Client, image: bytes, point: str, name: str) -> bool:
    """What an answer says of an entry: one that is not in it is no match."""
    answer = search(client, image, k=3, operating_point=point)
    return {result["id"]: result["match"] for result in answer["results"]}.get(name, False)


@pytest.mark.parametrize("chain", [0, 16])
@pytest.mark.parametrize("seed", POINTS)
def test_no_edit_within_a_range_turns_the_verdict(judging: httpx.Client, seed: int, chain: int):
    picture, point = draw_picture(seed), POINTS[seed]
    asked = ask_tolerance(
        judging, encode(picture), k=3, statement="verdict", operating_point=point, chain=chain
    )
    assert asked.status_code == 200, asked.text
    about, families = asked.json()["statement"], asked.json()["families"]
    assert about["match"] is (seed == 5)
    assert about["radius"] > 0.0
    tried = 0
    for family in FAMILIES:
        low, high = families[family]["from"], families[family]["to"]
        if low is None:
            continue
        for parameter in {*np.linspace(low, min(high, 20.0 * low), 6).tolist(), low, high}:
            tried += 1
            image = edited(picture, family, parameter)
            said = verdict_on(judging, image, point, about["id"])
            assert said is about["match"], (family, parameter)
    assert tried >= 12


@pytest.mark.parametrize("seed", POINTS)
def test_edits_that_leave_the_result_alone_may_turn_its_verdict(judging: httpx.Client, seed: int):
    """So what is held above could be otherwise: the ranges of `result` would not do."""
    picture, point = draw_picture(seed), POINTS[seed]
    found = ask_tolerance(judging, encode(picture), k=3, chain=32).json()
    name, families = found["statement"]["id"], found["families"]
    ends = [(n, families[n][end]) for n in TABLE_FAMILIES for end in ("from", "to")]
    verdicts = {verdict_on(judging, edited(picture, n, a), point, name) for n, a in ends}
    assert (seed != 5) in verdicts
