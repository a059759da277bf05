# pyright: basic
# torch.save and torch.load have no types to speak of.
"""What a run keeps on disk: its config, the state it goes on from, and its best weights.

Every file is written aside, flushed and renamed: a run killed at any moment finds its last whole
state. Tensors are read back with `weights_only=True`, so a state can carry no code.
"""

import contextlib
import json
import os
import pickle
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from model.errors import TrainingError
from model.train.config import TrainConfig, differences

_SCHEMA = "lipsim-run-1"


class Best(NamedTuple):
    """The weights with the highest validation score so far."""

    step: int
    score: float
    weights: dict[str, Tensor]


class RunFolder:
    """The folder of one run.

    Attributes:
        path: the folder.
        best: path of the finished checkpoint with the highest validation score.
        last: path of the finished checkpoint of the last step.
        report: path of the finished run's report; it is written last.
        metrics: path of the JSON lines.
        tensorboard: path of the event files' folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"
        self.report = path / "report.json"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self._run, self._state, self._best, self._lock = (
            path / name for name in ("run.json", "state.pt", "best.pt", "lock")
        )

    @contextlib.contextmanager
    def claimed(self) -> Generator[None]:
        """Keeps a second run out of the folder; a killed one's claim dies with it.

        A folder that was made for a claim of which nothing came goes with it.

        Raises:
            TrainingError: another process trains here.
            OSError: the folder cannot be made.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with FileLock(self._lock, timeout=0):
                try:
                    yield
                finally:
                    self._remove_if_unused(made)
        except Timeout:
            raise TrainingError(f"another run is at work in {self.path}") from None

    def _remove_if_unused(self, made: Sequence[Path]) -> None:
        """Removes folders, the innermost first, unless something is in them beside our lock."""
        if made and list(self.path.iterdir()) == [self._lock]:
            self._lock.unlink()
            with contextlib.suppress(OSError):  # somebody put something there meanwhile
                for folder in made:
                    folder.rmdir()

    def agree(self, config: TrainConfig, identity: Mapping[str, Any]) -> None:
        """Notes the run's config and data, or holds them against those of the run that is here.

        Raises:
            TrainingError: the run that is here has another config or other data; names what.
        """
        ours = {**config.to_json(), **{f"data.{key}": value for key, value in identity.items()}}
        ours = json.loads(json.dumps(ours))  # tuples become lists, as they will be read
        if not self._run.exists():
            self._write_json(self._run, {"schema": _SCHEMA, "run": ours})
            return
        stored = self._read_json(self._run)
        if stored.get("schema") != _SCHEMA:
            raise TrainingError(f"{self._run} is not the record of a run")
        unlike = differences(stored["run"], ours)
        if unlike:
            raise TrainingError(
                f"{self.path} holds another run; take another folder, or the same settings: "
                + "; ".join(unlike)
            )

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replaces the state to go on from."""
        self._write_tensors(self._state, state)

    def load_state(self) -> dict[str, Any] | None:
        """The state to go on from, or None where there is none yet."""
        return self._read_tensors(self._state)

    def save_best(self, best: Best) -> None:
        """Replaces the best weights."""
        self._write_tensors(self._best, best._asdict())

    def load_best(self) -> Best | None:
        """The best weights, or None where nothing was validated yet."""
        stored = self._read_tensors(self._best)
        return None if stored is None else Best(**stored)

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Says that the run is finished, and how."""
        self._write_json(self.report, report)

    def read_report(self) -> dict[str, Any] | None:
        """The finished run's report, or None."""
        return self._read_json(self.report) if self.report.exists() else None

    def _write_json(self, path: Path, value: Mapping[str, Any]) -> None:
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
        with replacing(path) as aside:
            aside.write_text(text, encoding="utf-8")

    def _read_json(self, path: Path) -> dict[str, Any]:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise TrainingError(f"{path} cannot be read: {exc}") from exc

    def _write_tensors(self, path: Path, value: Mapping[str, Any]) -> None:
        with replacing(path) as aside:
            torch.save(dict(value), aside)

    def _read_tensors(self, path: Path) -> dict[str, Any] | None:
        if not path.exists():
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as exc:
            raise TrainingError(f"{path} is damaged: {str(exc)[:200]}") from exc


@contextlib.contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A path to write to; what is there replaces the file, whole, or not at all.

    Raises:
        TrainingError: the disk refuses.
    """
    aside = path.with_name(f".{path.name}.aside")
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, RuntimeError) as exc:  # torch says RuntimeError where a disk is full
        raise TrainingError(f"{path} cannot be written: {exc}") from exc
    finally:
        aside.unlink(missing_ok=True)
