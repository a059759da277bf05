"""Several metrics attacked one after another: what can be refused is refused before the first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.attack.lpips import PREFIX, load_lpips
from model.attack.plan import Plan
from model.attack.questions import Questions
from model.attack.run import Refusal, Result, Run, Say, check_plan
from model.attack.subjects import subject_of, through_resize
from model.attack.toolbox import require_library
from model.errors import AttackError, EmbeddingError, MetricError, RetrievalError
from model.metrics.load import load_metric, named, renamed
from model.metrics.metric import Metric
from model.pixels.resize import resize_operator


@dataclass(frozen=True, eq=False)
class Candidate:
    """A metric, and the plans that were found to go with it."""

    metric: Metric
    plans: tuple[Plan, ...]


@dataclass(frozen=True, eq=False)
class Findings:
    """What came of the metrics so far.

    Attributes:
        results: one a plan and metric.
        refusals: metrics that could not be attacked, or not to the end.
    """

    results: list[Result] = field(default_factory=list[Result])
    refusals: list[Refusal] = field(default_factory=list[Refusal])


def candidate(
    spec: str,
    plans: Callable[[Metric], tuple[Plan, ...]],
    *,
    weights: Path | None,
    space: str,
    device: str,
) -> Candidate:
    """Loads a metric and holds its plans against it; no picture is read.

    Args:
        spec: names the metric, as on the command line: SPEC or NAME=SPEC.
        plans: what the metric is to be attacked with.
        weights: of a teacher, or of LPIPS's trunk.
        space: "input" or "upload".
        device: where it runs.

    Raises:
        AttackError: a plan cannot be carried out on this metric.
        MetricError: there is no such metric, or its weights cannot be used.
        DependencyError: its library, or that of an attack, is not installed.
        CheckpointError: the checkpoint file cannot be used.
    """
    name, spec = named(spec)
    load = load_lpips if spec.startswith(PREFIX) else load_metric
    metric = load(spec, weights=weights, device=device)
    metric = metric if name is None else renamed(metric, name)
    subject = subject_of(metric, device=device)
    if space == "upload":  # of any size: a metric without gradients is refused for all
        side = subject.height
        subject = through_resize(subject, resize_operator(side, side, side))
    chosen = plans(metric)
    for plan in chosen:
        check_plan(plan, subject)
        require_library(plan.attacks, plan.norm)
    return Candidate(metric, chosen)


def attack_each(
    candidates: Sequence[Candidate],
    ask: Callable[[Metric], Questions],
    *,
    seed: int,
    say: Say,
    keep: Callable[[Findings], None],
) -> Findings:
    """Attacks every metric; one that turns out to answer nothing rightly does not end the others.

    Args:
        candidates: what to attack.
        ask: gives the questions for a metric.
        seed: of questions and attacks.
        say: told what begins, and what is left out.
        keep: given all there is after each result: it is to be safe before the next hours begin.

    Raises:
        AttackError: two metrics have one name, or no metric could be attacked.
        DataError: the data cannot be read.
    """
    names = [one.metric.name for one in candidates]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise AttackError(f"two metrics are called {twice!r}; write OTHER=SPEC to rename one")
    found, errors = Findings(), dict[str, RetrievalError]()
    for one in candidates:
        try:
            questions = ask(one.metric)
            for plan in one.plans:
                blocks = questions.blocks(plan.queries, seed)
                found.results.append(Run(blocks, plan, seed=seed, say=say).carry_out())
                keep(found)
        except (AttackError, MetricError, EmbeddingError) as exc:
            errors.setdefault(str(exc), exc)
            found.refusals.append(Refusal(one.metric.name, str(exc)))
            if len(candidates) > 1:
                say(f"{one.metric.name} is left out: {exc}")
    if not found.results:
        raise next(iter(errors.values())) if len(errors) == 1 else AttackError("; ".join(errors))
    keep(found)
    return found
