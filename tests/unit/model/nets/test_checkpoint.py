"""A checkpoint comes back as it was written; a damaged, strange or boastful one is refused."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from model.embedder import DEFAULT_CHECKPOINT
from model.errors import CheckpointError
from model.nets import checkpoint as checkpoint_module
from model.nets.checkpoint import fingerprint_of, load_checkpoint, save_checkpoint
from model.nets.network import tensor_specs
from model.nets.presets import PRESETS, PublishedConfig, config_from_json, config_to_json
from model.nets.published import published_scalings
from model.pixels.decode import DECODE_POLICY_VERSION

CONFIG = PublishedConfig(1, 3, 2, 1, 4, 3, input_size=16)


def make_weights(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    weights = {
        name: random.standard_normal(shape).astype(dtype)
        for name, (shape, dtype) in tensor_specs(CONFIG).items()
        if not name.endswith("scaling")
    }
    return weights | published_scalings(CONFIG, weights)


@pytest.fixture
def path(tmp_path) -> Path:
    target = tmp_path / "net.safetensors"
    save_checkpoint(target, name="net", config=CONFIG, weights=make_weights(), training={"a": 1})
    return target


def edit(path: Path, change) -> None:
    """Rewrites a file by hand: metadata and tensors as `change` leaves them."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    metadata = json.loads(header["__metadata__"]["lipsim"])
    tensors = {
        name: [entry["dtype"], entry["shape"], body[slice(*entry["data_offsets"])]]
        for name, entry in header.items()
        if name != "__metadata__"
    }
    changed = change(metadata, tensors)
    text = json.dumps(metadata) if changed is None else changed
    header, body = {"__metadata__": {"lipsim": text}}, b""
    for name, (dtype, shape, values) in tensors.items():
        offsets = [len(body), len(body) + len(values)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        body += values
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + body)


def resign(metadata, tensors) -> None:
    """Gives changed tensors the fingerprint that belongs to them."""
    dtypes = {"F32": np.float32, "F64": np.float64}
    weights = {
        name: np.frombuffer(values, dtypes[dtype]).reshape(shape)
        for name, (dtype, shape, values) in tensors.items()
    }
    config = config_from_json(metadata["config"])
    metadata["fingerprint"] = fingerprint_of(config, weights, metadata["decode_policy"])


def test_what_was_written_comes_back(path):
    loaded, weights = load_checkpoint(path), make_weights()
    assert loaded.config == CONFIG
    assert loaded.training == {"a": 1}
    assert loaded.decode_policy == DECODE_POLICY_VERSION
    assert {name: value.tobytes() for name, value in loaded.weights.items()} == {
        name: value.tobytes() for name, value in weights.items()
    }
    assert 1.0 <= loaded.lipschitz_bound <= 1.0 + 1e-11
    assert loaded.fingerprint == fingerprint_of(CONFIG, weights, DECODE_POLICY_VERSION)


def test_an_edited_but_honest_file_still_loads(path):
    """The editor used below changes nothing by itself."""
    edit(path, lambda metadata, tensors: None)  # noqa: ARG005
    assert load_checkpoint(path).name == "net"


def test_the_fingerprint_is_of_the_network_not_of_the_file(tmp_path, path):
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, name="renamed", config=CONFIG, weights=make_weights(), training={"b": 2})
    assert other.read_bytes() != path.read_bytes()
    assert load_checkpoint(other).fingerprint == load_checkpoint(path).fingerprint


def test_the_fingerprint_notices_each_tensor_the_config_and_the_policy():
    weights = make_weights()
    prints = {fingerprint_of(CONFIG, weights, "p"), fingerprint_of(CONFIG, weights, "q")}
    prints.add(fingerprint_of(PublishedConfig(1, 3, 2, 1, 4, 2, input_size=16), weights, "p"))
    for name in weights:
        changed = weights[name].copy()
        changed.ravel()[-1] = np.nextafter(changed.ravel()[-1], 9)
        prints.add(fingerprint_of(CONFIG, {**weights, name: changed}, "p"))
    negative = {**weights, "convs.0.q": -weights["convs.0.q"]}
    prints.add(fingerprint_of(CONFIG, negative, "p"))
    assert len(prints) == 4 + len(weights)


def test_a_written_file_is_readable_by_others_and_nothing_is_left_beside_it(path):
    assert path.stat().st_mode & 0o444 == 0o444
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("member", "factor"), [("lipschitz_bound", 1.9), ("forward_error", 900.0)])
def test_a_generous_claim_is_kept_as_it_is(path, member, factor):
    claimed = getattr(load_checkpoint(path), member) * factor
    edit(path, set_member(member, claimed))
    assert getattr(load_checkpoint(path), member) == claimed


