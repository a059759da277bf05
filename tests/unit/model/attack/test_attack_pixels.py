"""What is attacked is the metric itself: same vectors, same pixels, same proof."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.attack.attacks import attack_within, search_shortest
from model.attack.decisions import Top1
from model.attack.ledger import Ledger
from model.attack.pixel_metric import metric_of_input, metric_of_upload
from model.attack.plan import Plan
from model.attack.questions import Block
from model.embedder import Embedder
from model.errors import AttackError
from model.metrics.hashes import HashMetric
from model.metrics.metric import unit_rows
from model.metrics.ours import EmbedderMetric
from model.metrics.pixels import BlockMeans
from model.pixels.resize import resize_operator


def brightness_hash() -> HashMetric:
    """Sixteen bits: which of sixteen pixels are brighter than their mean."""

    def compute(pixels: np.ndarray) -> np.ndarray:
        taken = pixels[8::16, 8::16].mean(axis=2)
        return (taken > taken.mean()).ravel()

    return HashMetric("brightness", 16, compute)


def test_the_embedder_is_judged_in_float64_and_pushed_in_float32():
    embedder = Embedder.load()
    metric = metric_of_input(EmbedderMetric(embedder))
    x = np.random.default_rng(0).uniform(0.0, 1.0, (3, 3, 96, 96))
    assert (metric.embed(x) == embedder.embed_pixels(x)).all()
    fast = metric.network(torch.from_numpy(x.astype(np.float32)))
    assert fast.dtype == torch.float32
    assert np.abs(fast.numpy() - metric.embed(x)).max() < 1e-4
    # The copy left the embedder's own weights as they were.
    assert (metric.embed(x) == Embedder.load().embed_pixels(x)).all()
    assert (metric.lipschitz_bound, metric.forward_error, metric.gain) == (
        embedder.lipschitz_bound, embedder.forward_error, 1.0,
    )  # fmt: skip


def test_an_upload_is_attacked_through_the_resize_that_is_certified():
    rng = np.random.default_rng(1)
    resize = resize_operator(40, 24, 16)
    inner = metric_of_input(BlockMeans(16, 16))
    metric = metric_of_upload(inner, resize)
    assert (metric.height, metric.width, metric.gain) == (40, 24, resize.gain)
    assert metric.forward_error > inner.forward_error
    images = 0.5 + 0.1 * rng.standard_normal((5, 3, 40, 24))
    vectors = metric.embed(images)
    for image, vector in zip(images, vectors, strict=True):
        x = resize.apply_real(np.ascontiguousarray(image.transpose(1, 2, 0)))
        assert (vector == inner.embed(x[None])[0]).all()
    fast = metric.network(torch.from_numpy(images.astype(np.float32)))
    assert np.abs(fast.numpy() - vectors).max() < 1e-5

    block = Block(
        metric,
        Top1(unit_rows(vectors)[None], np.arange(5), vectors),
        list("abcde"),
        images,
        vectors,
    )
    ledger = Ledger(block)
    search_shortest(ledger, steps=60, restarts=1, seed=0)
    assert not ledger.counter_examples
    # The resize's norm is reached by smooth pictures only, so the proof cannot be tight here.
    assert (ledger.ratios() > 1.0).all()
    assert (ledger.ratios() < 4.0).all()


def test_a_hash_falls_to_scores_alone_and_only_to_pictures_that_exist():
    metric = brightness_hash()
    metric = metric_of_input(metric)
    assert (metric.network, metric.has_levels, metric.is_certified) == (None, True, False)
    # A chequered picture, all of it two levels from the mean; its rival differs in two bits.
    base = np.full((64, 64, 3), 128.0)
    base += np.kron(np.indices((4, 4)).sum(axis=0) % 2 * 4.0 - 2.0, np.ones((16, 16)))[..., None]
    picture = base.transpose(2, 0, 1)[None] / 255.0
    flipped = picture.copy()
    flipped[:, :, :16, :32] = 1.0 - flipped[:, :, :16, :32]
    vectors = metric.embed(picture)
    gallery = unit_rows(np.concatenate([vectors, metric.embed(flipped)]))
    assert (gallery[0] != gallery[1]).any()
    block = Block(metric, Top1(gallery[None], np.array([0]), vectors), ["q"], picture, vectors)
    ledger = Ledger(block)
    plan = Plan(data=Path("drawn"), out=Path("nowhere"), steps=200, restarts=3)
    attack_within(ledger, "square", 4.0, plan)
    assert 0.0 < ledger.attack_radii[0] <= 4.0

    deltas = np.full_like(picture, 2.7 / 255.0)
    scaled = ledger._scaled(np.array([0]), deltas, np.ones(1))
    assert 255.0 * scaled == pytest.approx(2.0, abs=1e-9)


def test_a_hash_is_not_attacked_through_a_resize():
    with pytest.raises(AttackError, match="brightness is attacked on square pictures only"):
        metric_of_upload(metric_of_input(brightness_hash()), resize_operator(20, 20, 16))
