"""The checkpoint file's form: safetensors with one metadata key of canonical JSON.

The only reader and writer of safetensors; its errors become ours here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

from model.cli.files import write_aside
from model.errors import CheckpointError
from model.nets.network import tensor_specs
from model.nets.presets import EmbedderConfig, config_from_json
from model.pixels.decode import DECODE_POLICY_VERSION

SCHEMA = "lipsim-checkpoint-1"
METADATA_KEY = "lipsim"
_MEMBERS = {
    "schema",
    "name",
    "config",
    "decode_policy",
    "fingerprint",
    "lipschitz_bound",
    "forward_error",
    "training",
}
_DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64"}


def canonical_json(value: object) -> str:
    """The one spelling of a JSON value that is hashed and stored.

    Raises:
        ValueError: a number is not finite.
        TypeError: the value is no JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_weights(
    path: Path, metadata: Mapping[str, Any], weights: Mapping[str, Float[np.ndarray, "..."]]
) -> None:
    """Writes the file under a temporary name, flushes it, then renames it.

    Raises:
        CheckpointError: the metadata is no JSON, or the file cannot be written.
    """
    try:
        text = canonical_json(metadata)
    except (TypeError, ValueError) as exc:
        raise CheckpointError(f"the metadata is no JSON: {exc}") from exc
    tensors = {name: np.ascontiguousarray(value) for name, value in weights.items()}
    try:
        with write_aside(path) as aside:
            save_file(tensors, aside, metadata={METADATA_KEY: text})
            aside.chmod(0o644)  # the library writes 0600; a service runs as another user
    except (OSError, SafetensorError) as exc:
        raise CheckpointError(f"{path.name} cannot be written: {exc}") from exc


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Float[np.ndarray, "..."]]]:
    """Metadata and tensors of a file, both checked for form; nothing is proved here.

    Raises:
        CheckpointError: the file is missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint file at {path}")
    try:
        # safetensors ships no types; what it returns is checked below, member by member.
        with cast("Any", safe_open)(path, framework="numpy") as file:
            metadata = _metadata_of(path.name, file.metadata())
            wanted = tensor_specs(config_of(metadata))
            names: list[str] = list(file.keys())
            check_layout({name: _layout(file.get_slice(name)) for name in names}, wanted)
            weights = {name: cast("np.ndarray", file.get_tensor(name)) for name in wanted}
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(f"{path.name} is no whole safetensors file: {exc}") from exc
    check_finite(weights)
    return metadata, weights


def check_layout(
    found: Mapping[str, tuple[tuple[int, ...], str]],
    wanted: Mapping[str, tuple[tuple[int, ...], str]],
) -> None:
    """The tensors are exactly those of the config, in shape and dtype."""
    missing, surplus = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or surplus:
        raise CheckpointError(f"missing tensors {missing[:5]}, surplus tensors {surplus[:5]}")
    for name, layout in wanted.items():
        if found[name] != layout:
            raise CheckpointError(f"tensor {name} must be {layout}, got {found[name]}")


def check_finite(weights: Mapping[str, Float[np.ndarray, "..."]]) -> None:
    """No NaN, no infinity."""
    for name, values in weights.items():
        if not np.isfinite(values).all():
            raise CheckpointError(f"tensor {name} holds NaN or infinity")


def config_of(metadata: Mapping[str, Any]) -> EmbedderConfig:
    """The config of a file's metadata."""
    try:
        return config_from_json(metadata["config"])
    except ValueError as exc:
        raise CheckpointError(f"the checkpoint's config is none: {exc}") from exc


def text_member(metadata: Mapping[str, Any], member: str) -> str:
    """A member that must be a short text."""
    value = metadata[member]
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
        raise CheckpointError(f"{member} must be a printable text of at most 200 characters")
    return value


def number_member(metadata: Mapping[str, Any], member: str) -> float:
    """A member that must be a number; a bool is none."""
    value = metadata[member]
    if type(value) not in (int, float):
        raise CheckpointError(f"{member} must be a number, got {value!r:.40}")
    try:
        return float(value)
    except OverflowError as exc:
        raise CheckpointError(f"{member} is too large a number") from exc


def _layout(tensor: Any) -> tuple[tuple[int, ...], str]:
    """Shape and numpy dtype of a stored tensor, without reading it."""
    dtype = str(tensor.get_dtype())
    return tuple(tensor.get_shape()), _DTYPES.get(dtype, dtype)


def _metadata_of(name: str, stored: Mapping[str, str] | None) -> dict[str, Any]:
    """The metadata object of a file, of the schema and decode policy that this version knows."""
    text = (stored or {}).get(METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{name} has no metadata key {METADATA_KEY!r}: not one of ours")
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{name}: its metadata is no JSON") from exc
    if not isinstance(value, dict):
        raise CheckpointError(f"{name}: its metadata must be an object")
    metadata = cast("dict[str, Any]", value)
    if metadata.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{name}: schema {SCHEMA!r} was wanted, got {metadata.get('schema')!r:.60}"
        )
    if set(metadata) != _MEMBERS:
        raise CheckpointError(f"{name}: its metadata must have exactly {sorted(_MEMBERS)}")
    if metadata["decode_policy"] != DECODE_POLICY_VERSION:
        raise CheckpointError(
            f"{name}: made for decode policy {metadata['decode_policy']!r:.60}, "
            f"this program has {DECODE_POLICY_VERSION!r}"
        )
    if not isinstance(metadata["training"], dict):
        raise CheckpointError(f"{name}: its training record must be an object")
    return metadata
