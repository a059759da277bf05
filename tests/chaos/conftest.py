"""The world of the chaos tests, servers in it, and the table at the end of the run."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from chaos_load import Gist, Truths, gist_of, search
from chaos_world import Claim, Row, World
from redis_tools import RedisServer, running_redis
from rich import box
from rich.console import Console
from rich.table import Table
from service_helpers import Server, StartServer, draw_picture, encode, run_builder, starting_servers

ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture
def claim(request: pytest.FixtureRequest) -> Claim:
    rows = request.config.stash.setdefault(ROWS, [])

    def begin(scenario: str, promised: str) -> Row:
        rows.append(Row(scenario, promised))
        return rows[-1]

    return begin


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = terminalreporter.config.stash.get(ROWS, [])
    if not rows:
        return
    table = Table("scenario", "promised", "happened", box=box.ASCII, show_lines=True)
    for row in rows:
        table.add_row(row.scenario, row.promised, row.happened)
    console = Console(width=132, highlight=False)
    with console.capture() as captured:
        console.print(table, markup=False)
    terminalreporter.section("promised and happened")
    terminalreporter.write(captured.get())


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Drawn, indexed and asked about once, by the real programs."""
    folder = tmp_path_factory.mktemp("world")
    galleries = draw_galleries(folder)
    data_dir = folder / "data"
    for name, letter in (("a", "a"), ("b", "b"), ("default", "a")):
        run_builder("build", galleries[letter], "--data-dir", data_dir, "--index", name)
    # Pictures of either gallery at another size, and strangers.
    seeds = (0, 5, 11, 101, 110, 126, 201, 220, 238, 900, 901, 902)
    queries = [encode(draw_picture(seed, 150, 110)) for seed in seeds]
    with starting_servers(folder, forked=False) as start:
        truths = ask_undisturbed(start(data_dir, cache_bytes=0), queries)
    return World(galleries, data_dir, queries, truths)


def draw_galleries(folder: Path) -> dict[str, Path]:
    """Two galleries that share twelve pictures, at other rows in each; all else differs."""
    made = {}
    for letter, own, first in (("a", 28, 100), ("b", 40, 200)):
        made[letter] = folder / f"gallery-{letter}"
        made[letter].mkdir()
        for seed in range(12):
            draw_picture(seed).save(made[letter] / f"m{seed:02}.png")
        for seed in range(first, first + own):
            # Half of a gallery's own names sort before those that are shared, half after.
            name = f"{letter if seed % 2 else 'x' + letter}{seed}.png"
            draw_picture(seed).save(made[letter] / name)
    return made


def ask_undisturbed(server: Server, queries: list[bytes]) -> dict[str, Truths]:
    """The right answers, by index."""
    server.wait_ready()
    with httpx.Client(base_url=server.url, timeout=60) as client:

        def ask(query: bytes, index: str) -> Gist:
            return gist_of(search(client, query, index=index).json())

        return {name: [ask(query, name) for query in queries] for name in ("a", "b", "default")}


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    with starting_servers(tmp_path, forked=False) as start:
        yield start


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server
