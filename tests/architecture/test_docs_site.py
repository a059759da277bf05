"""The site has every page once, and its pages name what is there; `make docs` checks the links."""

import json
import re
from typing import Any

import yaml
from paths import DOCS, ROOT

from service.command.main import PROGRAMS

OF_THE_ROOT = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
NAV = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]


def pages(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [
        page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages(part)
    ]


def test_every_page_stands_once_in_the_navigation():
    ours = {path.name for path in DOCS.glob("*.md")}
    ours |= {name.lower().replace("readme", "index") for name in OF_THE_ROOT}
    assert sorted(pages(NAV)) == sorted(ours)


def test_every_command_stands_on_its_page():
    text = (DOCS / "cli.md").read_text()
    for word in PROGRAMS:
        assert re.search(rf"^\|.*`{word}`.*\|", text, re.MULTILINE), word


def test_every_decision_has_a_number_of_its_own():
    numbers = [path.name[:4] for path in (DOCS / "adr").glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers))
    for path in (DOCS / "adr").glob("[0-9]*.md"):
        assert path.read_text().startswith(f"# {path.name[:4]}"), path.name


def test_the_comparison_says_of_us_what_is_there():
    """A row that says no, of something that the OpenAPI document or a room has, is out of date."""
    lines = (DOCS / "comparison.md").read_text().splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    ours = {row[0]: row[1] for row in cells}
    document = json.loads((DOCS / "openapi.json").read_text())
    form = document["components"]["schemas"]["SearchAnswer"]["properties"]
    there = {
        "many pictures in one request": "/v1/search/batch" in document["paths"],
        "an attack on your own results": "/v1/challenge" in document["paths"],
        "search in a part": "matching"
        in json.dumps(document["components"]["schemas"]["IndexInfo"]),
        "borders, mirror images": "trimmed" in form,
        "client": (ROOT / "service" / "client").is_dir(),
        "page in a browser": (ROOT / "service" / "http" / "static" / "page").is_dir(),
    }
    assert all(there.values()), there
    for row in there:
        assert not re.match(r"no\b|none\b|the OpenAPI page", ours[row]), row
