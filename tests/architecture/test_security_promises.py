"""The table of SECURITY.md: each promise names a test, and each test that is named is there."""

import re

from paths import ROOT

from service.http.auth import ADMIN_PREFIXES

HEADING = "## Each promise, and the test that tries to break it"
_NAMED = re.compile(r"`([^`]*)`")


def rows() -> list[tuple[str, list[str]]]:
    """Each promise with what is named beside it."""
    section = (ROOT / "SECURITY.md").read_text().split(HEADING)[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    cells = [line.strip("| ").split(" | ") for line in lines]
    return [(promise, _NAMED.findall(tests)) for promise, tests in cells]


def test_each_promise_names_tests_that_are_there():
    assert len(rows()) > 20
    for promise, named in rows():
        assert named, promise
        path = ""
        for name in named:
            file, _, test = name.partition("::")
            path = file or path  # A test without a file is in that of the one before.
            source = (ROOT / "tests" / path).read_text()
            assert f"def {test}(" in source if test else "def test_" in source, name


def test_every_route_of_the_admins_is_spoken_of_before_the_table():
    text = (ROOT / "SECURITY.md").read_text().split(HEADING)[0]
    assert [route for route in ADMIN_PREFIXES if f"{route}`" not in text] == []
