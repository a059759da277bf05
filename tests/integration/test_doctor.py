"""`python -m service doctor` on good and on damaged deployments, and its parts on known cases."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from index_tools import build, write_folder

from model.embedder import Embedder, ImageEmbedding
from model.image import DecodeLimits
from service.doctor import certificate, machine
from service.doctor.certificate import MemoryGallery, attack, check_certificate
from service.doctor.decoding import check_decoding
from service.doctor.findings import Check, Line, examine
from service.doctor.indexes import check_data_dir, check_indexes
from service.doctor.libraries import has_kernels
from service.doctor.model import Model, check_model
from service.doctor.plan import checks_of
from service.settings import Settings


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(None, "float64")


def lines(run: Callable[..., object], *arguments: object) -> list[Line]:
    return examine(Check("check", lambda: run(*arguments)))


def doctor(*arguments: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "service", "doctor", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == b""
    return done.returncode, done.stdout.decode()


def test_a_good_setup_is_fit_to_serve(data_dir: Path):
    code, text = doctor("--data-dir", data_dir, "--json")
    report = json.loads(text)
    found = {line["check"]: line for line in report["findings"]}
    assert code == 0, text
    assert report["ok"] is True
    assert list(found) == [check.name for check in checks_of(Settings(data_dir=data_dir))]
    assert "60 entries" in found["index"]["detail"]
    assert "displaced nothing" in found["certificate"]["detail"]


def test_a_damaged_index_and_a_missing_checkpoint_are_each_one_line(data_dir: Path, tmp_path: Path):
    shutil.copytree(data_dir, tmp_path / "data")
    (vectors,) = (tmp_path / "data").rglob("vectors.*")
    content = bytearray(vectors.read_bytes())
    content[100] ^= 1
    vectors.chmod(0o644)
    vectors.write_bytes(content)
    code, text = doctor("--data-dir", tmp_path / "data", "--checkpoint", tmp_path / "none")
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
    assert [line.outcome for line in lines(check_data_dir, tmp_path / "none")] == ["FAILED"]
    assert [line.outcome for line in lines(check_data_dir, tmp_path)] == ["warning"]
    assert lines(check_indexes, tmp_path / "none", model) == []


def test_a_refused_checkpoint_is_loaded_once_and_no_certificate_is_tried(tmp_path: Path):
    refused = Model(tmp_path / "none", "float64")
    assert [line.outcome for line in lines(check_model, refused)] == ["FAILED"]
    (tmp_path / "none").write_bytes(b"too late")
    assert [line.outcome for line in lines(check_certificate, refused)] == ["warning"]


def test_every_format_we_know_is_decoded():
    limits = DecodeLimits(formats=frozenset({"JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"}))
    (line,) = lines(check_decoding, limits)
    assert line.outcome == "ok"
    for name in limits.formats:
        assert name in line.detail


def test_a_format_that_does_not_decode_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.doctor.decoding.draw_sample", lambda name: b"no " + name.encode())
    found = lines(check_decoding, DecodeLimits(formats=frozenset({"JPEG", "PNG"})))
    assert [line.outcome for line in found] == ["FAILED", "FAILED"]
    assert found[0].detail.startswith("JPEG: ")


@pytest.fixture(scope="module")
def scene(model: Model) -> tuple[ImageEmbedding, MemoryGallery, float]:
    embedder = model.load()
    assert isinstance(embedder, Embedder)
    return *certificate._scene(embedder), embedder.lipschitz_bound


def test_the_certificate_here_holds(scene: tuple[ImageEmbedding, MemoryGallery, float]):
    query, gallery, bound = scene
    assert attack(query, gallery, lipschitz_bound=bound).outcome == "ok"


@pytest.mark.parametrize("factor", [0.5, 0.999, 1.001, 2.0])
def test_a_certificate_with_a_wrong_factor_is_found_out(
    factor: float, scene: tuple[ImageEmbedding, MemoryGallery, float], monkeypatch
):
    """Radii a thousandth too large are broken; far too small ones are no news but are said."""
    query, gallery, bound = scene
    honest = certificate.certified_search

    def wrong(index: MemoryGallery, queries: list[ImageEmbedding], **options: object):
        (answer,) = honest(index, queries, **options)
        np.multiply(
            answer.certificate.certified_radii, factor, out=answer.certificate.certified_radii
        )
        return [answer]

    monkeypatch.setattr(certificate, "certified_search", wrong)
    finding = attack(query, gallery, lipschitz_bound=bound)
    if factor == 0.999:
        assert finding.outcome == "ok"
    else:
        assert finding.outcome == "FAILED"
        assert "below the radius" in finding.detail or "far below" in finding.detail


def test_a_wrong_ranking_is_found_out(
    scene: tuple[ImageEmbedding, MemoryGallery, float], monkeypatch: pytest.MonkeyPatch
):
    query, gallery, bound = scene
    monkeypatch.setattr(certificate, "top", lambda *_: np.array([5]))
    assert "rank differently" in attack(query, gallery, lipschitz_bound=bound).detail


def test_whatever_a_check_raises_is_a_line():
    def broken() -> list[object]:
        raise ZeroDivisionError("in\nthe middle")

    (line,) = lines(broken)
    assert (line.outcome, line.detail) == ("FAILED", "ZeroDivisionError: in the middle")


@pytest.mark.parametrize(
    ("arch", "kernels", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90"], True),
        ((7, 5), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((10, 0), ["sm_90a"], False),
        ((9, 0), ["sm_90a"], True),
        ((9, 0), [], False),
    ],
)
def test_a_device_runs_what_was_built_for_it(arch: tuple[int, int], kernels: list[str], runs: bool):
    assert has_kernels(arch, kernels) is runs


def test_too_many_workers_too_few_files_and_a_clock_behind_are_warned_of(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    assert [line.outcome for line in lines(machine.check_threads, 1000, 4)] == ["warning"]
    assert [line.outcome for line in lines(machine.check_open_files, 10**9)] == ["warning"]
    assert [line.outcome for line in lines(machine.check_memory, 10**6, 0, data_dir)] == ["warning"]
    assert [line.outcome for line in lines(machine.check_clock, data_dir)] == ["ok"]
    monkeypatch.setattr(machine, "_CLOCK_SLACK_S", -1e9)
    assert [line.outcome for line in lines(machine.check_clock, data_dir)] == ["warning"]
