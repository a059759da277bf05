"""Where things are, for tests in any folder."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
DATA = TESTS / "data"
DOCS = ROOT / "docs"
GALLERY = ROOT / "examples" / "gallery"
# The first checkpoint of this project: five shifted copies, a head of norm 1 that is not rotated.
COMPACT_V0 = ROOT / "benchmarks" / "compact_v0.safetensors"
