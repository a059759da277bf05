"""Columns on disk: the same bytes from the same items, and damage is refused by name."""

import sqlite3

import numpy as np
import pytest

from index_builder.errors import IndexFormatError
from index_builder.store.columns import Columns, ColumnsWriter
from index_builder.store.terms import Kind, Term, key_of, names_of, only, texts_from

ITEMS = [
    (0, {"label": "cat", "year": 2001, "tags": ["a", "b", "a"], "of": {"x.y": True}}),
    (1, {"label": "dog", "year": 2.5}),
    (0, {"label": "cat", "tags": []}),
]


def write(path, items=ITEMS):
    writer = ColumnsWriter()
    for entry, metadata in items:
        writer.add(entry, metadata)
    writer.write(path).close()
    return path


def change(path, statement, *values):
    with sqlite3.connect(path) as database:
        database.execute(statement, values)
    database.close()


def opened(path, ids=3, entries=2):
    return Columns.open(path, ids=ids, entries=entries)


CAT = only(Term(Kind.TEXT, b"cat"))


def test_what_was_written_is_found(tmp_path):
    columns = opened(write(tmp_path / "c"))
    assert columns.holding(("label",), [CAT]).tolist() == [True, False, True]
    assert columns.holding(("label",), [texts_from("do")]).tolist() == [False, True, False]
    assert columns.holding(("tags",), [texts_from("")]).tolist() == [True, False, False]
    assert columns.holding(("of", "x.y"), [only(Term(Kind.BOOL, 1))]).tolist() == [
        True,
        False,
        False,
    ]
    assert not columns.holding(("nobody",), [CAT]).any()
    order, starts = columns.by_entry
    assert (order.tolist(), starts.tolist()) == ([0, 2, 1], [0, 2, 3])


def test_the_same_items_make_the_same_bytes(tmp_path):
    again = [(entry, dict(reversed(said.items()))) for entry, said in ITEMS]
    one, other = write(tmp_path / "c"), write(tmp_path / "d", again)
    assert one.read_bytes() == other.read_bytes()
    assert opened(one).same_as(opened(other))


def test_what_no_list_names_does_not_count_as_listed(tmp_path):
    values = [10**400, 2**53 + 1, 1, "t", "u", "v", "w" * 5000]
    items = [(0, {"big": value, "L" * 5000: 1, "x": 1}) for value in values]
    columns = opened(write(tmp_path / "c", items), ids=7, entries=1)
    assert columns.values(("big",), "", 9) == [(v, 1) for v in (1, 2**53 + 1, "t", "u", "v")]
    assert len(columns.values(("big",), "", 4)) == 4
    assert columns.keys("", 9) == ["big", "x"]


@pytest.mark.parametrize("change_of", [(1, "label", "cats"), (0, "more", 1), (2, "tags", ["b"])])
def test_other_metadata_make_other_columns(tmp_path, change_of):
    place, key, value = change_of
    other = [(entry, dict(said)) for entry, said in ITEMS]
    other[place][1][key] = value
    columns = opened(write(tmp_path / "c"))
    assert not columns.same_as(opened(write(tmp_path / "d", other)))


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("UPDATE items SET entries = ?", b"\0" * 8),
        ("UPDATE items SET entries = ?", b"\2\0\0\0" * 3),
        ("UPDATE items SET entries = ?", "text"),
        ("DELETE FROM items WHERE ? = 0", 0),
        ("UPDATE columns SET codes = ? WHERE key = 'label'", b"\0\0"),
        ("UPDATE columns SET codes = ?", 3),
        ("UPDATE columns SET terms = ?", 10**9),
        ("UPDATE columns SET terms = ?", -5),
        ("UPDATE columns SET terms = ?", "many"),
        ("UPDATE columns SET items = ?", b"\7\0\0\0\1\0\0\0\2\0\0\0"),
        ("DROP TABLE terms -- ?", None),
    ],
)
def test_columns_that_do_not_fit_are_refused_by_name(tmp_path, statement, value):
    path = write(tmp_path / "c")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE columns SET key = CAST(key AS BLOB)")
        database.execute(
            statement.replace("'label'", "CAST('label' AS BLOB)"),
            (value,) * ("?" in statement and "--" not in statement),
        )
    database.close()
    with pytest.raises(IndexFormatError):
        opened(path).holding(("label",), [CAT])


@pytest.mark.parametrize("code", ["text", -5, 10**9])
def test_a_place_that_no_term_can_have_finds_something_and_no_more(tmp_path, code):
    path = write(tmp_path / "c")
    change(path, "UPDATE terms SET code = ?", code)
    assert opened(path).holding(("label",), [CAT]).dtype == np.bool_


def test_many_ranges_find_what_few_do(tmp_path):
    columns = opened(write(tmp_path / "c"))
    many = [CAT, *(only(Term(Kind.TEXT, b"%d" % n)) for n in range(9))]
    assert columns.holding(("label",), many).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("a", ("a",)),
        ("a.b", ("a", "b")),
        (r"a\.b", ("a.b",)),
        (r"a\\.b", ("a\\", "b")),
        (r"a\b.c", (r"a\b", "c")),
        (".", ("", "")),
        ("a\\", ("a\\",)),
    ],
)
def test_a_key_is_split_at_its_dots(key, names):
    assert names_of(key) == names
    assert names_of(key_of(names)) == names
