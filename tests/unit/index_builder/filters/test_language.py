"""What is no filter is refused by name, with the clause and what was wanted."""

import json

import pytest

from index_builder.errors import FilterError
from index_builder.filters.language import MAX_BYTES, parse_filter

CLAUSE = {"key": "a", "match": {"value": 1}}


def nested(levels):
    found = {"must": [CLAUSE]}
    for _ in range(levels - 1):
        found = {"must": [found]}
    return found


REFUSED = [
    (None, "filter", "an object"),
    ([], "filter", "an object"),
    ("{", "filter", "JSON"),
    ('{"must": [], "must": []}', "filter", "more than once"),
    ({"any_of": []}, "filter", "'any_of'"),
    ({"must": CLAUSE}, "filter.must", "an array"),
    ({"must": [CLAUSE, 3]}, "filter.must[1]", "an object"),
    ({"must": [{"key": "a"}]}, "filter.must[0]", "match or range"),
    ({"must": [{**CLAUSE, "range": {"gt": 1}}]}, "filter.must[0]", "either"),
    ({"must": [{"match": {"value": 1}}]}, "filter.must[0]", "wanted a key"),
    ({"must": [{"key": "", "match": {"value": 1}}]}, "filter.must[0].key", "not empty"),
    ({"must": [{"key": 1, "match": {"value": 1}}]}, "filter.must[0].key", "a number"),
    ({"must": [{"key": "a", "match": 1}]}, "filter.must[0].match", "an object"),
    ({"must": [{"key": "a", "match": {}}]}, "filter.must[0].match", "one of"),
    ({"must": [{"key": "a", "match": {"value": 1, "any": [1]}}]}, "filter.must[0].match", "one of"),
    ({"must": [{"key": "a", "match": {"value": None}}]}, "filter.must[0].match.value", "null"),
    ({"must": [{"key": "a", "match": {"value": [1]}}]}, "filter.must[0].match.value", "an array"),
    ({"must": [{"key": "a", "match": {"any": 1}}]}, "filter.must[0].match.any", "an array"),
    ({"must": [{"key": "a", "match": {"any": [1, {}]}}]}, "filter.must[0].match.any[1]", "object"),
    ({"should": [{"key": "a", "match": {"except": "x"}}]}, "filter.should[0].match.except", "text"),
    ({"must": [{"key": "a", "match": {"text_prefix": 1}}]}, "filter.must[0].match.text_prefix", ""),
    ({"must": [{"key": "a", "range": {}}]}, "filter.must[0].range", "gt or gte"),
    ({"must": [{"key": "a", "range": {"gt": 1, "gte": 1}}]}, "filter.must[0].range", "gt or gte"),
    ({"must": [{"key": "a", "range": {"gt": "1"}}]}, "filter.must[0].range.gt", "a number"),
    ({"must": [{"key": "a", "range": {"gt": True}}]}, "filter.must[0].range.gt", "a number"),
    ({"must": [{"key": "a", "range": {"from": 1}}]}, "filter.must[0].range", "'from'"),
    ({"must_not": [{"has_id": "x"}]}, "filter.must_not[0].has_id", "an array"),
    ({"must_not": [{"has_id": ["x", 1]}]}, "filter.must_not[0].has_id[1]", "text"),
    ({"must": [{"has_id": ["x"], "is_empty": {"key": "a"}}]}, "filter.must[0]", "'is_empty'"),
    ({"must": [{"has_id": ["a"] * 1001}]}, "filter.must[0].has_id", "1000"),
    ({"must": [{"is_empty": "a"}]}, "filter.must[0].is_empty", "an object"),
    ({"must": [{"is_empty": {}}]}, "filter.must[0].is_empty.key", "text"),
    ({"must": [{}, {"should": [{"must": [{"x": 1}]}]}]}, "filter.must[1].should[0].must[0]", "'x'"),
    ({"must": [CLAUSE] * 65}, "filter.must[64]", "64 clauses"),
    ({"must": [CLAUSE] * 40, "should": [CLAUSE] * 25}, "filter.should[24]", "64 clauses"),
    (nested(5), "filter.must[0].must[0].must[0].must[0]", "4 levels"),
    ({"must": [{"key": "a" * MAX_BYTES, "match": {"value": 1}}]}, "filter", "8192 bytes"),
    ('{"must": [{"key": "a", "match": {"value": NaN}}]}', "filter", "NaN"),
    ('{"must": [{"key": "a", "range": {"gt": 1e999}}]}', "filter", "infinity"),
    ("[" * 9000, "filter", "JSON"),
    ("[" * 90000, "filter", "8192 bytes"),
]


@pytest.mark.parametrize(("value", "field", "words"), REFUSED)
def test_what_is_no_filter_is_refused_with_its_clause(value, field, words):
    with pytest.raises(FilterError) as refusal:
        parse_filter(value)
    assert refusal.value.field == field
    assert words in refusal.value.message
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"must": [], "should": [], "must_not": []},
        nested(4),
        {"must": [CLAUSE] * 64},
        {"must": [{"has_id": ["a"] * 1000}]},
        {"must": [{"key": "a", "match": {"any": []}}]},
        {"must": [{"key": "a", "match": {"value": "\ud800"}}]},
        {"must": [{"key": "a" * (MAX_BYTES - 45), "match": {"value": 1}}]},
    ],
)
def test_what_is_a_filter_is_the_same_as_text(value):
    assert parse_filter(json.dumps(value)) == parse_filter(value)
