"""The shapes of the networks we know: two architectures, and the presets by name."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from model.cli.problems import problems

Count = Annotated[int, Field(strict=True, ge=1, le=100_000)]
"""A count of sane size; a bool is none."""


@dataclass(frozen=True, config={"extra": "forbid"})
class PublishedConfig:
    """Shape of the published LipSim network.

    Attributes:
        depth: convolutional SLL blocks.
        channels: channels of every convolutional block; the image's 3 are padded with zeros.
        inner: inner width of a convolutional block (the official code calls it conv_size).
        linear_depth: linear SLL blocks.
        features: inner width of a linear block.
        embedding_dim: how many of the last block's numbers are kept.
        input_size: side of the square input; a multiple of 16.

    Source: Ghazanfari et al. 2024, arXiv:2310.18274, and its code.
    """

    depth: Count
    channels: Annotated[Count, Field(ge=3)]
    inner: Count
    linear_depth: Count
    features: Count
    embedding_dim: Count
    input_size: Annotated[Count, Field(multiple_of=16)] = 224
    architecture: Literal["published"] = "published"

    def __post_init__(self) -> None:
        if self.embedding_dim > self.width:
            raise ValueError(
                f"embedding_dim must be at most {self.width}, got {self.embedding_dim}"
            )

    @property
    def width(self) -> int:
        """Numbers that reach the linear blocks: channels times the pixels left by two pools."""
        return self.channels * (self.input_size // 16) ** 2


Stage = Annotated[tuple[Count, ...], Field(min_length=1)]


@dataclass(frozen=True, config={"extra": "forbid"})
class WaveConfig:
    """Shape of a wavelet network with orthonormal channel maps.

    Attributes:
        maps: for each stage (one wavelet level each), the output channels of its channel maps.
        embedding_dim: rows of the head.
        input_size: side of the square input; divisible by 2 once a stage.
        shift: pixels by which the four shifted copies are moved; 0 for no copies.
        head_dtype: how the head's weights are stored. Half precision costs a rotated head a tenth
            of a per cent of its radii, and single precision twice the room.
    """

    maps: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=12)]
    embedding_dim: Count
    input_size: Count
    shift: Annotated[int, Field(strict=True, ge=0, le=100_000)]
    head_dtype: Literal["float16", "float32"] = "float16"
    architecture: Literal["wave"] = "wave"

    def __post_init__(self) -> None:
        if self.input_size % 2 ** len(self.maps) or self.input_size // 2 ** len(self.maps) < 4:
            raise ValueError(f"input_size {self.input_size} does not fit {len(self.maps)} levels")
        if self.shift >= self.input_size:
            raise ValueError(f"shift must be below {self.input_size}, got {self.shift}")
        for entering, outputs in zip(self.stage_inputs, self.maps, strict=True):
            if not all(entering < width for width in outputs):
                raise ValueError(f"a map must keep more than its stage's {entering} channels")

    @property
    def stage_inputs(self) -> tuple[int, ...]:
        """Channels that enter each stage: the image's 3, then what the stage before gave."""
        return (3, *(stage[-1] for stage in self.maps[:-1]))

    @property
    def head_inputs(self) -> int:
        """Numbers of one copy that reach the head."""
        return self.maps[-1][-1] * (self.input_size // 2 ** len(self.maps)) ** 2


EmbedderConfig = PublishedConfig | WaveConfig

PRESETS: Mapping[str, EmbedderConfig] = {
    "wave-96": WaveConfig(((12, 12), (48, 48), (192, 192), (384,)), 140, input_size=96, shift=0),
    "wave-64": WaveConfig(((12, 12), (48, 48), (192, 192), (384,)), 512, input_size=64, shift=4),
    "small": PublishedConfig(20, 45, 5, 7, 1024, 1792),
    "medium": PublishedConfig(30, 60, 5, 10, 2048, 1792),
    "large": PublishedConfig(50, 90, 5, 10, 2048, 1792),
    "xlarge": PublishedConfig(70, 120, 5, 15, 2048, 1792),
    "tiny": PublishedConfig(3, 8, 5, 2, 32, 64),
}


def config_to_json(config: EmbedderConfig) -> dict[str, Any]:
    """The config as plain JSON values, one member a field.

    What older files do not say is left out at its default: it is part of their fingerprints.
    """
    members = dataclasses.asdict(config)
    if members.get("head_dtype") == "float16":
        del members["head_dtype"]
    return members


def config_from_json(value: object) -> EmbedderConfig:
    """The config that `config_to_json` wrote.

    Raises:
        ValueError: an unknown architecture, a missing or surplus member, or a shape that is none.
    """
    kind = TypeAdapter[EmbedderConfig](
        Annotated[EmbedderConfig, Field(discriminator="architecture")]
    )
    try:
        return kind.validate_python(value)
    except ValidationError as exc:
        raise ValueError(problems(exc)) from exc
