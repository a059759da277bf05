"""Programs beside Python that some tests need."""

import os
import shutil

import pytest


def require_program(name: str) -> str:
    """Path of the program; without it the test is skipped, or fails where REQUIRE_<NAME>=1.

    <NAME> is the first word of its name: REQUIRE_REDIS for redis-server.
    """
    found = shutil.which(name)
    if found is None:
        why = f"{name} is not installed (apt-get install {name})"
        variable = f"REQUIRE_{name.partition('-')[0].upper()}"
        if os.environ.get(variable) == "1":
            pytest.fail(f"{why}, and {variable}=1 is set")
        pytest.skip(why)
    return found
