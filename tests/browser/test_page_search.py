"""What a person does on the page: search, read the proof, ask what survives, open a result."""

import ast
import io
import json
import re

import httpx
import numpy as np
import pytest
from browser_tools import EDITED, open_page, wait_for_answer
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from service_helpers import draw_picture, encode

FILE = {"name": "my picture.png", "mimeType": "image/png", "buffer": encode(draw_picture(7))}


def first_title(page: Page) -> str:
    wait_for_answer(page)
    return page.locator(".result .title").first.inner_text()


def test_the_page_opens_with_an_example_already_answered(page: Page):
    assert first_title(page) == f"Picture {EDITED}"
    assert page.locator(".result[data-id]").count() == 10
    expect(page.get_by_role("button", name="a smaller")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".in-words")).to_contain_text("24 pictures searched exactly in")
    expect(page.locator(".zone canvas")).to_be_visible()


def test_a_picture_that_is_chosen_is_searched_and_said_in_words(page: Page, service: httpx.Client):
    wait_for_answer(page)
    page.locator("input[type=file]").set_input_files(FILE)
    expect(page.locator(".result .title").first).to_have_text("Picture 7")
    answer = service.post("/v1/search", files={"image": FILE["buffer"]}).json()
    levels = answer["results"][0]["certified_rms_8bit"]
    said = page.locator(".result .words").first.inner_text()
    shown = float(re.findall(r"below ([\d.]+) of 255 levels", said)[0])
    assert 0 < levels - 0.11 < shown <= levels, "a proved number may only be rounded down"


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_may_be_dropped_anywhere_and_pasted(page: Page, event: str):
    wait_for_answer(page)
    page.evaluate(
        """([kind, bytes]) => {
            const given = new DataTransfer();
            given.items.add(new File([new Uint8Array(bytes)], "p.png", {type: "image/png"}));
            const event = kind === "drop"
                ? new DragEvent("drop", {dataTransfer: given, bubbles: true, cancelable: true})
                : new ClipboardEvent("paste", {clipboardData: given, bubbles: true});
            document.querySelector("footer").dispatchEvent(event);
        }""",
        [event, list(FILE["buffer"])],
    )
    expect(page.locator(".result .title").first).to_have_text("Picture 7")


def test_bars_are_on_one_scale_whatever_the_answer(page: Page):
    wait_for_answer(page)
    found = page.evaluate(
        """() => [...document.querySelectorAll(".result")].map((node) => [
            node.querySelector(".words").textContent,
            node.querySelector(".fill").getBoundingClientRect().width
                / node.querySelector(".bar").getBoundingClientRect().width])"""
    )
    for words, share in found:
        levels = float((re.findall(r"below ([\d.]+)", words) or ["0"])[0])
        low, high = (1 + levels) ** 0.2, (1.1 + levels) ** 0.2  # 33 ** share == 1 + levels.
        assert low - 0.02 <= 33 ** (share * 0.2) <= high + 0.02


def test_what_survives_fades_what_is_not_proved_and_noises_the_picture(page: Page):
    wait_for_answer(page)
    plain = page.evaluate("document.querySelector('.zone canvas').toDataURL()")
    page.get_by_label("What survives this much noise?").fill("150")
    said = page.locator("output[for=noise]").inner_text()
    levels = float(re.findall(r"([\d.]+) of 255 levels", said)[0])
    for result in page.locator(".result[data-id]").all():
        words = result.locator(".words").inner_text()
        proved = float((re.findall(r"below ([\d.]+)", words) or ["0"])[0])
        assert ("faded" in (result.get_attribute("class") or "")) == (proved <= levels)
    assert page.evaluate("document.querySelector('.zone canvas').toDataURL()") != plain
    marks = page.locator(".marks").inner_text()
    assert "set not proved" in marks
    assert "order not proved" in marks
    assert "noise=" in page.url


def test_a_link_opens_the_same_view(browser: Browser, page: Page):
    wait_for_answer(page)
    page.get_by_role("button", name="b recompressed").click()
    expect(page.locator(".result .title").first).to_have_text("Picture 5")
    page.get_by_label("Results", exact=True).fill("4")
    page.get_by_label("Results", exact=True).press("Enter")
    expect(page.locator(".result[data-id]")).to_have_count(4)
    with open_page(browser, page.url) as again:
        assert first_title(again) == "Picture 5"
        assert again.locator(".result[data-id]").count() == 4
    page.go_back()
    expect(page.locator(".result .title").first).to_have_text(f"Picture {EDITED}")


