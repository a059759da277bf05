import numpy as np
import pytest

from model.evaluate.copies import (
    RATES,
    TURNS,
    WEIGHTS,
    half_of,
    measure_copies,
    threshold_for,
    thresholds_for,
    turn_of,
)
from model.evaluate.embedding import Embedded, EmbeddedSet, Facts
from model.evaluate.rows import chosen
from model.metrics.metric import unit_rows


def embedded_set(pictures, queries, originals, *, edits=None, digests=None):
    digests = digests or [f"{number:064x}" for number in range(len(pictures))]
    facts = [Facts(digest, digest) for digest in digests]
    edits = edits or ["jpeg"] * len(originals)
    rows = pictures.reshape(-1, queries.shape[1])
    views = len(rows) // len(pictures)
    return EmbeddedSet(facts, np.array(originals), edits, {"m": Embedded(rows, queries)}, views)


def find(rows, figure, by="all", **fields):
    (row,) = chosen(rows, task="copies", metric="m", figure=figure, by=by, **fields)
    return row


def plain_loop(pictures, queries, originals, turns):
    """Each turn from a gallery without its pictures: first result, and its statistics."""
    cases = []
    for turn in range(TURNS):
        kept = np.flatnonzero(turns != turn)
        rows = np.stack([unit_rows(of_one) for of_one in pictures[kept]]).astype(np.float64)
        for query, original in zip(queries, originals, strict=True):
            scores, norm = rows @ query, np.linalg.norm(query)
            best = np.round(scores.max(axis=1), 12)
            first = int(np.argmax(best))

            others = np.delete(rows, first, axis=0).reshape(-1, rows.shape[2])
            steps = rows[first][:, None] - others
            apart = np.linalg.norm(steps, axis=2)
            leads = np.where(apart > 0.0, steps @ query / np.where(apart > 0.0, apart, 1.0), 0.0)
            cosines = rows[first] @ query
            sums = [
                float((leads + weight * cosines[:, None]).max(axis=0).min()) / norm
                for weight in WEIGHTS.values()
            ]
            sums[0] = max(0.0, sums[0])
            cases.append((turns[original] == turn, kept[first] == original, *sums,
                          scores[first].max() / norm))  # fmt: skip
    return cases


@pytest.mark.parametrize("views", [1, 3])
def test_every_number_is_that_of_a_plain_loop_over_turns(rng, views):
    pictures = rng.normal(size=(60, views, 5))
    pictures[7], pictures[8] = pictures[50], pictures[51]
    originals = np.repeat(np.arange(60), 2)
    queries = 3.0 * (pictures[originals, -1] + 0.4 * rng.normal(size=(120, 5)))
    embedded = embedded_set(pictures, queries, originals)
    turns = turn_of(embedded.origins)
    cases = plain_loop(pictures, queries, originals, turns)
    rows = measure_copies("m", embedded)
    for place, statistic in enumerate([*WEIGHTS, "cosine"], start=2):
        for rate in RATES:
            fields = {"statistic": statistic, "rate": rate}
            negatives = sorted((case[place] for case in cases if case[0]), reverse=True)
            assert len(negatives) == 120
            threshold = negatives[int(rate * 120)]
            positives = [case for case in cases if not case[0]]
            right = [case[1] and case[place] > threshold for case in positives]
            wrong = [not case[1] and case[place] > threshold for case in positives]
            assert find(rows, "threshold", **fields)["value"] == pytest.approx(threshold)
            found = find(rows, "copy_recall", **fields)
            assert (found["value"], found["count"]) == (pytest.approx(np.mean(right)), 120)
            found = find(rows, "wrong_match_rate", **fields)
            assert found["value"] == pytest.approx(np.mean(wrong))
            found = find(rows, "false_positive_rate", **fields)
            assert found["value"] == int(rate * 120) / 120


def test_a_weight_is_chosen_on_one_half_and_measured_on_the_other(rng):
    """Where rivals are near duplicates the margin says little, and the cosine much."""
    pictures = np.repeat(rng.normal(size=(90, 5)), 2, axis=0)
    pictures += 0.15 * rng.normal(size=pictures.shape)
    queries = pictures + 0.1 * rng.normal(size=pictures.shape)
    embedded = embedded_set(pictures[:, None], queries, np.arange(180))
    half = half_of(embedded.origins)
    assert 60 < half.sum() < 120
    cases = plain_loop(pictures[:, None], queries, np.arange(180), turn_of(embedded.origins))

    def recall(which, place, rate):
        some = [case for case, of in zip(cases, np.tile(half, TURNS), strict=True) if of == which]
        absent = sorted((case[place] for case in some if case[0]), reverse=True)
        positives = [case for case in some if not case[0]]
        at = absent[int(rate * len(absent))]
        return np.mean([case[1] and case[place] > at for case in positives])

    rows = measure_copies("m", embedded)
    for rate in RATES:
        of_weights = {w: recall(0, 2 + i, rate) for i, w in enumerate(WEIGHTS.values())}
        best = max(of_weights, key=of_weights.__getitem__)
        found = find(rows, "copy_recall", statistic="calibrated", rate=rate)
        assert found["cosine_weight"] == best > 0.0
        wanted = recall(1, 2 + list(WEIGHTS.values()).index(best), rate)
        assert (found["value"], found["count"]) == (pytest.approx(wanted), half.sum())
        assert found["error"] > 0.0
    # The measured half has no say: whatever it is, the weight stays.
    queries[half == 1] = rng.normal(size=(half.sum(), 5))
    again = measure_copies("m", embedded_set(pictures[:, None], queries, np.arange(180)))
    for rate in RATES:
        wanted = {"figure": "threshold", "statistic": "calibrated", "rate": rate}
        (before,), (after,) = chosen(rows, **wanted), chosen(again, **wanted)
        assert before["cosine_weight"] == after["cosine_weight"]


