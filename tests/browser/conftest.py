"""One browser a file, and one service over a small gallery, with examples."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browser_tools import (
    build_gallery,
    calibrate_gallery,
    open_browser,
    open_page,
    plain_rows,
    save_examples,
)
from playwright.sync_api import Browser, Page
from programs import require_program
from service_helpers import open_client
from shared_folders import MakeOnce

from service.settings import Settings


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Not for the session: Playwright keeps an event loop in this thread, where others run theirs.
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "examples"
    save_examples(folder)
    return folder


@pytest.fixture(scope="session")
def page_data(make_once: MakeOnce) -> Path:
    """A data directory with one index; not to be changed."""
    require_program("chromium")  # Nothing is built for a browser that is not there.

    def build(folder: Path) -> None:
        build_gallery(folder / "pictures", folder, plain_rows(), "default")

    return make_once("page-data", build)


@pytest.fixture(scope="session")
def judging_data(page_data: Path, make_once: MakeOnce) -> Path:
    """The same, calibrated; not to be changed."""

    def calibrate(folder: Path) -> None:
        shutil.copytree(page_data / "indexes", folder / "indexes")
        calibrate_gallery(folder / "pairs", folder)

    return make_once("judging", calibrate)


@pytest.fixture(scope="session")
def judging(judging_data: Path, examples: Path) -> Iterator[httpx.Client]:
    """A service over the same gallery, calibrated."""
    settings = Settings(data_dir=judging_data, examples_dir=examples, challenge=True, workers=1)
    with open_client(settings) as client:
        yield client


@pytest.fixture(scope="session")
def service(page_data: Path, examples: Path) -> Iterator[httpx.Client]:
    settings = Settings(
        data_dir=page_data, examples_dir=examples, workers=1, max_image_bytes=200_000
    )
    with open_client(settings) as client:
        yield client


@pytest.fixture(scope="session")
def url(service: httpx.Client) -> str:
    return f"{service.base_url}/"


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with open_page(browser, url) as opened:
        yield opened
