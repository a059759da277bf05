"""A small real gallery, indexed once by the real command with the default checkpoint."""

import csv
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from schema_ledger import LEDGER
from service_helpers import (
    ABSENT,
    StartServer,
    draw_picture,
    open_client,
    run_builder,
    starting_servers,
)
from shared_folders import MakeOnce

from service.settings import Settings


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures, one of them twice under another name."""
    folder = tmp_path_factory.mktemp("gallery")
    for seed in range(60):
        draw_picture(seed).save(folder / f"p{seed:02}.jpg", quality=92)
    (folder / "p07-again.jpg").write_bytes((folder / "p07.jpg").read_bytes())
    return folder


@pytest.fixture(scope="session")
def data_dir(gallery: Path, make_once: MakeOnce) -> Path:
    """A data directory with the gallery as its default index; not to be changed."""
    return make_once("data", lambda folder: run_builder("build", gallery, "--data-dir", folder))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the gallery's pictures, and pictures that are not in it."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for seed in range(60):
        name = f"copy{seed:02}.jpg"
        draw_picture(seed, 80, 60).save(folder / name, quality=60)
        rows.append({"path": name, "id": f"p{seed:02}.jpg", "kind": "smaller"})
    for seed in range(1000, 1000 + ABSENT):
        name = f"other{seed}.png"
        draw_picture(seed, 40, 30).save(folder / name)
        rows.append({"path": name, "id": "", "kind": "stranger"})
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "id", "kind"])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "pairs.csv"


@pytest.fixture(scope="session")
def client(data_dir: Path) -> Iterator[httpx.Client]:
    """The service over the gallery, with small limits so that tests may reach them."""
    settings = Settings(
        data_dir=data_dir, max_image_bytes=2_000_000, max_image_pixels=4_000_000, max_k=500
    )
    with open_client(settings) as opened:
        yield opened


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    with starting_servers(tmp_path) as start:
        yield start


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what the test against the OpenAPI document asked, and what it was answered."""
    ledger = config.stash.get(LEDGER, None)
    for line in ledger.lines() if ledger else ():
        terminalreporter.write_line(line)
