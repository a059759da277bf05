"""A disk that fills up during a build: named, harmless, and no obstacle to a build that fits."""

import os
import subprocess
import sys

import pytest
from index_tools import build, write_folder
from paths import TESTS

from index_builder.build.maintenance import verify_index
from index_builder.search.gallery import GalleryIndex

TOOLS = TESTS / "support" / "index_tools.py"
ROOT = TOOLS.parents[1]


def build_within(kilobytes, data_dir, source):
    """A builder whose files cannot grow beyond so much: to it, the disk is full then."""
    limited = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "-"]
    return subprocess.run(
        [*limited, sys.executable, str(TOOLS), str(data_dir), str(source)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )


# From not even an empty journal to a journal that holds some batches.
@pytest.mark.parametrize("kilobytes", [1, 10, 60, 120])
def test_a_full_disk_is_named_and_leaves_the_index_as_it_was(tmp_path, kilobytes):
    build(tmp_path, write_folder(tmp_path / "old", 5))
    served = verify_index(tmp_path, "default")
    failed = build_within(kilobytes, tmp_path, write_folder(tmp_path / "large", 150, first=100))
    assert failed.returncode == 1
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("index_builder.errors.DiskFullError: the disk is full: "), failed.stderr
    assert "free space or `prune` old versions" in last
    assert "damaged" not in last
    assert verify_index(tmp_path, "default") == served
    assert [p.name for p in (tmp_path / "indexes/default/versions").iterdir()] == ["v000001"]
    # With room again, the same command ends the build.
    build(tmp_path, tmp_path / "large")
    with GalleryIndex.open(tmp_path) as index:
        assert index.size == 150
    verify_index(tmp_path, "default")
