"""`python -m model.train synthetic-2afc`: judged triplets without people, in the layout of NIGHTS.

Two kinds, and which picture is closer is known from the making. *Severity*: the same distortion
twice, one time 1.6 to 2.6 times as strong. *Nested*: one picture is the other with a distortion of
another family on top. The set runs the real loader and the fine-tuning end to end, and shows when
something breaks; it says nothing about what people see.
"""

import csv
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from model.cli.console import Output
from model.cli.progress import Progress
from model.data.pictures import PictureSet, open_pictures, splits_of
from model.data.triplets import FEWEST_VOTES, TABLE
from model.errors import DataError
from model.train.corpus.packing import new_folder
from model.train.distortions import FAMILIES, distort

HEADER = (
    "id", "left_vote", "right_vote", "votes", "ref_path", "left_path", "right_path",
    "split", "is_imagenet", "prompt",
)  # fmt: skip
SIDE = 224
_SPLITS = ("train",) * 8 + ("val", "test")
# Streams of random numbers of one seed.
_ORDER, _SPLIT, _STRENGTH, _FIRST, _SECOND = range(5)

Square = UInt8[np.ndarray, "224 224 3"]


class Plan(NamedTuple):
    """What one triplet will be, before a picture is read."""

    number: int  # its place in the set
    picture: int  # the reference; all its triplets are in one split
    split: str
    is_nested: bool  # or severity
    family: str  # of the distortion that both pictures have
    added: str  # of the one that only the farther picture has, if nested
    right_is_closer: bool
    is_imagenet: bool  # which half of the test split; it has no meaning here
    votes: int  # 8 or 6, and 5 in every 23rd row, which loaders must leave out

    @property
    def group(self) -> str:
        """Kind and families, as Triplet.group gives them back."""
        return f"nested:{self.family}+{self.added}" if self.is_nested else f"severity:{self.family}"


def plan_triplets(pictures: int, triplets: int, seed: int) -> list[Plan]:
    """Plans of a whole set, balanced within each split over any 72 rows in a row.

    So many pictures are taken in turn, in an order of the seed's.
    """
    order = np.random.default_rng([seed, _ORDER]).permutation(pictures)
    counts = dict.fromkeys(_SPLITS, 0)
    plans: list[Plan] = []
    for number in range(triplets):
        place = number % pictures
        turn = np.random.default_rng([seed, _SPLIT, place // 10]).permutation(10)
        split = _SPLITS[int(turn[place % 10])]
        count = counts[split]
        counts[split] += 1
        # 2, 2, 2 and 9 have no common factor with each other's steps: each combination comes.
        family = count % len(FAMILIES)
        other = 1 + count // 72 % (len(FAMILIES) - 1)
        plans.append(
            Plan(
                number,
                picture=int(order[place]),
                split=split,
                is_nested=count % 2 == 1,
                family=FAMILIES[family],
                added=FAMILIES[(family + other) % len(FAMILIES)],
                right_is_closer=count // 4 % 2 == 1,
                is_imagenet=count // 2 % 2 == 1,
                votes=5 if number % 23 == 22 else (8, 6)[number % 2],
            )
        )
    return plans


def draw_triplet(pixels: UInt8[np.ndarray, "_H _W 3"], plan: Plan, seed: int) -> list[Square]:
    """Reference, left and right of a plan, made of its picture."""
    reference = square(pixels)
    strengths = np.random.default_rng([seed, _STRENGTH, plan.number])
    ratio = strengths.uniform(1.6, 2.6)
    severity = strengths.uniform(0.12, 1.0 / ratio)

    def first() -> np.random.Generator:
        # The same state each time: the same distortion, weaker or stronger.
        return np.random.default_rng([seed, _FIRST, plan.number])

    closer = distort(reference, plan.family, severity, first())
    if plan.is_nested:
        second = np.random.default_rng([seed, _SECOND, plan.number])
        farther = distort(closer, plan.added, strengths.uniform(0.2, 0.6), second)
    else:
        farther = distort(reference, plan.family, severity * ratio, first())
    return [reference, farther, closer] if plan.right_is_closer else [reference, closer, farther]


def square(pixels: UInt8[np.ndarray, "_H _W 3"]) -> Square:
    """The middle square of a picture at 224 x 224, bicubic."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.array(middle.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def write_synthetic_2afc(
    pictures: PictureSet, out: Path, triplets: int, seed: int, progress: Progress | None = None
) -> dict[str, Any]:
    """Write a set in the layout of NIGHTS; the same pictures and seed make the same bytes.

    Nothing is at `out` until all is written.

    Returns:
        Rows, rows with six votes or more, and rows of each split.
    """
    if len(pictures) < 10 or triplets < 10:
        raise DataError(
            f"10 pictures and 10 triplets were wanted, {len(pictures)} pictures ({pictures.name}) "
            f"and {triplets} triplets came"
        )
    plans = plan_triplets(len(pictures), triplets, seed)
    progress = progress or Progress()
    judged = 0
    with new_folder(out) as directory, (directory / TABLE).open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HEADER)
        for plan in progress.counting("drawing triplets", plans, len(plans)):
            drawn = draw_triplet(pictures[plan.picture].pixels(), plan, seed)
            name = f"{plan.number // 1000:03}/{plan.number % 1000:03}"
            paths = [f"ref/{name}.png", f"distort/{name}_0.png", f"distort/{name}_1.png"]
            for path, pixels in zip(paths, drawn, strict=True):
                (directory / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(directory / path, "PNG")
            # A plain picture may look the same both ways: too few votes keep such a row out.
            votes = min(plan.votes, 5) if np.array_equal(drawn[1], drawn[2]) else plan.votes
            judged += votes >= FEWEST_VOTES
            answer = (1 - int(plan.right_is_closer), int(plan.right_is_closer), votes)
            about = (plan.split, str(plan.is_imagenet), plan.group)
            table.writerow([plan.number, *answer, *paths, *about])
    return {
        "triplets": triplets,
        "judged": judged,
        "splits": {name: sum(p.split == name for p in plans) for name in dict.fromkeys(_SPLITS)},
    }


def make(
    pictures: Path, out: Path, triplets: int, seed: int, split: str | None, *, output: Output
) -> None:
    """What the command `synthetic-2afc` does."""
    # Triplets are trained on: those of a test split would be learnt without a word.
    if split is None and (splits := splits_of(pictures)):
        raise DataError(f"{pictures} has the splits {', '.join(splits)}: say which with --split")
    opened = open_pictures(pictures, split=split)
    counts = write_synthetic_2afc(opened, out, triplets, seed, Progress(sys.stderr))
    parts = ", ".join(f"{count} {name}" for name, count in counts["splits"].items())
    text = f"{counts['triplets']} triplets in {out}: {parts}; {counts['judged']} judged enough"
    output.show({"out": str(out), **counts}, text)
