"""A filtered search answers what an index built of the passing items alone answers.

That index is built, and searched through the same reader. Vectors are chosen by the test, so that
entries have several ids and views, and every strategy is met: few rows, many, and galleries that
are not looked at entirely.
"""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from filter_cases import passes
from hypothesis import given, settings
from hypothesis import strategies as st
from index_tools import without_columns

from index_builder.build.journal import EmbeddedImage
from index_builder.build.writer import ModelIdentity, Planned, seal_version, writing
from index_builder.filters.evaluate import FilterCache
from index_builder.filters.language import parse_filter
from index_builder.search import certified, filtered
from index_builder.search.certified import certified_search
from index_builder.search.filtered import FilteredIndex
from index_builder.search.gallery import GalleryIndex
from index_builder.store import layout
from model.certificate.match import MatchRule
from model.pixels.views import VIEWS

pytestmark = pytest.mark.without_shape_checks

DIM = 12
VIEW_NAMES = ("whole", *(name for name in VIEWS if name != "whole"))[:3]


@dataclass(frozen=True)
class Embedding:
    vector: np.ndarray
    gain: float = 0.7
    forward_error: float = 1e-9


def gallery_of(rng, count, *, views, copies):
    """Planned items and their images: clusters, of which some are copies of others."""
    centres = rng.normal(size=(5, DIM))
    images, planned = {}, []
    for number in range(count):
        if copies and number and rng.random() < 0.3:
            content = planned[rng.integers(number)].content_sha256
        else:
            content = f"{number:064x}"
            rows = centres[rng.integers(5)] + 0.5 * rng.normal(
                size=(rng.integers(1, views + 1), DIM)
            )
            rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("<f4")
            norms = np.ones(len(rows)).astype("<f8").tobytes()
            kinds = bytes(range(len(rows)))
            images[content] = EmbeddedImage(
                content, rows.tobytes(), kinds, norms, 8, 8, "PNG", b"jpeg"
            )
        said = {
            "n": int(rng.integers(100)),
            "tags": [str(rng.integers(3))],
            "half": number % 2 == 0,
        }
        planned.append(Planned("", "p", content, 1, said))
    ids = sorted(f"i{one:05d}" for one in rng.permutation(3 * count)[:count])
    return [
        Planned(one, p.path, p.content_sha256, 1, p.metadata)
        for one, p in zip(ids, planned, strict=True)
    ], images


def seal(data_dir, planned, images):
    paths = layout.index_paths(data_dir, "default")
    with writing(paths):
        seal_version(
            paths,
            model=ModelIdentity("m", "0" * 64, "policy", DIM),
            views=VIEW_NAMES,
            planned=planned,
            embedded=images.__getitem__,
            quarantined=[],
            source="test",
            counts={},
            served=None,
        )
    return GalleryIndex.open(data_dir)


def search(index, queries, **options):
    return certified_search(
        index, [Embedding(query) for query in queries], lipschitz_bound=1.0, **options
    )


def described(index, answer):
    """What an answer says, entry by entry."""
    proof, found = answer.certificate, answer.candidates
    entries = index.entries(found.numbers[proof.positions])
    return [
        (entry.id, entry.duplicates, entry.metadata, view)
        for entry, view in zip(entries, index.views(found.rows[proof.positions]), strict=True)
    ]


def near(one, other):
    return np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def check(part, built, queries, **options):
    """Both indexes say the same."""
    mine, theirs = (search(index, queries, **options) for index in (part, built))
    for one, other in zip(mine, theirs, strict=True):
        assert described(part, one) == described(built, other)
        a, b = one.certificate, other.certificate
        near(a.similarities, b.similarities)
        near(a.certified_radii, b.certified_radii)
        assert a.exact.tolist() == b.exact.tolist()
        near(a.margins, b.margins)
        near(a.set_radius, b.set_radius)
        near(a.order_radius, b.order_radius)
        assert (a.top1_radius is None) == (b.top1_radius is None)
        near(a.top1_radius or 0.0, b.top1_radius or 0.0)


def below(one, other):
    assert (one <= other * (1 + 1e-6) + 1e-7).all()


