"""The examples of docs/http-api.md, run as they stand against a real service."""

import re
import shlex
from pathlib import Path
from typing import Any

import httpx
import pytest
from paths import DOCS
from service_helpers import draw_picture, encode

PAGE = (DOCS / "http-api.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
CURLS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
# Those that need operating points run in test_service_verdicts.py, where there are some.
PLAIN_CURLS = [line for line in CURLS if "operating_point" not in line]
PROGRAMS = [block for kind, block in BLOCKS if kind == "python"]
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "query.jpg").write_bytes(encode(draw_picture(8), "JPEG"))
    (tmp_path / "other.png").write_bytes(encode(draw_picture(9)))
    monkeypatch.chdir(tmp_path)


def read_curl(line: str) -> dict[str, Any]:
    """The request that a curl line of the page makes: curl itself need not be installed."""
    words = iter(shlex.split(line)[1:])
    request: dict[str, Any] = {"method": "GET", "headers": {}, "files": {}, "data": {}}
    for word in words:
        if word == "-F":
            name, _, value = next(words).partition("=")
            request["method"] = "POST"
            if value.startswith("@"):
                request["files"][name] = Path(value[1:]).read_bytes()
            else:
                request["data"][name] = value
        elif word == "--data-binary":
            request["method"] = "POST"
            request["content"] = Path(next(words).removeprefix("@")).read_bytes()
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            request["headers"][name] = value
        elif word == "-o":
            next(words)
        elif word != "-s":
            assert word.startswith(ADDRESS), word
            request["url"] = word.removeprefix(ADDRESS)
    if "content" in request:
        del request["files"], request["data"]
    return request


@pytest.mark.parametrize("line", PLAIN_CURLS)
@pytest.mark.usefixtures("folder")
def test_each_curl_line_is_answered(client: httpx.Client, line: str):
    assert line.startswith("curl ")
    response = client.request(**read_curl(line))
    assert response.status_code == 200, response.text
    if " -o " not in line and "webp" not in line:
        assert response.json()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("program", PROGRAMS)
def test_each_python_example_runs(
    client: httpx.Client, program: str, capsys: pytest.CaptureFixture[str]
):
    address = str(client.base_url).rstrip("/")
    exec(compile(program.replace(ADDRESS, address), "http-api.md", "exec"), {})
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("p")]
    assert len(printed) == 5
    assert printed[0].startswith("p08.jpg")
