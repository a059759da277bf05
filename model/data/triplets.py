"""Judged triplets: the one door to NIGHTS and BAPPS."""

from pathlib import Path

from model.data.bapps import BAPPS_SPLITS, BAPPS_SUBSETS, bapps_folder, read_bapps
from model.data.nights import NIGHTS_SPLITS, TABLE, read_nights
from model.data.triplet import Triplet, load_triplet_pixels
from model.errors import DataError

__all__ = [
    "BAPPS_SPLITS",
    "BAPPS_SUBSETS",
    "NIGHTS_SPLITS",
    "Triplet",
    "load_triplet_pixels",
    "read_bapps",
    "read_nights",
    "read_triplets",
]


def read_triplets(root: Path, split: str) -> list[Triplet]:
    """The triplets of one split, whichever of the two layouts the folder has.

    Args:
        root: a folder with data.csv (NIGHTS), or with bapps/2afc or train/ and val/ (BAPPS).
        split: one of that data set's.

    Raises:
        DataError: it is neither, or not what its layout wants.
    """
    if (root / TABLE).exists():
        return read_nights(root, split)
    try:
        bapps_folder(root)
    except DataError as exc:
        raise DataError(f"{root} holds neither {TABLE} (NIGHTS) nor bapps/2afc (BAPPS)") from exc
    return read_bapps(root, split)
