"""The data directory, and every index in it."""

import os
from collections.abc import Iterator
from pathlib import Path

from index_builder.errors import IndexModelMismatchError
from index_builder.search.gallery import GalleryIndex, list_indexes
from model.errors import RetrievalError
from service.doctor.findings import Finding, failed, ok, warning
from service.doctor.model import Model
from service.schemas.parts import DEFAULT_INDEX

_BUILD = "python -m index_builder build SOURCE"


def check_data_dir(data_dir: Path) -> Iterator[Finding]:
    """The directory is there, may be read, and holds some index."""
    if not data_dir.is_dir():
        yield failed(
            f"{data_dir} is no directory", f"set LIPSIM_DATA_DIR, or make an index: `{_BUILD}`"
        )
        return
    if not os.access(data_dir, os.R_OK | os.X_OK):
        yield failed(f"{data_dir} may not be read", "give the service's user the right to read it")
        return
    names = list_indexes(data_dir)
    if not names:
        yield warning(f"{data_dir} holds no index", f"only comparing works until `{_BUILD}`")
    elif DEFAULT_INDEX not in names:
        yield warning(
            f"{data_dir} holds {len(names)}, and none is called {DEFAULT_INDEX!r}",
            "clients must name one",
        )
    else:
        yield ok(f"{data_dir} holds {len(names)}: {', '.join(names[:10]):.200}")


def check_indexes(data_dir: Path, model: Model) -> Iterator[Finding]:
    """Each index opens, every byte as sealed, and was made by the model in service."""
    embedder = model.load()
    for name in list_indexes(data_dir) if data_dir.is_dir() else []:
        try:
            index = GalleryIndex.open(
                data_dir,
                name,
                embedder_fingerprint=embedder and embedder.fingerprint,
                decode_policy=embedder and embedder.decode_policy,
            )
        except IndexModelMismatchError as error:
            yield failed(str(error), "build it again, or set LIPSIM_CHECKPOINT to its model")
            continue
        except RetrievalError as error:
            advice = f"`python -m index_builder verify --index {name}`, then rollback or build"
            yield failed(f"{name}: {error}", advice)
            continue
        says = f"{name} {index.version}: {index.size} entries, dim {index.dim}, hashes right"
        index.close()
        if embedder is None:
            yield warning(f"{says}; the model was refused, so not compared", "see the model")
        else:
            yield ok(f"{says}, made by the model in service")
