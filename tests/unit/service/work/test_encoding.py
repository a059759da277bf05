import json
import math
import time

import pytest

from model.errors import CertificateError
from service.observability.stopwatch import Stopwatch
from service.schemas.common import IndexInfo
from service.schemas.indexes import Item
from service.schemas.status import Live
from service.work.answers import rms_8bit, wire_radius
from service.work.encoding import encode, json_response


def item(**metadata: object) -> Item:
    return Item(
        id="a",
        duplicates=[],
        sha256="0",
        width=1,
        height=1,
        format="PNG",
        metadata=metadata,
        thumbnail="/",
        index=IndexInfo(name="x", version="v000001", size=1),
    )


def test_no_answer_holds_a_number_that_json_has_not():
    for poison in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="JSON compliant"):
            encode(item(value=poison))


def test_numbers_keep_every_digit_and_texts_may_name_what_json_has_not():
    values = [5e-324, 1e-7, 0.1 + 0.2, 1e22, 1.7976931348623157e308, -0.0, 2**70]
    metadata = json.loads(encode(item(values=values, title="NaN, Infinity", deep=[[[{}]]])))[
        "metadata"
    ]
    assert metadata == {"values": values, "title": "NaN, Infinity", "deep": [[[{}]]]}
    assert str(metadata["values"]) == str(values)


def test_metadata_may_be_nested_as_deep_as_the_builder_takes_it():
    deep: list[object] = []
    for _ in range(400):
        deep = [deep]
    assert json.loads(encode(item(deep=deep)))["metadata"]["deep"] == deep


def test_text_that_utf_8_has_not_is_escaped():
    content = encode(item(title="\ud800 and é"))
    assert json.loads(content)["metadata"]["title"] == "\ud800 and é"


def test_members_never_set_are_left_out():
    assert encode(Live(status="live")) == b'{"status":"live"}'
    assert json_response(b"{}").media_type == "application/json"


def test_infinity_is_null_and_poison_is_refused():
    assert wire_radius(math.inf) is None
    assert wire_radius(None) is None
    assert wire_radius(0.0) == 0.0
    for poison in (math.nan, -1e-300, -math.inf):
        with pytest.raises(CertificateError):
            wire_radius(poison)


@pytest.mark.parametrize("radius", [0.0, 5e-324, 1e-12, 0.37, 12.5, 1e300])
def test_the_rms_is_rounded_down(radius: float):
    values = 3 * 640 * 480
    rms = rms_8bit(radius, values)
    assert 0 <= rms <= 255 * radius / math.sqrt(values)
    assert rms == pytest.approx(255 * radius / math.sqrt(values), rel=1e-14, abs=1e-320)


def test_stages_add_up_to_the_total():
    watch = Stopwatch()
    for stage in ("queue", "decode", "embed", "decode"):
        time.sleep(0.002)
        watch.lap(stage)
    timings = watch.timings_ms()
    assert list(timings) == ["queue", "decode", "embed", "total"]
    assert timings["decode"] >= 4
    assert sum(timings.values()) - timings["total"] == pytest.approx(timings["total"], abs=1)
