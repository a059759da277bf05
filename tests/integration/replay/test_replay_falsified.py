"""Every member of a recorded answer is falsified in turn, and no replay says that it holds."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from index_tools import CALIBRATION
from PIL import ImageOps
from service_helpers import draw_picture, encode, open_client, run_builder
from test_replay import ask

from index_builder.build.writer import seal_calibration, writing
from index_builder.store.layout import index_paths
from index_builder.store.manifest import read_manifest
from model.embedder import Embedder, ImageEmbedding
from model.errors import RetrievalError
from model.pixels.decode import DecodeLimits
from model.pixels.network_input import NetworkInput
from service.replay.__main__ import main
from service.replay.replayer import Replayer
from service.settings import Settings

pytestmark = pytest.mark.without_shape_checks

# Nothing can be said of what was asked, nor of how long it took.
QUESTION = ("audit", "options")
TIMINGS = ("timings_ms",)
# Members that earlier versions did not have: to leave one out says that it is false.
LATER = {"truncated", "stale"}

# What an honest embedding may differ by is far smaller; of a smaller number, a hundredth is less.
VISIBLE = 1e-7

OPTIONS = (
    {"k": 3, "operating_point": "balanced", "epsilon": 0.3},
    {"k": 4, "max_distance": 0.5, "include_vector": True, "include_metadata": False},
    {"k": 2, "epsilon": 1e9},
    {"k": 2, "require_exact": True},
    {"k": 3, "max_distance": 1e-9},
)
WHOLE = {"k": 200, "epsilon": 0.5}
# A picture of the gallery, which is a copy of another one there, and a stranger.
IMAGES = (encode(draw_picture(7, 90, 70), "JPEG"), encode(draw_picture(777, 64, 48)))
ASKED = [(IMAGES[0], options) for options in (*OPTIONS, WHOLE)]
ASKED += [(IMAGES[1], options) for options in OPTIONS]
# The first of them in a letterbox, and one that has no borders.
BOXED = encode(ImageOps.expand(draw_picture(7, 90, 70), (0, 30), (9, 8, 7)), "PNG")
TRIM = {"k": 2, "operating_point": "balanced", "epsilon": 0.3, "trim": True}
ASKED += [(BOXED, TRIM), (IMAGES[1], {"k": 2, "trim": True})]

Path_ = tuple[str | int, ...]


class Recorded(NamedTuple):
    record: dict
    image: bytes


@pytest.fixture(scope="module")
def calibrated(gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery with something said of each picture, and with an operating point."""
    lines = [
        {"id": picture.name, "path": picture.name, "place": {"row": number, "seen": [True, 1.5]}}
        for number, picture in enumerate(sorted(gallery.iterdir()))
    ]
    folder = tmp_path_factory.mktemp("described")
    for picture in gallery.iterdir():
        shutil.copy(picture, folder)
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run_builder("build", folder / "manifest.jsonl", "--data-dir", folder / "data")
    paths = index_paths(folder / "data", "default")
    with writing(paths):
        seal_calibration(paths, read_manifest(paths.version("v000001")), CALIBRATION)
    return folder / "data"


@pytest.fixture(scope="module")
def recorded(calibrated: Path) -> list[Recorded]:
    with open_client(Settings(data_dir=calibrated)) as client:
        return [Recorded(ask(client, image, **options), image) for image, options in ASKED]


@pytest.fixture(scope="module")
def replayer(calibrated: Path) -> Iterator[Replayer]:
    embedder = Embedder.load()
    known: dict[bytes, list[ImageEmbedding]] = {}

    def embed_once(inputs: Sequence[NetworkInput]) -> list[ImageEmbedding]:
        values = b"".join(given.values.tobytes() for given in inputs)
        return known.get(values) or known.setdefault(
            values, Embedder.embed_inputs(embedder, inputs)
        )

    embedder.embed_inputs = embed_once
    replayer = Replayer(embedder, calibrated, DecodeLimits())
    yield replayer
    replayer.close()


def outcome_of(replayer: Replayer, record: object, image: bytes) -> str:
    """What is said: that it holds, how it differs, what was not checked, or that it is refused."""
    try:
        outcome = replayer.replay(record, image)  # pyright: ignore[reportArgumentType]
    except RetrievalError:
        return "refused"
    if outcome.differences:
        return "differs"
    return f"holds, but for {outcome.unchecked[1:]}" if outcome.unchecked[1:] else "holds"


def members(value: object, path: Path_ = ()) -> Iterator[tuple[Path_, object]]:
    """Every member of a JSON value, objects and lists before what is in them."""
    if path[: len(TIMINGS)] == TIMINGS:
        return
    yield path, value
    inner = value.items() if isinstance(value, dict) else ()
    for name, member in enumerate(value) if isinstance(value, list) else inner:
        # Enough of a long list: each result, and each number of a vector, is treated alike.
        if not (isinstance(name, int) and 1 < name < len(value) - 1):
            yield from members(member, (*path, name))


