"""What the Dockerfiles promise, read from their text; `make prove-images` runs them."""

import re
from pathlib import Path

import pytest
from context import context_files, is_sent, read_ignore
from dockerfile import DockerfileError, Instruction, pairs, read_dockerfile, substituted
from paths import ROOT

PATHS = [ROOT / "docker" / name for name in ("cpu.Dockerfile", "gpu.Dockerfile")]
FINAL = ("service", "training")
DIGEST = re.compile(r"[a-z0-9./-]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}")
FILES = [pytest.param(read_dockerfile(path), id=path.name) for path in PATHS]


def words(path: Path, stage: str, keyword: str) -> list[str]:
    """The instructions of a kind in a stage and those below it."""
    stages = read_dockerfile(path).lineage(stage)
    return [i.text for s in stages for i in s.instructions if i.keyword == keyword]


@pytest.mark.parametrize("file", FILES)
def test_every_base_is_pinned_by_digest_and_none_is_latest(file):
    ours = {stage.name for stage in file.stages}
    bases = {stage.base for stage in file.stages} - ours
    assert len(bases) == 1
    for base in bases:
        assert DIGEST.fullmatch(base)
        assert ":latest" not in base


@pytest.mark.parametrize("file", FILES)
def test_the_default_target_is_the_service(file):
    assert file.stages[-1].name == "service"


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", FINAL)
def test_the_final_user_is_a_fixed_number_and_not_root(file, name):
    user = file.stage(name).last("USER")
    assert user is not None
    assert user.text == "10001:10001"
    after = file.stage(name).instructions
    after = after[after.index(user) + 1 :]
    assert not [i for i in after if i.keyword in {"RUN", "COPY", "USER"}]


@pytest.mark.parametrize("file", FILES)
def test_ownership_is_given_by_copy_never_by_a_second_layer(file):
    for stage in file.stages:
        for step in stage.instructions:
            if step.keyword == "RUN":
                assert not re.search(r"\bch(own|mod)\b", step.text), step
            if step.keyword == "COPY" and "from" in step.flags:
                assert "chown" in step.flags, step


@pytest.mark.parametrize("file", FILES)
def test_nothing_is_fetched_past_the_package_managers(file):
    """No ADD (the reader refuses it), no curl | sh, and pip only with hashes or for one name."""
    for stage in file.stages:
        for step in (i for i in stage.instructions if i.keyword == "RUN"):
            assert not re.search(r"\b(curl|wget|git)\b", step.text), step
            if "pip" in step.text and " install " in step.text:
                assert "--require-hashes" in step.text or "--no-deps" in step.text, step
            if "apt-get install" in step.text:
                assert "--no-install-recommends" in step.text
                assert "rm -rf /var/lib/apt/lists/*" in step.text


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", FINAL)
def test_signals_reach_python(file, name):
    steps = [i for stage in file.lineage(name) for i in stage.instructions]
    entry = [i for i in steps if i.keyword == "ENTRYPOINT"]
    assert [i.exec_form for i in entry] == [["python", "-m"]]
    command = file.stage(name).last("CMD")
    assert command is not None
    assert command.exec_form is not None


@pytest.mark.parametrize("file", FILES)
def test_the_service_says_whether_traffic_may_come(file):
    check = file.stage("service").last("HEALTHCHECK")
    assert check is not None
    assert "/readyz" in check.text
    assert float(check.flags["timeout"].removesuffix("s")) > 4
    program = Instruction("CMD", check.text.removeprefix("CMD "), {}, 1).exec_form
    assert program is not None
    assert program[:2] == ["python", "-c"]
    compile(program[2], "healthcheck", "exec")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", FINAL)
def test_an_image_says_what_it_is(file, name):
    arguments = {"VERSION": "1"}
    labels = [i for i in file.stage(name).instructions if i.keyword == "LABEL"]
    found = {key for step in labels for key in pairs(step, arguments)}
    prefix = "org.opencontainers.image."
    assert {prefix + key for key in ("title", "description", "version", "licenses")} <= found


