"""No file that somebody else may have made is read by a reader that can run what it says."""

import ast
import subprocess
import sys

import pytest
from paths import ROOT

SOURCES = [p for name in ("model", "index_builder", "service") for p in (ROOT / name).rglob("*.py")]
UNSAFE_MODULES = frozenset({"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"})
UNSAFE_CALLS = frozenset(
    {
        *("eval", "exec", "compile", "__import__"),
        *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
        # FAISS trusts the numbers in an index file; ours are built from vectors.
        *("faiss.read_index", "faiss.deserialize_index"),
    }
)
UNSAFE_FAMILIES = ("torch.jit.load", "torch.hub.", "torch.package")
# The workshop and the converter take files of others once, by hand, as weights_only.
MAY_LOAD_TORCH = ("model/convert.py", "model/teachers/", "model/train/")
# Names the error that torch raises, and calls nothing.
MAY_NAME_PICKLE = {"model/teachers/weights.py": {"UnpicklingError"}}


def violations(name: str, source: str) -> list[str]:
    """What in a file could run code out of data."""
    tree = ast.parse(source)
    return [
        f"{name}:{getattr(node, 'lineno', 0)}: {words}"
        for node in ast.walk(tree)
        if (words := _imports(name, node, tree) or _calls(name, node))
    ]


def _imports(name: str, node: ast.AST, tree: ast.AST) -> str | None:
    if isinstance(node, ast.Import):
        modules = {alias.name.split(".")[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        modules = {(node.module or "").split(".")[0]}
    else:
        return None
    found = modules & UNSAFE_MODULES
    if found == {"pickle"} and name in MAY_NAME_PICKLE and isinstance(node, ast.Import):
        used = {
            use.attr
            for use in ast.walk(tree)
            if isinstance(use, ast.Attribute) and ast.unparse(use.value) == "pickle"
        }
        return None if used <= MAY_NAME_PICKLE[name] else f"pickle is used for {used}"
    return f"imports {found}" if found else None


def _calls(name: str, node: ast.AST) -> str | None:
    if not isinstance(node, ast.Call):
        return None
    called = ast.unparse(node.func)
    options = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if called in {"torch.load", "torch.serialization.load"}:
        safe = options.get("weights_only") == "True" and name.startswith(MAY_LOAD_TORCH)
        return None if safe else "torch.load outside the workshop, or without weights_only=True"
    if called in UNSAFE_CALLS or called.startswith(UNSAFE_FAMILIES):
        return f"calls {called}"
    if options.get("allow_pickle", "False") != "False":
        return f"{called} with allow_pickle"
    return None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_that_is_read_can_run_code(path):
    assert violations(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("service/a.py", "import pickle"),
        ("service/a.py", "from joblib import load"),
        ("service/a.py", "def f():\n    import marshal"),
        ("model/teachers/weights.py", "import pickle\npickle.loads(b'')"),
        ("model/teachers/weights.py", "from pickle import loads"),
        ("model/convert.py", "torch.load(f)"),
        ("model/convert.py", "torch.load(f, weights_only=False)"),
        ("model/convert.py", "torch.load(f, weights_only=maybe)"),
        ("index_builder/a.py", "torch.load(f, weights_only=True)"),
        ("model/train/a.py", "np.load(f, allow_pickle=True)"),
        ("model/train/a.py", "np.lib.format.read_array(f, allow_pickle=x)"),
        ("model/a.py", "yaml.load(f, Loader=l)"),
        ("model/a.py", "eval('1')"),
        ("model/a.py", "exec('1')"),
        ("index_builder/a.py", "faiss.read_index(p)"),
    ],
)
def test_each_of_these_is_noticed(name, source):
    assert violations(name, source)


@pytest.mark.parametrize(
    "source", ["network.eval()", "torch.load", "np.load(f)", "re.compile('a')"]
)
def test_and_none_of_these(source):
    assert violations("model/a.py", source) == []


def test_the_service_brings_neither_the_workshop_nor_the_builder_nor_their_loaders():
    """In a fresh interpreter, as plugins and late imports escape a linter."""
    workshop = ("model.train", "model.convert", "model.teachers", "model.evaluate", "model.attack")
    absent = (*workshop, "index_builder.build", "index_builder.sources")
    program = (
        f"import sys, service.app; print([m for m in sys.modules if m.startswith({absent!r})])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == b"[]"