def falsified(value: object) -> Iterator[object]:
    """Other values that might stand in its place."""
    match value:
        case bool():
            yield from (not value, None, int(value), "true")
        case None:
            yield from (1e9, 0.0, "x", True, {}, [])
        case int() | float():
            if abs(value * 0.01) > VISIBLE:
                yield from (value * 1.01, value * 0.99)
            yield from (value + 1, -value - 1, 1e9, 1e308, 10**400, math.nan, math.inf, -math.inf)
            yield from (None, str(value), True, [value])
        case str():
            yield from (value + "x", "", value.swapcase() + "\ud800", None, 7)
        case list():
            yield from ([*value, None], None, {}, "x")
            if value:
                yield from ([*value, value[-1]], value[:-1], value[1:], [])
            if len(value) > 1:
                yield from (value[::-1], value[1:] + value[:1])
        case dict():
            yield from ({**value, "more": 1}, None, [], "x")
            needed = value.keys() - LATER
            yield from ({n: v for n, v in value.items() if n != gone} for gone in needed)


def with_member(record: Any, path: Path_, value: object) -> object:
    """A record with another member, else the same one: only what lies on the way is copied."""
    if not path:
        return value
    first, *rest = path
    changed = copy(record)
    changed[first] = with_member(record[first], tuple(rest), value)
    return changed


def test_what_was_recorded_holds(recorded: list[Recorded], replayer: Replayer):
    for record, image in recorded:
        assert replayer.replay(record, image).differences == ()
        assert outcome_of(replayer, record, image) == "holds"


def test_the_records_have_what_is_falsified(recorded: list[Recorded]):
    results = [result for record, _ in recorded for result in record["results"]]
    assert any(result["duplicates"] for result in results)
    assert any(result["metadata"] for result in results if "metadata" in result)
    assert {result["match"] for result in results} == {True, False, None}
    assert {result.get("certified") for result in results} == {True, False, None}
    assert any(result["certified_radius"] is None for result in results)
    assert any("vector" in record["query"] for record, _ in recorded)
    assert any(not record["results"] for record, _ in recorded)
    second = [record["trimmed"]["results"] for record, _ in recorded if "trimmed" in record]
    assert len(second) == 2
    assert second.count(None) == 1


@pytest.mark.parametrize("number", range(len(ASKED)))
def test_no_member_can_be_falsified(recorded: list[Recorded], replayer: Replayer, number: int):
    record, image = recorded[number]
    believed: list[str] = []
    for path, value in members(record):
        for other in falsified(value) if path[: len(QUESTION)] != QUESTION else ():
            said = outcome_of(replayer, with_member(record, path, other), image)
            if said == "holds":
                believed.append(f"{'.'.join(map(str, path))}: {value!r:.60} as {other!r:.60}")
    assert not believed, "\n".join(believed)


def test_a_statistic_without_a_cosine_is_the_margin_itself(
    recorded: list[Recorded], replayer: Replayer
):
    record, image = recorded[0]
    near = record["results"][0]["match_statistic"] + 1e-12
    changed = with_member(record, ("results", 0, "match_statistic"), near)
    (words,) = replayer.replay(changed, image).differences
    assert "that is not match_margin" in words


def test_another_question_is_answered_or_refused(recorded: list[Recorded], replayer: Replayer):
    for record, image in recorded:
        for path, value in members(record["audit"]["options"], QUESTION):
            for other in falsified(value):
                outcome_of(replayer, with_member(record, path, other), image)


@pytest.mark.parametrize("name", ["k", "operating_point", "include_vector", "include_metadata"])
def test_an_answer_to_another_question_does_not_hold(
    recorded: list[Recorded], replayer: Replayer, name: str
):
    record, image = recorded[0]
    was = record["audit"]["options"][name]
    other = {"k": 2, "operating_point": None}.get(name, not was)
    changed = with_member(record, (*QUESTION, name), other)
    assert outcome_of(replayer, changed, image) == "differs"


def test_lines_that_are_damaged_are_named_and_the_others_are_repeated(
    recorded: list[Recorded],
    calibrated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    record, image = recorded[0]
    (tmp_path / "image").write_bytes(image)
    good = json.dumps(record)
    forged = json.dumps(with_member(record, ("query", "width"), 91))
    deep = "[" * 100_000
    twice = good.replace('"certified_radius":', '"certified_radius": 999.0, "certified_radius":', 1)
    damaged = ("{", "NaN", "7", "[]", good[:-9], '{"audit": {"options": 1}}', deep, "\udcff", twice)

    def replay(*lines: str) -> tuple[int, str]:
        text = "\n".join(lines)
        (tmp_path / "records").write_text(text, encoding="utf-8", errors="surrogateescape")
        with pytest.raises(typer.Exit) as ended:
            main(tmp_path / "records", tmp_path / "image", calibrated)
        return ended.value.exit_code, capsys.readouterr().out

    code, said = replay(good, *damaged, "", good)
    assert code == 2
    for number in range(2, 2 + len(damaged)):
        assert f"line {number}: cannot be replayed" in said
    assert "11 answers: 2 hold, 0 do not, 9 cannot be replayed" in said
    assert "not checked: timings_ms" in said
    # What is known to be wrong is not hidden by what is not known.
    code, said = replay(good, "{", forged)
    assert code == 1
    assert "line 3 (image " in said
    assert "query.width was 91 and is 90" in said
    assert "3 answers: 1 hold, 1 do not, 1 cannot be replayed" in said