def full(index, queries, **options):
    """The same by a look at everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certified, "_SMALL_GALLERY", 1 << 40)
        patch.setattr(certified, "_SMALL_PART", 1 << 40)
        return search(index, queries, **options)


FILTERS = st.one_of(
    st.builds(lambda low: {"must": [{"key": "n", "range": {"gte": low}}]}, st.integers(0, 101)),
    st.builds(
        lambda tag: {"must": [{"key": "tags", "match": {"value": str(tag)}}]}, st.integers(0, 2)
    ),
    st.just({"must": [{"key": "half", "match": {"value": True}}]}),
    st.just({}),
    st.just({"must": [{"key": "nobody", "match": {"value": 1}}]}),
)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 60),
    shape=st.fixed_dictionaries({"views": st.sampled_from([1, 3]), "copies": st.booleans()}),
    wanted=FILTERS,
    options=st.fixed_dictionaries(
        {"k": st.sampled_from([1, 3, 10, 70]), "max_distance": st.sampled_from([None, 0.2])}
    ),
)
def test_a_part_of_a_gallery_answers_as_an_index_of_its_own(
    tmp_path_factory, *, seed, count, shape, wanted, options
):
    rng, root = np.random.default_rng(seed), tmp_path_factory.mktemp("filtered")
    planned, images = gallery_of(rng, count, **shape)
    passing = [plan for plan in planned if passes(wanted, plan.id, plan.metadata)]
    queries = np.append(rng.normal(size=(2, DIM)), np.zeros((1, DIM)), axis=0)
    with (
        seal(root / "all", planned, images) as index,
        seal(root / "some", passing, images) as built,
    ):
        part = FilteredIndex.of(index, parse_filter(wanted), FilterCache(1 << 20))
        assert (part.size, part.matching_ids) == (built.size, len(passing))
        assert part.vector_count == built.vector_count
        check(part, built, queries, **options)
        # The same by page.
        listed = [item.id for item in part.page("", 10**6)]
        assert listed == [plan.id for plan in passing]
        middle = listed[len(listed) // 2] if listed else "i"
        rest = [one for one in listed if one > middle]
        assert [item.id for item in part.page(middle, 3)] == rest[:3]


@pytest.fixture(scope="module", params=[1, 3], ids=["one view", "views"])
def large(request, tmp_path_factory):
    rng = np.random.default_rng(5)
    planned, images = gallery_of(rng, 2500, views=request.param, copies=True)
    with seal(tmp_path_factory.mktemp("large"), planned, images) as index:
        yield index, planned, images, rng.normal(size=(10, DIM))


@pytest.mark.parametrize(
    "wanted",
    [
        {"must": [{"key": "n", "range": {"lt": 40}}]},  # asked deeper
        {"must": [{"key": "n", "range": {"lt": 5}}]},  # fetched, a gallery too small for depths
        {"must": [{"key": "n", "range": {"lt": 8}}], "must_not": []},
        {"must_not": [{"key": "n", "match": {"value": 3}}]},
    ],
    ids=["40 %", "5 %", "8 %", "99 %"],
)
@pytest.mark.parametrize("exact", [False, True])
def test_a_large_part_answers_as_an_index_of_its_own(large, tmp_path, wanted, exact, monkeypatch):
    """Depths are small, so that both ways of searching are met before everything is looked at."""
    monkeypatch.setattr(certified, "_SMALL_PART", 50)
    monkeypatch.setattr(certified, "_FIRST_DEPTH", 40)
    index, planned, images, queries = large
    passing = [plan for plan in planned if passes(wanted, plan.id, plan.metadata)]
    with seal(tmp_path, passing, images) as built:
        part = FilteredIndex.of(index, parse_filter(wanted), FilterCache(0))
        for k in (1, 10):
            mine = search(part, queries, k=k, require_exact=exact)
            theirs = full(built, queries, k=k)
            for one, other in zip(mine, theirs, strict=True):
                assert described(part, one) == described(built, other)
                a, b = one.certificate, other.certificate
                below(a.certified_radii, b.certified_radii)
                near(a.certified_radii[a.exact], b.certified_radii[a.exact])
                assert a.exact.all() or not exact
                assert a.set_radius <= b.set_radius * (1 + 1e-6)
                assert a.order_radius <= b.order_radius * (1 + 1e-6)


def test_a_filter_against_the_neighbourhood_of_the_query_still_finds_what_passes(large):
    """Nothing near the query passes, and half of the gallery does."""
    index, *_ = large
    query = index.vectors[0].astype(np.float64)
    scores = index.vectors.astype(np.float64) @ query
    near_rows = np.argsort(-scores)[: index.vector_count // 2]
    near_entries = np.unique(index.rows.entries[near_rows])
    passing = ~np.isin(index.columns.entries, near_entries)
    part = FilteredIndex(index, passing)
    assert part.vector_count / index.vector_count > filtered._GATHER_BELOW
    (found,) = part.search(query[None], 128)
    assert found.rows.size == 128
    unseen = np.setdiff1d(np.arange(part.vector_count), found.rows)
    rest = part.everything().vectors[unseen].astype(np.float64) @ query
    assert rest.max() <= found.unseen_score


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("views", [1, 3])
def test_a_verdict_is_that_of_the_whole_gallery_at_the_points_own_k(
    tmp_path, weight, views, monkeypatch
):
    monkeypatch.setattr(certified, "_SMALL_GALLERY", 30)
    monkeypatch.setattr(certified, "_SMALL_PART", 30)
    monkeypatch.setattr(certified, "_FIRST_DEPTH", 20)
    rng = np.random.default_rng(9)
    index = seal(tmp_path, *gallery_of(rng, 150, views=views, copies=True))
    queries = index.vectors[:15].astype(np.float64) + 0.02 * rng.normal(size=(15, DIM))
    rule = MatchRule(2, 0.1 if weight == 0.0 else 0.9, weight)
    wanted = parse_filter({"must": [{"key": "half", "match": {"value": True}}]})
    part = FilteredIndex.of(index, wanted, FilterCache(0))
    matched = 0
    mine = search(part, queries, k=5, rule=rule)
    whole = full(index, queries, k=index.size, rule=rule)
    index.close()
    for one, other in zip(mine, whole, strict=True):
        verdicts, all_verdicts = one.certificate.verdicts, other.certificate.verdicts
        numbers = part.numbers[one.candidates.numbers[one.certificate.positions]].tolist()
        entries = other.candidates.numbers[other.certificate.positions].tolist()
        for place, number in enumerate(numbers):
            at = entries.index(number)
            assert verdicts.matches[place] == all_verdicts.matches[at]
            assert verdicts.radii[place] <= all_verdicts.radii[at] * (1 + 1e-6) + 1e-9
            assert verdicts.statistics[place] <= all_verdicts.statistics[at] + 1e-9
            matched += bool(verdicts.matches[place])
    assert 5 < matched < 5 * len(queries)


def test_an_entry_is_named_by_its_first_id_that_passes_and_ties_go_by_it(tmp_path):
    """Two entries as near as each other: the filter turns their order round."""
    rows = np.eye(DIM, dtype="<f4")
    images = {
        f"{n:064x}": EmbeddedImage(
            f"{n:064x}", rows[n].tobytes(), b"\0", np.ones(1).tobytes(), 8, 8, "PNG", b"jpeg"
        )
        for n in range(2)
    }
    items = [("a", 0, 1), ("b", 1, 2), ("c", 1, 2), ("d", 0, 2), ("e", 1, 1), ("f", 0, 2)]
    planned = [Planned(one, "p", f"{n:064x}", 1, {"x": x}) for one, n, x in items]
    wanted = parse_filter({"must": [{"key": "x", "match": {"value": 2}}]})
    query = rows[0].astype(np.float64) + rows[1].astype(np.float64)
    with seal(tmp_path, planned, images) as index:
        part = FilteredIndex.of(index, wanted, FilterCache(0))
        for asked in (query, np.zeros(DIM)):
            (answer,) = search(part, asked[None], k=2)
            found = [(one, others) for one, others, *_ in described(part, answer)]
            assert found == [("b", ["c"]), ("d", ["f"])]
        (answer,) = search(index, query[None], k=2)
        assert [one for one, *_ in described(index, answer)] == ["a", "b"]


def test_a_version_without_columns_filters_by_a_look_at_its_items(tmp_path):
    planned, images = gallery_of(np.random.default_rng(1), 50, views=1, copies=True)
    wanted = parse_filter({"must": [{"key": "n", "range": {"lt": 50}}]})
    cache = FilterCache(1 << 20)
    with seal(tmp_path, planned, images) as index:
        said = FilteredIndex.of(index, wanted, cache).page("", 100)
    without_columns(tmp_path)
    with GalleryIndex.open(tmp_path) as index:
        assert "columns.sqlite" not in index.manifest.files
        assert FilteredIndex.of(index, wanted, cache).page("", 100) == said
    assert len(said) == sum(plan.metadata["n"] < 50 for plan in planned)
    assert json.dumps([item.metadata for item in said])
