"""How quick the page of `comfypin serve` is in a real browser: Debian's Chromium without a window, on loopback.

    python -m bench.page [--loads 7] [--outputs 10000] [--jobs 1000] [--seconds 8]

Prints the first paint of a browser that is signed in and has nothing of the page yet, the times between frames while
all outputs scroll by and while a job runs before many that wait, the heap of the scripts before and after, and the
size of the page. Exits with 1 if a promise is broken. Chromium draws in software here: a screen's frames are quicker.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page

from comfypin.server.page_files import load_page_files
from tests.support.browser import WIDE, a_browser, heap_bytes, opened
from tests.support.many_outputs import copy_outputs
from tests.support.server import Server, serving
from tests.support.waiting_jobs import leave_waiting
from tests.support.workflows import picture, slow

MOST_PAINT_MS, MOST_FRAME_P95_MS, MOST_HEAP_GROWTH_MB, MOST_PAGE_KB = 300, 50, 15, 100

# Milliseconds between frames; each frame scrolls a little further, as a wheel does.
FRAMES = """async ([seconds, step]) => {
  const frames = [], began = performance.now();
  let last = began;
  while (last - began < seconds * 1000) {
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    frames.push(now - last);
    last = now;
    if (step) scrollBy(0, step);
  }
  return frames;
}"""
# null until the frame that painted it is shown, which may be after the list is in the page.
FIRST_PAINT = """() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"""
SCROLL_TO_THE_END = """async () => {
  let still = 0, height = 0;
  while (still < 40) {
    scrollTo(0, document.documentElement.scrollHeight);
    await new Promise(requestAnimationFrame);
    const now = document.documentElement.scrollHeight;
    still = now === height ? still + 1 : 0;
    height = now;
  }
}"""


def say(what: str, value: float, unit: str, most: float) -> bool:
    print(f"{what}: {value:.1f} {unit} (at most {most:g}){'' if value <= most else '  BROKEN'}", flush=True)
    return value <= most


def first_paints(browser: Browser, server: Server, loads: int) -> list[float]:
    """Load the page anew in fresh browsers that hold its session."""
    with opened(browser, server.url) as (page, _):
        cookies = page.context.cookies()
    paints = []
    for _ in range(loads):
        context = browser.new_context(viewport=WIDE)
        context.add_cookies(cookies)  # type: ignore[arg-type]  # as they were read
        page = context.new_page()
        page.goto(server.url)
        page.locator(".ended, .empty").first.wait_for()
        paints.append(float(page.wait_for_function(FIRST_PAINT).json_value()))
        context.close()
    return paints


def frame_promise(what: str, frames: list[float]) -> bool:
    p50, p95 = statistics.median(frames), statistics.quantiles(frames, n=20)[-1]
    print(f"{what}: frame p50 {p50:.1f} ms, p95 {p95:.1f} ms, worst {max(frames):.0f} ms ({len(frames)} frames)")
    return say(f"{what}, p95", p95, "ms", MOST_FRAME_P95_MS)


def heap_promise(what: str, before: float, after: float) -> bool:
    print(f"{what}: heap {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after")
    return say(f"{what}, heap's growth", (after - before) / 1e6, "MB", MOST_HEAP_GROWTH_MB)


def scroll_gallery(page: Page, server: Server, arguments: argparse.Namespace) -> list[bool]:
    page.goto(f"{server.url}/#/gallery")
    page.locator(".shot").first.wait_for()
    before = heap_bytes(page)
    frames = page.evaluate(FRAMES, [arguments.seconds, 60])
    page.evaluate(SCROLL_TO_THE_END)
    after = heap_bytes(page)
    what = f"gallery of {arguments.outputs} outputs"
    return [frame_promise(what, frames), heap_promise(what, before, after)]


def watch_queue(browser: Browser, home: Path, arguments: argparse.Namespace) -> list[bool]:
    busy: list[object] = [{"workflow": slow(4_000, size=512)}]
    leave_waiting(home / "state", busy + [{"workflow": picture(place)} for place in range(arguments.jobs)])
    with (
        serving(home, "--concurrency", "1", "--max-waiting", "100000") as server,
        opened(browser, server.url) as (page, _),
    ):
        page.locator(".running").wait_for()
        page.locator(".lines .place").first.wait_for()
        before = heap_bytes(page)
        frames = page.evaluate(FRAMES, [arguments.seconds, 0])
        after = heap_bytes(page)
        server.kill()  # its engine would finish the step that it is at
    what = f"queue with {arguments.jobs} jobs"
    return [frame_promise(what, frames), heap_promise(what, before, after)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", type=int, default=7)
    parser.add_argument("--outputs", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=8)
    arguments = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    size_kb = sum(len(page_file.zipped) for page_file in load_page_files().values()) / 1000
    kept = [say("the page, compressed", size_kb, "kB", MOST_PAGE_KB)]
    with tempfile.TemporaryDirectory(prefix="comfypin-bench-") as work, a_browser() as browser:
        print(f"Chromium {browser.version}")
        (gallery_home := Path(work) / "gallery").mkdir()
        with serving(gallery_home) as server:
            server.post("/runsync", {"input": {"workflow": picture(7, size=96)}})
            paints = first_paints(browser, server, arguments.loads)
            print(f"first paint: {', '.join(f'{paint:.0f}' for paint in paints)} ms")
            kept.append(say("first paint, median", statistics.median(paints), "ms", MOST_PAINT_MS))
            copy_outputs(server.home / "state", arguments.outputs)
            with opened(browser, server.url) as (page, _):
                kept += scroll_gallery(page, server, arguments)
        kept += watch_queue(browser, Path(work) / "queue", arguments)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
