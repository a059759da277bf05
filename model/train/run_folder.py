# pyright: basic
# torch.save and torch.load have no types to speak of.
"""What a run keeps on disk: its config, the state it goes on from, its best weights, its log.

Every file is written aside, flushed and renamed: a run killed at any moment finds its last whole
state. Tensors are read back with `weights_only=True`, so a state can carry no code.
"""

import contextlib
import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from model.cli.files import write_aside
from model.cli.libraries import import_foreign
from model.errors import DependencyError, TrainingError
from model.train.config import TrainConfig, differences

RUN, STATE, BEST = "run.json", "state.pt", "best.pt"
_SCHEMA = "lipsim-run-2"


class Best(NamedTuple):
    """The weights with the highest validation score so far."""

    step: int
    scores: dict[str, float]
    weights: dict[str, Tensor]


class RunFolder:
    """The folder of one run, and the paths of what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"  # finished, of the highest validation score
        self.last = path / "last.safetensors"  # finished, of the last step
        self.report = path / "report.json"  # of a finished run; it is written last
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self._run, self._state, self._best, self._lock = (
            path / name for name in (RUN, STATE, BEST, "lock")
        )

    @contextlib.contextmanager
    def claimed(self) -> Generator[None]:
        """Keeps a second run out of the folder; a killed one's claim dies with it.

        A folder that was made for a claim of which nothing came goes with it.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with FileLock(self._lock, timeout=0):
                try:
                    yield
                finally:
                    if made and list(self.path.iterdir()) == [self._lock]:
                        self._lock.unlink()
                        with contextlib.suppress(OSError):  # somebody put something there meanwhile
                            for folder in made:
                                folder.rmdir()
        except Timeout:
            raise TrainingError(f"another run is at work in {self.path}") from None

    def agree(self, config: TrainConfig, identity: Mapping[str, Any] | None = None) -> None:
        """Holds config and data against those of the run that is here, or notes them as its own.

        Without data, which is not read yet, nothing is noted, and as many steps are taken for the
        config's as that data had.
        """
        data = {f"data.{key}": value for key, value in (identity or {}).items()}
        ours = json.loads(json.dumps(config.to_json() | data))  # tuples become lists, as read
        if not self._run.exists():
            if identity is not None:
                _write_json(self._run, {"schema": _SCHEMA, "run": ours})
            return
        stored = self._read_json(self._run)
        if stored.get("schema") != _SCHEMA or not isinstance(stored.get("run"), dict):
            raise self.damaged(RUN, "it is not the record of a run")
        stored = stored["run"]
        if identity is None:
            if not config.steps and config.epochs:
                ours["steps"] = stored.get("steps")
            stored = {name: stored.get(name) for name in ours}
        if unlike := differences(stored, ours):
            raise TrainingError(
                f"{self.path} holds another run; take another folder, or the same settings: "
                + "; ".join(unlike)
            )

    def kept(self, step: int) -> Path:
        """The checkpoint of a step that was kept on the way."""
        return self.path / f"step-{step}.safetensors"

    def save_state(self, state: Mapping[str, Any]) -> None:
        _write_tensors(self._state, state)

    def load_state(self) -> dict[str, Any] | None:
        return self._read_tensors(self._state)

    def save_best(self, best: Best) -> None:
        _write_tensors(self._best, best._asdict())

    def load_best(self) -> Best | None:
        found = self._read_tensors(self._best)
        with self.damage(BEST):
            return None if found is None else Best(**found)

    @contextlib.contextmanager
    def damage(self, name: str) -> Generator[None]:
        """While the content of a file is taken up: what does not fit is the file's damage."""
        try:
            yield
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as exc:
            why = " ".join(f"{type(exc).__name__}: {exc}".split())
            raise self.damaged(name, f"{why:.300}") from exc

    def damaged(self, name: str, why: str) -> TrainingError:
        """What to say of a file that was cut short or changed, and what to do about it."""
        return TrainingError(
            f"{self.path / name} is damaged: {why}; delete {self.path} and start again, or take "
            f"another --out"
        )

    def write_report(self, report: Mapping[str, Any]) -> None:
        _write_json(self.report, report)

    def read_report(self) -> dict[str, Any] | None:
        """The finished run's report, or None."""
        if not self.report.exists():
            return None
        report = self._read_json(self.report)
        with self.damage(self.report.name):
            str(report["best"]["fingerprint"])
        return report

    def _read_json(self, path: Path) -> dict[str, Any]:
        try:
            return dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError, RecursionError) as exc:
            raise self.damaged(path.name, f"no JSON object: {exc}") from exc

    def _read_tensors(self, path: Path) -> dict[str, Any] | None:
        """What torch saved; None where there is no file."""
        if not path.exists():
            return None
        try:
            return dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as exc:  # given strange bytes, torch raises nearly anything
            why = str(exc).partition("\n")[0]
            raise self.damaged(path.name, f"{type(exc).__name__}: {why:.200}") from exc


def require_event_files() -> None:
    """Find out before a long run that its event files cannot be written."""
    try:
        import_foreign("tensorboard", "a run's log", "tensorboard", "train")
    except DependencyError as exc:
        raise DependencyError(f"{exc}; or run with --set tensorboard=false") from exc


class MetricLog:
    """Measurements as JSON lines, and the same as TensorBoard scalars.

    A run that goes on from step s forgets what its killed predecessor wrote after s.
    """

    def __init__(self, lines: Path, events: Path | None, from_step: int) -> None:
        _forget_after(lines, from_step)
        self._events: Any = None
        if events is not None:
            require_event_files()
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (an extra's)

            # It hides what an earlier attempt wrote after this step.
            self._events = SummaryWriter(str(events), purge_step=from_step + 1)
        self._file = lines.open("a", encoding="utf-8")

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One line of measurements of a kind: "train" or "validation"."""
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def _forget_after(path: Path, step: int) -> None:
    """Keeps the whole lines up to a step, but its validation, which is done again.

    The last line of a killed run may be cut.
    """
    if not path.exists():
        return
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            if entry["step"] < step or (entry["step"] == step and entry["kind"] == "train"):
                kept.append(line + "\n")
    with replacing(path) as aside:
        aside.write_text("".join(kept), encoding="utf-8")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _write_tensors(path: Path, value: Mapping[str, Any]) -> None:
    with replacing(path) as aside:
        torch.save(dict(value), aside)


@contextlib.contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A path to write to; what is there replaces the file, whole, or not at all."""
    try:
        with write_aside(path) as aside:
            yield aside
    except (OSError, RuntimeError) as exc:  # torch says RuntimeError where a disk is full
        raise TrainingError(f"{path} cannot be written: {exc}") from exc
