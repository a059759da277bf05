from pathlib import Path

import pytest

from model.cli.threads import usable_cores
from service import settings
from service.settings import Settings


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("200000 100000\n", 2.0), ("150000 100000", 1.5), ("50000 100000", 0.5)],
)
def test_cores_are_those_that_a_container_may_use(
    limit: str, cores: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(64)))
    (tmp_path / "cpu.max").write_text(limit)
    assert usable_cores(tmp_path / "cpu.max") == cores


@pytest.mark.parametrize("limit", ["max 100000\n", "", "1 2 3", "100000 0", "nonsense"])
def test_without_a_limit_the_affinity_counts(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {3, 5, 7})
    (tmp_path / "cpu.max").write_text(limit)
    assert usable_cores(tmp_path / "cpu.max") == 3.0
    assert usable_cores(tmp_path / "none") == 3.0


@pytest.mark.parametrize(("cores", "workers"), [(0.5, 1), (1.5, 2), (4.0, 4), (2e3, 1024)])
def test_a_service_has_a_worker_for_each_usable_core(
    cores: float, workers: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(settings, "usable_cores", lambda: cores)
    monkeypatch.delenv("LIPSIM_WORKERS", raising=False)
    assert Settings().workers == workers
