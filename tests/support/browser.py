"""A real browser on the server's page: Debian's Chromium, driven by Playwright, watched for what goes wrong in it."""

import contextlib
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.conftest import ROOT
from tests.support.server import TOKEN

AXE = ROOT / "tests" / "data" / "page" / "axe.min.js"
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
# As long as the page's own default here: a job beside other tests may take a while.
expect.set_options(timeout=15_000)
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def a_browser() -> Iterator[Browser]:
    """A running Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(
    browser: Browser, url: str, *, is_signed_in: bool = True, **context_options: Any
) -> Iterator[tuple[Page, list[str]]]:
    """The page in a context of its own, and what went wrong in it: exceptions, and what its policy refused."""
    options: dict[str, Any] = {"viewport": WIDE, "color_scheme": "dark", "locale": "en-US", **context_options}
    context = browser.new_context(**options)
    wrongs: list[str] = []

    def note(message: ConsoleMessage) -> None:
        # A thumbnail that there cannot be, and a wrong token, are answers and no mistakes.
        if message.type == "error" and "Failed to load resource" not in message.text:
            wrongs.append(message.text)

    try:
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", note)
        page.on("pageerror", lambda error: wrongs.append(str(error)))
        page.goto(url)
        if is_signed_in:
            sign_in(page)
        yield page, wrongs
    finally:
        context.close()


def sign_in(page: Page, token: str = TOKEN) -> None:
    """Sign in by the form."""
    page.get_by_label("Token", exact=True).or_(page.get_by_label("Токен", exact=True)).fill(token)
    page.keyboard.press("Enter")
    page.locator(".top").wait_for()


def axe_violations(page: Page) -> list[str]:
    """What axe finds: each rule that is broken, with the first element that breaks it."""
    # Not as a script element, which the page's policy refuses.
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0]['failureSummary'][:300]}" for one in found]


def overflow_pixels(page: Page) -> int:
    """By how much the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def count_nodes(page: Page) -> int:
    """The nodes that the browser holds, whether they are shown or not."""
    return _metric_after_collection(page, "Nodes")


def heap_bytes(page: Page) -> int:
    """What the page's scripts hold in memory."""
    return _metric_after_collection(page, "JSHeapUsedSize")


def _metric_after_collection(page: Page, name: str) -> int:
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    session.send("HeapProfiler.collectGarbage")
    metrics = session.send("Performance.getMetrics")["metrics"]
    session.detach()
    return next(int(one["value"]) for one in metrics if one["name"] == name)


def wait_until(page: Page, condition: str) -> None:
    """Wait until a JavaScript expression is true.

    Playwright's own `wait_for_function` evaluates a text again and again, which the page's policy forbids.
    """
    for _ in range(600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not so after 30 s: {condition}")
