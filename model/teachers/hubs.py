# pyright: basic
# Neither torch nor the packages have types to speak of.
"""DINO, DINOv2, OpenCLIP and their like, through timm and open_clip, from weights on disk.

The packages build the network and know its pixels; the weights are read by us, as plain tensors,
and every tensor must fit: a wrong file is refused instead of leaving random weights behind.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from model.cli.libraries import import_foreign
from model.errors import MetricError
from model.teachers.frozen import FrozenTeacher, Recipe
from model.teachers.weights import load_strictly, read_tensors, weights_record

# The published recipe divides the outputs of a plain DINO by this.
_DINO_DIVISOR = 20.0


def load_timm(model: str, weights: Path | None, size: int | None, device: str) -> FrozenTeacher:
    """The pooled features of a network of timm, like vit_base_patch16_224.dino.

    Those of a DINO are divided by 20. Its weights are the file that its hub holds,
    model.safetensors or pytorch_model.bin; for another input its positions are interpolated.
    """
    path = _required(weights, f"timm:{model}")
    timm = import_foreign("timm", f"timm:{model}", "timm", "teachers")
    network = _created(f"timm:{model}", lambda: timm.create_model(model, num_classes=0))
    shape: Mapping[str, Any] = network.pretrained_cfg
    state = read_tensors(path)
    for classifier in _names(shape.get("classifier")):
        state = {key: value for key, value in state.items() if not key.startswith(f"{classifier}.")}
    load_strictly(network, state, f"timm:{model}", path)
    native = int(shape["input_size"][-1])
    if size is not None and size != native:
        _resize_input(network, size, f"timm:{model}")
    divisor = _DINO_DIVISOR if "dino" in model else 1.0
    recipe = Recipe(size or native, shape["mean"], shape["std"], lambda output: output / divisor)
    record = weights_record(f"timm:{model}", path) | {"divisor": f"{divisor:g}"}
    return FrozenTeacher(f"timm:{model}", network, network, recipe, record=record, device=device)


def load_open_clip(model: str, weights: Path | None, device: str) -> FrozenTeacher:
    """The image half of a network of open_clip, like ViT-B-32, as texts are compared with it.

    Its weights are the file that its hub holds, open_clip_model.safetensors or
    open_clip_pytorch_model.bin.
    """
    name = f"open_clip:{model}"
    path = _required(weights, name)
    open_clip = import_foreign("open_clip", name, "open-clip-torch", "teachers")
    whole = _created(name, lambda: open_clip.create_model(model, pretrained=None))
    image = whole.visual
    prefix = "visual."
    state = {
        key.removeprefix(prefix): value
        for key, value in read_tensors(path).items()
        if key.startswith(prefix)
    }
    load_strictly(image, state, name, path)
    shape: Mapping[str, Any] = image.preprocess_cfg
    side = shape["size"] if isinstance(shape["size"], int) else shape["size"][0]
    recipe = Recipe(int(side), shape["mean"], shape["std"])
    return FrozenTeacher(
        name, image, image, recipe, record=weights_record(name, path), device=device
    )


def _resize_input(network: Any, size: int, name: str) -> None:
    """Another input than its own: a transformer's positions are interpolated, a CNN has none."""
    if hasattr(network, "set_input_size"):
        _created(name, lambda: network.set_input_size(img_size=size))
    elif network.pretrained_cfg.get("fixed_input_size"):
        raise MetricError(f"{name} takes no other input size than its own")


def _required(weights: Path | None, name: str) -> Path:
    if weights is None:
        raise MetricError(f"{name} needs --weights FILE; nothing is downloaded")
    return weights


def _created(name: str, create: Callable[[], Any]) -> Any:
    """What a package builds; its refusals come in many classes."""
    try:
        return create()
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as exc:
        raise MetricError(f"{name} cannot be built: {exc!s:.200}") from exc


def _names(classifier: object) -> tuple[str, ...]:
    if isinstance(classifier, str):
        return (classifier,)
    return tuple(classifier) if isinstance(classifier, tuple | list) else ()
