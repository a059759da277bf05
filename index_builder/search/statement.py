"""What an answer says, as one statement that may hold for another query's answer too."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from index_builder.errors import ItemNotFoundError
from index_builder.search.certified import Answer
from index_builder.search.filtered import Searched

Kind = Literal["top1", "set", "result", "verdict"]


@dataclass(frozen=True)
class Statement:
    """One thing that answers of one index version to one question may say.

    Attributes:
        kind: "top1": this entry is the first; "set": the answer holds these entries and no others;
            "result": it holds this entry; "verdict": this entry is, or is not, a match.
        entries: the numbers of the entries it is about.
        match: the verdict; None for the other kinds.
    """

    kind: Kind
    entries: frozenset[int]
    match: bool | None = None

    def is_true_of(self, answer: Answer) -> bool:
        """Whether an answer says it, proved or not."""
        numbers, verdicts = _numbers(answer), answer.certificate.verdicts
        if self.kind == "set":
            return self.entries == frozenset(numbers)
        place = next((place for place, n in enumerate(numbers) if n in self.entries), None)
        if place is None or (self.kind == "top1" and place > 0):
            return False
        return verdicts is None or self.match in (None, bool(verdicts.matches[place]))

    def radius_in(self, answer: Answer) -> float:
        """The l2 change of uploaded pixels below which the statement stays true of an answer.

        0 where it is not true of it, or nothing is proved; inf where nothing can change it.
        """
        proof = answer.certificate
        if not self.is_true_of(answer):
            return 0.0
        if self.kind == "set":
            return proof.set_radius
        if self.kind == "top1":
            return 0.0 if proof.top1_radius is None else proof.top1_radius
        place = next(place for place, n in enumerate(_numbers(answer)) if n in self.entries)
        if self.kind == "result":
            return float(proof.certified_radii[place])
        return 0.0 if proof.verdicts is None else float(proof.verdicts.radii[place])


def state(answer: Answer, index: Searched, kind: Kind, item_id: str | None) -> Statement:
    """The statement of a kind that is true of an answer.

    Args:
        answer: of one query; with verdicts where the kind is "verdict".
        index: the version that answered.
        kind: see `Statement`.
        item_id: whom a "result" or a "verdict" is about; None: the first result.

    Raises:
        ItemNotFoundError: the answer does not hold such an entry.
    """
    numbers = _numbers(answer)
    if kind == "set":
        return Statement(kind, frozenset(numbers))
    place = 0
    if kind != "top1" and item_id is not None:
        entries = index.entries(numbers)
        held = (n for n, e in enumerate(entries) if item_id == e.id or item_id in e.duplicates)
        place = next(held, len(numbers))
    if place >= len(numbers):
        what = "a first result" if item_id is None else f"{item_id[:64]!r}"
        raise ItemNotFoundError(f"the answer does not hold {what}; it has {len(numbers)} results")
    verdicts = answer.certificate.verdicts
    match = bool(verdicts.matches[place]) if kind == "verdict" and verdicts is not None else None
    return Statement(kind, frozenset([numbers[place]]), match)


def _numbers(answer: Answer) -> list[int]:
    return np.asarray(answer.candidates.numbers[answer.certificate.positions]).tolist()
