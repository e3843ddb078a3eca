"""Pulling over HTTP, from a server that errs in every way that servers err."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.http.client import Credentials, HttpClient
from comfypin.models.errors import ModelsFailed, ModelUnavailable
from comfypin.models.partial_file import PartialFile
from comfypin.models.pull import PullOptions
from comfypin.models.pull_limits import FetchPolicy
from comfypin.retry import RetryPolicy
from tests.support.faulty_server import Reply, Request, faulty_server, ranged
from tests.support.models import FAST, Home, pin_of, some_bytes, sources_over

MIB = 1 << 20
BIG = some_bytes(20 * MIB)
SMALL = some_bytes(300_000)


@pytest.fixture(params=[1, 16], ids=["one-processor", "many-processors"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """With one processor whoever fetches hashes as well, with many another thread does."""
    return Home(tmp_path / "models", processors=request.param)


def weights(data: bytes, *sources: str, name: str = "x", **more: object):
    """A pin in a format without a header to check."""
    return pin_of(data, *sources, target=f"$MODELS_DIR/unet/{name}.gguf", **more)


def test_a_large_file_comes_in_ranges_over_several_connections(home: Home) -> None:
    with faulty_server(lambda request: ranged(BIG, request)) as server:
        pin = weights(BIG, f"{server.url}/x")
        report = home.pull(pin)
        starts = sorted(request.range[0] for request in server.requests if request.range)
    assert [outcome.state for outcome in report.outcomes] == ["fetched"]
    assert home.path(pin).read_bytes() == BIG
    assert starts == [0, 8 * MIB, 16 * MIB]


def test_a_small_file_takes_one_request(home: Home) -> None:
    with faulty_server(lambda request: ranged(SMALL, request)) as server:
        home.pull(weights(SMALL, f"{server.url}/x"))
        assert len(server.requests) == 1


def test_an_empty_file_is_a_file(home: Home) -> None:
    with faulty_server(lambda request: ranged(b"", request)) as server:
        pin = weights(b"", f"{server.url}/x")
        home.pull(pin).raise_failures()
    assert home.path(pin).read_bytes() == b""


def test_a_server_without_ranges_gives_it_in_one_stream(home: Home) -> None:
    with faulty_server(lambda request: Reply(body=BIG)) as server:
        pin = weights(BIG, f"{server.url}/x")
        home.pull(pin).raise_failures()
        assert len(server.requests) == 1
    assert home.path(pin).read_bytes() == BIG


def test_a_server_that_says_no_length_gives_it_too(home: Home) -> None:
    with faulty_server(lambda request: Reply(body=BIG, chunked=True)) as server:
        pin = weights(BIG, f"{server.url}/x")
        home.pull(pin).raise_failures()
    assert home.path(pin).read_bytes() == BIG


def test_a_stream_that_does_not_end_where_the_pin_does_is_left(home: Home) -> None:
    with faulty_server(lambda request: Reply(body=BIG + b"x", chunked=True)) as server:
        report = home.pull(weights(BIG, f"{server.url}/x"))
        assert len(server.requests) == 1
    assert f"more than the {len(BIG)} bytes that the lock says" in report.failures[0].message


def test_a_stream_without_ranges_that_breaks_begins_again(home: Home) -> None:
    def script(request: Request) -> Reply:
        return Reply(body=BIG, cut_after=9 * MIB if request.number == 0 else None)

    with faulty_server(script) as server:
        pin = weights(BIG, f"{server.url}/x")
        home.pull(pin).raise_failures()
    assert home.path(pin).read_bytes() == BIG


@pytest.mark.parametrize("reply", [Reply(body=BIG, cut_after=MIB), Reply(body=BIG, length=len(BIG) + 1)])
def test_a_stream_that_is_given_up_leaves_nothing_on_the_disk(home: Home, reply: Reply) -> None:
    with faulty_server(lambda request: reply) as server:
        pin = replace(weights(BIG, f"{server.url}/x"), size_bytes=None)
        assert home.pull(pin).failures
    assert not list(home.store.root.rglob("data"))


def test_connections_that_break_go_on_where_they_broke(home: Home) -> None:
    def script(request: Request) -> Reply:
        return ranged(BIG, request, cut_after=1_500_000)

    with faulty_server(script) as server:
        pin = weights(BIG, f"{server.url}/x")
        home.pull(pin).raise_failures()
        starts = [request.range[0] for request in server.requests if request.range]
    assert home.path(pin).read_bytes() == BIG
    assert len(starts) == len(set(starts))


def test_a_server_that_falls_silent_is_left(home: Home) -> None:
    def script(request: Request) -> Reply:
        return ranged(BIG, request, silent_after=1000 if request.number == 1 else None)

    with faulty_server(script) as server:
        pin = weights(BIG, f"{server.url}/x")
        home.pull(pin, sources=sources_over(timeout_s=0.4)).raise_failures()
    assert home.path(pin).read_bytes() == BIG


def test_a_server_that_is_always_silent_is_given_up(home: Home) -> None:
    with faulty_server(lambda request: ranged(SMALL, request, silent_after=10)) as server:
        report = home.pull(weights(SMALL, f"{server.url}/x"), sources=sources_over(timeout_s=0.1))
    assert "sent nothing for too long (tried 4 times)" in report.failures[0].message


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_server_is_asked_again(home: Home, status: int) -> None:
    def script(request: Request) -> Reply:
        return Reply(status=status, headers={"Retry-After": "0"}) if request.number < 2 else ranged(SMALL, request)

    with faulty_server(script) as server:
        home.pull(weights(SMALL, f"{server.url}/x")).raise_failures()
        assert len(server.requests) == 3


@pytest.mark.parametrize("later", ["86400", "Wed, 21 Oct 2099 07:28:00 GMT", "9" * 400])
def test_a_server_that_asks_to_come_back_tomorrow_is_left_for_the_next_source(home: Home, later: str) -> None:
    def script(request: Request) -> Reply:
        busy = request.path == "/busy"
        return Reply(status=429, headers={"Retry-After": later}) if busy else ranged(SMALL, request)

    with faulty_server(script) as server:
        report = home.pull(weights(SMALL, f"{server.url}/busy", f"{server.url}/x"))
        assert len(server.requests) == 2
    report.raise_failures()
    assert "come back in" in report.outcomes[0].failed_sources[0]


def test_a_server_that_serves_few_connections_is_slow_not_broken(home: Home) -> None:
    serving = threading.Semaphore(1)

    def script(request: Request) -> Reply:
        if not serving.acquire(blocking=False):
            return Reply(status=503)
        try:
            threading.Event().wait(0.02)
            return ranged(BIG, request)
        finally:
            serving.release()

    with faulty_server(script) as server:
        pin = weights(BIG, f"{server.url}/x")
        home.pull(pin, connections=8).raise_failures()
    assert home.path(pin).read_bytes() == BIG


@pytest.mark.parametrize(
    ("status", "says"), [(401, "needs a token"), (403, "needs a token"), (404, "no such file"), (451, "HTTP 451")]
)
def test_a_refusal_is_said_and_not_repeated(home: Home, status: int, says: str) -> None:
    with faulty_server(lambda request: Reply(status=status, body=b"sorry")) as server:
        report = home.pull(weights(SMALL, f"{server.url}/x"))
        assert len(server.requests) == 1
    assert says in report.failures[0].message


def test_a_login_page_is_not_a_model(home: Home) -> None:
    page = Reply(body=b"<!doctype html><title>Log in</title>", headers={"Content-Type": "text/html; charset=utf-8"})
    with faulty_server(lambda request: page) as server:
        report = home.pull(weights(SMALL, f"{server.url}/x"))
    assert "web page, such as a login page" in report.failures[0].message


def test_a_page_that_claims_to_be_binary_is_not_kept(home: Home) -> None:
    page = b"<html>" + b" " * 1000
    with faulty_server(lambda request: ranged(page, request)) as server:
        pin = pin_of(SMALL, f"{server.url}/x", sha256=None, size_bytes=None)
        report = home.pull(pin)
    assert "it is a web page" in report.failures[0].message
    assert not home.path(pin).exists()


def test_another_size_than_the_pins_ends_it_before_the_bytes(home: Home) -> None:
    with faulty_server(lambda request: ranged(BIG, request)) as server:
        report = home.pull(weights(SMALL, f"{server.url}/x"))
        assert len(server.requests) == 1
    assert f"it has {len(BIG)} bytes, the lock says {len(SMALL)}" in report.failures[0].message


def test_a_server_that_sends_less_than_it_says_is_found_out(home: Home) -> None:
    with faulty_server(lambda request: Reply(body=SMALL[:-5], length=len(SMALL))) as server:
        report = home.pull(weights(SMALL, f"{server.url}/x"))
    assert "5 bytes before the end" in report.failures[0].message


def test_wrong_bytes_are_not_placed_and_the_next_source_is_tried(home: Home) -> None:
    wrong = some_bytes(len(BIG), seed=2)

    def script(request: Request) -> Reply:
        return ranged(wrong if request.path == "/wrong" else BIG, request)

    with faulty_server(script) as server:
        pin = weights(BIG, f"{server.url}/wrong", f"{server.url}/right")
        (outcome,) = home.pull(pin).outcomes
    assert outcome.source == f"{server.url}/right"
    assert "its sha256 is" in outcome.failed_sources[0]
    assert home.path(pin).read_bytes() == BIG


def test_all_reasons_are_said_when_every_source_fails(home: Home) -> None:
    with faulty_server(lambda request: Reply(status=404 if request.path == "/a" else 403)) as server:
        pin = weights(SMALL, f"{server.url}/a", f"{server.url}/b", "/nowhere", "gopher://x")
        with pytest.raises(ModelUnavailable) as caught:
            home.pull(pin).raise_failures()
    for said in ("/a: HTTP 404", "/b: HTTP 403", "/nowhere: there is no such file", "gopher://x: no source"):
        assert said in caught.value.message


def test_one_model_that_fails_does_not_keep_the_others(home: Home) -> None:
    with faulty_server(lambda request: Reply(status=404) if request.path == "/b" else ranged(SMALL, request)) as server:
        good, bad = weights(SMALL, f"{server.url}/a", name="a"), weights(BIG, f"{server.url}/b", name="b")
        report = home.pull(good, bad)
        with pytest.raises(ModelsFailed, match="1 of 2 models failed"):
            report.raise_failures()
    assert home.path(good).read_bytes() == SMALL


def test_a_file_that_changes_between_ranges_is_fetched_again_as_a_whole(home: Home) -> None:
    old = some_bytes(len(BIG), seed=3)

    def script(request: Request) -> Reply:
        return ranged(old, request, etag='"old"') if request.number == 0 else ranged(BIG, request, etag='"new"')

    with faulty_server(script) as server:
        pin = weights(BIG, f"{server.url}/x")
        home.pull(pin, connections=1).raise_failures()
    assert home.path(pin).read_bytes() == BIG


def test_a_file_that_changes_is_noticed_though_the_server_knows_no_if_range(home: Home) -> None:
    old = some_bytes(len(BIG), seed=3)

    def script(request: Request) -> Reply:
        plain = replace(request, headers={name: text for name, text in request.headers.items() if name != "if-range"})
        return ranged(old, plain, etag='"old"') if request.number == 0 else ranged(BIG, plain, etag='"new"')

    with faulty_server(script) as server:
        pin = weights(BIG, f"{server.url}/x")
        home.pull(pin, connections=1).raise_failures()
    assert home.path(pin).read_bytes() == BIG


def test_a_file_that_keeps_changing_is_given_up(home: Home) -> None:
    def script(request: Request) -> Reply:
        return ranged(BIG, request, etag=f'"{request.number}"')

    with faulty_server(script) as server:
        report = home.pull(weights(BIG, f"{server.url}/x"), connections=1)
    assert "changed while it was read" in report.failures[0].message


def test_a_pull_that_was_cut_off_goes_on_without_fetching_anything_twice(home: Home) -> None:
    def until(limit: int):
        def script(request: Request) -> Reply:
            start = request.range[0] if request.range else 0
            return Reply(status=404) if start >= limit and request.number else ranged(BIG, request)

        return script

    pin = weights(BIG)
    with faulty_server(until(16 * MIB)) as server:
        first = home.pull(weights(BIG, f"{server.url}/x"), connections=1)
    assert first.failures
    journal = PartialFile(home.store.partial_file(pin.sha256.hex).folder).load_journal()
    assert journal is not None
    assert journal.written == {0, 1}
    with faulty_server(lambda request: ranged(BIG, request)) as server:
        home.pull(weights(BIG, f"{server.url}/x"), connections=1).raise_failures()
        assert [request.range[0] for request in server.requests if request.range] == [16 * MIB]
    assert home.path(pin).read_bytes() == BIG


def test_bytes_that_rotted_between_two_pulls_are_fetched_again_and_only_they(home: Home) -> None:
    pin = weights(BIG)
    with faulty_server(lambda r: Reply(status=404) if r.range and r.range[0] >= 16 * MIB else ranged(BIG, r)) as server:
        home.pull(weights(BIG, f"{server.url}/x"), connections=1)
    partial = home.store.partial_file(pin.sha256.hex)
    with partial.data.open("r+b") as file:
        file.seek(9 * MIB)
        file.write(b"rotten")
    with faulty_server(lambda request: ranged(BIG, request)) as server:
        home.pull(weights(BIG, f"{server.url}/x"), connections=1).raise_failures()
        assert sorted(request.range[0] for request in server.requests if request.range) == [8 * MIB, 16 * MIB]
    assert home.path(pin).read_bytes() == BIG


def test_another_source_that_cannot_go_on_begins_again(home: Home) -> None:
    with faulty_server(lambda r: Reply(status=404) if r.range and r.range[0] >= 16 * MIB else ranged(BIG, r)) as server:
        home.pull(weights(BIG, f"{server.url}/x"), connections=1)
    with faulty_server(lambda request: Reply(body=BIG)) as server:
        pin = weights(BIG, f"{server.url}/x")
        home.pull(pin, connections=1).raise_failures()
    assert home.path(pin).read_bytes() == BIG


def test_a_part_that_is_refused_ends_the_others_that_wait(home: Home) -> None:
    def script(request: Request) -> Reply:
        match request.range:
            case (start, _) if start == 16 * MIB:
                return Reply(status=410)
            case (0, _):
                return ranged(BIG, request)
        return ranged(BIG, request, silent_after=10)

    with faulty_server(script) as server:
        report = home.pull(weights(BIG, f"{server.url}/x"), sources=sources_over(timeout_s=100))
    assert "HTTP 410" in report.failures[0].message


def test_a_half_written_journal_line_does_no_harm(home: Home) -> None:
    pin = weights(BIG)
    with faulty_server(lambda r: Reply(status=404) if r.range and r.range[0] >= 16 * MIB else ranged(BIG, r)) as server:
        home.pull(weights(BIG, f"{server.url}/x"), connections=1)
    with (home.store.partial_file(pin.sha256.hex).folder / "journal").open("ab") as journal:
        journal.write(b'{"wro')
    with faulty_server(lambda request: ranged(BIG, request)) as server:
        home.pull(weights(BIG, f"{server.url}/x"), connections=1).raise_failures()
        assert len(server.requests) == 1
    assert home.path(pin).read_bytes() == BIG


def test_a_token_goes_to_its_host_and_not_along_a_redirect(home: Home) -> None:
    with faulty_server(lambda request: ranged(SMALL, request)) as store:
        redirect = Reply(status=302, headers={"Location": f"http://localhost:{store.port}/cdn"})
        with faulty_server(lambda request: redirect) as hub:
            sources = sources_over(tokens={hub.url: "hf_secret"})
            home.pull(weights(SMALL, f"{hub.url}/x"), sources=sources).raise_failures()
        assert hub.requests[0].headers["authorization"] == "Bearer hf_secret"
        assert "authorization" not in store.requests[0].headers


def test_a_token_does_not_go_to_another_port_of_its_host(home: Home) -> None:
    with faulty_server(lambda request: ranged(SMALL, request)) as other:
        redirect = Reply(status=302, headers={"Location": f"{other.url}/cdn"})
        with faulty_server(lambda request: redirect) as hub:
            sources = sources_over(tokens={hub.url: "hf_secret"})
            home.pull(weights(SMALL, f"{hub.url}/x"), sources=sources).raise_failures()
        assert hub.requests[0].headers["authorization"] == "Bearer hf_secret"
        assert "authorization" not in other.requests[0].headers


@pytest.mark.parametrize(
    ("url", "sent"),
    [("https://hub.example/x", True), ("https://hub.example:443/x", True), ("https://HUB.example/x", True),
     ("https://hub.example:8443/x", False), ("http://hub.example/x", False), ("https://hub.example.org/x", False)],
)  # fmt: skip
def test_a_token_is_for_one_origin(url: str, sent: bool) -> None:
    client = HttpClient(credentials=Credentials(tokens={"https://hub.example/": "hf_secret"}))
    assert client.has_token(url) is sent


def test_a_signed_address_that_expires_is_asked_for_again(home: Home) -> None:
    def script(request: Request) -> Reply:
        if request.path == "/x":
            return Reply(status=302, headers={"Location": f"/signed{request.number}"})
        return Reply(status=403) if request.path == "/signed0" and request.number else ranged(BIG, request)

    with faulty_server(script) as server:
        pin = weights(BIG, f"{server.url}/x")
        home.pull(pin, connections=1).raise_failures()
    assert home.path(pin).read_bytes() == BIG


def test_redirects_in_a_circle_end(home: Home) -> None:
    with faulty_server(lambda request: Reply(status=302, headers={"Location": "/x"})) as server:
        report = home.pull(weights(SMALL, f"{server.url}/x"))
    assert "more than 10 redirects" in report.failures[0].message


def test_secrets_in_an_address_are_not_shown(home: Home) -> None:
    with faulty_server(lambda request: Reply(status=404)) as server:
        report = home.pull(weights(SMALL, f"{server.url}/x?token=s3cret"))
    assert "s3cret" not in report.failures[0].message


def test_a_packed_answer_is_refused(home: Home) -> None:
    with faulty_server(lambda request: Reply(body=b"zip", headers={"Content-Encoding": "gzip"})) as server:
        report = home.pull(weights(SMALL, f"{server.url}/x"))
    assert "compressed (gzip)" in report.failures[0].message


def test_a_connection_that_trickles_is_left(home: Home) -> None:
    with faulty_server(lambda request: ranged(SMALL, request, silent_after=1000)) as server:
        options = PullOptions(fetch_policy=FetchPolicy(retry_policy=RetryPolicy(retries=1, base_s=0.01), stall_s=0.2))
        report = home.pull(weights(SMALL, f"{server.url}/x"), options=options, sources=sources_over(timeout_s=0.3))
    assert report.failures


def test_a_pin_without_digest_is_fetched_and_its_digest_said(home: Home) -> None:
    with faulty_server(lambda request: ranged(SMALL, request)) as server:
        pin = weights(SMALL, f"{server.url}/x", sha256=None, size_bytes=None)
        (outcome,) = home.pull(pin, options=PullOptions(fetch_policy=FAST)).outcomes
    assert outcome.digest == weights(SMALL).sha256
    assert home.path(pin).read_bytes() == SMALL
