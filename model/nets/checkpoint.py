"""Weights on disk: one safetensors file, its claims proved again at load, strangers refused.

The file holds the tensors of `tensor_specs` and one metadata key of canonical JSON. Its fingerprint
is of what is computed (tensors, config, decode policy), not of the file or the training record.
The only reader and writer of safetensors; its errors become ours here.
"""

import contextlib
import hashlib
import json
import math
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

from model.cli.files import write_aside
from model.cli.problems import problems
from model.errors import CertificateError, CheckpointError
from model.nets.network import Network, NetworkProof, build_network, tensor_specs
from model.nets.presets import EmbedderConfig, config_from_json, config_to_json
from model.pixels.decode import DECODE_POLICY_VERSION

SCHEMA = "lipsim-checkpoint-1"
# The same with `output_scales`: of a network whose head is rotated.
SCALES_SCHEMA = "lipsim-checkpoint-2"
METADATA_KEY = "lipsim"
# How far above the proof a claim may be, as a factor, and at all. Another machine's roundings move
# the bound by 1e-12 and E by a few per cent; a claim far beyond makes every radius 0 or, near the
# end of float64, overflow in the certificate. E is given more room: it is tiny beside the radii.
# The ceilings keep squares finite, whatever is proved.
_LIPSCHITZ_CLAIM = (2.0, 1e6)
_ERROR_CLAIM = (1e3, 1e100)
_DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64"}

Weights = Mapping[str, Float[np.ndarray, "..."]]

_proofs: dict[tuple[str, torch.dtype], NetworkProof] = {}
_proofs_lock = threading.Lock()


def _is_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"a printable text was wanted, got {text!r}")
    return text


Text = Annotated[str, Field(max_length=200), AfterValidator(_is_printable)]


class _Metadata(BaseModel):
    """What a file says of its tensors; what is claimed of them is checked by `check_claims`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    schema_: Literal["lipsim-checkpoint-1", "lipsim-checkpoint-2"] = Field(alias="schema")
    name: Text
    config: dict[str, Any]
    decode_policy: Text
    fingerprint: Text
    lipschitz_bound: float
    forward_error: float
    training: dict[str, Any]
    output_scales: list[float] | None = None

    @model_validator(mode="after")
    def _has_scales_or_not(self) -> "_Metadata":
        if (self.output_scales is not None) != (self.schema_ == SCALES_SCHEMA):
            raise ValueError(f"output_scales belong into schema {SCALES_SCHEMA!r}, and only there")
        return self


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights and what is claimed of them.

    Attributes:
        name: what people call it; no part of the fingerprint.
        config: shape of the network.
        weights: every tensor, as stored, by name.
        decode_policy: version of the decode policy it was made for.
        lipschitz_bound: claimed upper bound, l2 to l2; at least what is proved.
        forward_error: claimed upper bound E of the float64 pass for inputs in [0, 1], likewise.
        fingerprint: sha256 over weights, config and decode policy, 64 hexadecimal digits.
        training: record of how it was made; any JSON object.
        output_scales: claimed bounds along each coordinate of an embedding (`model.certificate.
            metric`), (d,); None where they are `lipschitz_bound` throughout.
    """

    name: str
    config: EmbedderConfig
    weights: Weights
    decode_policy: str
    lipschitz_bound: float
    forward_error: float
    fingerprint: str
    training: Mapping[str, Any]
    output_scales: Sequence[float] | None = None


