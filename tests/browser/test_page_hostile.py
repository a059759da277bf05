"""A gallery whose names, metadata and pictures try to run something: they are text."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from browser_tools import build_gallery, open_page, wait_for_answer
from PIL import Image
from playwright.sync_api import Browser, expect
from programs import require_program
from service_helpers import draw_picture, encode, open_client

from service.settings import Settings

RUNS = "window.ran=1"
HOSTILE = [
    f"<script>{RUNS}</script>",
    f'<img src=x onerror="{RUNS}">',
    f'"><svg onload={RUNS}>',
    f"javascript:{RUNS}",
    "</style><style>body{display:none}</style>",
    "<link rel=stylesheet href=http://evil.example/a.css>",
    "<iframe srcdoc='<script>parent.ran=1</script>'>",
    "${window.ran=1}{{window.ran=1}}",
    "';alert(1)//\\",
    "x" * 400,
    "\u202egnp.exe\u0000"[:-1],
]


def rows() -> list[dict[str, Any]]:
    exif = Image.Exif()
    exif[0x010E] = exif[0x9C9B] = HOSTILE[1]  # Description and title.
    return [
        {"id": f"{seed} {text}", "title": text, text: text, "list": [text], "exif": exif}
        for seed, text in enumerate(HOSTILE)
    ]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    require_program("chromium")
    directory = tmp_path_factory.mktemp("hostile")
    build_gallery(directory / "pictures", directory, rows(), "default")
    with open_client(Settings(data_dir=directory, workers=1)) as client:
        yield client


def test_nothing_that_names_or_metadata_hold_is_more_than_text(
    browser: Browser, hostile: httpx.Client
):
    url = str(hostile.base_url)
    with open_page(browser, f"{url}?view=browse") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        tiles = page.locator(".items .result")
        expect(tiles).to_have_count(len(HOSTILE))
        for tile in tiles.all():
            tile.click()
            expect(page.locator("dialog .fields").first).to_be_visible()
            page.keyboard.press("Escape")
        assert set(HOSTILE) <= set(page.locator(".items .title").all_inner_texts())
        page.get_by_role("link", name="Search").click()
        page.locator("input[type=file]").set_input_files(
            {
                "name": f"{HOSTILE[1]}.png",
                "mimeType": "image/png",
                "buffer": encode(draw_picture(1)),
            }
        )
        wait_for_answer(page)
        expect(page.locator(".zone .name")).to_have_text(f"{HOSTILE[1]}.png")
        for name in ("JSON", "curl", "Python"):
            page.get_by_role("button", name=name, exact=True).click()
            page.keyboard.press("Escape")
        assert page.evaluate("window.ran") is None
        made = "main script, main style, main iframe, main link, main svg, main [onerror]"
        assert page.locator(made).count() == 0
        assert page.locator(".thumbnail").first.is_visible()
        assert {address.split("/")[2] for address in asked if "://" in address} == {
            url.split("/")[2]
        }


def test_the_lines_to_copy_for_an_item_ask_for_it_whatever_its_name(
    browser: Browser, hostile: httpx.Client
):
    with open_page(browser, f"{hostile.base_url}?view=browse") as page:
        for row in rows():
            page.locator(".items").get_by_role("button", name=row["title"], exact=True).click()
            drawer = page.locator("dialog.drawer")
            expect(drawer.get_by_text("v000001, written 20")).to_be_visible()
            expect(drawer.locator("dt:text-is('views') + dd")).to_have_text("1: whole")
            said = {}
            for name in ("JSON", "curl", "Python"):
                drawer.get_by_role("button", name=name, exact=True).click()
                said[name] = page.locator("dialog pre").text_content() or ""
                page.keyboard.press("Escape")
            page.keyboard.press("Escape")
            done = subprocess.run(["bash", "-c", said["curl"]], capture_output=True, check=True)
            assert json.loads(done.stdout)["id"] == row["id"]
            assert json.loads(done.stdout) == json.loads(said["JSON"])
            found: dict[str, Any] = {}
            exec(compile(said["Python"], "page", "exec"), found)
            assert found["item"] == json.loads(said["JSON"])


@pytest.mark.parametrize(
    "address",
    [
        f"?view={HOSTILE[0]}&index={HOSTILE[1]}",
        f"?item={HOSTILE[1]}&open={HOSTILE[0]}&operating_point={HOSTILE[2]}",
        f"?view=browse&filter={HOSTILE[1]}&open={HOSTILE[3]}",
        "?k=javascript:1&max_distance=NaN&noise=x&filter={",
    ],
)
def test_no_address_runs_anything_or_leaves_the_page_without_a_word(
    browser: Browser, hostile: httpx.Client, address: str
):
    with open_page(browser, f"{hostile.base_url}{address}") as page:
        expect(page.locator(".problem, .notice, .welcome, .items .result").first).to_be_visible()
        assert page.evaluate("window.ran") is None
