"""What a check finds: one line, how bad it is, and what to do about it."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

Outcome = Literal["ok", "warning", "FAILED"]


class Finding(NamedTuple):
    """One line of a check's result.

    Attributes:
        outcome: ok; warning: it will serve, but not as it could; FAILED: it will not serve.
        detail: what was found.
        advice: what to do; empty where nothing is to be done.
    """

    outcome: Outcome
    detail: str
    advice: str = ""


class Check(NamedTuple):
    """A check by name; it gives one finding or, like the one of all indexes, several."""

    name: str
    run: Callable[[], Iterable[Finding]]


@dataclass(frozen=True)
class Line:
    """A finding and the check that made it."""

    check: str
    outcome: Outcome
    detail: str
    advice: str

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


def ok(detail: str) -> Finding:
    """As it should be."""
    return Finding("ok", detail)


def warning(detail: str, advice: str) -> Finding:
    """It will serve, but not as it could."""
    return Finding("warning", detail, advice)


def failed(detail: str, advice: str) -> Finding:
    """It will not serve, or not be right."""
    return Finding("FAILED", detail, advice)


def examine(check: Check) -> list[Line]:
    """Run one check; what it raises is a finding too, as the next check must still run."""
    findings: list[Finding] = []
    try:
        findings.extend(check.run())
    except Exception as error:  # Whatever is wrong here is what the doctor is asked for.
        reason = " ".join(str(error).split())
        findings.append(failed(f"{type(error).__name__}: {reason:.300}", "see the message"))
    return [Line(check.name, *finding) for finding in findings]
