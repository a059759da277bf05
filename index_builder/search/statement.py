"""What an answer says, as one statement that may hold for another query's answer too."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from index_builder.errors import ItemNotFoundError
from index_builder.search.certified import Answer
from index_builder.search.gallery import GalleryIndex

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

    def radius_in(self, answer: Answer) -> float:
        """The l2 change of uploaded pixels below which the statement stays true of an answer.

        0 where it is not true of it, or nothing is proved; inf where nothing can change it.
        """
        proof = answer.certificate
        numbers = _numbers(answer)
        if self.kind == "set":
            return proof.set_radius if self.entries == frozenset(numbers) else 0.0
        place = next((place for place, n in enumerate(numbers) if n in self.entries), None)
        if place is None:
            return 0.0
        if self.kind == "top1":
            return proof.top1_radius if place == 0 and proof.top1_radius is not None else 0.0
        if self.kind == "result":
            return float(proof.certified_radii[place])
        verdicts = proof.verdicts
        if verdicts is None or bool(verdicts.matches[place]) != self.match:
            return 0.0
        return float(verdicts.radii[place])


def state(answer: Answer, index: GalleryIndex, kind: Kind, item_id: str | None) -> Statement:
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
