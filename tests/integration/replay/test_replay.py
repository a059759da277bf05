"""Answers are recorded from a real server, and repeated offline in another state of the machine."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import typer
from forked import run_program
from PIL import Image, ImageOps
from service_helpers import draw_picture, encode, open_client, run_builder

from model.embedder import Embedder, ImageEmbedding
from model.errors import RetrievalError
from model.pixels.decode import DecodeLimits
from model.pixels.network_input import NetworkInput
from service.errors import ReplayError
from service.replay.__main__ import main
from service.replay.recomputation import Recomputation
from service.replay.replayer import Replayer
from service.schemas.search import OLD_RECORDS
from service.settings import Settings

QUERIES = [encode(draw_picture(500 + i, 150 + 9 * i, 120 + 5 * i), "JPEG") for i in range(12)]


def ask(client: httpx.Client, image: bytes, **options: object) -> dict:
    form = {name: str(value) for name, value in options.items()} | {"include_audit": "true"}
    return client.post("/v1/search", files={"image": image}, data=form).raise_for_status().json()


@pytest.fixture(scope="module")
def records(client: httpx.Client) -> list[dict]:
    """Answers of one server, asked all at once, so that they came from batches."""
    with ThreadPoolExecutor(12) as threads:
        return list(threads.map(lambda image: ask(client, image, k=5), QUERIES))


@pytest.fixture
def replayer(data_dir: Path):
    replayer = Replayer(Embedder.load(), data_dir, DecodeLimits())
    yield replayer
    replayer.close()


def test_every_answer_holds_when_it_is_repeated_alone(records: list[dict], replayer: Replayer):
    for record, image in zip(records, QUERIES, strict=True):
        outcome = replayer.replay(record, image)
        assert outcome.differences == ()
        assert outcome.largest_change <= outcome.tolerance + 1e-9


@pytest.mark.parametrize("name", OLD_RECORDS)
def test_a_record_of_an_older_release_holds_without_what_that_did_not_say(
    records: list[dict], replayer: Replayer, name: str
):
    record = without(OLD_RECORDS[name], records[0])
    assert replayer.replay(record, QUERIES[0]).differences
    record["audit"]["record"] = name
    assert replayer.replay(record, QUERIES[0]).differences == ()


def test_an_older_record_lacks_what_a_newer_one_lacks_too():
    assert all(older > newer for older, newer in pairwise(OLD_RECORDS.values()))


def without(names: Set[str], value: object) -> Any:
    """The JSON without the members of these names."""
    match value:
        case dict():
            return {n: without(names, member) for n, member in value.items() if n not in names}
        case list():
            return [without(names, member) for member in value]
        case _:
            return value


@pytest.mark.parametrize(
    "options", [{"max_distance": 0.6}, {"require_exact": True}, {"k": 60}, {"k": 1}]
)
def test_whatever_was_asked_is_asked_again(
    client: httpx.Client, replayer: Replayer, options: dict[str, object]
):
    for image in QUERIES[:3]:
        assert replayer.replay(ask(client, image, **options), image).differences == ()


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("results", 0, "certified_radius"), 1e6, "certified_radius"),
        (("results", 0, "certified_radius"), 1e-3, "certified_radius"),
        (("results", 0, "certified_radius"), None, "certified_radius"),
        (("results", 0, "id"), "somebody-else", "is not in the answer"),
        (("certificate", "top1_radius"), 1e6, "top1_radius"),
        (("certificate", "set_radius"), None, "set_radius"),
        (("certificate", "set_radius"), 0.0, "order_radius is above set_radius"),
        (("certificate", "top1_radius"), 0.0, "order_radius is above top1_radius"),
    ],
)
def test_an_answer_that_claims_something_else_does_not_hold(
    records: list[dict], replayer: Replayer, place: tuple, value: object, says: str
):
    forged = deepcopy(records[0])
    *way, last = place
    member = forged
    for step in way:
        member = member[step]
    member[last] = value
    outcome = replayer.replay(forged, QUERIES[0])
    assert any(says in words for words in outcome.differences)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("audit", "pixels_sha256"), "0" * 64, "decodes to other pixels"),
        (("audit", "index_seal"), "0" * 64, "another version of that name"),
        (("audit", "record"), "lipsim-audit-9", "wanted a record"),
        (("model", "fingerprint"), "0" * 64, "of model 000000000000"),
        (("model", "arithmetic"), "float32", "float32"),
        (("query", "sha256"), "0" * 64, "about file 000000000000"),
        (("index", "version"), "v009999", "v009999"),
        (("index", "name"), "../secret", "secret"),
    ],
)
def test_what_is_not_here_is_named(
    records: list[dict], replayer: Replayer, place: tuple[str, str], value: str, says: str
):
    other = deepcopy(records[0])
    other[place[0]][place[1]] = value
    with pytest.raises((RetrievalError, ValueError), match=says):
        replayer.replay(other, QUERIES[0])


@pytest.mark.parametrize("broken", [{}, {"audit": None}, {"audit": {"options": {}}}])
def test_what_is_no_record_is_refused(replayer: Replayer, broken: dict):
    with pytest.raises(ReplayError, match="no answer to a search with include_audit"):
        replayer.replay(broken, QUERIES[0])


def run_replay(*arguments: object, threads: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command; with so many threads it needs an interpreter of its own."""
    if threads is None:
        return run_program("service.replay", *arguments)
    command = [sys.executable, "-m", "service.replay", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_command_repeats_many_and_says_which_do_not_hold(
    records: list[dict], data_dir: Path, tmp_path: Path
):
    images = tmp_path / "images"
    images.mkdir()
    for number, image in enumerate(QUERIES):
        (images / f"{number}.bin").write_bytes(image)
    whole = tmp_path / "records.jsonl"
    whole.write_text("\n".join(json.dumps(record) for record in records))
    # Another number of threads than the server had.
    done = run_replay(whole, images, "--data-dir", data_dir, threads="2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 answers: 12 hold, 0 do not, 0 cannot" in done.stdout
    forged = deepcopy(records[3])
    forged["results"][0]["certified_radius"] *= 2
    whole.write_text("\n".join(json.dumps(record) for record in [*records[:3], forged]))
    done = run_replay(whole, images, "--data-dir", data_dir)
    assert done.returncode == 1
    assert "line 4 (image" in done.stdout
    (images / "3.bin").unlink()
    done = run_replay(whole, images, "--data-dir", data_dir)
    assert done.returncode == 2
    assert "4 answers: 3 hold, 0 do not, 1 cannot be replayed" in done.stdout
    assert "no file here has the SHA-256" in done.stdout


def test_answers_of_a_deployment_are_repeated_with_its_settings(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its data directory, arithmetic, formats and limits: none of them is a default here."""
    deployment = {
        "LIPSIM_DATA_DIR": str(data_dir),
        "LIPSIM_ARITHMETIC": "float32",
        "LIPSIM_ALLOWED_FORMATS": "BMP",
        "LIPSIM_MAX_IMAGE_BYTES": str(60 * 1024 * 1024),
    }
    (tmp_path / "image").write_bytes(encode(draw_picture(1, 4000, 2000), "BMP"))
    with monkeypatch.context() as patched:
        for variable, value in deployment.items():
            patched.setenv(variable, value)
        with open_client(Settings(workers=1, max_body_bytes_held=2**28)) as client:
            record = ask(client, (tmp_path / "image").read_bytes())
        (tmp_path / "record").write_text(json.dumps(record))
        patched.setenv("LIPSIM_MAX_BODY_BYTES_HELD", str(2**28))
        done = run_replay(tmp_path / "record", tmp_path / "image")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 hold" in done.stdout
    other = run_replay(tmp_path / "record", tmp_path / "image", "--data-dir", data_dir)
    assert other.returncode == 2


@pytest.mark.parametrize("text", ["", "no json", "[1]", '"a"', "1\n2"])
def test_a_file_that_holds_no_records_is_an_error_and_no_traceback(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "records").write_text(text)
    (tmp_path / "image").write_bytes(b"x")
    with pytest.raises(typer.Exit) as ended:
        main(tmp_path / "records", tmp_path / "image", tmp_path)
    assert ended.value.exit_code == 2
    said = capsys.readouterr()
    assert "replay" in said.out + said.err


def test_a_version_that_was_replaced_is_still_repeated(tmp_path: Path):
    gallery, data_dir = tmp_path / "gallery", tmp_path / "data"
    gallery.mkdir()
    for number in range(6):
        (gallery / f"{number}.png").write_bytes(encode(draw_picture(600 + number)))
    run_builder("build", gallery, "--data-dir", data_dir)
    with open_client(Settings(data_dir=data_dir)) as client:
        record = ask(client, QUERIES[0], k=3)
    (gallery / "0.png").unlink()
    run_builder("build", gallery, "--data-dir", data_dir)
    replayer = Replayer(Embedder.load(), data_dir, DecodeLimits())
    assert replayer.replay(record, QUERIES[0]).differences == ()
    replayer.close()


def letterbox(seed: int) -> bytes:
    return encode(ImageOps.expand(draw_picture(seed), (0, 50), "black"), "JPEG")


@pytest.mark.parametrize("options", [{"k": 3}, {"k": 60}, {"max_distance": 0.4}])
def test_a_trimmed_answer_is_trimmed_and_asked_again(
    client: httpx.Client, replayer: Replayer, options: dict[str, object]
):
    for image, has_borders in ((letterbox(8), True), (QUERIES[0], False)):
        record = ask(client, image, trim=True, **options)
        assert (record["trimmed"]["results"] is not None) == has_borders
        outcome = replayer.replay(record, image)
        assert outcome.differences == ()


@pytest.mark.parametrize("border", [0, 50])
def test_at_distance_0_an_answer_holds_whatever_way_it_was_summed(
    client: httpx.Client, gallery: Path, replayer: Replayer, border: int
):
    def embed_otherwise(inputs: Sequence[NetworkInput]) -> list[ImageEmbedding]:
        found = Embedder.embed_inputs(replayer._embedder, inputs)
        return [replace(one, vector=one.vector * (1.0 + noise)) for one in found]

    noise = 1e-15 * np.random.default_rng(7).standard_normal(replayer._embedder.dim)
    replayer._embedder.embed_inputs = embed_otherwise
    with Image.open(gallery / "p00.jpg") as picture:
        image = encode(ImageOps.expand(picture, (0, border), "black"))
    record = ask(client, image, k=3, max_distance=0.05, trim=True)
    (nearest, *_) = record["trimmed"]["results"] or record["results"]
    assert nearest["distance"] < 1e-14
    assert replayer.replay(record, image).differences == ()
    nearest["certified_radius"] *= 1.0 + 1e-5
    assert replayer.replay(record, image).differences != ()


def test_away_from_distance_0_a_threshold_makes_no_claim_looser(
    client: httpx.Client, gallery: Path, replayer: Replayer
):
    with Image.open(gallery / "p00.jpg") as picture:
        image = encode(picture.crop((5, 4, 150, 110)).point(lambda value: value // 2 + 40))
    record = ask(client, image, k=3, max_distance=0.9, require_exact=True)
    tolerance = replayer.replay(record, image).tolerance
    assert min(result["distance"] for result in record["results"]) > 1e-4
    plain = ask(client, image, k=3, require_exact=True)
    assert tolerance < 4.0 * replayer.replay(plain, image).tolerance
    gain, norm = record["query"]["gain"], record["query"]["embedding_norm"]
    # What it was at any distance: rounding at distance 0, times the norm.
    assert tolerance < 0.01 * 1e-7 * norm / gain


def test_a_zero_embedding_has_finite_tolerances():
    query = SimpleNamespace(vector=np.zeros(4), forward_error=1e-9, gain=0.5)
    found = Recomputation(
        embedder=SimpleNamespace(lipschitz_bound=1.0, output_scales=np.ones(4)),
        index=SimpleNamespace(vectors=np.eye(4, dtype=np.float32), norm_deviation=0.0),
        query=SimpleNamespace(norm=0.0, embedded=query),
        options=SimpleNamespace(max_distance=0.5),
    ).tolerances
    assert found.radius == 2.0 * 1e-9 / 0.5
    assert found.exit < 1e-6


@pytest.mark.parametrize("name", ["trim_radius", "certified_radius", "top1_radius"])
def test_a_trimmed_answer_that_claims_more_than_the_box_allows_does_not_hold(
    client: httpx.Client, replayer: Replayer, name: str
):
    image = letterbox(8)
    record = ask(client, image, k=3, trim=True)
    trimmed = record["trimmed"]
    owner = {"certified_radius": trimmed["results"][0], "top1_radius": trimmed["certificate"]}
    owner.get(name, trimmed)[name] = 1.01 * trimmed["trim_radius"]
    assert any(f".{name} was" in words for words in replayer.replay(record, image).differences)
