"""The page's gallery and lightbox, its forms, and the report of the machine, in a real browser."""

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import ROOT
from tests.support.browser import PHONE, a_browser, axe_violations, count_nodes, opened, overflow_pixels, wait_until
from tests.support.many_outputs import copy_outputs
from tests.support.server import Server, serving
from tests.support.workflows import picture

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.xdist_group("page")]

MANY = 10_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("gallery")
    with serving(home, "--sync", str(home / "bucket")) as running:
        for color in (0x335577, 0x774433, 0x557733):
            running.post("/runsync", {"input": {"workflow": picture(color, size=96, prefix=f"sky{color}")}})
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as running:
        yield running


def test_outputs_are_a_wall_and_each_opens_alone(server: Server, browser: Browser) -> None:
    with opened(browser, f"{server.url}/#/gallery") as (page, wrongs):
        shots = page.locator(".shot")
        expect(shots).to_have_count(3)
        assert axe_violations(page) == []
        shots.first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        lightbox = page.get_by_role("dialog")
        expect(lightbox).to_contain_text("2/3")
        wait_until(page, "document.querySelector('img.light-media').naturalWidth > 0")
        # A small picture grows, but not to the window's size.
        assert page.evaluate("document.querySelector('img.light-media').getBoundingClientRect().width") == 3 * 96
        assert axe_violations(page) == []
        page.keyboard.press("ArrowRight")
        expect(lightbox).to_contain_text("3/3")
        page.keyboard.press("c")
        expect(lightbox).to_contain_text("2/3")  # beside its neighbour, not beside itself
        page.keyboard.press("ArrowLeft")
        expect(lightbox.locator("img.light-media")).to_have_count(2)
        page.keyboard.press("+")
        expect(lightbox.locator("img.is-zoomed")).to_have_count(2)
        with page.expect_download() as download:
            lightbox.get_by_role("link", name="Download").click()
        assert download.value.suggested_filename.endswith(".png")
        page.keyboard.press("Escape")
        expect(lightbox).to_have_count(0)
        assert wrongs == []


def test_what_a_job_leaves_meanwhile_comes_to_the_front(server: Server, browser: Browser) -> None:
    with opened(browser, f"{server.url}/#/gallery") as (page, wrongs):
        shots = page.locator(".shot")
        expect(shots.first).to_be_visible()
        before = shots.count()
        server.post("/runsync", {"input": {"workflow": picture(0x111111, size=96, prefix="fresh")}})
        expect(shots).to_have_count(before + 1)
        expect(shots.first).to_have_accessible_name("fresh_00001_.png, From the API")
        page.get_by_role("searchbox").fill("fresh")
        expect(shots).to_have_count(1)
        page.get_by_role("searchbox").fill("nothing of the kind")
        expect(page.get_by_text("Nothing found")).to_be_visible()
        page.get_by_role("button", name="Show all").click()
        expect(shots).to_have_count(before + 1)
        assert wrongs == []


def test_a_workflow_runs_from_its_form_and_shows_its_picture(server: Server, browser: Browser) -> None:
    with opened(browser, f"{server.url}/#/run", viewport=PHONE) as (page, wrongs):
        form = page.get_by_role("form", name="demo")
        expect(form).to_be_visible()
        assert axe_violations(page) == []
        assert overflow_pixels(page) == 0
        form.get_by_label("Width").first.fill("64")
        form.get_by_role("button", name="Run").click()
        result = page.get_by_role("article").first
        expect(result.get_by_text("Done")).to_be_visible()
        expect(result.locator(".tile img")).to_be_visible()
        assert axe_violations(page) == []
        assert wrongs == []


