"""`teach`: ask a teacher once for the embedding of every picture, and keep the answers.

The work is kept in parts of 256 pictures, each written aside and renamed, so that a run that was
killed goes on where it was; the answers are the same as those of a run that was not.
"""

import hashlib
import json
import shutil
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from jaxtyping import Float32
from torch import Tensor

from model.cli.console import Output
from model.cli.devices import check_device
from model.cli.progress import Progress
from model.cli.threads import limit_threads
from model.data.pictures import PictureSet, open_pictures, splits_of
from model.errors import MetricError, TrainingError
from model.teachers.load import TEACHER_HELP, load_teacher
from model.teachers.precomputed import PrecomputedEmbeddings, write_embeddings
from model.teachers.projection import principal_axes
from model.teachers.teacher import Teacher
from model.train.views import framed

PART = 256
_PLAN = "plan.json"
Framing = Literal["resize", "center-crop"]


def precompute(
    pictures: PictureSet,
    teacher: Teacher,
    out: Path,
    *,
    framing: str = "resize",
    batch: int = 32,
    dim: int | None = None,
    progress: Progress | None = None,
) -> PrecomputedEmbeddings:
    """The teacher's embeddings of all pictures, written to a folder.

    Args:
        pictures: the set.
        teacher: what is asked.
        out: the folder; what is done is kept beside it in OUT.parts until all is. If it is there
            already and was made of the same, nothing is done.
        framing: how a picture becomes square: see `model.train.views.framed`.
        batch: pictures that are embedded together.
        dim: principal components to keep; None keeps the embeddings as they are.
        progress: told how far it is.

    Raises:
        MetricError: the folder, or its parts, were made of something else; a part is damaged, or
            the teacher gives a number that is not finite.
        DataError: a picture cannot be read; it is named.
    """
    if dim is not None and not 1 <= dim <= min(teacher.dim, len(pictures)):
        raise MetricError(
            f"{dim} components were wanted of {len(pictures)} embeddings of {teacher.dim} numbers"
        )
    tell = progress or Progress()
    plan = _plan(pictures, teacher, framing)
    components = {"components": "all" if dim is None else str(dim)}
    if out.exists():
        return _finished(out, plan | components)
    parts = _open_parts(out.with_name(f"{out.name}.parts"), plan)
    files = {start: parts / f"{start:09d}.npy" for start in range(0, len(pictures), PART)}
    missing = [
        range(start, min(start + PART, len(pictures)))
        for start, file in files.items()
        if not file.exists()
    ]
    total = sum(map(len, missing))
    if total < len(pictures):
        tell.step(f"{len(pictures) - total} embeddings are there already")
    answers = tell.counting("embeddings", _ask(pictures, teacher, framing, missing, batch), total)
    for numbers in missing:
        rows = np.stack([next(answers) for _ in numbers])
        if not (finite := np.isfinite(rows).all(axis=1)).all():
            bad = pictures.ids[numbers[int(np.argmin(finite))]]
            raise MetricError(f"the embedding of {bad} is not finite")
        _save_part(files[numbers.start], rows)
    for _ in answers:  # there is none left: it says how long they took
        pass
    shapes = {
        file: (min(PART, len(pictures) - start), teacher.dim) for start, file in files.items()
    }
    _gather(pictures, shapes, out, plan | components, dim)
    shutil.rmtree(parts)
    return PrecomputedEmbeddings(out)


def _plan(pictures: PictureSet, teacher: Teacher, framing: str) -> dict[str, str]:
    """What the embeddings are made of; parts and finished folders are only taken up if it fits."""
    ids = hashlib.sha256("\n".join(pictures.ids).encode()).hexdigest()
    side = str(teacher.input_size)
    return {**teacher.record, "input_size": side, "framing": framing, "pictures_sha256": ids}


def _finished(out: Path, plan: Mapping[str, str]) -> PrecomputedEmbeddings:
    found = PrecomputedEmbeddings(out)
    if other := [key for key, value in plan.items() if found.record.get(key) != value]:
        raise MetricError(f"{out} is there already, made with another {', '.join(other)}")
    return found


def _open_parts(folder: Path, plan: Mapping[str, str]) -> Path:
    """The folder of the parts, with what they are parts of."""
    file = folder / _PLAN
    if file.exists():
        try:
            there = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            there = {}
        if there != plan:
            other = [key for key, value in plan.items() if there.get(key) != value]
            raise MetricError(
                f"{folder} holds parts made with another {', '.join(other)}; delete it first"
            )
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(".writing")
    aside.write_text(json.dumps(plan, indent=1), encoding="utf-8")
    aside.rename(file)
    return folder


