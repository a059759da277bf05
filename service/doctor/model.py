"""The checkpoint: loaded once, for every check that needs it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from model.embedder import Embedder
from model.errors import RetrievalError
from service.doctor.findings import Finding, failed, ok


class Model:
    """Loads a checkpoint when it is first needed, and only once, whether that works or not."""

    def __init__(self, checkpoint: Path | None, arithmetic: Literal["float64", "float32"]) -> None:
        self._checkpoint = checkpoint
        self._arithmetic: Literal["float64", "float32"] = arithmetic
        self._embedder: Embedder | None = None
        self._error: RetrievalError | None = None

    def load(self) -> Embedder | None:
        """The embedder; None if the checkpoint is refused, which `check_model` says."""
        if self._embedder is None and self._error is None:
            try:
                self._embedder = Embedder.load(self._checkpoint, arithmetic=self._arithmetic)
            except RetrievalError as error:
                self._error = error
        return self._embedder

    @property
    def refusal(self) -> str:
        """Why it was refused; empty if it was not."""
        return "" if self._error is None else str(self._error)


def check_model(model: Model) -> Iterator[Finding]:
    """The checkpoint is whole, and its bounds are proved again from the weights as read."""
    embedder = model.load()
    if embedder is None:
        yield failed(model.refusal, "set LIPSIM_CHECKPOINT to a file of `model.train` or `convert`")
        return
    yield ok(
        f"{embedder.name} {embedder.fingerprint[:16]}: Lipschitz bound "
        f"{embedder.lipschitz_bound:.9g}, forward error E {embedder.forward_error:.3g} "
        f"({embedder.arithmetic}, claim {embedder.claim}), proved"
    )
