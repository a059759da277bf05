"""Columns and spans of codes say what the words of the language say, item by item."""

from contextlib import closing

import pytest
from filter_cases import METADATA, filters, passes
from hypothesis import given, settings
from hypothesis import strategies as st

from index_builder.filters.evaluate import FilterCache, passing_items
from index_builder.filters.language import parse_filter
from index_builder.store.columns import Columns
from index_builder.store.items import Item, ItemsReader, ItemsWriter

pytestmark = pytest.mark.without_shape_checks

IDS = [f"i{number}" for number in range(6)]


@st.composite
def galleries(draw):
    """Items, sorted by id, some of which share an entry."""
    metadata = draw(st.lists(METADATA, min_size=1, max_size=len(IDS)))
    entries = [0]
    for _ in metadata[1:]:
        entries.append(draw(st.integers(0, max(entries) + 1)))
    return [
        Item(*row, "00" * 32, 1, 1, 1, "PNG", said)
        for *row, said in zip(IDS, entries, metadata, strict=False)
    ]


def open_items(folder, items):
    paths = folder / "items.sqlite", folder / "thumbnails.sqlite"
    for path in paths:
        path.unlink(missing_ok=True)
    writer = ItemsWriter(*paths)
    for item in items:
        writer.add(item)
    writer.finish()
    return ItemsReader(*paths)


@settings(max_examples=200, deadline=None)
@given(gallery=galleries(), wanted=filters(IDS))
def test_an_item_passes_where_the_words_of_the_language_say_so(tmp_path_factory, gallery, wanted):
    folder = tmp_path_factory.getbasetemp()
    entries = max(item.number for item in gallery) + 1
    with (
        closing(open_items(folder, gallery)) as items,
        closing(Columns.of_items(items, ids=len(gallery), entries=entries)) as columns,
    ):
        parsed, cache = parse_filter(wanted), FilterCache(10_000)
        said = [passes(wanted, item.id, item.metadata) for item in gallery]
        assert passing_items(parsed, columns, items).tolist() == said
        for _ in range(2):
            assert cache.passing_items("seal", parsed, columns, items).tolist() == said
