"""The OpenAPI document against the running service: generated requests, every answer documented.

`make fuzz-api` asks thousands of times (`--cases`); the suite asks some hundred times.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from paths import DOCS
from schema_cases import EXAMPLE, own_cases, register_images, tamed_cases
from schema_ledger import LEDGER, Ledger
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from service_helpers import Server, draw_picture, start_process

from service.keys.keys import Key, Scope, add_entry, digest_of

register_images()

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


# The committed document, so that what is published is what is tested.
DOCUMENT = DOCS / "openapi.json"
OPERATIONS = [
    found.ok() for found in schemathesis.openapi.from_path(str(DOCUMENT)).get_all_operations()
]
POSTS = [operation for operation in OPERATIONS if operation.method == "post"]
GETS = [operation for operation in OPERATIONS if operation.method != "post"]
# Bad requests of these are made of their query.
ASKING = [
    operation for operation in GETS if operation.label.endswith(("/item", "/items", "/thumbnail"))
]

READER, ADMIN, STRANGER = (f"lipsim_{letter * 43}" for letter in "RAS")


@dataclass
class Asked:
    """A server, and the one connection that it is asked over."""

    server: Server
    session: requests.Session
    ledger: Ledger

    def check(self, case: schemathesis.Case, key: str) -> int:
        """Send a request; its answer is documented, and no fault of ours."""
        headers = {"Authorization": f"Bearer {key}"}
        response = case.call(base_url=self.server.url, session=self.session, headers=headers)
        self.ledger.answers[case.operation.label, response.status_code] += 1
        assert response.status_code < 500 or response.status_code in (503, 504), response.text
        case.validate_response(response, checks=CHECKS, headers=headers)
        return response.status_code


@pytest.fixture(scope="module")
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """Shown by the hook in `conftest.py`."""
    return request.config.stash.setdefault(LEDGER, Ledger())


@pytest.fixture(scope="module")
def served(
    data_dir: Path, ledger: Ledger, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Asked]:
    """A server in a process of its own, whose log is looked through when it has stopped.

    It has a key for reading and one for everything.
    """
    folder = tmp_path_factory.mktemp("served")
    for key, scope in ((READER, Scope.READ), (ADMIN, Scope.ADMIN)):
        entry = Key(name=scope.value, scope=scope, sha256=digest_of(key.encode()))
        add_entry(folder / "keys.json", entry)
    draw_picture(0).save(folder / EXAMPLE)
    keys = {"keys_file": folder / "keys.json", "challenge": True, "examples_dir": folder}
    server = start_process(data_dir, folder / "server.log", keys)
    try:
        server.wait_ready()
        with requests.Session() as session:
            yield Asked(server, session, ledger)
    finally:
        server.stop()
    log = server.log.read_text()
    assert "internal_error" not in log
    assert "Traceback" not in log


def as_documented(operation: Any) -> st.SearchStrategy[schemathesis.Case]:
    return tamed_cases(operation)


def broken(operation: Any) -> st.SearchStrategy[schemathesis.Case]:
    return operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)


def composed(operation: Any) -> st.SearchStrategy[schemathesis.Case]:
    names = ("image_a", "image_b") if operation.path.endswith("similarity") else ("image",)
    return own_cases(operation, () if operation.path.endswith("/list") else names)


RUNS = [
    *[(as_documented, operation) for operation in OPERATIONS],
    *[(broken, operation) for operation in (*POSTS, *ASKING)],
    *[(composed, operation) for operation in POSTS],
]
# One value has few variants: routes without options are not asked often.
SHARES = 3 * len(POSTS) + 2 * len(ASKING)


def generated(cases: int):
    """Requests, drawn without a memory of other runs; a failure is told as it came."""
    return settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


# Schemathesis itself draws from `random` when it makes requests that are wrong.
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("kind", "operation"), RUNS, ids=[f"{kind.__name__} {found.label}" for kind, found in RUNS]
)
def test_every_answer_is_one_that_the_document_names(
    served: Asked, ledger: Ledger, cases: int, kind: Any, operation: Any
):
    @generated(math.ceil(cases / SHARES))
    @given(case=kind(operation))
    def check(case: schemathesis.Case) -> None:
        served.check(case, ADMIN)

    check()
    ledger.runs.add(f"{kind.__name__} {operation.label}")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("operation", OPERATIONS, ids=[found.label for found in OPERATIONS])
def test_every_answer_to_a_key_is_documented_too(
    served: Asked, ledger: Ledger, cases: int, operation: Any
):
    is_open = operation.path in ("/livez", "/readyz")

    @generated(math.ceil(cases / SHARES / 20))
    @given(case=tamed_cases(operation))
    def check(case: schemathesis.Case) -> None:
        for key in (READER, ADMIN, STRANGER):
            status = served.check(case, key)
            assert (status == 401) == (key == STRANGER and not is_open)
            assert status != 403 or (
                key == READER and operation.path in ("/metrics", "/v1/challenge")
            )

    check()
    ledger.runs.add(f"keys {operation.label}")


def test_the_answers_were_many_and_of_every_kind(ledger: Ledger, cases: int):
    """Of requests that are all refused nothing is learned."""
    if len(ledger.runs) < len(RUNS) + len(OPERATIONS):
        pytest.skip("the rest of this file was not run before it")
    good = ledger.sum_by(0, only=200)
    assert ledger.cases >= cases
    assert good.total() >= cases / 5
    assert good.keys() == {operation.label for operation in OPERATIONS}
    assert {200, 400, 401, 403, 404, 415, 422} <= ledger.sum_by(1).keys()