@pytest.mark.parametrize(
    ("member", "factor"), [("lipschitz_bound", 2.1), ("forward_error", 1100.0)]
)
def test_a_claim_far_above_the_proof_is_refused(path, member, factor):
    edit(path, set_member(member, getattr(load_checkpoint(path), member) * factor))
    with pytest.raises(
        CheckpointError, match=rf"{member} .* is claimed, but .* is proved; at most"
    ):
        load_checkpoint(path)


def shrink_bound(metadata, _tensors):
    metadata["lipschitz_bound"] = 1.0 - 1e-9


def shrink_error(metadata, _tensors):
    metadata["forward_error"] *= 0.99


def halve_scaling(metadata, tensors):
    values = np.frombuffer(tensors["linear.1.scaling"][2]) / 2
    tensors["linear.1.scaling"][2] = values.tobytes()
    resign(metadata, tensors)


def zero_scaling(metadata, tensors):
    tensors["convs.0.scaling"][2] = bytes(16)
    resign(metadata, tensors)


def negative_scaling(metadata, tensors):
    values = -np.frombuffer(tensors["convs.0.scaling"][2])
    tensors["convs.0.scaling"][2] = values.tobytes()
    resign(metadata, tensors)


def overflowing_q(metadata, tensors):
    tensors["linear.1.q"][2] = np.full(4, 800, np.float32).tobytes()
    resign(metadata, tensors)


def flip_weight(_metadata, tensors):
    values = bytearray(tensors["linear.1.weight"][2])
    values[0] ^= 1
    tensors["linear.1.weight"][2] = bytes(values)


def poison_weight(metadata, tensors):
    values = np.frombuffer(tensors["linear.1.weight"][2], np.float32).copy()
    values[3] = np.nan
    tensors["linear.1.weight"][2] = values.tobytes()
    resign(metadata, tensors)


def drop_tensor(_metadata, tensors):
    del tensors["convs.0.q"]


def add_tensor(_metadata, tensors):
    tensors["convs.1.q"] = tensors["convs.0.q"]


def reshape_tensor(_metadata, tensors):
    tensors["convs.0.q"][1] = [2, 1]


def retype_tensor(_metadata, tensors):
    tensors["convs.0.q"][0] = "I32"


def shorten_type(_metadata, tensors):
    values = tensors["convs.0.q"]
    tensors["convs.0.q"] = ["BF16", values[1], values[2][:4]]


def tiny_scaling(metadata, tensors):
    values = np.frombuffer(tensors["linear.1.scaling"][2]) * 1e-8
    tensors["linear.1.scaling"][2] = values.tobytes()
    metadata["lipschitz_bound"] = 1e9
    metadata["forward_error"] = 1e-3
    resign(metadata, tensors)


def set_member(member, value):
    def change(metadata, tensors):  # noqa: ARG001
        metadata[member] = value

    return change


def set_config(member, value):
    def change(metadata, tensors):  # noqa: ARG001
        metadata["config"][member] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shrink_bound, r"lipschitz_bound 0\.999999999 is claimed, but 1\.0 is proved"),
        (shrink_error, "forward_error .* is claimed, but .* is proved"),
        (halve_scaling, "lipschitz_bound .* is claimed, but 3.* is proved"),
        (tiny_scaling, "at most 1e.06"),
        (zero_scaling, "T is 0 where the row"),
        (negative_scaling, "T is negative"),
        (overflowing_q, r"exp\(q\) must be positive and finite"),
        (flip_weight, "fingerprint"),
        (poison_weight, r"linear\.1\.weight holds NaN"),
        (drop_tensor, r"missing tensors \['convs\.0\.q'\]"),
        (add_tensor, r"surplus tensors \['convs\.1\.q'\]"),
        (reshape_tensor, r"convs\.0\.q must be"),
        (retype_tensor, r"convs\.0\.q must be"),
        (shorten_type, r"convs\.0\.q must be"),
        (set_member("lipschitz_bound", float("nan")), "lipschitz_bound nan is claimed"),
        (set_member("lipschitz_bound", float("inf")), "lipschitz_bound inf is claimed"),
        (set_member("lipschitz_bound", 1e120), "lipschitz_bound 1e.120 is claimed, .* at most 2 t"),
        (set_member("forward_error", 1e308), "forward_error 1e.308 is claimed, .* at most 1000"),
        (set_member("lipschitz_bound", True), "lipschitz_bound must be a valid number"),
        (set_member("lipschitz_bound", 10**400), "lipschitz_bound must be a valid number"),
        (set_member("forward_error", "0"), "forward_error must be a valid number"),
        (set_member("fingerprint", "0" * 64), "fingerprint"),
        (set_member("fingerprint", 7), "fingerprint must be a valid string, got 7"),
        (set_member("name", "a\nb"), "a printable text was wanted"),
        (set_member("name", "x" * 300), "name String should have at most 200 characters"),
        (
            set_member("schema", "lipsim-checkpoint-9"),
            "schema must be 'lipsim-checkpoint-1' or 'lipsim-checkpoint-2', got",
        ),
        (set_member("decode_policy", "lipsim-decode-0"), "made for decode policy"),
        (set_member("training", []), "training must be a valid dictionary"),
        (set_member("surplus", 1), "surplus Extra inputs are not permitted"),
        (set_config("architecture", "other"), "tag 'other' .* expected tags: 'published', 'wave'"),
        (set_config("depth", 10**9), "depth must be less than or equal to 100000"),
        (set_config("depth", 1.0), "depth must be a valid integer"),
        (set_config("depth", True), "depth must be a valid integer"),
        (set_config("input_size", 17), "multiple of 16"),
        (set_config("channels", 2), "channels must be greater than or equal to 3"),
        (set_config("embedding_dim", 4), "at most 3"),
        (set_config("surplus", 1), "surplus Unexpected keyword argument"),
        (set_member("config", []), "config must be a valid dictionary"),
        (lambda metadata, tensors: "{", "no JSON"),  # noqa: ARG005
        (lambda metadata, tensors: "[]", "valid dictionary"),  # noqa: ARG005
        (lambda metadata, tensors: "[" * 100_000, "no JSON"),  # noqa: ARG005
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused_by_name(path, change, words):
    edit(path, change)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        load_checkpoint(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04pickle", b"\xff" * 64, bytes(64), b"PK\x03\x04"]
)
def test_another_kind_of_file_is_refused(tmp_path, content):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        load_checkpoint(path)


