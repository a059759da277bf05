"""Try to break it, Compare and Browse, as a person uses them."""

import re
from pathlib import Path

import httpx
import pytest
from browser_tools import EDITED, PICTURES, build_gallery, open_page, wait_for_answer
from playwright.sync_api import Browser, Page, Route, expect
from service_helpers import draw_picture, encode, open_client

from model.pixels.decode import decode_image
from service.settings import Settings


def file_of(seed: int, name: str = "p.png", **size: int) -> dict[str, object]:
    return {"name": name, "mimeType": "image/png", "buffer": encode(draw_picture(seed, **size))}


def open_attack(page: Page) -> None:
    wait_for_answer(page)
    page.locator(".result").first.click()
    page.get_by_text("Try to break it").click()
    expect(page.get_by_role("button", name="Random noise")).to_be_enabled()


def attack(page: Page, step: int) -> str:
    page.get_by_label("How much noise").fill(str(step))
    page.get_by_role("button", name="Random noise").click()
    expect(page.locator(".moved-rows")).to_be_visible()
    expect(page.get_by_role("button", name="Random noise")).to_be_enabled()
    return page.locator(".outcome").inner_text()


KEEP_WHAT_IS_SENT = """() => {
    const send = window.fetch;
    window.sent = [];
    window.fetch = async (address, options) => {
        const picture = options.body?.get("image");
        if (picture) window.sent.push([...new Uint8Array(await picture.arrayBuffer())]);
        return send(address, options);
    };
}"""


def test_noise_inside_the_radius_is_measured_on_the_bytes_that_were_sent(
    page: Page, service: httpx.Client
):
    """Not on what a canvas was told: on the two files that the service got."""
    wait_for_answer(page)
    page.evaluate(KEEP_WHAT_IS_SENT)
    open_attack(page)
    said = attack(page, 19)
    assert "Inside the proof: this result stayed in the answer, as it must." in said
    sent = [bytes(numbers) for numbers in page.evaluate("window.sent")]
    before, after = (decode_image(data).pixels.astype(float) / 255 for data in sent)
    far = float(((before - after) ** 2).sum() ** 0.5)
    shown = float(re.findall(r"l2 ([\d.]+) away", said)[0])
    assert abs(far - shown) <= 0.006
    answers = [service.post("/v1/search", files={"image": data}).json() for data in sent]
    radius = answers[0]["results"][0]["certified_radius"]
    assert 0.9 * radius < far < radius
    assert answers[1]["results"][0]["id"] == f"folder/p{EDITED:02}"


def test_noise_outside_the_radius_is_said_to_be_outside(page: Page):
    open_attack(page)
    said = attack(page, 60)
    assert re.search(r"Outside: \d\.\d\d x the radius, and it (broke|held all the same)", said)
    assert page.locator(".moved-rows li").count() == 20


@pytest.mark.parametrize("width", [360, 1300])
def test_one_and_three_times_the_radius_are_marked_where_the_handle_says_so(
    browser: Browser, url: str, width: int
):
    with open_page(browser, url, viewport={"width": width, "height": 800}) as page:
        open_attack(page)
        budget = page.get_by_label("How much noise")
        slider, end = budget.bounding_box(), 0.0
        assert slider
        for times, label, step in [(1, "1 x the radius", 20), (3, "3 x", 60)]:
            budget.fill(str(step))
            expect(page.locator("output[for=budget]")).to_contain_text(f"{times}.00 x the radius")
            mark = page.locator(".budget .at", has_text=label).bounding_box()
            assert mark
            # The middle of a handle of 16 pixels.
            handle = slider["x"] + 8 + (slider["width"] - 16) * (step - 1) / 79
            assert abs(mark["x"] + mark["width"] / 2 - handle) <= 1
            assert end < mark["x"], "a label lies on another"
            end = mark["x"] + mark["width"]
        assert end <= slider["x"] + slider["width"]


def compare(page: Page, *files: dict[str, object]) -> None:
    for at, file in enumerate(files):
        page.locator("input[type=file]").nth(at).set_input_files(file)
    expect(page.locator(".pair-answer")).to_be_visible()


