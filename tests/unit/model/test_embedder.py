"""One path from bytes, pixels or network inputs to raw embeddings, and the numbers beside them."""

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
import torch
from paths import DATA
from PIL import Image

from model.convert import convert_official
from model.embedder import Embedder
from model.errors import CheckpointError, EmbeddingError, ImageError
from model.nets import checkpoint
from model.nets.network import Network
from model.pixels.decode import DECODE_POLICY_VERSION, DecodedImage, decode_image
from model.pixels.resize import resize_operator

OFFICIAL = DATA / "official_tiny.pt"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder.load()


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(0).random((19, 3, 96, 96))


def picture(height: int, width: int, seed: int = 0) -> DecodedImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return DecodedImage(pixels, "PNG")


def test_the_default_says_what_it_is(embedder):
    assert (embedder.name, embedder.dim, embedder.input_size) == ("wave-96", 140, 96)
    assert (embedder.arithmetic, embedder.claim) == ("float64", "program")
    assert embedder.decode_policy == DECODE_POLICY_VERSION
    assert len(bytes.fromhex(embedder.fingerprint)) == 32


def test_an_image_alone_is_embedded_as_within_a_batch(embedder, inputs):
    together = embedder.embed_pixels(inputs)
    assert together.dtype == np.float64
    for x, vector in zip(inputs, together, strict=True):
        alone = embedder.embed_pixels(x[None])[0]
        assert np.linalg.norm(alone - vector) <= 2 * embedder.forward_error


def test_a_published_network_is_batch_invariant_too(tmp_path):
    convert_official(OFFICIAL, tmp_path / "t.safetensors")
    tiny = Embedder.load(tmp_path / "t.safetensors")
    x = np.random.default_rng(1).random((9, 3, 224, 224))
    together = tiny.embed_pixels(x)
    alone = np.stack([tiny.embed_pixels(one[None])[0] for one in x])
    assert np.linalg.norm(together - alone, axis=1).max() <= 2 * tiny.forward_error


def test_inputs_are_left_as_they_were_and_any_memory_layout_is_read(embedder, inputs):
    kept = inputs.copy()
    plain = embedder.embed_pixels(inputs)
    assert np.array_equal(inputs, kept)
    backwards = np.ascontiguousarray(inputs[..., ::-1])[..., ::-1]
    assert np.array_equal(embedder.embed_pixels(backwards), plain)
    frozen = inputs.copy()
    frozen.flags.writeable = False
    assert np.array_equal(embedder.embed_pixels(frozen), plain)


def test_no_inputs_give_no_embeddings(embedder):
    assert embedder.embed_pixels(np.empty((0, 3, 96, 96))).shape == (0, 140)
    assert embedder.embed_images([]) == []


def test_values_outside_the_cube_are_embedded(embedder, inputs):
    x = inputs[:2] * 4 - 2
    moved = np.linalg.norm(np.diff(embedder.embed_pixels(x), axis=0))
    assert 0 < moved <= embedder.lipschitz_bound * np.linalg.norm(np.diff(x, axis=0)) * (1 + 1e-9)


@pytest.mark.parametrize("shape", [(3, 96, 96), (1, 3, 96, 97), (1, 1, 96, 96), (1, 96, 96, 3), ()])
def test_another_shape_is_refused(embedder, shape):
    with pytest.raises(EmbeddingError, match="inputs must be"):
        embedder.embed_pixels(np.zeros(shape))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_poison_is_refused(embedder, poison):
    x = np.zeros((2, 3, 96, 96))
    x[1, 2, 3, 4] = poison
    with pytest.raises(EmbeddingError, match="finite"):
        embedder.embed_pixels(x)


def test_an_input_that_overflows_is_refused(embedder):
    with pytest.raises(EmbeddingError, match="too large"):
        embedder.embed_pixels(
            np.full((1, 3, 96, 96), 1e308)
            * np.random.default_rng(0).choice([-1, 1], (1, 3, 96, 96))
        )


def test_bytes_pixels_and_inputs_take_the_same_path(embedder):
    image = picture(90, 120)
    buffer = BytesIO()
    Image.fromarray(image.pixels).save(buffer, "PNG")
    vector, gain = embedder.embed(buffer.getvalue())
    resize = resize_operator(90, 120, 96)
    direct = embedder.embed_pixels(resize.apply(decode_image(buffer.getvalue()).pixels)[None])[0]
    assert np.array_equal(vector, direct)
    assert gain == resize.gain
    assert np.array_equal(embedder.embed_image(image).vector, vector)


