"""Galleries whose rows are nearly one, without a picture for each."""

from hashlib import sha256
from pathlib import Path

import numpy as np

from index_builder.build.journal import EmbeddedImage
from index_builder.build.writer import ModelIdentity, Planned, seal_version, writing
from index_builder.store import layout
from model.embedder import Embedder


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows over their norms, as an index stores them."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def near_equal_rows(
    count: int, dimension: int, centre: np.ndarray | None = None, within: float = 1e-4
) -> np.ndarray:
    """Unit rows so near to one vector."""
    rng = np.random.default_rng(5)
    middle = rng.normal(size=dimension) if centre is None else centre
    noise = rng.normal(size=(count, dimension)) / np.sqrt(dimension)
    return unit_rows(middle / np.linalg.norm(middle) + within * noise)


def seal_rows(data_dir: Path, name: str, embedder: Embedder, rows: np.ndarray) -> None:
    """Write and serve an index of these rows, through the writer of every build."""
    by_content = {sha256(row.tobytes()).hexdigest(): row.astype("<f4").tobytes() for row in rows}
    planned = [
        Planned(f"{number:06}.png", f"{number:06}.png", content, 1, {})
        for number, content in enumerate(by_content)
    ]

    def embedded(content: str) -> EmbeddedImage:
        return EmbeddedImage(
            content, by_content[content], b"\0", np.ones(1).tobytes(), 8, 8, "PNG", b""
        )

    model = ModelIdentity(
        embedder.name, embedder.fingerprint, embedder.decode_policy, rows.shape[1]
    )
    paths = layout.index_paths(data_dir, name)
    with writing(paths):
        seal_version(
            paths,
            model=model,
            views=("whole",),
            planned=planned,
            embedded=embedded,
            quarantined=[],
            source="near-equal rows",
            counts={},
            served=None,
        )
