"""Certified results are attacked in pixels: in the library with real numbers, over HTTP with files.

`benchmarks/attack.py` does the same with 200 queries and more steps.
"""

from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from service_helpers import draw_picture, encode, open_client, run_builder

from benchmarks.evictions import eviction_objective, round_to_levels
from index_builder.search.gallery import GalleryIndex
from model.attack.descent import Ball, Search, descend, shorten
from model.attack.ledger import smallest_scales
from model.certificate.search import SearchCertificate, certify_search
from model.embedder import Embedder
from model.pixels.decode import decode_image
from model.pixels.resize import resize_operator
from service.settings import Settings

K, STEPS = 5, 12
# Views of an entry and the seed of a query: one vector an entry, and seven.
CASES = [("none", 3), ("none", 20), ("none", 41), ("none", 58), ("mirror", 20)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "query" in metafunc.fixturenames:
        metafunc.parametrize(("built", "query"), CASES, indirect=True, scope="module")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder.load()


@pytest.fixture(scope="module")
def built(request, gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery's index, with those views."""
    directory = tmp_path_factory.mktemp(request.param)
    run_builder("build", gallery, "--data-dir", directory, "--views", request.param)
    return directory


@pytest.fixture(scope="module")
def index(built: Path):
    with GalleryIndex.open(built) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(built: Path):
    with open_client(Settings(data_dir=built)) as opened:
        yield opened


class AttackedQuery:
    """A noisy copy of a gallery picture, its answer, and attacks on three of its results."""

    def __init__(self, embedder: Embedder, index: GalleryIndex, seed: int) -> None:
        noise = np.random.default_rng(seed).normal(0.0, 12.0, (120, 160, 3))
        noisy = np.clip(np.asarray(draw_picture(seed)) + noise, 0, 255).astype(np.uint8)
        self.pixels = decode_image(encode(Image.fromarray(noisy))).pixels
        self.embedder, self.index = embedder, index
        self.resize = resize_operator(120, 160, embedder.input_size)
        self.answer = self.ask(self.pixels / 255.0)
        radii = self.answer.certified_radii
        self.ranks = sorted({0, K - 1, int(np.argmin(radii))})
        self.radii = radii[self.ranks]
        self.entries = index.rows.entries[self.answer.positions[self.ranks]].tolist()
        self.objective = eviction_objective(
            embedder.network,
            self.resize,
            self.pixels / 255.0,
            gallery=index.vectors.astype(np.float64),
            starts=index.rows.starts,
            entries=self.entries,
            k=K,
            scales=embedder.output_scales,
        )

    def ask(self, x: np.ndarray) -> SearchCertificate:
        embedder, resize = self.embedder, self.resize
        return certify_search(
            embedder.embed_pixels(resize.apply_real(x)[None])[0],
            self.index.everything(),
            k=K,
            lipschitz_bound=embedder.lipschitz_bound,
            output_scales=embedder.output_scales,
            gain=resize.gain,
            forward_error=embedder.forward_error + embedder.lipschitz_bound * resize.input_error,
        )

    def ball(self, factor: float) -> Ball:
        """The certificate knows no box, and neither does the attack."""
        limits = torch.from_numpy(factor * self.radii).reshape(-1, 1, 1, 1)
        pictures = torch.from_numpy(self.pixels.transpose(2, 0, 1) / 255.0)
        return Ball("l2", limits, pictures.expand(len(limits), -1, -1, -1), has_box=False)

    def attack(self, factor: float) -> np.ndarray:
        ball = self.ball(factor)
        found = descend(Search(self.objective, ball.zeros()), ball.zeros(), ball, steps=STEPS)
        return found.permute(0, 2, 3, 1).numpy()

    def shortest(self) -> np.ndarray:
        ball = self.ball(2.0)
        found = shorten(self.objective, ball.zeros(), ball, steps=STEPS)
        return found.permute(0, 2, 3, 1).numpy()

    def is_evicted(self, entry: int, delta: np.ndarray) -> bool:
        moved = self.ask(self.pixels / 255.0 + delta).positions
        return entry not in self.index.rows.entries[moved]


@pytest.fixture(scope="module")
def query(request, embedder: Embedder, index: GalleryIndex) -> AttackedQuery:
    return AttackedQuery(embedder, index, request.param)


def test_no_attack_below_the_radius_evicts_and_at_three_times_some_do(query: AttackedQuery):
    assert (query.radii > 0.0).all()
    below, above = query.attack(0.999), query.attack(3.0)
    evicted = []
    for entry, radius, delta, far in zip(query.entries, query.radii, below, above, strict=True):
        assert np.linalg.norm(delta) <= 0.999 * radius * (1 + 1e-9)
        assert not query.is_evicted(entry, delta)
        evicted.append(query.is_evicted(entry, far))
    assert any(evicted), "the attack is too weak to mean anything"


def test_the_attack_radius_is_never_below_the_certified_radius(query: AttackedQuery):
    found = 0
    for entry, radius, delta in zip(query.entries, query.radii, query.shortest(), strict=True):
        if query.is_evicted(entry, delta):
            found += 1
            (scale,) = smallest_scales(
                lambda s, d=delta, e=entry: np.array([query.is_evicted(e, s[0] * d)]), 1
            )
            assert scale * np.linalg.norm(delta) >= radius
    assert found > 0


def test_no_file_below_the_radius_evicts_over_http(query: AttackedQuery, client: httpx.Client):
    def results(pixels: np.ndarray) -> dict[str, float]:
        image = encode(Image.fromarray(pixels))
        answer = client.post("/v1/search", files={"image": image}, data={"k": str(K)})
        assert answer.status_code == 200
        return {r["id"]: r["certified_radius"] for r in answer.json()["results"]}

    published = results(query.pixels)
    sent = 0
    for entry, delta in zip(query.entries, query.attack(3.0), strict=True):
        wanted = query.index.entries([entry])[0].id
        moved = round_to_levels(query.pixels, delta, published[wanted])
        norm = np.linalg.norm((moved.astype(np.float64) - query.pixels) / 255.0)
        assert norm < published[wanted]
        sent += norm > 0.0
        assert wanted in results(moved)
    assert sent > 0


def test_rounding_to_levels_sends_nothing_when_not_one_level_fits():
    pixels = np.full((4, 4, 3), 128, dtype=np.uint8)
    delta = np.ones((4, 4, 3))
    assert (round_to_levels(pixels, delta, 0.9 / 255.0) == pixels).all()