def test_everything_on_the_way_to_a_picture_goes_by_keyboard(server: Server, browser: Browser) -> None:
    with opened(browser, server.url) as (page, wrongs):
        page.locator(".brand").focus()
        page.keyboard.press("3")
        expect(page.get_by_role("form", name="demo")).to_be_visible()
        page.get_by_role("form", name="demo").get_by_label("Width").first.focus()
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type("80")
        page.keyboard.press("Enter")
        expect(page.get_by_role("article").get_by_text("Done")).to_be_visible()
        page.get_by_role("article").get_by_role("link").first.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="demo", level=1)).to_be_visible()
        page.keyboard.press("1")
        search_box = page.get_by_role("searchbox")
        expect(search_box).to_be_visible()
        page.keyboard.press("/")
        expect(search_box).to_be_focused()
        assert wrongs == []


def test_a_table_of_values_is_a_batch(server: Server, browser: Browser) -> None:
    with opened(browser, f"{server.url}/#/run") as (page, wrongs):
        drop(page, json.dumps(picture(1)), "mine.json")
        form = page.get_by_role("form", name="mine")
        form.get_by_text("Batch", exact=True).click()
        form.get_by_label("Table of values").fill("Width,HEIGHT\n64,32\n48,24\n32,16")
        form.get_by_role("button", name="Run 3 times").click()
        expect(page.get_by_role("article").get_by_text("Done")).to_have_count(3)
        sizes = {(one["width"], one["height"]) for one in server.get("/outputs?limit=3")["outputs"]}
        assert sizes == {(64, 32), (48, 24), (32, 16)}
        expect(page.get_by_text("width 48, height 24")).to_have_count(1)
        form.get_by_label("Table of values").fill("nonsense\n1")
        expect(page.get_by_text("The table's column nonsense is not an input")).to_contain_text("width, height,")
        form.get_by_label("Table of values").fill("Width,BATCH SIZE\n64,1\n64,99999")
        expect(page.get_by_text("Line 3, BATCH SIZE: 99999 is more than 4096, the most.")).to_be_visible()
        assert wrongs == []


def test_a_forms_values_are_kept_as_a_preset(server: Server, browser: Browser) -> None:
    with opened(browser, f"{server.url}/#/run") as (page, wrongs):
        form = page.get_by_role("form", name="demo")
        form.get_by_label("Width").first.fill("96")
        form.get_by_text("Batch", exact=True).click()
        form.get_by_label("Table of values").fill("height\n32\n48")
        form.get_by_label("Name of a preset").fill("small ones")
        form.get_by_role("button", name="Save").click()
        page.reload()
        form.get_by_label("Width").first.fill("512")
        form.get_by_text("Batch", exact=True).click()
        form.get_by_role("combobox", name="Presets").select_option("small ones")
        expect(form.get_by_label("Width").first).to_have_value("96")
        expect(form.get_by_role("button", name="Run 2 times")).to_be_visible()
        assert axe_violations(page) == []
        form.get_by_role("button", name="Delete").click()
        expect(form.get_by_role("combobox", name="Presets")).to_have_count(0)
        assert wrongs == []


def test_the_gallery_shows_what_was_made_on_a_day(server: Server, browser: Browser) -> None:
    with opened(browser, f"{server.url}/#/gallery") as (page, wrongs):
        shots = page.locator(".shot")
        expect(shots.first).to_be_visible()
        count = shots.count()
        page.get_by_label("Made when").select_option("Today")
        expect(shots).to_have_count(count)
        page.get_by_label("Made when").select_option("One day")
        page.get_by_label("One day").fill("2020-02-29")
        expect(page.get_by_text("Nothing found")).to_be_visible()
        assert axe_violations(page) == []
        assert wrongs == []


def test_outputs_of_jobs_that_failed_are_a_filter(server: Server, browser: Browser) -> None:
    with sqlite3.connect(server.home / "state" / "jobs.sqlite") as database:
        (job_id,) = database.execute("SELECT job_id FROM job_outputs ORDER BY number LIMIT 1").fetchone()
        database.execute("UPDATE jobs SET state = 'FAILED' WHERE id = ?", (job_id,))
    with opened(browser, f"{server.url}/#/gallery") as (page, wrongs):
        page.get_by_label("All states").select_option("Failed")
        expect(page.locator(".shot")).to_have_count(1)
        page.locator(".shot").click()
        expect(page.get_by_role("dialog").get_by_role("link", name="Details")).to_have_attribute(
            "href", f"#/job/{job_id}"
        )
        assert wrongs == []


