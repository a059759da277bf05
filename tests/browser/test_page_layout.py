"""Nothing jumps or sticks out: how far the page moves by itself, and where pictures end."""

from pathlib import Path

import httpx
import pytest
from browser_tools import open_page, wait_for_answer
from playwright.sync_api import Browser, Page, expect
from service_helpers import draw_picture, open_client, run_builder

from service.settings import Settings

OBSERVE = """
window.shifts = [];
new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map((one) => one.value)))
    .observe({ type: "layout-shift", buffered: true });
"""
# A tenth is what a visitor is said to bear; here is room for text of another length alone.
MOST = 0.02


def shifted(page: Page) -> float:
    page.wait_for_load_state("networkidle")
    return page.evaluate("window.shifts.reduce((sum, one) => sum + one, 0)")


@pytest.mark.parametrize("width", [360, 900, 1600])
def test_neither_the_first_answer_nor_another_moves_what_is_there(
    browser: Browser, judging: httpx.Client, width: int
):
    with browser.new_context(viewport={"width": width, "height": 780}) as context:
        page = context.new_page()
        page.add_init_script(OBSERVE)
        page.goto(str(judging.base_url))
        wait_for_answer(page)
        assert 0 < shifted(page) <= MOST, "the page shows nothing late, or the browser is blind"
        page.get_by_role("button", name="b recompressed").click()
        page.wait_for_selector("text=b-recompressed.jpg")
        wait_for_answer(page)
        assert shifted(page) <= MOST


@pytest.mark.parametrize("view", ["browse", "compare"])
def test_the_other_views_stay_where_they_are(browser: Browser, judging: httpx.Client, view: str):
    with browser.new_context(viewport={"width": 360, "height": 780}) as context:
        page = context.new_page()
        page.add_init_script(OBSERVE)
        page.goto(f"{judging.base_url}?view={view}")
        page.wait_for_selector("main h2")
        assert shifted(page) <= MOST


def test_upright_and_flat_pictures_stay_inside_their_cells_on_a_phone(
    browser: Browser, tmp_path: Path
):
    """Each as it is: neither stretched, nor over the edge of its cell or of the page."""
    shapes = [(60, 240), (90, 160), (240, 60), (160, 120), (120, 120)] * 2
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, (width, height) in enumerate(shapes):
        draw_picture(seed, width, height).save(folder / f"{seed}.png")
    run_builder("build", folder, "--data-dir", tmp_path)
    with (
        open_client(Settings(data_dir=tmp_path, workers=1)) as client,
        open_page(
            browser, f"{client.base_url}?view=browse", viewport={"width": 390, "height": 844}
        ) as page,
    ):
        cells = page.locator(".items .picture")
        expect(cells).to_have_count(len(shapes))
        for cell, (width, height) in zip(cells.all(), shapes, strict=True):
            cell.scroll_into_view_if_needed()
            picture = cell.locator("img")
            expect(picture).not_to_have_js_property("naturalWidth", 0)
            own = picture.evaluate("node => node.naturalWidth / node.naturalHeight")
            assert abs(own / (width / height) - 1) < 0.1, (
                "thumbnails are upright where pictures are"
            )
            assert picture.evaluate("node => getComputedStyle(node).objectFit") == "contain"
            outer, inner = cell.bounding_box(), picture.bounding_box()
            assert outer
            assert inner
            assert abs(outer["width"] - outer["height"]) <= 1, "cells are square"
            for start, size in (("x", "width"), ("y", "height")):
                assert inner[start] >= outer[start]
                assert inner[start] + inner[size] <= outer[start] + outer[size]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
