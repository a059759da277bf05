"""The index is rebuilt a hundred times under load: no failure, no mixture, no growth."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chaos_load import Asked, Gist, Load, Truths
from chaos_tools import MIB, mapped_versions, settled_rss, version_of
from chaos_world import Claim, World
from paths import ROOT
from service_helpers import Server, StartServer, open_files, wait_for

REBUILDS = 100


@contextmanager
def builder_of(data_dir: Path) -> Iterator[Callable[[Path], str]]:
    """A builder process of its own; gives what makes it build a folder and say the version."""
    process = subprocess.Popen(
        [sys.executable, "tests/chaos/chaos_builder.py", str(data_dir)],
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def build(folder: Path) -> str:
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        yield build
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def growth(before: int, after: int) -> str:
    return f"{before / MIB:.0f} to {after / MIB:.0f} MiB ({100 * (after / before - 1):+.1f} %)"


@pytest.mark.timeout(900)
def test_a_hundred_rebuilds_under_load(
    world: World,
    tmp_path: Path,
    start_server: StartServer,
    claim: Claim,
):
    row = claim(
        f"index rebuilt {REBUILDS} times under load, two galleries in turn",
        "0 failed requests; each answer is of one version, wholly; RSS after the 100th less than "
        "5 % above that after the 10th",
    )
    own = tmp_path / "own"
    shutil.copytree(world.data_dir / "indexes/default", own / "indexes/default")
    gallery_of = {"v000001": "a"}

    def truth_of(asked: Asked) -> Gist:
        assert asked.gist is not None
        return world.truths[gallery_of[asked.gist.version]][asked.query]

    server = start_server(own, index_poll_interval_s=0.1, cache_bytes=0)
    server.wait_ready()
    with Load(server.url, world.queries) as load, builder_of(own) as build:
        for number in range(1, REBUILDS + 1):
            letter = "ab"[number % 2]
            version = build(world.galleries[letter])
            assert version not in gallery_of
            gallery_of[version] = letter
            wait_for(lambda version=version: version_of(server.url) == version)
            load.wait_for_more(5)
            if number == 10:
                before = settled_rss(server)
        after = settled_rss(server)
    tally = load.tally(truth_of)
    served = {asked.gist.version for asked in load.asked if asked.gist}
    mixed = mixtures(tally.wrong, world.truths)
    row.happened = (
        f"{len(served)} versions answered; {tally}; {mixed} mixed; RSS of the service "
        f"{growth(before[0], after[0])}, with its decode processes "
        f"{growth(before[1], after[1])}"
    )
    assert tally.is_flawless, tally.problems
    assert len(served) > REBUILDS
    assert max(map(len, (mapped_versions(server), held_versions(server)))) <= 2
    assert after[1] < 1.05 * before[1]


def mixtures(wrong: list[Asked], truths: dict[str, Truths]) -> int:
    """How many wrong answers hold an id of one gallery and the size, or an id, of the other."""
    known = {letter: {i for gist in told for i in gist.ids} for letter, told in truths.items()}
    only = known["a"] - known["b"], known["b"] - known["a"]
    sizes = truths["a"][0].size, truths["b"][0].size
    mixed = 0
    for asked in wrong:
        assert asked.gist is not None
        sides = {s for s in (0, 1) if only[s] & set(asked.gist.ids) or sizes[s] == asked.gist.size}
        mixed += len(sides) > 1
    return mixed


def held_versions(server: Server) -> set[str]:
    """Versions of which the service has a file open, deleted ones too."""
    return {Path(name).parent.name for name in open_files(server) if "/versions/" in name}
