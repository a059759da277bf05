"""What every chaos test is given: galleries, questions, right answers, and a row of the table."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaos_load import Truths


@dataclass(frozen=True)
class World:
    """Two galleries and what an undisturbed service says of them.

    Attributes:
        galleries: folders of pictures, `a` and `b`; they share some, at other rows in each.
        data_dir: both as indexes of their names, and `a` as the default too; to be left as it is.
        queries: pictures to ask about.
        truths: by index, the right answers in the order of the queries.
    """

    galleries: dict[str, Path]
    data_dir: Path
    queries: list[bytes]
    truths: dict[str, Truths]


@dataclass
class Row:
    """One line of the table at the end: what was promised, and what came of it."""

    scenario: str
    promised: str
    happened: str = "the test did not get so far"


Claim = Callable[[str, str], Row]
"""The fixture `claim`: scenario and promise in, the row to be filled out."""
