"""Asks a database of known vulnerabilities about every pinned dependency, and says if it could not.

    make audit

Exit codes: 0 every pin was looked up and none is known to be vulnerable; 1 some are; 2 NO AUDIT:
the database was not reached, or it left a pin out. pip-audit alone ends with "No known
vulnerabilities found" and 0 when it has skipped every package that it was given.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
LOCKS = tuple(
    f"{name}.txt" for name in ("runtime", "runtime-gpu", "train", "dev", "audit", "docs", "fuzz")
)
CLEAN, VULNERABLE, NO_AUDIT = 0, 1, 2
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
_TORCH = re.compile(r"^TORCH := torch==(\S+)$", re.MULTILINE)

Pin = tuple[str, str]


@dataclass
class Outcome:
    """What became of one audit.

    Attributes:
        vulnerable: a line for each pin that has a known vulnerability.
        unanswered: a line for each pin that nobody answered about, or why none was.
    """

    vulnerable: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The exit code: what is not known counts for more than what is."""
        return NO_AUDIT if self.unanswered else VULNERABLE if self.vulnerable else CLEAN


def pins(repository: Path = REPOSITORY) -> set[Pin]:
    """Every (name, version) of the lock files, for any platform, and torch of the Makefile."""
    found = {
        (_canonical(name), version)
        for lock in LOCKS
        for name, version in _PIN.findall((repository / "requirements" / lock).read_text())
    }
    match = _TORCH.search((repository / "Makefile").read_text())
    if match is None:
        raise SystemExit("NO AUDIT: the Makefile pins no torch any more")
    return found | {("torch", match[1])}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def rounds(wanted: set[Pin]) -> Iterator[list[Pin]]:
    """The pins in lists that name no package twice, as a requirements file must not."""
    left = sorted(wanted)
    while left:
        chosen = {name: (name, version) for name, version in reversed(left)}
        yield sorted(chosen.values())
        left = [pin for pin in left if pin not in chosen.values()]


def judge(asked: list[Pin], output: str, errors: str) -> Outcome:
    """What one run of pip-audit says, held against what it was asked."""
    outcome = Outcome()
    try:
        rows = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = [line for line in errors.strip().splitlines() if line.strip()]
        outcome.unanswered.append(lines[-1] if lines else "pip-audit printed nothing")
        return outcome
    answered: set[Pin] = set()
    for row in rows:
        if "version" not in row or "vulns" not in row:
            continue
        answered.add((_canonical(row["name"]), row["version"]))
        outcome.vulnerable += [
            f"{row['name']} {row['version']}: {v['id']}, fixed in {', '.join(v['fix_versions'])}"
            for v in row["vulns"]
        ]
    outcome.unanswered += [f"{n} {v}" for n, v in asked if (n, v) not in answered]
    return outcome


def ask(asked: list[Pin]) -> Outcome:
    """One run of pip-audit."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}=={version}\n" for name, version in asked)
        file.flush()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip_audit", "--strict", "--progress-spinner", "off"),
                *("--requirement", file.name, "--no-deps", "--disable-pip", "--format", "json"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    return judge(asked, done.stdout, done.stderr)


def main() -> int:
    """Audit everything and say what came of it."""
    wanted = pins()
    whole = Outcome()
    for asked in rounds(wanted):
        part = ask(asked)
        whole.vulnerable += part.vulnerable
        whole.unanswered += part.unanswered
    for line in whole.vulnerable:
        print(f"vulnerable: {line}")
    for line in whole.unanswered:
        print(f"no answer: {line}")
    verdict = {
        CLEAN: f"audited: {len(wanted)} pins, none known to be vulnerable",
        VULNERABLE: f"audited: {len(wanted)} pins, {len(whole.vulnerable)} known vulnerabilities",
        NO_AUDIT: f"NO AUDIT: of {len(wanted)} pins not all were looked up: this shows nothing",
    }
    print(verdict[whole.code])
    return whole.code


if __name__ == "__main__":
    sys.exit(main())
