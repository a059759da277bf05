"""A run as written down: what is refused, and what makes two runs two."""

import pytest

from model.errors import TrainingError
from model.train.commands import TASKS
from model.train.config import (
    RECIPES,
    TrainConfig,
    differences,
    load_recipe,
    parse_settings,
    recipe_names,
)


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
    assert (config.framing, config.distill.target_scale) == ("center-crop", 1.0)
    assert int(config.epochs * 1_281_167 / config.batch_size) == 100_091


def test_the_second_step_never_falls_back_to_another_loss():
    config = load_recipe("lipsim-small-nights")
    assert config.finetune.objective == TrainConfig().finetune.objective == "hinge"
    assert config.finetune.margin == 0.2
    assert (config.learning_rate, config.schedule) == (0.01, "triangular")
    assert int(config.epochs * 15_941 / config.batch_size) == 498
    assert 0 < config.checked_examples < 15_941 / 4  # or trying pictures outlasts learning


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"learning_rat": "1"}, "did you mean learning_rate"),
        ({"zzz": "1"}, "no setting of this task is called 'zzz'; known: accumulate, batch_size"),
        ({"steps": "many"}, "steps must be a valid integer, got 'many'"),
        ({"steps": 1.5}, "steps must be a valid integer"),
        ({"steps": True}, "steps must be a valid integer"),
        ({"steps": -1}, "steps must be greater than or equal to 0"),
        ({"epochs": "nan"}, "epochs must be a finite number"),
        ({"learning_rate": "inf"}, "learning_rate must be a finite number"),
        ({"learning_rate": 0}, "learning_rate must be greater than 0"),
        ({"batch_size": "0"}, "batch_size must be greater than 0"),
        ({"ema_decay": 1}, "ema_decay must be less than 1"),
        ({"batch_size": 10**9}, "batch_size must be less than or equal to 65536, got 1000000000"),
        ({"tensorboard": "maybe"}, "tensorboard must be a valid boolean"),
        ({"precision": "float16"}, "precision must be 'float32' or 'bfloat16'"),
        ({"preset": 3}, "preset must be a valid string"),
        ({"preset": "huge"}, "preset must be one of wave-96, wave-64, small"),
        ({"task": "nobody"}, "task must be one of distill, finetune, copies, got 'nobody'"),
        ({"task": {"a": 1}}, "task must be one of"),
        ({"margin": 0.5}, "no setting of this task is called 'margin'"),
        ({"copies": {"views": 3}}, "no setting of this task is called 'copies'"),
        ({"distill": 3}, "no setting of this task is called 'distill'"),
    ],
)
def test_what_is_no_run_is_refused_by_name(changes, complaint):
    with pytest.raises(TrainingError, match=complaint):
        TrainConfig().with_changes(changes)


@pytest.mark.parametrize(
    ("task", "changes", "complaint"),
    [
        (
            "copies",
            {"stacked_share": 1.1},
            "stacked_share must be less than or equal to 1, got",
        ),
        ("copies", {"stacked_share": -0.1}, "stacked_share must be greater than or equal to 0"),
        (
            "copies",
            {"within_scale": "1e-300"},
            "within_scale must be greater than or equal to 0",
        ),
        ("copies", {"total_scale": "1e300"}, "total_scale must be less than or equal to 1000000"),
        ("finetune", {"objective": "rmse"}, "objective must be 'hinge' or 'radius'"),
    ],
)
def test_what_a_task_cannot_do_is_refused_by_name(task, changes, complaint):
    with pytest.raises(TrainingError, match=complaint):
        TrainConfig().with_changes({**changes, "task": task})


def test_settings_of_the_task_need_no_table_and_those_of_others_are_not_kept():
    config = TrainConfig().with_changes({"task": "copies", "views": "3", "copies.head_basis": 2})
    assert (config.copies.views, config.copies.head_basis) == (3, 2)
    assert set(config.to_json()).isdisjoint({"distill", "finetune"})
    again = config.with_changes({"stacked_share": 1, "steps": 4})
    assert (again.copies.views, again.copies.stacked_share, again.steps) == (3, 1.0, 4)


@pytest.mark.parametrize(
    "text",
    [
        "steps" + ".a" * 5000 + " = 1",
        "task" + ".a" * 5000 + " = 1",
        "steps = " + "[" * 5000 + "]" * 5000,
        "steps = " + "9" * 5000,
        "distill = [[[]]]",
        "learning_rate = 2020-01-01",
        '"" = 1',
        "seed = nan",
    ],
)
def test_an_absurd_recipe_is_an_error_of_ours(tmp_path, text):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(TrainingError) as refused:
        load_recipe(str(tmp_path / "mine.toml"))
    assert len(str(refused.value)) < 1500


def test_texts_become_what_the_field_is():
    texts = parse_settings(["steps=7", " epochs = 2", "tensorboard=False", "teacher=timm:a=b"])
    config = TrainConfig().with_changes(texts)
    assert (config.steps, config.epochs, config.tensorboard) == (7, 2.0, False)
    assert config.distill.teacher == "timm:a=b"
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
    ours = TrainConfig(task="finetune")
    changes = {"seed": 1, "margin": 0.5, "workers": 4, "save_every": 7, "log_every": 3}
    found = differences(ours.to_json(), ours.with_changes(changes).to_json())
    assert found == ["margin: 0.2 there, 0.5 here", "seed: 0 there, 1 here"]
    assert differences({"data.x": 1}, {}) == ["data.x: 1 there, None here"]
