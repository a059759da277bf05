"""The OpenAPI document against the running service: generated requests, every answer documented."""

import base64
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from service_helpers import draw_picture, encode, open_client

from service.settings import Settings

PNG = encode(draw_picture(1, 24, 16))

# Half of the generated images are images, so that generated options get past the decoder.
_IMAGES = st.one_of(st.just(PNG), st.binary(max_size=64))
schemathesis.openapi.format("byte", _IMAGES.map(lambda data: base64.b64encode(data).decode()))
for _kind in ("image/*", "image/png", "application/octet-stream"):
    schemathesis.openapi.media_type(_kind, _IMAGES)


@pytest.fixture(scope="module")
def served(data_dir: Path):
    with open_client(Settings(data_dir=data_dir)) as client:
        yield client


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


# The committed document, so that what is published is what is tested.
DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
OPERATIONS = [
    found.ok() for found in schemathesis.openapi.from_path(str(DOCUMENT)).get_all_operations()
]


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
RUNS = [(operation, POSITIVE) for operation in OPERATIONS] + [
    (operation, NEGATIVE) for operation in OPERATIONS if operation.method == "post"
]


# Schemathesis itself draws from `random` when it makes requests that are wrong.
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
@pytest.mark.parametrize(
    ("operation", "mode"), RUNS, ids=[f"{mode.value} {found.label}" for found, mode in RUNS]
)
def test_every_answer_is_one_that_the_document_names(served: httpx.Client, operation, mode):
    """Requests as the document allows them, and requests that break it in one place."""

    @settings(
        max_examples=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=str(served.base_url), checks=CHECKS)

    check()
