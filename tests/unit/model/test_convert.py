"""Official checkpoints are read strictly, in both generations of keys, or refused by name."""

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import DATA
from typer import Typer
from typer.testing import CliRunner

from model.convert import convert_official, main, recognise
from model.errors import CheckpointError
from model.nets.checkpoint import load_checkpoint
from model.nets.network import tensor_specs
from model.nets.presets import PRESETS

OFFICIAL = DATA / "official_tiny.pt"
PREFIX = "module.model."


def official_state() -> dict[str, torch.Tensor]:
    return dict(torch.load(OFFICIAL, weights_only=True)["model_state_dict"])


def convert(tmp_path: Path, state: object, **options):
    source = tmp_path / "in.pth"
    torch.save(state, source)
    return convert_official(source, tmp_path / "out.safetensors", **options)


@pytest.fixture
def runner():
    app = Typer()
    app.command()(main)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("prefix", ["module.model.", "model.", "module.", ""])
@pytest.mark.parametrize("aliases", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_both_generations_behind_every_prefix_are_the_same_network(
    tmp_path, prefix, aliases, wrapped
):
    state = {
        prefix + key.removeprefix(PREFIX): value
        for key, value in official_state().items()
        if aliases or "base." not in key
    }
    made = convert(tmp_path, {"model_state_dict": state, "epoch": 1} if wrapped else state)
    wanted = convert_official(OFFICIAL, tmp_path / "official.safetensors")
    assert made.fingerprint == wanted.fingerprint
    assert (made.name, made.config) == ("tiny", PRESETS["tiny"])


def change(key, make):
    def apply(state):
        state[PREFIX + key] = make(state[PREFIX + key])

    return apply


def drop(*keys):
    def apply(state):
        for key in keys:
            del state[PREFIX + key]

    return apply


def poisoned(value: torch.Tensor) -> torch.Tensor:
    value = value.clone()
    value.view(-1)[0] = float("nan")
    return value


def without_aliases(apply):
    def both(state):
        for key in [key for key in state if "base." in key]:
            del state[key]
        apply(state)

    return both


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (drop("convs.0.kernel"), "missing key convs.0.kernel"),
        (drop("convs.1.q"), r"aliases without twin \['base\.1\.1\.q'\]"),
        (drop("base.1.1.q"), r"keys without alias \['convs\.1\.q'\]"),
        (without_aliases(drop("convs.1.q")), r"missing tensors \['convs\.1\.q'\]"),
        (without_aliases(drop("linear.1.weight")), r"missing key linear\.1\.weight"),
        (without_aliases(drop("linear.2.bias")), r"missing tensors \['linear\.2\.bias'\]"),
        (change("convs.0.q", lambda q: q + 1), "alias base.1.0.q differs from convs.0.q"),
        (change("base.2.1.bias", lambda b: b * -1.0), "alias base.2.1.bias differs"),
        (change("base.2.1.bias", lambda b: b[0]), "alias base.2.1.bias differs"),
        (without_aliases(change("convs.0.q", poisoned)), "convs.0.q holds NaN"),
        (without_aliases(change("convs.0.q", torch.Tensor.double)), "convs.0.q must be float32"),
        (without_aliases(change("convs.0.q", lambda q: q[:2])), r"convs\.0\.q must be"),
        (without_aliases(change("convs.0.q", lambda q: q.tolist())), "is no named tensor"),
        (without_aliases(change("convs.0.q", torch.Tensor.to_sparse)), "must be a dense tensor"),
        (without_aliases(change("convs.0.kernel", lambda k: k[..., :2])), "must be 3 x 3"),
        (without_aliases(change("convs.0.kernel", lambda k: k[0])), "must have 4 axes"),
        (without_aliases(change("convs.0.kernel", lambda k: k[:0])), "none empty"),
        (without_aliases(change("linear.1.weight", lambda w: w[:, :-1])), "8 x 196 columns"),
        (without_aliases(change("linear.1.q", lambda q: q + 900)), r"exp\(q\) must be positive"),
        (lambda state: state.update({PREFIX + "alpha": torch.ones(1)}), r"surplus keys.*alpha"),
        (lambda state: state.update({"other": torch.ones(1)}), r"surplus keys.*other"),
        (
            without_aliases(lambda state: state.update({PREFIX + "convs.9.q": torch.ones(5)})),
            r"missing tensors \['convs\.3\.bias'",
        ),
        (
            without_aliases(lambda state: state.update({PREFIX + "linear.0.q": torch.ones(5)})),
            r"surplus tensors \['linear\.0\.q'\]",
        ),
        (
            lambda state: state.update({PREFIX + "base.3.0.q": torch.ones(5)}),
            r"aliases without twin \['base\.3\.0\.q'\]",
        ),
    ],
)
def test_a_strange_checkpoint_is_refused_by_name(tmp_path, fault, words):
    state = official_state()
    fault(state)
    with pytest.raises(CheckpointError, match=words):
        convert(tmp_path, {"model_state_dict": state})
    assert not (tmp_path / "out.safetensors").exists()


def negated(value: torch.Tensor) -> torch.Tensor:
    """The same shape with its sign kept as a note beside the numbers."""
    return torch.complex(value, value).conj().imag


