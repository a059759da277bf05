"""`lipsim`: one installed command in front of every program of the project.

Programs keep their own parsers; what stands here is their names and a line about each, so that
`--help` and completion come at once, without torch.
"""

import sys
from importlib import import_module
from typing import Any, NamedTuple, cast

import typer
from typer.core import TyperCommand, TyperGroup


class Program(NamedTuple):
    """What one word runs.

    Attributes:
        target: `module:name` of a Typer application or of one function, and, of an application with
            several commands, which.
        help: one line.
        group: the heading that it stands under.
    """

    target: str
    help: str
    group: str


def _group(name: str, **programs: tuple[str, str]) -> dict[str, Program]:
    return {word: Program(target, line, name) for word, (target, line) in programs.items()}


_BUILDER, _SERVICE = "index_builder.cli.commands:app", "service.__main__:cli"
_ASK = "service.command.ask"
PROGRAMS = {
    **_group(
        "Serve",
        demo=("service.command.demo:main", "Index and calibrate the bundled gallery, serve it."),
        serve=("service.__main__:serve", "Serve indexes over HTTP."),
        doctor=(f"{_SERVICE} doctor", "Is this deployment fit to serve?"),
        settings=(f"{_SERVICE} settings", "Every setting, its value, what it does."),
        keys=("service.keys.cli:app", "Make, list and revoke API keys."),
        openapi=(f"{_SERVICE} openapi", "Print the OpenAPI document."),
        replay=("service.replay.__main__:main", "Do recorded answers hold?"),
    ),
    **_group(
        "Ask a server, or an index here",
        search=(f"{_ASK}:search", "Find pictures, with certified radii."),
        compare=(f"{_ASK}:compare", "How far two pictures are apart."),
        embed=(f"{_ASK}:embed", "Embeddings of pictures."),
        tolerance=(f"{_ASK}:tolerance", "Which edits leave an answer alone."),
    ),
    **_group(
        "Indexes",
        build=(f"{_BUILDER} build", "Make an index hold exactly a collection."),
        add=(f"{_BUILDER} add", "Make an index hold a collection too."),
        remove=(f"{_BUILDER} remove", "Take ids out."),
        list=(f"{_BUILDER} list", "Indexes and versions, or the ids of one."),
        info=(f"{_BUILDER} info", "Manifest and quarantine list of a version."),
        verify=(f"{_BUILDER} verify", "Check every byte of a version."),
        rollback=(f"{_BUILDER} rollback", "Serve an older version."),
        prune=(f"{_BUILDER} prune", "Delete old versions."),
        export=(f"{_BUILDER} export", "Write ids and vectors to a file."),
        calibrate=(f"{_BUILDER} calibrate", 'Measure which margin means "copy".'),
    ),
    **_group(
        "Models",
        train=("model.train.__main__:app", "Make a checkpoint, from pictures to proof."),
        evaluate=("model.evaluate.__main__:app", "How good a metric is, and what is proved."),
        attack=("model.attack.__main__:app", "Try to break certificates."),
        convert=("model.convert:main", "Import an official checkpoint."),
    ),
}


class Lazy(TyperCommand):
    """A command whose program is imported when it is chosen."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> Any:
        """That of the program itself, as it reads its words."""
        if not more.get("resilient_parsing"):
            # As under `python -m`: a record of a run names the program's own words.
            sys.argv = [sys.argv[0], *args]
        return _load(PROGRAMS[str(self.name)].target).make_context(info_name, args, *rest, **more)


def _load(target: str) -> Any:
    place, _, word = target.partition(" ")
    module, _, name = place.partition(":")
    program = getattr(import_module(module), name)
    if not isinstance(program, typer.Typer):
        function, program = program, typer.Typer(add_completion=False)
        program.command()(function)
    command = typer.main.get_command(program)
    return cast(TyperGroup, command).commands[word] if word else command


app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"], "obj": {}},
    help="Image retrieval whose answers carry a proved radius.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _word, _program in PROGRAMS.items():
    app.command(_word, cls=Lazy, help=_program.help, rich_help_panel=_program.group)(lambda: None)


def main() -> None:
    """The entry point of the installed script."""
    app(prog_name="lipsim")
