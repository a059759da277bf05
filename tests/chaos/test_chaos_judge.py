"""The judge of the other tests notices what it is there for."""

from chaos_load import Gist, is_right
from chaos_world import World


def lies_about(truth: Gist, other: Gist) -> dict[str, Gist]:
    """Answers that are not right: of the other gallery, mixed, or off by little."""
    first, second, *rest = truth.ids
    distance, *distances = truth.distances
    radius = next(i for i, radius in enumerate(truth.radii) if radius is not None)
    radii = list(truth.radii)
    radii[radius] += 4 * truth.reach + 1e-6 * radii[radius]
    none = [None, *truth.radii[1:]] if truth.radii[0] is not None else [0.0, *truth.radii[1:]]
    return {
        "the other gallery": other,
        "its ids": truth._replace(ids=other.ids),
        "one of its ids": truth._replace(ids=(*truth.ids[:-1], "of neither")),
        "its size": truth._replace(size=other.size),
        "its distances": truth._replace(distances=other.distances),
        "another order": truth._replace(ids=(second, first, *rest)),
        "another picture": truth._replace(sha256="0" * 64),
        "a distance": truth._replace(distances=(distance + 4 * truth.slack, *distances)),
        "a radius": truth._replace(radii=tuple(radii)),
        "no bound where there is one": truth._replace(radii=tuple(none)),
        "one result less": truth._replace(
            ids=truth.ids[:-1], distances=truth.distances[:-1], radii=truth.radii[1:]
        ),
    }


def test_the_judge_notices_every_lie_and_believes_every_truth(world: World):
    for truth, other in zip(world.truths["a"], world.truths["b"], strict=True):
        assert is_right(truth, truth)
        assert is_right(truth._replace(version="v000077"), truth)
        assert truth.ids != other.ids
        for what, lie in lies_about(truth, other).items():
            assert not is_right(lie, truth), what


def test_two_indexes_of_one_gallery_say_the_same(world: World):
    for one, other in zip(world.truths["a"], world.truths["default"], strict=True):
        assert is_right(one, other)
