"""Imports an official LipSim checkpoint: `python -m model.convert IN.pth OUT.safetensors`.

A checkpoint of ours as IN (`.safetensors`) has its head rotated, which makes radii larger.

Strict: a missing or surplus key, another shape, a NaN or an alias that differs from its twin is an
error. Pickle is read with torch's `weights_only=True` and nothing else.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from jaxtyping import Float
from pydantic import ValidationError

from model.cli.problems import problems
from model.errors import CertificateError, CheckpointError, MetricError
from model.nets.checkpoint import (
    Checkpoint,
    check_finite,
    check_layout,
    read_checkpoint,
    save_checkpoint,
)
from model.nets.network import tensor_specs
from model.nets.presets import PRESETS, PublishedConfig, WaveConfig
from model.nets.published import published_scalings
from model.nets.wave import rotate_head
from model.teachers.weights import read_tensors

_PREFIXES = ("module.model.", "model.", "module.", "")
_ALIASES = {"base.1.": "convs.", "base.2.": "linear."}
_KEY = re.compile(r"(convs|linear)\.(0|[1-9][0-9]{0,3})\.(kernel|weight|bias|q)")
_OFFICIAL_DIM = 1792
_PIXELS_AFTER_POOLS = 196

Weights = Mapping[str, Float[np.ndarray, "..."]]


def convert_official(
    source: Path, target: Path, *, embedding_dim: int | None = None, name: str | None = None
) -> Checkpoint:
    """Reads an official checkpoint, proves it and writes ours.

    Args:
        source: the official `.pth` or `.pt` file.
        target: the safetensors file to write; replaced if it is there.
        embedding_dim: numbers kept of the last block; None takes the preset's, or what the
            official loader would keep: min(1792, channels x 196).
        name: what people will call the network; None takes the preset's name, or "published".

    Returns:
        The checkpoint as written.

    Raises:
        CheckpointError: the file cannot be read, or is not exactly an official checkpoint.
    """
    weights = read_official(source)
    config, preset = recognise(weights, embedding_dim)
    try:
        scalings = published_scalings(config, weights)
    except CertificateError as exc:
        raise CheckpointError(f"no scaling T for these weights: {exc}") from exc
    record = {"converted_from": source.name, "format": "official LipSim checkpoint"}
    return save_checkpoint(
        target,
        name=name or preset or "published",
        config=config,
        weights={**weights, **scalings},
        training=record,
    )


def rotate_checkpoint(source: Path, target: Path, *, name: str | None = None) -> Checkpoint:
    """Rotates the head of one of our wavelet networks, for larger radii of the same answers.

    The embedding is turned as a whole (`rotate_head`), so that a bound for each of its coordinates
    can be proved. Its fingerprint is another: indexes are built again.

    Args:
        source: a checkpoint of ours.
        target: the file to write; replaced if it is there.
        name: what people will call the network; None keeps its name.

    Raises:
        CheckpointError: the file cannot be read, or its network has no head.
    """
    checkpoint = read_checkpoint(source)
    if not isinstance(checkpoint.config, WaveConfig):
        raise CheckpointError(f"{source}: a wavelet network was wanted, this one has no head")
    weight, offset = rotate_head(
        checkpoint.weights["head.weight"], checkpoint.weights["head.offset"]
    )
    return save_checkpoint(
        target,
        name=name or checkpoint.name,
        config=replace(checkpoint.config, head_dtype="float32"),
        weights={**checkpoint.weights, "head.weight": weight, "head.offset": offset},
        training={**checkpoint.training, "rotated_from": checkpoint.fingerprint},
    )


def read_official(source: Path) -> dict[str, Float[np.ndarray, "..."]]:
    """The distinct tensors of an official checkpoint, under names without prefix or alias.

    Both generations of keys are read: with the `base.*` aliases (each equal to its twin, bit for
    bit) and without, behind `module.model.`, `model.`, `module.` or nothing.

    Raises:
        CheckpointError: the file cannot be read, or a key is missing, surplus or strange.
    """
    tensors = _without_prefix(_state_dict(source))
    _check_names(tensors)
    views = {key: _as_view(key, value) for key, value in tensors.items()}
    own = {key: value for key, value in views.items() if not key.startswith("base.")}
    config, _ = recognise(own, None)
    wanted = {key: spec for key, spec in tensor_specs(config).items() if _KEY.fullmatch(key)}
    check_layout({key: (value.shape, str(value.dtype)) for key, value in own.items()}, wanted)
    # Only now is a number read or copied: keys, shapes and sizes are those of a real network.
    check_finite(own)
    for alias in sorted(views.keys() - own.keys()):
        one, other = own[_twin(alias)], views[alias]
        if one.shape != other.shape or one.tobytes() != other.tobytes():
            raise CheckpointError(f"alias {alias} differs from {_twin(alias)}")
    return {key: np.ascontiguousarray(value) for key, value in own.items()}


def recognise(weights: Weights, embedding_dim: int | None) -> tuple[PublishedConfig, str | None]:
    """The config that these tensors have, from their shapes, and the name of its preset if any.

    Raises:
        CheckpointError: they are no published network; the layers counted are those of
            the highest number, so that a gap is a missing key.
    """
    layers = [key.split(".")[:2] for key in weights]
    depth, linear_depth = (
        max((int(number) for kind, number in layers if kind == wanted), default=0)
        for wanted in ("convs", "linear")
    )
    kernel = _first(weights, "convs.0.kernel", 4)
    weight = _first(weights, "linear.1.weight", 2)
    inner, channels = kernel.shape[:2]
    features, width = weight.shape
    shape: dict[str, Any] = {
        "depth": depth + 1, "channels": channels, "inner": inner, "linear_depth": linear_depth,
        "features": features,
    }  # fmt: skip
    if kernel.shape[2:] != (3, 3):
        raise CheckpointError(f"convs.0.kernel must be 3 x 3, got {kernel.shape}")
    if width != channels * _PIXELS_AFTER_POOLS:
        raise CheckpointError(
            f"linear.1.weight must have {channels} x {_PIXELS_AFTER_POOLS} columns, got {width}"
        )
    like = (name for name, known in PRESETS.items() if vars(known).items() >= shape.items())
    name = next(like, None)
    kept = PRESETS[name].embedding_dim if name else min(_OFFICIAL_DIM, width)
    try:
        return PublishedConfig(**shape, embedding_dim=embedding_dim or kept), name
    except ValidationError as exc:
        said = f"the tensors' shapes are no published network: {problems(exc)}"
        raise CheckpointError(said) from exc


def main(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="Official checkpoint (.pth), or one of ours (.safetensors) to rotate.",
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="File to write.")],
    embedding_dim: Annotated[
        int | None, typer.Option(help="Numbers kept; default: the preset's.", min=1)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the network.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Convert an official LipSim checkpoint to safetensors, strictly, and prove its bounds.

    One of ours has its head rotated: the same answers, with larger radii.
    """
    try:
        if target.exists() and not force:
            raise CheckpointError(f"{target} exists; --force overwrites it")  # noqa: TRY301
        if source.suffix == ".safetensors":
            if embedding_dim:
                raise CheckpointError("--embedding-dim is for official checkpoints")  # noqa: TRY301
            checkpoint = rotate_checkpoint(source, target, name=name)
        else:
            checkpoint = convert_official(source, target, embedding_dim=embedding_dim, name=name)
    except CheckpointError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(1) from exc
    kept = checkpoint.config.embedding_dim
    typer.echo(f"wrote            {target}")
    typer.echo(f"network          {checkpoint.name}, {checkpoint.config}")
    is_official = source.suffix != ".safetensors"
    hint = " (--embedding-dim changes it)" if is_official and not embedding_dim else ""
    typer.echo(f"embedding dim    {kept}{hint}")
    typer.echo(f"fingerprint      {checkpoint.fingerprint}")
    typer.echo(f"lipschitz_bound  {checkpoint.lipschitz_bound!r}")
    typer.echo(f"forward_error    {checkpoint.forward_error!r}")


