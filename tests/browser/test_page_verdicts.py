"""Verdicts on a calibrated index: each with its proof, and with what it is worth."""

import re

import httpx
from browser_tools import open_page, wait_for_answer
from playwright.sync_api import Browser, expect
from service_helpers import draw_picture, encode

STRANGER = {"name": "s.png", "mimeType": "image/png", "buffer": encode(draw_picture(4000))}


def test_an_index_with_operating_points_is_asked_for_verdicts_by_the_strictest(
    browser: Browser, judging: httpx.Client
):
    picture = judging.get("/v1/examples/a-smaller.png").content
    point = judging.get("/v1/indexes/default").json()["operating_points"][0]
    given = {"files": {"image": picture}, "data": {"operating_point": point["name"]}}
    answer = judging.post("/v1/search", **given).json()
    first, second = answer["results"][:2]
    assert (first["match"], second["match"]) == (True, False)
    with open_page(browser, str(judging.base_url)) as page:
        wait_for_answer(page)
        expect(page.locator("#index-line")).to_contain_text("calibrated")
        verdicts = page.locator(".result .verdict")
        expect(verdicts).to_have_count(10)
        for place, result in enumerate((first, second)):
            word = "match" if result["match"] else "no match"
            expect(verdicts.nth(place)).to_contain_text(word)
            width, height = answer["query"]["width"], answer["query"]["height"]
            levels = 255 * result["match_radius"] / (3 * width * height) ** 0.5
            said = verdicts.nth(place).inner_text()
            shown = float(re.findall(r"under any noise below ([\d.]+)", said)[0])
            assert 0 < levels - 0.11 < shown <= levels, "a proved number may only be rounded down"
            share = verdicts.nth(place).evaluate(
                """node => node.querySelector(".fill").getBoundingClientRect().width
                    / node.querySelector(".bar").getBoundingClientRect().width"""
            )
            assert abs(33**share - (1 + levels)) <= 0.05 * (1 + levels)
        said = page.locator(".judged").inner_text()
        matches = sum(result["match"] for result in answer["results"])
        assert said.startswith(f"{matches} match by “{point['name']}”.")
        assert f"{100 * point['recall']:.1f} % of {point['positives']} copies" in said
        bound = float(re.findall(r"at most ([\d.]+) % with 95 % confidence", said)[0])
        assert 0 <= bound - 100 * point["false_positive_upper"] <= 0.1
        page.get_by_label("Copy, or no copy").select_option(label="not asked")
        expect(verdicts).to_have_count(0)
        expect(page.locator(".judged")).to_have_count(0)
        with open_page(browser, page.url) as again:
            wait_for_answer(again)
            expect(again.locator(".judged")).to_have_count(0)


def test_where_nothing_matches_the_look_inside_borders_is_named(
    browser: Browser, judging: httpx.Client
):
    with open_page(browser, str(judging.base_url)) as page:
        wait_for_answer(page)
        page.locator("input[type=file]").set_input_files(STRANGER)
        expect(page.locator(".judged")).to_contain_text("0 matches")
        expect(page.locator(".judged")).to_contain_text("“Look inside plain borders too”")
    with open_page(browser, f"{judging.base_url}?trim=true") as page:
        wait_for_answer(page)
        page.locator("input[type=file]").set_input_files(STRANGER)
        expect(page.locator(".judged")).to_contain_text("0 matches")
        expect(page.locator(".judged")).not_to_contain_text("“Look inside plain borders too”")


def test_a_picture_of_the_index_is_judged_without_a_proof(browser: Browser, judging: httpx.Client):
    with open_page(browser, f"{judging.base_url}?item=folder%2Fp05") as page:
        wait_for_answer(page)
        words = set(page.locator(".result .verdict").all_inner_texts())
        assert words <= {"match", "no match"}
        assert page.locator(".judged").inner_text().startswith(("0 matches", "1 match"))