def _ask(
    pictures: PictureSet, teacher: Teacher, framing: str, parts: Sequence[range], batch: int
) -> Iterator[Float32[np.ndarray, " D"]]:
    """One embedding a picture, in order; the next batch is read while one is embedded.

    No batch goes beyond its part, so that a picture is embedded in the same company in every run.
    """
    if not parts:  # all are there: only gathering them is left
        return
    batches = [
        part[first : first + batch] for part in parts for first in range(0, len(part), batch)
    ]
    with ThreadPoolExecutor(1) as reader:
        read = partial(_read, pictures, teacher.input_size, framing)
        waiting = deque(reader.submit(read, numbers) for numbers in batches[:1])
        for following in [*batches[1:], None]:
            if following is not None:
                waiting.append(reader.submit(read, following))
            x = waiting.popleft().result()
            with torch.inference_mode():
                vectors = teacher.embed(x).cpu().numpy()
            yield from vectors.astype(np.float32, copy=False)


def _read(pictures: PictureSet, side: int, framing: str, numbers: range) -> Tensor:
    return torch.tensor(
        np.stack([framed(pictures[number].pixels(), side, framing) for number in numbers])
    )


def _save_part(file: Path, rows: Float32[np.ndarray, "N D"]) -> None:
    aside = file.with_suffix(".writing")
    with aside.open("wb") as stream:
        np.save(stream, rows, allow_pickle=False)
    aside.rename(file)


def _read_part(file: Path, shape: tuple[int, int]) -> Float32[np.ndarray, "N D"]:
    try:
        rows = np.array(np.lib.format.open_memmap(file, mode="r"))
    except (OSError, ValueError, OverflowError) as exc:
        came = f"a damaged file ({exc})"
    else:
        came = f"{rows.dtype} {rows.shape}"
        if rows.dtype == np.float32 and rows.shape == shape:
            if np.isfinite(rows).all():
                return rows
            came += " with a number that is not finite"
    raise MetricError(
        f"{file}: finite float32 {shape} was wanted, {came} came; "
        "delete this file and run the same again: it goes on from the other parts"
    )


def _gather(
    pictures: PictureSet,
    shapes: Mapping[Path, tuple[int, int]],
    out: Path,
    record: Mapping[str, str],
    dim: int | None,
) -> None:
    """One folder of all parts, projected if that is asked for."""

    def chunks() -> Iterator[Float32[np.ndarray, "_N D"]]:
        return (_read_part(file, shape) for file, shape in shapes.items())

    if dim is None:
        write_embeddings(out, pictures.ids, chunks(), record)
        return
    projection = principal_axes(chunks, dim)
    kept = {"variance_kept": f"{projection.kept:.4f}"}
    beside = {"mean": projection.mean, "axes": projection.axes}
    write_embeddings(out, pictures.ids, map(projection.apply, chunks()), {**record, **kept}, beside)


def teach(  # noqa: PLR0917 (typer makes options of them)
    pictures: Annotated[Path, typer.Argument(help="A folder of pictures or of tar shards.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    teacher: Annotated[str, typer.Option("--teacher", help=TEACHER_HELP)] = "efficientnet-lite0",
    weights: Annotated[
        Path | None, typer.Option("--weights", help="The teacher's weights on disk.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Only this part of PICTURES.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Side of the teacher's input, not its own.")
    ] = None,
    framing: Annotated[
        Framing, typer.Option("--framing", help="How a picture becomes square.")
    ] = "resize",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures at once.")] = 32,
    dim: Annotated[
        int | None, typer.Option("--dim", min=1, help="Keep so many principal components.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="A torch device.")] = "cpu",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the teacher.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask a teacher once for the embedding of every picture; after a stop, the same goes on."""
    output = Output(as_json)
    with output.errors():
        check_device(device, TrainingError)
        limit_threads(threads)
        found = precompute(
            open_pictures(pictures, split=split),
            load_teacher(teacher, weights=weights, size=size, device=device),
            out,
            framing=framing,
            batch=batch,
            dim=dim,
            progress=Progress(sys.stderr),
        )
    fields = {"out": str(out), "count": found.count, "dim": found.dim, "record": found.record}
    text = f"{found.count} embeddings of {found.dim} numbers by {found.name} in {out}"
    if splits := splits_of(pictures):
        text += f", of the splits {', '.join(splits)}" if split is None else f", of {split}"
    output.show(fields, text)
