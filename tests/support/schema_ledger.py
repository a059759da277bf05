"""How many requests the test against the OpenAPI document made, and how they were answered."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Ledger:
    """What was asked and answered, counted."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    runs: set[str] = field(default_factory=set)

    @property
    def cases(self) -> int:
        """Requests that were answered."""
        return sum(self.answers.values())

    def sum_by(self, place: int, only: int | None = None) -> Counter[Any]:
        """Answers by route (0) or status (1), of one status only if it is given."""
        found: Counter[Any] = Counter()
        for answer, number in self.answers.items():
            if only in (None, answer[1]):
                found[answer[place]] += number
        return found

    def lines(self) -> list[str]:
        """The counts, for people."""

        def listed(counts: Counter[Any]) -> str:
            return ", ".join(f"{name}: {number}" for name, number in sorted(counts.items()))

        good = self.sum_by(0, only=200)
        return [
            f"cases: {self.cases}",
            f"statuses: {listed(self.sum_by(1))}",
            f"answered 200: {good.total()} ({listed(good)})",
        ]


LEDGER = pytest.StashKey[Ledger]()
