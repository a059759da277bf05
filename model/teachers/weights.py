# pyright: basic
# torch's loader returns whatever a file holds; it is narrowed here.
"""Weights of foreign networks: tensors only, whatever the file would like to run."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.cli.files import sha256_of
from model.errors import MetricError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file, or of a file of torch.save.

    A pickle is read with torch's unpickler for plain tensors: one that would run code is refused.
    A checkpoint may keep its tensors under "state_dict", "model" or "model_state_dict".

    Raises:
        MetricError: the file is missing, damaged, hostile, or holds no named tensors.
    """
    if not path.is_file():
        raise MetricError(f"weights were wanted, {path} is no file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            # A pickle of an unusual protocol is read or refused like any other.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as exc:
        raise MetricError(f"{path}: {exc}") from exc
    except Exception as exc:  # given strange bytes, torch raises nearly anything
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise MetricError(f"{path}: no file of plain tensors: {reason}") from exc
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping) or not held:
        raise MetricError(f"{path}: named tensors were wanted, it holds {type(held).__name__}")
    for key, value in held.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise MetricError(f"{path}: {key!r:.60} is no named tensor")
    return dict(held)


def load_strictly(network: nn.Module, state: dict[str, Tensor], name: str, path: Path) -> None:
    """Fill a network with tensors of a file, every one of them and no other.

    Raises:
        MetricError: they are another network's.
    """
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as exc:
        lines = [line.strip() for line in str(exc).splitlines()[1:3]]
        raise MetricError(f"{path} does not fit {name}: {' '.join(lines):.300}") from exc


def weights_record(name: str, path: Path) -> dict[str, str]:
    """What to remember of a teacher: its name, its weights' file name and sha256."""
    return {"teacher": name, "weights": path.name, "weights_sha256": sha256_of(path)}


def folder_record(name: str, folder: Path, wanted: Sequence[str]) -> dict[str, str]:
    """What to remember of a teacher whose weights are many files: one sha256 over all of theirs."""
    digest = hashlib.sha256()
    for entry in sorted(folder / one for one in wanted):
        for path in sorted(entry.rglob("*")) if entry.is_dir() else [entry]:
            if path.is_file():
                relative = path.relative_to(folder).as_posix()
                digest.update(f"{sha256_of(path)}  {relative}\n".encode())
    return {"teacher": name, "weights": folder.name, "weights_sha256": digest.hexdigest()}
