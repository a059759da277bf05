"""Reads a Dockerfile: its instructions, its stages, and the variables in them.

Only what our own files use is understood, and everything else is refused: heredocs, `RUN` flags,
remote sources, `ONBUILD`. So a test that reads a file with this module has read all of it.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

KEYWORDS = frozenset(
    {
        *(
            "ARG",
            "CMD",
            "COPY",
            "ENTRYPOINT",
            "ENV",
            "EXPOSE",
            "FROM",
            "HEALTHCHECK",
            "LABEL",
            "RUN",
        ),
        *("STOPSIGNAL", "USER", "WORKDIR"),
    }
)
_FLAGS = {
    "COPY": frozenset({"from", "chown"}),
    "HEALTHCHECK": frozenset({"interval", "timeout", "start-period", "retries"}),
}
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)\}|(?P<plain>\w+))")


class DockerfileError(ValueError):
    """The file holds what this reader, or Docker, does not take."""


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        keyword: in capitals.
        text: what follows the keyword and its flags, continued lines joined.
        flags: `--name=value`, by name.
        line: where it begins, from 1.
    """

    keyword: str
    text: str
    flags: Mapping[str, str]
    line: int

    @property
    def exec_form(self) -> list[str] | None:
        """The words of the JSON form; None for the form that a shell reads."""
        if not self.text.startswith("["):
            return None
        words = json.loads(self.text)
        if not words or not all(isinstance(word, str) for word in words):
            raise DockerfileError(f"line {self.line}: the exec form is a list of strings")
        return words


@dataclass(frozen=True)
class Stage:
    """One `FROM` and what follows it."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def last(self, keyword: str) -> Instruction | None:
        """The instruction of this kind that holds at the end of the stage."""
        return next((i for i in reversed(self.instructions) if i.keyword == keyword), None)


@dataclass(frozen=True)
class Dockerfile:
    """A whole file: arguments before the first `FROM`, and the stages in order."""

    arguments: Mapping[str, str]
    stages: list[Stage]

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise DockerfileError(f"no stage is called {name!r}")

    def lineage(self, name: str) -> list[Stage]:
        """The stage and those it is built on, the lowest first."""
        stage = self.stage(name)
        is_ours = any(other.name == stage.base for other in self.stages)
        return [*(self.lineage(stage.base) if is_ours else []), stage]

    def needed_by(self, name: str) -> list[Stage]:
        """Every stage that building this one takes, in an order that works."""
        needed: list[Stage] = []
        for stage in self.lineage(name):
            sources = [i.flags["from"] for i in stage.instructions if "from" in i.flags]
            for source in sources:
                needed += [s for s in self.needed_by(source) if s not in needed]
            needed += [stage] if stage not in needed else []
        return needed


def read_dockerfile(path: Path) -> Dockerfile:
    """The file's stages.

    Raises:
        DockerfileError: something in it is not understood.
    """
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for instruction in _instructions(path.read_text(encoding="utf-8")):
        if instruction.keyword == "FROM":
            stages.append(_open_stage(instruction, arguments, stages))
        elif stages:
            stages[-1].instructions.append(instruction)
        elif instruction.keyword == "ARG":
            arguments.update(pairs(instruction, arguments))
        else:
            raise DockerfileError(f"line {instruction.line}: before the first FROM, only ARG")
    if not stages:
        raise DockerfileError("there is no FROM")
    return Dockerfile(arguments, stages)


def substituted(text: str, variables: Mapping[str, str]) -> str:
    """The text with `$NAME` and `${NAME}` replaced; an unknown name is refused, not emptied."""

    def value(match: re.Match[str]) -> str:
        name = match["braced"] or match["plain"]
        if name not in variables:
            raise DockerfileError(f"${name} is used, but nothing sets it")
        return variables[name]

    return _VARIABLE.sub(value, text)


def pairs(instruction: Instruction, variables: Mapping[str, str]) -> dict[str, str]:
    """`NAME=value ...` of an ARG, ENV or LABEL."""
    found: dict[str, str] = {}
    for word in shlex.split(instruction.text):
        name, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(f"line {instruction.line}: {word!r} has no value")
        found[name] = substituted(value, variables)
    return found


def _open_stage(
    instruction: Instruction, arguments: Mapping[str, str], stages: list[Stage]
) -> Stage:
    match shlex.split(instruction.text):
        case [base, word, name] if word.upper() == "AS":
            if any(stage.name == name for stage in stages):
                raise DockerfileError(f"line {instruction.line}: a second stage {name!r}")
            return Stage(name, substituted(base, arguments))
        case _:
            raise DockerfileError(f"line {instruction.line}: want FROM image AS name")


def _instructions(text: str) -> Iterator[Instruction]:
    for line, logical in _logical_lines(text):
        keyword, _, rest = logical.partition(" ")
        keyword = keyword.upper()
        if keyword not in KEYWORDS:
            raise DockerfileError(f"line {line}: {keyword} is not understood here")
        flags, rest = _flags(keyword, rest.strip(), line)
        if keyword == "RUN" and ("<<" in rest or rest.startswith("[")):
            raise DockerfileError(f"line {line}: RUN is taken in its one-line shell form only")
        yield Instruction(keyword, rest, flags, line)


def _flags(keyword: str, rest: str, line: int) -> tuple[dict[str, str], str]:
    flags: dict[str, str] = {}
    while rest.startswith("--"):
        word, _, rest = rest.partition(" ")
        name, _, value = word[2:].partition("=")
        if name not in _FLAGS.get(keyword, ()):
            raise DockerfileError(f"line {line}: {keyword} --{name} is not understood here")
        flags[name] = value
        rest = rest.strip()
    return flags, rest


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    begun, parts = 0, list[str]()
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):  # also between continued lines, as Docker has it
            continue
        begun = begun if parts else number
        parts.append(line.removesuffix("\\").strip())
        if not line.endswith("\\"):
            yield begun, " ".join(parts)
            parts = []
    if parts:
        raise DockerfileError(f"line {begun}: the last line is continued by nothing")
