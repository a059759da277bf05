"""The pictures of README and docs: each of the real page, after what a person does there.

`make screenshots` saves them, of the demo's gallery; in the suite they are of a small one, and are
thrown away.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from browser_tools import open_page, wait_for_answer
from PIL import Image, ImageOps
from playwright.sync_api import Browser, Locator, Page, expect
from service_helpers import encode, open_client

from service.command import demo
from service.settings import Settings


@pytest.fixture(scope="module")
def saved_in(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = pytestconfig.getoption("screenshots") or tmp_path_factory.mktemp("screenshots")
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def address(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[str]:
    """A calibrated service with examples, on which attacks are allowed."""
    if pytestconfig.getoption("screenshots") is None:
        yield str(request.getfixturevalue("judging").base_url)
        return
    data_dir, queries = Path(".demo"), demo.EXAMPLES / "queries"
    demo.build(data_dir)
    assert demo.calibrate(data_dir)
    with open_client(Settings(data_dir=data_dir, examples_dir=queries, challenge=True)) as client:
        yield str(client.base_url)


def search(page: Page) -> Page:
    """With a level of noise that few results are proved against."""
    wait_for_answer(page)
    page.get_by_label("What survives this much noise?").fill("220")
    expect(page.locator(".faded").first).to_be_visible()
    page.evaluate("document.activeElement.blur()")
    return page


def attack(page: Page) -> Locator:
    """By the worst noise within the radius, which the first result must survive."""
    wait_for_answer(page)
    page.locator(".result").first.click()
    page.get_by_text("Try to break it").click()
    page.get_by_label("How much noise").fill("19")
    page.get_by_role("button", name="Worst noise we can find").click()
    outcome = page.locator(".outcome .inside")
    expect(outcome).to_contain_text("Inside the proof: this result stayed", timeout=120_000)
    page.locator(".moved-rows").scroll_into_view_if_needed()
    for picture in page.locator(".moved-rows img").all():
        expect(picture).not_to_have_js_property("naturalWidth", 0)
    return page.locator(".attack")


def edits(page: Page) -> Locator:
    wait_for_answer(page)
    page.locator(".result").first.click()
    page.get_by_text("In edits").click()
    expect(page.locator(".edits li")).to_have_count(6)
    return page.locator(".edits ul")


def compare(page: Page) -> Locator:
    """The first example, and a smaller copy of it in grey."""
    wait_for_answer(page)
    base = page.url.split("?")[0]
    name = page.request.get(f"{base}v1/info").json()["examples"][0]
    query = page.request.get(f"{base}v1/examples/{name}").body()
    with Image.open(io.BytesIO(query)) as picture:
        copy = encode(picture.convert("L").reduce(2), "JPEG")
    page.get_by_role("link", name="Compare").click()
    for at, (named, content) in enumerate([(name, query), ("grey-smaller.jpg", copy)]):
        file = {"name": named, "mimeType": "image/jpeg", "buffer": content}
        page.locator("input[type=file]").nth(at).set_input_files(file)
    expect(page.locator(".pair-answer")).to_be_visible()
    return page.locator("main")


class Shot(NamedTuple):
    act: Callable[[Page], Page | Locator]
    scheme: str = "light"
    width: int = 1300
    height: int = 800


SHOTS = {
    "search": Shot(search),
    "phone": Shot(search, "dark", width=360, height=780),
    "attack": Shot(attack, height=1100),
    "edits": Shot(edits),
    "compare": Shot(compare),
}


@pytest.mark.parametrize("name", SHOTS)
def test_the_page_shows_what_its_picture_says(
    browser: Browser, address: str, saved_in: Path, name: str
):
    shot = SHOTS[name]
    size = {"width": shot.width, "height": shot.height}
    options = {"viewport": size, "color_scheme": shot.scheme, "reduced_motion": "reduce"}
    with open_page(browser, address, **options) as page:
        shown = shot.act(page)
        page.wait_for_load_state("networkidle")
        with Image.open(io.BytesIO(shown.screenshot())) as picture:
            file = saved_in / f"{name}.webp"
            border = 0 if shown is page else 16
            framed = ImageOps.expand(picture.convert("RGB"), border, picture.getpixel((0, 0))[:3])
            framed.save(file, quality=55, method=6)
    assert 5_000 < file.stat().st_size < 90_000
