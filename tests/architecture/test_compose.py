"""compose.yaml: valid by the specification's own schema, and as closed as the documents say."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from paths import ROOT

from service.settings import Settings, variable_name

PATHS = [ROOT / "compose.yaml", ROOT / "compose.gpu.yaml"]
STACK: dict[str, Any] = yaml.safe_load(PATHS[0].read_text())
SERVICES: dict[str, Any] = STACK["services"]
API: dict[str, Any] = SERVICES["api"]
# Set in the image; another value inside would only part the port from what is published.
FIXED = {"LIPSIM_HOST", "LIPSIM_PORT", "LIPSIM_DATA_DIR"}
# Ends the start without libraries that the image does not hold.
NOT_IN_THE_IMAGE = {"LIPSIM_TRACING"}

FIRST_COMMANDS = (
    "docker compose build api",
    "docker compose run --rm builder",
    "LIPSIM_ALLOW_NO_KEYS=true docker compose up --wait",
)

# Passed on for settings of keys, the shared cache and logs; unknown ones are not read.
AHEAD = {
    f"LIPSIM_{name}"
    for name in (
        *("KEYS_FILE", "ALLOW_NO_KEYS", "RATE_LIMIT", "TRUSTED_PROXIES", "LOG_FORMAT"),
        *("REDIS_URL", "REDIS_TIMEOUT_S", "CACHE_BYTES", "CACHE_SECRET", "CACHE_TTL_S"),
    )
}


def seconds(text: str) -> float:
    return float(default_of(text).removesuffix("s"))


def default_of(text: str) -> str:
    """The default of `${NAME:-default}`."""
    match = re.fullmatch(r"\$\{\w+:?-(.*)\}", text)
    assert match is not None, text
    return match[1]


def interpolate(text: str, given: dict[str, str]) -> str:
    """What Compose makes of `${NAME}`, `${NAME:-else}`, `${NAME:+then}`, inner ones first."""

    def value(match: re.Match[str]) -> str:
        name, sign, word = match.groups()
        found = given.get(name, "")
        if sign == ":+":
            return word if found else ""
        return found or word or ""

    while (done := re.sub(r"\$\{(\w+)(?:(:[-+])([^${}]*))?\}", value, text)) != text:
        text = done
    return text


@pytest.mark.parametrize("path", PATHS)
def test_the_file_is_valid_by_the_schema_of_the_compose_specification(path):
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    found = jsonschema_rs.validator_for(schema).iter_errors(yaml.safe_load(path.read_text()))
    assert [f"{error.instance_path}: {error.message[:200]}" for error in found] == []


def test_a_wrong_file_is_noticed_by_that_schema():
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    wrong = {"services": {"api": {"image": "x", "read-only": True}}}
    assert not jsonschema_rs.validator_for(schema).is_valid(wrong)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_sealed(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service["mem_limit"]
    assert service["user"].split(":")[0] not in {"0", "root"}
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)


@pytest.mark.parametrize("path", PATHS)
def test_images_of_others_are_pinned_by_digest_and_ours_are_built(path):
    for service in yaml.safe_load(path.read_text())["services"].values():
        image = service["image"]
        assert ":latest" not in image
        if not image.startswith("lipsim-retrieval:"):
            assert re.fullmatch(r"[a-z]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}", image)


def test_what_is_published_is_published_to_this_machine_alone():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 1
    host, _, inside = ports[0].rpartition(":")
    assert default_of(host) == "127.0.0.1:8000"
    assert inside == "8000"


def test_the_cache_is_bounded_forgetful_and_out_of_reach():
    redis = SERVICES["redis"]
    command = redis["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert default_of(options.pop("--maxmemory")) == "256mb"
    assert options == {"--maxmemory-policy": "volatile-lru", "--save": "", "--appendonly": "no"}
    assert "maxmemory-policy volatile-lru" in (ROOT / "docs/redis.md").read_text()
    assert redis["networks"] == ["cache"]
    assert STACK["networks"]["cache"] == {"internal": True}
    assert "ports" not in redis
    assert redis["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]


def test_the_first_commands_stand_in_an_order_that_works():
    """An image, an index, and a start that says why it has no keys; on GPUs likewise."""
    page = (ROOT / "docs/deployment-containers.md").read_text()
    for text in (PATHS[0].read_text().partition("\nname:")[0], page):
        found = [text.index(words) for words in FIRST_COMMANDS]
        assert found == sorted(found)
        starts = re.findall(r"(.*)docker compose(?: -f \S+)* up", text)
        assert all("LIPSIM_ALLOW_NO_KEYS=true" in s or "LIPSIM_KEYS_DIR=" in s for s in starts)
        assert "export COMPOSE_FILE=compose.yaml:compose.gpu.yaml" in text


def test_every_variable_of_the_file_itself_is_in_its_page():
    page = (ROOT / "docs/deployment-containers.md").read_text()
    settings = {variable_name(name) for name in Settings.model_fields}
    used = set(re.findall(r"\$\{(\w+)", PATHS[0].read_text() + PATHS[1].read_text()))
    assert "LIPSIM_REDIS_MEMORY" in used
    assert [name for name in sorted(used - settings) if name not in page] == []


def test_a_cache_that_is_down_stops_nothing():
    assert API["depends_on"]["redis"] == {"condition": "service_started", "required": False}


def test_requests_in_flight_get_their_time():
    allowed = seconds(API["environment"]["LIPSIM_SHUTDOWN_TIMEOUT_S"])
    assert allowed == Settings.model_fields["shutdown_timeout_s"].default
    assert seconds(API["stop_grace_period"]) > allowed


def test_every_setting_can_be_given_and_no_unknown_one_is():
    ours = {variable_name(name) for name in Settings.model_fields}
    given = {name for name in API["environment"] if name.startswith("LIPSIM_")}
    assert given | FIXED | NOT_IN_THE_IMAGE == ours | AHEAD
    assert not given & (FIXED | NOT_IN_THE_IMAGE)


@pytest.mark.parametrize("lock", ["runtime.txt", "runtime-gpu.txt"])
def test_the_page_says_how_to_get_the_extras_that_the_image_lacks(lock):
    """Once a lock file holds one, it may be passed on and the page is wrong."""
    page = (ROOT / "docs/deployment-containers.md").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = (ROOT / "requirements" / lock).read_text()
    for extra in ("heic", "otel"):
        for requirement in extras["optional-dependencies"][extra]:
            name = re.split(r"[>=]", requirement)[0]
            assert f"\n{name}==" not in locked
            assert f"'{requirement}'" in page


def test_the_builder_gets_what_it_reads_of_the_settings_as_the_service_does():
    console = (ROOT / "index_builder/cli/options.py").read_text()
    read = set(re.findall(r'envvar="(LIPSIM_\w+)"', console))
    given = SERVICES["builder"]["environment"]
    # It has no network there, so there is nobody whom it could tell how far it is.
    assert SERVICES["builder"]["network_mode"] == "none"
    assert set(given) == read - FIXED - {"LIPSIM_REDIS_URL"}
    assert read <= {variable_name(name) for name in Settings.model_fields}
    for name, value in given.items():
        assert API["environment"][name] == value


def test_the_folder_of_the_keys_is_mounted_and_never_the_file_which_a_rename_replaces():
    assert "secrets" not in STACK
    (keys,) = [volume for volume in API["volumes"] if isinstance(volume, dict)]
    assert (keys["type"], keys["read_only"]) == ("bind", True)
    assert keys["bind"] == {"create_host_path": False}
    given = {"LIPSIM_KEYS_DIR": "/etc/lipsim"}
    assert interpolate(keys["source"], given) == "/etc/lipsim"
    inside = Path(interpolate(API["environment"]["LIPSIM_KEYS_FILE"], given))
    assert str(inside.parent) == keys["target"]
    assert inside.name == "keys.json"


def test_keys_may_be_missing_but_not_by_the_wrong_variable():
    (keys,) = [volume for volume in API["volumes"] if isinstance(volume, dict)]
    assert interpolate(API["environment"]["LIPSIM_KEYS_FILE"], {}) == ""
    assert (ROOT / interpolate(keys["source"], {}) / "README").is_file()
    wrong = {"LIPSIM_KEYS_FILE": "/etc/lipsim/keys.json"}
    assert "set-LIPSIM_KEYS_DIR" in interpolate(keys["source"], wrong)
    assert not (ROOT / interpolate(keys["source"], wrong)).exists()
    both = wrong | {"LIPSIM_KEYS_DIR": "/etc/lipsim"}
    assert interpolate(keys["source"], both) == "/etc/lipsim"


def test_who_serves_reads_who_builds_writes_and_neither_writes_a_gallery():
    assert API["volumes"][0] == "data:/data:ro"
    assert "data:/data" in SERVICES["builder"]["volumes"]
    for name in ("builder", "training"):
        service = SERVICES[name]
        assert service["profiles"] == [name]
        assert service["network_mode"] == "none"
        binds = [volume for volume in service["volumes"] if isinstance(volume, dict)]
        assert [bind["read_only"] for bind in binds] == [True]


def test_the_overlay_asks_for_gpus_and_only_adds():
    overlay = yaml.safe_load(PATHS[1].read_text())["services"]
    assert set(overlay) == {"api", "builder", "training"}
    for service in overlay.values():
        assert set(service) <= {"image", "build", "deploy", "mem_limit"}
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
