"""Where a client may be led, and what goes along."""

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from comfypin.http.client import Credentials, HttpClient, HttpTransport
from comfypin.http.errors import AddressRefused, HttpError
from comfypin.http.proxies import Proxies
from comfypin.http.sockets import tls_context
from comfypin.http.url import HttpUrl, UrlInvalid
from tests.support.background import QuietHandler, QuietServer, serving
from tests.support.faulty_server import FaultyServer, Reply, Request, faulty_server
from tests.support.tls import Certificate, tls_front
from tests.unit.test_addresses import METADATA_FORMS

PUBLIC = "93.184.216.34"


class Internet:
    """Names with addresses of the test's choice; every connection ends at one local server."""

    def __init__(self, names: dict[str, str], port: int) -> None:
        self.names, self.port = names, port
        self.connected: list[str] = []
        self.asked: list[str] = []

    def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.names:
            raise OSError(-2, "Name or service not known")
        return [self.names[host]]

    def connect(self, unconnected: socket.socket, address: str, port: int) -> None:
        self.connected.append(address)
        unconnected.connect(("127.0.0.1", self.port))


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    def script(request: Request) -> Reply:
        leads = request.headers.get("x-leads-to", "")
        if request.path == "/from" and leads:
            return Reply(status=302, headers={"Location": leads})
        return Reply(body=b"file")

    with faulty_server(script) as running:
        yield running


def strangers(server: FaultyServer, **names: str) -> tuple[HttpClient, Internet]:
    """A client for what strangers name, and the internet that it knows."""
    internet = Internet({name.replace("_", "."): address for name, address in names.items()}, server.port)
    return HttpClient(transport=HttpTransport(network=internet, proxies=Proxies()), public_only=True), internet


HOSTILE = [
    *(f"http://{form}/latest/meta-data/" for form in METADATA_FORMS),
    "http://127.0.0.1/", "http://127。0。0。1/", "http://①②⑦.0.0.1/", "http://localhost/",
    "http://LOCALHOST./", "http://0/",
    "http://[::1]/", "http://[::ffff:169.254.169.254]/", "http://[::ffff:a9fe:a9fe]/", "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::]/", "http://[2001:0:5db8:d822::5601:5601]/", "http://[::169.254.169.254]/",
    "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fd00:ec2::254]/", "http://10.0.0.1/",
    "http://100.100.100.200/",
    "http://public.example@169.254.169.254/", "http://public.example:80@169.254.169.254/",
    "http://a@b@169.254.169.254/",
    "http://169.254.169.254\\@public.example/", "http://public.example\\@169.254.169.254/",
    "http://169.254.169.254%00.public.example/", "http://169.254.\t169.254/",
    "http://169.254.169.254\n.public.example/",
    "http://inside.example/", "http://[::1]public.example/",
    "http:///169.254.169.254/",
    "http:169.254.169.254", "http://%31%36%39.254.169.254/", "http://public.example:0/",
    "http://public.example:99999/",
    "//169.254.169.254/", "file:///etc/passwd", "ftp://public.example/", "gopher://public.example/", "data:,x",
    "", "http://",
]  # fmt: skip


@pytest.mark.parametrize("url", HOSTILE)
def test_a_stranger_may_not_name_it(server: FaultyServer, url: str) -> None:
    client, internet = strangers(server, public_example=PUBLIC, inside_example="192.168.7.7", localhost="127.0.0.1")
    with pytest.raises(HttpError):
        client.get(url)
    assert (internet.connected, server.requests) == ([], [])


@pytest.mark.parametrize("url", [url for url in HOSTILE if url and "\n" not in url])
def test_nobody_is_led_there(server: FaultyServer, url: str) -> None:
    client, internet = strangers(server, public_example=PUBLIC, inside_example="192.168.7.7", localhost="127.0.0.1")
    leads_to = url.encode().decode("latin-1")  # as bytes of UTF-8 look in a header
    # Some of these are paths on the public host to whoever reads a Location.
    with contextlib.suppress(HttpError):
        client.get("http://public.example/from", {"X-Leads-To": leads_to}).close()
    assert internet.connected == [PUBLIC]
    assert {request.headers["host"] for request in server.requests} == {"public.example"}


def test_a_stranger_may_name_a_public_host(server: FaultyServer) -> None:
    client, internet = strangers(server, public_example=PUBLIC, cdn_example="93.184.216.35")
    response = client.get("http://user@ＰＵＢＬＩＣ.example./from", {"X-Leads-To": "http://cdn.example/x"})
    assert response.read_bytes(10) == b"file"
    assert (internet.connected, internet.asked) == ([PUBLIC, "93.184.216.35"], ["public.example", "cdn.example"])
    assert [request.headers["host"] for request in server.requests] == ["public.example", "cdn.example"]


