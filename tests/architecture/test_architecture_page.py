"""docs/architecture.md names files and rooms that are there, and every room that there is."""

import re
import tomllib

from paths import DOCS, ROOT

PAGE = (DOCS / "architecture.md").read_text()
PACKAGES = ("service", "index_builder", "model")


def test_every_file_that_the_page_names_is_there():
    named = set(re.findall(r"`((?:service|index_builder|model|tests|docs)/[\w/.]+)`", PAGE))
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_diagram_shows_the_layers_of_the_contracts():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = {c["containers"][0]: c["layers"] for c in contracts["contracts"] if "containers" in c}
    assert set(layers) == set(PACKAGES)
    for package in PACKAGES:
        block = PAGE.split(f"subgraph {package}\n")[1].split("  end")[0]
        shown = re.split(r"\W+", " ".join(re.findall(r'\["([^"]+)"\]', block)))
        assert shown == re.split(r"\W+", " ".join(layers[package])), package


def test_every_room_stands_in_the_table():
    for package in PACKAGES:
        for room in (ROOT / package).iterdir():
            if (room / "__init__.py").is_file():
                assert f"`{room.name}`" in PAGE, f"{package}/{room.name}"
