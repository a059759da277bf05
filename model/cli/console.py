"""What every command shares: how its outcome is printed, and how its errors end."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import typer

from model.errors import RetrievalError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


def visible(text: str) -> str:
    """Text for a terminal, on one line, with what a file's name may bring along escaped.

    A name may hold newlines and a terminal's commands: none may look like a line of ours.
    """
    # Python's own escapes; a byte that is no UTF-8 is a lone surrogate here, which has one too.
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number of things: 1 answer, 2 answers; 1 entry, 2 entries."""
    return f"{number} {one if number == 1 else many or one + 's'}"


@dataclass(frozen=True)
class Output:
    """Prints a command's outcome: text for people, or one JSON object for machines.

    Attributes:
        as_json: for machines.
        after_interrupt: what an interrupt leaves, or what to do next.
    """

    as_json: bool
    after_interrupt: str = "run the same command to go on"

    def show(self, fields: dict[str, Any], text: str) -> None:
        """Print one of the two."""
        typer.echo(json.dumps(fields, indent=1) if self.as_json else text)

    @contextmanager
    def errors(self) -> Generator[None]:
        """The one place where errors become messages and exit codes."""
        try:
            yield
        except KeyboardInterrupt as exc:
            message = f"interrupted; {self.after_interrupt}"
            self._fail("Interrupted", message, exc, code=EXIT_INTERRUPTED)
        except RetrievalError as exc:
            self._fail(type(exc).__name__, str(exc), exc)
        except OSError as exc:
            where = f"{exc.filename}: " if exc.filename else ""
            self._fail(type(exc).__name__, f"{where}{exc.strerror or exc}", exc)

    def _fail(
        self, kind: str, message: str, cause: BaseException, *, code: int = EXIT_ERROR
    ) -> NoReturn:
        if self.as_json:
            typer.echo(json.dumps({"error": {"type": kind, "message": message}}, indent=1))
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(code) from cause
