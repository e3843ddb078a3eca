"""ComfyUI's own page in a headless Chromium: it opens workflows and turns them into prompts."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

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
    // Nodes may still grow inputs after loading: what counts is what the page goes on saying.
    let before = null;
    for (let turn = 0; turn < 20; turn++) {
      told.api = (await app.graphToPrompt()).output;
      const now = JSON.stringify(told.api);
      if (now === before) break;
      before = now;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
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


# A page that has just started opens a workflow of its own, sometime: over the one that it was given.
_SETTLED = """
async () => {
  const app = window.app ?? window.comfyAPI.app.app;
  const node = { id: 987654, type: 'SaveImage', pos: [0, 0], size: [200, 100], flags: {}, order: 0, mode: 0,
                 inputs: [], outputs: [], properties: {}, widgets_values: ['settled'] };
  const ui = { last_node_id: 987654, last_link_id: 0, nodes: [node], links: [], groups: [], config: {}, extra: {},
               version: 0.4 };
  await app.loadGraphData(ui, true, false, null, {});
  await new Promise((resolve) => setTimeout(resolve, 2000));
  return Boolean(app.graph.getNodeById(987654));
}
"""


class ComfyPage:
    """The page, ready to open workflows."""

    def __init__(self, page: "Page") -> None:
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
    from playwright.sync_api import sync_playwright

    host = urlsplit(url).netloc

    def only_the_server(route: "Route") -> None:
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
        while not page.evaluate(_SETTLED):
            print("the page opened a workflow of its own; once more", flush=True)
        yield ComfyPage(page)
        browser.close()
