"""LPIPS by its own definition: the vectors' squared distance is it, and searches rank by it."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model.attack.block import Block, Budget
from model.attack.campaign import attack_within, search_shortest
from model.attack.decisions import FirstPlace, StaysClose
from model.attack.ledger import Ledger
from model.attack.lpips import LpipsMetric, load_lpips
from model.attack.subjects import subject_of
from model.errors import AttackError, DependencyError, MetricError


class Trunk(nn.Module):
    """Two convolutions in two slices that keep the numbers of their layers, as in the package."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 4, 5, 4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU()]
        self.slice1, self.slice2 = nn.Sequential(), nn.Sequential()
        for number, layer in enumerate(layers):
            part = self.slice1 if number < 2 else self.slice2
            part.add_module(str(number), layer)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = self.slice1(x)
        return first, self.slice2(first)


class Lpips(nn.Module):
    """The definition, with the names of the package."""

    def __init__(self, **_) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.net = Trunk()
        self.lins = nn.ModuleList([nn.Module(), nn.Module()])
        for lin, channels in zip(self.lins, (4, 6), strict=True):
            lin.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))
            lin.model[1].weight.data.abs_()

    def scaling_layer(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 0.1) / 0.4

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(len(a))
        features = [self.net(self.scaling_layer(2 * x - 1)) for x in (a, b)]
        for one, other, lin in zip(*features, self.lins, strict=True):
            units = [f / (f.norm(dim=1, keepdim=True) + 1e-10) for f in (one, other)]
            difference = lin.model[1]((units[0] - units[1]) ** 2)
            total += difference.mean(dim=(1, 2, 3))
        return total


@pytest.fixture
def metric() -> LpipsMetric:
    return LpipsMetric("tiny", Lpips().eval(), input_size=32)


@pytest.fixture
def pictures() -> np.ndarray:
    smooth = np.random.default_rng(3).uniform(0.2, 0.8, (6, 3, 8, 8))
    return np.kron(smooth, np.ones((4, 4)))


def as_tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x.astype(np.float32))


def test_the_squared_distance_of_two_vectors_is_lpips(metric: LpipsMetric, pictures: np.ndarray):
    a, b = as_tensor(pictures), as_tensor(pictures[::-1].copy())
    # A place without any feature has no direction, and must not spoil the gradient either.
    a[0] = 0.1
    with torch.no_grad():
        wanted = Lpips().eval()(a, b)
    a.requires_grad_(True)
    found = ((metric.network(a) - metric.network(b)) ** 2).sum(dim=1)
    assert torch.allclose(found, wanted, rtol=1e-4)
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert gradient.isfinite().all()


def test_a_search_ranks_by_lpips(metric: LpipsMetric, pictures: np.ndarray):
    subject = subject_of(metric)
    vectors = subject.embed(pictures)
    rows = subject.rows(vectors).astype(np.float64)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1.0, abs=1e-6)
    for vector in vectors:
        distances = ((vectors - vector) ** 2).sum(axis=1)
        assert np.argsort(-(rows @ vector)).tolist() == np.argsort(distances).tolist()


def test_lpips_falls(metric: LpipsMetric, pictures: np.ndarray):
    subject = subject_of(metric)
    vectors = subject.embed(pictures)
    eviction = FirstPlace(subject.rows(vectors)[None], np.arange(6), vectors)
    ledger = Ledger(Block(subject, eviction, list("abcdef"), pictures, vectors))
    assert ledger.is_right.all()
    assert ledger.certified_radii is None
    search_shortest(ledger, steps=40, restarts=1, seed=0)
    apart = np.linalg.norm((pictures[:, None] - pictures).reshape(6, 6, -1), axis=2)
    nearest = np.where(np.eye(6, dtype=bool), np.inf, apart).min(axis=1)
    assert (ledger.attack_radii < 0.5 * nearest).all()

    distance = StaysClose(vectors, 0.05)
    ledger = Ledger(Block(subject, distance, list("abcdef"), pictures, vectors))
    attack_within(ledger, "pgd", Budget(1.0, "l2", 30), restarts=1, seed=0)
    noise = np.random.default_rng(0).standard_normal(pictures.shape)
    noise /= np.linalg.norm(noise.reshape(6, -1), axis=1)[:, None, None, None]
    drawn = ((subject.embed(np.clip(pictures + noise, 0, 1)) - vectors) ** 2).sum(axis=1)
    assert (ledger.reached[1.0] > 1.5 * drawn).all()
    with pytest.raises(AttackError, match="no radius is proved"):
        distance.certified_radius(vectors[0], 0, subject)


def test_the_trunks_weights_come_from_a_file_that_fits(tmp_path: Path, monkeypatch):
    package = types.ModuleType("lpips")
    package.LPIPS = Lpips
    monkeypatch.setitem(sys.modules, "lpips", package)
    trained = {
        f"features.{number}.{kind}": torch.randn(shape)
        for number, shapes in ((0, ((4, 3, 5, 5), (4,))), (2, ((6, 4, 3, 3), (6,))))
        for kind, shape in zip(("weight", "bias"), shapes, strict=True)
    }
    file = tmp_path / "trunk.pth"
    torch.save(trained | {"classifier.1.weight": torch.zeros(2, 2)}, file)
    metric = load_lpips("lpips:alex@32", weights=file)
    assert metric.name == "lpips:alex@32"
    state = metric._model.net.state_dict()
    assert (state["slice2.2.weight"] == trained["features.2.weight"]).all()
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    with pytest.raises(MetricError, match=r"does not fit lpips:vgg: no features\.0\.weight"):
        load_lpips("lpips:vgg", weights=file)


def test_what_is_missing_is_said(tmp_path: Path):
    with pytest.raises(MetricError, match="needs --weights FILE"):
        load_lpips("lpips:alex")
    with pytest.raises(MetricError, match=r"lpips:alex\|vgg\|squeeze"):
        load_lpips("lpips:resnet", weights=tmp_path)
    negative = Lpips()
    negative.lins[0].model[1].weight.data[0] = -1.0
    with pytest.raises(MetricError, match="negative"):
        LpipsMetric("tiny", negative, input_size=32)


def test_a_missing_package_is_said(tmp_path: Path, monkeypatch):
    # None in the table of modules is how Python marks one that cannot be imported.
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(DependencyError, match="lpips:alex needs lpips"):
        load_lpips("lpips:alex", weights=tmp_path / "trunk.pth")
