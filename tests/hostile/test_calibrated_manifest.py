"""A manifest's operating points may come from anywhere: what no calibration writes is refused."""

import copy
import hashlib
import json
import random
import shutil
import time
from dataclasses import replace

import pytest
from index_tools import CALIBRATION, build, make_old, write_folder

from index_builder.build.maintenance import verify_index
from index_builder.build.writer import seal_calibration, writing
from index_builder.errors import GalleryIndexError, IndexFormatError
from index_builder.search.gallery import GalleryIndex
from index_builder.store import layout
from index_builder.store.manifest import Manifest, read_manifest
from index_builder.store.operating_points import (
    Measured,
    OperatingPoint,
    calibration_from,
)
from model.certificate.match import MatchRule


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """An index as older releases left it: its schema says what is in it."""
    root = tmp_path_factory.mktemp("pristine")
    build(root, write_folder(root / "in", 6))
    served = make_old(root)
    paths = layout.index_paths(root, "default")
    with writing(paths):
        seal_calibration(paths, served, CALIBRATION)
    return root / "indexes"


@pytest.fixture
def data_dir(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "indexes")
    return tmp_path


def manifest_path(data_dir, version="v000002"):
    return data_dir / f"indexes/default/versions/{version}/manifest.json"


def reseal(data_dir, fields):
    """Write these fields as the served version's manifest, in canonical form and with its seals."""

    def canonical(value):
        return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()

    seal = hashlib.sha256(canonical(fields)).hexdigest()
    manifest_path(data_dir).write_bytes(canonical({**fields, "seal": seal}))
    (data_dir / "indexes/default/CURRENT").write_text(f"v000002 {seal}\n")


def fields_of(data_dir):
    fields = json.loads(manifest_path(data_dir).read_bytes())
    del fields["seal"]
    return fields


def refused(data_dir, match="manifest.json"):
    for use in (lambda: GalleryIndex.open(data_dir), lambda: verify_index(data_dir, "default")):
        with pytest.raises(IndexFormatError, match=match):
            use()


def test_what_was_written_is_read_back(data_dir):
    assert verify_index(data_dir, "default").calibration == CALIBRATION
    with GalleryIndex.open(data_dir) as index:
        assert index.manifest.calibration == CALIBRATION
        assert index.manifest.calibration.names == ["strict", "balanced"]
    fields = fields_of(data_dir)
    assert fields["schema"] == "lipsim-index-2"
    reseal(data_dir, fields)  # the helper writes as the module does
    verify_index(data_dir, "default")


def test_a_manifest_without_operating_points_is_byte_for_byte_as_before(data_dir):
    raw = manifest_path(data_dir, "v000001").read_bytes()
    fields = json.loads(raw)
    assert fields["schema"] == "lipsim-index-1"
    assert "calibration" not in fields
    seal = fields.pop("seal")
    text = json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=True) + "\n"
    assert hashlib.sha256(text.encode()).hexdigest() == seal
    assert Manifest.from_bytes(raw).calibration is None


def test_a_flipped_bit_anywhere_is_refused(data_dir):
    path = manifest_path(data_dir)
    raw = bytearray(path.read_bytes())
    start = raw.index(b'"calibration"')
    dice = random.Random(5)
    for position in dice.sample(range(start, start + 1800), 60):
        bit = 1 << dice.randrange(8)
        raw[position] ^= bit
        path.write_bytes(raw)
        refused(data_dir)
        raw[position] ^= bit


