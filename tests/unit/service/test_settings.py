import pytest
from pydantic import ValidationError

from service.settings import (
    Settings,
    shown,
    shown_default,
    unknown_variables,
    variable_name,
)


def test_every_setting_has_a_meaning_and_a_shown_default():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert isinstance(shown_default(name), str)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIPSIM_MAX_IMAGE_BYTES", "1234")
    monkeypatch.setenv("LIPSIM_ALLOWED_FORMATS", "png, jpg,tiff")
    monkeypatch.setenv("LIPSIM_CHECKPOINT", "")
    settings = Settings()
    assert settings.max_image_bytes == 1234
    assert settings.allowed_formats == {"PNG", "JPEG", "TIFF"}
    assert settings.checkpoint is None
    assert variable_name("max_image_bytes") == "LIPSIM_MAX_IMAGE_BYTES"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("allowed_formats", "PNG,EPS", "EPS"),
        ("truncated", "pad", "accept"),
        ("allowed_formats", "", "none"),
        ("max_image_pixels", "200000000", "89478485"),
        ("max_k", "5", "default_k 10 must not exceed max_k 5"),
        ("max_body_bytes_held", "1000000", "at least 4"),
        ("workers", "0", "greater than or equal to 1"),
        ("workers", "99999999999", "less than or equal to 1024"),
        ("threads_per_worker", "100000", "less than or equal to 1024"),
        ("arithmetic", "float16", "float64"),
        ("request_timeout_s", "-1", "greater than 0"),
        ("max_image_bytes", "many", "valid integer"),
    ],
)
def test_a_wrong_setting_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
):
    monkeypatch.setenv(variable_name(name), value)
    with pytest.raises(ValidationError, match=said):
        Settings()


def test_a_variable_that_is_no_setting_is_known_for_one():
    known = [variable_name(name) for name in Settings.model_fields]
    assert unknown_variables([*known, known[0].lower(), "PATH", "MY_LIPSIM_PORT"]) == []
    assert unknown_variables([*known, "LIPSIM_KEY_FILE", "lipsim_ports"]) == [
        "LIPSIM_KEY_FILE",
        "lipsim_ports",
    ]


def test_the_default_of_workers_is_shown_in_words():
    assert shown_default("workers") == "one per usable core"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cache_secret", "hunter2-hunter2", "at least 32 characters"),
        ("redis_url", "http://:hunter2@host/", "must begin with one of redis://"),
        ("redis_url", "redis://:hunter2@host:port/", "cannot be read"),
        ("redis_url", "redis://:hunter2@host/?socket_timeout=soon", "cannot be read"),
    ],
)
def test_a_wrong_secret_is_refused_without_being_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
):
    monkeypatch.setenv(variable_name(name), value)
    with pytest.raises(ValidationError, match=said) as caught:
        Settings()
    assert "hunter2" not in "".join(problem["msg"] for problem in caught.value.errors())


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIPSIM_REDIS_URL", "redis://:hunter2@host/0")
    monkeypatch.setenv("LIPSIM_CACHE_SECRET", "hunter2" * 5)
    settings = Settings()
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in shown(settings.redis_url) + shown(settings.cache_secret)
    monkeypatch.setenv("LIPSIM_REDIS_URL", "")
    monkeypatch.setenv("LIPSIM_CACHE_SECRET", "")
    assert (Settings().redis_url, Settings().cache_secret) == (None, None)
