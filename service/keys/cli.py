"""API keys, for the operator: `lipsim keys`, `python -m service key | keys | revoke`."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from service.errors import KeysFileError
from service.keys.keys import (
    Key,
    Scope,
    add_entry,
    digest_of,
    is_name,
    new_key,
    read_keys,
    remove_entry,
)
from service.settings import Settings

_File = Annotated[Path | None, typer.Option(help="The keys file; default: LIPSIM_KEYS_FILE.")]
_Name = Annotated[str, typer.Argument(help="Whose key: letters, digits, dot, dash, underscore.")]


def make_key(
    name: _Name,
    scope: Annotated[Scope, typer.Option(help="What it may do; admin includes read.")] = Scope.READ,
    expires: Annotated[
        str | None,
        typer.Option(help="A day (its begin, UTC) or a time with its zone; none: never."),
    ] = None,
    rate_limit: Annotated[
        str | None, typer.Option(help="Its own quota, like 60/minute; none: LIPSIM_RATE_LIMIT.")
    ] = None,
    keys_file: _File = None,
) -> None:
    """Make a key and print it, once: the file keeps its hash alone."""
    key = new_key()
    try:
        entry = Key(
            name=name,
            scope=scope,
            sha256=digest_of(key.encode()),
            expires=None if expires is None else _read_time(expires),
            rate_limit=rate_limit,
        )
    except (ValidationError, ValueError) as error:
        raise _refusal(_words_of(name, error), code=2) from error
    path = _path(keys_file)
    with _refusals():
        add_entry(path, entry)
    Console(stderr=True, soft_wrap=True).print(
        f"{path}: added {name} ({scope}). The key is shown this once:",
        markup=False,
        highlight=False,
    )
    typer.echo(key)


def list_keys(keys_file: _File = None) -> None:
    """List names, scopes and times of expiry; no key, as nobody has them but their users."""
    with _refusals():
        keys = read_keys(_path(keys_file))
    table = Table("name", "scope", "expires", "rate limit")
    now = datetime.now(UTC)
    for key in keys:
        expires = "never" if key.expires is None else key.expires.isoformat()
        expired = " (expired)" if key.is_expired(now) else ""
        table.add_row(key.name, key.scope.value, expires + expired, key.rate_limit or "default")
    Console(width=max(100, Console().width)).print(table)


def revoke_key(name: _Name, keys_file: _File = None) -> None:
    """Take a key away; running services refuse it from their next request on."""
    with _refusals():
        path = _path(keys_file)
        remove_entry(path, name)
    typer.echo(f"{path}: revoked {name}", err=True)


@contextmanager
def _refusals() -> Generator[None]:
    try:
        yield
    except KeysFileError as error:
        raise _refusal(str(error)) from error


def _path(given: Path | None) -> Path:
    try:
        path = given or Settings().keys_file
    except ValidationError as error:
        raise _refusal("a setting is not allowed: see `python -m service settings`", 2) from error
    if path is None:
        raise _refusal(
            "set LIPSIM_KEYS_FILE, or give --keys-file: where the keys are to be kept", 2
        )
    return path


def _read_time(text: str) -> datetime:
    try:
        if len(text) == len("2027-01-31"):
            found = datetime.combine(date.fromisoformat(text), time(), UTC)
        else:
            found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError("expires is a day like 2027-01-31, or a time like 2027-01-31T12:00:00Z")
    if found <= datetime.now(UTC):
        raise ValueError(f"{text} is past: the key would have expired already")
    return found


def _words_of(name: str, error: ValueError) -> str:
    if not is_name(name):
        return "a name is 1 to 64 letters, digits, dots, dashes, underscores; the first no sign"
    if isinstance(error, ValidationError):
        return "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
    return str(error)


def _refusal(message: str, code: int = 1) -> typer.Exit:
    Console(stderr=True, soft_wrap=True).print(message, markup=False, highlight=False)
    return typer.Exit(code)


app = typer.Typer(
    help="API keys, in the file that LIPSIM_KEYS_FILE names.",
    no_args_is_help=True,
    add_completion=False,
)
app.command("make")(make_key)
app.command("list")(list_keys)
app.command("revoke")(revoke_key)
