"""`lipsim` runs what it lists, and lists without loading anything."""

import subprocess
import sys
import tomllib
from importlib import import_module

import pytest
import typer
from paths import ROOT
from typer.testing import CliRunner, Result

from service.command.main import PROGRAMS, app

MAIN = "from service.command.main import main; main()"
HEAVY = {"torch", "faiss", "numpy", "PIL", "fastapi", "httpx", "pydantic_settings"}


def lipsim(*words: str) -> Result:
    return CliRunner().invoke(app, words, prog_name="lipsim")


def alone(code: str, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """In an interpreter of its own, as the installed script is."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "120", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


LIGHT = (
    "import atexit, sys; atexit.register(lambda: sys.stderr.write("
    f"repr({HEAVY!r} & set(sys.modules))));"
)


def test_help_groups_every_command_and_loads_no_program():
    done = alone(LIGHT + MAIN, "--help")
    assert (done.returncode, done.stderr) == (0, "set()")
    lines = [line.strip("│ ") for line in done.stdout.splitlines()]
    places = [next(i for i, line in enumerate(lines) if line.startswith(f"{word} "))
              for word in PROGRAMS]  # fmt: skip
    assert places == sorted(places)
    for group in {program.group for program in PROGRAMS.values()}:
        assert f" {group} " in done.stdout
    assert all(program.help in done.stdout for program in PROGRAMS.values())


@pytest.mark.parametrize("word", ["search", "compare", "embed", "tolerance"])
def test_the_help_of_a_question_loads_nothing_that_answers(word: str):
    done = alone(LIGHT + MAIN, word, "--help")
    assert (done.returncode, done.stderr) == (0, "set()")


def test_a_shell_completes_words_at_once_and_options_by_their_program():
    complete = {"_LIPSIM_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    words = alone(LIGHT + MAIN, **complete, COMP_WORDS="lipsim ca")
    assert (words.stdout.split(), words.stderr) == (["calibrate"], "set()")
    complete["COMP_CWORD"] = "2"
    options = alone(MAIN, **complete, COMP_WORDS="lipsim build --max-e")
    assert options.stdout.split() == ["--max-errors"]
    sub = alone(MAIN, **complete, COMP_WORDS="lipsim keys re")
    assert sub.stdout.split() == ["revoke"]


@pytest.mark.parametrize("word", PROGRAMS)
def test_every_word_names_a_program_that_is_there_and_speaks_of_itself(word: str):
    done = lipsim(word, "--help")
    assert done.exit_code == 0, done.output
    assert f"lipsim {word}" in done.output


@pytest.mark.parametrize("word", ["build", "add", "rollback", "export"])
def test_the_options_are_the_programs_own(word: str):
    ours = lipsim(word, "--help").output
    theirs = CliRunner().invoke(import_module("index_builder.cli.commands").app, [word, "--help"])
    assert words_of(ours) - {"-h,"} == words_of(theirs.output)


def words_of(page: str) -> set[str]:
    return set(page.split("\n", 1)[1].split())


def test_what_it_lists_is_what_it_has():
    assert set(typer.main.get_command(app).commands) == set(PROGRAMS)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"lipsim": "service.command.main:main"}


def test_the_words_behind_a_command_reach_it_with_its_exit_code(tmp_path):
    assert lipsim("list", "--data-dir", str(tmp_path)).exit_code == 0
    assert lipsim("verify", "--data-dir", str(tmp_path)).exit_code == 1
    assert lipsim("build").exit_code == 2


def test_a_program_sees_its_own_words_as_under_python(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lipsim", "list", "--json"])
    lipsim("list", "--help")
    assert sys.argv == ["lipsim", "--help"]


def test_keys_are_made_listed_and_revoked(tmp_path):
    file = ("--keys-file", str(tmp_path / "keys.json"))
    made = lipsim("keys", "make", "bob", *file)
    assert made.exit_code == 0, made.output
    assert "bob" in lipsim("keys", "list", *file).output
    assert lipsim("keys", "revoke", "bob", *file).exit_code == 0
    assert "bob" not in lipsim("keys", "list", *file).output


def test_an_unknown_command_is_refused_by_name():
    done = lipsim("bulid")
    assert done.exit_code == 2
    assert "'bulid'" in done.output
    assert "'build'" in done.output


def test_what_serves_nothing_starts_without_torch():
    code = "import sys, service.__main__; print({'torch', 'faiss', 'fastapi'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
