"""A query with a border, with `trim` on: two lists, the better evidence first, both counted."""

import ast
import re

import httpx
import pytest
from browser_tools import open_page, wait_for_answer
from PIL import ImageOps
from playwright.sync_api import Browser, Page, Route, expect
from service_helpers import draw_picture, encode

FRAMED = encode(ImageOps.expand(draw_picture(7, 100, 80), (60, 30), "white"))
FILE = {"name": "framed.png", "mimeType": "image/png", "buffer": FRAMED}
TRIMMED, AS_IT_IS = "After trimming the border", "Your picture as it is"


def ask(page: Page) -> None:
    wait_for_answer(page)
    page.locator("input[type=file]").set_input_files(FILE)
    expect(page.locator(".area h3")).to_have_count(2)


def headings(page: Page) -> list[str]:
    return page.locator(".area h3").all_inner_texts()


def swap(route: Route) -> None:
    """The answer of a picture that is found better with its border than without."""
    answer = route.fetch().json()
    trimmed = answer["trimmed"]
    for name in ("results", "certificate"):
        answer[name], trimmed[name] = trimmed[name], answer[name]
    route.fulfill(json=answer)


def test_without_a_verdict_the_list_with_the_nearer_first_result_stands_first(
    browser: Browser, url: str, service: httpx.Client
):
    given = {"files": {"image": FRAMED}, "data": {"trim": "true"}}
    answer = service.post("/v1/search", **given).json()
    trimmed = answer["trimmed"]
    assert trimmed["results"][0]["distance"] < answer["results"][0]["distance"] - 0.001
    with open_page(browser, f"{url}?trim=true") as page:
        expect(page.get_by_text("It has no plain borders to look inside of.")).to_be_visible()
        assert headings(page) == []
        ask(page)
        assert headings(page) == [TRIMMED, AS_IT_IS]
        expect(page.locator(".result .title").first).to_have_text("Picture 7")
        words = page.locator(".in-words").inner_text()
        assert "as your picture is and with its border trimmed" in words
        proof = trimmed["certificate"]["top1_radius"] * 255 / (3 * 220 * 140) ** 0.5
        said = re.findall(
            r"The first result, found after trimming the border, is proved .* up to ([\d.]+)", words
        )
        shown = float(said[0])
        assert proof - 0.11 < shown <= proof, "a proved number may only be rounded down"
        (same,) = [one for one in answer["results"] if one["id"] == trimmed["results"][0]["id"]]
        assert same["certified_radius"] > trimmed["results"][0]["certified_radius"]
        either = re.findall(
            r"In one of the two lists the first result stays .* below ([\d.]+) levels", words
        )
        assert same["certified_rms_8bit"] - 0.11 < float(either[0]) <= same["certified_rms_8bit"]
        expect(page.get_by_text("100 x 80 of 220 x 140 pixels are left.")).to_be_visible()
        expect(page.locator(".marks")).to_contain_text(f"{TRIMMED}:")
        page.locator("#noise").fill("390")
        expect(page.locator(".result.faded")).to_have_count(20)
        page.route("**/v1/search", swap)
        page.locator("input[type=file]").set_input_files(FILE)
        expect(page.locator(".area h3").first).to_have_text(AS_IT_IS)
        said = page.locator(".in-words").inner_text()
        assert "The first result, found in your picture as it is, is proved" in said
        assert "In one of the two lists" not in said
        expect(page.locator(".marks")).to_contain_text(f"{AS_IT_IS}:")


