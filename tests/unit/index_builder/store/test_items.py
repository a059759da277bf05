import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_builder.errors import IndexFormatError, ItemNotFoundError
from index_builder.store.items import Item, ItemsReader, ItemsWriter

ids = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=30)
metadata = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)


def item(item_id, row=0, content="aa", **changes):
    return Item(item_id, row, content, 10, 3, 4, "PNG", changes.get("metadata", {}))


def written(folder, items):
    paths = folder / "items.sqlite", folder / "thumbnails.sqlite"
    for path in paths:
        path.unlink(missing_ok=True)
    writer = ItemsWriter(*paths)
    for one in items:
        writer.add(one)
        writer.add_thumbnail(one.content_sha256, b"jpeg of " + one.content_sha256.encode())
    writer.finish()
    return ItemsReader(*paths)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(ids, st.tuples(st.integers(0, 3), metadata), min_size=1, max_size=12))
def test_items_come_back_whatever_their_names_and_metadata(tmp_path_factory, wanted):
    items = [item(i, row, metadata=m) for i, (row, m) in sorted(wanted.items())]
    reader = written(tmp_path_factory.mktemp("items"), items)
    assert list(reader.items()) == items
    for one in items:
        others = sorted(i.id for i in items if i.number == one.number and i.id != one.id)
        entry = reader.entry_by_id(one.id)
        assert (entry.item, entry.duplicates) == (one, others)
    for row in {i.number for i in items}:
        same = sorted(i.id for i in items if i.number == row)
        [entry] = reader.entries([row])
        assert [entry.id, *entry.duplicates] == same
    reader.close()


def test_entries_come_in_the_order_asked_however_many(tmp_path):
    reader = written(tmp_path, [item(f"{n:05d}", n) for n in range(1200)])
    rows = [1199, 0, 700, 0, *range(1200)]
    assert [entry.number for entry in reader.entries(rows)] == rows
    assert reader.first_ids() == [f"{n:05d}" for n in range(1200)]
    reader.close()


def test_what_is_not_there_is_named(tmp_path):
    reader = written(tmp_path, [item("a")])
    with pytest.raises(ItemNotFoundError, match="no entry 1 in the index"):
        reader.entries([0, 1])
    for unknown in ("b", "A", "a'; DROP TABLE items; --", "\ud800", ""):
        with pytest.raises(ItemNotFoundError, match="no item"):
            reader.entry_by_id(unknown)
        with pytest.raises(ItemNotFoundError, match="no item"):
            reader.by_id(unknown)
    assert reader.thumbnail_by_content(reader.by_id("a").content_sha256) == b"jpeg of aa"
    assert reader.thumbnail_by_content("bb") is None
    assert reader.by_content("bb") is None
    reader.close()


def test_pages_hold_every_item_once_by_code_point(tmp_path):
    ids = ["", " ", "A", "Z", "a", "a/b", "aa", "é", "\uffff", "\U0001f600"]
    reader = written(tmp_path, [item(one, number) for number, one in enumerate(sorted(ids))][::-1])
    for limit in (1, 3, 10, 11):
        pages = [reader.page("", limit)]
        while pages[-1]:
            assert len(pages[-1]) <= limit
            pages.append(reader.page(pages[-1][-1].id, limit))
        # An empty id is after nothing.
        assert [one.id for page in pages for one in page] == sorted(ids)[1:]
    # The id of a page's end may be gone by the time of the next.
    assert [one.id for one in reader.page("ab", 2)] == ["é", "\uffff"]
    reader.close()


def test_counts_that_do_not_fit_the_manifest_are_refused(tmp_path):
    reader = written(tmp_path, [item("a", 0), item("b", 2)])
    with pytest.raises(
        IndexFormatError, match="wanted 2 ids over entries 0 to 1, got 2 ids over 2 entries"
    ):
        reader.check(entries=2, ids=2)
    reader.close()


def test_the_deep_check_sees_rows_out_of_order_and_missing_thumbnails(tmp_path):
    reader = written(tmp_path, [item("a", 1), item("b", 0)])
    with pytest.raises(IndexFormatError, match="entry 1 is out of order: 'a'"):
        reader.check_deeply()
    reader.close()
    writer = ItemsWriter(tmp_path / "i.sqlite", tmp_path / "t.sqlite")
    writer.add(item("a"))
    writer.finish()
    reader = ItemsReader(tmp_path / "i.sqlite", tmp_path / "t.sqlite")
    reader.check(entries=1, ids=1)
    with pytest.raises(IndexFormatError, match="item 'a' has no thumbnail"):
        reader.check_deeply()
    reader.close()


def test_a_file_that_is_no_database_is_refused_by_name(tmp_path):
    for name in ("items.sqlite", "thumbnails.sqlite"):
        (tmp_path / name).write_bytes(b"not a database, but long enough to be looked at" * 100)
    reader = ItemsReader(tmp_path / "items.sqlite", tmp_path / "thumbnails.sqlite")
    with pytest.raises(IndexFormatError, match=r"items\.sqlite is damaged: file is not a database"):
        reader.check(entries=1, ids=1)
    reader.close()


@pytest.mark.parametrize("text", ["{},{}", "", "{", '{"a": 1}, 2', "[]]"])
def test_metadata_of_one_entry_that_is_damaged_is_no_other_entry_s(tmp_path, text):
    reader = written(tmp_path, [item("a", 0), item("b", 1)])
    reader.close()
    with sqlite3.connect(tmp_path / "items.sqlite") as file:
        file.execute("UPDATE items SET metadata = ? WHERE id = 'a'", (text,))
    file.close()
    reader = ItemsReader(tmp_path / "items.sqlite", tmp_path / "thumbnails.sqlite")
    with pytest.raises(IndexFormatError, match=r"items\.sqlite is damaged"):
        reader.entries([0, 1])
    reader.close()