BAD = [
    (("statistic",), "cosine"),
    (("k",), 0),
    (("k",), 101),
    (("k",), 1.0),
    (("k",), True),
    (("k",), "1"),
    (("k",), None),
    (("k",), -1),
    (("k",), 6),  # as many as there are entries: no k-th competitor
    (("k",), 10**400),
    (("pairs",), "guessed"),
    (("source",), 3),
    (("seed",), -1),
    (("queries",), 10**9),
    (("operating_points",), []),
    (("operating_points",), {}),
    (("operating_points",), [1]),
    (("operating_points", 0), []),
    (("operating_points", 0, "name"), "Strict"),
    (("operating_points", 0, "name"), ""),
    (("operating_points", 0, "name"), "a" * 33),
    (("operating_points", 0, "name"), "x\n"),
    (("operating_points", 0, "name"), "balanced"),  # comes twice
    (("operating_points", 0, "name"), "loose"),  # left out as well
    (("operating_points", 0, "threshold"), 0.0),
    (("operating_points", 0, "threshold"), 1.0),
    (("operating_points", 0, "threshold"), -0.2),
    (("operating_points", 0, "threshold"), 1),
    (("operating_points", 0, "threshold"), "0.2"),
    (("operating_points", 0, "target_false_positive_rate"), 0.0),
    (("operating_points", 0, "target_false_positive_rate"), 1.5),
    (("operating_points", 0, "pictures"), 401),
    (("operating_points", 1, "pictures_with_false_positives"), 351),
    (("operating_points", 0, "measured"), {}),
    (("operating_points", 0, "measured"), []),
    (("operating_points", 0, "measured", "jpeg"), None),
    (("operating_points", 0, "measured", "jpeg", "hits"), 401),
    (("operating_points", 0, "measured", "jpeg", "hits"), -1),
    (("operating_points", 0, "measured", "jpeg", "hits"), 300.0),
    (("operating_points", 0, "measured", "jpeg", "hits"), True),
    (("operating_points", 0, "measured", "jpeg", "false_positives"), 401),
    (("operating_points", 0, "measured", "jpeg", "negatives"), 10**18),
    (("left_out",), None),
    (("left_out", 0, "reason"), 1),
    (("left_out", 0, "name"), "../x"),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("path", "value"), BAD, ids=lambda part: str(part)[:40])
def test_values_that_no_calibration_writes_are_refused_by_name(data_dir, path, value):
    fields = fields_of(data_dir)
    parent = fields["calibration"]
    for step in path[:-1]:
        parent = parent[step]
    assert parent[path[-1]] != value or type(parent[path[-1]]) is not type(value)
    parent[path[-1]] = value
    reseal(data_dir, fields)
    refused(data_dir)


@pytest.mark.parametrize("path", sorted({path for path, _ in BAD}, key=str))
def test_a_missing_or_surplus_member_is_refused(data_dir, path):
    whole = fields_of(data_dir)
    for change in ("missing", "surplus"):
        fields = copy.deepcopy(whole)
        parent = fields["calibration"]
        for step in path[:-1]:
            parent = parent[step]
        if not isinstance(parent, dict) or path[-1] == "jpeg":
            continue
        if change == "missing":
            del parent[path[-1]]
        else:
            parent["more"] = 1
        reseal(data_dir, fields)
        refused(data_dir)


@pytest.mark.parametrize("kind", ["", "a\nb", "x" * 65])
def test_a_kind_that_no_list_can_name_is_refused(data_dir, kind):
    fields = fields_of(data_dir)
    measured = fields["calibration"]["operating_points"][0]["measured"]
    measured[kind] = measured["jpeg"]
    reseal(data_dir, fields)
    refused(data_dir)


@pytest.mark.parametrize("calibration", [None, [], "margin", 3])
def test_a_calibration_that_is_no_object_is_refused(data_dir, calibration):
    reseal(data_dir, {**fields_of(data_dir), "calibration": calibration})
    refused(data_dir)


def test_the_schema_says_whether_there_is_a_calibration(data_dir):
    fields = fields_of(data_dir)
    reseal(data_dir, {**fields, "schema": "lipsim-index-1"})
    refused(data_dir, "states values that no build writes")
    del fields["calibration"]
    reseal(data_dir, fields)
    refused(data_dir, "states values that no build writes")
    reseal(data_dir, {**fields, "schema": "lipsim-index-3"})
    reseal(data_dir, {**fields, "schema": "lipsim-index-9"})
    refused(data_dir, "wanted schema 'lipsim-index-3' or .*, got 'lipsim-index-9'")


def test_a_manifest_that_says_nothing_of_stale_is_not_stale(data_dir):
    fields = fields_of(data_dir)
    assert "stale" not in fields["calibration"]
    with GalleryIndex.open(data_dir) as index:
        assert index.manifest.calibration.stale is False


def test_a_manifest_that_says_nothing_of_the_cosine_is_about_the_margin_alone(data_dir):
    assert "cosine_weight" not in fields_of(data_dir)["calibration"]
    with GalleryIndex.open(data_dir) as index:
        calibration = index.manifest.calibration
        assert (calibration.statistic, calibration.cosine_weight) == ("margin", 0.0)
        assert calibration.rule(calibration.point("strict")) == MatchRule(2, 0.41)


