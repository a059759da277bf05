"""Students by architecture: fresh from a preset, or from a checkpoint of either kind."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from model.errors import TrainingError
from model.nets.checkpoint import load_checkpoint
from model.nets.presets import PRESETS, EmbedderConfig, PublishedConfig
from model.train.config import TrainConfig
from model.train.copies import wave_student
from model.train.copies.wave_student import WaveStudent
from model.train.sll_student import SllStudent, initial_weights
from model.train.student import Student


def fresh_student(config: TrainConfig, embedding_dim: int | None = None) -> Student:
    """A student with its initial draws.

    Args:
        config: preset and seed; its embedding_dim and input_size, where they are set, win.
        embedding_dim: wanted length of an embedding; None takes the preset's.

    Raises:
        TrainingError: the preset cannot have these sizes.
    """
    shape = PRESETS[config.preset]
    wanted = {
        "embedding_dim": config.embedding_dim or embedding_dim or shape.embedding_dim,
        "input_size": config.input_size or shape.input_size,
    }
    try:
        shape = dataclasses.replace(shape, **wanted)
    except ValueError as exc:
        raise TrainingError(f"preset {config.preset} with {wanted}: {exc}") from exc
    if isinstance(shape, PublishedConfig):
        return student_of(shape, initial_weights(shape, config.seed))
    return student_of(shape, wave_student.initial_weights(shape))


def stored_student(path: Path) -> tuple[Student, str]:
    """The student that a checkpoint file holds, and the file's fingerprint.

    Raises:
        CheckpointError: the file cannot be loaded.
    """
    checkpoint = load_checkpoint(path)
    return student_of(checkpoint.config, checkpoint.weights), checkpoint.fingerprint


def student_of(config: EmbedderConfig, weights: Mapping[str, Float[np.ndarray, "..."]]) -> Student:
    """A student with given weights."""
    if isinstance(config, PublishedConfig):
        return SllStudent(config, weights)
    return WaveStudent(config, weights)
