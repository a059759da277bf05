from collections import Counter

import numpy as np
import pytest

from model.evaluate.embedding import Embedded, EmbeddedSet, Facts
from model.evaluate.labels import SMALLEST_CLASS, measure_labels, measure_votes
from model.evaluate.radii import PROVED, Proof
from model.evaluate.rows import chosen

EPSILONS = (0.05, 0.1, 0.2, 0.4, 0.8)


def embedded_set(vectors, labels, sources=None, proof=None):
    sources = sources or [""] * len(labels)
    facts = [Facts("", "", *names) for names in zip(labels, sources, strict=True)]
    none = np.zeros((0, vectors.shape[1]))
    return EmbeddedSet(facts, np.arange(0), [], {"m": Embedded(vectors, none, proof)})


def clustered(rng, count=80, dimension=6):
    """Embeddings whose labels hang together, two sources, one label too small to count."""
    labels = rng.choice(["a", "b", "c", ""], count).tolist()
    labels[:3] = ["rare"] * 3
    centres = {label: rng.normal(size=dimension) for label in set(labels)}
    vectors = np.stack([centres[label] for label in labels]) + rng.normal(size=(count, dimension))
    return vectors * 3.0, labels, rng.choice(["s", "t"], count).tolist()


def test_leave_one_out_accuracy_is_that_of_a_plain_loop(rng):
    vectors, labels, sources = clustered(rng)
    rows = measure_labels("m", embedded_set(vectors, labels, sources), EPSILONS)
    for source in ("s", "t"):
        sizes = Counter(x for x, s in zip(labels, sources, strict=True) if s == source)
        pool = [
            n for n, (x, s) in enumerate(zip(labels, sources, strict=True))
            if s == source and x and sizes[x] >= SMALLEST_CLASS
        ]  # fmt: skip
        assert "rare" not in {labels[n] for n in pool}
        right = 0
        for n in pool:
            others = [m for m in pool if m != n]
            cosines = [vectors[n] @ vectors[m] / np.linalg.norm(vectors[m]) for m in others]
            right += labels[others[int(np.argmax(cosines))]] == labels[n]
        (found,) = chosen(rows, figure="label_accuracy", k=1, by="source", group=source)
        assert (found["value"], found["count"]) == (pytest.approx(right / len(pool)), len(pool))
    assert {row["figure"] for row in rows} == {"label_accuracy"}


def test_certified_accuracy_falls_with_the_budget_and_holds_under_steps(rng):
    vectors, labels, _ = clustered(rng)
    rows = measure_labels("m", embedded_set(vectors, labels, proof=Proof(1.0, 0.0)), EPSILONS)
    certified = chosen(rows, figure="certified_label_accuracy", k=1, by="all", **PROVED)
    assert [row["epsilon"] for row in certified] == list(EPSILONS)
    values = [row["value"] for row in certified]
    natural = chosen(rows, figure="label_accuracy", k=1)[0]["value"]
    assert [natural, *values] == sorted([natural, *values], reverse=True)
    assert values[0] > 0.0
    sizes = Counter(labels)
    pool = [n for n, x in enumerate(labels) if x and sizes[x] >= SMALLEST_CLASS]
    units = vectors[pool] / np.linalg.norm(vectors[pool], axis=1)[:, None]
    names = np.array(labels)[pool]
    kept = np.ones(len(pool), dtype=bool)
    for _ in range(30):
        step = rng.normal(size=units.shape)
        step *= EPSILONS[1] / np.linalg.norm(step, axis=1)[:, None]
        scores = (vectors[pool] + step) @ units.T
        np.fill_diagonal(scores, -np.inf)
        kept &= names[scores.argmax(axis=1)] == names
    assert values[1] <= kept.mean()


def test_votes_are_those_of_the_published_protocol(rng):
    train, test = rng.normal(size=(120, 5)), rng.normal(size=(40, 5))
    train_labels = rng.choice(list("abcdefg"), 120).tolist()
    test_labels = rng.choice(list("abcdefg"), 40).tolist()
    found = {
        (row["figure"], row["k"]): row["value"]
        for row in measure_votes(
            "m", embedded_set(train, train_labels), embedded_set(test, test_labels)
        )
    }
    assert {k for _, k in found} == {10, 20, 100}  # there are fewer than 200 voters
    for k in (10, 20, 100):
        first = fifth = 0
        for query, label in zip(test, test_labels, strict=True):
            cosines = train @ query / np.linalg.norm(train, axis=1) / np.linalg.norm(query)
            votes = Counter()
            for number in np.argsort(-cosines)[:k]:
                votes[train_labels[number]] += np.exp(cosines[number] / 0.07)
            order = sorted("abcdefg", key=lambda name: -votes[name])
            first += order[0] == label
            fifth += label in order[:5]
        assert found["voted_accuracy", k] == first / 40
        assert found["voted_accuracy_top5", k] == fifth / 40
