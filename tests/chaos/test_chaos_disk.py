"""A build fills the disk that the service reads from."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_load import Asked, Gist, Load
from chaos_tools import version_of
from chaos_world import Claim, World
from service_helpers import StartServer, run_builder, try_builder, wait_for

SIZE_KIB = 16 * 1024
# Room from not even a lock file's up to nearly a whole version's.
LEFT_KIB = (0, 16, 96, 200)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted by root only")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KIB}k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left_kib: int) -> Path:
    """Fill the disk up but for so much; gives the file that does."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    ballast.write_bytes(bytes(max(0, free - 1024 * left_kib)))
    return ballast


def test_a_build_that_fills_the_disk_harms_nobody(
    world: World,
    small_disk: Path,
    start_server: StartServer,
    claim: Claim,
):
    row = claim(
        f"disk full during a build ({', '.join(map(str, LEFT_KIB))} KiB free)",
        "the build names the reason; CURRENT and the old version stay and serve; with room again "
        "the same command succeeds",
    )
    shutil.copytree(world.data_dir / "indexes/default", small_disk / "indexes/default")
    current = small_disk / "indexes/default/CURRENT"
    before = current.read_bytes()
    build = ("build", world.galleries["b"], "--data-dir", small_disk)
    server = start_server(small_disk, index_poll_interval_s=0.2, cache_bytes=0)
    server.wait_ready()

    def truth_of(asked: Asked) -> Gist:
        assert asked.gist is not None
        return world.truths["a" if asked.gist.version == "v000001" else "b"][asked.query]

    with Load(server.url, world.queries) as load:
        for left_kib in LEFT_KIB:
            ballast = fill(small_disk, left_kib)
            failed = try_builder(*build)
            assert failed.exit_code == 1, f"{left_kib} KiB were enough"
            assert "the disk is full" in failed.stderr, failed.stderr
            assert current.read_bytes() == before
            ballast.unlink()
            run_builder("verify", "--data-dir", small_disk)
        assert version_of(server.url) == "v000001"
        freed = time.monotonic()
        run_builder(*build)
        wait_for(lambda: version_of(server.url) == "v000002")
        load.wait_for_more(30)
    tally = load.tally(truth_of)
    full = load.tally(truth_of, until=freed)
    assert {asked.gist.version for asked in load.asked if asked.gist} == {"v000001", "v000002"}
    row.happened = (
        f"{len(LEFT_KIB)} builds failed, each said 'the disk is full'; {full.requests} requests "
        f"meanwhile; the next build served; {tally}"
    )
    assert tally.is_flawless, tally.problems
