"""One training run, written down: the fields, recipes of them, and changes from a command line."""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import TrainingError
from model.nets.presets import PRESETS

RECIPES = Path(__file__).parent / "recipes"

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "optimizer": ("adam", "adamw"),
    "schedule": ("constant", "cosine", "triangular"),
    "precision": ("float32", "bfloat16"),
    "framing": ("center-crop", "resize"),
    "objective": ("hinge", "radius"),
    "training_copies": ("input", "late", "one"),
    "preset": tuple(PRESETS),
}
_POSITIVE = (
    "batch_size", "learning_rate", "save_every", "log_every", "target_scale", "margin", "views",
    "head_basis", "within_scale", "total_scale", "radius_margin", "temperature",
    "relative_margin", "relative_temperature", "stranger_share", "teacher_temperature",
)  # fmt: skip
_AT_LEAST: Mapping[str, float] = {"within_scale": 1e-6, "total_scale": 1e-6}
"""With these and those below, float64 tells every term of the closed-form head from the others."""
_AT_MOST: Mapping[str, float] = {
    "stacked_share": 1, "stranger_share": 1, "within_scale": 1e6, "total_scale": 1e6,
    "batch_size": 65_536,  # the losses look at every pair: 4 billion
}  # fmt: skip
_FREE = frozenset(
    {"workers", "log_every", "save_every", "tensorboard", "checked_examples", "estimate_steps"}
)
"""Fields that change nothing of the result: a run may be taken up again with others."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run. A recipe is a TOML file of these fields; a flag overrides a recipe.

    Paths are no fields: a run is the same wherever its data lies.
    """

    # --- What is trained, on what task ---
    recipe: str = "custom"  # name of the recipe, and of the checkpoint
    task: str = "distill"  # what is minimised: see model.train.task.TASKS
    preset: str = "tiny"  # shape of a fresh student: see model.nets.presets.PRESETS
    embedding_dim: int = 0  # length of its embedding; 0: the teacher's, or else the preset's
    input_size: int = 0  # side of its square input, pixels; 0: the preset's
    seed: int = 0  # of every draw: weights, order, views

    # --- For how long ---
    steps: int = 0  # optimizer steps; 0: as many as `epochs` need
    epochs: float = 0.0  # passes over the data; counts only where steps is 0
    minutes: float = 0.0  # ends after this wall time, finished cleanly; 0: no limit
    batch_size: int = 32  # pictures or triplets a step, over all processes together

    # --- The optimizer ---
    optimizer: str = "adam"  # "adam" or "adamw"
    learning_rate: float = 1e-3  # its peak
    beta1: float = 0.9  # decay of the mean gradient
    beta2: float = 0.999  # decay of the mean squared gradient
    weight_decay: float = 0.0  # decoupled with adamw, added to the gradient with adam
    schedule: str = "cosine"  # of the learning rate: see model.train.schedules
    warmup_steps: int = 0  # of the cosine and constant schedules
    grad_clip_norm: float = 0.0  # largest l2 norm of a gradient; 0: never clipped
    ema_decay: float = 0.0  # of the averaged weights that are validated and kept; 0: no average
    precision: str = "float32"  # of large products while training: "float32" or "bfloat16"

    # --- Data ---
    train_split: str = ""  # as the data names it; "": all of it, refused where it has splits
    validation_split: str = ""  # likewise; "": pictures held out of training, chosen by hash
    validation_examples: int = 512  # at most this many are validated on
    checked_examples: int = 20_000  # so many are decoded before the first step; 0: all of them
    framing: str = "center-crop"  # to the network's square: "center-crop" (published) or "resize"

    # --- Step 1, task distill ---
    teacher: str = "efficientnet-lite0"  # see model.teachers.load_teacher
    target_scale: float = 1.0  # times the teacher's embeddings; radii grow with it, at first order

    # --- Step 2, task finetune ---
    objective: str = "hinge"  # "hinge" on d0 - d1 (published) or "radius", on the certified radius
    margin: float = 0.2  # of the hinge: in cosine distance, or in pixels of the network's input

    # --- Tasks copies and maps: the wavelet network, edited copies against other pictures ---
    kind_weights: str = ""  # how much oftener pictures of a kind are drawn: "clipart=4,photo=3"
    views: int = 6  # edited copies of each picture whose features are kept
    stacked_share: float = 0.2  # of them that are edited twice
    head_basis: int = 2048  # principal directions of the features that the head may read
    within_scale: float = 0.8  # kw of the closed-form head: small for recall, large for radii
    total_scale: float = 4.0  # kt of the closed-form head
    radius_margin: float = 2.0  # certified radius that is wanted, pixels of the network's input
    temperature: float = 0.2  # width of its smoothing, the same unit
    relative_weight: float = 0.0  # of the radius over the embedding's norm, which decides matches
    relative_margin: float = 0.3  # that is wanted of it, no unit
    relative_temperature: float = 0.05  # width of its smoothing, and of the strangers'
    training_copies: str = "late"  # task maps: shifted copies of a pass, "input", "late" or "one"
    neighbours: int = 0  # a drawn picture brings one of so many that look most like it; 0: none
    stranger_weight: float = 0.0  # of copies below the margin that a match at few errors asks for
    stranger_share: float = 0.02  # of strangers that set this margin
    teacher_weight: float = 0.0  # of the teacher's relations between pictures
    teacher_temperature: float = 0.1  # of their softmax over cosines

    # --- Housekeeping: changes nothing of the result, but validate_every, which picks the best ---
    validate_every: int = 1000  # steps between validations; 0: only after the last
    save_every: int = 500  # steps between saved states
    log_every: int = 10  # steps between lines
    workers: int = 0  # processes that prepare batches; 0: this one does
    tensorboard: bool = True  # write its event files beside the JSON lines
    estimate_steps: int = 20  # of power iteration through the finished network

    def __post_init__(self) -> None:
        """Refuse what is no run."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise TrainingError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r:.40}"
                )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise self._must_be(field.name, "finite and not negative")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise self._must_be(name, "positive")
        for name in ("beta1", "beta2", "ema_decay"):
            if not getattr(self, name) < 1:
                raise self._must_be(name, "below 1")
        for name, least in _AT_LEAST.items():
            if not getattr(self, name) >= least:
                raise self._must_be(name, f"at least {least:g}")
        for name, most in _AT_MOST.items():
            if not getattr(self, name) <= most:
                raise self._must_be(name, f"at most {most:g}")

    def _must_be(self, name: str, wanted: str) -> TrainingError:
        return TrainingError(f"{name} must be {wanted}, got {getattr(self, name)!r}")

    def with_changes(self, changes: Mapping[str, object]) -> "TrainConfig":
        """This config with some fields changed, their types held to.

        Raises:
            TrainingError: a name is no field, or a value is not of the field's type.
        """
        known: dict[str, type] = {name: type(value) for name, value in self.to_json().items()}
        typed = {name: _typed(name, value, known) for name, value in changes.items()}
        return dataclasses.replace(self, **typed)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)


def load_recipe(name: str) -> TrainConfig:
    """The config of a recipe: one of those that come with the package, or a TOML file.

    Raises:
        TrainingError: there is no such recipe, or it is no TOML, or a field of it is none of ours.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(recipe_names())
        raise TrainingError(f"no recipe is called {name!r}; known: {known}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise TrainingError(f"recipe {path.name} cannot be read: {exc}") from exc
    return TrainConfig(recipe=path.stem).with_changes(fields)


def recipe_names() -> list[str]:
    """The recipes that come with the package; a corpus's lie beside them."""
    return sorted(file.stem for file in RECIPES.glob("*.toml") if not file.match("corpus*"))


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """Changes from `name=value` texts.

    Raises:
        TrainingError: a text has no "=".
    """
    changes: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise TrainingError(f"a setting is name=value, got {setting!r:.60}")
        changes[name.strip()] = value.strip()
    return changes


def differences(stored: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What keeps two runs from being one, a line each: the name, what is there, what came."""
    names = sorted((set(stored) | set(ours)) - _FREE)
    return [
        f"{name}: {stored.get(name)!r} there, {ours.get(name)!r} here"
        for name in names
        if stored.get(name) != ours.get(name)
    ]


def _typed(name: str, value: object, known: Mapping[str, type]) -> object:
    """The value as the field's type; texts are read, integers serve as floats, nothing else."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
        raise TrainingError(f"no setting is called {name!r:.40}{hint}")
    kind = known[name]
    try:
        if isinstance(value, str) and kind is not str:
            return {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        if kind is float and type(value) is int:
            return float(value)
    except (KeyError, ValueError):
        pass
    else:
        if type(value) is kind:
            return value
    raise TrainingError(f"{name} must be of type {kind.__name__}, got {value!r:.40}")
