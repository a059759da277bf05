"""Random metadata and filters, and what filters mean, said a second time and slowly."""

import math

from hypothesis import strategies as st

# Few names and values, so that filters pass some items and not others.
NAMES = st.sampled_from(["a", "b", "c.d", "e\\"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from(
        [0.0, -0.0, 1.0, 1.5, -2.0, 2**53, 2**53 + 1, float(2**53), 10**400, -(10**30)]
    ),
    st.sampled_from(
        ["", "1", "true", "x", "xy", "xz", "Xy", "é", "e\u0301", "\U0001f600", "\uffff"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, min_size=1, max_size=2)
    ),
    max_leaves=4,
)
METADATA = st.dictionaries(NAMES, VALUES, max_size=3)
KEYS = st.lists(NAMES, min_size=1, max_size=2).map(
    lambda names: ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in names)
)
_WANTED = SCALARS.filter(lambda value: value is not None)
_NUMBERS = st.one_of(st.integers(-3, 4), st.sampled_from([1.5, -0.0, 2**53, 2**53 + 1, 1e300]))
_LISTS = st.lists(_WANTED, max_size=3)
_MATCHES = st.one_of(
    st.fixed_dictionaries({"value": _WANTED}),
    st.fixed_dictionaries({"any": _LISTS}),
    st.fixed_dictionaries({"except": _LISTS}),
    st.fixed_dictionaries({"text_prefix": st.sampled_from(["", "x", "xy", "é", "\uffff", "1"])}),
)
_RANGES = st.tuples(
    st.sampled_from(["", "gt", "gte"]), _NUMBERS, st.sampled_from(["", "lt", "lte"]), _NUMBERS
).map(lambda r: {name: bound for name, bound in (r[:2], r[2:]) if name})


def clauses(ids):
    return st.one_of(
        st.fixed_dictionaries({"key": KEYS, "match": _MATCHES}),
        st.fixed_dictionaries({"key": KEYS, "range": _RANGES.filter(bool)}),
        st.fixed_dictionaries({"is_empty": st.fixed_dictionaries({"key": KEYS})}),
        st.fixed_dictionaries({"has_id": st.lists(st.sampled_from([*ids, "none"]), max_size=4)}),
    )


def filters(ids):
    """Filters of up to three levels over items of these ids."""

    def groups(inner):
        some = st.lists(inner, max_size=2)
        return st.fixed_dictionaries({}, optional={"must": some, "should": some, "must_not": some})

    leaves = clauses(ids)
    return groups(leaves | groups(leaves | groups(leaves)))


def passes(wanted, item_id, metadata):
    """Whether an item passes, by the words of docs/filters.md and nothing else."""

    def clause(one):
        if "has_id" in one:
            return item_id in one["has_id"]
        if "is_empty" in one:
            return all(node in (None, "", []) for node in nodes(one["is_empty"]["key"], metadata))
        if "key" not in one:
            return passes(one, item_id, metadata)
        found = nodes(one["key"], metadata)
        elements = [e for node in found for e in (node if isinstance(node, list) else [node])]
        if "range" in one:
            return any(is_number(e) and within(e, one["range"]) for e in elements)
        ((kind, value),) = one["match"].items()
        if kind == "text_prefix":
            return any(isinstance(e, str) and e.startswith(value) for e in elements)
        is_listed = any(
            same(e, v) for e in elements for v in ([value] if kind == "value" else value)
        )
        return bool(found) and not is_listed if kind == "except" else is_listed

    should = wanted.get("should", [])
    return (
        all(clause(one) for one in wanted.get("must", []))
        and (not should or any(clause(one) for one in should))
        and not any(clause(one) for one in wanted.get("must_not", []))
    )


def nodes(key, metadata):
    """Everything at a key."""
    found = [metadata]
    for name in split(key):
        inside = [e for node in found for e in (node if isinstance(node, list) else [node])]
        found = [node[name] for node in inside if isinstance(node, dict) and name in node]
    return found


def split(key):
    marked = key.replace("\\\\", "\0").replace("\\.", "\1")
    return [name.replace("\0", "\\").replace("\1", ".") for name in marked.split(".")]


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value):
    """Beyond 64 bits a whole number is the nearest float64."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return (
            float(value)
            if abs(value) < 10**308
            else math.copysign(math.inf, 1 if value > 0 else -1)
        )
    return value


def same(one, other):
    if is_number(one) and is_number(other):
        return number(one) == number(other)
    return type(one) is type(other) and isinstance(one, str | bool) and one == other


def within(value, bounds):
    checks = {
        "gt": lambda v, b: v > b,
        "gte": lambda v, b: v >= b,
        "lt": lambda v, b: v < b,
        "lte": lambda v, b: v <= b,
    }
    return all(checks[name](number(value), number(bound)) for name, bound in bounds.items())
