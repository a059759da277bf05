"""What the page says when there is no answer to show: each state on a real service."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browser_tools import build_gallery, open_page, plain_rows, wait_for_answer
from playwright.sync_api import Browser, Page, Route, expect
from service_helpers import draw_picture, encode, open_client

from service.keys.keys import Key, Scope, add_entry, digest_of, new_key
from service.settings import Settings


def give(page: Page, name: str, content: bytes) -> None:
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    page.locator("input[type=file]").set_input_files(file)


def problem(page: Page, code: str) -> str:
    """What the panel of a problem says, once it is that of the code."""
    panel = page.locator(".problem", has=page.locator("code", has_text=code))
    expect(panel).to_be_visible()
    return panel.inner_text()


def test_a_wrong_format_says_which_are_read(page: Page):
    wait_for_answer(page)
    give(page, "notes.txt", b"not a picture")
    assert "It reads AVIF, GIF, JPEG, PNG, WEBP." in problem(page, "unsupported_image_format")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_image"),
        (encode(draw_picture(1))[:600], "undecodable_image"),
        (b"\xff" * 250_000, "image_too_large"),
    ],
)
def test_what_cannot_be_searched_is_said_in_words_with_its_code(
    page: Page, content: bytes, code: str
):
    wait_for_answer(page)
    give(page, "p.png", content)
    assert problem(page, code)
    give(page, "p.png", encode(draw_picture(2)))
    expect(page.locator(".result .title").first).to_have_text("Picture 2")


def test_nothing_within_a_distance_is_said(browser: Browser, url: str):
    with open_page(browser, f"{url}?max_distance=0.000001") as page:
        expect(page.get_by_text("Nothing within distance 0.000001")).to_be_visible()


def test_a_picture_without_features_is_answered_without_a_promise(page: Page):
    wait_for_answer(page)
    give(page, "flat.png", encode(draw_picture(0).point(lambda _: 128)))
    expect(page.locator(".zone .name")).to_have_text("flat.png")
    wait_for_answer(page)


def test_without_a_network_the_page_says_so_and_asks_again(page: Page):
    wait_for_answer(page)
    page.context.set_offline(True)
    give(page, "p.png", encode(draw_picture(2)))
    problem(page, "offline")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".result .title").first).to_have_text("Picture 2")


def test_while_an_answer_is_made_its_place_is_kept_and_the_last_question_wins(page: Page):
    wait_for_answer(page)
    held: list[Route] = []
    page.route("**/v1/search", lambda route: held.append(route), times=1)  # noqa: PLW0108
    give(page, "first.png", encode(draw_picture(1)))
    expect(page.locator(".results.waiting li")).to_have_count(10)
    expect(page.get_by_text("takes longer than usual")).to_be_visible()
    give(page, "second.png", encode(draw_picture(2)))
    expect(page.locator(".result .title").first).to_have_text("Picture 2")
    assert len(held) == 1
    expect(page.locator(".zone .name")).to_have_text("second.png")


def test_a_service_without_an_index_says_how_to_make_one(browser: Browser, tmp_path: Path):
    with (
        open_client(Settings(data_dir=tmp_path, workers=1)) as client,
        open_page(browser, str(client.base_url)) as page,
    ):
        expect(page.get_by_text("There is no index yet.")).to_be_visible()


@pytest.fixture(scope="module")
def guarded(page_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with one key, of thirty requests an hour."""
    keys_file = tmp_path_factory.mktemp("keys") / "keys.json"
    key = new_key()
    digest = digest_of(key.encode())
    add_entry(keys_file, Key(name="reader", scope=Scope.READ, sha256=digest, rate_limit="30/hour"))
    settings = Settings(data_dir=page_data, keys_file=keys_file, workers=1)
    with open_client(settings) as client:
        client.headers["X-API-Key"] = key
        yield client


