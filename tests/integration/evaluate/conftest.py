"""A corpus and judged triplets, for every test of `python -m model.evaluate`."""

import csv

import numpy as np
import pytest
from evaluate_tools import PICTURES, picture
from image_files import encoded
from listed_pictures import ListWriter


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    for split, count in (("test", PICTURES), ("train", 3)):
        with ListWriter(root, split) as writer:
            for number in range(count):
                fields = {
                    "source": "stamps" if number % 4 else "openclipart",
                    "kind": "clipart" if number % 4 else "photo",
                    "label": f"label{number % 2}",
                    "sha256": f"{number:064x}",
                }
                data = encoded(picture(number + 1000 * (split == "train")), "PNG")
                writer.add(f"{number:03}", data, "png", fields)
    return root


@pytest.fixture(scope="session")
def nights(tmp_path_factory):
    """Six judged triplets in the layout of NIGHTS: left is the reference with a little noise."""
    root = tmp_path_factory.mktemp("nights")
    rows = []
    for number in range(6):
        pixels = picture(number)
        noise = np.random.default_rng(number).integers(0, 9, pixels.shape)
        sides = {
            "ref": pixels,
            "left": np.clip(pixels.astype(int) + noise, 0, 255).astype(np.uint8),
            "right": picture(number + 50),
        }
        paths = []
        for side, image in sides.items():
            path = f"{side}/000/{number:03}.png"
            (root / side / "000").mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(encoded(image, "PNG"))
            paths.append(path)
        prompt = "severity:noise" if number % 2 else "nested:noise+blur"
        rows.append([number, 1, 0, 8, *paths, "test", str(number < 2), prompt])
    with (root / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["id", "left_vote", "right_vote", "votes", "ref_path", "left_path", "right_path",
             "split", "is_imagenet", "prompt"]
        )  # fmt: skip
        writer.writerows(rows)
    return root
