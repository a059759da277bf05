"""What docs/several.md says of the answers of two indexes: what may be merged, and what not."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from PIL import Image
from service_helpers import draw_picture, encode, open_client, run_builder

from service.settings import Settings

INDEXES = {"ours": range(8), "theirs": range(8, 16)}
A, B = (np.asarray(draw_picture(seed), dtype=np.float64) for seed in (0, 8))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    directory = tmp_path_factory.mktemp("both")
    for name, seeds in INDEXES.items():
        folder = directory / "pictures" / name
        folder.mkdir(parents=True)
        for seed in seeds:
            draw_picture(seed).save(folder / f"p{seed:02}.png")
        run_builder("build", folder, "--data-dir", directory / "data", "--index", name)
    with open_client(Settings(data_dir=directory / "data")) as opened:
        yield opened


def rounded(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def blend(share: float) -> np.ndarray:
    """So much of a picture of theirs, the rest one of ours."""
    return rounded((1.0 - share) * A + share * B)


def length(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one.astype(np.float64) - other) / 255)


def ask(client: httpx.Client, pixels: np.ndarray, k: int) -> list[dict]:
    files = {"image": encode(Image.fromarray(pixels))}
    return [
        client.post("/v1/search", files=files, data={"k": str(k), "index": name}).json()
        for name in INDEXES
    ]


def is_ours_nearer(answers: list[dict]) -> bool:
    first, second = (answer["results"][0]["distance"] for answer in answers)
    return first <= second


def test_the_nearest_of_both_may_change_below_both_radii(both: httpx.Client):
    low, high = 0.0, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        ours = is_ours_nearer(ask(both, blend(middle), 1))
        low, high = (middle, high) if ours else (low, middle)
    before, after = ask(both, blend(low), 1), ask(both, blend(high), 1)
    radii = [answer["results"][0]["certified_radius"] for answer in before]
    assert is_ours_nearer(before)
    assert not is_ours_nearer(after)
    assert length(blend(low), blend(high)) < min(radii)
    # In the answer of its own index each is first as before.
    firsts = [[one["results"][0]["id"] for one in answers] for answers in (before, after)]
    assert firsts[0] == firsts[1] == ["p00.png", "p08.png"]


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6])
def test_what_may_be_said_of_both_answers_holds_below_its_radius(both: httpx.Client, share: float):
    pixels, rng = blend(share), np.random.default_rng(3)
    before = ask(both, pixels, 3)
    sets = [{one["id"] for one in answer["results"]} for answer in before]
    found = [(place, one) for place, answer in enumerate(before) for one in answer["results"]]
    smallest = {
        name: min(answer["certificate"][name] for answer in before)
        for name in ("set_radius", "top1_radius")
    }
    tried = {"entry": 0, "set_radius": 0, "top1_radius": 0}
    bounds = [*smallest.values(), *(one["certified_radius"] for _, one in found)]
    for bound in bounds:
        # Of few values: a short change of all of them would be rounded to none, or a longer one.
        few = rng.random(A.shape) < 0.02
        for step in (A - pixels, (B - pixels) * few, rng.standard_normal(A.shape) * few):
            moved = rounded(pixels + step * 0.97 * bound * 255 / np.linalg.norm(step))
            change, after = length(moved, pixels), ask(both, moved, 3)
            now = [[one["id"] for one in answer["results"]] for answer in after]
            for place, one in found:
                if change < one["certified_radius"]:
                    tried["entry"] += 1
                    assert one["id"] in now[place]
            if change < smallest["set_radius"]:
                tried["set_radius"] += 1
                assert [set(ids) for ids in now] == sets
            if change < smallest["top1_radius"]:
                tried["top1_radius"] += 1
                nearest = now[0 if is_ours_nearer(after) else 1][0]
                assert nearest in {answer["results"][0]["id"] for answer in before}
    assert all(tried.values()), tried