def test_two_pictures_are_compared_and_noise_widens_the_interval(
    browser: Browser, url: str, service: httpx.Client
):
    with open_page(browser, f"{url}?view=compare") as page:
        files = [file_of(3), file_of(3, width=120, height=90)]
        compare(page, *files)
        said = page.locator(".in-words")
        expect(said).to_contain_text("Match: nobody can flip it with less than")
        expect(
            page.get_by_text("Compared as they are. A search compares with every view")
        ).to_be_visible()
        images = {"image_a": files[0]["buffer"], "image_b": files[1]["buffer"]}
        true = service.post("/v1/similarity", files=images).json()["distance"]
        expect(said).to_contain_text(f"Distance {true:.3f}")
        band = page.locator(".distance-line .band")
        narrow = band.evaluate("node => node.getBoundingClientRect().width")
        page.get_by_label("Noise on the first picture").fill("120")
        expect(page.locator("output[for=epsilon]")).to_contain_text("7.1 of 255 levels: distance")
        assert band.evaluate("node => node.getBoundingClientRect().width") > narrow


def test_the_limit_is_dragged_and_says_at_once_what_this_noise_can_flip(
    browser: Browser, url: str, service: httpx.Client
):
    """Also while the service is not heard: what it said of the distance is enough."""
    files = [file_of(3), file_of(4)]
    images = {"image_a": files[0]["buffer"], "image_b": files[1]["buffer"]}
    found = service.post("/v1/similarity", files=images, data={"epsilon": "1"}).json()
    with open_page(browser, f"{url}?view=compare") as page:
        compare(page, *files)
        noise = page.get_by_label("Noise on the first picture")
        noise.fill("60")
        expect(page.locator("output[for=epsilon]")).to_contain_text("1.8 of 255 levels: distance")
        told = page.locator("output[for=epsilon]").inner_text()
        low, high = map(float, re.findall(r"distance ([\d.]+) to ([\d.]+)", told)[0])
        assert low < found["distance"] < high
        held: list[Route] = []
        page.route("**/v1/similarity", lambda route: held.append(route))  # noqa: PLW0108
        handle = page.get_by_label("They match up to distance")
        said = page.locator("output[for=threshold]")
        box = handle.bounding_box()
        line = page.locator(".distance-line").bounding_box()
        assert box
        assert line
        # The middle of the handle is half a handle inside: on the line's own scale.
        width = box["width"] - 16
        assert (box["x"] + 8, width) == (line["x"], line["width"])

        def place(limit: float) -> float:
            return box["x"] + 8 + width * limit / 2

        page.mouse.move(place(0.3), box["y"] + 8)
        page.mouse.down()
        for limit, words in [
            (low - 0.03, "no match, and this noise cannot flip it"),
            ((low + found["distance"]) / 2, "no match, but this noise may flip it"),
            ((high + found["distance"]) / 2, "match, but this noise may flip it"),
            (high + 0.03, "match, and this noise cannot flip it"),
        ]:
            page.mouse.move(place(limit), box["y"] + 8)
            given = float(handle.input_value())
            assert abs(given - limit) <= 0.011
            assert said.inner_text() == f"{given:.2f}: {words}"
        page.mouse.up()
        word = page.locator(".in-words .strong")
        assert word.inner_text() == "Match: asking how much noise flips it."
        handle.press("Home")
        assert said.inner_text() == "0.00: no match, and this noise cannot flip it"
        page.unroute("**/v1/similarity")
        handle.press("ArrowRight")
        expect(word).to_contain_text("No match: nobody can flip it with less than")
        assert handle.get_attribute("aria-valuetext") == said.inner_text()


def test_while_a_replaced_picture_is_compared_nothing_is_said_of_the_one_before(
    browser: Browser, url: str
):
    with open_page(browser, f"{url}?view=compare") as page:
        compare(page, file_of(3), file_of(3, width=120, height=90))
        shown = page.locator(".in-words"), page.locator("output[for=threshold]")
        told = page.locator("output[for=epsilon]")
        marks = page.locator(".distance-line > span")
        expect(told).to_contain_text("of 255 levels: distance")
        place = "[node.offsetTop, node.offsetHeight]"
        figure = page.locator(".pair-answer")
        top = figure.evaluate(f"node => {place}")
        held: list[Route] = []
        page.route("**/v1/similarity", lambda route: held.append(route))  # noqa: PLW0108
        noise = page.get_by_label("Noise on the first picture")
        with page.expect_request("**/v1/similarity"):
            noise.fill("130")
        page.locator("input[type=file]").nth(1).set_input_files(file_of(4))
        expect(shown[0]).to_have_text("Comparing …")

        def says_nothing() -> None:
            assert [said.inner_text() for said in shown] == ["Comparing …", ""]
            assert told.inner_text() == ""
            assert [mark.is_visible() for mark in marks.all()] == [False, False]
            assert page.get_by_text("Match:").count() == 0
            assert figure.evaluate(f"node => {place}") == top

        says_nothing()
        handle = page.get_by_label("They match up to distance")
        assert handle.get_attribute("aria-valuetext") is None
        handle.press("ArrowRight")
        says_nothing()
        page.unroute("**/v1/similarity")
        handle.press("ArrowRight")
        expect(shown[0]).to_contain_text("No match: nobody can flip it")
        expect(shown[1]).to_contain_text("0.32: no match")
        assert [mark.is_visible() for mark in marks.all()] == [True, True]


