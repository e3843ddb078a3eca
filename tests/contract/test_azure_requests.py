"""Azure's settings and credentials, its refusals in sentences, and no secret in any of them."""

import json
import logging
import os
import re
import subprocess
import sys
import traceback
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from comfypin.errors import ConfigError, StorageError
from comfypin.settings.errors import SettingMissing
from comfypin.storage.azure import AzureStore
from comfypin.storage.azure_settings import AzureSettings
from comfypin.storage.errors import (
    BucketMissing,
    ClockSkewed,
    CredentialsMissing,
    CredentialsRefused,
    NotAStore,
    PermissionMissing,
    ProxyRefused,
    SigningImpossible,
    StoreBusy,
    StoreRefused,
    StoreUnreachable,
)
from comfypin.storage.retry import StoreRetry
from tests.support.connect_proxy import connect_proxy
from tests.support.object_servers import AZURE_ACCOUNT, AZURE_KEY, AzureServer
from tests.support.payloads import payload_of
from tests.support.scripted_server import answering, answering_by

ONCE = StoreRetry(retries=0)
REQUEST_ID = "1f2e3d4c-0000-1111-2222-333344445555"


def store_at(url: str, **environ: str) -> AzureStore:
    own = {
        "AZURE_CONTAINER": "b",
        "AZURE_ENDPOINT_URL": url,
        "AZURE_STORAGE_ACCOUNT": "acct",
        "AZURE_STORAGE_KEY": AZURE_KEY,
    }
    return AzureStore(AzureSettings.from_variables({**own, **environ}), retry=ONCE)


def failure_of(store: AzureStore, folder: Path) -> StorageError:
    with pytest.raises(StorageError) as caught:
        store.put("a.png", payload_of(folder / "f", b"x"))
    return caught.value


def xml(code: str, message: str = "No.") -> str:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (404, "ContainerNotFound", BucketMissing, "AZURE_CONTAINER"),
        (403, "AuthenticationFailed", CredentialsRefused, "AZURE_STORAGE_KEY"),
        (403, "KeyBasedAuthenticationNotPermitted", CredentialsRefused, "takes no keys"),
        (401, "NoAuthenticationInformation", CredentialsRefused, "there are none"),
        (403, "AuthorizationPermissionMismatch", PermissionMissing, "Storage Blob Data Contributor"),
        (403, "AuthorizationFailure", PermissionMissing, "may not write"),
        (409, "BlobImmutableDueToPolicy", StoreRefused, "HTTP 409: BlobImmutableDueToPolicy"),
        (503, "ServerBusy", StoreBusy, "HTTP 503, ServerBusy"),
        (500, "InternalError", StoreBusy, "HTTP 500"),
        (429, "", StoreBusy, "HTTP 429"),
    ],
)
def test_an_answer_of_azure_becomes_a_sentence_with_the_request_id(
    status: int, code: str, error: type[StorageError], words: str, tmp_path: Path
) -> None:
    headers = {"Content-Type": "application/xml", "x-ms-error-code": code, "x-ms-request-id": REQUEST_ID}
    with answering(status, xml(code), headers) as url:
        failure = failure_of(store_at(url), tmp_path)
    assert type(failure) is error
    assert re.search(words, failure.message)
    assert failure.facts["request_id"] == REQUEST_ID
    assert failure.message.endswith(f"(request id {REQUEST_ID}).")


def test_a_clock_that_is_wrong_is_said(tmp_path: Path) -> None:
    said = xml(
        "AuthenticationFailed", "Server failed. </Message><AuthenticationErrorDetail>Request date header too old"
    )
    headers = {"Content-Type": "application/xml", "x-ms-error-code": "AuthenticationFailed"}
    said = said.replace("</Message></Error>", "</AuthenticationErrorDetail></Error>")
    with answering(403, said, headers) as url:
        assert type(failure_of(store_at(url), tmp_path)) is ClockSkewed


@pytest.mark.parametrize("status", [200, 201, 302, 403, 404])
def test_a_page_where_azure_should_be_is_said_to_be_one(tmp_path: Path, status: int) -> None:
    with answering(status, "<!DOCTYPE html><html>Log in</html>", {"Location": "https://login.example"}) as url:
        failure = failure_of(store_at(url), tmp_path)
    assert isinstance(failure, NotAStore)


def test_a_store_that_is_gone_is_named(tmp_path: Path) -> None:
    failure = failure_of(store_at("http://127.0.0.1:1"), tmp_path)
    assert isinstance(failure, StoreUnreachable)
    assert "the connection was refused" in failure.message


def test_a_proxy_that_wants_a_password_says_so(tmp_path: Path) -> None:
    with connect_proxy(login="user:secret") as proxy:
        failure = failure_of(store_at("https://acct.blob.example", HTTPS_PROXY=f"http://{proxy.host}"), tmp_path)
    assert isinstance(failure, ProxyRefused)
    assert "wants a user and password" in failure.message


def test_what_a_refusal_quotes_of_a_signed_request_is_not_passed_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    quoted = xml("AuthenticationFailed", "The MAC signature is not the same. String to sign: SeCrEtStRiNg")
    headers = {"Content-Type": "application/xml", "x-ms-error-code": "AuthenticationFailed"}
    with answering(403, quoted, headers) as url:
        sas = {"AZURE_STORAGE_KEY": "", "AZURE_STORAGE_SAS_TOKEN": "?sv=2024-11-04&sig=SeCrEtSiG"}
        failures = [failure_of(store_at(url), tmp_path), failure_of(store_at(url, **sas), tmp_path)]
    for failure in failures:
        shown = "".join(traceback.format_exception(failure)) + str(failure.to_json())
        assert "SeCrEt" not in shown
    assert "SeCrEtSiG" not in caplog.text
    assert AZURE_KEY not in caplog.text


