"""Teachers of foreign packages, through our side of the boundary.

The packages need torchvision and weights that only their hubs have, so small stand-ins take the
place of the packages dreamsim, timm and open_clip themselves, and of nothing else: what we ask
them for, which files we want first, how pixels and outputs are scaled, which weights we refuse.
docs/teachers.md says what was run with the real packages.
"""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model.errors import DependencyError, MetricError
from model.teachers.dreamsim import VARIANTS, centre_then_normalise, normalise_then_centre
from model.teachers.load import load_teacher

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Net(nn.Module):
    """Means of each channel's quarters through a matrix: a network small enough to know."""

    def __init__(self, dim=6):
        super().__init__()
        self.fc = nn.Linear(12, dim)

    def forward(self, x):
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))

    embed = forward


def pictures(count=3, side=224):
    return torch.from_numpy(np.random.default_rng(0).random((count, 3, side, side))).float()


@pytest.fixture
def stand_in(monkeypatch):
    def install(name, **functions):
        module = ModuleType(name)
        for key, value in functions.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, name, module)

    return install


@pytest.fixture
def dreamsim_folder(tmp_path):
    def fill(variant):
        for name in VARIANTS[variant]:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("_lora"):
                path.mkdir()
                path = path / "adapter_config.json"
            path.write_text(name)
        return tmp_path

    return fill


@pytest.fixture
def dreamsim_calls(stand_in):
    calls = []

    def dreamsim(**options):
        calls.append(options)
        sys.stdout.write("Using cached\n")
        return Net(), None

    stand_in("dreamsim", dreamsim=dreamsim)
    return calls


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_asked_of_its_package_raw_and_offline(
    variant, dreamsim_folder, dreamsim_calls, capsys
):
    folder = dreamsim_folder(variant)
    teacher = load_teacher(f"dreamsim:{variant}", weights=folder)
    assert dreamsim_calls == [
        {
            "pretrained": True,
            "device": "cpu",
            "cache_dir": str(folder),
            "normalize_embeds": False,
            "dreamsim_type": variant,
        }
    ]
    assert (teacher.name, teacher.input_size) == (f"dreamsim:{variant}:v0.1", 224)
    assert teacher.dim == 6
    assert teacher.record["convention"] == "v0.1"
    assert len(teacher.record["weights_sha256"]) == 64
    assert capsys.readouterr().out == "", "the package's words belong on stderr"


def test_the_six_published_variants_are_known():
    assert set(VARIANTS) == {
        "ensemble", "dino_vitb16", "clip_vitb32", "open_clip_vitb32", "dinov2_vitb14",
        "synclr_vitb16",
    }  # fmt: skip


def test_the_record_tells_other_weights_apart(dreamsim_folder, dreamsim_calls):
    folder = dreamsim_folder("clip_vitb32")
    before = load_teacher("dreamsim:clip_vitb32", weights=folder).record
    (folder / "clip_vitb32_single_lora" / "adapter_model.bin").write_bytes(b"x")
    after = load_teacher("dreamsim:clip_vitb32", weights=folder).record
    assert before["weights_sha256"] != after["weights_sha256"]
    assert len(dreamsim_calls) == 2


def test_both_conventions_of_the_target(dreamsim_folder, dreamsim_calls):
    folder = dreamsim_folder("ensemble")
    x = pictures()
    with torch.no_grad():
        old = load_teacher("dreamsim:ensemble:v0.1", weights=folder)
        torch.manual_seed(0)
        a = load_teacher("dreamsim:ensemble", weights=folder).embed(x)
        torch.manual_seed(0)
        b = load_teacher("dreamsim:ensemble:v0.2", weights=folder).embed(x)
    assert old.name == "dreamsim:ensemble:v0.1"
    assert torch.allclose(b.norm(dim=1), torch.ones(3))
    assert (a.norm(dim=1) < 1).all()
    for rows in (a, b):
        assert float(rows.mean(dim=1).abs().max()) < 1e-7
    cosines = [r @ r.T / (r.norm(dim=1)[:, None] * r.norm(dim=1)) for r in (a, b)]
    assert torch.allclose(*cosines, atol=1e-6)
    assert len(dreamsim_calls) == 3


def test_conventions_by_hand():
    v = torch.tensor([[3.0, 4.0, 0.0, 0.0]])
    assert torch.allclose(normalise_then_centre(v), torch.tensor([[0.25, 0.45, -0.35, -0.35]]))
    centred = torch.tensor([[1.25, 2.25, -1.75, -1.75]])
    assert torch.allclose(centre_then_normalise(v), centred / centred.norm())
    mean = 0.35  # of v / |v|
    norm = normalise_then_centre(v).norm()
    assert float(norm) == pytest.approx((1 - 4 * mean**2) ** 0.5)


def test_every_missing_file_is_named_and_nothing_is_asked_of_the_package(tmp_path, dreamsim_calls):
    with pytest.raises(MetricError, match=r"needs --weights FOLDER with .*ensemble_lora"):
        load_teacher("dreamsim:ensemble")
    with pytest.raises(MetricError, match="lacks") as caught:
        load_teacher("dreamsim:ensemble", weights=tmp_path)
    assert all(name in str(caught.value) for name in VARIANTS["ensemble"])
    assert dreamsim_calls == []


@pytest.mark.parametrize("name", ["dreamsim:vgg", "dreamsim:ensemble:v9"])
def test_a_strange_variant_or_convention_is_refused(name, tmp_path):
    with pytest.raises(MetricError, match=r"known: (ensemble|v0\.1)"):
        load_teacher(name, weights=tmp_path)


