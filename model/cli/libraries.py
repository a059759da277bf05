"""Libraries of an extra, imported when they are used, or one line that says what is missing."""

import importlib
from typing import Any

from model.errors import DependencyError


def install_hint(extra: str) -> str:
    """How an extra of ours is installed, for a message."""
    pip = f"pip install 'lipsim-retrieval[{extra}]'"
    # What the Makefile sets up has this extra alone of those that name libraries here.
    return f"`make setup` in a clone, or {pip}" if extra == "train" else pip


def import_foreign(module: str, needed_by: str, package: str, extra: str) -> Any:
    """A library's module; none of ours has types, so what comes out is narrowed by the caller.

    `package` is its name where packages are installed from, `extra` ours that brings it;
    `needed_by` is for the message.

    Raises:
        DependencyError: it is not installed, or something it needs is not, or does not fit.
    """
    try:
        return importlib.import_module(module)
    # torchvision built for another torch fails with RuntimeError.
    except (ImportError, RuntimeError) as exc:
        is_there = not (isinstance(exc, ModuleNotFoundError) and exc.name in (module, None))
        reason = f", which cannot be imported ({exc})" if is_there else ""
        raise DependencyError(
            f"{needed_by} needs {package}{reason}: {install_hint(extra)}"
        ) from exc
