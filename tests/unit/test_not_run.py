"""The suite says what it has not run, and CI does not run without what the suite needs."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest
from paths import TESTS

CI = TESTS.parent / ".ci" / "run"
CASE = """
import pytest
from programs import require_program

def test_with_redis():
    require_program("redis-server")

def test_without():
    pass
"""


def test_no_folder_of_tests_is_passed_over_and_no_two_files_share_a_name(
    pytestconfig: pytest.Config,
):
    """pytest passes over some folders by name, and takes one of two files of the same name."""
    files = [path.relative_to(TESTS.parent) for path in TESTS.rglob("test_*.py")]
    folders = {part for path in files for part in path.parts[:-1]}
    patterns = pytestconfig.getini("norecursedirs")
    assert not [f for f in folders for pattern in patterns if fnmatch(f, pattern)]
    names = Counter(path.name for path in files)
    assert [name for name, count in names.items() if count > 1] == []


def run_without_redis(
    folder: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Two tests under this suite's conftest, on a machine that has no redis-server."""
    shutil.copy(TESTS / "conftest.py", folder)
    for name in ("programs.py", "shared_folders.py"):
        shutil.copy(TESTS / "support" / name, folder)
    (folder / "test_case.py").write_text(CASE)
    kept = {name: value for name, value in os.environ.items() if name != "REQUIRE_REDIS"}
    # Of the plugins here only one changes what is said at the end; they take a second to load.
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ".", *options, "."],
        cwd=folder,
        env={**kept, **plugins, "PATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("options", [("-q",), ("-ra", "-n", "2", "--dist", "loadfile")])
def test_without_redis_server_the_last_line_says_what_was_not_run(
    tmp_path: Path, options: tuple[str, ...]
):
    done = run_without_redis(tmp_path, *options)
    assert done.returncode == 0
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("not run: 1 x redis-server is not installed")


def test_where_redis_is_required_its_absence_is_a_failure(tmp_path: Path):
    done = run_without_redis(tmp_path, REQUIRE_REDIS="1")
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert "REQUIRE_REDIS=1 is set" in done.stdout


def run_ci(folder: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """The script of CI where only a shell, `dirname` and the given programs are there.

    `make` writes down what it was asked, and whether Redis, Chromium and MkDocs were required.
    """
    (folder / ".ci").mkdir()
    shutil.copy(CI, folder / ".ci")
    path = folder / "bin"
    path.mkdir()
    for name in ("bash", "dirname", "cp", "chmod"):
        (path / name).symlink_to(shutil.which(name) or "")
    required = "${REQUIRE_REDIS-}${REQUIRE_CHROMIUM-}${REQUIRE_MKDOCS-}"
    programs["make"] = f'echo "$1 {required}" >> {folder}/made'
    for name, script in programs.items():
        (path / name.replace("_", "-")).write_text(f"#!{path}/bash\n{script}\n")
        (path / name.replace("_", "-")).chmod(0o755)
    return subprocess.run(
        [str(path / "bash"), str(folder / ".ci" / "run")],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


NEEDED = ("redis-server", "chromium")
MADE = "check 111\ndocs 111\ntest 111\ntrain-smoke 111\n"


@pytest.mark.parametrize("missing", NEEDED)
@pytest.mark.parametrize(
    "programs", [{}, {"apt_get": "exit 100"}, {"apt_get": "exit 0"}], ids=["none", "fails", "lies"]
)
def test_ci_fails_in_one_clear_line_where_a_program_cannot_be_installed(
    tmp_path: Path, programs: dict[str, str], missing: str
):
    there = {name: "exit 0" for name in NEEDED if name != missing}
    done = run_ci(tmp_path, **there, **programs)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"CI FAILED: {missing} is not here")
    assert not (tmp_path / "made").exists()


def test_ci_installs_what_the_suite_needs_and_requires_it(tmp_path: Path):
    folder = tmp_path / "bin"
    install = f"[ $1 = update ] || {{ cp {folder}/dirname {folder}/${{!#}}; }}"
    assert run_ci(tmp_path, apt_get=install).returncode == 0
    assert (tmp_path / "made").read_text() == MADE


def test_ci_with_everything_there_installs_nothing_and_requires_it(tmp_path: Path):
    done = run_ci(tmp_path, **dict.fromkeys(NEEDED, "exit 0"), apt_get="exit 100")
    assert done.returncode == 0
    assert (tmp_path / "made").read_text() == MADE