@pytest.mark.parametrize(
    ("statistic", "weight", "threshold", "is_read"),
    [
        ("margin + cosine", 0.5, 1.4, True),
        ("margin + cosine", 2.0, 2.999, True),
        ("margin + cosine", 0.5, 1.5, False),
        ("margin + cosine", 0.0, 0.4, False),
        ("margin + cosine", None, 0.4, False),
        ("margin + cosine", 8.5, 0.4, False),
        ("margin + cosine", 1, 0.4, False),
        ("margin + cosine", True, 0.4, False),
        ("margin", 0.5, 0.4, False),
        ("margin", 0.0, 0.4, False),  # a member only where it is not 0
    ],
)
def test_the_statistic_its_weight_and_the_thresholds_belong_together(
    data_dir, statistic, weight, threshold, is_read
):
    fields = fields_of(data_dir)
    fields["calibration"]["statistic"] = statistic
    fields["calibration"]["operating_points"][0]["threshold"] = threshold
    if weight is not None:
        fields["calibration"]["cosine_weight"] = weight
    reseal(data_dir, fields)
    if not is_read:
        refused(data_dir)
        return
    found = verify_index(data_dir, "default").calibration
    assert found.rule(found.point("strict")) == MatchRule(2, threshold, weight)


@pytest.mark.parametrize(
    ("schema", "stale", "is_read"),
    [
        ("lipsim-index-2.1", True, True),
        ("lipsim-index-2.1", False, False),
        ("lipsim-index-2", True, False),
        ("lipsim-index-2", False, False),  # as true where it is there at all
        ("lipsim-index-2.1", 1, False),
        ("lipsim-index-2.1", "true", False),
        ("lipsim-index-2.1", None, False),
    ],
)
def test_the_schema_says_whether_operating_points_are_stale(data_dir, schema, stale, is_read):
    fields = fields_of(data_dir)
    fields["calibration"]["stale"] = stale
    reseal(data_dir, {**fields, "schema": schema})
    if not is_read:
        refused(data_dir)
        return
    assert verify_index(data_dir, "default").calibration == replace(CALIBRATION, stale=True)


def test_a_collection_whose_name_is_no_unicode_can_be_calibrated(data_dir):
    paths = layout.index_paths(data_dir, "default")
    with writing(paths):
        named = replace(CALIBRATION, source="pictures\udcff")
        seal_calibration(paths, read_manifest(paths.version("v000001")), named)
    assert verify_index(data_dir, "default").calibration == named


@pytest.mark.timeout(20)
def test_the_largest_counts_that_are_taken_cost_no_time():
    most = 10_000_000
    point = OperatingPoint("a", 0.5, 0.01, most, most // 2, {"x": Measured(0, 0, most, most // 2)})
    started = time.monotonic()
    assert point.false_positive_upper == pytest.approx(0.50026, rel=1e-4)
    assert time.monotonic() - started < 5


def test_what_is_no_json_object_at_all_is_refused():
    for value in (None, 3, [], "x", {"statistic": "margin"}):
        with pytest.raises(ValueError, match=r"^'calibration.*': .*(dictionary|required)"):
            calibration_from(value)


def test_a_version_that_lost_a_shared_file_is_refused_and_the_other_still_serves(data_dir):
    """Links share bytes, not names."""
    (manifest_path(data_dir).parent / "vectors.npy").unlink()
    with pytest.raises(GalleryIndexError, match=r"vectors\.npy"):
        GalleryIndex.open(data_dir)
    GalleryIndex.open(data_dir, version="v000001").close()


def test_no_manifest_is_written_that_could_not_be_read(tmp_path):
    served = build(tmp_path, write_folder(tmp_path / "in", 2)).manifest
    paths = layout.index_paths(tmp_path, "default")
    with writing(paths), pytest.raises(IndexFormatError):
        seal_calibration(paths, served, replace(CALIBRATION, k=2))  # two entries, no third
    assert layout.list_versions(paths) == ["v000001"]
    assert read_manifest(paths.version("v000001")) == served
    assert not list(paths.versions.glob(".tmp-*"))
