"""The shapes of the networks we know: two architectures, and the presets by name."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

_MAX_COUNT = 100_000


def _check_counts(**counts: object) -> None:
    """Refuses whatever is not a positive integer of sane size; a bool is none."""
    for name, count in counts.items():
        if type(count) is not int or not 1 <= count <= _MAX_COUNT:
            raise ValueError(f"{name} must be an integer in 1..{_MAX_COUNT}, got {count!r:.40}")


@dataclass(frozen=True)
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

    depth: int
    channels: int
    inner: int
    linear_depth: int
    features: int
    embedding_dim: int
    input_size: int = 224
    architecture: Literal["published"] = "published"

    def __post_init__(self) -> None:
        _check_counts(depth=self.depth, channels=self.channels, inner=self.inner)
        _check_counts(linear_depth=self.linear_depth, features=self.features)
        _check_counts(embedding_dim=self.embedding_dim, input_size=self.input_size)
        if self.input_size % 16:
            raise ValueError(f"input_size must be a multiple of 16, got {self.input_size}")
        if self.channels < 3:
            raise ValueError(f"channels must be at least 3, got {self.channels}")
        if self.embedding_dim > self.width:
            raise ValueError(
                f"embedding_dim must be at most {self.width}, got {self.embedding_dim}"
            )

    @property
    def width(self) -> int:
        """Numbers that reach the linear blocks: channels times the pixels left by two pools."""
        return self.channels * (self.input_size // 16) ** 2


@dataclass(frozen=True)
class WaveConfig:
    """Shape of a wavelet network with orthonormal channel maps.

    Attributes:
        maps: for each stage (one wavelet level each), the output channels of its channel maps.
        embedding_dim: rows of the head.
        input_size: side of the square input; divisible by 2 once a stage.
        shift: pixels by which the four shifted copies are moved.
    """

    maps: tuple[tuple[int, ...], ...]
    embedding_dim: int
    input_size: int
    shift: int
    architecture: Literal["wave"] = "wave"

    def __post_init__(self) -> None:
        _check_counts(embedding_dim=self.embedding_dim, input_size=self.input_size)
        _check_counts(shift=self.shift)
        for width in (width for stage in self.maps for width in stage):
            _check_counts(maps=width)
        if not self.maps or not all(self.maps) or len(self.maps) > 12:
            raise ValueError("maps must hold 1 to 12 stages, and each stage a map")
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
    "wave-64": WaveConfig(((12, 12), (48, 48), (192, 192), (384,)), 512, input_size=64, shift=4),
    "small": PublishedConfig(20, 45, 5, 7, 1024, 1792),
    "medium": PublishedConfig(30, 60, 5, 10, 2048, 1792),
    "large": PublishedConfig(50, 90, 5, 10, 2048, 1792),
    "xlarge": PublishedConfig(70, 120, 5, 15, 2048, 1792),
    "tiny": PublishedConfig(3, 8, 5, 2, 32, 64),
}


def config_to_json(config: EmbedderConfig) -> dict[str, Any]:
    """The config as plain JSON values, one member a field."""
    return dataclasses.asdict(config)


def config_from_json(value: object) -> EmbedderConfig:
    """The config that `config_to_json` wrote.

    Raises:
        ValueError: an unknown architecture, a missing or surplus member, or a shape that is none.
    """
    if not isinstance(value, dict):
        raise ValueError(f"config must be an object, got {type(value).__name__}")  # noqa: TRY004
    members = dict(cast("dict[str, Any]", value))
    if members.get("architecture") == "published":
        _check_members(members, PublishedConfig)
        return PublishedConfig(**members)
    if members.get("architecture") == "wave":
        _check_members(members, WaveConfig)
        members["maps"] = _as_tuples(members["maps"])
        return WaveConfig(**members)
    raise ValueError(f"unknown architecture {str(members.get('architecture'))[:40]!r}")


def _check_members(members: Mapping[str, Any], kind: type) -> None:
    """Exactly the fields of the class, no member more or less."""
    wanted = {field.name for field in dataclasses.fields(kind)}
    if set(members) != wanted:
        raise ValueError(f"config of {members['architecture']} must have exactly {sorted(wanted)}")
    _check_counts(**{name: members[name] for name in wanted - {"architecture", "maps"}})


def _as_tuples(maps: object) -> tuple[tuple[int, ...], ...]:
    """JSON's lists of lists as tuples of tuples."""
    if not isinstance(maps, list | tuple):
        raise ValueError("maps must be a list of lists")  # noqa: TRY004
    stages = cast("list[object]", maps)
    if not all(isinstance(stage, list | tuple) for stage in stages):
        raise ValueError("maps must be a list of lists")
    widths = tuple(tuple(cast("list[Any]", stage)) for stage in stages)
    for width in (width for stage in widths for width in stage):
        _check_counts(maps=width)
    return widths
