"""A run as written down: what is refused, and what makes two runs two."""

import dataclasses

import pytest

from model.errors import TrainingError
from model.train.config import (
    RECIPES,
    TrainConfig,
    differences,
    load_recipe,
    parse_settings,
    recipe_names,
)
from model.train.task import TASKS


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_is_for_a_known_task(name):
    config = load_recipe(name)
    assert config.recipe == name
    assert config.task in TASKS
    assert config.steps or config.epochs or config.minutes


def test_lipsim_small_is_the_published_recipe():
    config = load_recipe("lipsim-small")
    assert (config.preset, config.epochs, config.batch_size) == ("small", 40, 512)
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("adam", 0.01, 0)
    assert (config.beta1, config.warmup_steps, config.schedule) == (0.5, 2000, "cosine")
    assert (config.grad_clip_norm, config.ema_decay, config.precision) == (0, 0, "float32")
    assert (config.framing, config.target_scale) == ("center-crop", 1.0)
    assert int(config.epochs * 1_281_167 / config.batch_size) == 100_091


def test_the_second_step_never_falls_back_to_another_loss():
    config = load_recipe("lipsim-small-nights")
    assert config.objective == TrainConfig().objective == "hinge"
    assert (config.margin, config.learning_rate, config.schedule) == (0.2, 0.01, "triangular")
    assert int(config.epochs * 15_941 / config.batch_size) == 498


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"learning_rat": "1"}, "did you mean learning_rate"),
        ({"zzz": "1"}, "no setting is called 'zzz'; known: recipe, task"),
        ({"steps": "many"}, "steps must be of type int, got 'many'"),
        ({"steps": 1.5}, "steps must be of type int"),
        ({"steps": True}, "steps must be of type int"),
        ({"steps": -1}, "steps must be finite and not negative"),
        ({"epochs": "nan"}, "epochs must be finite"),
        ({"learning_rate": "inf"}, "learning_rate must be finite"),
        ({"learning_rate": 0}, "learning_rate must be positive"),
        ({"batch_size": "0"}, "batch_size must be positive"),
        ({"ema_decay": 1}, "ema_decay must be below 1"),
        ({"stacked_share": 1.1}, "stacked_share must be at most 1, got 1.1"),
        ({"stacked_share": -0.1}, "stacked_share must be finite and not negative"),
        ({"stranger_share": "2"}, "stranger_share must be at most 1, got 2.0"),
        ({"stranger_share": 0}, "stranger_share must be positive"),
        ({"within_scale": "1e-300"}, "within_scale must be at least 1e-06, got 1e-300"),
        ({"total_scale": "1e300"}, r"total_scale must be at most 1e\+06, got 1e\+300"),
        ({"batch_size": 10**9}, "batch_size must be at most 65536, got 1000000000"),
        ({"tensorboard": "maybe"}, "tensorboard must be of type bool"),
        ({"objective": "rmse"}, "objective must be one of hinge, radius"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16"),
        ({"preset": 3}, "preset must be of type str"),
    ],
)
def test_what_is_no_run_is_refused_by_name(changes, complaint):
    with pytest.raises(TrainingError, match=complaint):
        TrainConfig().with_changes(changes)


def test_shares_may_be_as_large_as_everything():
    config = TrainConfig().with_changes({"stacked_share": 1, "stranger_share": 1})
    assert config.stacked_share == config.stranger_share == 1
    assert TrainConfig().with_changes({"stacked_share": 0}).stacked_share == 0


def test_texts_become_what_the_field_is():
    texts = parse_settings(["steps=7", " epochs = 2", "tensorboard=False", "teacher=timm:a=b"])
    config = TrainConfig().with_changes(texts)
    assert (config.steps, config.epochs, config.tensorboard) == (7, 2.0, False)
    assert config.teacher == "timm:a=b"
    with pytest.raises(TrainingError, match="a setting is name=value, got 'steps'"):
        parse_settings(["steps"])


def test_a_recipe_may_be_a_file_and_says_what_is_wrong_with_it(tmp_path):
    own = tmp_path / "mine.toml"
    own.write_text('preset = "tiny"\nsteps = 5\n')
    assert load_recipe(str(own)) == TrainConfig(recipe="mine", preset="tiny", steps=5)
    own.write_text("steps = \n")
    with pytest.raises(TrainingError, match=r"recipe mine\.toml cannot be read"):
        load_recipe(str(own))
    with pytest.raises(TrainingError, match=r"no recipe is called 'nope'; known: .*lipsim-small"):
        load_recipe("nope")
    assert "corpus-default" not in recipe_names()
    assert all((RECIPES / f"{name}.toml").exists() for name in recipe_names())


def test_two_runs_differ_by_all_that_changes_a_result_and_by_nothing_else():
    ours = TrainConfig()
    other = dataclasses.replace(ours, seed=1, margin=0.5, workers=4, save_every=7, log_every=3)
    found = differences(ours.to_json(), other.to_json())
    assert found == ["margin: 0.2 there, 0.5 here", "seed: 0 there, 1 here"]
    assert differences({"data.x": 1}, {}) == ["data.x: 1 there, None here"]