def test_a_name_that_is_bound_anew_after_the_check_is_not_asked_again(server: FaultyServer) -> None:
    client, internet = strangers(server, rebind_example=PUBLIC)
    client.get("http://rebind.example/a").close()
    internet.names["rebind.example"] = "127.0.0.1"
    client.get("http://rebind.example/b").close()
    assert internet.asked == ["rebind.example"]
    assert set(internet.connected) == {PUBLIC}


@pytest.mark.parametrize("header", ["Authorization", "Cookie", "X-Api-Key"])
def test_a_secret_stays_with_its_origin(server: FaultyServer, header: str) -> None:
    internet = Internet({"a.example": PUBLIC, "b.example": PUBLIC}, server.port)
    client = HttpClient(transport=HttpTransport(network=internet, proxies=Proxies()))
    client.get("http://a.example/from", {header: "s3cret", "X-Leads-To": "http://b.example/x"}).close()
    client.get("http://a.example/from", {header: "s3cret", "X-Leads-To": "/x"}).close()
    assert [request.headers.get(header.lower()) for request in server.requests] == ["s3cret", None, "s3cret", "s3cret"]


def test_a_login_in_an_address_stays_with_its_origin(server: FaultyServer) -> None:
    internet = Internet({"a.example": PUBLIC, "b.example": PUBLIC}, server.port)
    client = HttpClient(transport=HttpTransport(network=internet, proxies=Proxies()))
    for leads_to in ("/x", "http://a.example:81/x", "http://b.example/x"):
        client.get("http://me:s3cret@a.example/from", {"X-Leads-To": leads_to}).close()
    sent = [request.headers.get("authorization") for request in server.requests if request.path == "/x"]
    assert sent == ["Basic bWU6czNjcmV0", None, None]


@pytest.fixture
def https(tmp_path: Path, server: FaultyServer) -> Iterator[tuple[str, Callable[..., HttpClient]]]:
    certificate = Certificate.made(tmp_path)

    def client(**tokens: str) -> HttpClient:
        transport = HttpTransport(proxies=Proxies(), tls=lambda: tls_context((certificate.path,)))
        return HttpClient(transport=transport, credentials=Credentials(tokens=tokens))

    with tls_front(server.url, certificate) as url:
        yield url, client


def test_a_request_with_a_secret_is_not_led_from_https_to_http(
    server: FaultyServer, https: tuple[str, Callable[..., HttpClient]]
) -> None:
    url, client = https
    leads = {"X-Leads-To": f"{server.url}/x"}
    with pytest.raises(AddressRefused, match="from https to http"):
        client(**{url: "t0k3n"}).get(f"{url}/from", leads)
    with pytest.raises(AddressRefused, match="from https to http"):
        client().get(f"{url}/from", {**leads, "Authorization": "Bearer t0k3n"})
    assert client().get(f"{url}/from", leads).read_bytes(10) == b"file"


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [(301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (303, "PUT", "GET"), (307, "POST", "POST"),
     (308, "PUT", "PUT"), (302, "HEAD", "HEAD"), (303, "HEAD", "HEAD")],
)  # fmt: skip
def test_a_form_is_followed_as_browsers_do(status: int, method: str, then: str) -> None:
    seen: list[str] = []

    class Form(QuietHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append(f"{self.command} {body.decode()}".strip())
            self.send_response(200 if self.path == "/x" else status)
            self.send_header("Location", "/x")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_POST = do_PUT = handle_any

    server = QuietServer(("127.0.0.1", 0), Form)
    body = None if method == "HEAD" else b"form"
    with serving(server):
        client = HttpClient(transport=HttpTransport(proxies=Proxies()))
        client.request(method, f"http://127.0.0.1:{server.server_port}/", body=body).close()
    kept = f"{then} form" if then in {"POST", "PUT"} else then
    assert seen == [f"{method} form" if body else method, kept]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://EXAMPLE.com", "http://example.com/"), ("https://example.com:443/a?b=c#d",
        "https://example.com/a?b=c"),
        ("http://example.com:8080/a b", "http://example.com:8080/a%20b"), ("http://u:p@h/%2F?q", "http://h/%2F?q"),
        ("http://[::1]:80/", "http://[::1]/"), (" http://h/ü ", "http://h/%C3%BC"),
    ],
)  # fmt: skip
def test_an_address_has_one_form(text: str, address: str) -> None:
    assert HttpUrl.parse(text).full_address == address


def test_secrets_in_an_address_are_not_shown() -> None:
    url = HttpUrl.parse("https://me:s3cret@h/a?token=s3cret")
    assert "s3cret" not in repr(url) + url.redacted_url
    with pytest.raises(UrlInvalid) as caught:
        HttpUrl.parse("https://me:s3cret@h:x/")
    assert "s3cret" not in str(caught.value)
