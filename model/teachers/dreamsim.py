# pyright: basic
# Neither torch nor the package has types to speak of.
"""DreamSim, every published variant, through its own package and from weights on disk.

The package downloads what it misses; here it is asked only once all is there, so nothing is
ever downloaded. The list of what a variant reads is taken from version 0.2.1 of the package, which
asks torch.hub for the code and weights of its DINO backbones, weights of its own or not.

Two conventions of the target exist. With v the raw output and |v| its norm:

* v0.1 (2023, and the copy inside the published LipSim code): v / |v|, then minus its mean over the
  D numbers, so that its norm is sqrt(1 - D mean^2) <= 1.
* v0.2 (2024, today's package): v minus its mean, then divided by its norm, which becomes 1.

Both point the same way, so cosines are equal; norms, and with them a regression, are not.

Source: Fu et al. 2023, arXiv:2306.09344, and its package.
"""

import contextlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.cli.libraries import import_foreign
from model.errors import MetricError
from model.teachers.frozen import FrozenTeacher, Recipe
from model.teachers.weights import folder_record

_SIDE = 224
_DINO = (
    "dino_vitb16_pretrain.pth",
    "checkpoints/dino_vitbase16_pretrain.pth",
    "facebookresearch_dino_main/hubconf.py",
)
# Files of each variant below the weights folder; a folder ends in "_lora" and is PEFT's.
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "ensemble": (
        *_DINO,
        "clip_vitb16_pretrain.pth.tar",
        "open_clip_vitb16_pretrain.pth.tar",
        "ensemble_lora",
    ),
    "dino_vitb16": (*_DINO, "dino_vitb16_single_lora"),
    "clip_vitb32": ("clip_vitb32_pretrain.pth.tar", "clip_vitb32_single_lora"),
    "open_clip_vitb32": ("open_clip_vitb32_pretrain.pth.tar", "open_clip_vitb32_single_lora"),
    "dinov2_vitb14": (
        "dinov2_vitb14_pretrain.pth",
        "checkpoints/dinov2_vitb14_pretrain.pth",
        "facebookresearch_dinov2_main/hubconf.py",
        "dinov2_vitb14_single_lora",
    ),
    "synclr_vitb16": ("synclr_vit_b_16.pth", "synclr_vitb16_single_lora"),
}


def normalise_then_centre(output: Tensor) -> Tensor:
    """The v0.1 convention, row by row."""
    unit = output / output.norm(dim=1, keepdim=True)
    return unit - unit.mean(dim=1, keepdim=True)


def centre_then_normalise(output: Tensor) -> Tensor:
    """The v0.2 convention, row by row."""
    centred = output - output.mean(dim=1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True)


CONVENTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "v0.1": normalise_then_centre,
    "v0.2": centre_then_normalise,
}


def load_dreamsim(rest: str, weights: Path | None, device: str) -> FrozenTeacher:
    """VARIANT or VARIANT:CONVENTION, which is v0.1 if not given, from a folder of its files."""
    variant, _, convention = rest.partition(":")
    convention = convention or "v0.1"
    if variant not in VARIANTS:
        raise MetricError(f"no DreamSim is called {variant!r}; known: {', '.join(VARIANTS)}")
    if convention not in CONVENTIONS:
        known = ", ".join(CONVENTIONS)
        raise MetricError(f"no convention of DreamSim is called {convention!r}; known: {known}")
    folder = _check_files(variant, weights)
    network = _build(variant, folder, device)
    name = f"dreamsim:{variant}:{convention}"
    record = folder_record(name, folder, VARIANTS[variant]) | {"convention": convention}
    recipe = Recipe(_SIDE, read=CONVENTIONS[convention])
    return FrozenTeacher(name, network, network.embed, recipe, record=record, device=device)


def _check_files(variant: str, weights: Path | None) -> Path:
    """The folder, when it has all that the package would else download."""
    wanted = VARIANTS[variant]
    if weights is None:
        raise MetricError(
            f"dreamsim:{variant} needs --weights FOLDER with {', '.join(wanted)}; "
            "docs/teachers.md says where they come from"
        )
    if missing := [name for name in wanted if not (weights / name).exists()]:
        raise MetricError(f"dreamsim:{variant}: {weights} lacks {', '.join(missing)}")
    return weights


def _build(variant: str, folder: Path, device: str) -> Any:
    package = import_foreign("dreamsim", "the teacher dreamsim", "dreamsim", "teachers")
    # The package tells its progress on stdout, which is ours for results.
    with contextlib.redirect_stdout(sys.stderr):
        network, _ = package.dreamsim(
            pretrained=True,
            device=device,
            cache_dir=str(folder),
            normalize_embeds=False,
            dreamsim_type=variant,
        )
    return network
