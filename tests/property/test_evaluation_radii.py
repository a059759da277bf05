"""Radii and margins of evaluation, over items and by a head's scales: none above brute force."""

import numpy as np
import pytest
from bruteforce import World, item_radii, kth_smallest, ranking, row_radii
from galleries import KINDS, everything
from paths import COMPACT_V0, ROOT

from model.certificate.match import measure_margins
from model.certificate.search import certify_search
from model.cli.progress import Progress
from model.convert import rotate_checkpoint
from model.data.pictures import open_pictures
from model.evaluate.embedding import embed_pictures
from model.evaluate.radii import PROVED, Proof, claims_of
from model.evaluate.standing import Gallery
from model.metrics.load import load_metric
from model.pixels.views import VIEW_SETS

pytestmark = pytest.mark.without_shape_checks

KS = (1, 3, 10)
BOUND = 1.0 + 3e-8


def scales_of(rng, dimension, condition):
    return rng.permutation(np.geomspace(1.0 / condition, 1.0, dimension))


def item_margins(query, world, item):
    """Of another item the least, over its rows, of the best of one's own; equal rows lead by 0."""
    own = [row_radii(query, world, row) for row in world.views(item)]
    best = np.max(np.where(np.isinf(own), 0.0, own), axis=0) / np.linalg.norm(query)
    of_items = np.full(world.count, np.inf)
    np.minimum.at(of_items, world.items, best)
    of_items[item] = np.inf
    return of_items


@pytest.mark.parametrize(("views", "condition"), [(1, 1.0), (1, 1e4), (5, 1.0), (4, 50.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_radius_over_items_is_above_brute_force_and_margins_are_its(kind, views, condition):
    rng = np.random.default_rng(3)
    rows, asked = KINDS[kind](rng, 240, 32)
    asked = asked[:8]
    scales, error = scales_of(rng, 32, condition), 1e-7
    # From here on the program's own rows: of unit length once more.
    gallery = Gallery(rows.astype(np.float64), views, Proof(BOUND, error, BOUND * scales))
    items = np.arange(240) // views
    world = World(gallery.vectors, items, scales, error)
    plain = World(gallery.vectors, items)
    firsts = np.array([ranking(query, world, 2) for query in asked])
    assert (gallery.nearest(asked) == firsts[:, 0]).all()
    proved = 0
    for chosen in (firsts[:, 0], firsts[:, 1], rng.integers(0, world.count, len(asked))):
        standing = gallery.stand(asked, chosen, KS)
        for number, query in enumerate(asked):
            truth = item_radii(query, world, chosen[number])
            margins = item_margins(query, plain, chosen[number])
            assert standing.ranks[number] == list(ranking(query, world, world.count)).index(
                chosen[number]
            )
            for place, k in enumerate(KS):
                radius = max(0.0, standing.radii[number, place])
                true = max(0.0, kth_smallest(truth, k))
                assert radius <= true
                # Rounding is most of what rows a few floats apart have.
                near = 1e-2 if kind == "neighbouring_floats" else 1e-4
                assert radius >= true * (1.0 - near) - 1e-6
                proved += 0.0 < radius < np.inf
                margin = kth_smallest(margins, k)
                assert standing.margins[number, place] == pytest.approx(margin, near, 1e-9)
    assert proved or kind == "copies_only"


@pytest.mark.parametrize("views", [1, 4])
def test_radii_and_margins_are_those_of_a_search(views):
    rng = np.random.default_rng(4)
    rows, asked = KINDS["near_duplicates"](rng, 240, 32)
    proof = Proof(BOUND, 1e-7, BOUND * scales_of(rng, 32, 30.0))
    gallery = Gallery(rows.astype(np.float64), views, proof)
    items = np.arange(240) // views
    candidates = everything(gallery.vectors, items)
    for query in asked:
        found = certify_search(
            query,
            candidates,
            k=3,
            lipschitz_bound=proof.lipschitz_bound,
            output_scales=proof.output_scales,
            gain=1.0,
            forward_error=proof.forward_error,
        )
        verdicts = measure_margins(query, candidates, found.positions, 1)
        queries = np.repeat(query[None], 3, axis=0)
        standing = gallery.stand(queries, items[found.positions], (1, 3))
        claims = claims_of(standing.radii[:, 1], standing.margins[:, 1], proof, None)
        assert claims[0][0] == PROVED
        np.testing.assert_allclose(claims[0][1], found.certified_radii, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(standing.margins[:, 0], verdicts.value, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(standing.similarities, found.similarities, atol=1e-12)


def test_a_rotated_head_gives_larger_radii_that_brute_force_does_not_refute(tmp_path):
    """Real pictures, the first checkpoint and its rotated twin: same ranks, larger radii."""
    rotated = tmp_path / "rotated.safetensors"
    rotate_checkpoint(COMPACT_V0, rotated)
    metrics = {name: load_metric(name) for name in (str(COMPACT_V0), str(rotated))}
    pictures = open_pictures(ROOT / "examples" / "gallery")
    radii, ranks = {}, {}
    for views in ("none", "shift"):
        found = embed_pictures(
            pictures, metrics, Progress().counter,
            seed=0, limit=20, views=VIEW_SETS[views],
        )  # fmt: skip
        for name, embedded in found.metrics.items():
            proof = embedded.proof
            gallery = Gallery(embedded.pictures, found.views, proof)
            standing = gallery.stand(embedded.queries, found.originals)
            world = World(
                gallery.vectors,
                np.arange(len(gallery.vectors)) // found.views,
                proof.output_scales / proof.lipschitz_bound,
                proof.forward_error,
            )
            ranks[name], radii[name] = standing.ranks, np.maximum(0.0, standing.radii[:, 0])
            for query, original, radius in zip(
                embedded.queries, found.originals, radii[name], strict=True
            ):
                assert radius <= max(0.0, kth_smallest(item_radii(query, world, original), 1))
        plain, aware = (radii[name] / found.metrics[name].proof.lipschitz_bound for name in metrics)
        assert (ranks[str(COMPACT_V0)] == ranks[str(rotated)]).all()
        is_first = ranks[str(COMPACT_V0)] == 0
        assert is_first.sum() > 30
        assert (aware[is_first] > plain[is_first]).all()
        assert np.median(aware[is_first] / plain[is_first]) > 1.08
