"""Nothing jumps: how far the page moves by itself, as the browser measures it."""

import httpx
import pytest
from browser_tools import wait_for_answer
from playwright.sync_api import Browser, Page

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
