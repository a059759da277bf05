"""`lipsim`: one installed command in front of every program of the project."""

import runpy
import sys

_BUILDER = ("build", "add", "remove", "list", "info", "verify", "rollback", "prune", "export")
# What each word runs, as `python -m` would: a module, and words that stand before the user's own.
PROGRAMS = {
    "serve": "service",
    **{word: f"index_builder {word}" for word in (*_BUILDER, "calibrate")},
    "key": "service key",
    "keys": "service keys",
    "revoke": "service revoke",
    "settings": "service settings",
    "doctor": "service doctor",
    "openapi": "service openapi",
    "replay": "service.replay",
    "convert": "model.convert",
    "train": "model.train",
    "evaluate": "model.evaluate",
    "attack": "model.attack",
}


def main() -> None:
    """Run the program that the first word names; without a word, or with --help, list them.

    Nothing of a program is imported before it is chosen: help comes at once.
    """
    word, *rest = sys.argv[1:] or ["--help"]
    if word in {"-h", "--help"}:
        lines = [f"  {name:<10} python -m {program}" for name, program in PROGRAMS.items()]
        sys.stdout.write("Usage: lipsim COMMAND ... (COMMAND --help says more)\n\n")
        sys.stdout.write("\n".join(lines) + "\n")
        return
    if word not in PROGRAMS:
        sys.stderr.write(f"lipsim: no command {word!r}; there are {', '.join(PROGRAMS)}\n")
        raise SystemExit(2)
    module, *before = PROGRAMS[word].split()
    sys.argv = [sys.argv[0], *before, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
