"""The language of filters: JSON in the shape of qdrant's, checked, as clauses of spans of terms.

No NumPy here: whoever only writes filters should not need it.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from index_builder.errors import FilterError
from index_builder.store.terms import (
    EMPTY,
    END,
    NO_TEXT,
    Edge,
    Kind,
    Span,
    Term,
    names_of,
    only,
    term_of,
    texts_from,
)

MAX_LEVELS: Final = 4
MAX_CLAUSES: Final = 64
MAX_BYTES: Final = 8192
MAX_IDS: Final = 1000


@dataclass(frozen=True)
class Holds:
    """Passes an item of which any term at this key is in one of the spans."""

    key: tuple[str, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class HoldsNone:
    """Passes an item that has the key, and none of its terms in the spans."""

    key: tuple[str, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class HasId:
    """Passes items of these ids."""

    ids: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Passes an item that passes all of `must`, one of `should` if there is any, no `must_not`."""

    must: tuple["Clause", ...]
    should: tuple["Clause", ...]
    must_not: tuple["Clause", ...]


@dataclass(frozen=True)
class Not:
    """Passes what the clause does not."""

    clause: Holds


Clause = Holds | HoldsNone | HasId | Group | Not


@dataclass(frozen=True)
class Filter:
    """A checked filter: what it says, and the same as JSON, which tells it from others."""

    text: str
    root: Group


ANYTHING: Final[Span] = (Edge(EMPTY), Edge(END))
# What is neither null, nor "", nor [].
_NOT_EMPTY: Final[tuple[Span, ...]] = (
    (Edge(EMPTY, is_after=True), Edge(NO_TEXT)),
    (Edge(NO_TEXT, is_after=True), Edge(END)),
)


def parse_filter(value: object) -> Filter:
    """Check a filter.

    Args:
        value: the JSON object, or its text.

    Raises:
        FilterError: it is none; which clause it is, what was wanted and what came.
    """
    if isinstance(value, str):
        value = _loaded(value)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError) as error:
        raise FilterError("", "wanted JSON of few levels, without NaN or infinity") from error
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise FilterError("", f"wanted at most {MAX_BYTES} bytes of JSON, got {size}")
    reader = _Reader()
    return Filter(text, reader.group(value, "", 1))