def test_a_key_is_asked_for_once_kept_for_the_tab_and_refused_by_name(
    browser: Browser, guarded: httpx.Client
):
    key = guarded.headers["X-API-Key"]
    with open_page(browser, str(guarded.base_url)) as page:
        expect(page.get_by_label("Key", exact=True)).to_be_focused()
        page.keyboard.press("Escape")
        problem(page, "key_needed")
        page.get_by_role("button", name="Try again").click()
        page.get_by_label("Key", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_text("This key was not accepted")).to_be_visible()
        page.get_by_label("Key", exact=True).fill(key)
        page.keyboard.press("Enter")
        expect(page.locator(".welcome")).to_be_visible()
        give(page, "p.png", encode(draw_picture(2)))
        wait_for_answer(page)
        expect(page.locator(".result img").first).to_have_js_property("naturalWidth", 96)
        page.reload()
        expect(page.locator(".welcome")).to_be_visible()
        kept = page.evaluate("[localStorage.length, document.cookie, location.href]")
        assert kept[:2] == [0, ""]
        assert key not in kept[2]
        with open_page(browser, str(guarded.base_url)) as other:
            expect(other.get_by_role("dialog")).to_be_visible()


def test_a_quota_that_is_used_up_counts_down(browser: Browser, guarded: httpx.Client):
    while guarded.get("/v1/info").status_code == 200:
        pass
    with open_page(browser, str(guarded.base_url)) as page:
        page.get_by_label("Key", exact=True).fill(guarded.headers["X-API-Key"])
        page.keyboard.press("Enter")
        assert "Asking again in" in problem(page, "quota_exceeded")


def test_a_new_version_is_said_in_a_quiet_line(browser: Browser, tmp_path: Path):
    build_gallery(tmp_path / "a", tmp_path, plain_rows()[:3], "default")
    settings = Settings(data_dir=tmp_path, workers=1, index_poll_interval_s=0.1)
    with open_client(settings) as client, open_page(browser, str(client.base_url)) as page:
        expect(page.locator("#index-line")).to_contain_text("default, v000001 · 3 entries")
        shutil.rmtree(tmp_path / "a")
        build_gallery(tmp_path / "a", tmp_path, plain_rows()[:5], "default")
        client_sees = "/v1/indexes/default"
        while client.get(client_sees).json()["version"] == "v000001":
            pass
        give(page, "p.png", encode(draw_picture(2)))
        wait_for_answer(page)
        expect(page.locator("#index-line")).to_contain_text("The index has a new version, v000002.")
        page.get_by_role("button", name="Reload").click()
        expect(page.locator("#index-line")).to_contain_text("default, v000002 · 5 entries")


def test_the_lines_to_copy_run_with_the_key_of_the_shell_and_do_not_show_it(
    browser: Browser, page_data: Path, tmp_path: Path
):
    key = new_key()
    digest = digest_of(key.encode())
    add_entry(tmp_path / "keys.json", Key(name="reader", scope=Scope.READ, sha256=digest))
    picture = encode(draw_picture(2))
    (tmp_path / "p.png").write_bytes(picture)
    settings = Settings(data_dir=page_data, keys_file=tmp_path / "keys.json", workers=1)
    with (
        open_client(settings) as client,
        open_page(browser, str(client.base_url)) as page,
    ):
        page.get_by_label("Key", exact=True).fill(key)
        page.keyboard.press("Enter")
        expect(page.locator(".welcome")).to_be_visible()
        give(page, "p.png", picture)
        wait_for_answer(page)
        for place in (page.locator(".in-words"), page.locator("dialog.drawer")):
            for name, program in (("curl", ["bash", "-c"]), ("Python", [sys.executable, "-c"])):
                place.get_by_role("button", name=name).click()
                line = page.locator("dialog pre").text_content() or ""
                page.keyboard.press("Escape")
                assert key not in line
                done = subprocess.run(
                    [*program, line],
                    cwd=tmp_path,
                    env={**os.environ, "LIPSIM_KEY": key},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                assert "folder/p02" in done.stdout
            if page.locator("dialog").count() == 0:
                page.locator(".result").first.click()
                expect(page.locator("dialog.drawer .fields").first).to_be_visible()
