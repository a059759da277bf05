"""What the service passes to the certificates: each number, by its name, to the last bit."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from service_helpers import draw_picture, encode

from model.certificate.similarity import certify_pair
from model.embedder import Embedder
from model.pixels.decode import decode_image

# Sizes whose gains and forward errors differ.
SMALL = encode(draw_picture(21, 40, 30))
LARGE = encode(draw_picture(22, 900, 700))
EPSILON, THRESHOLD = 0.05, 0.3


@dataclass(frozen=True)
class Side:
    """One image, embedded here, beside the service."""

    vector: np.ndarray
    gain: float
    forward_error: float


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder.load()


@pytest.fixture(scope="module")
def sides(embedder: Embedder, client: httpx.Client) -> dict[bytes, Side]:
    # After the service has set the number of threads, on which the last bits depend.
    assert client.get("/readyz").status_code == 200
    found = {}
    for data in (SMALL, LARGE):
        one = embedder.embed_image(decode_image(data))
        found[data] = Side(one.vector, one.gain, one.forward_error)
    return found


def test_the_images_tell_the_sides_apart(sides: dict[bytes, Side]):
    small, large = sides[SMALL], sides[LARGE]
    assert abs(small.gain / large.gain - 1) > 0.5
    assert 0 < small.forward_error < large.forward_error


@pytest.mark.parametrize("pair", [(SMALL, LARGE), (LARGE, SMALL)])
def test_similarity_is_the_certificate_of_the_two_embeddings(
    client: httpx.Client, embedder: Embedder, sides: dict[bytes, Side], pair: tuple[bytes, bytes]
):
    a, b = pair
    expected = certify_pair(
        sides[a].vector,
        sides[b].vector,
        lipschitz_bound=embedder.lipschitz_bound,
        gain_a=sides[a].gain,
        gain_b=sides[b].gain,
        forward_error_a=sides[a].forward_error,
        forward_error_b=sides[b].forward_error,
        epsilon=EPSILON,
        threshold=THRESHOLD,
    )
    answer = client.post(
        "/v1/similarity",
        files={"image_a": a, "image_b": b},
        data={"epsilon": str(EPSILON), "threshold": str(THRESHOLD)},
    ).json()
    assert expected.interval_a is not None
    assert expected.interval_both is not None
    # Two images share a pass here and had one each there: the last digits may differ.
    assert answer["interval"] == {
        "a": close(expected.interval_a),
        "both": close(expected.interval_both),
    }
    assert answer["certified_radius"] == {
        "a": close(expected.radius_a),
        "b": close(expected.radius_b),
        "both": close(expected.radius_both),
    }
    assert answer["match"] == expected.match
    assert answer["distance"] == close(expected.distance)
    assert answer["similarity"] == close(expected.similarity)
    for side, one in (("a", a), ("b", b)):
        assert answer[f"image_{side}"]["gain"] == close(sides[one].gain)
    model = answer["model"]
    assert model["lipschitz_bound"] == embedder.lipschitz_bound
    assert model["forward_error"] == max(side.forward_error for side in sides.values())


def close(value: object) -> object:
    """Equal but for what another order of sums can change."""
    return pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    "changed",
    [
        {"gain_a": "b", "gain_b": "a"},
        {"forward_error_a": "b", "forward_error_b": "a"},
        {"forward_error_a": 0.0},
        {"forward_error_b": 0.0},
        {"lipschitz_bound": 0.5},
    ],
)
def test_any_other_wiring_would_be_seen(
    embedder: Embedder, sides: dict[bytes, Side], changed: dict[str, Any]
):
    """The exact comparison above has teeth: each mistake moves some number of the certificate."""
    by_name = {"a": sides[SMALL], "b": sides[LARGE]}
    right: dict[str, Any] = {
        "lipschitz_bound": embedder.lipschitz_bound,
        **{f"gain_{name}": side.gain for name, side in by_name.items()},
        **{f"forward_error_{name}": side.forward_error for name, side in by_name.items()},
    }
    wrong = dict(right)
    for name, value in changed.items():
        wrong[name] = right[f"{name[:-1]}{value}"] if isinstance(value, str) else value
    certificates = [
        certify_pair(
            sides[SMALL].vector,
            sides[LARGE].vector,
            **numbers,
            epsilon=EPSILON,
            threshold=THRESHOLD,
        )
        for numbers in (right, wrong)
    ]
    assert certificates[0] != certificates[1]


def test_a_budget_of_exactly_the_radius_is_not_certified(client: httpx.Client, gallery: Path):
    """Radii are strict: less than the radius is proved, the radius itself is not."""
    text = base64.b64encode((gallery / "p05.jpg").read_bytes()).decode()

    def first(**options: float) -> dict[str, Any]:
        answer = client.post("/v1/search", json={"image_base64": text, "k": 3, **options}).json()
        return answer["results"][0]

    radius = first()["certified_radius"]
    assert radius > 0
    for epsilon, is_certified in (
        (radius, False),
        (float(np.nextafter(radius, 0)), True),
        (float(np.nextafter(radius, np.inf)), False),
    ):
        result = first(epsilon=epsilon)
        assert result["certified_radius"] == radius
        assert result["certified"] is is_certified
