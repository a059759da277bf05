"""`python -m service.replay`: repeat a file's records, and say which do not hold."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer
from pydantic import ValidationError

from model.cli.console import counted
from model.embedder import Embedder
from model.errors import RetrievalError
from service.errors import ReplayError
from service.replay.replayer import Replayer, ReplayResult, read_answer
from service.settings import Settings, given_options, problems_of

_DIFFERS, _CANNOT = 1, 2


def main(
    records: Annotated[Path, typer.Argument(help="A JSON answer, or JSON Lines of many.")],
    images: Annotated[
        Path, typer.Argument(help="The image, or a folder that holds it; found by its SHA-256.")
    ],
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the indexes are; default: LIPSIM_DATA_DIR.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weight file; default: LIPSIM_CHECKPOINT, or ours.")
    ] = None,
) -> None:
    """Repeat recorded answers offline, with the service's own settings (LIPSIM_<NAME>).

    Exit code 1 if one does not hold; else 2 if one cannot be repeated; else 0.
    """
    try:
        settings = Settings(**given_options(data_dir=data_dir, checkpoint=checkpoint))
        lines, files = read_records(records), _files_by_hash(images)
        embedder = Embedder.load(settings.checkpoint, arithmetic=settings.arithmetic)
        with closing(Replayer(embedder, settings.data_dir, settings.decode_limits)) as replayer:
            outcomes = list(_replay_all(replayer, lines, files))
    except ValidationError as error:
        _say("cannot replay: " + "; ".join(problems_of(error)), err=True)
        raise typer.Exit(_CANNOT) from error
    except (RetrievalError, OSError) as error:
        _say(f"cannot replay: {error}", err=True)
        raise typer.Exit(_CANNOT) from error
    raise typer.Exit(_summarise(outcomes))


def _summarise(outcomes: Sequence[ReplayResult | None]) -> int:
    """Print the last line; gives the exit code. What is known to be wrong goes first."""
    done = [outcome for outcome in outcomes if outcome is not None]
    differ = sum(bool(outcome.differences) for outcome in done)
    missing = len(outcomes) - len(done)
    largest = max((outcome.largest_change for outcome in done), default=0.0)
    unchecked = dict.fromkeys(name for outcome in done for name in outcome.unchecked)
    _say(
        f"{counted(len(outcomes), 'answer')}: {len(done) - differ} hold, {differ} do not, "
        f"{missing} cannot be replayed; largest change of a radius that holds {largest:.3g}; "
        f"not checked: {', '.join(unchecked) or 'nothing'}"
    )
    return _DIFFERS if differ else _CANNOT if missing else 0


def _replay_all(
    replayer: Replayer, lines: Mapping[int, object], files: Mapping[str, Path]
) -> Iterator[ReplayResult | None]:
    """Each record's outcome; None for one that cannot be replayed, which is said."""
    for number, record in lines.items():
        try:
            outcome = _replay(replayer, record, files)
        except (RetrievalError, OSError) as error:
            _say(f"line {number}: cannot be replayed: {error}")
            yield None
            continue
        for words in outcome.differences:
            _say(f"line {number} (image {outcome.image_sha256[:12]}): {words}")
        yield outcome


def _replay(replayer: Replayer, record: object, files: Mapping[str, Path]) -> ReplayResult:
    if isinstance(record, ReplayError):
        raise record
    sha256 = read_answer(record).query.sha256
    if sha256 not in files:
        raise ReplayError(f"no file here has the SHA-256 {sha256}")
    return replayer.replay(cast(Mapping[str, Any], record), files[sha256].read_bytes())


def _files_by_hash(path: Path) -> dict[str, Path]:
    paths = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]
    if not paths:
        raise ReplayError(f"{path} holds no file")
    return {hashlib.sha256(p.read_bytes()).hexdigest(): p for p in paths}


def _say(words: str, *, err: bool = False) -> None:
    """Print; a record may hold text that UTF-8 has not."""
    typer.echo(words.encode(errors="backslashreplace").decode(), err=err)


def read_records(path: Path) -> dict[int, object]:
    """What JSON gave, by number of the line, from 1; of a damaged line the error, to be raised.

    Raises:
        ReplayError: the file holds no line of JSON.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    whole = _read_record(content)
    if not isinstance(whole, ReplayError):
        return {1: whole}
    # Only line feeds part records: other line ends may stand inside a JSON text.
    numbered = enumerate(content.split(b"\n"), 1)
    lines = {number: _read_record(line) for number, line in numbered if line.strip()}
    if not lines:
        raise ReplayError(f"{path} holds no record")
    if all(isinstance(record, ReplayError) for record in lines.values()):
        number, problem = next(iter(lines.items()))
        raise ReplayError(f"{path} is neither JSON nor JSON Lines: line {number}: {problem}")
    return lines


def _read_record(content: bytes) -> object:
    try:
        return json.loads(
            content.decode("utf-8-sig"), parse_constant=_refuse, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError) as error:
        return ReplayError(f"no JSON: {error}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object, whose members come once: of two with one name, readers take different ones."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member of an object is given more than once")
    return members


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


if __name__ == "__main__":
    sys.exit(typer.run(main))
