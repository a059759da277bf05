"""The licence texts of a corpus, one file a source."""

import gzip
from pathlib import Path

from model.errors import CorpusError
from model.train.corpus.recipe import Source


def licence_text(source: Source, base: Path) -> str:
    """What stands in licences/SOURCE.txt: the name, the role, and the text where there is one.

    Args:
        source: whose licence.
        base: the package's or folder's top, which `licence_file` is relative to.

    Raises:
        CorpusError: the licence file that the recipe names is not there.
    """
    head = f"source: {source.name}\nlicence: {source.licence}\nrole: {source.role}\n"
    if source.role == "evaluate-only":
        head += "Made to be measured with on this machine; not to be handed on.\n"
    if not source.licence_file:
        return head
    path = base / source.licence_file
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise CorpusError(
            f"source {source.name}: its licence file {path} cannot be read; mend licence_file"
        ) from exc
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    return f"{head}\n{data.decode('utf-8', errors='replace')}"