def test_another_input_than_the_published_one_is_refused(dreamsim_folder, dreamsim_calls):
    folder = dreamsim_folder("ensemble")
    with pytest.raises(MetricError, match="224 pixels a side, not 128"):
        load_teacher("dreamsim:ensemble", weights=folder, size=128)
    assert len(dreamsim_calls) == 1


@pytest.mark.parametrize(
    ("name", "package"),
    [("dreamsim:ensemble", "dreamsim"), ("timm:x", "timm"), ("open_clip:x", "open_clip")],
)
def test_an_absent_package_is_one_clear_line(name, package, monkeypatch, dreamsim_folder, tmp_path):
    folder = dreamsim_folder("ensemble")
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    monkeypatch.setitem(sys.modules, package, None)
    weights = folder if package == "dreamsim" else tmp_path / "w.pth"
    with pytest.raises(
        DependencyError, match=r"needs .*pip install 'lipsim-retrieval\[teachers\]'$"
    ) as caught:
        load_teacher(name, weights=weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["timm:vit_base_patch16_224.dino", "open_clip:ViT-B-32"])
def test_weights_must_be_given_for_a_hub_is_never_asked(name):
    with pytest.raises(MetricError, match="needs --weights FILE; nothing is downloaded"):
        load_teacher(name)


def timm_stand_in(stand_in, **extra):
    def create_model(name, num_classes):
        assert num_classes == 0
        if name == "nope":
            raise RuntimeError("Unknown model (nope)")
        net = Net()
        net.pretrained_cfg = {"input_size": (3, 32, 32), "classifier": "head", **IMAGENET, **extra}
        return net

    stand_in("timm", create_model=create_model)


@pytest.mark.parametrize(("model", "divisor"), [("vit_x.dino", 20.0), ("resnet50", 1.0)])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_timm_gets_normalised_pixels_and_a_dino_is_divided_by_20(
    stand_in, tmp_path, model, divisor, suffix
):
    timm_stand_in(stand_in)
    net, file = Net(), tmp_path / f"w.{suffix}"
    state = net.state_dict() | {"head.weight": torch.zeros(9, 6)}
    if suffix == "bin":
        torch.save({"state_dict": state}, file)
    else:
        save_file(state, file)
    teacher = load_teacher(f"timm:{model}", weights=file)
    x = pictures(side=32)
    mean, std = (torch.tensor(IMAGENET[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    expected = net((x - mean) / std) / divisor
    assert torch.allclose(teacher.embed(x), expected, atol=1e-6)
    assert teacher.input_size == 32
    assert teacher.record["divisor"] == f"{divisor:g}"


def test_weights_that_do_not_fill_a_network_are_refused(stand_in, tmp_path):
    timm_stand_in(stand_in)
    state = Net().state_dict()
    del state["fc.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(MetricError, match=r"does not fit timm:x: Missing key.*fc\.bias"):
        load_teacher("timm:x", weights=tmp_path / "w.pth")
    torch.save(Net().state_dict() | {"more": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(MetricError, match="Unexpected key"):
        load_teacher("timm:x", weights=tmp_path / "w.pth")


def test_a_model_that_a_package_does_not_know_is_refused(stand_in, tmp_path):
    timm_stand_in(stand_in)
    torch.save(Net().state_dict(), tmp_path / "w.pth")
    with pytest.raises(MetricError, match=r"timm:nope cannot be built: Unknown model"):
        load_teacher("timm:nope", weights=tmp_path / "w.pth")


def test_another_input_size_goes_to_the_network_or_is_refused(stand_in, tmp_path):
    torch.save(Net().state_dict(), tmp_path / "w.pth")
    timm_stand_in(stand_in)
    assert load_teacher("timm:x", weights=tmp_path / "w.pth", size=64).input_size == 64
    timm_stand_in(stand_in, fixed_input_size=True)
    with pytest.raises(MetricError, match="no other input size"):
        load_teacher("timm:x", weights=tmp_path / "w.pth", size=64)


def test_open_clip_is_its_image_half(stand_in, tmp_path):
    def create_model(name, pretrained):
        assert (name, pretrained) == ("ViT-B-32", None)
        visual = Net()
        visual.preprocess_cfg = {"size": (48, 48), **IMAGENET}
        return SimpleNamespace(visual=visual)

    stand_in("open_clip", create_model=create_model)
    net = Net()
    state = {f"visual.{key}": value for key, value in net.state_dict().items()}
    torch.save(state | {"logit_scale": torch.zeros(())}, tmp_path / "w.bin")
    teacher = load_teacher("open_clip:ViT-B-32", weights=tmp_path / "w.bin")
    x = pictures(side=48)
    mean, std = (torch.tensor(IMAGENET[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    assert torch.allclose(teacher.embed(x), net((x - mean) / std), atol=1e-6)
    assert (teacher.input_size, teacher.dim) == (48, 6)
    y = x.clone().requires_grad_()
    teacher.embed(y).sum().backward()
    assert y.grad is not None
    assert y.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["maps", "nan"])
def test_a_network_that_gives_no_rows_of_numbers_is_refused(stand_in, tmp_path, kind):
    class Odd(Net):
        def forward(self, x):
            return x if kind == "maps" else super().forward(x) * float("nan")

    def create_model(name, num_classes):  # noqa: ARG001
        net = Odd()
        net.pretrained_cfg = {"input_size": (3, 32, 32), "classifier": None, **IMAGENET}
        return net

    stand_in("timm", create_model=create_model)
    torch.save(Net().state_dict(), tmp_path / "w.pth")
    with pytest.raises(MetricError, match=r"was wanted|not finite"):
        load_teacher("timm:x", weights=tmp_path / "w.pth")
