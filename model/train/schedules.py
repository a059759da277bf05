"""The learning rate of a step, as a pure function of how far the run is."""

import math

import numpy as np

from model.train.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """The learning rate of one step.

    cosine: linear from 0 over the warm-up's steps, then half a cosine down to 0.
    constant: the same warm-up, then the peak.
    triangular: 0, the peak at 40 % of the run, 1/20 of it at 80 %, 0 at the end; no warm-up.

    Before it, `step` steps were done and the share `progress` of the run, of its steps or its time.

    Source: triangular and cosine are those of the published code, arXiv:2310.18274.
    """
    peak = config.learning_rate
    if config.schedule == "triangular":
        return peak * float(np.interp(progress, [0.0, 0.4, 0.8, 1.0], [0.0, 1.0, 0.05, 0.0]))
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return peak
    # A run limited by time alone does not know which share its warm-up was.
    warmed = min(1.0, config.warmup_steps / config.steps) if config.steps else 0.0
    falling = min(1.0, max(0.0, (progress - warmed) / (1.0 - warmed))) if warmed < 1.0 else 1.0
    return peak * 0.5 * (1.0 + math.cos(math.pi * falling))


def progress_of(config: TrainConfig, step: int, seconds: float) -> float:
    """The share of a run that is done, by steps or by time of all attempts, which is further on."""
    by_steps = step / config.steps if config.steps else 0.0
    by_time = seconds / (60.0 * config.minutes) if config.minutes else 0.0
    return min(1.0, max(by_steps, by_time))
