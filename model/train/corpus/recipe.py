"""What a corpus is made of: a list of packages and folders, read from a TOML file and checked."""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from model.errors import CorpusError

RECIPES = Path(__file__).parents[1] / "recipes"
DEFAULT_RECIPE = "corpus-default"
SPLITS = ("train", "validation", "test")
KINDS = ("photo", "clipart", "texture", "auto")
ROLES = ("train", "evaluate-only")
_DEFAULT_SHARES = {
    "train": {"train": 0.9, "validation": 0.05, "test": 0.05},
    "evaluate-only": {"train": 0.0, "validation": 0.1, "test": 0.9},
}


T = TypeVar("T")


@dataclass(frozen=True)
class Package:
    """A Debian package, as it was when the recipe was written.

    Attributes:
        name: what `apt-get download` is asked for.
        version: the version recorded; empty means any.
        sha256: of the .deb of that version; empty means not recorded.
    """

    name: str
    version: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Source:
    """Pictures of one origin and one licence.

    Attributes:
        name: letters, digits and hyphens; part of every key.
        licence: as it is written beside each picture.
        role: `train` for what the weights may be learned from; `evaluate-only` never trains.
        kind: `photo`, `clipart`, `texture`; `auto` makes clip art of what is partly transparent.
        package: the package it lies in, or empty.
        folder: a folder on this machine, where there is no package.
        root: folder inside the package or folder that paths are relative to.
        include: patterns of paths to take, relative to the root; `**` crosses folders. Members of
            archives (.zip, .pk3, .rcc) are paths too: ARCHIVE/MEMBER.
        exclude: patterns of paths to leave out.
        licence_file: path inside the package or folder; empty writes the licence's name alone.
        min_side: pictures with a shorter side are refused.
        max_aspect: pictures longer than this many times their shorter side are refused.
        label: `folder` labels a picture with its folder under the root; `none` does not.
        group: what always shares a split: pictures of one `stem` (name without trailing numbers),
            of one `folder:N` (first N folders of the path), or one `file`.
        shares: of train, validation and test, summing to 1; by default .9 / .05 / .05 where the
            role is `train`, 0 / .1 / .9 where it is `evaluate-only`.
        crops: how many disjoint parts stand for a large picture; 0 keeps it whole.
        whole: keep the whole picture beside its crops.
        most: at most this many pictures in all splits, chosen by hash; 0 means all.
        cutouts: its transparent training pictures are pasted into composites.
        backgrounds: its training pictures are what composites are pasted on.
    """

    name: str
    licence: str
    role: str = "train"
    kind: str = "photo"
    package: str = ""
    folder: str = ""
    root: str = ""
    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    licence_file: str = ""
    min_side: int = 48
    max_aspect: float = 4.0
    label: str = "none"
    group: str = "stem"
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    crops: int = 0
    whole: bool = False
    most: int = 0
    cutouts: bool = False
    backgrounds: bool = False

    def share(self, split: str) -> float:
        """The part of the groups of names that a split gets, in [0, 1]."""
        return float((self.shares or _DEFAULT_SHARES[self.role]).get(split, 0.0))


@dataclass(frozen=True)
class Recipe:
    """A list of sources and what is drawn beside them.

    Attributes:
        name: the recipe's name, kept in corpus.json.
        seed: of crops, backgrounds and composites.
        composites: pictures made of cut-outs pasted on backgrounds, training only.
        backgrounds: procedural pictures of 1/f noise, training only.
        packages: what is fetched.
        sources: where pictures are taken from, in order of precedence among duplicates.
    """

    name: str
    seed: int = 0
    composites: int = 0
    backgrounds: int = 0
    packages: tuple[Package, ...] = ()
    sources: tuple[Source, ...] = ()


def load_recipe(name: str) -> Recipe:
    """The recipe of that name among ours, of that TOML file, or an empty one for `none`.

    Raises:
        CorpusError: there is none, or a field of it is wrong.
    """
    if name == "none":
        return Recipe(name)
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        known = ", ".join(sorted(one.stem for one in RECIPES.glob("corpus-*.toml")))
        raise CorpusError(f"no recipe {name}; there are {known}, none, or a .toml file") from exc
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise CorpusError(f"recipe {path} cannot be read: {exc}") from exc
    return parse_recipe(table, str(path))


