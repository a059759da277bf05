# pyright: basic
# What torch loads has no types to speak of.
"""What was saved, held against what it should be; each answer is None, or a reason in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def unlike_members(found: Any, kinds: Mapping[str, type]) -> str | None:
    """Why this is no mapping with members of these names and kinds.

    An int counts something and is not negative, a float is finite; surplus members do no harm.
    """
    if not isinstance(found, Mapping):
        return f"named members were wanted, got {type(found).__name__}"
    for name, kind in kinds.items():
        if name not in found:
            return f"{name} is missing"
        value = found[name]
        if kind is float and type(value) is int:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            return f"{name} must be of type {kind.__name__}, got {type(value).__name__}"
        if kind is int and value < 0:
            return f"{name} must not be negative, got {value}"
        if kind is float and not abs(value) < float("inf"):
            return f"{name} must be finite, got {value}"
    return None


def unlike_tensors(found: Any, wanted: Mapping[str, Tensor]) -> str | None:
    """Why these are not tensors of the same names, shapes and types."""
    if not isinstance(found, Mapping):
        return f"named tensors were wanted, got {type(found).__name__}"
    for name in found:
        if name not in wanted:
            return f"there is no place for {name!r:.60}"
    for name, tensor in wanted.items():
        if name not in found:
            return f"{name} is missing"
        value = found[name]
        if not isinstance(value, Tensor):
            return f"{name} must be a tensor, got {type(value).__name__}"
        if (value.shape, value.dtype) != (tensor.shape, tensor.dtype):
            return f"{name} must be {_described(tensor)}, got {_described(value)}"
    return None


def unlike_moments(found: Any, parameters: Sequence[Tensor]) -> str | None:
    """Why these are not Adam's moments of these parameters."""
    if not isinstance(found, Mapping):
        return f"moments by number were wanted, got {type(found).__name__}"
    if set(found) != set(range(len(parameters))):
        return f"moments of {len(parameters)} parameters were wanted, got {len(found)}"
    for number, parameter in enumerate(parameters):
        like = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
        if why := unlike_tensors(found[number], like):
            return f"parameter {number}: {why}"
    return None


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}".removeprefix("torch.")
