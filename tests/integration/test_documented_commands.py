"""Every command of the README and the docs runs as written, or is named here with why not.

So does every Python block, without exception, after the commands of its page.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import httpx
import pytest
from documented import PAGES, Command, commands, program
from forked import Forked, run_module, run_program
from paths import GALLERY, ROOT
from service_helpers import draw_picture

COMMANDS = [command for page in PAGES for command in commands(page)]
PROGRAMS = {page.name: found for page in PAGES if (found := program(page))}

# What is not run here, and why. The first pattern that fits counts.
NOT_RUN = {
    r"^(\w+=\S+ )*docker |docker compose|^export COMPOSE_FILE": "needs Docker",
    r"^sudo ": "changes the machine",
    r"^make ": "a target of the Makefile; that it is there is tested below",
    r"^export ": "sets a variable of the shell",
    r"^torchrun |--device cuda|\bNIGHTS\b|\bIMAGENET\b": "needs accelerators and their data",
    r"model\.attack ": "minutes of gradient steps; `make train-smoke` runs it small",
    r"calibrate (SOURCE|~/pictures)": "a minute of edits; tests/integration/calibrate",
    r"model\.train (corpus (corpus|both|small|runs/corpus)\b|teach)": "fetches pictures or weights",
    r"\bruns/|model\.train distill": "minutes of training on a fetched corpus; `make train-smoke`",
    r" \.\.\.$": "an abbreviation",
    r"\$LIPSIM_KEY": "needs keys in force; tests/integration/service/test_service_keys.py",
}
# Words that stand for something of the reader's.
STANDS_FOR = {
    r"\b(PICTURES|DATA|CORPUS)\b": "few",
    r"\bTRIPLETS\b": "triplets",
    r"\bNAME\.safetensors\b": "wave-96",
    r"--index NAME\b": "--index default",
    r"\bphotos\b": "few",
    r"--checkpoint FILE": "--checkpoint " + str(ROOT / "model/checkpoints/wave-96.safetensors"),
    r"/etc/lipsim": "etc",
    # Sizes that take a minute.
    r"--triplets \d+": "--triplets 24",
    r"(model\.evaluate all +)~/pictures": r"\1few",
}
# Run once, before the server that the others ask.
CALIBRATION = "calibration.md"
PAGES_RUN = sorted(
    {c.page for c in COMMANDS} - {"CONTRIBUTING.md", "chaos.md", "fuzzing.md", CALIBRATION}
)


def why_not(command: Command) -> str | None:
    return next((why for words, why in NOT_RUN.items() if re.search(words, command.text)), None)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a reader's clone after `make setup`, with pictures at home."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "home").mkdir()
    pictures = folder / "pictures"
    pictures.mkdir()
    for seed in range(60):
        draw_picture(seed, 48, 36).save(pictures / f"p{seed:02}.jpg", quality=92)
    (folder / "home" / "pictures").symlink_to(pictures)
    for kind in ("clipart", "photos"):
        (folder / "few" / kind).mkdir(parents=True)
        for path in sorted((GALLERY / kind).iterdir())[:6]:
            shutil.copy(path, folder / "few" / kind)
    draw_picture(5, 100, 75).save(folder / "query.jpg", quality=80)
    draw_picture(6, 100, 75).save(folder / "other.png")
    (folder / "pairs.csv").write_text(
        "path,id,kind\n"
        + "".join(f"pictures/p{seed:02}.jpg,p{seed:02}.jpg,same\n" for seed in range(30))
        + "".join(f"strangers/s{seed}.png,,stranger\n" for seed in range(680))
    )
    (folder / "strangers").mkdir()
    for seed in range(680):
        draw_picture(5000 + seed, 40, 30).save(folder / "strangers" / f"s{seed}.png")
    run(folder, {}, "python -m index_builder build pictures --views none")
    run(folder, {}, "python -m index_builder build few --index theirs --views none")
    run(folder, {}, "python -m model.train synthetic-2afc few triplets --triplets 24")
    return folder


def run(folder: Path, environment: Mapping[str, str], text: str) -> None:
    """Run one command line to its end, which must be a good one.

    A plain `python -m` is spared an interpreter of its own, which takes two seconds to import
    torch, and so is `lipsim`, which stands for one; a shell runs what else there is.
    """
    environment = clean(folder) | environment
    text = re.sub(r"^lipsim ", "python -m service.command ", text)
    if plain := re.fullmatch(r"(?:\.venv/bin/)?python -m (\S+)((?: +[^\s|>&;$'\"]+)*)", text):
        words = [word.replace("~", environment["HOME"]) for word in plain[2].split()]
        done = run_program(plain[1], *words, environment=environment, folder=folder)
    else:
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def clean(folder: Path) -> dict[str, str]:
    """A shell of the reader's: his environment first on the path, his home."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def server(workspace: Path) -> Iterator[str]:
    """The service over the workspace's index, calibrated as its page says, at its own address."""
    for command in COMMANDS:
        if command.page == CALIBRATION and why_not(command) is None:
            run(workspace, {}, as_written(command, ""))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = clean(workspace) | {"LIPSIM_PORT": str(port), "LIPSIM_CHALLENGE": "true"}
    process = Forked(run_module, "service", environment=environment, folder=workspace)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_ready(address, process)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_ready(address: str, process: subprocess.Popen[bytes] | Forked) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, "the service ended"
        assert time.monotonic() < deadline
        try:
            if httpx.get(f"{address}/readyz", verify=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)


