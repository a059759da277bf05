"""A real browser on the page of a real service."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from programs import require_program
from service_helpers import ABSENT, draw_picture, run_builder

PICTURES = 24
WAIT_MS = 20_000
EDITED = 3
"""The picture of the gallery that the first example is a copy of."""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Debian's Chromium: nothing is downloaded, and no other browser is tried."""
    program = require_program("chromium")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page in a profile of its own, which must not have said an error by the end."""
    options = {"viewport": {"width": 1300, "height": 900}, **options}
    with browser.new_context(**options) as context:
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if is_policy(said.text) else None)
        page.goto(url)
        yield page
        assert errors == []


def is_policy(text: str) -> bool:
    """Whether a line of the console is about something that the page's policy refused."""
    return "Content Security Policy" in text


def wait_for_answer(page: Page) -> None:
    page.wait_for_selector(".area:not([aria-busy]) .results .result[data-id]")


def build_gallery(folder: Path, data_dir: Path, rows: list[dict[str, Any]], index: str) -> None:
    """Index drawn pictures under the ids and metadata of the rows."""
    folder.mkdir()
    lines = []
    for seed, row in enumerate(rows):
        draw_picture(seed).save(folder / f"{seed}.jpg", quality=92, exif=row.pop("exif", b""))
        lines.append(json.dumps({"path": f"{seed}.jpg", **row}))
    (folder / "list.jsonl").write_text("\n".join(lines))
    run_builder("build", folder / "list.jsonl", "--data-dir", data_dir, "--index", index)


def calibrate_gallery(folder: Path, data_dir: Path) -> None:
    """Operating points of copies of its pictures, and of drawn pictures that are not in it."""
    folder.mkdir()
    rows = ["path,id"]
    for seed, row in enumerate(plain_rows()):
        draw_picture(seed, 80, 60).save(folder / f"{seed}.png")
        rows.append(f"{seed}.png,{row['id']}")
    for seed in range(1000, 1000 + ABSENT):
        draw_picture(seed, 40, 30).save(folder / f"{seed}.png")
        rows.append(f"{seed}.png,")
    (folder / "pairs.csv").write_text("\n".join(rows))
    run_builder("calibrate", "--pairs", folder / "pairs.csv", "--data-dir", data_dir)


def plain_rows() -> list[dict[str, Any]]:
    return [
        {
            "id": f"folder/p{seed:02}",
            "title": f"Picture {seed}",
            "kind": ("even", "odd")[seed % 2],
        }
        for seed in range(PICTURES)
    ]


def save_examples(folder: Path) -> None:
    """Edited copies of pictures of the gallery, and a file that is no picture."""
    folder.mkdir()
    draw_picture(EDITED).resize((120, 90), Image.Resampling.LANCZOS).save(folder / "a-smaller.png")
    draw_picture(5).save(folder / "b-recompressed.jpg", quality=40)
    (folder / "notes.json").write_text("{}")
