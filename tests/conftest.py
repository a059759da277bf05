"""What every test relies on."""

import gc
import os
import signal
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import jaxtyping
import pytest
from shared_folders import MakeOnce, making_once_in

# A shell starts its background jobs with SIGINT ignored, and children inherit that: tests that
# interrupt a program would then wait for its natural end.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The settings of a service that is run from this shell are not those of the tests'.
for name in [name for name in os.environ if name.startswith("LIPSIM_")]:
    del os.environ[name]


def pytest_configure() -> None:
    """The collector need not go through torch again and again while all is imported."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The number of generated requests, for `make fuzz-api`; where `make screenshots` saves."""
    parser.addoption(
        "--cases",
        type=int,
        default=300,
        help="requests of test_service_schema",
    )
    parser.addoption(
        "--screenshots",
        type=Path,
        help="folder to save the pictures of test_page_screenshots in, of the demo's gallery",
    )


@pytest.fixture(scope="session")
def cases(pytestconfig: pytest.Config) -> int:
    """How many requests the test against the OpenAPI document makes, at least."""
    return pytestconfig.getoption("cases")


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> MakeOnce:
    """Makes a folder once for all processes of this run."""
    own = tmp_path_factory.getbasetemp()
    return making_once_in(own if worker_id == "master" else own.parent)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Of marked tests no call's shapes are checked, nor of what their fixtures do.

    A fixture would come too late: those of a session are made before those of a test.
    """
    was = jaxtyping.config.jaxtyping_disable
    is_marked = item.get_closest_marker("without_shape_checks") is not None
    jaxtyping.config.update("jaxtyping_disable", was or is_marked)
    try:
        return (yield)
    finally:
        jaxtyping.config.update("jaxtyping_disable", was)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Say, as the last line, what was not run and why: a skipped test has shown nothing."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    skipped = reporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        said = "; ".join(f"{number} x {reason}" for reason, number in reasons.most_common())
        reporter.write_line(f"not run: {said}")
