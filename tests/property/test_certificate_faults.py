"""The checker that guards the certificate catches each fault that a certificate could have."""

from dataclasses import replace

import numpy as np
import pytest
from bruteforce import World
from checker import violations
from galleries import KINDS, everything, retrieve

from model.certificate.search import certify_search

LIPSCHITZ, GAIN, K = 1.3, 2.5, 10
SCALE = LIPSCHITZ * GAIN


def honest(query, candidates):
    return certify_search(
        query, candidates, k=K, lipschitz_bound=LIPSCHITZ, gain=GAIN, forward_error=0.0
    )


def scaled(factor):
    return lambda c: replace(c, certified_radii=c.certified_radii * factor)


def halved_while_exact(c):
    return replace(c, certified_radii=np.where(c.exact, 0.5, 1.0) * c.certified_radii)


def reversed_list(c):
    return replace(c, positions=c.positions[::-1])


PER_RESULT = ("positions", "distances", "similarities", "certified_radii", "exact", "margins")


def missing_result(c):
    return replace(c, **{name: np.delete(getattr(c, name), 3) for name in PER_RESULT})


def replaced_result(c):
    outside = np.setdiff1d(np.arange(K + 5), c.positions)[:1]
    return replace(c, positions=np.append(c.positions[:-1], outside))


FAULTS = {
    "radius x (1 + 1e-5)": scaled(1 + 1e-5),
    "radius x 1.01": scaled(1.01),
    "radius x 2": scaled(2.0),
    "half while called exact": halved_while_exact,
    "forgotten Lipschitz bound": scaled(LIPSCHITZ),
    "ignored gain": scaled(GAIN),
    "reversed list": reversed_list,
    "missing result": missing_result,
    "wrong last result": replaced_result,
    "inflated top-1 radius": lambda c: replace(c, top1_radius=c.top1_radius * (1 + 1e-5)),
    "inflated set radius": lambda c: replace(c, set_radius=c.set_radius * (1 + 1e-5)),
    "inflated order radius": lambda c: replace(c, order_radius=c.order_radius * (1 + 1e-5)),
    "one radius infinite": lambda c: replace(
        c, certified_radii=np.append(np.inf, c.certified_radii[1:])
    ),
}


def cases():
    for kind in ("isotropic", "clustered", "near_duplicates"):
        gallery, asked = KINDS[kind](np.random.default_rng(11), 800, 64)
        for query in asked[:4]:
            for candidates in (everything(gallery), retrieve(query, gallery, 128)):
                yield query, gallery, candidates


def caught(fault):
    """For each case, what the checker says of the honest certificate and of the faulty one."""
    for query, gallery, candidates in cases():
        certificate = honest(query, candidates)
        asked = {"numbers": candidates.rows, "k": K, "scale": SCALE}
        yield (
            violations(certificate, query, World(gallery), **asked),
            violations(fault(certificate), query, World(gallery), **asked),
        )


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_checker_accepts_the_honest_certificate_and_catches_this_fault(fault):
    for on_honest, on_faulty in caught(fault):
        assert on_honest == []
        assert on_faulty != []
