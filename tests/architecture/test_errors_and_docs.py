"""What is said in one place holds in all: error table, OpenAPI document, docs, settings."""

import importlib
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from paths import DOCS

import index_builder
import model
import service
from model.errors import EmbeddingError, ImageError, RetrievalError
from service.app import create_app
from service.doctor.deployment import checks_of
from service.errors import ERROR_TABLE, RefusalReason
from service.routes.openapi import ANSWERS, PROBLEM_DETAILS
from service.schemas.batch import BatchAnswer
from service.schemas.challenge import ChallengeAnswer
from service.schemas.common import Wire
from service.schemas.embed import EmbedAnswer
from service.schemas.indexes import IndexList, IndexStatus, Item, ItemPage, KeyPage, ValueList
from service.schemas.search import OLD_RECORDS, RECORD, SearchAnswer, SearchResult
from service.schemas.similarity import SimilarityAnswer
from service.schemas.status import Info, Live, Ready
from service.schemas.tolerance import ToleranceAnswer
from service.settings import Settings, variable_name


def import_everything() -> None:
    for package in (model, index_builder, service):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def subclasses(kind: type[RetrievalError]) -> Iterator[type[RetrievalError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from subclasses(child)


def test_every_error_class_has_a_row_and_every_row_a_class():
    import_everything()
    ours = {
        kind
        for kind in subclasses(RetrievalError)
        if kind.__module__.split(".")[0] in ("model", "index_builder", "service")
    }
    assert ours == set(ERROR_TABLE)


def test_a_code_has_one_status_and_one_title():
    seen: dict[str, tuple[int, str]] = {}
    for row in ERROR_TABLE.values():
        assert seen.setdefault(row.code, (row.status, row.title)) == (row.status, row.title)
    statuses = {row.status for row in ERROR_TABLE.values()}
    assert statuses <= {400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 504}


def test_no_error_about_an_image_is_ours_to_be_blamed_for():
    for kind in (*subclasses(ImageError), EmbeddingError):
        assert 400 <= ERROR_TABLE[kind].status < 500


def test_the_published_openapi_document_is_current():
    document = create_app(Settings.model_construct()).openapi()
    published = json.loads((DOCS / "openapi.json").read_text())
    assert published == json.loads(json.dumps(document)), "run `make openapi`"


def test_every_public_code_is_in_the_openapi_document_and_in_the_docs():
    document = (DOCS / "openapi.json").read_text()
    page = (DOCS / "http-api.md").read_text()
    codes = {row.code for row in ERROR_TABLE.values() if row.status != 500}
    for code in codes - {"bad_image", "client_gone"}:
        assert f'"urn:lipsim:problem:{code}"' in document, code
    for code in codes:
        assert f"`{code}`" in page, code


def test_every_route_and_option_is_in_the_docs():
    page = (DOCS / "http-api.md").read_text()
    document = json.loads((DOCS / "openapi.json").read_text())
    for path, methods in document["paths"].items():
        assert f"`{path}`" in page, path
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "query":
                    assert f"`{parameter['name']}`" in page, parameter["name"]


def test_every_member_of_a_result_and_every_record_is_in_the_docs():
    page = (DOCS / "http-api.md").read_text().split("A result has")[1].split("\n## ")[0]
    for name in SearchResult.model_fields:
        assert f"`{name}`" in page, name
    for name in (RECORD, *OLD_RECORDS):
        assert f"`{name}`" in (DOCS / "audit.md").read_text(), name


def test_every_metric_and_every_check_of_the_doctor_is_in_the_docs():
    page = (DOCS / "observability.md").read_text()
    families = create_app(Settings.model_construct()).state.metrics.registry.collect()
    gauges = (Path(service.__file__).parent / "routes/gauges.py").read_text()
    names = {found.name + "_total" * (found.type == "counter") for found in families}
    names |= {f"lipsim_{name}" for name in re.findall(r'_gauge\(\s*"(\w+)"', gauges)}
    names |= {f"lipsim_{name}_info" for name in re.findall(r'_info\(\s*"(\w+)"', gauges)}
    names |= {f"lipsim_index_{name}" for name in re.findall(r' family\("(\w+)"', gauges)}
    assert len(names) > 30
    for name in names:
        assert f"`{name}`" in page or name.startswith(("process_", "python_")), name
    for reason in get_args(RefusalReason):
        assert f"`{reason}`" in page, reason
    for name in checks_of(Settings.model_construct()):
        assert f"`{name}`" in page, name


def test_the_published_page_of_settings_is_current():
    command = [sys.executable, "-m", "service", "settings", "--markdown"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.decode() == (DOCS / "settings.md").read_text()
    for name in Settings.model_fields:
        assert f"| `{variable_name(name)}` |" in done.stdout.decode()


def left_out(value: object) -> Iterator[str]:
    """Members that an example does not show, at any depth."""
    if isinstance(value, Wire):
        yield from type(value).model_fields.keys() - value.model_fields_set
        value = list(vars(value).values())
    for member in value if isinstance(value, list) else ():
        yield from left_out(member)


ON_REQUEST = {"matching", "matching_ids", "vector", "trimmed", "audit", "input_png"}
EITHER = {"answer", "problem", "errors", "request_id", "retry_after_s"}


@pytest.mark.parametrize(
    ("path", "wire"),
    [
        ("/search", SearchAnswer),
        ("/search/batch", BatchAnswer),
        ("/tolerance", ToleranceAnswer),
        ("/challenge", ChallengeAnswer),
        ("/similarity", SimilarityAnswer),
        ("/embed", EmbedAnswer),
        ("/indexes", IndexList),
        ("/indexes/{name}", IndexStatus),
        ("/indexes/{name}/item", Item),
        ("/indexes/{name}/items", ItemPage),
        ("/indexes/{name}/items/list", ItemPage),
        ("/indexes/{name}/metadata", KeyPage),
        ("/indexes/{name}/metadata/values", ValueList),
        ("/info", Info),
        ("/livez", Live),
        ("/readyz", Ready),
        ("/readyz#503", Ready),
    ],
)
def test_examples_are_answers(path: str, wire: type[Wire]):
    parsed = wire.model_validate_json(json.dumps(ANSWERS[path]), strict=True)
    assert parsed.model_dump(mode="json", exclude_unset=True, by_alias=True) == ANSWERS[path]
    assert set(left_out(parsed)) <= ON_REQUEST | (EITHER if wire is BatchAnswer else set())


def test_every_operation_has_an_example_a_summary_and_no_422_of_the_framework():
    document = json.loads((DOCS / "openapi.json").read_text())
    assert "HTTPValidationError" not in document["components"]["schemas"]
    identifiers = set()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            identifiers.add(operation["operationId"])
            assert operation["summary"]
            if not path.endswith(("/thumbnail", "/examples/{name}")):
                kind = "text/plain" if path == "/metrics" else "application/json"
                assert "example" in operation["responses"]["200"]["content"][kind]
    assert len(identifiers) == sum(len(methods) for methods in document["paths"].values())
    assert set(PROBLEM_DETAILS) <= {row.code for row in ERROR_TABLE.values()}


@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        ("model.certificate.search", ["torch", "faiss", "fastapi"]),
        ("index_builder.search.gallery", ["fastapi", "starlette", "uvicorn"]),
    ],
)
def test_importing_a_part_does_not_bring_what_is_above_it(imported: str, absent: list[str]):
    """In a fresh interpreter, as plugins and late imports escape a linter."""
    program = f"import sys, {imported}; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
