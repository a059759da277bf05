"""What a run of one or more processes tells a person before its first step."""

import sys

from model.cli.progress import Progress
from model.data.pictures import PictureSet, check_pictures
from model.train.distributed import current


def telling() -> Progress:
    """The progress on standard error; of several processes, one talks."""
    return Progress(sys.stderr if current().leads else None)


def check_told(pictures: PictureSet, what: str, workers: int) -> None:
    """Decodes every picture of a set, and says that this is what takes so long.

    Args:
        pictures: the set.
        what: the pictures' part in the run, for people.
        workers: threads that decode; 0 is one.

    Raises:
        DataError: some cannot be decoded; the first of them are named.
    """
    with telling().counter(f"decoding {what} pictures to try them", len(pictures)) as advance:

        def passed(count: int) -> None:
            for _ in range(count):
                advance()

        check_pictures(pictures, workers=workers or 1, advance=passed)
