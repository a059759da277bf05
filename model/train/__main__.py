"""`python -m model.train`: make a checkpoint, from pictures to proof.

Exit codes: 0 done; 1 nothing was made, the reason is printed; 2 the command line is wrong;
130 interrupted, and the same command resumes.
"""

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

# Name, "module:function" (a typer-annotated function), one line of help. A module
# is imported when its command runs, so a library that one command needs is never asked of another.
COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("corpus", "model.train.corpus.build:corpus", "Pack pictures into shards, split and licensed."),
    (
        "synthetic-2afc",
        "model.train.synthetic_2afc:synthetic_2afc",
        "Make judged triplets of any pictures, in the layout of NIGHTS.",
    ),
    ("teach", "model.train.teach:teach", "Ask a teacher once for every picture's embedding."),
    ("distill", "model.train.commands:distill", "Step 1: teach a network a teacher's embeddings."),
    ("finetune", "model.train.commands:finetune", "Step 2: train it on judged triplets."),
)


class _LazyGroup(TyperGroup):
    """Commands of the table, imported when they are run, not when they are listed."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """The table's order."""
        return [name for name, _, _ in COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """What the list of commands shows: a name and a line."""
        for name, _, help_line in COMMANDS:
            if name == cmd_name:
                return _as_command(name, help_line, lambda: None)
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command, its module imported now."""
        name, command, rest = super().resolve_command(ctx, args)
        for known, where, help_line in COMMANDS:
            if known == name:
                module, function = where.split(":")
                command = _as_command(
                    known, help_line, getattr(importlib.import_module(module), function)
                )
        return name, command, rest


def _as_command(name: str, help_line: str, function: Any) -> Any:
    """One function as a command of its own."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, help=function.__doc__ or help_line)(function)
    command = typer.main.get_command(single)
    command.name, command.short_help = name, help_line
    return command


app = typer.Typer(
    cls=_LazyGroup,
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _main() -> None:  # pyright: ignore[reportUnusedFunction]
    """Make a checkpoint, from pictures to proof."""


if __name__ == "__main__":
    app()
