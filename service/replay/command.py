"""What `python -m service.replay` does: repeat a file's records, and say which do not hold."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from model.embedder import Embedder
from model.errors import RetrievalError
from model.pixels.decode import DecodeLimits
from service.errors import ReplayError
from service.replay.records import Line, read_records
from service.replay.replayer import Replayed, Replayer, read_answer

_DIFFERS, _CANNOT = 1, 2


def main(
    records: Annotated[Path, typer.Argument(help="A JSON answer, or JSON Lines of many.")],
    images: Annotated[
        Path, typer.Argument(help="The image, or a folder that holds it; found by its SHA-256.")
    ],
    data_dir: Annotated[Path, typer.Option(help="Where the indexes are.")] = Path("data"),
    checkpoint: Annotated[Path | None, typer.Option(help="Weight file; default: ours.")] = None,
) -> None:
    """Repeat recorded answers offline.

    Exit code 1 if one does not hold; else 2 if one cannot be repeated; else 0.
    """
    try:
        lines, files = read_records(records), _files_by_hash(images)
        with closing(Replayer(Embedder.load(checkpoint), data_dir, DecodeLimits())) as replayer:
            outcomes = list(_replay_all(replayer, lines, files))
    except (RetrievalError, OSError) as error:
        _say(f"cannot replay: {error}", err=True)
        raise typer.Exit(_CANNOT) from error
    raise typer.Exit(_summarise(outcomes))


def _summarise(outcomes: Sequence[Replayed | None]) -> int:
    """Print the last line; gives the exit code. What is known to be wrong goes first."""
    done = [outcome for outcome in outcomes if outcome is not None]
    differ = sum(bool(outcome.differences) for outcome in done)
    missing = len(outcomes) - len(done)
    largest = max((outcome.largest_change for outcome in done), default=0.0)
    unchecked = dict.fromkeys(name for outcome in done for name in outcome.unchecked)
    _say(
        f"{len(outcomes)} answers: {len(done) - differ} hold, {differ} do not, {missing} cannot be "
        f"replayed; largest change of a radius {largest:.3g}; "
        f"not checked: {', '.join(unchecked) or 'nothing'}"
    )
    return _DIFFERS if differ else _CANNOT if missing else 0


def _replay_all(
    replayer: Replayer, lines: Sequence[Line], files: Mapping[str, Path]
) -> Iterator[Replayed | None]:
    """Each record's outcome; None for one that cannot be replayed, which is said."""
    for line in lines:
        try:
            outcome = _replay(replayer, line, files)
        except (RetrievalError, OSError) as error:
            _say(f"line {line.number}: cannot be replayed: {error}")
            yield None
            continue
        for words in outcome.differences:
            _say(f"line {line.number} (image {outcome.image_sha256[:12]}): {words}")
        yield outcome


def _replay(replayer: Replayer, line: Line, files: Mapping[str, Path]) -> Replayed:
    if line.problem is not None:
        raise ReplayError(line.problem)
    sha256 = read_answer(line.record).query.sha256
    if sha256 not in files:
        raise ReplayError(f"no file here has the SHA-256 {sha256}")
    return replayer.replay(cast(Mapping[str, Any], line.record), files[sha256].read_bytes())


def _files_by_hash(path: Path) -> dict[str, Path]:
    paths = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]
    if not paths:
        raise ReplayError(f"{path} holds no file")
    return {hashlib.sha256(p.read_bytes()).hexdigest(): p for p in paths}


def _say(words: str, *, err: bool = False) -> None:
    """Print; a record may hold text that UTF-8 has not."""
    typer.echo(words.encode(errors="backslashreplace").decode(), err=err)
