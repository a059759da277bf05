"""Builds the stages of a Dockerfile into folders, instruction by instruction."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from context import context_files, read_ignore
from dockerfile import Dockerfile, DockerfileError, Instruction, Stage, pairs, substituted
from machine import Borrowed, pip_settings
from rootfs import How, bootstrap, run

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What we can stand in for: the official image of Python 3.11 on the same Debian.
_BASE = re.compile(r"python:3\.11(\.\d+)?-slim-bookworm@sha256:[0-9a-f]{64}")


@dataclass
class Image:
    """A root file system, and what a container made from it would know."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    folder: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)


class Builder:
    """Builds stages under one folder; `not_run` lists the steps that were passed over."""

    def __init__(self, file: Dockerfile, context: Path, work: Path, *, skip: str | None) -> None:
        self._file, self._context, self._work = file, context, work
        self._skip = re.compile(skip) if skip else None
        self._borrowed: Borrowed = pip_settings()
        self.images: dict[str, Image] = {}
        self.not_run: list[str] = []

    def build(self, target: str) -> Image:
        """The stage's image; stages that are there already are not built again."""
        for stage in self._file.needed_by(target):
            if stage.name not in self.images:
                self.images[stage.name] = self._build_stage(stage)
        return self.images[target]

    def drop(self, name: str) -> None:
        """Forget a stage and free its disk."""
        shutil.rmtree(self.images.pop(name).root)

    def _build_stage(self, stage: Stage) -> Image:
        print(f"\n== stage {stage.name}, from {stage.base}", flush=True)
        image = self._begin(stage)
        arguments: dict[str, str] = {}
        for instruction in stage.instructions:
            print(f"  [{instruction.line:>3}] {instruction.keyword} {instruction.text}", flush=True)
            self._apply(image, instruction, arguments)
        return image

    def _begin(self, stage: Stage) -> Image:
        root = self._work / stage.name
        shutil.rmtree(root, ignore_errors=True)
        below = self.images.get(stage.base)
        if below is None:
            if not _BASE.fullmatch(stage.base):
                raise DockerfileError(f"nothing here can stand in for {stage.base}")
            base = self._work / "debian"
            bootstrap(base)
            below = Image(base)
        subprocess.run(["cp", "-a", "--reflink=auto", below.root, root], check=True)
        return Image(
            root,
            dict(below.environment),
            below.folder,
            below.user,
            list(below.entrypoint),
            list(below.command),
            list(below.healthcheck),
        )

    def _apply(self, image: Image, step: Instruction, arguments: dict[str, str]) -> None:
        known = arguments | image.environment
        match step.keyword:
            case "ARG":
                arguments.update(pairs(step, known))
            case "ENV":
                image.environment.update(pairs(step, known))
            case "WORKDIR":
                image.folder = os.path.join(image.folder, substituted(step.text, known))
                inside(image.root, image.folder).mkdir(parents=True, exist_ok=True)
            case "USER":
                image.user = step.text
            case "RUN":
                self._run(image, step, arguments)
            case "COPY":
                self._copy(image, step, known)
            case "ENTRYPOINT":
                image.entrypoint, image.command = step.exec_form or [], []
            case "CMD":
                image.command = step.exec_form or []
            case "HEALTHCHECK":
                image.healthcheck = Instruction("CMD", step.text[4:], {}, step.line).exec_form or []
            case "LABEL":
                pairs(step, known)  # a name that nothing sets is an error here too
            case _:
                pass

    def _run(self, image: Image, step: Instruction, arguments: Mapping[str, str]) -> None:
        if self._skip and self._skip.search(step.text):
            self._pass_over(step)
            return
        environment = {**arguments, **image.environment, **self._borrowed.environment}
        how = How(environment, image.folder, image.user, self._borrowed.mounts)
        run(image.root, ["/bin/sh", "-c", step.text], how)

    def _pass_over(self, step: Instruction) -> None:
        print("        NOT RUN", flush=True)
        self.not_run.append(f"line {step.line}: {step.keyword} {step.text}")

    def _copy(self, image: Image, step: Instruction, known: Mapping[str, str]) -> None:
        *sources, to = substituted(step.text, known).split()
        if step.flags.get("chown", "root:root") != "root:root":
            raise DockerfileError(f"line {step.line}: only --chown=root:root is understood here")
        target = inside(image.root, os.path.join(image.folder, to))
        for source in sources:
            if "from" in step.flags:
                origin = inside(self.images[step.flags["from"]].root, source)
                if self.not_run and not origin.exists():
                    self._pass_over(step)  # a step that would have made it was passed over
                    return
                _copy_tree(origin, target, into=to.endswith("/"))
            else:
                self._copy_from_context(source, target, into=to.endswith("/"))
        subprocess.run(["chown", "--recursive", "--no-dereference", "0:0", target], check=True)

    def _copy_from_context(self, source: str, target: Path, *, into: bool) -> None:
        names = context_files(self._context, read_ignore(self._context / ".dockerignore"))
        found = [name for name in names if name == source or name.startswith(source + "/")]
        if not found:
            raise DockerfileError(f"{source} is not in the build context")
        for name in found:
            if name == source:
                to = target / Path(name).name if into else target
            else:
                to = target / Path(name).relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self._context / name, to)


def inside(root: Path, path: str) -> Path:
    """A path of the image, as a path here."""
    return root / path.lstrip("/")


def _copy_tree(origin: Path, target: Path, *, into: bool) -> None:
    if origin.is_dir():  # the contents of a folder, not the folder
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--reflink=auto", f"{origin}/.", target], check=True)
    else:
        to = target / origin.name if into else target
        to.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", origin, to], check=True)