def test_images_of_many_sizes_keep_their_order_and_their_own_numbers(embedder):
    sizes = [(64, 64), (200, 100), (17, 300), (64, 64)]
    images = [picture(height, width, seed) for seed, (height, width) in enumerate(sizes)]
    found = embedder.embed_images(images)
    for image, embedding in zip(images, found, strict=True):
        resize = resize_operator(image.height, image.width, 96)
        assert (embedding.height, embedding.width) == (image.height, image.width)
        assert embedding.gain == resize.gain
        whole = embedder.forward_error + embedder.lipschitz_bound * resize.input_error
        assert whole <= embedding.forward_error <= whole * (1 + 1e-12)
        alone = embedder.embed_image(image).vector
        assert np.linalg.norm(alone - embedding.vector) <= 2 * embedder.forward_error


def test_bytes_that_are_no_image_are_an_image_error(embedder):
    with pytest.raises(ImageError):
        embedder.embed(b"not an image")


def test_threads_share_an_embedder(embedder, inputs):
    alone = [embedder.embed_pixels(x[None]) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: embedder.embed_pixels(x[None]), list(inputs) * 3))
    for index, vector in enumerate(together):
        assert np.linalg.norm(vector - alone[index % len(inputs)]) <= 2 * embedder.forward_error


def test_a_float32_embedder_claims_less_and_says_so(embedder, inputs):
    short = Embedder.load(arithmetic="float32")
    assert (short.arithmetic, short.claim) == ("float32", "real-arithmetic")
    assert short.fingerprint == embedder.fingerprint
    assert short.lipschitz_bound == embedder.lipschitz_bound
    assert short.forward_error > 1e6 * embedder.forward_error
    found = short.embed_pixels(inputs)
    assert found.dtype == np.float64
    off = np.linalg.norm(found - embedder.embed_pixels(inputs), axis=1)
    assert (off > embedder.forward_error).all()
    assert (off < 1e-5 * np.linalg.norm(found, axis=1)).all()


@pytest.fixture
def short_products():
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("short_products")
def test_loading_leaves_the_settings_of_the_process_alone(embedder, inputs, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    whole = embedder.embed_pixels(inputs)
    assert np.array_equal(Embedder.load().embed_pixels(inputs), whole)
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.backends.cudnn.allow_tf32


def test_a_float32_pass_in_fewer_digits_is_refused_whenever_they_were_set(inputs):
    short = Embedder.load(arithmetic="float32")
    whole = short.embed_pixels(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(short.embed_pixels(inputs), whole)
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with pytest.raises(EmbeddingError, match="tf32 is set"):
            short.embed_pixels(inputs)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert np.array_equal(short.embed_pixels(inputs), whole)


@pytest.mark.parametrize(
    "name",
    ["CUBLAS_EMULATE_DOUBLE_PRECISION", "CUBLAS_EMULATE_SINGLE_PRECISION", "NVIDIA_TF32_OVERRIDE"],
)
def test_emulated_products_are_refused_on_cuda_by_name(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(EmbeddingError, match=f"{name}=1"):
        Embedder.load(device="cuda")
    assert Embedder.load().claim == "program"  # a CPU reads none of them


@pytest.mark.parametrize("arithmetic", ["float64", "float32"])
def test_loading_builds_the_network_that_runs_and_no_other(monkeypatch, arithmetic):
    built = []
    make = Network.__init__

    def count(self, *arguments):
        built.append(self)
        make(self, *arguments)

    monkeypatch.setattr(Network, "__init__", count)
    monkeypatch.setattr(checkpoint, "_proofs", {})
    assert [Embedder.load(arithmetic=arithmetic).network] == built


def test_loading_refuses_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        Embedder.load(tmp_path / "nowhere.safetensors")


def test_gradients_pass_through_the_certified_network(embedder, inputs):
    leaf = torch.tensor(inputs[:1], requires_grad=True)
    out = embedder.network(leaf)
    assert np.linalg.norm(out.detach().numpy() - embedder.embed_pixels(inputs[:1])) < 1e-8
    out[0, 0].backward()
    assert float(leaf.grad.norm()) > 0


@pytest.mark.parametrize("shape", [(40, 130, 3), (96, 96, 3), (200, 50, 3)])
def test_a_gradient_is_that_of_finite_differences(embedder: Embedder, shape: tuple[int, int, int]):
    rng = np.random.default_rng(7)
    pixels = rng.uniform(0.2, 0.8, shape)
    direction = rng.normal(size=embedder.dim)
    slope = embedder.gradient(pixels, direction)
    assert slope.shape == shape

    def along(x: np.ndarray) -> float:
        given = resize_operator(shape[0], shape[1], embedder.input_size).apply_real(x)
        return float(embedder.embed_pixels(given[None])[0] @ direction)

    for _ in range(5):
        step = rng.normal(size=shape)
        step *= 1e-5 / np.linalg.norm(step)
        difference = (along(pixels + step) - along(pixels - step)) / 2.0
        assert difference == pytest.approx(float((slope * step).sum()), rel=1e-4, abs=1e-12)
