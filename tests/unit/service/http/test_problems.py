import json

import pytest

from model.errors import CertificateError, EmbeddingError, ImageDecodeError, RetrievalError
from service.errors import (
    INTERNAL,
    DecodeTimeoutError,
    FieldProblem,
    MissingFieldError,
    NotReadyError,
    OverloadedError,
    QuotaError,
)
from service.http.problems import problem_of, problem_of_item, problem_response


def test_a_problem_with_strange_text_is_still_json():
    response = problem_response(INTERNAL, 'quote " and \ud800 and é')
    assert json.loads(response.body)["detail"] == 'quote " and \ud800 and é'


def test_who_is_refused_is_told_when_to_come_back():
    assert problem_of(OverloadedError("full", reason="places")).headers["Retry-After"] == "1"
    assert (
        problem_of(OverloadedError("full", reason="places", retry_after_s=7)).headers["Retry-After"]
        == "7"
    )


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (OverloadedError("full", reason="queue_timeout", retry_after_s=7), 7),
        (QuotaError("fast", retry_after_s=60), 60),
        (NotReadyError("loading"), 1),
        (ImageDecodeError("cut"), None),
        (DecodeTimeoutError("slow"), None),
    ],
)
def test_of_one_image_of_a_batch_the_document_says_when_to_come_back(error, seconds):
    document = problem_of_item(error, {"type": "http"})
    header = problem_of(error).headers.get("Retry-After")
    assert document.get("retry_after_s") == seconds == (header and int(header))


def test_private_errors_show_their_title_only():
    for error in (RetrievalError("secret"), EmbeddingError("secret"), CertificateError("secret")):
        assert b"secret" not in bytes(problem_of(error).body)
    assert b"shown" in bytes(problem_of(ImageDecodeError("shown")).body)


def test_every_503_says_when_to_come_back():
    assert problem_of(NotReadyError("loading")).headers["Retry-After"] == "1"


def test_a_missing_field_is_named():
    body = json.loads(bytes(problem_of(MissingFieldError([FieldProblem("k", "is required")])).body))
    assert body["errors"] == [{"field": "k", "message": "is required"}]
