"""What a check finds and how it is printed: one line, how bad it is, and what to do about it."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

Outcome = Literal["ok", "warning", "FAILED"]

_WIDTH = 12


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


Check = Callable[[], Finding | Iterable[Finding]]
"""It gives one finding or, like the one of all indexes, several."""


def ok(detail: str) -> Finding:
    return Finding("ok", detail)


def warning(detail: str, advice: str) -> Finding:
    return Finding("warning", detail, advice)


def failed(detail: str, advice: str) -> Finding:
    return Finding("FAILED", detail, advice)


def examine(checks: Mapping[str, Check]) -> Iterator[tuple[str, Finding]]:
    """Run every check, in order; what one raises is a finding too, as the next must still run."""
    for name, check in checks.items():
        try:
            found = check()
            for finding in (found,) if isinstance(found, Finding) else found:
                yield name, finding
        except Exception as error:  # Whatever is wrong here is what the doctor is asked for.
            reason = " ".join(str(error).split())
            yield name, failed(f"{type(error).__name__}: {reason:.300}", "see the message")


def report(findings: Iterable[tuple[str, Finding]], *, as_json: bool) -> bool:
    """Print every line, the JSON in the end; gives whether none of them failed."""
    seen: list[tuple[str, Finding]] = []
    for check, finding in findings:
        seen.append((check, finding))
        if not as_json:
            advice = f" -> {finding.advice}" if finding.advice else ""
            line = f"{finding.outcome:<8} {check:<{_WIDTH}} {finding.detail}{advice}\n"
            sys.stdout.write(line)
            sys.stdout.flush()
    counts = Counter(finding.outcome for _, finding in seen)
    is_fit = counts["FAILED"] == 0
    if as_json:
        said = [{"check": check, **finding._asdict()} for check, finding in seen]
        sys.stdout.write(json.dumps({"ok": is_fit, "findings": said}, indent=2) + "\n")
    else:
        verdict = "fit to serve" if is_fit else "NOT fit to serve"
        sys.stdout.write(
            f"{verdict}: {len(seen)} lines, {counts['warning']} warnings, "
            f"{counts['FAILED']} failed\n"
        )
    return is_fit
