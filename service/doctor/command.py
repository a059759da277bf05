"""What `python -m service doctor` prints, for people and for machines."""

import json
import sys
from collections.abc import Iterable

from service.doctor.findings import Line

_WIDTH = 12


def report(lines: Iterable[Line], *, as_json: bool) -> bool:
    """Print every line, the JSON in the end; gives whether none of them failed."""
    seen: list[Line] = []
    for line in lines:
        seen.append(line)
        if not as_json:
            sys.stdout.write(_words(line))
            sys.stdout.flush()
    counts = {kind: sum(line.outcome == kind for line in seen) for kind in ("warning", "FAILED")}
    is_fit = counts["FAILED"] == 0
    if as_json:
        found = {"ok": is_fit, "findings": [line.as_dict() for line in seen]}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        verdict = "fit to serve" if is_fit else "NOT fit to serve"
        sys.stdout.write(
            f"{verdict}: {len(seen)} lines, {counts['warning']} warnings, "
            f"{counts['FAILED']} failed\n"
        )
    return is_fit


def _words(line: Line) -> str:
    advice = f" -> {line.advice}" if line.advice else ""
    return f"{line.outcome:<8} {line.check:<{_WIDTH}} {line.detail}{advice}\n"
