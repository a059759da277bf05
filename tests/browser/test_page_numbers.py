"""Whole numbers keep their digits on the way through the page, also beyond 2^53."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browser_tools import build_gallery, open_page, wait_for_answer
from playwright.sync_api import Browser, Request, expect
from service_helpers import draw_picture, encode, open_client

from service.settings import Settings

# All the same number where a number is a float64.
LARGE = [2**53, 2**53 + 1, 2**53 + 2]
LEAST = -(2**63)
# In a text, what looks like a number is none.
QUOTED = f'a "{LARGE[1]}" \\ , {LARGE[1]}, '
SEARCHED = 1


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    directory = tmp_path_factory.mktemp("numbered")
    rows = [{"id": f"p{at}", "number": number} for at, number in enumerate(LARGE)]
    rows += [{"id": "least", "number": LEAST}, {"id": "text", "number": QUOTED}]
    rows += [{"id": "float", "number": 0.1}]
    build_gallery(directory / "pictures", directory, rows, "default")
    with open_client(Settings(data_dir=directory, workers=1)) as client:
        yield client


def sent(request: Request) -> str:
    return request.post_data_buffer.decode(errors="replace") if request.post_data_buffer else ""


def test_a_large_number_reaches_the_service_with_the_digits_that_the_service_suggested(
    browser: Browser, numbered: httpx.Client
):
    """In Browse, in a search, in the address, and in the lines to copy."""
    asked: list[str] = []
    with open_page(browser, f"{numbered.base_url}?view=browse") as page:
        page.on("request", lambda request: asked.append(sent(request)))
        tiles = page.locator(".items .result")
        expect(tiles).to_have_count(len(LARGE) + 3)
        options = page.get_by_label("equal to").locator("option")
        suggested = [str(LEAST), "0.1", *map(str, LARGE), QUOTED.strip()]
        expect(options).to_have_text([f"{value} (1)" for value in suggested])
        for at, value in enumerate([LEAST, 0.1, *LARGE, QUOTED]):
            page.get_by_label("equal to").select_option(index=at)
            page.get_by_role("button", name="Add").click()
            expect(tiles).to_have_count(1)
            must = json.loads([body for body in asked if body][-1])["filter"]["must"]
            assert [clause["match"]["value"] for clause in must] == [value]
            page.get_by_role("button", name="Remove").click()
            expect(tiles).to_have_count(len(LARGE) + 3)


def test_a_search_by_a_filter_of_the_address_keeps_its_digits_and_so_do_the_lines_to_copy(
    browser: Browser, numbered: httpx.Client, tmp_path: Path
):
    number = LARGE[SEARCHED]
    (tmp_path / "p.png").write_bytes(encode(draw_picture(SEARCHED)))
    given = json.dumps({"must": [{"key": "number", "match": {"value": number}}]})
    for start in ("", "&item=p0"):
        with open_page(browser, f"{numbered.base_url}?filter={given}{start}") as page:
            if not start:
                page.locator("input[type=file]").set_input_files(tmp_path / "p.png")
            wait_for_answer(page)
            expect(page.locator(".result[data-id]")).to_have_attribute("data-id", f"p{SEARCHED}")
            page.get_by_role("button", name="JSON", exact=True).click()
            assert f'"number": {number}\n' in page.locator("dialog pre").inner_text()
            page.keyboard.press("Escape")
            for name, program in (("curl", ["bash", "-c"]), ("Python", [sys.executable, "-c"])):
                page.get_by_role("button", name=name, exact=True).click()
                line = page.locator("dialog pre").text_content() or ""
                page.keyboard.press("Escape")
                done = subprocess.run(
                    [*program, line], cwd=tmp_path, capture_output=True, text=True, check=True
                )
                assert f"p{SEARCHED}" in done.stdout
            page.locator(".result").first.click()
            drawer = page.get_by_role("dialog")
            expect(drawer.locator("dt:text-is('number') + dd")).to_have_text(str(number))
