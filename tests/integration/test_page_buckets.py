"""What the page shows of outputs that are in buckets: the server's own, or a job's own; addresses expire meanwhile."""

import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import a_browser, axe_violations, opened, wait_until
from tests.support.object_servers import ACCESS_KEY, SECRET_KEY, S3Server, rclone_server
from tests.support.server import Server, serving
from tests.support.workflows import picture

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.xdist_group("page")]


@pytest.fixture(scope="module")
def bucket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with rclone_server(tmp_path_factory.mktemp("buckets")) as running:
        running.new_bucket("own")
        running.new_bucket("foreign")
        yield running


def environ(bucket_server: S3Server, *, ttl_s: int) -> dict[str, str]:
    return {
        "S3_BUCKET": "own",
        "S3_ENDPOINT_URL": bucket_server.url,
        "S3_SIGNED_URL_TTL": str(ttl_s),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bucket_server: S3Server) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("page"), environ=environ(bucket_server, ttl_s=2)) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as running:
        yield running


def test_a_picture_whose_address_expired_is_shown_by_a_fresh_one(server: Server, browser: Browser) -> None:
    made = server.post("/runsync", {"input": {"workflow": picture(0x335577, size=96, prefix="own")}})
    (listed,) = server.get(f"/outputs?job={made['id']}")["outputs"]
    assert listed["bucket"] == "own"
    with opened(browser, f"{server.url}/#/gallery") as (page, wrongs):
        expect(page.locator(".shot img").first).to_be_visible()
        await_expiry(listed["url"])
        page.locator(".shot").first.click()
        assert shown_width(page) == 96
        assert (
            page.evaluate("performance.getEntriesByType('resource').some((one) => one.name.includes('redirect=0'))")
            is False
        )
        # Nor does it need the bucket to be within the browser's reach.
        page.evaluate("document.querySelector('img.light-media').dispatchEvent(new Event('error'))")
        expect(page.locator("img.light-media")).to_have_attribute("src", re.compile("redirect=0"))
        assert shown_width(page) == 96
        assert wrongs == []


def test_a_copied_address_is_one_that_opens(server: Server, browser: Browser) -> None:
    made = server.post("/runsync", {"input": {"workflow": picture(0x775533, size=96, prefix="own")}})
    (listed,) = server.get(f"/outputs?job={made['id']}")["outputs"]
    await_expiry(listed["url"])
    with opened(browser, f"{server.url}/#/gallery?show={made['id']}/0") as (page, wrongs):
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy address").click()
        expect(page.get_by_text("Copied")).to_be_visible()
        # Above the picture, whose dialog covers everything that is not in the browser's top layer.
        assert page.locator(".messages").evaluate("box => box.matches(':popover-open')")
        copied = page.evaluate("navigator.clipboard.readText()")
        with urllib.request.urlopen(copied, timeout=20) as answer:
            assert answer.read(4) == b"\x89PNG"
        assert wrongs == []


def test_a_picture_in_a_jobs_own_bucket_comes_through_the_server(
    tmp_path: Path, browser: Browser, bucket_server: S3Server
) -> None:
    wish = {
        "accessId": ACCESS_KEY,
        "accessSecret": SECRET_KEY,
        "bucketName": "foreign",
        "endpointUrl": bucket_server.url,
    }
    with (
        serving(tmp_path, "--allow-private-inputs", environ=environ(bucket_server, ttl_s=3600)) as server,
        opened(browser, f"{server.url}/#/gallery") as (page, wrongs),
    ):
        before = set(bucket_server.objects("foreign"))
        workflow = picture(0x557733, size=96, prefix="foreign")
        made = server.post("/runsync", {"input": {"workflow": workflow, "s3Config": wish}})
        assert made["status"] == "COMPLETED", made
        page.get_by_role("button", name="foreign").first.click()
        assert shown_width(page) == 96
        assert axe_violations(page) == []
        with page.expect_download() as saved:
            page.get_by_role("link", name="Download").click()
        assert Path(saved.value.path()).read_bytes().startswith(b"\x89PNG")
        page.keyboard.press("Escape")
        for key in set(bucket_server.objects("foreign")) - before:
            bucket_server.boto.delete_object(Bucket="foreign", Key=key)
        status, answer, _ = server.ask("GET", f"/jobs/{made['id']}/outputs/0?redirect=0")
        assert (status, "gone from its bucket" in str(answer)) == (410, True), answer
        # Another browser, which has not kept it.
        with opened(browser, f"{server.url}/#/gallery?show={made['id']}/0") as (other, other_wrongs):
            expect(other.locator(".light-card").get_by_role("link", name="Download")).to_be_visible()
            assert other_wrongs == []
        assert wrongs == []


def shown_width(page: Page) -> int:
    """The width of the picture that is shown alone, once it is there."""
    wait_until(page, "document.querySelector('img.light-media')?.naturalWidth > 0")
    return int(page.evaluate("document.querySelector('img.light-media').naturalWidth"))


def await_expiry(url: str) -> None:
    """Wait until a signed address is not valid any longer."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=20).close()
        except urllib.error.HTTPError:
            return
        time.sleep(0.2)
    raise AssertionError(url)
