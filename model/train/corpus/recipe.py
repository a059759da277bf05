"""What a corpus is made of: packages and folders, read from a TOML file and checked."""

import reprlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import CorpusError

RECIPES = Path(__file__).parents[1] / "recipes"
SPLITS = ("train", "validation", "test")
_DEFAULT_SHARES = {
    "train": {"train": 0.9, "validation": 0.05, "test": 0.05},
    "evaluate-only": {"train": 0.0, "validation": 0.1, "test": 0.9},
}

Split = Literal["train", "validation", "test"]
Texts = Annotated[tuple[str, ...], Field(strict=False)]  # a list in TOML
Count = Annotated[int, Field(ge=0)]


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True
    )


class Package(_Table):
    """A Debian package, as it was when the recipe was written."""

    name: str  # what `apt-get download` is asked for
    version: str = ""  # empty: any
    sha256: str = ""  # of the .deb of that version; empty: not recorded


class Source(_Table):
    """Pictures of one origin and one licence.

    Patterns are of paths relative to the root; `**` crosses folders. Members of archives (.zip,
    .pk3, .rcc) are paths too: ARCHIVE/MEMBER.
    """

    name: Annotated[str, Field(pattern=r"\A[A-Za-z0-9-]+\z")]  # part of every key
    licence: str  # as it is written beside each picture
    role: Literal["train", "evaluate-only"] = "train"  # may weights be learnt from it, or never
    # `auto` makes clip art of what is partly transparent, photographs of the rest.
    kind: Literal["photo", "clipart", "texture", "auto"] = "photo"
    package: str = ""  # that it lies in, or
    folder: str = ""  # a folder on this machine
    root: str = ""  # folder inside it that paths are relative to
    include: Texts = ("**",)
    exclude: Texts = ()
    licence_file: str = ""  # inside the package or folder; empty writes the licence's name alone
    min_side: Annotated[int, Field(ge=1)] = 48  # pictures with a shorter side are refused
    max_aspect: Annotated[float, Field(ge=1)] = 4.0  # of the longer side to it; likewise
    label: Literal["folder", "none"] = "none"  # a picture's is its folder under the root, or none
    # What always shares a split: pictures of one `stem` (name without trailing numbers), of one
    # `folder:N` (first N folders of the path), or one `file`.
    group: Annotated[str, Field(pattern=r"\A(stem|file|folder:[0-9]+)\z")] = "stem"
    shares: dict[Split, Annotated[float, Field(ge=0)]] = {}  # sum to 1; else those of the role
    crops: Count = 0  # so many disjoint parts stand for a large picture; 0 keeps it whole
    whole: bool = False  # keep the whole picture beside its crops
    most: Count = 0  # pictures in all splits, chosen by hash; 0: all
    cutouts: bool = False  # its transparent training pictures are pasted into composites
    backgrounds: bool = False  # its training pictures are what composites are pasted on

    def share(self, split: str) -> float:
        """The part of the groups of names that a split gets, in [0, 1]."""
        shares: Mapping[str, float] = {**self.shares} or _DEFAULT_SHARES[self.role]
        return shares.get(split, 0.0)

    @model_validator(mode="after")
    def _is_consistent(self) -> "Source":
        if bool(self.package) == bool(self.folder):
            raise ValueError("it needs a package or a folder, not both")
        if abs(sum(map(self.share, SPLITS)) - 1) > 1e-9:
            raise ValueError("shares must sum to 1")
        if self.role == "evaluate-only" and self.share("train") > 0:
            raise ValueError("evaluate-only pictures must not train: shares.train must be 0")
        return self


class Recipe(_Table):
    """A list of sources and what is drawn beside them."""

    name: str
    seed: Count = 0  # of crops, backgrounds and composites
    composites: Count = 0  # pictures of cut-outs pasted on backgrounds, training only
    backgrounds: Count = 0  # procedural pictures of 1/f noise, training only
    packages: Annotated[tuple[Package, ...], Field(strict=False, alias="package")] = ()
    # In order of precedence among duplicates.
    sources: Annotated[tuple[Source, ...], Field(strict=False, alias="source")] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> "Recipe":
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("two sources have the same name")
        known = {"", *(package.name for package in self.packages)}
        for source in self.sources:
            if source.package not in known:
                raise ValueError(
                    f"source {source.name}: there is no package {source.package} in the list"
                )
        return self


def load_recipe(name: str) -> Recipe:
    """The recipe of that name among ours, of that TOML file, or an empty one for `none`."""
    if name == "none":
        return Recipe(name=name)
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        known = ", ".join(sorted(one.stem for one in RECIPES.glob("corpus-*.toml")))
        raise CorpusError(f"no recipe {name}; there are {known}, none, or a .toml file") from exc
    except (OSError, ValueError, RecursionError) as exc:  # a TOML error is a ValueError
        raise CorpusError(f"recipe {path} cannot be read: {exc}") from exc
    return parse_recipe(table, str(path))


def parse_recipe(table: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from the tables of a TOML file."""
    try:
        return Recipe.model_validate(table)
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        place: list[Any] = [where, *error["loc"]]
        if len(place) > 2 and isinstance(entry := table[place[1]][place[2]], dict):
            place[2] = cast("dict[str, Any]", entry).get("name", place[2])
        message = error["msg"].removeprefix("Value error, ")
        got = "" if isinstance(error["input"], dict) else f", got {reprlib.repr(error['input'])}"
        raise CorpusError(f"{' '.join(map(str, place))}: {message}{got}") from exc


def folder_source(text: str, taken: set[str]) -> Source:
    """A source as the command line names it: `folder:PATH`.

    Its pictures train, its sub-folders are labels, its licence is the caller's affair.
    """
    kind, _, path = text.partition(":")
    if kind != "folder" or not path:
        raise CorpusError(f"a source is written folder:PATH, got {text}")
    if not Path(path).is_dir():
        raise CorpusError(f"source {text}: there is no folder {path}")
    stem = "".join(c if c.isalnum() and c.isascii() else "-" for c in Path(path).resolve().name)
    base = stem.strip("-").lower() or "folder"
    names = (base, *(f"{base}-{count}" for count in range(2, len(taken) + 2)))
    name = next(one for one in names if one not in taken)
    return Source(name=name, licence="not stated", folder=path, label="folder", min_side=32)