def test_a_verdict_goes_before_the_distance_and_is_counted_over_both_lists(
    browser: Browser, judging: httpx.Client
):
    point = judging.get("/v1/indexes/default").json()["operating_points"][0]["name"]

    def judge(where: str) -> None:
        """Answers as a service would whose only match is in that list; None: in neither."""

        def answer(route: Route) -> None:
            found = route.fetch().json()
            for name, part in (("as it is", found), ("trimmed", found["trimmed"])):
                for result in part["results"]:
                    result["match"] = result["rank"] == 1 and name in where
            route.fulfill(json=found)

        page.route("**/v1/search", answer)
        page.locator("input[type=file]").set_input_files(FILE)
        expect(page.locator(".area:not([aria-busy]) h3")).to_have_count(2)

    with open_page(browser, f"{judging.base_url}?trim=true") as page:
        ask(page)
        said = page.locator(".judged")
        same = page.locator(".result .title").first.inner_text()
        assert same == "Picture 7"
        for where, words, first in [
            ("trimmed", ", found after trimming the border.", TRIMMED),
            ("as it is", ", found in your picture as it is.", AS_IT_IS),
            ("", ", neither as it is nor after trimming the border.", TRIMMED),
        ]:
            judge(where)
            count = "1 match" if where else "0 matches"
            expect(said).not_to_contain_text("Look inside plain borders too")
            expect(said).to_contain_text(f"{count} by “{point}”{words}")
            assert headings(page)[0] == first
            expect(said).to_contain_text("a second look gives a picture without a copy a second")
            expect(page.locator("#said")).to_contain_text(f"{count} by “{point}”{words}")


def test_a_copy_that_only_trimming_finds_is_not_said_to_be_missing(
    browser: Browser, url: str, service: httpx.Client
):
    given = {"files": {"image": FRAMED}, "data": {"trim": "true"}}
    answer = service.post("/v1/search", **given).json()
    near, far = (part["results"][0]["distance"] for part in (answer["trimmed"], answer))
    limit = (near + far) / 2
    with open_page(browser, f"{url}?trim=true&max_distance={limit}") as page:
        page.locator("input[type=file]").set_input_files(FILE)
        expect(page.locator(".result[data-id] .title")).to_have_text(["Picture 7"])
        assert headings(page) == [TRIMMED, AS_IT_IS]
        below = page.locator(f"h3:text('{AS_IT_IS}') + .notice")
        expect(below).to_contain_text("Nothing within distance")


def test_a_result_of_the_trimmed_picture_opens_with_its_proof_and_without_what_needs_the_whole(
    browser: Browser, url: str
):
    with open_page(browser, f"{url}?trim=true") as page:
        ask(page)
        for at, is_trimmed in ((0, True), (10, False)):
            result = page.locator(".result[data-id]").nth(at)
            words = result.locator(".words").inner_text()
            result.click()
            drawer = page.get_by_role("dialog")
            expect(drawer.locator(".proof")).to_contain_text(words)
            expect(drawer.get_by_text("Found after trimming")).to_have_count(int(is_trimmed))
            expect(drawer.get_by_text("Try to break it")).to_have_count(int(not is_trimmed))
            assert not re.search(r"\b(false|null)\b", drawer.inner_text())
            page.keyboard.press("Escape")
            expect(page.get_by_role("dialog")).to_have_count(0)
            expect(result).to_be_focused()


def test_where_nothing_can_take_a_place_the_trimmed_list_is_proved_no_farther_than_its_trim(
    browser: Browser, url: str
):
    with open_page(browser, f"{url}?trim=true&k=100") as page:
        ask(page)
        assert headings(page)[0] == TRIMMED
        first = page.locator(".result .words").first
        expect(first).to_contain_text("under any noise below")
        end = re.findall(r"No noise below ([\d.]+) of 255", page.locator(".trim").inner_text())
        assert end[0] in first.inner_text()
        # As it is, each stays whatever comes: all of the index is in the answer.
        assert "under any noise: nothing" in page.locator(".result .words").last.inner_text()


@pytest.mark.parametrize("trim", ["", "?trim=true"])
def test_the_python_to_copy_prints_each_list_that_was_asked_for(
    browser: Browser, url: str, trim: str
):
    with open_page(browser, url + trim) as page:
        wait_for_answer(page)
        page.get_by_role("button", name="Python", exact=True).click()
        text = page.locator("dialog pre").inner_text()
        ast.parse(text)
        assert ('answer["trimmed"]' in text) == bool(trim)
