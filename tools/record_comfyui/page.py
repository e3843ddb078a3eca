"""ComfyUI's own page in a headless Chromium: it opens workflows and turns them into prompts."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, Route, sync_playwright

RECORDED_AT = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
"""What the page's clock says, for %date% and the like."""

_ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-default-apps", "--disable-sync", "--metrics-recording-only",
    "--no-first-run", "--mute-audio",
)  # fmt: skip
_START_S = 120
_CASE_S = 60

# The page loads a workflow, then says what it would send. Chance is off while it does, for {a|b} in texts.
_CONVERT = """
async (ui) => {
  const app = window.app ?? window.comfyAPI.app.app;
  const told = { load_error: null, page_error: null, api: null, missing_node_types: [] };
  try {
    await app.loadGraphData(ui, true, false, null, {
      showMissingNodesDialog: false, showMissingModelsDialog: false, silentAssetErrors: true,
    });
  } catch (problem) { told.load_error = String(problem); }
  const random = Math.random;
  Math.random = () => 0;
  try {
    told.api = (await app.graphToPrompt()).output;
  } catch (problem) { told.page_error = String(problem); }
  finally { Math.random = random; }
  const missing = new Set();
  const walk = (graph) => {
    for (const node of graph?._nodes ?? graph?.nodes ?? []) {
      if (node.has_errors) missing.add(node.type);
      if (node.subgraph) walk(node.subgraph);
    }
  };
  walk(app.rootGraph ?? app.graph);
  told.missing_node_types = [...missing].sort();
  return JSON.parse(JSON.stringify(told));
}
"""


class ComfyPage:
    """The page, ready to open workflows."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._console: list[str] = []
        page.on("console", lambda message: self._console.append(message.text) if message.type == "error" else None)

    def convert(self, workflow: Any) -> dict[str, Any]:
        """Return what the page makes of a workflow: the prompt, or what went wrong."""
        self._console.clear()
        # As text: a workflow may hold what is no plain data to Playwright.
        told = self._page.evaluate(f"async (text) => ({_CONVERT})(JSON.parse(text))", json.dumps(workflow))
        return {**told, "console": list(self._console)}


@contextmanager
def open_page(url: str, chromium: Path) -> Iterator[ComfyPage]:
    """Open the page of a ComfyUI; nothing but that server can be reached from it."""
    host = urlsplit(url).netloc

    def only_the_server(route: Route) -> None:
        asked = urlsplit(route.request.url)
        if asked.netloc == host or asked.scheme in ("data", "blob"):
            route.continue_()
        else:
            route.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), headless=True, args=list(_ARGUMENTS))
        context = browser.new_context(locale="en-US", timezone_id="UTC", viewport={"width": 1600, "height": 900})
        context.route("**/*", only_the_server)
        page = context.new_page()
        page.clock.set_fixed_time(RECORDED_AT)
        page.set_default_timeout(_CASE_S * 1000)
        page.goto(url, timeout=_START_S * 1000)
        page.wait_for_function(
            "() => { const app = window.app ?? window.comfyAPI?.app?.app; "
            "return app?.graph && window.LiteGraph?.registered_node_types?.SaveImage; }",
            timeout=_START_S * 1000,
        )
        yield ComfyPage(page)
        browser.close()
