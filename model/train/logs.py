# pyright: basic
# tensorboard has no types.
"""Measurements of a run: JSON lines, and TensorBoard's event files."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.cli.libraries import import_foreign
from model.errors import DependencyError
from model.train.run_folder import replacing


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