def as_written(command: Command, server: str) -> str:
    """The command with the reader's own names, and the port of the test's server, put in."""
    text = re.sub(r"\s\[--[^]]*\]", "", command.text)
    for words, ours in STANDS_FOR.items():
        text = re.sub(words, ours, text)
    text = text.replace("http://127.0.0.1:8000", server)
    # An HTTP answer that is an error must fail the test as well.
    return re.sub(r"^curl ", "curl --fail-with-body ", text)


@pytest.mark.parametrize("page", PAGES_RUN)
def test_the_commands_of_a_page_run_in_its_order(page, workspace, server):
    for command in COMMANDS:
        if command.page != page or why_not(command) is not None:
            continue
        text = as_written(command, server)
        if "synthetic-2afc" in text:
            shutil.rmtree(workspace / "OUT", ignore_errors=True)
        if "answers.jsonl" in text:
            shutil.copy(workspace / "answer.json", workspace / "answers.jsonl")
            shutil.copy(workspace / "query.jpg", workspace / "pictures")
        if re.search(r"-m service($| --host)|^lipsim serve$", text):
            check_server(workspace, text)
        else:
            run(workspace, {"LIPSIM_KEYS_FILE": "home/keys.json"} if " key" in text else {}, text)
        shutil.rmtree(workspace / "out", ignore_errors=True)
    if page in PROGRAMS:
        text = PROGRAMS[page].replace("http://127.0.0.1:8000", server)
        (workspace / "program.py").write_text(text)
        run(workspace, {}, "python program.py")


def test_every_page_with_a_program_is_run():
    assert len(PROGRAMS) > 3
    assert PROGRAMS.keys() <= set(PAGES_RUN)


def check_server(workspace: Path, text: str) -> None:
    """`python -m service ...` or `lipsim serve` starts and answers; on a port of the test's own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["bash", "-c", f"exec {text}"],
        cwd=workspace,
        env=clean(workspace) | {"LIPSIM_PORT": str(port), "LIPSIM_ALLOW_NO_KEYS": "true"},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_ready(f"http://127.0.0.1:{port}", process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_every_reason_not_to_run_fits_a_command():
    for words in NOT_RUN:
        assert any(re.search(words, command.text) for command in COMMANDS), words


def test_pages_have_commands_at_all():
    assert len(COMMANDS) > 60
    assert sum(why_not(command) is None for command in COMMANDS) > 25


def test_every_make_target_of_the_pages_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {c.words[1] for c in COMMANDS if re.match(r"make ", c.text)}
    assert asked
    assert asked <= targets


@pytest.mark.parametrize(
    "command",
    [c for c in COMMANDS if c.module and why_not(c) and not c.text.startswith("docker")],
    ids=str,
)
def test_a_command_that_is_not_run_has_only_options_that_exist(command):
    assert command.module is not None
    behind = command.text.split(f"-m {command.module}", 1)[1].split()
    sub = [word for word in behind[:1] if re.fullmatch(r"[a-z0-9-]+", word)]
    assert command.options <= options_of(command.module, *sub)


@lru_cache
def options_of(module: str, *sub: str) -> set[str]:
    """The options that a program's own help names."""
    wide = {"COLUMNS": "200", "NO_COLOR": "1"}
    done = run_program(module, *sub, "--help", environment=wide)
    assert done.returncode == 0
    return set(re.findall(r"--[a-z0-9-]+", done.stdout))
