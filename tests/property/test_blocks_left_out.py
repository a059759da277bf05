"""Blocks that a scan leaves out change no radius."""

import numpy as np
import pytest
from galleries import everything, unit_rows

from model.certificate import scan
from model.certificate.match import MatchRule, judge, measure_statistics

pytestmark = pytest.mark.without_shape_checks

# Rows of a block, as a gallery of some thousand numbers a row has them.
NARROW = 64


def best_row(query, gallery):
    return np.array([int(np.argmax(gallery.astype(float) @ query))])


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_a_radius_is_the_same_whether_or_not_blocks_are_left_out(weight, monkeypatch):
    """The cone that is assumed of a block left out is wider than those of its pairs."""
    rng, compared = np.random.default_rng(5), 0
    for _ in range(40):
        dimension = int(rng.choice([8, 16]))
        base = rng.normal(size=dimension)
        base /= np.linalg.norm(base)
        spread = rng.choice([0.3, 1.0]) / np.sqrt(dimension)
        away = rng.uniform(0.2, 3.0)
        gallery = unit_rows(base * away + spread * rng.normal(size=(2000, dimension)))
        query = base + rng.choice([0.1, 0.3, 1.0]) * rng.normal(size=dimension) / np.sqrt(dimension)
        whole, top = everything(gallery), best_row(query, gallery)
        (found,) = measure_statistics(query, whole, top, 1, (weight,))
        for share in (0.9, 0.97):
            rule = MatchRule(1, float(share * found.value[0]), weight)
            radii = []
            for width in (10_000, NARROW):
                with monkeypatch.context() as narrow:
                    narrow.setattr(scan, "rows_of_a_block", lambda _, width=width: width)
                    verdicts = judge(
                        query, whole, top, rule, lipschitz_bound=1.0, gain=1.0, forward_error=0.0
                    )
                assert verdicts.matches.all()
                radii.append(verdicts.radii[0])
            assert radii[1] == pytest.approx(radii[0], rel=1e-6)
            compared += radii[0] > 0.0
    assert compared > 60
