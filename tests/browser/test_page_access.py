"""No view breaks a rule of axe, light or dark, wide or narrow."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser_tools import open_page, wait_for_answer
from PIL import ImageOps
from playwright.sync_api import Browser, Page, expect
from service_helpers import draw_picture, encode


def answered(page: Page) -> None:
    wait_for_answer(page)
    page.get_by_label("What survives this much noise?").fill("150")


def item(page: Page) -> None:
    wait_for_answer(page)
    page.locator(".result").first.click()
    page.get_by_text("Try to break it").click()
    page.get_by_role("button", name="Random noise").click()
    expect(page.locator(".moved-rows")).to_be_visible()


def trimmed(page: Page) -> None:
    wait_for_answer(page)
    framed = encode(ImageOps.expand(draw_picture(7, 100, 80), (60, 30), "white"))
    file = {"name": "framed.png", "mimeType": "image/png", "buffer": framed}
    page.locator("input[type=file]").set_input_files(file)
    expect(page.locator(".area h3")).to_have_count(2)


def code(page: Page) -> None:
    wait_for_answer(page)
    page.get_by_role("button", name="curl").click()


def problem(page: Page) -> None:
    wait_for_answer(page)
    file = {"name": "p.txt", "mimeType": "text/plain", "buffer": b"text"}
    page.locator("input[type=file]").set_input_files(file)
    expect(page.locator(".problem")).to_be_visible()


def options(page: Page) -> None:
    wait_for_answer(page)
    page.get_by_role("button", name="Options").click()


def compare(page: Page) -> None:
    for at in (0, 1):
        file = {"name": "p.png", "mimeType": "image/png", "buffer": encode(draw_picture(at))}
        page.locator("input[type=file]").nth(at).set_input_files(file)
    expect(page.locator(".pair-answer")).to_be_visible()


def browse(page: Page) -> None:
    expect(page.locator(".items .result").first).to_be_visible()
    page.get_by_text("About this index").click()


WIDE, NARROW = {"width": 1600, "height": 900}, {"width": 360, "height": 780}
VIEWS: list[tuple[str, Callable[[Page], None], dict[str, int]]] = [
    ("", answered, WIDE),
    ("", answered, NARROW),
    ("", item, WIDE),
    ("", item, NARROW),
    ("?trim=true", trimmed, WIDE),
    ("?trim=true", trimmed, NARROW),
    ("", code, WIDE),
    ("", problem, WIDE),
    ("", options, NARROW),
    ("?view=compare", compare, WIDE),
    ("?view=browse", browse, NARROW),
]


@pytest.mark.parametrize(
    ("address", "go", "size"), VIEWS, ids=[f"{v[1].__name__}-{v[2]['width']}" for v in VIEWS]
)
def test_no_view_breaks_a_rule_of_axe_or_scrolls_sideways(
    browser: Browser, url: str, address: str, go: Callable[[Page], None], size: dict[str, int]
):
    with open_page(browser, url + address, viewport=size, reduced_motion="reduce") as page:
        go(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert Axe().run(page).generate_snapshot() == ""
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
