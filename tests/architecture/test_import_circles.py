"""No circle of modules anywhere: who reads one file need not know a second one first."""

import sys
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

PACKAGES = ("model", "index_builder", "service")


def circle_in(*packages: str) -> list[str]:
    """A circle of imports, those inside functions counted too; empty if there is none."""
    graph = grimp.build_graph(*packages, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_imports_exists(package):
    """Between packages none can be: their layers have one direction."""
    assert circle_in(package) == []


@pytest.mark.parametrize("late", ["from roundabout import b", "def f():\n    import roundabout.b"])
def test_a_circle_is_found_though_it_is_closed_inside_a_function(tmp_path, monkeypatch, late):
    package = tmp_path / "roundabout"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text(f"{late}\n")
    (package / "b.py").write_text("from roundabout import c\n")
    (package / "c.py").write_text("import roundabout.a\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(circle_in("roundabout")) == {f"roundabout.{name}" for name in "abc"}
    sys.modules.pop("roundabout", None)
