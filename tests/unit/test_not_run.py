"""The suite says what it has not run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
CASE = """
import pytest
from redis_tools import require_redis_server

def test_with_redis():
    require_redis_server()

def test_without():
    pass
"""


def run_without_redis(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Two tests under this suite's conftest, on a machine that has no redis-server."""
    shutil.copy(TESTS / "conftest.py", folder)
    shutil.copy(TESTS / "redis_tools.py", folder)
    (folder / "test_case.py").write_text(CASE)
    kept = {name: value for name, value in os.environ.items() if name != "REQUIRE_REDIS"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "."],
        cwd=folder,
        env={**kept, "PATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_redis_server_the_last_line_says_what_was_not_run(tmp_path: Path):
    done = run_without_redis(tmp_path)
    assert done.returncode == 0
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("not run: 1 x redis-server is not installed")


def test_where_redis_is_required_its_absence_is_a_failure(tmp_path: Path):
    done = run_without_redis(tmp_path, REQUIRE_REDIS="1")
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert "REQUIRE_REDIS=1 is set" in done.stdout
