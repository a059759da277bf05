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
def page_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with one index; not to be changed."""
    require_program("chromium")  # Nothing is built for a browser that is not there.
    directory = tmp_path_factory.mktemp("page-data")
    build_gallery(directory / "pictures", directory, plain_rows(), "default")
    return directory


@pytest.fixture(scope="session")
def judging(
    page_data: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A service over the same gallery, calibrated."""
    directory = tmp_path_factory.mktemp("judging")
    shutil.copytree(page_data / "indexes", directory / "indexes")
    calibrate_gallery(directory / "pairs", directory)
    settings = Settings(data_dir=directory, examples_dir=examples, challenge=True, workers=1)
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