def parse_recipe(table: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from the tables of a TOML file.

    Raises:
        CorpusError: a field is unknown, missing, of another type or contradicts another.
    """
    rest = {key: value for key, value in table.items() if key not in ("package", "source")}
    packages = [_filled(Package, one, f"{where}: package") for one in _tables(table, "package")]
    sources = [_filled(Source, one, f"{where}: source") for one in _tables(table, "source")]
    recipe = _filled(Recipe, rest, where)
    recipe = replace(recipe, packages=tuple(packages), sources=tuple(sources))
    check_recipe(recipe, where)
    return recipe


def folder_source(text: str, taken: set[str]) -> Source:
    """A source as the command line names it: `folder:PATH`.

    Its pictures train, its sub-folders are labels, its licence is the caller's affair.

    Raises:
        CorpusError: the text is something else, or there is no such folder.
    """
    kind, _, path = text.partition(":")
    if kind != "folder" or not path:
        raise CorpusError(f"a source is written folder:PATH, got {text}")
    if not Path(path).is_dir():
        raise CorpusError(f"source {text}: there is no folder {path}")
    stem = "".join(c if c.isalnum() and c.isascii() else "-" for c in Path(path).resolve().name)
    base = stem.strip("-").lower() or "folder"
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}-{count}"
    return Source(name, licence="not stated", folder=path, label="folder", min_side=32)


def check_recipe(recipe: Recipe, where: str) -> None:
    """Refuse what could not be built, or would not mean what it says.

    Raises:
        CorpusError: with the source and the field that are wrong.
    """
    if min(recipe.composites, recipe.backgrounds) < 0:
        raise CorpusError(f"{where}: composites and backgrounds must not be negative")
    names = [source.name for source in recipe.sources]
    if len(set(names)) < len(names):
        raise CorpusError(f"{where}: two sources have the same name")
    known = {package.name for package in recipe.packages}
    for source in recipe.sources:
        problem = _problem(source, known)
        if problem:
            raise CorpusError(f"{where}: source {source.name}: {problem}")


def _problem(source: Source, packages: set[str]) -> str | None:
    """What is wrong with a source, if anything."""
    shares = [source.share(split) for split in SPLITS] if source.role in ROLES else []
    first, _, depth = source.group.partition(":")
    checks = (
        (not source.name.replace("-", "").isalnum(), "a name is letters, digits and hyphens"),
        (source.role not in ROLES, f"role must be one of {', '.join(ROLES)}, got {source.role}"),
        (source.kind not in KINDS, f"kind must be one of {', '.join(KINDS)}, got {source.kind}"),
        (source.label not in ("folder", "none"), f"label must be folder or none: {source.label}"),
        (bool(source.package) == bool(source.folder), "it needs a package or a folder, not both"),
        (
            bool(source.package) and source.package not in packages,
            f"there is no package {source.package} in the list",
        ),
        (set(source.shares) - set(SPLITS) != set(), f"shares are of {', '.join(SPLITS)}"),
        (
            any(share < 0 for share in shares) or abs(sum(shares) - 1) > 1e-9,
            "shares must not be negative and must sum to 1",
        ),
        (
            source.role == "evaluate-only" and source.share("train") > 0,
            "evaluate-only pictures must not train: its share of train must be 0",
        ),
        (
            source.group not in ("stem", "file") and not (first == "folder" and depth.isdigit()),
            f"group must be stem, file or folder:N, got {source.group}",
        ),
        (min(source.crops, source.most) < 0, "crops and most must not be negative"),
        (source.min_side < 1 or source.max_aspect < 1, "min_side and max_aspect start at 1"),
    )
    return next((text for is_wrong, text in checks if is_wrong), None)


def _tables(table: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = table.get(name, [])
    if not isinstance(value, list):
        raise CorpusError(f"[[{name}]] must be a list of tables")
    return cast("list[Mapping[str, Any]]", value)


def _filled(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """A dataclass from a table whose values have the types of its fields."""
    known = {one.name: one for one in fields(cast("Any", kind))}
    place = f"{where} {table.get('name', '')}".rstrip()
    for name in table:
        if name not in known:
            raise CorpusError(f"{place}: unknown field {name}; known are {', '.join(known)}")
    for name, one in known.items():
        if name not in table and one.default is MISSING and one.default_factory is MISSING:
            raise CorpusError(f"{place}: field {name} is missing")
    return kind(
        **{name: _typed(known[name].type, value, name, place) for name, value in table.items()}
    )


def _typed(wanted: Any, value: Any, name: str, place: str) -> Any:
    """A TOML value as a field of a type takes it: lists as tuples, whole numbers as any."""
    if type(value) is wanted and wanted in (str, int, bool, float):
        return value
    if wanted is float and type(value) is int:
        return float(value)
    if wanted == tuple[str, ...] and isinstance(value, list):
        texts = cast("list[Any]", value)
        if all(isinstance(one, str) for one in texts):
            return tuple(texts)
    if wanted == Mapping[str, float] and isinstance(value, dict):
        numbers = cast("dict[str, Any]", value)
        if all(type(one) in (int, float) for one in numbers.values()):
            return {key: float(one) for key, one in numbers.items()}
    raise CorpusError(f"{place}: field {name} cannot be {value!r}")
