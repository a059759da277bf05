"""`python -m service doctor` on good and on damaged deployments, and its parts on known cases."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from index_tools import build, write_folder
from paths import COMPACT_V0, DOCS
from redis_tools import running_redis
from typer.testing import CliRunner

from model.embedder import Embedder, ImageEmbedding
from model.pixels.decode import PILLOW_FORMATS, DecodeLimits
from service.__main__ import cli
from service.decoding.worker import memory_of_one_image
from service.doctor import certificate, machine
from service.doctor.certificate import (
    MemoryGallery,
    Model,
    attack,
    check_certificate,
    check_model,
    load_model,
)
from service.doctor.checks import Finding, examine
from service.doctor.deployment import (
    check_address,
    check_data_dir,
    check_decoding,
    check_indexes,
    check_keys,
    check_redis,
    check_tracing,
    checks_of,
)
from service.errors import KeysFileError
from service.keys.keys import Key, KeyRing, Scope, add_entry
from service.settings import Settings


@pytest.fixture(scope="module")
def model() -> Model:
    return partial(load_model, None, "float64")


def lines(run: Callable[..., object], *arguments: object) -> list[Finding]:
    return [finding for _, finding in examine({"check": lambda: run(*arguments)})]


def doctor(*arguments: object) -> tuple[int, str]:
    """The command, without an interpreter of its own, which takes seconds to start."""
    done = CliRunner().invoke(cli, [*map(str, arguments)])
    assert done.stderr == ""
    return done.exit_code, done.stdout


def test_a_good_setup_is_fit_to_serve(data_dir: Path):
    """As an operator runs it."""
    command = [sys.executable, "-m", "service", "doctor", "--data-dir", data_dir, "--json"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    report = json.loads(done.stdout)
    found = {line["check"]: line for line in report["findings"]}
    assert (done.returncode, done.stderr) == (0, b""), done.stdout
    assert report["ok"] is True
    assert list(found) == list(checks_of(Settings(data_dir=data_dir)))
    assert "60 entries" in found["index"]["detail"]
    assert "displaced nothing" in found["certificate"]["detail"]


def test_the_folder_that_one_is_in_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("numpy.py", "faiss.py", "service.py"):
        (tmp_path / name).write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    (found,) = lines(machine.check_faiss)
    assert found.outcome == "ok", found.detail


def test_a_library_that_does_not_end_its_search_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "_PROBE_S", 0.01)
    (found,) = lines(machine.check_faiss)
    assert found.outcome == "FAILED"
    assert "did not end a small search in 0.01 s" in found.detail


@pytest.mark.parametrize(
    ("library", "why"),
    [("raise SystemExit('no kernel image')", "no kernel image"), ("import os; os.abort()", "")],
)
def test_a_library_that_cannot_search_fails_and_ends_nothing_else(
    library: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "faiss.py").write_text(library)
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = lines(machine.check_faiss)
    assert found.outcome == "FAILED"
    assert "failed a small search" in found.detail
    assert why in found.detail


def test_a_damaged_index_and_a_missing_checkpoint_are_each_one_line(data_dir: Path, tmp_path: Path):
    shutil.copytree(data_dir, tmp_path / "data")
    (vectors,) = (tmp_path / "data").rglob("vectors.*")
    content = bytearray(vectors.read_bytes())
    content[100] ^= 1
    vectors.chmod(0o644)
    vectors.write_bytes(content)
    # Options before the command count too.
    options = ("--data-dir", tmp_path / "data", "doctor", "--checkpoint", tmp_path / "none")
    code, text = doctor(*options)
    failures = [line.split()[1] for line in text.splitlines() if line.startswith("FAILED")]
    assert code == 1
    assert failures == ["model", "index"]
    assert "index_builder verify --index default" in text
    assert "LIPSIM_CHECKPOINT" in text
    assert text.splitlines()[-1].startswith("NOT fit to serve")


def test_an_index_of_another_model_is_said_to_be_one(tmp_path: Path, model: Model):
    build(tmp_path / "data", write_folder(tmp_path / "pictures", 5))
    (line,) = lines(check_indexes, tmp_path / "data", model)
    assert line.outcome == "FAILED"
    assert "was made by model" in line.detail
    assert "build it again" in line.advice


def test_a_data_dir_that_is_not_there_fails_and_an_empty_one_warns(tmp_path: Path, model: Model):
    (line,) = lines(check_data_dir, tmp_path / "none")
    assert (line.outcome, "is no directory" in line.detail) == ("FAILED", True)
    assert [line.outcome for line in lines(check_data_dir, tmp_path)] == ["warning"]
    assert lines(check_indexes, tmp_path / "none", model) == []


def test_a_refused_checkpoint_is_loaded_once_and_no_certificate_is_tried(tmp_path: Path):
    refused = partial(load_model, tmp_path / "none", "float64")
    assert [line.outcome for line in lines(check_model, refused)] == ["FAILED"]
    (tmp_path / "none").write_bytes(b"too late")
    assert [line.outcome for line in lines(check_certificate, refused)] == ["warning"]


def test_every_format_we_know_is_decoded():
    limits = DecodeLimits(formats=PILLOW_FORMATS)
    (line,) = lines(check_decoding, limits)
    assert line.outcome == "ok"
    for name in limits.formats:
        assert name in line.detail


def test_a_format_that_does_not_decode_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "service.doctor.deployment.draw_sample", lambda name: b"no " + name.encode()
    )
    found = lines(check_decoding, DecodeLimits(formats=frozenset({"JPEG", "PNG"})))
    assert [line.outcome for line in found] == ["FAILED", "FAILED"]
    assert found[0].detail.startswith("JPEG: ")


@dataclass
class Scene:
    """A query, a gallery and what is proved of their network; of an attack, how it ended."""

    query: ImageEmbedding
    gallery: MemoryGallery
    embedder: Embedder

    def attack(self) -> Finding:
        return attack(
            self.query,
            self.gallery,
            lipschitz_bound=self.embedder.lipschitz_bound,
            scales=self.embedder.output_scales,
        )


@pytest.fixture(scope="module", params=["isotropic", "head-aware"])
def scene(request) -> Scene:
    embedder = Embedder.load(COMPACT_V0 if request.param == "isotropic" else None)
    assert embedder.metric == request.param
    return Scene(*certificate._scene(embedder), embedder)


def test_the_certificate_here_holds(scene: Scene):
    assert scene.attack().outcome == "ok"


@pytest.mark.parametrize("factor", [0.5, 0.999, 1.001, 2.0])
def test_a_certificate_with_a_wrong_factor_is_found_out(
    factor: float, scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    """Radii a thousandth too large are broken; far too small ones are no news but are said."""
    honest = certificate.certified_search

    def wrong(index: MemoryGallery, queries: list[ImageEmbedding], **options: object):
        (answer,) = honest(index, queries, **options)
        np.multiply(
            answer.certificate.certified_radii, factor, out=answer.certificate.certified_radii
        )
        return [answer]

    monkeypatch.setattr(certificate, "certified_search", wrong)
    finding = scene.attack()
    if factor == 0.999:
        assert finding.outcome == "ok"
    else:
        assert finding.outcome == "FAILED"
        assert "below the radius" in finding.detail or "far below" in finding.detail


def test_a_wrong_ranking_is_found_out(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(certificate, "top", lambda *_: np.array([5]))
    assert "rank differently" in scene.attack().detail


def test_whatever_a_check_raises_is_a_line():
    def broken() -> list[object]:
        raise ZeroDivisionError("in\nthe middle")

    (line,) = lines(broken)
    assert (line.outcome, line.detail) == ("FAILED", "ZeroDivisionError: in the middle")


def memory_of(workers: int, **sizes: int) -> list[Finding]:
    given = {"image_bytes": 0, "body_bytes": 0} | sizes
    return lines(partial(machine.check_memory, workers, data_dir=Path("none"), **given))


def test_memory_counts_the_largest_image_in_every_decode_process(monkeypatch: pytest.MonkeyPatch):
    """As docs/deployment-containers.md does: 2 GB for each picture of 50 megapixels, and 1 GB."""
    image_bytes = memory_of_one_image(DecodeLimits())
    assert 1.9e9 < image_bytes < 2.2e9
    for free, outcome in ((2 * image_bytes + 2e9, "ok"), (2 * image_bytes, "warning")):
        monkeypatch.setattr(machine, "_free_memory", lambda free=free: float(free))
        (line,) = memory_of(workers=2, image_bytes=image_bytes, body_bytes=512 << 20)
        assert line.outcome == outcome
    assert "LIPSIM_MAX_IMAGE_PIXELS" in line.advice
    # From the settings to the line.
    settings = Settings(workers=2, max_image_pixels=1_000_000, data_dir=Path("none"))
    check = checks_of(settings)["memory"]
    assert [line.outcome for line in lines(check)] == ["ok"]


@pytest.mark.parametrize("fault", ["missing", "damaged", "writable"])
def test_a_keys_file_that_ends_the_start_fails(fault: str, tmp_path: Path):
    path = tmp_path / "keys.json"
    if fault != "missing":
        path.write_text('{"keys": []}' if fault == "writable" else "{")
        path.chmod(0o602 if fault == "writable" else 0o600)
    (line,) = lines(check_keys, path)
    assert line.outcome == "FAILED"
    with pytest.raises(KeysFileError) as caught:
        KeyRing(path)
    assert line.detail == str(caught.value)


def test_a_sound_keys_file_is_counted_and_an_empty_one_warned_of(tmp_path: Path):
    path = tmp_path / "keys.json"
    path.write_text('{"keys": []}')
    assert [line.outcome for line in lines(check_keys, path)] == ["warning"]
    add_entry(path, Key(name="a", scope=Scope.READ, sha256="0" * 64))
    assert [(line.outcome, line.detail) for line in lines(check_keys, path)] == [
        ("ok", f"{path} holds 1")
    ]
    assert [line.outcome for line in lines(check_keys, None)] == ["ok"]


@pytest.mark.parametrize(
    ("host", "has_keys", "may_lack_keys", "outcome"),
    [
        ("127.0.0.1", False, False, "ok"),
        ("0.0.0.0", False, False, "FAILED"),
        ("0.0.0.0", True, False, "ok"),
        ("0.0.0.0", False, True, "ok"),
        ("", False, False, "FAILED"),
    ],
)
def test_an_address_that_the_service_refuses_fails(
    host: str, has_keys: bool, may_lack_keys: bool, outcome: str
):
    run = partial(check_address, host, has_keys=has_keys, may_lack_keys=may_lack_keys)
    (line,) = lines(run)
    assert line.outcome == outcome
    assert ("LIPSIM_KEYS_FILE" in line.advice) is (outcome == "FAILED")


def test_what_refuses_the_start_is_not_fit_to_serve(tmp_path: Path, monkeypatch):
    """By the program itself; the data directory is empty, which is a warning."""
    monkeypatch.setenv("LIPSIM_KEYS_FILE", str(tmp_path / "none"))
    code, text = doctor("doctor", "--data-dir", tmp_path)
    assert code == 1
    assert [line.split()[1] for line in text.splitlines() if line.startswith("FAILED")] == ["keys"]
    monkeypatch.delenv("LIPSIM_KEYS_FILE")
    check = checks_of(Settings(data_dir=tmp_path, host="0.0.0.0"))["address"]
    assert [line.outcome for line in lines(check)] == ["FAILED"]


def test_traces_that_nothing_can_send_fail(monkeypatch: pytest.MonkeyPatch):
    assert [line.outcome for line in lines(partial(check_tracing, wanted=False))] == ["ok"]
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "no-such-exporter")
    (line,) = lines(partial(check_tracing, wanted=True))
    assert line.outcome == "FAILED"
    assert "otel" in line.advice


def test_redis_is_asked_with_the_rights_that_its_page_lists_and_no_more(tmp_path: Path):
    page = (DOCS / "redis.md").read_text()
    rule = next(line for line in page.splitlines() if line.startswith("user lipsim "))
    rule = rule.replace("PASSWORD", "secret")
    with running_redis(tmp_path, "--user", *rule.split()[1:], "--user", "default", "off") as server:
        url = server.url.replace("//", "//lipsim:secret@")
        ask = partial(check_redis, has_secret=True, timeout_s=1.0)
        assert [line.outcome for line in lines(ask, url)] == ["ok"]
        (line,) = lines(ask, server.url)
        assert line.outcome == "warning"


def test_a_redis_that_takes_no_writes_is_warned_of(tmp_path: Path):
    with running_redis(tmp_path, "--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
        (line,) = lines(partial(check_redis, server.url, has_secret=True, timeout_s=1.0))
    assert line.outcome == "warning"
    assert "refuses to write" in line.detail


def test_too_many_workers_too_few_files_and_a_clock_behind_are_warned_of(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    assert [line.outcome for line in lines(machine.check_threads, 1000, 4)] == ["warning"]
    assert [line.outcome for line in lines(machine.check_open_files, 10**9)] == ["warning"]
    assert [line.outcome for line in memory_of(workers=10**6)] == ["warning"]
    assert [line.outcome for line in lines(machine.check_clock, data_dir)] == ["ok"]
    monkeypatch.setattr(machine, "_CLOCK_SLACK_S", -1e9)
    assert [line.outcome for line in lines(machine.check_clock, data_dir)] == ["warning"]
