"""What the page is made of: small, ours, and asking nobody but the service."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

import service.http
from service.http import pages

FOLDER = Path(service.http.__file__).parent / "static" / "page"
MODULES = sorted(FOLDER.glob("*.js"))
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def get(path: str, **headers: str) -> httpx.Response:
    app = FastAPI(docs_url=None)
    app.include_router(pages.router)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


def test_all_of_the_page_is_at_most_120_kilobytes():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 120_000


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_is_short_and_makes_no_html_and_only_one_asks_the_service(path: Path):
    text = path.read_text()
    assert text.count("\n") <= 200
    assert text.startswith("// "), "a module says first what it is for"
    unsafe = r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|DOMParser"
    assert not re.search(unsafe, text)
    assert bool(re.search(r"\bfetch\(|XMLHttpRequest|sendBeacon|WebSocket", text)) == (
        path.name == "api.js"
    )


def test_the_page_names_no_other_host_and_has_nothing_inline():
    texts = {path.name: path.read_text() for path in FOLDER.iterdir()}
    for name, text in texts.items():
        found = set(re.findall(r"https?://[^\s\"'`]+", text))
        assert found <= {"http://www.w3.org/2000/svg"}, name  # A name of XML, never asked for.
    page = texts["index.html"]
    assert re.findall(r"<script[^>]*>", page) == ['<script type="module" src="static/app.js">']
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert '<a href="docs">' in page.partition("<noscript>")[2].partition("</noscript>")[0]


def test_the_page_has_the_strict_policy_and_the_documentation_its_own():
    page = get("/")
    assert page.headers["content-security-policy"] == POLICY
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "unsafe" not in POLICY
    assert get("/docs").headers["content-security-policy"] != POLICY


def test_every_module_that_is_imported_is_served_and_every_one_served_is_imported():
    imported = {"app.js"}
    for path in MODULES:
        imported |= set(re.findall(r'from "\./([^"]+)"', path.read_text()))
    assert imported == {path.name for path in MODULES}
    for name in imported:
        answer = get(f"/static/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/javascript")


def test_a_file_is_asked_for_again_and_sent_again_only_where_it_changed():
    first = get("/static/style.css")
    assert first.headers["cache-control"] == "no-cache"
    known = {"If-None-Match": first.headers["etag"]}
    assert get("/static/style.css", **known).status_code == 304
    assert get("/static/api.js", **known).status_code == 200


@pytest.mark.parametrize("name", ["index.html", "nothing.js", "..%2Fpages.py", "README.md", "%00"])
def test_no_other_name_is_served(name: str):
    assert get(f"/static/{name}").status_code == 404