def test_every_picture_of_the_index_is_listed_and_opens(browser: Browser, url: str):
    with open_page(browser, f"{url}?view=browse") as page:
        tiles = page.locator(".items .result")
        expect(tiles).to_have_count(PICTURES)
        expect(page.locator(".items img").nth(5)).to_have_js_property("naturalWidth", 96)
        tiles.nth(4).click()
        drawer = page.get_by_role("dialog", name="Picture 4")
        expect(drawer).to_contain_text("Picture 4")
        expect(drawer).not_to_contain_text("Try to break it")
        page.get_by_role("button", name="Close").click()
        page.get_by_text("About this index").click()
        expect(page.get_by_text("Not calibrated:")).to_be_visible()
        expect(page.locator("#index-line")).to_contain_text("24 entries")


def test_a_proof_is_said_in_edits_and_a_handle_previews_one(page: Page, service: httpx.Client):
    wait_for_answer(page)
    page.locator(".result").first.click()
    page.get_by_text("In edits").click()
    rows = page.locator(".edits li")
    expect(rows).to_have_count(6)
    for name in ("JPEG", "Brightness", "Contrast", "Gamma", "Scaled down and back", "Noise"):
        expect(rows.filter(has_text=name).first).to_be_visible()
    picture = page.locator(".edits canvas")
    plain = picture.evaluate("node => node.toDataURL()")
    page.get_by_label("Preview: Brightness").fill("20")
    assert picture.evaluate("node => node.toDataURL()") != plain
    example = service.get("/v1/examples/a-smaller.png").content
    answer = service.post("/v1/tolerance", files={"image": example}).json()
    quality = answer["families"]["jpeg"]["from"]
    expect(rows.filter(has_text="JPEG")).to_contain_text(f"quality {quality} and above")


def test_browsing_is_narrowed_by_the_metadata_s_own_keys_and_values(browser: Browser, url: str):
    with open_page(browser, f"{url}?view=browse") as page:
        tiles = page.locator(".items .result")
        expect(tiles).to_have_count(PICTURES)
        page.get_by_label("Only with").select_option("kind")
        page.get_by_label("equal to").select_option(label=f"odd ({PICTURES // 2})")
        page.get_by_role("button", name="Add").click()
        expect(tiles).to_have_count(PICTURES // 2)
        expect(page.locator(".chips li")).to_contain_text("kind: odd")
        address = page.url
        page.get_by_role("button", name="Remove").click()
        expect(tiles).to_have_count(PICTURES)
        page.goto(address)
        expect(tiles).to_have_count(PICTURES // 2)


MANY = 210
HOSTILE = "<img src=x onerror=window.ran=1>"


def test_the_filter_offers_what_the_whole_index_holds_and_finds_the_rest_by_its_beginning(
    browser: Browser, tmp_path: Path
):
    rows = [{"id": f"p{n:03}", "name": f"n{n:03}"} for n in range(MANY)]
    rows[-1] |= {"a.dotted": HOSTILE, "name": f"z{HOSTILE}"}
    build_gallery(tmp_path / "pictures", tmp_path, rows, "default")
    settings = Settings(data_dir=tmp_path, workers=1)
    with (
        open_client(settings) as client,
        open_page(browser, f"{client.base_url}?view=browse") as page,
    ):
        tiles = page.locator(".items .result")
        key, value = page.get_by_label("Only with"), page.get_by_label("equal to")
        expect(key.locator("option")).to_have_text([r"a\.dotted", "name"])
        expect(value.locator("option")).to_have_text([f"{HOSTILE} (1)"])
        page.get_by_role("button", name="Add").click()
        expect(tiles).to_have_count(1)
        expect(page.locator(".chips li")).to_contain_text(f"a.dotted: {HOSTILE}")
        key.select_option("name")
        expect(value.locator("option")).to_have_count(200)
        expect(page.get_by_text("The first 200 values")).to_be_visible()
        page.get_by_label("beginning with").fill("z")
        expect(value.locator("option")).to_have_text([f"z{HOSTILE} (1)"])
        page.get_by_role("button", name="Add").click()
        expect(tiles).to_have_count(1)
        assert page.evaluate("window.ran") is None
        assert page.locator("main img[onerror]").count() == 0