def test_a_video_shows_its_first_picture_where_the_server_can_draw_none(server: Server, browser: Browser) -> None:
    server.post("/runsync", {"input": {"workflow": picture(5, size=96, prefix="moving")}})
    with sqlite3.connect(server.home / "state" / "jobs.sqlite") as database:
        number, path = database.execute("SELECT number, uri FROM job_outputs ORDER BY number DESC LIMIT 1").fetchone()
        facts = ("video", "video/webm", "moving.webm", "f" * 64, number)
        database.execute(
            "UPDATE job_outputs SET kind = ?, media_type = ?, filename = ?, sha256 = ? WHERE number = ?", facts
        )
    Path(path).write_bytes((ROOT / "tests" / "data" / "saved" / "webm.webm").read_bytes())
    with opened(browser, f"{server.url}/#/gallery") as (page, wrongs):
        tile = page.get_by_role("button", name="moving.webm")
        wait_until(page, "document.querySelector('.shot video')?.readyState >= 2")
        assert axe_violations(page) == []
        tile.click()
        expect(page.locator("video.light-media")).to_be_visible()
        wait_until(page, "document.querySelector('video.light-media').videoWidth > 0")
        assert wrongs == []


@pytest.mark.parametrize("size", [(390, 844), (3840, 2160)])
def test_each_view_fits_a_phone_and_the_largest_screen(server: Server, browser: Browser, size: tuple[int, int]) -> None:
    viewport = {"width": size[0], "height": size[1]}
    with opened(browser, server.url, viewport=viewport, locale="ru-RU") as (page, wrongs):
        ended = server.get("/jobs?state=COMPLETED&limit=1")["jobs"][0]["id"]
        for route, shown in (
            ("queue", ".ended"),
            ("gallery", ".shot"),
            ("run", ".form"),
            ("system", ".chart"),
            (f"job/{ended}", ".tile"),
        ):
            page.goto(f"{server.url}/#/{route}")
            expect(page.locator(shown).first).to_be_visible()
            assert overflow_pixels(page) == 0, route
            assert page.evaluate(MOST_RIGHT, shown) <= size[0], route
            assert axe_violations(page) == [], route
        page.goto(f"{server.url}/#/gallery")
        page.locator(".shot").first.click()
        expect(page.locator(".light-media")).to_be_visible()
        assert axe_violations(page) == []
        # Texts grow with the screen: nobody reads 14 pixels out of 3840.
        body_pixels = page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)")
        assert body_pixels == pytest.approx(14 if size[0] < 700 else 22.4)
        assert wrongs == []


def test_a_foreign_workflow_is_checked_and_what_is_missing_is_named(server: Server, browser: Browser) -> None:
    foreign = {
        "nodes": [
            {
                **{"id": 1, "type": "FaceDetailer", "pos": [0, 0], "mode": 0},
                **{"inputs": [], "outputs": [], "widgets_values": []},
                "properties": {"cnr_id": "comfyui-impact-pack", "ver": "8.1.0"},
            },
        ],
        "links": [],
        "version": 0.4,
    }
    with opened(browser, f"{server.url}/#/run") as (page, wrongs):
        drop(page, json.dumps(foreign), "face.json")
        expect(page.get_by_text("Cannot run here as it stands")).to_be_visible()
        expect(page.get_by_text("comfyui-impact-pack").first).to_be_visible()
        # It is in the list as long as nobody removes it, also after the page was loaded again.
        page.reload()
        expect(page.get_by_text("Cannot run here as it stands")).to_be_visible()
        assert axe_violations(page) == []
        assert wrongs == []


