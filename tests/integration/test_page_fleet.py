"""The page of a server whose jobs run on workers elsewhere."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.browser import PHONE, a_browser, axe_violations, opened, overflow_pixels
from tests.support.fleets import serving_fleet, working
from tests.support.nats_servers import nats_server
from tests.support.workflows import picture

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.xdist_group("page")]


def test_the_page_shows_the_workers_of_a_fleet_and_what_they_made(tmp_path: Path) -> None:
    with (
        nats_server(tmp_path) as nats,
        serving_fleet(tmp_path / "serve", nats.address) as server,
        a_browser() as browser,
        opened(browser, server.url) as (page, wrongs),
    ):
        workers = page.get_by_role("region", name="Workers")
        expect(workers).to_contain_text("No worker has joined yet")
        with working(tmp_path / "worker", nats.address):
            expect(workers.get_by_text("warm: demo")).to_be_visible(timeout=60_000)
            expect(workers.get_by_text("Idle")).to_be_visible()
            server.post("/runsync", {"input": {"workflow": picture(0x335577, size=96, prefix="far")}})
            assert axe_violations(page) == []
            (worker,) = server.get("/fleet")["workers"]
            assert (worker["warm"], worker["releases"]) == ("demo", ["demo"])
            page.get_by_role("link", name="Gallery").click()
            expect(page.get_by_role("button", name="far_00001_.png")).to_be_visible()
            page.get_by_role("link", name="System").click()
            expect(page.get_by_role("region", name="Release")).to_contain_text("Workers of the fleet")
            page.get_by_role("link", name="Run", exact=True).click()
            expect(page.get_by_role("form", name="demo")).to_be_visible()
            page.set_viewport_size(PHONE)  # type: ignore[arg-type]
            page.get_by_role("link", name="Queue").click()
            expect(workers.get_by_text("warm: demo")).to_be_visible()
            assert overflow_pixels(page) == 0
        assert wrongs == []
