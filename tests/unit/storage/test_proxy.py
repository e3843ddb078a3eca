"""Which proxy stands before which address, against the standard library; what a proxy that fails is said to be."""

import base64
import hashlib
import os
import urllib.request
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from comfypin.http.proxies import Proxies, ProxyInvalid
from comfypin.storage.errors import ProxyRefused, StoreUnreachable, TransientStorageError
from comfypin.storage.gcs_credentials import GoogleCredentials
from comfypin.storage.gcs_settings import GcsSettings
from comfypin.storage.retry import StoreRetry
from comfypin.storage.s3 import S3Store
from comfypin.storage.s3_settings import S3Settings
from comfypin.storage.sdk_session import make_session
from tests.support.connect_proxy import connect_proxy, one_answer_a_connection
from tests.support.google_key import service_account
from tests.support.payloads import payload_of
from tests.support.scripted_server import answering_by

_S3 = {"S3_BUCKET": "b", "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}


@pytest.fixture(autouse=True)
def no_proxies_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name == "REQUEST_METHOD"]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HTTPS_PROXY": "http://up:1"},
        {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"},
        {"https_proxy": "", "HTTPS_PROXY": "http://up:1"},
        {"HTTPS_PROXY": ""},
        {"HTTP_PROXY": "http://up:1"},
        {"HTTP_PROXY": "http://up:1", "REQUEST_METHOD": "GET"},
        {"http_proxy": "http://low:1", "REQUEST_METHOD": "GET"},
        {"Https_Proxy": "http://mixed:1"},
        {"HTTPS_PROXY": "bare:3128"},
        {"HTTPS_PROXY": "//slashes:3128"},
        *(
            {"HTTPS_PROXY": "http://up:1", "HTTP_PROXY": "http://up:2", "NO_PROXY": value}
            for value in ("*", "s3.example.com", ".example.com", "example.com:9000", "EXAMPLE.COM",
                          " a , s3.example.com ", "127.0.0.1", "localhost", "127.0.0.1:9000", "ample.com",
                          "10.0.0.0/8", ",,")
        ),
        {"HTTPS_PROXY": "http://up:1", "NO_PROXY": "example.com", "no_proxy": "other.org"},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "url",
    ["https://s3.example.com", "http://s3.example.com", "https://example.com:9000", "http://127.0.0.1:9000",
     "http://localhost", "https://[::1]:9000"],
)  # fmt: skip
def test_proxies_are_those_of_the_standard_library(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], url: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    scheme, _, host = url.partition("://")
    theirs = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)
    ours = Proxies.from_variables(environ).for_address(url)
    assert (ours and ours.url.rpartition("/")[2]) == (theirs and theirs.rpartition("/")[2])


def test_one_proxy_may_stand_before_all() -> None:
    proxies = Proxies.from_variables({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "https://b", "NO_PROXY": "c"})
    found = [proxies.for_address(url) for url in ("http://x", "https://x", "http://c")]
    assert [proxy and proxy.url for proxy in found] == ["http://a:1", "https://b:443", None]


@pytest.mark.parametrize(
    "value",
    ["socks5://u:s3cr3tpw@proxy:1080", "http://u:s3cr3tpw@proxy:port", "http://", "http://u:s3cr3t#pw@proxy:3128",
     "http://a b", ":3128", "http://u:s3cr3tpw@[bad:1", "http://proxy:0", "http://proxy:99999"],
)  # fmt: skip
def test_a_proxy_that_is_none_is_named_by_its_variable_and_not_shown(value: str) -> None:
    proxies = Proxies.from_variables({"HTTPS_PROXY": value})
    with pytest.raises(ProxyInvalid, match=r"HTTPS_PROXY .*not shown.* http://") as caught:
        proxies.for_address("https://s3.amazonaws.com")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "s3cr3t" not in f"{caught.value} {proxies}"
    assert proxies.for_address("http://plain") is None


@pytest.mark.parametrize(
    ("written", "shown"),
    [("u:p", "u:p"), ("u", "u:"), ("d%5Cu:p%40%3A%2F", "d\\u:p@:/"), ("ü:%C3%9F", "ü:ß")],
)
def test_user_and_password_are_shown_to_the_proxy_alone(written: str, shown: str) -> None:
    proxy = Proxies.from_variables({"HTTPS_PROXY": f"http://{written}@p:1"}).for_address("https://x")
    assert proxy is not None
    scheme, _, encoded = (proxy.authorization or "").partition(" ")
    assert (scheme, base64.b64decode(encoded).decode()) == ("Basic", shown)
    assert encoded not in repr(proxy)
    assert proxy.url == "http://p:1"


def a_store(**environ: str) -> S3Store:
    return S3Store(
        S3Settings.from_variables({**_S3, "S3_ENDPOINT_URL": "https://127.0.0.1:1", **environ}),
        retry=StoreRetry(retries=0),
    )


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_proxy_that_wants_a_password_says_so_and_is_not_asked_again(tmp_path: Path, scheme: str) -> None:
    with connect_proxy(login="user:secret") as proxy:
        for url, words in (
            (f"http://{proxy.host}", "wants a user and password"),
            (f"http://user:s3cr3t@{proxy.host}", "does not accept its user and password"),
        ):
            store = a_store(S3_ENDPOINT_URL=f"{scheme}://s3.example.com", ALL_PROXY=url)
            with pytest.raises(
                ProxyRefused, match=rf"http://{proxy.host} .from ALL_PROXY.*{words}.*USER:PASSWORD"
            ) as caught:
                store.put("a", payload_of(tmp_path / "f", b"x"))
            assert not isinstance(caught.value, TransientStorageError)
            assert "s3cr3t" not in str(caught.value)


