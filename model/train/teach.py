"""Ask a teacher once for the embedding of every picture, and keep the answers.

They are kept in parts as they come, so that a run that was killed goes on where it was; the answers
are the same as those of a run that was not.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from model.cli.progress import Progress
from model.data.pictures import PictureSet
from model.errors import MetricError
from model.teachers.precomputed import PrecomputedEmbeddings, write_embeddings
from model.teachers.projection import principal_axes
from model.teachers.teacher import Teacher
from model.train.part_store import PartStore, digest_of
from model.train.sampling import ids_digest
from model.train.views import framed


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
    """The teacher's embeddings of all pictures, framed by `views.framed`, written to a folder.

    What is done is kept beside it in OUT.parts until all is. If the folder is there already and was
    made of the same, nothing is done. So many pictures are embedded together, and `dim` principal
    components are kept; None keeps the embeddings as they are.

    Raises:
        MetricError: the folder was made of something else, or the teacher gives a number that is
            not finite.
    """
    if dim is not None and not 1 <= dim <= min(teacher.dim, len(pictures)):
        raise MetricError(
            f"{dim} components were wanted of {len(pictures)} embeddings of {teacher.dim} numbers"
        )
    progress = progress or Progress()
    record = {
        **teacher.record,
        "input_size": str(teacher.input_size),
        "framing": framing,
        "pictures_sha256": ids_digest(pictures.ids),
    }
    components = {"components": "all" if dim is None else str(dim)}
    if out.exists():
        found = PrecomputedEmbeddings(out)
        wanted = record | components
        if other := [key for key, value in wanted.items() if found.record.get(key) != value]:
            raise MetricError(f"{out} is there already, made with another {', '.join(other)}")
        return found
    folder = out.with_name(f"{out.name}.parts")
    store = PartStore(folder, digest_of(record), len(pictures), (teacher.dim,), "float32")
    missing = store.missing()
    total = sum(map(len, missing))
    if total < len(pictures):
        progress.step(f"{len(pictures) - total} embeddings are there already")
    with progress.counter("embeddings", total) as advance:
        answers = _ask(pictures, teacher, framing, missing, batch)
        for part in missing:
            rows: list[Float32[np.ndarray, " D"]] = []
            for number in part:
                rows.append(next(answers))
                advance()
                if not np.isfinite(rows[-1]).all():
                    raise MetricError(f"the embedding of {pictures.ids[number]} is not finite")
            store.save(part, np.stack(rows))
    _gather(pictures, store, out, record | components, dim)
    shutil.rmtree(folder)
    return PrecomputedEmbeddings(out)


def _ask(
    pictures: PictureSet, teacher: Teacher, framing: str, parts: Sequence[range], batch: int
) -> Iterator[Float32[np.ndarray, " D"]]:
    """One embedding a picture, in order; the next batch is read while one is embedded.

    No batch goes beyond its part, so that a picture is embedded in the same company in every run.
    """

    def read(numbers: range) -> Tensor:
        decoded = (pictures[number].pixels() for number in numbers)
        views = [framed(pixels, teacher.input_size, framing) for pixels in decoded]
        return torch.tensor(np.stack(views))

    batches = [
        part[first : first + batch] for part in parts for first in range(0, len(part), batch)
    ]
    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(read, numbers) for numbers in batches[:1]]
        for following in [*batches[1:], None][: len(batches)]:
            x = coming.pop().result()
            if following is not None:
                coming.append(reader.submit(read, following))
            with torch.inference_mode():
                vectors = teacher.embed(x).cpu().numpy()
            yield from vectors.astype(np.float32, copy=False)


def _gather(
    pictures: PictureSet, store: PartStore, out: Path, record: Mapping[str, str], dim: int | None
) -> None:
    """One folder of all parts, projected if that is asked for."""
    if dim is None:
        write_embeddings(out, pictures.ids, store.parts(), record)
        return
    projection = principal_axes(store.parts, dim)
    kept = {"variance_kept": f"{projection.kept:.4f}"}
    beside = {"mean": projection.mean, "axes": projection.axes}
    rows = map(projection.apply, store.parts())
    write_embeddings(out, pictures.ids, rows, {**record, **kept}, beside)