def test_a_wrong_value_is_not_hidden_among_the_other_settings(server: Server, browser: Browser) -> None:
    made = server.post("/workflows/demo?wait=60000", {"Out of focus.width": 48})
    graph = server.get(f"/jobs/{made['id']}/workflow")
    node = next(node for node in graph.values() if node["class_type"] == "ImageBlend")
    node["inputs"]["blend_factor"] = 7.0
    with opened(browser, f"{server.url}/#/run") as (page, wrongs):
        drop(page, json.dumps(graph), "blended.json")
        expect(page.get_by_text("Cannot run here as it stands")).to_be_visible()
        form = page.get_by_role("form", name="blended")
        expect(form.get_by_label("blend factor").first).to_be_visible()
        assert wrongs == []


def test_a_finding_goes_when_its_value_is_mended_and_lists_have_the_files_name(
    server: Server, browser: Browser
) -> None:
    graph = picture(9, size=96, prefix="scaled")
    scale = {"image": ["1", 0], "upscale_method": "sharp", "width": 64, "height": 64, "crop": "disabled"}
    graph["3"] = {"class_type": "ImageScale", "inputs": scale}
    graph["2"]["inputs"]["images"] = ["3", 0]
    with opened(browser, f"{server.url}/#/run") as (page, wrongs):
        drop(page, json.dumps(graph), "my scale.json")
        expect(page.get_by_text("Cannot run here as it stands")).to_be_visible()
        form = page.get_by_role("form", name="my scale")
        expect(form.get_by_role("button", name="Run")).to_be_disabled()
        form.get_by_label("upscale method").select_option("bicubic")
        expect(page.get_by_text("Cannot run here as it stands")).to_have_count(0)
        assert axe_violations(page) == []
        form.get_by_role("button", name="Run").click()
        expect(page.get_by_role("article").get_by_text("Done")).to_be_visible()
        assert server.get("/jobs?limit=1")["jobs"][0]["workflow"] == "my scale"
        page.get_by_role("button", name="Remove my scale").click()
        expect(page.get_by_role("link", name="my scale", exact=True).and_(page.locator(".run-name"))).to_have_count(0)
        assert wrongs == []


def test_a_picture_with_its_workflow_in_it_runs_again(server: Server, browser: Browser) -> None:
    made = server.get_bytes("/" + server.get("/outputs?text=sky&limit=1")["outputs"][0]["href"])
    with opened(browser, f"{server.url}/#/run") as (page, wrongs):
        page.locator(".drop input[type=file]").set_input_files(
            {"name": "made.png", "mimeType": "image/png", "buffer": made}
        )
        expect(page.get_by_text("Runs on this server")).to_be_visible()
        page.get_by_role("form", name="made").get_by_role("button", name="Run").click()
        expect(page.get_by_role("article").get_by_text("Done")).to_be_visible()
        assert wrongs == []


def test_the_workflow_of_a_picture_opens_as_a_form_with_what_was_set(server: Server, browser: Browser) -> None:
    server.post("/workflows/demo?wait=60000", {"Out of focus.width": 40})
    with opened(browser, f"{server.url}/#/gallery") as (page, wrongs):
        page.locator(".shot").first.click()
        page.get_by_role("dialog").get_by_role("link", name="Change and run").click()
        form = page.get_by_role("form", name="demo")
        expect(form.get_by_role("group", name="Out of focus").get_by_label("Width")).to_have_value("40")
        # As the server's own, which has the files that lie beside it.
        expect(form.get_by_role("button", name="Run")).to_be_enabled()
        expect(page.locator(".run-entry")).to_have_count(1)
        assert axe_violations(page) == []
        assert wrongs == []


def test_in_russian_what_a_workflow_lacks_is_said_in_russian(server: Server, browser: Browser) -> None:
    foreign = {"1": {"class_type": "FaceDetailer", "inputs": {}}}
    with opened(browser, f"{server.url}/#/run", locale="ru-RU") as (page, wrongs):
        drop(page, json.dumps(foreign), "face.json")
        expect(page.get_by_text("ноды FaceDetailer здесь нет")).to_be_visible()
        drop(page, "[1]", "not.json")
        expect(page.get_by_role("status").last).to_contain_text("Это не воркфлоу ComfyUI:")
        assert wrongs == []


