"""One training run, written down: its settings, recipes, and changes from a command line."""

import contextlib
import difflib
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from model.cli.problems import problems
from model.errors import TrainingError
from model.nets.presets import PRESETS
from model.pixels.views import VIEW_SETS

RECIPES = Path(__file__).parent / "recipes"

_FREE = frozenset(
    {"workers", "log_every", "save_every", "keep_every", "tensorboard"}
    | {"checked_examples", "estimate_steps"}
)
"""Settings that change nothing of the result: a run may be taken up again with others."""

Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
# Within these, float64 tells every term of the closed-form head from the others.
HeadScale = Annotated[float, Field(ge=1e-6, le=1e6)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DistillSettings(_Settings):
    """Step 1: a teacher's embeddings."""

    teacher: str = "efficientnet-lite0"  # see model.teachers.load.load_teacher
    target_scale: Positive = 1.0  # times the teacher's embeddings; radii grow with it, first order


class FinetuneSettings(_Settings):
    """Step 2: judged triplets."""

    objective: Literal["hinge", "radius"] = "hinge"  # on d0 - d1 (published), or certified radius
    margin: Positive = 0.2  # of the hinge: in cosine distance, or in pixels of the network's input


class CopiesSettings(_Settings):
    """Edited copies against other pictures: the head of the wavelet network."""

    # How much oftener pictures of a kind are drawn: "clipart=4,photo=3"; those of weight 0 never.
    kind_weights: str = ""
    views: PositiveCount = 6  # edited copies of each picture that are kept
    stacked_share: Annotated[float, Field(ge=0, le=1)] = 0.2  # of them that are edited twice
    radius_margin: Positive = 2.0  # certified radius that is wanted, pixels of the network's input
    temperature: Positive = 0.2  # width of its smoothing, the same unit
    far_weight: Amount = 0.0  # of the same loss at a larger margin: for large radii beside recall
    far_margin: Positive = 5.0
    teacher_weight: Amount = 0.0  # of the teacher's relations between pictures
    teacher_temperature: Positive = 0.1  # of their softmax over cosines
    # Views of each picture that the gallery holds: see model.pixels.views. The closed form takes a
    # copy's distance from the nearest, and the loss is of items of so many vectors.
    gallery_views: str = "none"
    head_basis: PositiveCount = 2048  # principal directions of the features that the head may read
    within_scale: HeadScale = 0.8  # kw of the closed-form head: small for recall, large for radii
    total_scale: HeadScale = 4.0  # kt of the closed-form head

    @field_validator("gallery_views")
    @classmethod
    def _is_known(cls, views: str) -> str:
        if views not in VIEW_SETS:
            raise ValueError(
                f"gallery_views must be one of {', '.join(VIEW_SETS)}, got {_short(views)}"
            )
        return views


class TrainConfig(_Settings):
    """One training run. A recipe is a TOML file of these; the settings of its task are a table.

    Paths are no settings: a run is the same wherever its data lies.
    """

    # --- What is trained, on what task ---
    recipe: str = "custom"  # name of the recipe, and of the checkpoint
    task: Literal["distill", "finetune", "copies"] = "distill"  # what is minimised
    preset: str = "tiny"  # shape of a fresh student: see model.nets.presets.PRESETS
    embedding_dim: Count = 0  # length of its embedding; 0: the teacher's, or else the preset's
    input_size: Count = 0  # side of its square input, pixels; 0: the preset's
    seed: Count = 0  # of every draw: weights, order, views

    # --- For how long ---
    steps: Count = 0  # optimizer steps; 0: as many as `epochs` need
    epochs: Amount = 0.0  # passes over the data; counts only where steps is 0
    minutes: Amount = 0.0  # ends after this wall time, finished cleanly; 0: no limit
    # Pictures or triplets a step, over all processes; losses may look at every pair of them.
    batch_size: Annotated[int, Field(gt=0, le=65_536)] = 32

    # --- The optimizer ---
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-3  # its peak
    beta1: Decay = 0.9  # of the mean gradient
    beta2: Decay = 0.999  # of the mean squared gradient
    weight_decay: Amount = 0.0  # decoupled with adamw, added to the gradient with adam
    schedule: Literal["constant", "cosine", "triangular"] = "cosine"  # see model.train.schedules
    warmup_steps: Count = 0  # of the cosine and constant schedules
    grad_clip_norm: Amount = 0.0  # largest l2 norm of a gradient; 0: never clipped
    ema_decay: Decay = 0.0  # of the averaged weights that are validated and kept; 0: no average
    precision: Literal["float32", "bfloat16"] = "float32"  # of large products while training
    # Parts that a process's pictures go through the network in, one in memory at a time; each is
    # computed twice. The gradient is that of the whole batch, whatever the loss.
    accumulate: PositiveCount = 1
    compile: bool = False  # the student's training passes, by torch.compile

    # --- Data ---
    train_split: str = ""  # as the data names it; "": all of it, refused where it has splits
    validation_split: str = ""  # likewise; "": pictures held out of training, chosen by hash
    validation_examples: Count = 512  # at most this many are validated on; 0: all
    checked_examples: Count = 2_000  # so many of each part are decoded before step 1; 0: all
    framing: Literal["center-crop", "resize"] = "center-crop"  # to the network's square

    # --- Housekeeping: changes nothing of the result, but validate_every, which picks the best ---
    validate_every: Count = 1000  # steps between validations; 0: only after the last
    save_every: PositiveCount = 500  # steps between saved states
    keep_every: Count = 0  # steps between proved checkpoints that stay; 0: the best and last alone
    log_every: PositiveCount = 10  # steps between lines
    workers: Count = 0  # processes that prepare batches; 0: this one does
    tensorboard: bool = True  # write its event files beside the JSON lines
    estimate_steps: Count = 20  # of power iteration through the finished network

    # --- Each task's own ---
    distill: DistillSettings = DistillSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    copies: CopiesSettings = CopiesSettings()

    @field_validator("preset")
    @classmethod
    def _is_known(cls, preset: str) -> str:
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {_short(preset)}")
        return preset

    def with_changes(self, changes: Mapping[str, object]) -> "TrainConfig":
        """This config with some settings changed.

        A setting of the task needs no table before its name. A text is read as what it is to be.
        """
        fields = self.to_json()
        task = changes.get("task", self.task)
        if not isinstance(task, str) or task not in _TABLES:
            raise TrainingError(f"task must be one of {', '.join(_TABLES)}, got {_short(task)}")
        own = _TABLES[task]
        table: dict[str, object] = {} if task != self.task else fields[self.task]
        fields = {name: value for name, value in fields.items() if name not in _TABLES}
        for name, value in changes.items():
            if name == task and isinstance(value, Mapping):
                table |= _read(own, cast("Mapping[str, object]", value))
            elif name in TrainConfig.model_fields and name not in _TABLES:
                fields |= _read(TrainConfig, {name: value})
            else:
                table |= _read(own, {name.removeprefix(f"{task}."): value})
        try:
            return TrainConfig.model_validate({**fields, task: table})
        except ValidationError as exc:
            raise TrainingError(problems(exc)) from exc

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values, without the tables of other tasks."""
        return self.model_dump(exclude=set(_TABLES) - {self.task})


_TABLES: Mapping[str, type[_Settings]] = {
    "distill": DistillSettings,
    "finetune": FinetuneSettings,
    "copies": CopiesSettings,
}


def load_recipe(name: str) -> TrainConfig:
    """The config of a recipe: one of those that come with the package, or a TOML file."""
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(recipe_names())
        raise TrainingError(f"no recipe is called {name!r}; known: {known}") from None
    except (OSError, ValueError, RecursionError) as exc:  # a TOML error is a ValueError
        raise TrainingError(f"recipe {path.name} cannot be read: {exc}") from exc
    return TrainConfig(recipe=path.stem).with_changes(fields)


def recipe_names() -> list[str]:
    """The recipes that come with the package; a corpus's lie beside them."""
    return sorted(file.stem for file in RECIPES.glob("*.toml") if not file.match("corpus*"))


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """Changes from `name=value` texts."""
    changes: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise TrainingError(f"a setting is name=value, got {setting!r:.60}")
        changes[name.strip()] = value.strip()
    return changes


def differences(stored: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What keeps two runs from being one, a line each: the name, what is there, what came."""
    stored, ours = _flat(stored), _flat(ours)
    return [
        f"{name}: {stored.get(name)!r} there, {ours.get(name)!r} here"
        for name in sorted((set(stored) | set(ours)) - _FREE)
        if stored.get(name) != ours.get(name)
    ]


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of the task's table among the others."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= value if name in _TABLES else {name: value}
    return flat


def _read(settings: type[_Settings], values: Mapping[str, object]) -> dict[str, object]:
    """The values, texts among them read as what each setting is."""
    read = dict(values)
    for name, value in values.items():
        if name not in settings.model_fields:
            known = sorted({*TrainConfig.model_fields, *settings.model_fields} - {*_TABLES})
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise TrainingError(f"no setting of this task is called {_short(name)}; {hint}")
        if isinstance(value, str):
            with contextlib.suppress(ValidationError):  # the whole is validated, and says more
                kind: Any = settings.model_fields[name].annotation
                read[name] = TypeAdapter[Any](kind).validate_strings(value)
    return read


def _short(value: object) -> str:
    """A value for a message, however long or deep it is."""
    return f"{reprlib.repr(value):.60}"
