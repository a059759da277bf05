"""What is wrong with fields that do not validate, in one line for people."""

import reprlib

from pydantic import ValidationError


def problems(exc: ValidationError) -> str:
    """Each field, what it takes, and what came, however long or deep that is."""
    said: list[str] = []
    for error in exc.errors(include_url=False):
        if error["type"] == "value_error":  # of ours, a sentence of its own
            said.append(error["msg"].removeprefix("Value error, "))
            continue
        where = next((part for part in reversed(error["loc"]) if isinstance(part, str)), "it")
        wanted = error["msg"].replace("Input should be", "must be")
        said.append(f"{where} {wanted}, got {reprlib.repr(error['input']):.60}")
    return "; ".join(said)