def save_checkpoint(
    path: Path | str,
    *,
    name: str,
    config: EmbedderConfig,
    weights: Weights,
    training: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Proves a network and writes it, whole or not at all.

    The claims are the proofs, rounded up generously (bounds by 2e-12, E by 1 in 1000): another
    machine proves the same network with other roundings, and must not refuse an honest file.

    Args:
        path: the file; replaced if it is there.
        name: what people will call the network.
        config: its shape.
        weights: exactly the tensors of `tensor_specs(config)`, T of each block included.
        training: record of how it was made, JSON values.

    Returns:
        The checkpoint as it is in the file.

    Raises:
        CheckpointError: tensors missing, surplus, misshapen or not finite; nothing provable; a
            record that is no JSON; or the file cannot be written.
    """
    check_layout(
        {key: (value.shape, str(value.dtype)) for key, value in weights.items()},
        tensor_specs(config),
    )
    check_finite(weights)
    fingerprint = fingerprint_of(config, weights, DECODE_POLICY_VERSION)
    proof = prove(build(config, weights), fingerprint)
    checkpoint = Checkpoint(
        name=name,
        config=config,
        weights=weights,
        decode_policy=DECODE_POLICY_VERSION,
        lipschitz_bound=math.ceil(proof.lipschitz_bound * 1e12 + 2.0) / 1e12,
        forward_error=float(f"{proof.forward_error * 1.002:.3e}"),
        fingerprint=fingerprint,
        training=training or {},
        output_scales=_claimed_scales(proof),
    )
    check_claims(checkpoint, proof)
    _write(Path(path), checkpoint)
    return checkpoint


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Reads a checkpoint and proves its claims again: they hold for the weights as read.

    Raises:
        CheckpointError: as `read_checkpoint` and `check_claims` say.
    """
    checkpoint = read_checkpoint(path)
    network = build(checkpoint.config, checkpoint.weights)
    check_claims(checkpoint, prove(network, checkpoint.fingerprint))
    return checkpoint


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Reads a checkpoint; nothing is proved yet: whoever runs it checks its claims.

    Raises:
        CheckpointError: the file is missing, not safetensors, truncated, of an unknown schema or
            another decode policy; tensors are missing, surplus, misshapen or not finite; or the
            fingerprint is another.
    """
    path = Path(path)
    metadata, config, weights = _read(path)
    said = metadata.model_dump(exclude={"schema_", "config"})
    checkpoint = Checkpoint(config=config, weights=weights, **said)
    fingerprint = fingerprint_of(config, weights, checkpoint.decode_policy)
    if fingerprint != checkpoint.fingerprint:
        raise CheckpointError(
            f"{path.name}: fingerprint {checkpoint.fingerprint!r:.70} is claimed, "
            f"weights and config have {fingerprint}"
        )
    return checkpoint


def fingerprint_of(config: EmbedderConfig, weights: Weights, decode_policy: str) -> str:
    """sha256 over sorted (name, dtype, shape, bytes), canonical config and decode policy."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = np.ascontiguousarray(weights[name])
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        # Each header is one line of JSON that fixes how many bytes follow: no two inputs collide.
        header = [name, str(values.dtype), list(values.shape)]
        digest.update(canonical_json(header).encode() + b"\n")
        digest.update(little.data)
    digest.update(canonical_json([config_to_json(config), decode_policy]).encode() + b"\n")
    return digest.hexdigest()


def build(
    config: EmbedderConfig,
    weights: Weights,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> Network:
    """The network of these weights, in an arithmetic and on a device.

    Raises:
        CheckpointError: a weight leaves the arithmetic's range, so nothing could be proved.
    """
    with _provable():
        return build_network(config, weights, dtype, device)


def prove(network: Network, fingerprint: str, dtype: torch.dtype = torch.float64) -> NetworkProof:
    """What is proved of a network, once a process, fingerprint and arithmetic.

    Args:
        network: of any arithmetic; proofs are of the weights as stored, which it keeps.
        fingerprint: of its weights and config.
        dtype: the arithmetic whose forward error is asked for.

    Returns:
        The Lipschitz bound in real arithmetic and the forward error in dtype.

    Raises:
        CheckpointError: nothing can be proved, with the reason.
    """
    key = (fingerprint, dtype)
    with _proofs_lock:
        known = _proofs.get(key)
    if known is None:
        with _provable():
            known = network.prove(dtype)
        with _proofs_lock:
            _proofs[key] = known
    return known


@contextlib.contextmanager
def _provable() -> Generator[None]:
    """While open, what cannot be proved is the fault of the checkpoint's weights."""
    try:
        yield
    except CertificateError as exc:
        raise CheckpointError(f"nothing can be proved of these weights: {exc}") from exc


def check_claims(checkpoint: Checkpoint, proof: NetworkProof) -> None:
    """A claim may be generous within reason, never smaller than the proof; NaN is neither.

    Raises:
        CheckpointError: a claim is below what is proved, or far above it.
    """
    scales = checkpoint.output_scales
    if scales is not None and len(scales) != len(proof.output_scales):
        raise CheckpointError(f"{len(proof.output_scales)} output_scales wanted, got {len(scales)}")
    for claim, claimed, proved, generosity in (
        *(
            (f"output_scales[{i}]", scale, proved, _LIPSCHITZ_CLAIM)
            for i, (scale, proved) in enumerate(
                zip(scales or (), proof.output_scales.tolist(), strict=scales is not None)
            )
        ),
        ("lipschitz_bound", checkpoint.lipschitz_bound, proof.lipschitz_bound, _LIPSCHITZ_CLAIM),
        ("forward_error", checkpoint.forward_error, proof.forward_error, _ERROR_CLAIM),
    ):
        if not proved <= claimed < math.inf:
            raise CheckpointError(f"{claim} {claimed!r} is claimed, but {proved!r} is proved")
        times, ceiling = generosity
        if claimed > min(times * proved, ceiling):
            raise CheckpointError(
                f"{claim} {claimed!r} is claimed, but {proved!r} is proved; at most {times:g} "
                f"times that is accepted, and at most {ceiling:g}"
            )


def _claimed_scales(proof: NetworkProof) -> list[float] | None:
    scales = proof.output_scales
    if (scales == proof.lipschitz_bound).all():
        return None
    return [float(f"{scale * (1.0 + 2e-12):.12e}") for scale in scales.tolist()]


def canonical_json(value: object) -> str:
    """The one spelling of a JSON value that is hashed and stored.

    Raises:
        ValueError: a number is not finite.
        TypeError: the value is no JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


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


def check_finite(weights: Weights) -> None:
    """No NaN, no infinity."""
    for name, values in weights.items():
        if not np.isfinite(values).all():
            raise CheckpointError(f"tensor {name} holds NaN or infinity")


def _write(path: Path, checkpoint: Checkpoint) -> None:
    metadata = {name: value for name, value in vars(checkpoint).items() if name != "weights"}
    schema = SCHEMA if checkpoint.output_scales is None else SCALES_SCHEMA
    metadata |= {"schema": schema, "config": config_to_json(checkpoint.config)}
    if checkpoint.output_scales is None:
        del metadata["output_scales"]
    try:
        text = canonical_json(metadata)
    except (TypeError, ValueError) as exc:
        raise CheckpointError(f"the metadata is no JSON: {exc}") from exc
    tensors = {name: np.ascontiguousarray(value) for name, value in checkpoint.weights.items()}
    try:
        with write_aside(path) as aside:
            save_file(tensors, aside, metadata={METADATA_KEY: text})
            aside.chmod(0o644)  # the library writes 0600; a service runs as another user
    except (OSError, SafetensorError) as exc:
        raise CheckpointError(f"{path.name} cannot be written: {exc}") from exc


def _read(path: Path) -> tuple[_Metadata, EmbedderConfig, Weights]:
    """Metadata, config and tensors of a file, checked for form."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint file at {path}")
    try:
        # safetensors ships no types; what it returns is checked below, member by member.
        with cast("Any", safe_open)(path, framework="numpy") as file:
            metadata = _metadata_of(path.name, file.metadata())
            config = config_from_json(metadata.config)
            wanted = tensor_specs(config)
            names: list[str] = list(file.keys())
            check_layout({name: _layout(file.get_slice(name)) for name in names}, wanted)
            weights = {name: cast("np.ndarray", file.get_tensor(name)) for name in wanted}
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(f"{path.name} is no whole safetensors file: {exc}") from exc
    except ValueError as exc:
        raise CheckpointError(f"the checkpoint's config is none: {exc}") from exc
    check_finite(weights)
    return metadata, config, weights


def _layout(tensor: Any) -> tuple[tuple[int, ...], str]:
    """Shape and numpy dtype of a stored tensor, without reading it."""
    dtype = str(tensor.get_dtype())
    return tuple(tensor.get_shape()), _DTYPES.get(dtype, dtype)


def _metadata_of(name: str, stored: Mapping[str, str] | None) -> _Metadata:
    """The metadata of a file, of the schema and decode policy that this version knows."""
    text = (stored or {}).get(METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{name} has no metadata key {METADATA_KEY!r}: not one of ours")
    try:
        metadata = _Metadata.model_validate(json.loads(text))
    except ValidationError as exc:
        raise CheckpointError(f"{name}: its metadata: {problems(exc)}") from exc
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{name}: its metadata is no JSON") from exc
    if metadata.decode_policy != DECODE_POLICY_VERSION:
        raise CheckpointError(
            f"{name}: made for decode policy {metadata.decode_policy!r}, "
            f"this program has {DECODE_POLICY_VERSION!r}"
        )
    return metadata
