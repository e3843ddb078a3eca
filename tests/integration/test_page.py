"""The page of `comfypin serve` in a real browser: sign-in, the queue, a job."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from comfypin.server.page_files import load_page_files
from tests.support.browser import (
    PHONE,
    a_browser,
    axe_violations,
    count_nodes,
    heap_bytes,
    opened,
    overflow_pixels,
    sign_in,
)
from tests.support.server import TOKEN, Server, serving
from tests.support.waiting_jobs import leave_waiting
from tests.support.workflows import picture, slow

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.xdist_group("page")]

THOUSAND = 1_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("page")) as running:
        for color in (0x335577, 0x774433):
            running.post("/runsync", {"input": {"workflow": picture(color, size=96, prefix="sky")}})
        running.post("/runsync", {"input": {"workflow": {"1": {"class_type": "Nope", "inputs": {}}}}})
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as running:
        yield running


def test_the_token_is_asked_for_and_kept_from_scripts(server: Server, browser: Browser) -> None:
    with opened(browser, server.url, is_signed_in=False) as (page, wrongs):
        page.get_by_label("Token", exact=True).fill("not it")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("This is not the server's token.")
        assert axe_violations(page) == []
        sign_in(page)
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert TOKEN not in cookie["value"]
        assert page.evaluate("document.cookie") == ""
        page.reload()
        expect(page.locator(".top")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token", exact=True)).to_be_visible()
        page.reload()
        expect(page.get_by_label("Token", exact=True)).to_be_visible()
        assert wrongs == []


def test_a_session_outlives_the_server_and_no_page_of_another_site_may_use_it(server: Server, browser: Browser) -> None:
    with opened(browser, server.url) as (page, wrongs):
        (cookie,) = page.context.cookies()
        shown = {"Cookie": f"{cookie['name']}={cookie['value']}"}
        assert server.ask("GET", "/jobs", token=None, **shown)[0] == 200
        assert server.ask("POST", "/purge-queue", token=None, **shown)[0] == 401
        assert server.ask("POST", "/purge-queue", token=None, **shown, **{"Sec-Fetch-Site": "same-site"})[0] == 401
        assert server.ask("GET", "/jobs", token=None, **shown, **{"Sec-Fetch-Site": "cross-site"})[0] == 401
        assert server.ask("POST", "/purge-queue", token=None, **shown, **{"Sec-Fetch-Site": "same-origin"})[0] == 200
        server.stop()
        expect(page.locator(".live-lost")).to_be_visible()
        server.start()
        expect(page.locator(".live-lost")).to_have_count(0)
        assert server.ask("GET", "/jobs", token=None, **shown)[0] == 200
        assert wrongs == []


def test_a_job_moves_through_the_page_as_it_runs_and_can_be_cancelled(server: Server, browser: Browser) -> None:
    with opened(browser, server.url) as (page, wrongs):
        expect(page.get_by_role("region", name="Ended").get_by_role("listitem")).to_have_count(3)
        ids = [server.post("/run", {"input": {"workflow": slow(600)}})["id"] for _ in range(4)]
        expect(page.get_by_role("region", name="Running").get_by_role("article")).to_have_count(2)
        expect(page.get_by_role("region", name="Waiting").get_by_role("listitem")).to_have_count(2)
        # Two run, one of them in the engine.
        expect(page.get_by_role("region", name="Running")).to_contain_text("Waits for the engine")
        expect(page.get_by_role("progressbar").first).not_to_have_attribute("aria-valuenow", "0")
        expect(page.get_by_role("img", name="Live preview").first).to_be_visible()
        assert axe_violations(page) == []
        page.get_by_role("region", name="Running").get_by_role("button").first.click()
        expect(page.get_by_role("region", name="Waiting").get_by_role("listitem")).to_have_count(1)
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Cancel all").click()
        expect(page.get_by_role("region", name="Waiting")).to_have_count(0)
        page.get_by_role("region", name="Running").get_by_role("link").last.click()
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.locator(".mark")).to_have_text("Cancelled")
        for job_id in ids:
            server.post(f"/cancel/{job_id}")
        assert wrongs == []


def test_a_job_that_waits_is_let_run_next(server: Server, browser: Browser) -> None:
    with opened(browser, server.url) as (page, wrongs):
        ids = [server.post("/run", {"input": {"workflow": slow(900)}})["id"] for _ in range(5)]
        waiting = page.get_by_role("region", name="Waiting").get_by_role("listitem")
        expect(waiting).to_have_count(3)
        last = waiting.last.get_by_role("link").get_attribute("href")
        waiting.last.get_by_role("button", name="next").click()
        expect(waiting.first.get_by_role("link")).to_have_attribute("href", str(last))
        assert server.get(f"/jobs/{str(last).rpartition('/')[2]}")["position"] == 1
        waiting.first.get_by_role("button", name="last").click()
        expect(waiting.last.get_by_role("link")).to_have_attribute("href", str(last))
        assert axe_violations(page) == []
        for job_id in ids:
            server.post(f"/cancel/{job_id}")
        assert wrongs == []


def test_a_thousand_jobs_that_wait_are_one_page(tmp_path: Path, browser: Browser) -> None:
    busy: list[object] = [{"workflow": slow(2_000, size=512)}]
    leave_waiting(tmp_path / "state", busy + [{"workflow": picture(place)} for place in range(THOUSAND)])
    with serving(tmp_path, "--concurrency", "1") as server, opened(browser, server.url) as (page, wrongs):
        waiting = page.get_by_role("region", name="Waiting")
        expect(waiting.get_by_role("heading")).to_contain_text(str(THOUSAND))
        expect(waiting.get_by_role("listitem")).to_have_count(100)
        expect(waiting).to_contain_text("and 900 more")
        assert count_nodes(page) < 6_000
        assert heap_bytes(page) < 10e6
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Cancel all").click()
        expect(waiting).to_have_count(0)
        ended = page.get_by_role("region", name="Ended").get_by_role("listitem")
        expect(ended).to_have_count(100)
        page.get_by_role("button", name="Older jobs").click()
        expect(ended).to_have_count(200)
        page.reload()
        expect(ended).to_have_count(50)
        page.get_by_role("button", name="Older jobs").click()
        expect(ended).to_have_count(100)
        assert wrongs == []
        server.kill()  # its engine would finish the step that it is at


def test_a_failed_job_says_why_and_runs_again(server: Server, browser: Browser) -> None:
    with opened(browser, server.url) as (page, wrongs):
        expect(page.locator(".ended .wrong").first).to_contain_text("1 thing is wrong: node 1 (Nope)")
        page.get_by_role("link", name="Failed").click()
        expect(page.get_by_role("region", name="Why it failed")).to_contain_text(
            "Nope #1: the engine has no such node class"
        )
        expect(page.get_by_role("region", name="Why it failed")).to_contain_text("What to do: Correct what is named")
        page.get_by_text("Technical details").click()
        page.locator("summary", has_text="Input").click()
        expect(page.locator("pre").first).to_contain_text('"class_type": "Nope"')
        assert axe_violations(page) == []
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_role("status")).to_contain_text(["", "Waits again"])
        assert wrongs == []


def test_a_finished_job_shows_its_pictures_and_where_the_time_went(server: Server, browser: Browser) -> None:
    with opened(browser, server.url) as (page, wrongs):
        page.get_by_role("link", name="Done").first.click()
        page.get_by_text("Technical details").click()
        expect(page.get_by_role("img", name="Phases")).to_be_visible()
        thumbnail = page.locator(".tile img")
        expect(thumbnail).to_be_visible()
        assert page.evaluate("document.querySelector('.tile img').naturalWidth") == 96
        with page.expect_download() as saved:
            page.get_by_role("link", name="SHA256SUMS").click()
        assert "_0000" in Path(saved.value.path()).read_text()
        with page.expect_download() as saved:
            page.get_by_role("button", name="Download for ComfyUI").click()
        assert json.loads(Path(saved.value.path()).read_text())["2"]["class_type"] == "SaveImage"
        # With what the form set, also if the job was not sent with a graph.
        made = server.post("/workflows/demo?wait=60000", {"Out of focus.width": 72})
        page.goto(f"{server.url}/#/job/{made['id']}")
        with page.expect_download() as saved:
            page.get_by_role("button", name="Download for ComfyUI").click()
        graph = json.loads(Path(saved.value.path()).read_text())
        assert 72 in [node["inputs"].get("width") for node in graph.values()]
        assert wrongs == []


def test_the_page_speaks_russian_in_the_light_on_a_phone(server: Server, browser: Browser) -> None:
    options = {"viewport": PHONE, "locale": "ru-RU", "color_scheme": "light"}
    with opened(browser, server.url, **options) as (page, wrongs):
        expect(page.get_by_role("link", name="Галерея")).to_be_visible()
        assert page.evaluate("document.documentElement.lang") == "ru"
        assert overflow_pixels(page) == 0
        assert axe_violations(page) == []
        # The server's own sentence is English; why it was comes in Russian.
        expect(page.locator(".ended .wrong").first).to_have_text("Воркфлоу здесь не выполнится")
        page.get_by_role("link", name="Ошибка").click()
        expect(page.get_by_role("region", name="Причина ошибки")).to_contain_text("ноды Nope здесь нет")
        expect(page.get_by_role("region", name="Причина ошибки")).to_contain_text("Воркфлоу здесь не выполнится")
        expect(page.get_by_role("region", name="Причина ошибки")).to_contain_text("Что делать: Исправьте названное")
        assert overflow_pixels(page) == 0
        page.get_by_role("button", name="EN: English").click()
        expect(page.get_by_role("link", name="Gallery")).to_be_visible()
        page.reload()
        expect(page.get_by_role("link", name="Gallery")).to_be_visible()
        assert wrongs == []


def test_a_one_time_link_signs_one_browser_in(tmp_path: Path, browser: Browser) -> None:
    with serving(tmp_path, environ={"COMFYPIN_TOKEN": ""}) as server:
        link = next(word for word in server.log.read_text().split() if "#link=" in word)
        with opened(browser, link, is_signed_in=False) as (page, _):
            expect(page.locator(".top")).to_be_visible()
            assert "link=" not in page.url
        with opened(browser, link, is_signed_in=False) as (page, _):
            expect(page.get_by_role("alert")).to_contain_text("used already")


def test_the_page_works_below_a_path_of_a_proxy(tmp_path: Path, browser: Browser) -> None:
    with (
        serving(tmp_path, "--root-path", "/tools/comfy", ready=False) as server,
        opened(browser, f"{server.url}/tools/comfy") as (page, wrongs),
    ):
        assert page.url.startswith(f"{server.url}/tools/comfy/")
        (cookie,) = page.context.cookies()
        assert cookie["path"] == "/tools/comfy/"
        expect(page.locator(".live-idle")).to_be_visible()
        assert wrongs == []


def test_a_browsers_own_prompt_opens_the_description_of_the_api(server: Server, browser: Browser) -> None:
    asked = {"username": "anybody", "password": TOKEN}
    with opened(browser, f"{server.url}/docs", is_signed_in=False, http_credentials=asked) as (page, wrongs):
        expect(page.get_by_text("/runsync")).to_be_visible()
        assert wrongs == []


def test_without_a_token_the_page_opens_at_once(tmp_path: Path, browser: Browser) -> None:
    environ = {"COMFYPIN_TOKEN": ""}
    with (
        serving(tmp_path, "--no-auth", environ=environ, ready=False) as server,
        opened(browser, server.url, is_signed_in=False) as (page, wrongs),
    ):
        expect(page.locator(".live-idle")).to_be_visible()
        expect(page.get_by_role("button", name="Sign out")).to_have_count(0)
        assert wrongs == []


def test_all_of_the_page_is_sent_in_less_than_a_hundred_kilobytes() -> None:
    page_files = load_page_files()
    assert {"index.html", "docs.html", "app.js", "style.css", "vendor/htm-preact.js"} <= set(page_files)
    assert sum(len(page_file.zipped) for page_file in page_files.values()) < 100_000
