"""Plans, runs and reports: shares that nest, and numbers a reader can check."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.attack.decisions import Top1
from model.attack.plan import MEDIAN, Plan, for_metric
from model.attack.questions import Block
from model.attack.run import attack_metric
from model.attack.summary import as_markdown, write_report
from model.errors import AttackError
from model.metrics.metric import unit_rows

PLAN = Plan(
    data=Path("drawn"),
    out=Path("nowhere"),
    queries=6,
    epsilons=[0.05, 0.3, MEDIAN],
    attacks=["pgd", "apgd-margin"],
    steps=20,
    restarts=2,
    shortest_steps=40,
    hard_queries=2,
    hard_steps=20,
    hard_restarts=2,
)


def attacked(block: Block, plan: Plan = PLAN) -> dict[str, Any]:
    return attack_metric([block], plan, lambda _: None)[0]


def report_of(*runs: dict[str, Any], plan: Plan = PLAN) -> dict[str, Any]:
    count = sum(len(one["counter_examples"]) for one in runs)
    return {
        "setting": plan.setting(), "counter_examples": count, "runs": list(runs),
        "not_attacked": [],
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(block: Block) -> dict[str, Any]:
    return attacked(block)


def test_certified_is_at_most_attacked_is_at_most_natural(
    run: dict[str, Any], true_radii: np.ndarray
):
    assert run["natural"] == 1.0
    median = next(one["epsilon"] for one in run["shares"] if one["is_median"])
    assert median == pytest.approx(np.median(true_radii), rel=1e-6)
    assert [one["epsilon"] for one in run["shares"]] == sorted([0.05, 0.3, median])
    for share in run["shares"]:
        assert share["certified"] <= share["attacked"] <= run["natural"]
        # Here both are the truth, but for radii within rounding of the budget.
        truth = (true_radii > share["epsilon"]).mean()
        assert share["certified"] == pytest.approx(truth, abs=1 / 6)
    assert not run["counter_examples"]
    assert run["ratio_questions"] == 6
    assert (run["ratio_smallest"], run["ratio_median"]) == pytest.approx((1.0, 1.0), abs=0.03)


def test_a_linf_budget_is_held_against_the_l2_proof(block: Block):
    plan = replace(PLAN, norm="linf", epsilons=[0.0005, 0.02], shortest_steps=0, hard_queries=0)
    # Radii are near 0.3, and the ball of 0.0005 reaches 0.0005 sqrt(768) = 0.014.
    small, large = attacked(block, plan)["shares"]
    assert (small["certified"], small["attacked"]) == (1.0, 1.0)
    assert (large["certified"], large["attacked"]) == (0.0, 0.0)


def test_hard_questions_are_tried_again_wherever_a_linf_budget_is_not_certified(block: Block):
    said: list[str] = []
    plan = replace(
        PLAN, norm="linf", epsilons=[0.02], attacks=["pgd"], steps=1, restarts=1,
        shortest_steps=0, hard_steps=1, hard_restarts=1,
    )  # fmt: skip
    attack_metric([block], plan, said.append)
    # l2 radii are near 0.3: larger than 0.02, and smaller than 0.02 sqrt(768).
    assert "    linf 0.02: 2 certified for less" in said


def test_an_unsound_metric_gives_counter_examples_and_files_to_look_at(block: Block, tmp_path):
    unsound = replace(block, metric=replace(block.metric, lipschitz_bound=0.5))
    run, found = attack_metric([unsound], PLAN, lambda _: None)
    assert {one["id"] for one in run["counter_examples"]} == set(block.ids)
    write_report(tmp_path, report_of(run), run["metric"], found)
    fields = json.loads((tmp_path / "attack.json").read_text())
    assert fields["counter_examples"] == len(found)
    assert "a certificate is wrong" in (tmp_path / "attack.md").read_text()
    files = sorted(tmp_path.glob("counter-example-*.npz"))
    assert len(files) == len(found)
    with np.load(files[0]) as saved:
        assert np.linalg.norm(saved["delta"]) < saved["certified_radius"]
        moved = block.metric.embed((saved["picture"] + saved["delta"])[None])
        row = int(np.abs(block.pictures - saved["picture"]).sum(axis=(1, 2, 3)).argmin())
        assert not block.decision.holds(moved, np.array([row])).any()
    assert len(list(tmp_path.iterdir())) == len(files) + 2


def test_the_report_says_counts_and_steps_beside_each_share(run: dict[str, Any]):
    report = report_of(run)
    text = as_markdown(report)
    row = next(line for line in text.splitlines() if "median radius" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["raw", "l2"]
    assert cells[6] == "6"
    assert "pgd: 20 x 2" in cells[8]
    assert cells[9] == "2: 20 x 2"
    assert "split" not in text
    assert "No counter-example" in text
    json.dumps(report, allow_nan=False)
    assert len(run["answers"]) == 6


def test_a_metric_without_a_certificate_is_attacked_all_the_same(block: Block):
    bare = replace(block, metric=replace(block.metric, lipschitz_bound=None))
    (plan,) = for_metric(PLAN, is_certified=False, is_black_box=False)
    run = attacked(bare, plan)
    # The median radius is nobody's.
    assert [one["epsilon"] for one in run["shares"]] == [0.05, 0.3]
    assert [one["certified"] for one in run["shares"]] == [None, None]
    assert (run["ratio_questions"], run["median_certified_radius"]) == (0, None)
    report = report_of(run)
    assert "No metric here claims a certificate" in as_markdown(report)
    json.dumps(report, allow_nan=False)


def test_a_plan_that_cannot_be_carried_out_is_refused_before_it_begins(block: Block):
    black_box = replace(block, metric=replace(block.metric, network=None, lipschitz_bound=None))
    bare = replace(block, metric=replace(block.metric, lipschitz_bound=None))
    for blocks, plan, words in (
        ([], PLAN, "no question"),
        ([block], replace(PLAN, norm="linf"), "in l2 only"),
        ([black_box], replace(PLAN, attacks=["pgd"]), "no gradients"),
        ([black_box], replace(PLAN, attacks=["square"], hard_queries=0), "no gradients"),
        ([bare], PLAN, "certifies nothing"),
    ):
        with pytest.raises(AttackError, match=words):
            attack_metric(blocks, plan, lambda _: None)


def test_the_presets_fit_the_metrics_they_are_for():
    asked = Plan(data=Path("drawn"), out=Path("nowhere"), grid="default")
    (ours,) = for_metric(asked, is_certified=True, is_black_box=False)
    assert (ours.queries, ours.steps, ours.restarts) == (200, 50, 2)
    assert ours.epsilons == [0.25, 0.5, 1.0, MEDIAN]
    assert (ours.hard_queries, ours.hard_steps, ours.hard_restarts) == (20, 200, 10)
    (teacher,) = for_metric(asked, is_certified=False, is_black_box=False)
    assert (teacher.queries, teacher.steps, teacher.restarts) == (60, 50, 1)
    for is_certified, is_black_box in ((True, False), (False, False), (False, True)):
        for grid in ("default", "full"):
            kinds = {"is_certified": is_certified, "is_black_box": is_black_box}
            for plan in for_metric(replace(asked, grid=grid), **kinds):
                assert is_certified or not plan.hard_queries
                assert not is_black_box or (plan.attacks, plan.shortest_steps) == (["square"], 0)
    (few,) = for_metric(replace(asked, queries=3), is_certified=True, is_black_box=False)
    assert few == replace(ours, queries=3)


def test_answers_that_cannot_be_flipped_are_nothing_to_attack(block: Block):
    gallery = np.repeat(unit_rows(block.vectors[:1]), 2, axis=0)
    # Equal rows rank by number for good: the second is never first, nor the first anything else.
    for entry, words in (
        (0, "1 of 1 were answered rightly, none with"),
        (1, "0 of 1 were answered rightly"),
    ):
        decision = Top1(gallery[None], np.array([entry]), block.vectors[:1])
        one = replace(
            block, decision=decision, ids=["q"], pictures=block.pictures[:1],
            vectors=block.vectors[:1],
        )  # fmt: skip
        with pytest.raises(AttackError, match=f"nothing was attacked: raw .*; {words}"):
            attacked(one)
