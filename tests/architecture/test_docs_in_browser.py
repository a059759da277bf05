"""The site as a reader's browser has it: no request leaves this machine, no link is dead."""

import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from browser_tools import open_browser
from paths import ROOT
from playwright.sync_api import BrowserContext, Page, ProxySettings, Request, expect
from programs import require_program

LINKS = "all => all.map(one => one.href)"
IDS = "all => all.map(one => one.id)"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does, strictly: a link of ours that leads nowhere ends the build."""
    mkdocs = require_program("mkdocs", ROOT / ".docs" / "env" / "bin" / "mkdocs", "make docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [mkdocs, "build", "-q", "-d", folder],
        cwd=ROOT,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def context() -> Iterator[BrowserContext]:
    # A proxy that is not there gets what is not for this machine. (Playwright's own routes would
    # switch the browser's cache off.)
    nobody: ProxySettings = {"server": "http://127.0.0.1:9", "bypass": "127.0.0.1"}
    with open_browser() as browser, browser.new_context(proxy=nobody) as opened:
        opened.set_default_timeout(20_000)
        yield opened


@pytest.fixture
def asked(context: BrowserContext, url: str) -> Iterator[list[str]]:
    """Whatever is asked of anybody but the site's own server."""
    found: list[str] = []

    def watch(request: Request) -> None:
        if not request.url.startswith((f"{url}/", "data:", "blob:")):
            found.append(request.url)

    context.on("request", watch)
    yield found
    context.remove_listener("request", watch)


@pytest.mark.timeout(300)
def test_every_page_opens_without_a_request_to_another_host_and_every_link_leads_somewhere(
    site: Path, url: str, context: BrowserContext, asked: list[str]
):
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    ids: dict[str, set[str]] = {}
    links: set[tuple[str, str]] = set()
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix()
        page.goto(f"{url}/{name}", wait_until="load")
        ids[name] = set(page.locator("[id]").evaluate_all(IDS))
        links |= {(name, link) for link in page.locator("a[href]").evaluate_all(LINKS)}
    page.close()
    assert len(ids) > 60
    assert asked == []
    assert errors == []
    assert is_dead(f"{url}/no-page.html", site, url, ids)
    assert is_dead(f"{url}/index.html#no-place", site, url, ids)
    assert [link for link in sorted(links) if is_dead(link[1], site, url, ids)] == []


def is_dead(link: str, site: Path, url: str, ids: dict[str, set[str]]) -> bool:
    """Whether a link into the site has no file, or no place on its page."""
    where, place = urldefrag(link)
    if not where.startswith(f"{url}/"):
        return False
    name = unquote(urlsplit(where).path).lstrip("/") or "index.html"
    name = f"{name}index.html" if name.endswith("/") else name
    return not (site / name).is_file() or (place != "" and unquote(place) not in ids[name])


def test_what_a_reader_clicks_asks_nobody_else_either(
    url: str, context: BrowserContext, asked: list[str]
):
    page = context.new_page()
    page.goto(f"{url}/index.html")
    search(page)
    page.goto(f"{url}/openapi.html")
    page.locator(".opblock-summary").first.click()
    expect(page.locator(".opblock-body").first).to_be_visible()
    page.close()
    assert asked == []


def search(page: Page) -> None:
    page.locator(".md-search__input").click()
    page.keyboard.type("quarantine")
    expect(page.locator(".md-search-result__item").first).to_be_visible()


def test_a_request_to_another_host_would_be_seen(
    url: str, context: BrowserContext, asked: list[str]
):
    page = context.new_page()
    page.goto(f"{url}/index.html")
    page.evaluate("fetch('http://fonts.invalid/a.woff2').catch(() => null)")
    page.close()
    assert asked == ["http://fonts.invalid/a.woff2"]