def _state_dict(source: Path) -> dict[str, torch.Tensor]:
    """The weights' dictionary of an official file."""
    try:
        return read_tensors(source)
    except MetricError as exc:
        raise CheckpointError(str(exc)) from exc


def _without_prefix(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same dictionary with the wrappers' common prefix taken off every key."""
    for prefix in _PREFIXES:
        if f"{prefix}convs.0.kernel" in state:
            break
    else:
        raise CheckpointError("missing key convs.0.kernel, behind any known prefix")
    surplus = sorted(key for key in state if not key.startswith(prefix))
    if surplus:
        raise CheckpointError(f"surplus keys without the prefix {prefix!r}: {surplus[:5]}")
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _check_names(tensors: Mapping[str, Any]) -> None:
    """Names of layers, and either an alias of each or none at all."""
    aliases = {key for key in tensors if key.startswith("base.")}
    own = {key for key in tensors if _KEY.fullmatch(key)}
    if surplus := sorted(set(tensors) - own - aliases):
        raise CheckpointError(f"surplus keys in the checkpoint: {surplus[:5]}")
    lone = sorted(alias for alias in aliases if _twin(alias) not in own)
    missing = sorted(own - set(map(_twin, aliases))) if aliases else []
    if lone or missing:
        raise CheckpointError(f"aliases without twin {lone[:5]}, keys without alias {missing[:5]}")


def _as_view(key: str, value: object) -> Float[np.ndarray, "..."]:
    """A dense float32 tensor as an array over its own memory; no number is read or copied.

    A tensor of more numbers than its storage holds repeats them by strides: a small file could
    claim terabytes.
    """
    if not isinstance(value, torch.Tensor):
        raise CheckpointError(f"{key} must be a dense tensor, got {type(value).__name__}")
    try:
        if value.layout != torch.strided or value.device.type != "cpu":
            raise CheckpointError(
                f"{key} must be a dense tensor, got {value.layout} on {value.device}"
            )
        if value.dtype != torch.float32:
            raise CheckpointError(f"{key} must be float32, got {value.dtype}")
        stored = value.untyped_storage().nbytes()
        if stored < value.numel() * value.element_size():
            raise CheckpointError(f"{key} claims {value.numel()} numbers in {stored} bytes")
        return value.detach().numpy()
    except RuntimeError as exc:  # a lazy sign, or another form without memory of its own
        reason = str(exc).split("\n", maxsplit=1)[0]
        raise CheckpointError(f"{key} must be a plain tensor: {reason}") from exc


def _twin(alias: str) -> str:
    """The name of the tensor that an alias repeats; a strange alias is its own."""
    own = next((new for old, new in _ALIASES.items() if alias.startswith(old)), None)
    return (own or alias) + alias[len("base.1.") :]


def _first(weights: Weights, key: str, axes: int) -> Float[np.ndarray, "..."]:
    """A tensor that must be there, with so many axes and no empty one."""
    if key not in weights:
        raise CheckpointError(f"missing key {key}")
    value = weights[key]
    if value.ndim != axes or not math.prod(value.shape):
        raise CheckpointError(f"{key} must have {axes} axes, none empty, got {value.shape}")
    return value


if __name__ == "__main__":
    typer.run(main)