def read_filter(given: str) -> Filter:
    """Check a filter as a command line has it: its JSON, or @ and the name of a file of that.

    Raises:
        FilterError: it is none, or the file cannot be read.
    """
    if not given.startswith("@"):
        return parse_filter(given)
    path = Path(given[1:])
    try:
        return parse_filter(path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise FilterError("", f"{path} is no UTF-8") from error
    except OSError as error:
        raise FilterError("", f"{path}: {error.strerror}") from error


def _loaded(text: str) -> object:
    if len(text) > 2 * MAX_BYTES:
        raise FilterError("", f"wanted at most {MAX_BYTES} bytes of JSON, got {len(text)}")
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise FilterError("", "is not well-formed JSON") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise FilterError("", "a member is given more than once")
    return members


class _Reader:
    """Reads clauses, and counts them."""

    def __init__(self) -> None:
        self._clauses = 0

    def group(self, value: object, path: str, level: int) -> Group:
        members = _object(value, path, {"must", "should", "must_not"})
        if level > MAX_LEVELS:
            raise FilterError(path, f"wanted at most {MAX_LEVELS} levels of filters in filters")
        return Group(
            *(
                tuple(
                    self._clause(clause, f"{_inside(path, name)}[{place}]", level)
                    for place, clause in enumerate(_list(members.get(name, []), path, name))
                )
                for name in ("must", "should", "must_not")
            )
        )

    def _clause(self, value: object, path: str, level: int) -> Clause:
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise FilterError(path, f"wanted at most {MAX_CLAUSES} clauses")
        members = _object(value, path)
        if "key" in members:
            return _of_key(members, path)
        if "has_id" in members:
            _object(members, path, {"has_id"})
            return _has_id(members["has_id"], _inside(path, "has_id"))
        if "is_empty" in members:
            _object(members, path, {"is_empty"})
            path = _inside(path, "is_empty")
            return Not(Holds(_key(_object(members["is_empty"], path, {"key"}), path), _NOT_EMPTY))
        if members.keys() <= {"must", "should", "must_not"}:
            return self.group(members, path, level + 1)
        raise FilterError(
            path,
            "wanted a key with match or range, has_id, is_empty, or must, should and must_not; got "
            f"{_names(members)}",
        )


def _of_key(members: dict[str, Any], path: str) -> Clause:
    key = _key(members, path)
    if members.keys() == {"key", "match"}:
        return _match(key, members["match"], _inside(path, "match"))
    if members.keys() == {"key", "range"}:
        return Holds(key, (_range(members["range"], _inside(path, "range")),))
    raise FilterError(path, f"wanted a key and either match or range, got {_names(members)}")


def _match(key: tuple[str, ...], value: object, path: str) -> Clause:
    members = _object(value, path, {"value", "any", "except", "text_prefix"})
    if len(members) != 1:
        raise FilterError(path, "wanted one of value, any, except and text_prefix")
    ((name, wanted),) = members.items()
    within = _inside(path, name)
    if name == "value":
        return Holds(key, (only(_term(wanted, within)),))
    if name == "text_prefix":
        if not isinstance(wanted, str):
            raise FilterError(within, f"wanted text, got {_kind(wanted)}")
        return Holds(key, (texts_from(wanted),))
    listed = enumerate(_list(wanted, path, name))
    spans = tuple(only(_term(one, f"{within}[{place}]")) for place, one in listed)
    return Holds(key, spans) if name == "any" else HoldsNone(key, spans)


def _range(value: object, path: str) -> Span:
    members = _object(value, path, {"gt", "gte", "lt", "lte"})
    if not members or {"gt", "gte"} <= members.keys() or {"lt", "lte"} <= members.keys():
        raise FilterError(path, "wanted gt or gte, lt or lte, or one of each kind")
    low, high = Edge(Term(Kind.NUMBER, -math.inf)), Edge(Term(Kind.TEXT, b""))
    for name, bound in members.items():
        term = _term(bound, _inside(path, name))
        if term.kind != Kind.NUMBER:
            raise FilterError(_inside(path, name), f"wanted a number, got {_kind(bound)}")
        if name in ("gt", "gte"):
            low = Edge(term, is_after=name == "gt")
        else:
            high = Edge(term, is_after=name == "lte")
    return low, high


def _has_id(value: object, path: str) -> HasId:
    ids = _list(value, path)
    if len(ids) > MAX_IDS:
        raise FilterError(path, f"wanted at most {MAX_IDS} ids, got {len(ids)}")
    for place, one in enumerate(ids):
        if not isinstance(one, str):
            raise FilterError(f"{path}[{place}]", f"wanted text, got {_kind(one)}")
    return HasId(tuple(cast("list[str]", ids)))


def _key(members: dict[str, Any], path: str) -> tuple[str, ...]:
    key = members.get("key")
    if not isinstance(key, str) or not key:
        raise FilterError(_inside(path, "key"), f"wanted text that is not empty, got {_kind(key)}")
    return names_of(key)


def _term(value: object, path: str) -> Term:
    term = term_of(value)
    if term is None:
        raise FilterError(path, f"wanted text, a number or a boolean, got {_kind(value)}")
    return term


def _object(value: object, path: str, known: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FilterError(path, f"wanted an object, got {_kind(value)}")
    members = cast("dict[str, Any]", value)
    unknown = members.keys() - known if known is not None else set[str]()
    if known is not None and unknown:
        wanted = ", ".join(sorted(known))
        raise FilterError(path, f"wanted {wanted}; got {_names(sorted(unknown))}")
    return members


def _list(value: object, path: str, name: str = "") -> list[object]:
    if not isinstance(value, list):
        where = _inside(path, name) if name else path
        raise FilterError(where, f"wanted an array, got {_kind(value)}")
    return cast("list[object]", value)


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _names(names: "dict[str, Any] | list[str]") -> str:
    return ", ".join(repr(name)[:40] for name in list(names)[:5]) or "none"


_KINDS: tuple[tuple[Callable[[object], bool], str], ...] = (
    (lambda v: v is None, "null or nothing"),
    (lambda v: isinstance(v, bool), "a boolean"),
    (lambda v: isinstance(v, int | float), "a number"),
    (lambda v: isinstance(v, str), "text"),
    (lambda v: isinstance(v, list), "an array"),
)


def _kind(value: object) -> str:
    return next((name for is_one, name in _KINDS if is_one(value)), "an object")
