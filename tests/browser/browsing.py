"""Visits to pages with a real browser, each of which notices whatever is wrong with a page.

`Setting` is how somebody looks: with JavaScript or without, light or dark, on a phone or a wide screen. `Browsing.open`
gives a page of a visitor (logged out, reader, publisher or administrator), whose login is made once through the form.
`Watch` collects what must not be there: console errors (violations of the policy among them), exceptions, requests that
failed or went to another host.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, sync_playwright

from .demo_catalog import ADMINISTRATOR, PASSWORD, PUBLISHER, READER, Catalog

PROGRAM = "OSCIRC_CHROMIUM"
NOBODY = ""
VISITORS = (NOBODY, READER, PUBLISHER, ADMINISTRATOR)
TIMEOUT_MS = 30_000
PHONE, WIDE = (390, 844), (1440, 900)
GRAVE = ("serious", "critical")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--font-render-hinting=none"),
)
# What is wider than the screen although nobody may scroll there.
TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.querySelectorAll("body *")].filter((each) => each.getBoundingClientRect().right > width + 1)
    .slice(0, 5).map((each) => each.outerHTML.slice(0, 160));
}"""


@dataclass(frozen=True)
class Setting:
    """How somebody looks at pages."""

    javascript: bool = True
    scheme: str = "light"
    size: tuple[int, int] = WIDE

    @property
    def name(self) -> str:
        return f"{'js' if self.javascript else 'nojs'}-{self.scheme}-{self.size[0]}"


EVERY_SETTING = tuple(
    Setting(javascript, scheme, size)
    for javascript, scheme, size in itertools.product((True, False), ("light", "dark"), (PHONE, WIDE))
)


@dataclass
class Watch:
    """What went wrong on a page since it was made; `refused` may be the status of the one page that is refused."""

    page: Page
    host: str
    wrong: list[str] = field(default_factory=list)
    refused: int = 0

    def __post_init__(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"exception: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        told_twice = self.refused and f"status of {self.refused}" in message.text
        if message.type in ("error", "warning") and not told_twice:
            self.wrong.append(f"console {message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).netloc != self.host:
            self.wrong.append(f"another host: {request.url}")

    def _failed(self, request: Request) -> None:
        if not (request.failure == "net::ERR_ABORTED" and "/icon." in request.url):  # the walk went on before it came
            self.wrong.append(f"failed: {request.url} {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and response.status != self.refused:
            self.wrong.append(f"status {response.status}: {response.url}")


def usable_chromium() -> str:
    """The program's path; the test is skipped where there is none that can be driven."""
    found = os.environ.get(PROGRAM) or shutil.which("chromium")
    if found is None:
        pytest.skip(f"no Chromium is here: deploy/setup.sh tests installs Debian's; {PROGRAM}=PATH names another")
    if {"snap", "snapd"} & set(Path(found).resolve().parts):
        pytest.skip(f"{found} is a snap, which sees no profile outside its own folders; {PROGRAM}=PATH names another")
    return found


@contextlib.contextmanager
def launched(program: str) -> Iterator[Browser]:
    """A browser with a fresh profile; it asks nobody anything of its own."""
    with sync_playwright() as playwright:
        environment = {**os.environ, "LANGUAGE": "en"}
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS), env=environment)
        try:
            yield browser
        finally:
            browser.close()


class Browsing:
    """One browser on one catalog."""

    def __init__(self, browser: Browser, catalog: Catalog) -> None:
        self.browser = browser
        self.catalog = catalog
        self._cookies: dict[str, list[Mapping[str, object]]] = {NOBODY: []}

    @contextlib.contextmanager
    def context(self, setting: Setting, visitor: str = NOBODY) -> Iterator[BrowserContext]:
        """A profile of its own for a visitor, who is logged in."""
        if visitor not in self._cookies:
            self._cookies[visitor] = self._log_in(visitor)
        width, height = setting.size
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=setting.scheme,
            java_script_enabled=setting.javascript,
            locale="en-GB",
            timezone_id="UTC",
        )
        context.set_default_timeout(TIMEOUT_MS)
        context.add_cookies(self._cookies[visitor])
        try:
            yield context
        finally:
            context.close()

    @contextlib.contextmanager
    def open(self, setting: Setting = Setting(), visitor: str = NOBODY) -> Iterator[tuple[Page, Watch]]:
        """A page of a visitor, and what is wrong with what it showed."""
        with self.context(setting, visitor) as context:
            page = context.new_page()
            yield page, Watch(page, urlsplit(self.catalog.url).netloc)

    def _log_in(self, visitor: str) -> list[Mapping[str, object]]:
        with self.open(Setting(javascript=False)) as (page, watch):
            page.goto(f"{self.catalog.url}/account")
            page.fill("#name", visitor)
            page.fill("#password", PASSWORD)
            with page.expect_navigation():
                page.click("button[type=submit]")
            assert page.url == f"{self.catalog.url}/account", page.content()
            assert not watch.wrong
            return page.context.cookies()


def grave(page: Page) -> list[str]:
    """What axe finds that is serious or critical; it needs a page with JavaScript."""
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run({resultTypes: ['violations']}).then(found => found.violations)")
    return [
        f"axe {each['id']} ({each['impact']}): {node['target']} {node['html'][:200]}"
        for each in found
        if each["impact"] in GRAVE
        for node in each["nodes"][:3]
    ]


def copied(browser: Browser, url: str, tab: str) -> list[str]:
    """The lines of a tab of an image's page, as the button beside each puts them onto the clipboard."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(TIMEOUT_MS)
    try:
        page = context.new_page()
        page.goto(url)
        page.check(f"#way-{tab}", force=True)
        lines = []
        for button in page.locator(f"#panel-{tab} button[data-copy]").all():
            button.click()
            button.get_by_text("Copied").wait_for()
            lines.append(page.evaluate("navigator.clipboard.readText()"))
            assert lines[-1] == page.text_content(f"#{button.get_attribute('data-copy')}")
        return lines
    finally:
        context.close()
