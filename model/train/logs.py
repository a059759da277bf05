# pyright: basic
# tensorboard has no types.
"""What a run tells: JSON lines, TensorBoard's files, and a person at the terminal."""

import contextlib
import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from model.cli.libraries import import_foreign
from model.errors import DependencyError
from model.train.run_state import replacing


def require_event_files() -> None:
    """Find out before a long run that its event files cannot be written.

    Raises:
        DependencyError: tensorboard is not installed.
    """
    try:
        import_foreign("tensorboard", "a run's log", "tensorboard", "train")
    except DependencyError as exc:
        raise DependencyError(f"{exc}; or run with --set tensorboard=false") from exc


class MetricLog:
    """Measurements as JSON lines, and the same as TensorBoard scalars.

    A run that goes on from step s forgets what its killed predecessor wrote after s.
    """

    def __init__(self, lines: Path, events: Path | None, from_step: int) -> None:
        """Opens both.

        Args:
            lines: the file of JSON lines, appended to.
            events: folder of the event files; None writes none.
            from_step: the step the run goes on from.

        Raises:
            DependencyError: event files are wanted, and tensorboard is not installed.
        """
        _forget_after(lines, from_step)
        self._events = None if events is None else _event_writer(events, from_step)
        self._file = lines.open("a", encoding="utf-8")

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One line of measurements of a kind: "train" or "validation"."""
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def __enter__(self) -> "MetricLog":
        """Open since it was made."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends both files."""
        self._file.close()
        if self._events is not None:
            self._events.close()


class Narrator:
    """Tells a person where a run is: a bar with its remaining time, or a line now and then.

    Without a stream it tells nobody: of several processes, one talks.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._bar: Progress | None = None
        self._task: Any = None

    def say(self, text: str) -> None:
        """A line."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self._stream is not None:
            self._stream.write(text + "\n")
            self._stream.flush()

    @contextlib.contextmanager
    def steps(self) -> Generator[None]:
        """While steps are taken: a bar, where a person can see it move."""
        if self._stream is None or not self._stream.isatty():
            yield
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(file=self._stream)) as bar:
            self._bar, self._task = bar, bar.add_task("starting", total=1.0)
            try:
                yield
            finally:
                self._bar = None

    def step(self, done: float, text: str, *, line_is_due: bool) -> None:
        """A step was taken.

        Args:
            done: share of the run that is done.
            text: what to say of it.
            line_is_due: whether a log without a bar should have a line.
        """
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=text)
        elif line_is_due:
            self.say(text)


def duration(seconds: float) -> str:
    """A duration as people say it: "2 h 05 min", "3 min 20 s", "12 s"."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


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


def _event_writer(folder: Path, from_step: int) -> Any:
    """TensorBoard's writer; it hides what an earlier attempt wrote after this step."""
    require_event_files()
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (an extra's)

    return SummaryWriter(str(folder), purge_step=from_step + 1)
