"""Where things are, for tests in any folder."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
DATA = TESTS / "data"
DOCS = ROOT / "docs"
GALLERY = ROOT / "examples" / "gallery"
