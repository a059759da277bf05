# pyright: basic
# The library has no types, and torch's are loose.
"""The one place that knows the Adversarial Robustness Toolbox.

It computes in float32, clips to [0, 1], and draws from Python's and numpy's global random states;
here these are set from a seed for the time of a call and put back. What else is known of version
1.20.1 is in docs/attacks.md.
"""

import contextlib
import logging
import random
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from model.attack import square
from model.attack.block import Budget
from model.attack.probe import AllTurnedError, Probe
from model.cli.libraries import install_hint
from model.errors import DependencyError

# The ratio loss divides by the gap between the first class and the third.
_RATIO_CLASSES = 3


def require_library(attacks: Sequence[str], norm: str) -> None:
    """Find out before a long run that its attacks cannot be run.

    Raises:
        DependencyError: one of them is the library's, and that is not installed.
    """
    if not all(_is_ours(attack, norm) for attack in attacks):
        _library()


def attack_probe(
    attack: str, probe: Probe, budget: Budget, *, starts_off: bool, seed: list[int]
) -> None:
    """Let the library attack a probe; what it finds stays in the probe.

    Args:
        attack: one of the names of `model.attack.library`.
        probe: what is attacked; its best inputs so far are the unchanged ones.
        budget: norm and steps.
        starts_off: begin at a random place; AutoPGD always does, Square in its own pattern.
        seed: of what is drawn.

    Raises:
        DependencyError: the library is not installed.
    """
    with _seeded(seed), contextlib.suppress(AllTurnedError):
        if _is_ours(attack, budget.norm):
            square.search(probe, budget.epsilon, budget.steps, np.random.default_rng(seed))
        else:
            _run(attack, probe, budget, starts_off)


def _is_ours(attack: str, norm: str) -> bool:
    """Whether an attack does without the library."""
    return attack == "square" and norm == "l2"


def _run(attack: str, probe: Probe, budget: Budget, starts_off: bool) -> None:
    art = _library()
    x = probe.best.cpu().numpy().copy()
    labels = np.zeros((len(x), probe.class_count), dtype=np.float32)
    labels[:, 0] = 1.0
    common: dict[str, Any] = {
        "norm": 2 if budget.norm == "l2" else np.inf,
        "eps": budget.epsilon,
        "max_iter": budget.steps,
        "batch_size": len(x),
        "verbose": False,
    }
    shape: dict[str, Any] = {
        "input_shape": x.shape[1:],
        "nb_classes": probe.class_count,
        "clip_values": (0.0, 1.0),
    }
    if attack == "square":
        black_box = art.BlackBoxClassifierNeuralNetwork(partial(_predict, probe), **shape)
        art.SquareAttack(black_box, loss=partial(_gaps, probe), **common).generate(x, labels)
        return
    device = "gpu" if probe.best.is_cuda else "cpu"
    estimator = art.PyTorchClassifier(probe, _MarginLoss(), device_type=device, **shape)
    if attack.startswith("apgd"):
        ratio = "difference_logits_ratio" if probe.class_count >= _RATIO_CLASSES else None
        loss = {"apgd-ce": "cross_entropy", "apgd-dlr": ratio}.get(attack)
        # The step that the authors of AutoPGD begin with.
        apgd = art.AutoProjectedGradientDescent(
            estimator, loss_type=loss, nb_random_init=1, eps_step=2.0 * budget.epsilon, **common
        )
        apgd.generate(x, labels)
        return
    # Momentum is gradient descent with a memory; the library's own class cannot start off centre.
    pgd = art.ProjectedGradientDescentPyTorch(
        estimator,
        eps_step=2.5 * budget.epsilon / budget.steps,
        num_random_init=int(starts_off),
        decay=1.0 if attack == "momentum" else None,
        **common,
    )
    pgd.generate(x, labels)


class _MarginLoss(torch.nn.modules.loss._Loss):
    """How far the best other class is above class 0; one number an input where asked."""

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        margins = scores[:, 1:].amax(dim=1) - scores[:, 0]
        return margins if self.reduction == "none" else margins.mean()


def _predict(probe: Probe, x: Float32[np.ndarray, "B 3 H W"]) -> Float32[np.ndarray, "B C"]:
    with torch.no_grad():
        inputs = torch.from_numpy(x.astype(np.float32)).to(probe.best.device)
        return probe(inputs).cpu().numpy()


def _gaps(probe: Probe, x: Float32[np.ndarray, "B 3 H W"], _: object) -> Float32[np.ndarray, " B"]:
    scores = _predict(probe, x)
    return scores[:, 0] - scores[:, 1:].max(axis=1)


@contextlib.contextmanager
def _seeded(seed: list[int]) -> Generator[None]:
    """Both global random states set from a seed, and put back afterwards."""
    before, before_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    drawn = np.random.default_rng(seed).integers(0, 2**32, 2)
    random.seed(int(drawn[0]))
    np.random.seed(int(drawn[1]))  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)  # noqa: NPY002


class _Library:
    """The classes of the library that are used."""

    def __init__(self) -> None:
        from art.attacks.evasion import AutoProjectedGradientDescent, SquareAttack  # noqa: PLC0415
        from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (  # noqa: E501, PLC0415
            ProjectedGradientDescentPyTorch,
        )
        from art.estimators.classification import (  # noqa: PLC0415
            BlackBoxClassifierNeuralNetwork,
            PyTorchClassifier,
        )

        self.AutoProjectedGradientDescent: Any = AutoProjectedGradientDescent
        self.SquareAttack: Any = SquareAttack
        self.ProjectedGradientDescentPyTorch: Any = ProjectedGradientDescentPyTorch
        self.BlackBoxClassifierNeuralNetwork: Any = BlackBoxClassifierNeuralNetwork
        self.PyTorchClassifier: Any = PyTorchClassifier


def _library() -> _Library:
    try:
        library = _Library()
    except ImportError as exc:
        raise DependencyError(
            f"attacks need adversarial-robustness-toolbox: {install_hint('train')}"
        ) from exc
    # It tells of each batch at a level that some programs print.
    logging.getLogger("art").setLevel(logging.ERROR)
    return library
