"""`python -m service`: serve; API keys; doctor; print the settings, or the OpenAPI document."""

import gc
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from model.cli.threads import limit_threads
from model.errors import DependencyError
from service.doctor.checks import examine, report
from service.errors import KeysFileError, UnsafeBindingError
from service.http.listen_address import check_binding
from service.keys import cli as key_commands
from service.observability.logs import configure_logs
from service.observability.tracing import Tracing, add_trace_ids, tracing_of_environment
from service.settings import (
    PACKAGE,
    Settings,
    given_options,
    problems_of,
    shown,
    shown_default,
    variable_name,
)

if TYPE_CHECKING:
    from fastapi import FastAPI

# ruff: noqa: PLC0415 - torch takes seconds to import: the commands that serve and check do, alone.

# The commands that show or check a deployment; its options may stand before them too.
_READ_SETTINGS = frozenset({"doctor", "settings"})

_Host = Annotated[str | None, typer.Option(help="Address; default: LIPSIM_HOST.")]
_DataDir = Annotated[
    Path | None, typer.Option(help="Where the indexes are; default: LIPSIM_DATA_DIR.")
]
_Checkpoint = Annotated[
    Path | None, typer.Option(help="Weight file; default: LIPSIM_CHECKPOINT, or ours.")
]

cli = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Serve certified image retrieval over HTTP. Every setting is an environment variable "
    "LIPSIM_<NAME>; `python -m service settings` prints them all.",
)


@cli.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    host: _Host = None,
    port: Annotated[int | None, typer.Option(help="Port; default: LIPSIM_PORT.")] = None,
    data_dir: _DataDir = None,
    checkpoint: _Checkpoint = None,
) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are finished first."""
    given = given_options(host=host, port=port, data_dir=data_dir, checkpoint=checkpoint)
    command = context.invoked_subcommand
    if command is not None:
        if given and command not in _READ_SETTINGS:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise typer.BadParameter(f"{names} before `{command}`, which has no use for it")
        context.obj = given
        return
    settings = _read_settings(given)
    tracing = _open_tracing() if settings.tracing else None
    extra = [] if tracing is None else [add_trace_ids]
    configure_logs(settings.log_level, settings.log_format, extra=extra)
    refusals: list[Exception] = []

    def stop(error: Exception) -> None:
        refusals.append(error)
        server.should_exit = True

    # What is imported stays: the collector need not go through all of torch, neither again and
    # again while it is imported, a sixth of the start, nor between two answers.
    gc.disable()
    app = _open_app(settings, stop, tracing)
    from service.http.server import make_server

    server = make_server(app, settings)
    gc.freeze()
    gc.enable()
    try:
        server.run()
    except SystemExit as error:  # It could not listen, and has logged why.
        where = f"{settings.host}:{settings.port}"
        _say(f"cannot serve: nobody can listen on {where} (see above); try another --port")
        raise typer.Exit(1) from error
    if refusals:
        _say(f"cannot serve: {refusals[0]}")
    if refusals or not server.started:
        raise typer.Exit(1)


def _say(words: str) -> None:
    Console(stderr=True, soft_wrap=True).print(words, markup=False, highlight=False)


def _open_app(
    settings: Settings, on_fatal: Callable[[Exception], None], tracing: Tracing | None
) -> "FastAPI":
    try:
        check_binding(
            settings.host,
            has_keys=settings.keys_file is not None,
            may_lack_keys=settings.allow_no_keys,
        )
        from service.app import create_app

        return create_app(settings, on_fatal=on_fatal, tracing=tracing)
    except (KeysFileError, UnsafeBindingError) as error:
        _say(f"cannot serve: {error}")
        raise typer.Exit(2) from error


cli.command("key")(key_commands.make_key)
cli.command("keys")(key_commands.list_keys)
cli.command("revoke")(key_commands.revoke_key)


@cli.command("settings")
def print_settings(
    context: typer.Context,
    markdown: Annotated[bool, typer.Option(help="As docs/settings.md has it.")] = False,
) -> None:
    """Print every setting: its variable, its value now, its default, what it does."""
    if markdown:
        sys.stdout.write(SETTINGS_PAGE + "".join(_markdown_rows()))
        return
    settings = _read_settings(context.obj)
    table = Table("variable", "value", "default", "meaning")
    for name, field in Settings.model_fields.items():
        value = shown(getattr(settings, name))
        table.add_row(variable_name(name), value, shown_default(name), field.description)
    Console(width=max(160, Console().width)).print(table)


SETTINGS_PAGE = """# Settings

Every setting of the service is an environment variable; `python -m service settings` prints them
with the values now in force, `python -m service settings --markdown` writes this page. A value that
is not allowed ends the start with one line that says which; a variable named `LIPSIM_` that is none
of these is warned of.

| variable | default | meaning |
|---|---|---|
"""


def _markdown_rows() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        default = shown_default(name)
        cell = f"`{default}`" if default else "(none)"
        yield f"| `{variable_name(name)}` | {cell} | {field.description} |\n"


@cli.command("openapi")
def print_openapi() -> None:
    """Print the OpenAPI document, with the defaults of every setting."""
    from service.app import create_app

    document = create_app(Settings.model_construct()).openapi()
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


@cli.command("doctor")
def doctor(
    context: typer.Context,
    host: _Host = None,
    data_dir: _DataDir = None,
    checkpoint: _Checkpoint = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Check the machine, the data and a certificate of its own; exit code 1 if something failed."""
    from service.doctor.deployment import checks_of

    given = given_options(host=host, data_dir=data_dir, checkpoint=checkpoint)
    settings = _read_settings({**context.obj, **given})
    configure_logs("error", settings.log_format)
    limit_threads(settings.threads_per_worker)
    if not report(examine(checks_of(settings)), as_json=as_json):
        raise typer.Exit(1)


def _open_tracing() -> Tracing:
    try:
        return tracing_of_environment(PACKAGE)
    except DependencyError as error:
        _say(str(error))
        raise typer.Exit(2) from error


def _read_settings(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as error:
        for problem in problems_of(error):
            Console(stderr=True).print(problem, markup=False)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    cli()