def test_a_safetensors_file_of_somebody_else_is_refused(path):
    def strip(metadata, tensors):  # noqa: ARG001
        return "{}"

    edit(path, strip)
    with pytest.raises(CheckpointError, match="schema"):
        load_checkpoint(path)
    path.write_bytes(path.read_bytes().replace(b'"lipsim"', b'"lipsin"'))
    with pytest.raises(CheckpointError, match="not one of ours"):
        load_checkpoint(path)


def test_a_file_cut_anywhere_is_refused(path):
    data = path.read_bytes()
    for length in np.linspace(0, len(data) - 1, 40).astype(int):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_no_flipped_byte_changes_the_network_unnoticed(path):
    data = path.read_bytes()
    honest = load_checkpoint(path)
    for place in np.linspace(0, len(data) - 1, 400).astype(int):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            loaded = load_checkpoint(path)
        except CheckpointError:
            continue
        # Names, records and generosity of claims may change; what is computed may not.
        assert loaded.fingerprint == honest.fingerprint
        assert loaded.lipschitz_bound >= 1.0


def test_saving_refuses_what_loading_would(tmp_path):
    weights, target = make_weights(), tmp_path / "net.safetensors"
    missing = {name: value for name, value in weights.items() if name != "convs.0.bias"}
    poisoned = {**weights, "convs.0.bias": np.full((1, 2, 1, 1), np.inf, np.float32)}
    for bad, words in ((missing, "missing tensors"), (poisoned, "NaN or infinity")):
        with pytest.raises(CheckpointError, match=words):
            save_checkpoint(target, name="net", config=CONFIG, weights=bad)
    for record in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises(CheckpointError, match="no JSON"):
            save_checkpoint(target, name="net", config=CONFIG, weights=weights, training=record)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(tmp_path / "no" / "x", name="net", config=CONFIG, weights=weights)
    assert not list(tmp_path.iterdir())


def test_the_proof_is_made_anew_in_a_process_that_has_not_seen_the_file(path, monkeypatch):
    """The cache is by fingerprint: emptied, the claims are proved again, not believed."""
    monkeypatch.setattr(checkpoint_module, "_proofs", {})
    edit(path, shrink_bound)
    with pytest.raises(CheckpointError, match="is proved"):
        load_checkpoint(path)


def test_every_config_survives_its_own_json():
    for config in PRESETS.values():
        assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("maps", [], "at least 1 item"),
        ("maps", [[]], "at least 1 item"),
        ("maps", [[12], 5], "maps must be a valid tuple"),
        ("maps", 5, "maps must be a valid tuple"),
        ("maps", [["12"]], "maps must be a valid integer"),
        ("maps", [[3]], "must keep more"),
        ("input_size", 66, "does not fit"),
        ("shift", 96, "shift must be below"),
        ("shift", -1, "shift must be greater than or equal to 0"),
    ],
)
def test_a_wave_config_that_is_no_network_is_refused(member, value, words):
    members = {**config_to_json(PRESETS["wave-96"]), member: value}
    with pytest.raises(ValueError, match=words):
        config_from_json(members)


def test_the_shipped_checkpoint_is_the_default_network():
    shipped = load_checkpoint(DEFAULT_CHECKPOINT)
    assert shipped.config == PRESETS["wave-96"]
    assert shipped.name == "wave-96"
