"""What is installed is pinned and hashed; an audit that could not look says so."""

import json
import re

import pytest
from audit import CLEAN, NO_AUDIT, VULNERABLE, Outcome, judge, pins, rounds
from paths import ROOT

LOCKS = sorted(path for path in (ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
ASKED = [("pillow", "13.0.0"), ("starlette", "1.10.0")]


def row(name: str, version: str, *vulnerabilities: str) -> dict[str, object]:
    return {
        "name": name,
        "version": version,
        "vulns": [{"id": v, "fix_versions": ["99"]} for v in vulnerabilities],
    }


def answer(*rows: dict[str, object]) -> str:
    return json.dumps({"dependencies": rows})


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_line_of_a_lock_file_is_one_version_with_hashes(path):
    blocks = re.split(r"^(?=[a-z])", path.read_text(), flags=re.MULTILINE)[1:]
    assert len(blocks) > (0 if path.name == "fuzz.txt" else 10)
    for block in blocks:
        assert PIN.match(block), block[:80]
        assert "--hash=sha256:" in block, block[:80]
    assert "/dev/" not in path.read_text()


def test_what_pyproject_asks_for_is_in_the_locks():
    """A dependency that was added without `make lock` is missing in every image."""
    text = (ROOT / "pyproject.toml").read_text()
    dependencies = text.split("dependencies = [")[1].split("\n]")[0]
    wanted = set(re.findall(r'^  "([A-Za-z0-9_-]+)', dependencies, re.MULTILINE))
    assert len(wanted) > 10
    for lock, beside in (("runtime.txt", {"torch"}), ("runtime-gpu.txt", set())):
        locked = {name for name, _ in PIN.findall((ROOT / "requirements" / lock).read_text())}
        assert wanted - beside <= locked, lock


def test_no_floor_for_security_stands_without_its_reason():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for name in ("pillow", "python-multipart", "starlette", "torch"):
        (at,) = [i for i, line in enumerate(lines) if line.startswith(f'  "{name}>=')]
        above = "".join(lines[at - 3 : at])
        assert "CVE-" in above, name


def test_every_pin_is_audited_torch_too():
    wanted = pins()
    assert "torch" in {name for name, _ in wanted}
    for path in LOCKS:
        assert set(PIN.findall(path.read_text())) <= wanted, path.name
    asked = list(rounds(wanted))
    assert sorted(pin for part in asked for pin in part) == sorted(wanted)
    for part in asked:
        assert len({name for name, _ in part}) == len(part)


def test_a_complete_answer_is_an_audit():
    assert judge(ASKED, answer(*(row(*pin) for pin in ASKED)), "").code == CLEAN
    found = judge(ASKED, answer(row(*ASKED[0], "CVE-1"), row(*ASKED[1])), "")
    assert found.code == VULNERABLE
    assert found.vulnerable == ["pillow 13.0.0: CVE-1, fixed in 99"]


@pytest.mark.parametrize(
    ("output", "errors"),
    [
        ("", "ERROR: could not connect"),
        ("", ""),
        ("[]", ""),
        (answer(), "No known vulnerabilities found"),
        (answer(row(*ASKED[0])), ""),
        (answer(row(*ASKED[0]), {"name": "starlette", "skip_reason": "not found"}), ""),
        (answer(row(*ASKED[0]), row("starlette", "0.1")), ""),
    ],
)
def test_a_pin_that_was_left_out_means_no_audit(output, errors):
    outcome = judge(ASKED, output, errors)
    assert outcome.unanswered
    assert outcome.code == NO_AUDIT


def test_what_was_left_out_outweighs_what_was_found():
    assert Outcome(vulnerable=["a"], unanswered=["b"]).code == NO_AUDIT
