"""`lipsim` runs what it lists, and lists without loading anything."""

import subprocess
import sys

import pytest

from service.command import PROGRAMS

MAIN = "from service.command import main; main()"


def lipsim(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", MAIN, *words], capture_output=True, text=True, check=False
    )


def test_help_lists_every_command_and_loads_no_program():
    check = MAIN + "; import sys; assert not {'torch', 'numpy', 'typer'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", check, "--help"], capture_output=True, text=True, check=True
    )
    assert all(f"  {word} " in done.stdout for word in PROGRAMS)


@pytest.mark.parametrize("word", ["build", "keys", "evaluate"])
def test_a_command_is_the_program_it_names(word):
    done = lipsim(word, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_words_behind_a_command_reach_it_with_its_exit_code(tmp_path):
    done = lipsim("list", "--data-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert lipsim("verify", "--data-dir", str(tmp_path)).returncode != 0


def test_an_unknown_command_is_refused_by_name():
    done = lipsim("bulid")
    assert done.returncode == 2
    assert "'bulid'" in done.stderr
    assert "build" in done.stderr


def test_what_serves_nothing_starts_without_torch():
    code = "import sys, service.__main__; print({'torch', 'faiss', 'fastapi'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
