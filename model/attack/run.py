"""One run: a plan carried out on one metric, and what came of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from model.attack.block import Block, Budget
from model.attack.campaign import attack_within, hunt, search_shortest
from model.attack.ledger import CounterExample, Ledger
from model.attack.library import check_attack
from model.attack.plan import MEDIAN, Plan
from model.attack.subjects import Subject
from model.errors import AttackError

Say = Callable[[str], None]

# From another start it ends within a hundredth of where it ended before.
_SHORTEST_RESTARTS = 2


@dataclass(frozen=True)
class Share:
    """What is left at one budget, as shares of all questions.

    Attributes:
        epsilon: the budget.
        is_median: whether it is the median certified radius.
        attacked_questions: how many still stood and were attacked at this budget.
        attacked: right, and turned by no perturbation within the budget that any attack found.
        certified: right, and proved to stay so; None without a certificate.
        reached: mean over the questions of the largest distance reached; None where the decision
            is not about a distance.
        reach_bound: mean of the largest distances proved possible; None where nothing is proved.
        seconds: spent on the library's attacks at this budget.
    """

    epsilon: float
    is_median: bool
    attacked_questions: int
    attacked: float
    certified: float | None
    reached: float | None
    reach_bound: float | None
    seconds: float


@dataclass(frozen=True)
class Answer:
    """What is known of one question; radii are l2.

    Attributes:
        id: of the question.
        is_right: whether the unchanged picture is decided rightly.
        certified_radius: None without a certificate.
        attack_radius: smallest norm found that turns the decision; None where none was found.
        found_by: the attack that found it, or None.
    """

    id: str
    is_right: bool
    certified_radius: float | None
    attack_radius: float | None
    found_by: str | None


@dataclass(frozen=True)
class Refusal:
    """A metric that could not be attacked, or not to the end of its plans.

    Attributes:
        metric: its name.
        reason: why.
    """

    metric: str
    reason: str


@dataclass(frozen=True, eq=False)
class Result:
    """What came of a plan on one metric.

    Attributes:
        metric: its name.
        plan: how hard it was attacked.
        lipschitz_bound: proved, of the metric; None without a certificate.
        natural: share of questions answered rightly without an attack.
        shares: at each budget, ascending.
        answers: one a question.
        counter_examples: decisions turned within their certified radius.
        seconds: of the whole run, without embedding the gallery.
        hard_seconds: of the second attack on the hardest questions.
    """

    metric: str
    plan: Plan
    lipschitz_bound: float | None
    natural: float
    shares: list[Share]
    answers: list[Answer]
    counter_examples: list[CounterExample]
    seconds: float
    hard_seconds: float

    @property
    def ratios(self) -> Float64[np.ndarray, " R"]:
        """Attack radius over certified radius where both are known and positive."""
        return np.array(
            [
                one.attack_radius / one.certified_radius
                for one in self.answers
                if one.attack_radius is not None and one.certified_radius
            ]
        )

    @property
    def median_certified_radius(self) -> float | None:
        """Of the questions answered rightly; None without a certificate."""
        radii = [
            one.certified_radius
            for one in self.answers
            if one.is_right and one.certified_radius is not None
        ]
        return float(np.median(radii)) if radii else None


def check_plan(plan: Plan, subject: Subject) -> None:
    """Refuse a plan that cannot be carried out on a metric, before anything is.

    Raises:
        AttackError: an attack, the norm or a search does not go with the metric.
    """
    for attack in plan.attacks:
        check_attack(attack, subject, plan.norm)
    if MEDIAN in plan.epsilons and plan.norm != "l2":
        raise AttackError("the median certified radius is a budget in l2 only")
    if plan.shortest_steps and subject.network is None:
        raise AttackError(f"{subject.name} has no gradients to search the shortest along")
    if plan.hard_queries and not subject.is_certified:
        raise AttackError(f"{subject.name} certifies nothing to find the hardest questions by")


class Run:
    """The questions of one metric under attack.

    Args:
        blocks: the questions.
        plan: how hard to attack.
        seed: of what attacks draw.
        say: told what begins.

    Raises:
        AttackError: the plan cannot be carried out on this metric, or no answer can be turned.
    """

    def __init__(self, blocks: Sequence[Block], plan: Plan, *, seed: int, say: Say) -> None:
        if not blocks or not any(block.ids for block in blocks):
            raise AttackError("there is no question to attack")
        for block in blocks:
            check_plan(plan, block.subject)
        self._subject, self._plan = blocks[0].subject, plan
        self._seed, self._say = seed, say
        self._ledgers = [Ledger(block) for block in blocks]
        self._check_something_to_attack()

    def carry_out(self) -> Result:
        """Attack, and hold what was found against what was proved."""
        start, plan = time.monotonic(), self._plan
        right = int(self._all("is_right").sum())
        self._say(f"{self._subject.name}: {right} of {self._count} questions answered rightly")
        if plan.shortest_steps:
            self._say(f"  the shortest perturbation, {plan.shortest_steps} steps")
            for ledger in self._ledgers:
                search_shortest(ledger, steps=plan.shortest_steps, restarts=1, seed=self._seed)
        spent: dict[float, tuple[int, float]] = {}
        for epsilon in self._epsilons():
            spent[epsilon] = self._attack_at(epsilon)
        hard_start = time.monotonic()
        if plan.hard_queries:
            self._attack_hardest()
        end = time.monotonic()
        return Result(
            metric=self._subject.name,
            plan=plan,
            lipschitz_bound=self._subject.lipschitz_bound,
            natural=float(self._all("is_right").mean()),
            shares=[self._share(epsilon, *spent[epsilon]) for epsilon in self._epsilons()],
            answers=[one for ledger in self._ledgers for one in _answers(ledger)],
            counter_examples=[one for each in self._ledgers for one in each.counter_examples],
            seconds=end - start,
            hard_seconds=end - hard_start,
        )

    def _check_something_to_attack(self) -> None:
        """Refuse to report that attacks found nothing where there was nothing to find."""
        can_turn, wanted = self._all("is_right"), "one question answered rightly"
        right = int(can_turn.sum())
        if self._subject.is_certified:
            wanted += ", with a positive and finite certified radius"
            radii = self._all("certified_radii")
            can_turn = can_turn & (radii > 0.0) & (radii < np.inf)
        if not can_turn.any():
            came = f"{right} of {self._count} were answered rightly"
            if right:
                came += ", none with such a radius"
            raise AttackError(
                f"nothing was attacked: {self._subject.name} needs at least {wanted}; {came}"
            )

    @property
    def _count(self) -> int:
        return sum(len(ledger.block.ids) for ledger in self._ledgers)

    def _all(self, name: str) -> np.ndarray:
        """One attribute of every ledger, end to end."""
        return np.concatenate([getattr(ledger, name) for ledger in self._ledgers])

    def _median(self) -> float | None:
        """Median certified radius of the questions answered rightly; None if not positive."""
        if not self._subject.is_certified or not self._all("is_right").any():
            return None
        median = float(np.median(self._all("certified_radii")[self._all("is_right")]))
        return median if 0.0 < median < np.inf else None

    def _epsilons(self) -> list[float]:
        """The plan's budgets in numbers, ascending; the median is left out where there is none."""
        budgets = {self._median() if one == MEDIAN else one for one in self._plan.epsilons}
        return sorted(float(one) for one in budgets if one is not None)

    def _attack_at(self, epsilon: float) -> tuple[int, float]:
        """Attack everything that stands at a budget; how many questions, and seconds."""
        plan, start, most = self._plan, time.monotonic(), 0
        budget = Budget(epsilon, plan.norm, plan.steps)
        for attack in plan.attacks:
            attacked = sum(
                attack_within(ledger, attack, budget, restarts=plan.restarts, seed=self._seed)
                for ledger in self._ledgers
            )
            most = max(most, attacked)
            standing = sum(int(one.standing(epsilon, plan.norm).sum()) for one in self._ledgers)
            self._say(
                f"  {attack} {plan.norm} {epsilon:.4g}: {attacked} attacked, {standing} stand, "
                f"{time.monotonic() - start:.0f} s"
            )
        return most, time.monotonic() - start

    def _attack_hardest(self) -> None:
        """Attack the questions with the smallest ratios again, with more steps and restarts.

        A budget below a certified radius lies inside the ball that the hunt looks through, so the
        grid's budgets are tried again from the certified radius on only.
        """
        plan, steps, restarts = self._plan, self._plan.hard_steps, self._plan.hard_restarts
        for ledger, rows in zip(self._ledgers, self._hardest(), strict=True):
            if not rows.size:
                continue
            self._say(f"  the hardest {rows.size} again, {steps} steps, {restarts} restarts")
            few = min(restarts, _SHORTEST_RESTARTS)
            search_shortest(ledger, steps=steps, restarts=few, seed=self._seed + 1, only=rows)
            self._say("    inside each certified radius")
            hunt(ledger, rows, steps=steps, restarts=restarts, seed=self._seed + 2)
            radii = ledger.certified_radii
            for epsilon in self._epsilons():
                beyond = rows if radii is None else rows[radii[rows] <= epsilon]
                self._say(f"    {plan.norm} {epsilon:.4g}: {beyond.size} certified for less")
                for attack in plan.attacks:
                    attack_within(
                        ledger,
                        attack,
                        Budget(epsilon, plan.norm, steps),
                        restarts=restarts,
                        seed=self._seed + 3,
                        only=beyond,
                    )

    def _hardest(self) -> list[np.ndarray]:
        """Rows of each ledger with the smallest ratios; those never turned come last."""
        ratios = np.concatenate([np.nan_to_num(one.ratios(), nan=np.inf) for one in self._ledgers])
        ratios[~(self._all("is_right") & (self._all("certified_radii") > 0.0))] = np.nan
        order = np.argsort(ratios, kind="stable")[: self._plan.hard_queries]
        chosen = np.zeros(len(ratios), dtype=np.bool_)
        chosen[order[~np.isnan(ratios[order])]] = True
        ends = np.cumsum([len(one.block.ids) for one in self._ledgers])
        return [np.flatnonzero(part) for part in np.split(chosen, ends[:-1])]

    def _share(self, epsilon: float, attacked_questions: int, seconds: float) -> Share:
        norm = self._plan.norm
        standing = np.concatenate([one.standing(epsilon, norm) for one in self._ledgers])
        certified = [_certified_within(one, epsilon, norm) for one in self._ledgers]
        reached = [one.reached.get(epsilon) for one in self._ledgers]
        bounds = [one.reach_bounds(epsilon) for one in self._ledgers]
        return Share(
            epsilon=epsilon,
            is_median=epsilon == self._median() and MEDIAN in self._plan.epsilons,
            attacked_questions=attacked_questions,
            attacked=float(standing.mean()),
            certified=_mean(certified),
            reached=_mean(reached),
            reach_bound=_mean(bounds) if norm == "l2" else None,
            seconds=seconds,
        )


def _certified_within(ledger: Ledger, epsilon: float, norm: str) -> Bool[np.ndarray, " Q"] | None:
    """Which decisions are proved within a budget; a linf ball lies in an l2 ball sqrt(n) larger."""
    if ledger.certified_radii is None:
        return None
    subject = ledger.block.subject
    widening = 1.0 if norm == "l2" else np.sqrt(3.0 * subject.height * subject.width)
    return ledger.is_right & (ledger.certified_radii > epsilon * widening)


def _mean(parts: Sequence[np.ndarray | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return float(np.concatenate(known).mean()) if len(known) == len(parts) else None


def _answers(ledger: Ledger) -> list[Answer]:
    radii = ledger.certified_radii
    return [
        Answer(
            id=name,
            is_right=bool(ledger.is_right[row]),
            certified_radius=None if radii is None else float(radii[row]),
            attack_radius=float(found) if np.isfinite(found) else None,
            found_by=ledger.found_by[row] or None,
        )
        for row, (name, found) in enumerate(
            zip(ledger.block.ids, ledger.attack_radii.tolist(), strict=True)
        )
    ]