def test_json_curl_and_python_are_those_of_the_question(page: Page, url: str):
    wait_for_answer(page)
    page.get_by_label("Results", exact=True).fill("3")
    page.get_by_label("Results", exact=True).press("Enter")
    expect(page.locator(".result[data-id]")).to_have_count(3)
    said = {}
    for name in ("JSON", "curl", "Python"):
        page.get_by_role("button", name=name, exact=True).click()
        said[name] = page.locator("dialog pre").inner_text()
        page.keyboard.press("Escape")
        expect(page.locator("dialog")).to_have_count(0)
    assert len(json.loads(said["JSON"])["results"]) == 3
    assert said["curl"] == f"curl -s -F 'image=@\"a-smaller.png\"' -F 'k=3' '{url}v1/search'"
    compile(said["Python"], "page", "exec")
    assert '"k":3' in said["Python"]


def test_the_python_of_each_kind_of_question_is_python(page: Page, url: str):
    wait_for_answer(page)
    page.get_by_label("Search until each proof is the largest").check()
    page.goto(f'{page.url}&filter={{"must":[]}}')
    for question in (page.url, f"{url}?item=folder%2Fp05&require_exact=true"):
        page.goto(question)
        wait_for_answer(page)
        page.get_by_role("button", name="Python", exact=True).click()
        text = page.locator("dialog pre").inner_text()
        free = {name.id for name in ast.walk(ast.parse(text)) if isinstance(name, ast.Name)}
        assert free <= {"httpx", "json", "Path", "open", "print", "answer", "result"}, text


def test_a_click_opens_the_item_and_escape_goes_back_to_the_result(page: Page):
    wait_for_answer(page)
    page.locator(".result").first.click()
    drawer = page.get_by_role("dialog", name=f"Picture {EDITED}")
    for text in (f"folder/p{EDITED:02}", "160 x 120", "JPEG", "kind", "odd"):
        expect(drawer).to_contain_text(text)
    assert "open=" in page.url
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".result").first).to_be_focused()
    assert "open=" not in page.url


def test_the_query_is_shown_as_the_network_sees_it(page: Page):
    wait_for_answer(page)
    expect(page.get_by_text("As the network sees it: 96 x 96 pixels")).to_be_visible()
    expect(page.locator(".as-network img")).to_have_js_property("naturalWidth", 96)


def test_a_picture_of_the_index_is_searched_with_and_nothing_is_proved(page: Page):
    wait_for_answer(page)
    page.locator(".result").nth(1).click()
    title = page.get_by_role("dialog").get_by_role("heading", level=2).inner_text()
    page.get_by_role("button", name="Search with this picture").click()
    expect(page.locator(".in-words")).to_contain_text("it has no pixels, so nothing is proved")
    titles = page.locator(".result[data-id] .title").all_inner_texts()
    assert len(titles) == 10
    assert title not in titles
    assert set(page.locator(".result .words").all_inner_texts()) == {"nothing proved"}
    expect(page.locator("#noise")).to_have_count(0)
    page.get_by_role("button", name="curl").click()
    expect(page.locator("dialog pre")).to_contain_text('{"item":"folder/p')


def test_arrow_keys_walk_the_results_and_enter_opens_one(page: Page):
    wait_for_answer(page)
    results = page.locator(".result[data-id]")
    results.first.focus()
    page.keyboard.press("ArrowRight")
    expect(results.nth(1)).to_be_focused()
    columns = page.evaluate(
        "getComputedStyle(document.querySelector('.results')).gridTemplateColumns.split(' ').length"
    )
    page.keyboard.press("ArrowDown")
    expect(results.nth(1 + columns)).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(results.first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_the_picture_shows_as_much_noise_as_is_said(page: Page):
    """On the screen, not in a canvas that the browser then makes smaller and smoother."""
    wait_for_answer(page)
    content = encode(draw_picture(7, 900, 700), "JPEG")
    big = {"name": "big.jpg", "mimeType": "image/jpeg", "buffer": content}
    page.locator("input[type=file]").set_input_files(big)
    expect(page.locator(".zone .name")).to_have_text("big.jpg")
    wait_for_answer(page)
    canvas = page.locator(".zone canvas")
    plain = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB"), float)
    page.get_by_label("What survives this much noise?").fill("250")
    said = page.locator("output[for=noise]").inner_text()
    levels = float(re.findall(r"([\d.]+) of 255 levels", said)[0])
    page.evaluate("document.activeElement.blur()")
    noisy = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB"), float)
    seen = ((noisy - plain) ** 2).mean() ** 0.5
    assert 0.85 * levels <= seen <= 1.1 * levels
