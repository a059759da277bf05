import numpy as np
import pytest

from model.evaluate.copies import ABSENT_SHARE, absent_originals, measure_copies, threshold_for
from model.evaluate.gathering import Gathered, Queries, Sheet, Vectors
from model.evaluate.measurement import Book
from model.evaluate.radii import Proof


def gathered_of(pictures, queries, originals, edits=None, digests=None):
    count = len(pictures)
    digests = digests or [f"{number:064x}" for number in range(count)]
    sheet = Sheet(
        tuple(map(str, range(count))),
        tuple(digests),
        tuple(digests),
        ("",) * count,
        ("",) * count,
        ("",) * count,
    )
    edits = tuple(edits or ["jpeg"] * len(originals))
    return Gathered(
        sheet, Queries(np.array(originals), edits), {"m": Vectors(pictures, queries)}, {}
    )


def find(measurements, figure, **fields):
    return Book(measurements).find(task="copies", metric="m", figure=figure, **fields)


def test_a_case_worked_out_by_hand():
    """Seven pictures along the axes; the first by hash is taken out.

    Its copy lies along axis 1, so the search brings back picture 1, wrongly, with cosine 0.8. The
    copy of picture 1 has cosine 0.6 with it and 0.8 with picture 2: wrong. Those of 2 to 6 are
    right, at falling cosines; only 2 and 3 are above 0.8.
    """
    pictures = np.eye(8)[:7]
    copies = np.zeros((7, 8))
    copies[0, [1, 7]] = 0.8, 0.6
    copies[1, [1, 2]] = 0.6, 0.8
    for place, cosine in zip(range(2, 7), (0.95, 0.9, 0.7, 0.6, 0.5), strict=True):
        copies[place, [place, 7]] = cosine, np.sqrt(1 - cosine**2)
    edits = ["jpeg", "jpeg", "jpeg", "blur", "blur", "blur", "blur"]
    gathered = gathered_of(pictures, 10.0 * copies, range(7), edits)
    assert absent_originals(gathered.sheet.origins).tolist() == [True] + [False] * 6
    measurements = measure_copies("m", gathered, proof=None)
    cosine = {"statistic": "cosine", "rate": 0.01}
    assert find(measurements, "threshold", **cosine).value == pytest.approx(0.8)
    assert find(measurements, "copy_recall", **cosine).value == pytest.approx(2 / 6)
    assert find(measurements, "copy_recall", **cosine).count == 6
    assert find(measurements, "copy_recall", by="edit", group="jpeg", **cosine).value == 0.5
    assert find(measurements, "copy_recall", by="edit", group="blur", **cosine).value == 0.25
    assert find(measurements, "false_positive_rate", **cosine).value == 0.0
    assert find(measurements, "false_positive_rate", **cosine).count == 1
    # Each plane between two axes is 1 / sqrt(2) of the scores' difference away: the margin of the
    # negative is 0.8 / sqrt(2), and that of the wrong copy 0.2 / sqrt(2).
    margin = {"statistic": "margin", "rate": 0.01}
    assert find(measurements, "threshold", **margin).value == pytest.approx(0.8 / np.sqrt(2))
    assert find(measurements, "copy_recall", **margin).value == pytest.approx(2 / 6)
    assert find(measurements, "wrong_match_rate", **margin).value == 0.0


def test_a_wrong_match_above_the_threshold_is_counted_as_that():
    pictures = np.eye(8)[:7]
    copies = np.eye(8)[[7, 2, 2, 3, 4, 5, 6]]
    copies[0] = 0.1
    measurements = measure_copies("m", gathered_of(pictures, copies, range(7)), proof=None)
    fields = {"statistic": "cosine", "rate": 0.01}
    assert find(measurements, "wrong_match_rate", **fields).value == pytest.approx(1 / 6)
    assert find(measurements, "copy_recall", **fields).value == pytest.approx(5 / 6)


def test_no_more_negatives_pass_than_the_rate_allows(rng):
    for size in (1, 50, 99, 100, 101, 999):
        statistics = rng.integers(0, 30, size).astype(np.float64)
        for rate in (0.01, 0.001, 0.3):
            threshold = threshold_for(statistics, rate)
            assert (statistics > threshold).sum() <= rate * size
            # One step lower, too many would.
            lower = np.nextafter(threshold, -np.inf)
            assert (statistics > lower).sum() > rate * size


def test_originals_are_taken_out_by_their_hash_whatever_their_order():
    digests = [f"{17 * number % 101:064x}" for number in range(101)]
    absent = absent_originals(digests)
    assert absent.sum() == round(ABSENT_SHARE * 101)
    assert (absent_originals(digests[::-1]) == absent[::-1]).all()
    doubled = absent_originals(digests + digests)
    assert (doubled == np.concatenate([absent, absent])).all()


def test_forward_errors_count_against_the_margin():
    pictures, queries = np.eye(9)[:8], np.eye(9)[:8]
    gathered = gathered_of(pictures, queries, range(8))
    free = measure_copies("m", gathered, proof=None)
    bound = measure_copies("m", gathered, proof=Proof(1.0, 0.1))
    fields = {"statistic": "margin", "rate": 0.01}
    assert find(free, "copy_recall", **fields).value == 1.0
    difference = [find(m, "threshold", **fields).value for m in (free, bound)]
    assert difference == [pytest.approx(0.0), 0.0]


def test_too_few_pictures_give_nothing():
    assert measure_copies("m", gathered_of(np.eye(2), np.eye(2), range(2)), proof=None) == []