def test_a_case_worked_out_by_hand():
    """Seven pictures along the axes, each out in a turn of its own.

    The copy of picture 0 leans towards 1: with 0 out it brings back 1 at cosine 0.6, wrongly. All
    other copies lie between their axis and an eighth one, so with their picture out nothing is
    like them. The threshold is 0.6; of the seven copies only 5 and 6 have less with their own.
    """
    pictures, copies = np.eye(8)[:7], np.zeros((7, 8))
    copies[0, [0, 1]] = 0.8, 0.6
    for place, cosine in zip(range(1, 7), (0.95, 0.9, 0.8, 0.7, 0.5, 0.4), strict=True):
        copies[place, [place, 7]] = cosine, np.sqrt(1 - cosine**2)
    edits = ["jpeg", "jpeg", "jpeg", "jpeg", "blur", "blur", "blur"]
    embedded = embedded_set(pictures, 10.0 * copies, range(7), edits=edits)
    assert turn_of(embedded.origins).tolist() == list(range(7))
    rows = measure_copies("m", embedded)
    cosine = {"statistic": "cosine", "rate": 0.01}
    assert find(rows, "threshold", **cosine)["value"] == pytest.approx(0.6)
    assert find(rows, "copy_recall", **cosine)["value"] == pytest.approx(5 / 7)
    assert find(rows, "copy_recall", by="edit", group="jpeg", **cosine)["value"] == 1.0
    assert find(rows, "copy_recall", by="edit", group="blur", **cosine)["value"] == (
        pytest.approx(1 / 3)
    )
    assert find(rows, "false_positive_rate", **cosine)["value"] == 0.0
    # A plane between two axes is 1 / sqrt(2) of the scores' difference away. The false match has
    # margin 0.6 / sqrt(2); the copy of 0 has 0.2 / sqrt(2) while 1 is there, and 0.8 / sqrt(2) in
    # the turn without it.
    margin = {"statistic": "margin", "rate": 0.01}
    assert find(rows, "threshold", **margin)["value"] == pytest.approx(0.6 / np.sqrt(2))
    recall = find(rows, "copy_recall", by="edit", group="jpeg", **margin)["value"]
    assert recall == pytest.approx((3 + 1 / 6) / 4)


def test_no_more_negatives_pass_than_the_rate_allows(rng):
    for size in (1, 50, 99, 100, 101, 999):
        statistics = rng.integers(0, 30, size).astype(np.float64)
        for rate in (0.01, 0.001, 0.3):
            threshold = threshold_for(statistics, rate)
            assert (statistics > threshold).sum() <= rate * size
            # One step lower, too many would.
            lower = np.nextafter(threshold, -np.inf)
            assert (statistics > lower).sum() > rate * size


def test_the_turn_of_an_original_is_a_matter_of_its_hash_alone():
    digests = [f"{17 * number % 101:064x}" for number in range(101)]
    turns = turn_of(digests)
    assert set(turns.tolist()) == set(range(TURNS))
    assert (turn_of(digests[::-1]) == turns[::-1]).all()
    assert turn_of(digests[40:41])[0] == turns[40]


def test_pictures_that_are_all_out_together_give_nothing():
    digests = ["a" * 64, "a" * 64]
    assert measure_copies("m", embedded_set(np.eye(2), np.eye(2), range(2), digests=digests)) == []


def test_a_threshold_that_is_infinite_is_null():
    """With one of two pictures out nothing can overtake the other: the margin has no end."""
    digests = [f"{number:064x}" for number in range(2)]
    rows = measure_copies("m", embedded_set(np.eye(2), np.eye(2), range(2), digests=digests))
    assert find(rows, "threshold", statistic="margin", rate=0.01)["value"] is None


def test_the_error_counts_that_a_sample_has_a_threshold_of_its_own(rng):
    """Where one strange picture sets the threshold, recall hangs on whether it is drawn."""
    pictures, count = rng.normal(size=(150, 4)), 150
    queries = pictures + 0.5 * rng.normal(size=(150, 4))
    embedded = embedded_set(pictures, queries, range(count))
    (found,) = chosen(
        measure_copies("m", embedded), figure="copy_recall", by="all", statistic="cosine", rate=0.01
    )
    naive = np.sqrt(found["value"] * (1.0 - found["value"]) / count)
    assert found["error"] > 1.2 * naive


def test_a_threshold_of_a_sample_is_that_of_its_cases_repeated(rng):
    statistics, weights = rng.normal(size=40), rng.integers(0, 4, (9, 40)).astype(np.float64)
    for rate in (0.01, 0.1, 0.5, 1.0):
        wanted = [threshold_for(np.repeat(statistics, w.astype(int)), rate) for w in weights]
        assert thresholds_for(statistics, rate, weights).tolist() == wanted
