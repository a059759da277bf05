"""Programs beside Python that some tests need."""

import os
import shutil
from pathlib import Path

import pytest


def require_program(name: str, place: Path | None = None, how: str | None = None) -> str:
    """Path of the program; without it the test is skipped, or fails where REQUIRE_<NAME>=1.

    <NAME> is the first word of its name: REQUIRE_REDIS for redis-server. A program of a place of
    its own is looked for there alone.
    """
    found = shutil.which(place or name)
    if found is None:
        why = f"{name} is not installed ({how or f'apt-get install {name}'})"
        variable = f"REQUIRE_{name.partition('-')[0].upper()}"
        if os.environ.get(variable) == "1":
            pytest.fail(f"{why}, and {variable}=1 is set")
        pytest.skip(why)
    return found