@pytest.mark.parametrize("path", PATHS)
def test_the_version_on_the_label_is_ours(path):
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    for name in FINAL:
        assert f"VERSION={version[1]}" in words(path, name, "ARG")


def test_torch_is_the_one_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    pin = re.search(r"^TORCH := (\S+)$", makefile, re.MULTILINE)
    index = re.search(r"^TORCH_INDEX := (\S+)$", makefile, re.MULTILINE)
    assert pin is not None
    assert index is not None
    assert words(PATHS[0], "builder", "ARG") == [f"TORCH={pin[1]}", f"TORCH_INDEX={index[1]}"]
    assert re.search(
        f"^{re.escape(pin[1])} ", (ROOT / "requirements/runtime-gpu.txt").read_text(), re.MULTILINE
    )


def test_both_files_end_alike():
    """What is said twice is the same twice, but for NVIDIA's variables and the titles."""
    cpu, gpu = (read_dockerfile(path) for path in PATHS)
    for name in ("training-builder", "base", *FINAL):
        texts = [
            [re.sub(r"NVIDIA_\S+ | on GPUs", "", i.text) for i in file.stage(name).instructions]
            for file in (cpu, gpu)
        ]
        assert texts[0] == texts[1], name


def test_the_context_holds_what_is_copied_and_no_picture_index_or_key():
    names = list(context_files(ROOT, read_ignore(ROOT / ".dockerignore")))
    tops = {name.split("/")[0] for name in names}
    assert tops <= {
        *("LICENSE", "README.md", "pyproject.toml", "requirements"),
        *("model", "index_builder", "service"),
    }
    assert "model/checkpoints/wave-64.safetensors" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    copied = {
        source
        for path in PATHS
        for stage in read_dockerfile(path).stages
        for step in stage.instructions
        if step.keyword == "COPY" and "from" not in step.flags
        for source in step.text.split()[:-1]
    }
    for source in copied:
        assert any(name == source or name.startswith(f"{source}/") for name in names), source


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("service/app.py", True),
        ("service/__pycache__/app.pyc", False),
        ("model/a/b/__pycache__/x.py", False),
        ("keys.json", False),
        ("data/indexes/default/CURRENT", False),
        ("requirements/dev.txt", False),
        ("requirements/runtime.txt", True),
    ],
)
def test_the_last_pattern_that_fits_decides(name, sent):
    assert is_sent(name, read_ignore(ROOT / ".dockerignore")) == sent


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RUN true", "only ARG"),
        ("FROM a", "want FROM image AS name"),
        ("FROM a AS b\nADD x y", "ADD is not understood"),
        ("FROM a AS b\nRUN --mount=type=cache true", "--mount|one-line"),
        ("FROM a AS b\nRUN <<E\ntrue\nE", "one-line"),
        ("FROM a AS b\nRUN true \\\n", "continued by nothing"),
        ("FROM a AS b\nFROM a AS b", "a second stage"),
        ("FROM ${X} AS b", "nothing sets it"),
        ("", "there is no FROM"),
    ],
)
def test_what_the_reader_does_not_understand_it_refuses(tmp_path, text, words):
    path = tmp_path / "Dockerfile"
    path.write_text(text)
    with pytest.raises(DockerfileError, match=words):
        read_dockerfile(path)


def test_lines_are_joined_and_variables_replaced(tmp_path):
    path = tmp_path / "Dockerfile"
    path.write_text(
        "ARG B=x:1\nFROM ${B} AS one\n# word\nRUN a \\\n# between\n  && b\nFROM one AS two\n"
    )
    file = read_dockerfile(path)
    assert file.stage("one").base == "x:1"
    assert file.stage("one").instructions[0].text == "a && b"
    assert [stage.name for stage in file.needed_by("two")] == ["one", "two"]
    assert substituted("$A-${B}", {"A": "1", "B": "2"}) == "1-2"