@pytest.mark.parametrize(
    ("key", "make", "words"),
    [
        ("linear.1.weight", lambda w: w[:1, :1].expand(10**6, 10**6), "1000000000000 numbers in"),
        ("linear.1.weight", lambda w: torch.ones(1).expand_as(w), "numbers in 4 bytes"),
        ("alpha", lambda _: torch.ones(1).expand(10**6, 10**6), r"surplus keys.*alpha"),
        ("convs.0.kernel", lambda k: k.to("meta"), "convs.0.kernel must be .*meta"),
        ("convs.0.kernel", negated, "convs.0.kernel must be a plain tensor"),
        ("convs.0.q", lambda q: torch.complex(q, q).conj(), "convs.0.q must be float32"),
    ],
)
@pytest.mark.parametrize("aliases", [True, False])
def test_a_tensor_without_memory_of_its_own_is_refused_before_it_is_given_any(
    tmp_path, key, make, words, aliases
):
    state = {name: value for name, value in official_state().items() if "base." not in name}
    state[PREFIX + key] = make(state.get(PREFIX + key))
    if aliases:
        for name in [name for name in state if "alpha" not in name]:
            layer = name.removeprefix(PREFIX).replace("convs", "base.1").replace("linear", "base.2")
            state[PREFIX + layer] = state[name]
        words = words.replace("convs.0", r"(convs|base.1).0")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with Path("/proc/self/statm").open() as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), limits[1]))
    try:
        with pytest.raises(CheckpointError, match=words):
            convert(tmp_path, {"model_state_dict": state})
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_a_transposed_tensor_is_the_network_it_looks_like(tmp_path):
    state = {name: value for name, value in official_state().items() if "base." not in name}
    state[PREFIX + "linear.1.weight"] = state[PREFIX + "linear.1.weight"].t().contiguous().t()
    wanted = convert_official(OFFICIAL, tmp_path / "official.safetensors")
    assert convert(tmp_path, state).fingerprint == wanted.fingerprint


@pytest.mark.parametrize(
    "content", [[1, 2], {"model_state_dict": [1]}, {1: torch.ones(1)}, {}, torch.ones(3)]
)
def test_a_file_of_something_else_is_refused(tmp_path, content):
    with pytest.raises(CheckpointError):
        convert(tmp_path, content)


class _Payload:
    def __reduce__(self):
        return (Path.touch, (Path("pickle-was-run"),))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no file of plain tensors"):
        convert(tmp_path, {"model_state_dict": _Payload()})
    assert not (tmp_path / "pickle-was-run").exists()


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04garbage", b"\x80\x02}q\x00."])
def test_bytes_that_are_no_checkpoint_are_refused(tmp_path, content):
    source = tmp_path / "in.pth"
    source.write_bytes(content)
    with pytest.raises(CheckpointError):
        convert_official(source, tmp_path / "out.safetensors")


def test_a_truncated_checkpoint_is_refused(tmp_path):
    source = tmp_path / "in.pth"
    source.write_bytes(OFFICIAL.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="no file of plain tensors"):
        convert_official(source, tmp_path / "out.safetensors")


def test_an_unknown_geometry_keeps_what_the_official_loader_would():
    def shapes(channels: int) -> dict[str, np.ndarray]:
        return {
            "convs.0.kernel": np.zeros((5, channels, 3, 3), np.float32),
            "linear.1.weight": np.zeros((7, channels * 196), np.float32),
        }

    assert recognise(shapes(4), None)[0].embedding_dim == 784
    assert recognise(shapes(20), None)[0].embedding_dim == 1792
    assert recognise(shapes(20), 512)[0].embedding_dim == 512
    assert recognise(shapes(20), None)[1] is None
    with pytest.raises(CheckpointError, match="at most 784"):
        recognise(shapes(4), 785)


@pytest.mark.parametrize("preset", ["small", "medium", "large", "xlarge"])
def test_the_published_sizes_are_recognised(preset):
    # Shapes without memory: one number, repeated by strides of 0.
    weights = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, (shape, _) in tensor_specs(PRESETS[preset]).items()
        if not name.endswith("scaling")
    }
    assert recognise(weights, None) == (PRESETS[preset], preset)


@pytest.mark.parametrize(
    ("preset", "numbers"),
    [
        ("small", 63_276_796),
        ("medium", 240_967_060),
        ("large", 361_511_160),
        ("xlarge", 722_974_540),
        ("tiny", 101_590),
    ],
)
def test_a_published_size_has_the_published_number_of_parameters(preset, numbers):
    specs = tensor_specs(PRESETS[preset])
    own = [np.prod(shape) for name, (shape, _) in specs.items() if not name.endswith("scaling")]
    assert sum(own) == numbers


def test_the_command_writes_once_and_says_what_it_proved(tmp_path, runner):
    target = tmp_path / "t.safetensors"
    first = runner(OFFICIAL, target)
    assert first.exit_code == 0, first.output
    loaded = load_checkpoint(target)
    for words in (loaded.fingerprint, repr(loaded.lipschitz_bound), repr(loaded.forward_error)):
        assert words in first.output
    again = runner(OFFICIAL, target)
    assert again.exit_code == 1
    assert "--force" in again.output
    forced = runner(OFFICIAL, target, "--force", "--embedding-dim", "32", "--name", "mine")
    assert forced.exit_code == 0, forced.output
    assert load_checkpoint(target).config.embedding_dim == 32
    assert load_checkpoint(target).name == "mine"


def test_the_command_fails_in_one_line(tmp_path, runner):
    result = runner(tmp_path / "nowhere.pth", tmp_path / "t.safetensors")
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert result.output.startswith("error: weights were wanted, ")
