"""Which proxy stands before which address, against the standard library, and requests that go by one."""

import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfypin.http.client import HttpClient, HttpTransport
from comfypin.http.errors import AddressRefused, HttpError, ProxyFailed
from comfypin.http.proxies import Proxies, ProxyInvalid
from comfypin.http.sockets import tls_context
from comfypin.http.url import HttpUrl
from tests.support.connect_proxy import connect_proxy, one_answer_a_connection
from tests.support.faulty_server import FaultyServer, Reply, faulty_server
from tests.support.tls import Certificate, tls_front


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HTTPS_PROXY": "http://up:1"},
        {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"},
        {"https_proxy": "", "HTTPS_PROXY": "http://up:1"},
        {"HTTP_PROXY": "http://up:1"},
        {"HTTP_PROXY": "http://up:1", "REQUEST_METHOD": "GET"},
        {"http_proxy": "http://low:1", "REQUEST_METHOD": "GET"},
        {"HTTPS_PROXY": "bare:3128"},
        *(
            {"HTTPS_PROXY": "http://up:1", "HTTP_PROXY": "http://up:2", "NO_PROXY": value}
            for value in ("*", "hub.example.com", ".example.com", "example.com:9000", "EXAMPLE.COM",
                          " a , hub.example.com ", "127.0.0.1", "localhost", "127.0.0.1:9000", "ample.com", ",,")
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "url",
    ["https://hub.example.com", "http://hub.example.com", "https://example.com:9000", "http://127.0.0.1:9000",
     "http://localhost"],
)  # fmt: skip
def test_proxies_are_those_of_the_standard_library(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], url: str
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    scheme, _, host = url.partition("://")
    theirs = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)
    ours = Proxies.from_variables(os.environ).for_url(HttpUrl.parse(url))
    assert (ours and ours.url.rpartition("/")[2]) == (theirs and theirs.rpartition("/")[2])


def test_one_proxy_may_stand_before_all() -> None:
    proxies = Proxies.from_variables({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "https://b", "NO_PROXY": "c"})
    found = [proxies.for_url(HttpUrl.parse(url)) for url in ("http://x", "https://x", "http://c")]
    assert [proxy and proxy.url for proxy in found] == ["http://a:1", "https://b:443", None]


@pytest.mark.parametrize(
    "value", ["socks5://u:{}@p:1", "http://u:{}@", "http://u:{}@p:x", "http://u:p/{}@p:0", "http://[{}"]
)
def test_what_is_not_a_proxy_names_the_variable_and_shows_nothing(value: str) -> None:
    with pytest.raises(ProxyInvalid, match="HTTPS_PROXY is not the URL") as caught:
        Proxies.from_variables({"HTTPS_PROXY": value.format("s3cret")}).for_url(HttpUrl.parse("https://x"))
    assert "s3cret" not in str(caught.value)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server(lambda request: Reply(body=b"file")) as running:
        yield running


def a_client(certificate: Certificate | None = None, *, public_only: bool = False, **environ: str) -> HttpClient:
    authorities = (certificate.path,) if certificate else ()
    transport = HttpTransport(proxies=Proxies.from_variables(environ), tls=lambda: tls_context(authorities))
    return HttpClient(transport=transport, public_only=public_only)


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_https_goes_through_a_tunnel_and_the_password_to_the_proxy_alone(
    server: FaultyServer, tmp_path: Path, is_encrypted: bool
) -> None:
    certificate = Certificate.made(tmp_path)
    with (
        tls_front(server.url, certificate) as url,
        connect_proxy(login="user:p@ss", certificate=certificate if is_encrypted else None) as proxy,
    ):
        client = a_client(certificate, HTTPS_PROXY=proxy.url)
        assert client.get(f"{url}/x").read_bytes(10) == b"file"
        assert client.get(f"{url}/x").read_bytes(10) == b"file"
        assert proxy.asked == [f"CONNECT {url.removeprefix('https://')}"]
    assert all("proxy-authorization" not in request.headers for request in server.requests)


def test_http_is_asked_of_the_proxy_by_its_whole_address(server: FaultyServer) -> None:
    with connect_proxy(login="user:p@ss") as proxy:
        assert a_client(HTTP_PROXY=proxy.url).get(f"{server.url}/x?y").read_bytes(10) == b"file"
        assert proxy.asked == [f"GET {server.url}/x?y"]
    assert "proxy-authorization" not in server.requests[0].headers


def test_no_second_plain_request_is_sent_to_a_proxy_on_a_connection() -> None:
    with one_answer_a_connection() as (proxy, met):
        client = HttpClient(
            transport=HttpTransport(proxies=Proxies.from_variables({"HTTP_PROXY": proxy}), timeout_s=2.0)
        )
        for _ in range(2):
            assert client.request("POST", "http://hub.example/x", body=b"x").read_bytes(10) == b"file"
    assert len(met) == 2


def test_a_host_in_no_proxy_is_asked_directly(server: FaultyServer) -> None:
    with connect_proxy() as proxy:
        client = a_client(HTTP_PROXY=proxy.url, NO_PROXY="127.0.0.1")
        assert client.get(f"{server.url}/x").read_bytes(10) == b"file"
        assert proxy.asked == []


@pytest.mark.parametrize(
    ("scheme", "refusal", "is_transient", "says"),
    [
        ("https", 407, False, "another user and password"),
        ("http", 407, False, "another user and password"),
        ("https", 403, False, "does not let it through"),
        ("https", 502, True, "no way to it"),
    ],
)
def test_a_proxy_that_says_no_is_the_one_to_blame(scheme: str, refusal: int, is_transient: bool, says: str) -> None:
    with connect_proxy() as proxy:
        proxy.refusal = refusal
        with pytest.raises(ProxyFailed, match=says) as caught:
            a_client(ALL_PROXY=proxy.url).get(f"{scheme}://hub.example/x")
    assert caught.value.is_transient is is_transient


def test_a_proxy_that_is_not_there_is_an_error_that_may_pass() -> None:
    with pytest.raises(HttpError, match="proxy") as caught:
        a_client(HTTPS_PROXY="http://127.0.0.1:1").get("https://hub.example/x")
    assert caught.value.is_transient


def test_a_stranger_may_not_have_the_proxy_ask_what_is_not_known_here() -> None:
    with connect_proxy() as proxy:
        for url in ("https://inside.invalid/x", "http://169.254.169.254/", "https://[::ffff:10.0.0.1]/"):
            with pytest.raises(AddressRefused):
                a_client(ALL_PROXY=proxy.url, public_only=True).get(url)
        assert proxy.asked == []


def test_not_even_a_proxy_is_asked_for_a_clouds_keys() -> None:
    with connect_proxy() as proxy:
        with pytest.raises(AddressRefused, match="link-local"):
            a_client(ALL_PROXY=proxy.url).get("http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/latest")
        assert proxy.asked == []
