"""What metadata say, as terms: which key of an item holds which values, whatever their nesting.

A key is a path of member names joined by dots; an array on the way stands for its elements. The
terms of a key are ordered by kind, then by value, so that each clause of a filter is a few spans of
them. No NumPy here: whoever only writes filters should not need it.
"""

import math
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple, cast


class Kind(IntEnum):
    """What a term is, in the order in which terms are sorted."""

    EMPTY = 0
    """The key is there, and holds null or []."""
    FILLED = 1
    """It holds an object, or an array with something in it that no other term tells of."""
    BOOL = 2
    NUMBER = 3
    TEXT = 4


class Term(NamedTuple):
    """One value of a key; text as UTF-8, whose order by byte is that of code points."""

    kind: Kind
    value: int | float | bytes


EMPTY, FILLED, NO_TEXT = Term(Kind.EMPTY, 0), Term(Kind.FILLED, 0), Term(Kind.TEXT, b"")


class Edge(NamedTuple):
    """A place among sorted terms: just before one, or just after it."""

    term: Term
    is_after: bool = False


Span = tuple[Edge, Edge]
"""All terms between two edges."""


def term_of(value: object) -> Term | None:
    """The term of a JSON text, number or boolean; None of anything else."""
    if isinstance(value, bool):
        return Term(Kind.BOOL, int(value))
    if isinstance(value, int):
        return Term(Kind.NUMBER, value if -(2**63) <= value < 2**63 else _nearest(value))
    if isinstance(value, float):
        return Term(Kind.NUMBER, value)
    # JSON can write half a surrogate pair, and old metadata may hold one.
    return Term(Kind.TEXT, _bytes_of(value)) if isinstance(value, str) else None


def _nearest(value: int) -> float:
    """A whole number of more than 64 bits as a float64."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def only(term: Term) -> Span:
    return Edge(term), Edge(term, is_after=True)


def texts_from(prefix: str) -> Span:
    """All texts that begin so."""
    first = _bytes_of(prefix)
    # No byte of UTF-8 is 255, so the last may be counted up.
    last = Term(Kind.TEXT, first[:-1] + bytes([first[-1] + 1])) if first else END
    return Edge(Term(Kind.TEXT, first)), Edge(last)


END = Term(Kind.TEXT, b"\xff")
"""Above every text."""


def key_of(names: tuple[str, ...]) -> str:
    """Member names as one key: a dot or backslash in a name gets a backslash."""
    return ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in names)


def names_of(key: str) -> tuple[str, ...]:
    r"""A key's names: `\.` is a dot and `\\` a backslash in one, any other backslash itself."""
    names, name, rest = list[str](), "", iter(key)
    for sign in rest:
        if sign == ".":
            names.append(name)
            name = ""
        elif sign == "\\":
            following = next(rest, "")
            name += following if following in (".", "\\") and following else sign + following
        else:
            name += sign
    return (*names, name)


def terms_of(metadata: Mapping[str, Any]) -> set[tuple[tuple[str, ...], Term]]:
    """Every key of an item's metadata with every term that it holds."""
    found: set[tuple[tuple[str, ...], Term]] = set()
    # A stack of our own: metadata may be nested deeper than calls may be.
    waiting: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), metadata)]
    while waiting:
        names, node = waiting.pop()
        for name, value in node.items():
            key = (*names, name)
            found.update((key, term) for term in _terms(value))
            inside = cast("list[Any]", value if isinstance(value, list) else [value])
            waiting += [(key, one) for one in inside if isinstance(one, dict)]
    return found


def _terms(value: Any) -> Iterator[Term]:
    if value is None or value == []:
        yield EMPTY
        return
    elements = cast("list[Any]", value if isinstance(value, list) else [value])
    terms = {term for element in elements if (term := term_of(element)) is not None}
    if isinstance(value, list | dict) and terms <= {NO_TEXT}:
        yield FILLED
    yield from terms
