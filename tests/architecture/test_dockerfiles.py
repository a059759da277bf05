"""What the Dockerfile promises: hadolint's rules, and ours; `make images` builds and runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

FILE = ROOT / "docker" / "Dockerfile"
# Continued lines joined, comments dropped.
TEXT = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", FILE.read_text(), flags=re.MULTILINE))
STEPS = [line.split(maxsplit=1) for line in TEXT.splitlines() if line.strip()]
STAGES = {
    part.split(maxsplit=3)[2].strip(): part
    for part in re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]
}
FINAL = ("service", "training")
HADOLINT = Path(sys.executable).with_name("hadolint")


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)


def run_steps() -> list[str]:
    return [words for keyword, words in STEPS if keyword == "RUN"]


def test_hadolint_finds_nothing():
    done = lint(FILE)
    assert done.returncode == 0, done.stdout


def test_hadolint_would_find_something(tmp_path):
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM debian:latest\nRUN cd /tmp && sudo apt-get install x\n")
    assert lint(wrong).returncode != 0


def test_the_one_base_of_others_is_pinned_by_digest():
    bases = {part.split()[0] for part in STAGES.values()} - set(STAGES)
    assert bases == {"${PYTHON_IMAGE}", "builder-${VARIANT}", "base-${VARIANT}"}
    assert re.search(r"^ARG PYTHON_IMAGE=[a-z]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}$", TEXT, re.M)
    assert {"builder-cpu", "builder-gpu"} <= set(STAGES)
    assert "ARG VARIANT=cpu" in TEXT


def test_the_default_target_is_the_service():
    assert list(STAGES)[-1] == "service"


@pytest.mark.parametrize("name", FINAL)
def test_the_final_user_is_a_fixed_number_and_not_root(name):
    before, user, after = STAGES[name].partition("\nUSER 10001:10001\n")
    assert user
    assert "USER" not in before
    assert not re.search(r"^(RUN|COPY|USER) ", after, re.M)


def test_ownership_is_given_by_copy_never_by_a_second_layer():
    assert not [step for step in run_steps() if re.search(r"\bch(own|mod)\b", step)]
    copied = [words for keyword, words in STEPS if keyword == "COPY" and "--from" in words]
    assert copied
    assert all("--chown=root:root" in words for words in copied)


def test_nothing_is_fetched_past_the_package_managers():
    assert "ADD" not in {keyword for keyword, _ in STEPS}
    for step in run_steps():
        assert not re.search(r"\b(curl|wget|git)\b", step), step
        if "pip" in step and " install " in step:
            assert "--require-hashes" in step or "--no-deps" in step, step
        if "apt-get install" in step:
            assert "--no-install-recommends" in step
            assert "rm -rf /var/lib/apt/lists/*" in step


def test_signals_reach_python():
    assert [words for keyword, words in STEPS if keyword == "ENTRYPOINT"] == ['["python", "-m"]']
    for name in FINAL:
        assert re.search(r'^CMD \["', STAGES[name], re.M)


def test_the_service_says_whether_traffic_may_come():
    check = STAGES["service"].split("HEALTHCHECK")[1]
    program = re.search(r'CMD \["python", "-c", "(.*)"\]', check)
    assert program is not None
    assert "/readyz" in program[1]
    compile(program[1], "healthcheck", "exec")
    patience = re.search(r"--timeout=(\d+)s", check)
    assert patience is not None
    assert int(patience[1]) > 4


@pytest.mark.parametrize("name", FINAL)
def test_an_image_says_what_it_is_and_its_version_is_ours(name):
    for key in ("title", "description", "version", "licenses"):
        assert f"org.opencontainers.image.{key}=" in STAGES[name]
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert f"\nARG VERSION={version[1]}\n" in STAGES[name]


def test_torch_is_the_one_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for name in ("TORCH", "TORCH_INDEX"):
        pin = re.search(rf"^{name} := (\S+)$", makefile, re.M)
        assert pin is not None
        assert f"\nARG {name}={pin[1]}\n" in STAGES["builder-cpu"]
    torch = re.search(r"^TORCH := (\S+)$", makefile, re.M)
    assert torch is not None
    gpu = (ROOT / "requirements/runtime-gpu.txt").read_text()
    assert re.search(f"^{re.escape(torch[1])} ", gpu, re.M)


def test_the_context_holds_what_is_copied_and_no_picture_index_or_key():
    rules = [r for r in (ROOT / ".dockerignore").read_text().splitlines() if r and r[0] != "#"]
    assert rules[0] == "*"
    assert rules[-2:] == ["**/__pycache__", "**/*.pyc"]
    sent = {rule.removeprefix("!") for rule in rules[1:-2]}
    copied = {
        source
        for keyword, words in STEPS
        if keyword == "COPY" and "--from" not in words
        for source in words.split()[:-1]
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in sent)