@pytest.mark.parametrize("secret", ["AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING"])
def test_a_repr_shows_no_secret(secret: str) -> None:
    assert AZURE_KEY[:20] not in repr(AzureSettings.from_variables({secret: AZURE_KEY}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AZURE_STORAGE_KEY", "hush!"),
        ("AZURE_STORAGE_SAS_TOKEN", "sig=hush\nhush"),
        ("AZURE_RETRIES", "many"),
        ("AZURE_SIGNED_URL_TTL", "604801"),
        ("AZURE_ENDPOINT_URL", "ftp://host"),
        ("AZURE_STORAGE_ACCOUNT", "a/b"),
        ("AZURE_CONTAINER", "a/b"),
    ],
)
def test_a_wrong_value_is_refused_by_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        AzureSettings.from_variables({name: value})
    assert "hush" not in str(caught.value)


def test_a_connection_string_that_is_none_is_refused_and_not_shown() -> None:
    environ = {"AZURE_CONTAINER": "b", "AZURE_STORAGE_CONNECTION_STRING": "AccountKey=hush"}
    with pytest.raises(ConfigError, match="AZURE_STORAGE_CONNECTION_STRING") as caught:
        AzureStore(AzureSettings.from_variables(environ))
    assert "hush" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_no_account_names_the_variables() -> None:
    with pytest.raises(SettingMissing, match=r"AZURE_STORAGE_ACCOUNT.*AZURE_STORAGE_CONNECTION_STRING"):
        AzureStore(AzureSettings.from_variables({"AZURE_CONTAINER": "b"}))


def test_without_keys_and_azure_identity_the_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    environ = {"AZURE_CONTAINER": "b", "AZURE_STORAGE_ACCOUNT": "acct"}
    with pytest.raises(CredentialsMissing, match=r"AZURE_STORAGE_KEY.*install azure-identity"):
        AzureStore(AzureSettings.from_variables(environ))


def test_a_connection_string_uploads_and_signs(azurite: AzureServer, tmp_path: Path) -> None:
    text = (
        f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};"
        f"BlobEndpoint={azurite.url}/{AZURE_ACCOUNT};"
    )
    environ = {"AZURE_CONTAINER": azurite.new_bucket("by-string"), "AZURE_STORAGE_CONNECTION_STRING": text}
    store = AzureStore(AzureSettings.from_variables(environ))
    store.put("a b.png", payload_of(tmp_path / "f", b"picture"))
    url = store.signed_url("a b.png", ttl_s=60)
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.read() == b"picture"
    for forged in (url.replace("a%20b", "another"), url[:-6] + "AAAAAA"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(forged, timeout=30)
        caught.value.close()
        assert caught.value.code in {403, 404}


def test_a_sas_token_uploads_and_signs_nothing(azurite: AzureServer, tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    container = azurite.new_bucket("by-sas")
    token = generate_container_sas(
        AZURE_ACCOUNT,
        container,
        account_key=AZURE_KEY,
        permission=ContainerSasPermissions(read=True, create=True, write=True, delete=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    environ = {**azurite.environ(container), "AZURE_STORAGE_KEY": "", "AZURE_STORAGE_SAS_TOKEN": f"?{token}"}
    store = AzureStore(AzureSettings.from_variables(environ))
    store.check()
    store.put("a", payload_of(tmp_path / "f", b"picture"))
    assert b"".join(store.read("a")) == b"picture"
    with pytest.raises(SigningImpossible, match="AZURE_STORAGE_KEY"):
        store.signed_url("a", ttl_s=60)


def test_an_identity_is_asked_for_a_token_of_storage(tmp_path: Path) -> None:
    """A workload identity's kind of credentials, against a stand-in of Microsoft's login; all in one process."""
    from tests.support.tls import Certificate, tls_front

    asked: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, str]:
        request.rfile.read(int(request.headers.get("Content-Length") or 0))
        host = str(request.headers["Host"])
        asked.append(f"{request.command} {host.partition(':')[0]} {request.headers['Authorization']}")
        if host.startswith("login."):
            facts = {
                "token_type": "Bearer", "expires_in": 3600, "access_token": "t0k3n", "issuer": f"https://{host}/tenant/v2.0",
                "token_endpoint": f"https://{host}/tenant/oauth2/v2.0/token",
                "authorization_endpoint": f"https://{host}/tenant/oauth2/v2.0/authorize",
            }  # fmt: skip
            return 200, json.dumps(facts)
        return 403, xml("AuthorizationPermissionMismatch")

    hosts = ("login.microsoftonline.com", "acct.blob.core.windows.net")
    certificate = Certificate.made(tmp_path / "tls", hosts=hosts)
    with (
        answering_by(answer, {"Content-Type": "application/json"}) as plain,
        tls_front(plain, certificate) as url,
        connect_proxy() as proxy,
    ):
        proxy.leads_to = ("127.0.0.1", int(url.rpartition(":")[2]))
        environ = {
            **os.environ,
            **{"AZURE_CONTAINER": "b", "AZURE_STORAGE_ACCOUNT": "acct", "AZURE_RETRIES": "0"},
            **{"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": "s3cr3t"},
            **{"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": str(certificate.path), "AZURE_VALIDATE": "false"},
        }
        program = (
            "import os\nfrom comfypin.storage.registry import KINDS\n"
            "kind = KINDS['azure']; kind.open_store(kind.read_settings(os.environ)).head('a')"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=120, check=False
        )
    assert "PermissionMissing: The credentials may not read objects in az://b" in done.stderr
    assert "s3cr3t" not in done.stderr
    assert asked[-1] == "HEAD acct.blob.core.windows.net Bearer t0k3n"
    assert {line.split()[1] for line in asked} == set(hosts)