def test_a_proxy_that_lets_nothing_through_says_so(tmp_path: Path) -> None:
    with connect_proxy() as proxy:
        proxy.refusal = 403
        with pytest.raises(ProxyRefused, match=r"s3://b at https://127.0.0.1:1 \(HTTP 403\).*NO_PROXY"):
            a_store(HTTPS_PROXY=proxy.url).put("a", payload_of(tmp_path / "f", b"x"))


def test_a_proxy_without_a_way_may_have_one_later(tmp_path: Path) -> None:
    with (
        connect_proxy() as proxy,
        pytest.raises(StoreUnreachable, match=rf"http://{proxy.host} has no way to it \(HTTP 502\)"),
    ):
        a_store(HTTPS_PROXY=proxy.url).put("a", payload_of(tmp_path / "f", b"x"))


def test_a_proxy_that_is_not_there_is_named_as_what_is_not_there(tmp_path: Path) -> None:
    for proxy, why in (
        ("http://127.0.0.1:1", "the connection was refused"),
        ("http://nowhere.invalid:1", "name is not known"),
    ):
        with pytest.raises(StoreUnreachable, match=rf"the proxy {proxy}: .*{why}\); check https_proxy"):
            a_store(https_proxy=proxy).put("a", payload_of(tmp_path / "f", b"x"))


def test_what_is_no_proxy_is_said_to_be_none(tmp_path: Path) -> None:
    with answering_by(lambda handler: (200, "")) as url, pytest.raises(StoreUnreachable, match="the proxy"):
        # A web server knows no CONNECT.
        a_store(HTTPS_PROXY=url).put("a", payload_of(tmp_path / "f", b"x"))
    with connect_proxy() as proxy, pytest.raises(StoreUnreachable, match="does not speak TLS"):
        a_store(HTTPS_PROXY=f"https://{proxy.host}").put("a", payload_of(tmp_path / "f", b"x"))


def test_no_second_plain_request_is_sent_to_a_proxy_on_a_connection(tmp_path: Path) -> None:
    # tinyproxy does not answer it, and keeps the connection open.
    seen: list[tuple[object, object]] = []

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        seen.append((handler.client_address, handler.headers["Connection"]))
        return 200, ""

    with answering_by(answer, {"ETag": hashlib.md5(b"x").hexdigest()}) as url:
        store = a_store(S3_ENDPOINT_URL="http://s3.example.com", HTTP_PROXY=url)
        for key in "ab":
            store.put(key, payload_of(tmp_path / "f", b"x"))
    assert len({address for address, _ in seen}) == 2
    assert [said for _, said in seen] == ["close", "close"]


def test_no_second_plain_request_of_googles_or_azures_library_is_sent_to_a_proxy_on_a_connection() -> None:
    with one_answer_a_connection() as (proxy, met):
        session = make_session(Proxies.from_variables({"HTTP_PROXY": proxy}))
        for _ in range(2):
            assert session.post("http://store.example/x", data=b"x", timeout=2).content == b"file"
    assert len(met) == 2


def test_googles_tokens_go_by_the_proxy_too(tmp_path: Path) -> None:
    token = '{"access_token": "t0k3n", "expires_in": 3600, "token_type": "Bearer"}'

    def answer(handler: object) -> tuple[int, str]:
        return 200, token

    with connect_proxy(login="u:p") as proxy, answering_by(answer) as url:
        key_file = service_account(tmp_path / "key.json", token_uri=f"{url}/token")
        environ = {"GCS_BUCKET": "b", "GOOGLE_APPLICATION_CREDENTIALS": str(key_file), "HTTP_PROXY": proxy.url}
        GoogleCredentials(GcsSettings.from_variables(environ)).open_session(url).get(f"{url}/object")
        assert proxy.asked == [f"POST {url}/token", f"GET {url}/object"]


@pytest.mark.parametrize(("login", "words"), [("u:p", "wants a user and password"), (None, "has no way to it")])
def test_googles_tokens_that_the_proxy_refuses_are_said_to_be(tmp_path: Path, login: str | None, words: str) -> None:
    with connect_proxy(login=login) as proxy:
        url = f"http://{proxy.host}"
        key_file = service_account(tmp_path / "key.json", token_uri="https://127.0.0.1:1/token")
        environ = {"GCS_BUCKET": "b", "GOOGLE_APPLICATION_CREDENTIALS": str(key_file), "HTTPS_PROXY": url}
        session = GoogleCredentials(GcsSettings.from_variables(environ)).open_session("https://127.0.0.1:1")
        with pytest.raises((ProxyRefused, StoreUnreachable), match=f"Google's token service.*{words}"):
            session.get("https://127.0.0.1:1/object")


def test_a_roles_keys_are_fetched_by_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("eyJ.jwt")
    # AWS's client reads the environment itself.
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")
    with connect_proxy() as proxy:
        proxy.refusal = 403
        store = S3Store(S3Settings.from_variables({"S3_BUCKET": "pics", "HTTPS_PROXY": proxy.url}))
        with pytest.raises(ProxyRefused, match="AWS's token service"):
            store.signed_url("a", ttl_s=60)
        assert proxy.asked == ["CONNECT sts.us-east-1.amazonaws.com:443"]
