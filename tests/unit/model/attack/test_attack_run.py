"""Plans, runs and reports: shares that nest, and numbers a reader can check."""

import json
from dataclasses import replace

import numpy as np
import pytest

from model.attack.block import Block
from model.attack.decisions import FirstPlace
from model.attack.plan import MEDIAN, Plan, fitting, grid
from model.attack.report import as_json, as_markdown, write_report
from model.attack.run import Result, Run
from model.attack.subjects import unit_rows
from model.errors import AttackError

PLAN = Plan(
    queries=6,
    epsilons=(0.05, 0.3, MEDIAN),
    attacks=("pgd", "apgd-margin"),
    steps=20,
    restarts=2,
    shortest_steps=40,
    hard_queries=2,
    hard_steps=20,
    hard_restarts=2,
)


def carried_out(block: Block, plan: Plan = PLAN) -> Result:
    return Run([block], plan, seed=0, say=lambda _: None).carry_out()


@pytest.fixture(scope="module")
def result(block: Block) -> Result:
    return carried_out(block)


def test_certified_is_at_most_attacked_is_at_most_natural(result: Result, true_radii: np.ndarray):
    assert result.natural == 1.0
    assert [one.epsilon for one in result.shares] == sorted([0.05, 0.3, np.median(true_radii)]) or (
        pytest.approx(np.median(true_radii), rel=1e-6)
        == next(one.epsilon for one in result.shares if one.is_median)
    )
    for share in result.shares:
        assert share.certified <= share.attacked <= result.natural
        # Here both are the truth, but for radii within rounding of the budget.
        truth = (true_radii > share.epsilon).mean()
        assert share.certified == pytest.approx(truth, abs=1 / 6)
    assert not result.counter_examples
    assert result.ratios == pytest.approx(1.0, abs=0.03)


def test_a_linf_budget_is_held_against_the_l2_proof(block: Block):
    plan = replace(PLAN, norm="linf", epsilons=(0.0005, 0.02), shortest_steps=0, hard_queries=0)
    result = carried_out(block, plan)
    # Radii are near 0.3, and the ball of 0.0005 reaches 0.0005 sqrt(768) = 0.014.
    small, large = result.shares
    assert (small.certified, small.attacked) == (1.0, 1.0)
    assert (large.certified, large.attacked) == (0.0, 0.0)


def test_an_unsound_metric_gives_counter_examples_and_files_to_look_at(block: Block, tmp_path):
    unsound = replace(block, subject=replace(block.subject, lipschitz_bound=0.5))
    result = carried_out(unsound)
    assert {one.id for one in result.counter_examples} == set(block.ids)
    write_report(tmp_path, [result], {"data": "drawn"})
    fields = json.loads((tmp_path / "attack.json").read_text())
    assert fields["counter_examples"] == len(result.counter_examples)
    assert "a certificate is wrong" in (tmp_path / "attack.md").read_text()
    files = sorted(tmp_path.glob("counter-example-*.npz"))
    assert len(files) == len(result.counter_examples)
    with np.load(files[0]) as saved:
        assert np.linalg.norm(saved["delta"]) < saved["certified_radius"]
        moved = block.subject.embed((saved["picture"] + saved["delta"])[None])
        row = int(np.abs(block.pictures - saved["picture"]).sum(axis=(1, 2, 3)).argmin())
        assert not block.decision.hold(moved, np.array([row])).any()
    assert not list(tmp_path.glob("*.part*"))


def test_the_report_says_counts_and_steps_beside_each_share(result: Result):
    setting = {"data": "drawn", "split": None}
    text = as_markdown([result], setting)
    row = next(line for line in text.splitlines() if "median radius" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["raw", "l2"]
    assert cells[6] == "6"
    assert "pgd: 20 x 2" in cells[8]
    assert cells[9] == "2: 20 x 2"
    assert "split" not in text
    assert "No counter-example" in text
    fields = as_json([result], setting)
    json.dumps(fields, allow_nan=False)
    assert len(fields["runs"][0]["answers"]) == 6


def test_a_metric_without_a_certificate_is_attacked_all_the_same(block: Block):
    bare = replace(block, subject=replace(block.subject, lipschitz_bound=None))
    plan = fitting(PLAN, is_certified=False, is_black_box=False)
    result = carried_out(bare, plan)
    # The median radius is nobody's.
    assert [one.epsilon for one in result.shares] == [0.05, 0.3]
    assert [one.certified for one in result.shares] == [None, None]
    assert result.ratios.size == 0
    assert result.median_certified_radius is None
    assert "No metric here claims a certificate" in as_markdown([result], {})
    json.dumps(as_json([result], {}), allow_nan=False)


def test_a_plan_that_cannot_be_carried_out_is_refused_before_it_begins(block: Block):
    black_box = replace(block, subject=replace(block.subject, network=None, lipschitz_bound=None))
    bare = replace(block, subject=replace(block.subject, lipschitz_bound=None))
    for blocks, plan, words in (
        ([], PLAN, "no question"),
        ([block], replace(PLAN, attacks=("cw",)), "'cw'"),
        ([block], replace(PLAN, norm="linf"), "in l2 only"),
        ([black_box], replace(PLAN, attacks=("pgd",)), "no gradients"),
        ([black_box], replace(PLAN, attacks=("square",), hard_queries=0), "no gradients"),
        ([bare], PLAN, "certifies nothing"),
    ):
        with pytest.raises(AttackError, match=words):
            Run(blocks, plan, seed=0, say=lambda _: None)


def test_the_presets_fit_the_metrics_they_are_for():
    (ours,) = grid("default", is_certified=True, is_black_box=False)
    assert (ours.queries, ours.steps, ours.restarts) == (200, 50, 2)
    assert ours.epsilons == (0.25, 0.5, 1.0, MEDIAN)
    assert (ours.hard_queries, ours.hard_steps, ours.hard_restarts) == (20, 200, 10)
    (teacher,) = grid("default", is_certified=False, is_black_box=False)
    assert (teacher.queries, teacher.steps, teacher.restarts) == (60, 50, 1)
    for is_certified, is_black_box in ((True, False), (False, False), (False, True)):
        for name in ("default", "full"):
            kinds = {"is_certified": is_certified, "is_black_box": is_black_box}
            for plan in grid(name, **kinds):
                assert plan == fitting(plan, is_certified, is_black_box)
                assert not is_black_box or plan.attacks == ("square",)


def test_answers_that_cannot_be_turned_are_nothing_to_attack(block: Block):
    gallery = np.repeat(unit_rows(block.vectors[:1]), 2, axis=0)
    # Equal rows rank by number for good: the second is never first, nor the first anything else.
    for entry, words in (
        (0, "1 of 1 were answered rightly, none with"),
        (1, "0 of 1 were answered rightly"),
    ):
        decision = FirstPlace(gallery[None], np.array([entry]), block.vectors[:1])
        one = replace(
            block, decision=decision, ids=["q"], pictures=block.pictures[:1],
            vectors=block.vectors[:1],
        )  # fmt: skip
        with pytest.raises(AttackError, match=f"nothing was attacked: raw .*; {words}"):
            Run([one], PLAN, seed=0, say=lambda _: None)
