"""Takes the pictures of docs/page.md: `python -m tests.support.screenshots docs/pictures` (`make screenshots`)."""

import base64
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page

from tests.conftest import ROOT
from tests.support.browser import PHONE, WIDE, a_browser, opened
from tests.support.fleets import serving_fleet, working
from tests.support.nats_servers import nats_server
from tests.support.server import Server, serving
from tests.support.workflows import slow

_DEMO = ROOT / "workflows" / "demo.png"
_COLORS = (0xF0C8A0, 0xA0C8F0, 0xC8F0A0, 0xF0A0C8, 0xFFFFFF, 0xC8A0F0)
_VIEWS = ("queue", "gallery", "lightbox", "run", "job", "failed", "system", "docs")


def crop_of(chance: random.Random) -> dict[str, Any]:
    """A workflow that cuts a piece out of the demo's picture, and tints it."""
    width, height = chance.choice([(320, 420), (480, 300), (400, 400), (560, 315), (300, 460)])
    with Image.open(_DEMO) as demo:
        place = {"x": chance.randrange(demo.width - width), "y": chance.randrange(max(1, demo.height - height))}
    tint = {"width": width, "height": height, "batch_size": 1, "color": chance.choice(_COLORS)}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "demo.png"}},
        "2": {"class_type": "ImageCrop", "inputs": {"image": ["1", 0], "width": width, "height": height, **place}},
        "3": {"class_type": "EmptyImage", "inputs": tint},
        "4": {
            "class_type": "ImageBlend",
            "inputs": {"image1": ["2", 0], "image2": ["3", 0], "blend_factor": 0.9, "blend_mode": "multiply"},
        },
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "landscape"}},
    }


def make_landscapes(server: Server) -> None:
    """Let the server make pictures."""
    chance = random.Random(5)
    images = [{"name": "demo.png", "image": base64.b64encode(_DEMO.read_bytes()).decode()}]
    for _ in range(28):
        server.post("/runsync", {"input": {"workflow": crop_of(chance), "images": images, "title": "Landscapes"}})


def fill(server: Server) -> str:
    """Give the server something to show; returns the job that is shown alone."""
    make_landscapes(server)
    server.post(
        "/runsync", {"input": {"workflow": {"1": {"class_type": "KSampler", "inputs": {}}}, "title": "Portrait"}}
    )
    return str(server.post("/workflows/demo?wait=60000")["id"])


def keep_busy(server: Server) -> None:
    """Let jobs run and wait, with previews."""
    server.post("/purge-queue")
    images = [{"name": "demo.png", "image": base64.b64encode(_DEMO.read_bytes()).decode()}]
    for place in range(5):
        graph = slow(2000)
        cut = {"image": ["0", 0], "width": 300, "height": 300, "x": 100 * place, "y": 200}
        graph |= {
            "0": {"class_type": "LoadImage", "inputs": {"image": "demo.png"}},
            "1": {"class_type": "ImageCrop", "inputs": cut},
        }
        server.post("/run", {"input": {"workflow": graph, "images": images, "title": "Soft light"}})


def show(page: Page, server: Server, view: str, job_id: str) -> None:
    """Go to a view and wait for its pictures."""
    failed = server.get("/jobs?state=FAILED&limit=1")["jobs"][0]["id"]
    routes = {"lightbox": f"gallery?show={job_id}/0", "job": f"job/{job_id}", "failed": f"job/{failed}"}
    page.goto(f"{server.url}/docs" if view == "docs" else f"{server.url}/#/{routes.get(view, view)}")
    awaited = {"lightbox": "img.light-media", "system": ".chart", "run": ".form", "job": ".tile", "gallery": ".shot"}
    awaited |= {"failed": ".remedy", "docs": ".docs summary", "queue": ".running-picture img"}
    page.locator(awaited[view]).first.wait_for()
    # Not those below the window: they are loaded when somebody scrolls.
    seen = "[...document.images].filter((image) => image.getBoundingClientRect().top < innerHeight)"
    page.evaluate(f"Promise.all({seen}.map((image) => image.decode().catch(() => null)))")


def take_all(browser: Browser, server: Server, folder: Path, job_id: str) -> None:
    """Write each view in both widths, and the workers of a fleet."""
    for width, viewport in ((1280, WIDE), (390, PHONE)):
        with opened(browser, server.url, viewport=viewport) as (page, _):
            keep_busy(server)
            for view in _VIEWS:
                show(page, server, view, job_id)
                save(page, folder / f"{view}-{width}.png")
        with opened(browser, server.url, viewport=viewport, is_signed_in=False) as (page, _):
            page.get_by_label("Token", exact=True).wait_for()
            save(page, folder / f"signin-{width}.png")


def take_fleet(browser: Browser, home: Path, folder: Path) -> None:
    """Write the page of a fleet with two workers."""
    with (
        nats_server(home) as nats,
        serving_fleet(home / "serve", nats.address) as server,
        working(home / "one", nats.address),
        working(home / "two", nats.address, "--class", "rtx4090"),
    ):
        make_landscapes(server)
        for width, viewport in ((1280, WIDE), (390, PHONE)):
            with opened(browser, server.url, viewport=viewport) as (page, _):
                page.locator(".chip-warm").nth(1).wait_for()
                page.locator(".strip-image").first.wait_for()
                save(page, folder / f"workers-{width}.png")


def save(page: Page, path: Path) -> None:
    """Write what the page shows, in 256 colours: pictures of docs should be small."""
    page.screenshot(path=path)
    with Image.open(path) as taken:
        taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Take the pictures."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, a_browser() as browser:
        with serving(Path(home)) as server:
            take_all(browser, server, folder, fill(server))
        take_fleet(browser, Path(home), folder)


if __name__ == "__main__":
    main()