def test_a_webhook_that_could_not_be_told_is_tried_again(server: Server, browser: Browser) -> None:
    with sqlite3.connect(server.home / "state" / "jobs.sqlite") as database:
        (job_id,) = database.execute("SELECT id FROM jobs ORDER BY number LIMIT 1").fetchone()
        facts = (job_id, "end", "hooks.example", 1, "HTTP 500", time.time(), "http://127.0.0.1:9/", "{}")
        columns = "job_id, kind, host, events, reason, failed_at, address, body"
        database.execute(f"INSERT INTO webhook_failures ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", facts)
    with opened(browser, f"{server.url}/#/system") as (page, wrongs):
        failed = page.get_by_role("region", name="Webhooks not delivered")
        expect(failed).to_contain_text("hooks.example")
        expect(failed).to_contain_text("HTTP 500")
        assert axe_violations(page) == []
        with page.expect_response(lambda answer: answer.url.endswith("/retry")) as retried:
            failed.get_by_role("button", name="Post to hooks.example again").click()
        assert retried.value.json()["delivered"] is False
        assert wrongs == []


def test_the_system_says_what_it_has_and_owes(server: Server, browser: Browser) -> None:
    with opened(browser, f"{server.url}/#/system") as (page, wrongs):
        sync = page.get_by_role("region", name="Sync")
        expect(sync).to_contain_text(str(server.home / "bucket"))
        expect(page.get_by_role("region", name="Release")).to_contain_text("demo")
        expect(page.get_by_role("img", name="Jobs ended")).to_be_visible()
        assert axe_violations(page) == []
        assert wrongs == []


def test_the_description_of_the_api_needs_no_other_host(server: Server, browser: Browser) -> None:
    with opened(browser, server.url) as (page, wrongs):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{server.url}/docs")
        page.get_by_text("/runsync").first.click()
        page.get_by_text("/workflow-check").click()
        expect(page.get_by_text("curl").first).to_be_visible()
        assert all(url.startswith(server.url) for url in asked)
        page.get_by_role("button", name="RU: русский").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("API comfypin")
        expect(page.get_by_text("Выполнится ли здесь воркфлоу").first).to_be_visible()
        expect(page.get_by_text("Запустить demo")).to_be_visible()
        page.get_by_role("searchbox").fill("отменить")
        expect(page.get_by_text("/purge-queue")).to_be_visible()
        expect(page.get_by_text("/runsync")).to_have_count(0)
        assert axe_violations(page) == []
        assert wrongs == []


def test_ten_thousand_outputs_keep_the_page_small(tmp_path: Path, browser: Browser) -> None:
    with serving(tmp_path) as server:
        server.post("/runsync", {"input": {"workflow": picture(7, size=96)}})
        copy_outputs(tmp_path / "state", MANY)
        with opened(browser, f"{server.url}/#/gallery") as (page, wrongs):
            expect(page.locator(".shot").first).to_be_visible()
            most_tiles = page.evaluate(SCROLL_DOWN, MANY)
            assert most_tiles < 400
            # Pictures that scrolled past before they came are let go too: they would stay in memory until they come.
            assert count_nodes(page) < 3000
            assert wrongs == []


# The right edge of what stands furthest to the right.
MOST_RIGHT = (
    """(shown) => Math.max(...[...document.querySelectorAll(shown)].map((one) => one.getBoundingClientRect().right))"""
)

# Scrolls until all outputs were loaded, and returns the most tiles that there were at once.
SCROLL_DOWN = """async (many) => {
  let most = 0, still = 0, height = 0;
  while (still < 60) {
    scrollTo(0, document.documentElement.scrollHeight);
    await new Promise((done) => setTimeout(done, 20));
    most = Math.max(most, document.querySelectorAll('.shot').length);
    const now = document.documentElement.scrollHeight;
    still = now === height ? still + 1 : 0;
    height = now;
  }
  return most;
}"""


def drop(page: Page, text: str, name: str) -> None:
    """Choose a file for the page to check."""
    page.locator(".drop input[type=file]").set_input_files(
        {"name": name, "mimeType": "application/json", "buffer": text.encode()}
    )
