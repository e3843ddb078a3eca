"""Answers that say that all is well when it is not, or that do not show that it is: read back, or a failure."""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfypin.storage.azure import WHOLE_BYTES as AZURE_WHOLE_BYTES
from comfypin.storage.azure import AzureStore
from comfypin.storage.errors import ChecksumMismatch, NotStored, StoreBusy, TransientStorageError
from comfypin.storage.gcs import GcsStore
from comfypin.storage.gcs_client import ONE_REQUEST_BYTES as GCS_WHOLE_BYTES
from comfypin.storage.interface import ObjectStore
from comfypin.storage.retry import StoreRetry
from tests.support.fault_proxy import FalseAnswer, FaultProxy, Seen, fault_proxy
from tests.support.object_servers import AzureServer, GcsServer
from tests.support.payloads import noise, payload_of
from tests.support.tls import Certificate, tls_front

_BUCKETS = (f"lies-{number}" for number in itertools.count())
_JSON = {"Content-Type": "application/json"}
_ERROR = json.dumps({"error": {"code": 503, "message": "We encountered an internal error."}}).encode()
_XML = b'<?xml version="1.0"?><Error><Code>InternalError</Code><Message>No.</Message></Error>'
_OTHER_MD5 = "AAAAAAAAAAAAAAAAAAAAAA=="


def facts(**changes: str) -> bytes:
    """What GCS says of some other object."""
    described = {"name": "a", "bucket": "b", "size": "200000", "crc32c": "AAAAAA==", "etag": "e"} | changes
    return json.dumps({name: value for name, value in described.items() if value}).encode()


GCS = {
    "200 with an error": FalseAnswer(200, _ERROR, _JSON),
    "200 with nothing": FalseAnswer(200),
    "200 with other JSON": FalseAnswer(200, b"[1]", _JSON),
    "200 without a checksum": FalseAnswer(200, facts(crc32c=""), _JSON),
    "200 with another checksum": FalseAnswer(200, facts(), _JSON),
    "200 with another size": FalseAnswer(200, facts(size="7"), _JSON),
    "202": FalseAnswer(202, facts(), _JSON),
    "204": FalseAnswer(204),
}
AZURE = {
    "200": FalseAnswer(200, keep=("etag", "content-md5")),
    "200 with an error": FalseAnswer(200, _XML),
    "201 without a checksum": FalseAnswer(201, keep=("etag",)),
    "201 with another checksum": FalseAnswer(201, headers={"Content-MD5": _OTHER_MD5}, keep=("etag",)),
    "201 with an error": FalseAnswer(201, _XML),
    "202": FalseAnswer(202),
    "204": FalseAnswer(204),
}
# The ETag of a blob of blocks is compared, not an md5.
AZURE_LARGE = {
    "200": FalseAnswer(200, keep=("etag",)),
    "201 without an ETag": FalseAnswer(201),
    "201 with another ETag": FalseAnswer(201, headers={"ETag": '"0x0"'}),
    "202": FalseAnswer(202, keep=("etag",)),
    "204": FalseAnswer(204),
}


def is_upload(seen: Seen) -> bool:
    """The request after which the object should be there."""
    if seen.method == "POST":
        return "uploadType=multipart" in seen.path
    if "content-range" in {name.lower() for name in seen.headers}:
        return True
    return seen.method == "PUT" and "comp=block&" not in f"{seen.path}&"


class Liar:
    """A server behind a proxy that gives false answers to uploads, as long as it has any."""

    def __init__(self, server: Any, proxy: FaultProxy, url: str, **environ: str) -> None:
        self.server, self.proxy = server, proxy
        self.bucket = server.new_bucket(next(_BUCKETS))
        config = server.config(self.bucket, url=url, **environ)
        retry = StoreRetry(retries=1, base_sleep_s=0.001)
        self.store: ObjectStore = (
            GcsStore(config, retry=retry) if isinstance(server, GcsServer) else AzureStore(config, retry=retry)
        )

    def lies(self, *answers: FalseAnswer) -> None:
        left = iter(answers)
        self.proxy.rule = lambda seen: next(left, None) if is_upload(seen) else None


@contextlib.contextmanager
def a_liar(server: GcsServer | AzureServer, folder: Path, *, encrypted: bool = False) -> Iterator[Liar]:
    with fault_proxy(server.url) as proxy, contextlib.ExitStack() as stack:
        if not encrypted:
            yield Liar(server, proxy, proxy.url)
            return
        proxy.is_behind_tls = True
        certificate = Certificate.made(folder / "tls")
        url = stack.enter_context(tls_front(proxy.url, certificate))
        yield Liar(server, proxy, url, REQUESTS_CA_BUNDLE=str(certificate.path))


def undone(answer: FalseAnswer) -> FalseAnswer:
    return FalseAnswer(answer.status, answer.body, answer.headers, is_done=False)


CASES = [
    *(pytest.param("gcs", 200_000, GCS[name], id=f"gcs {name}") for name in GCS),
    *(pytest.param("gcs", GCS_WHOLE_BYTES + 5, GCS[name], id=f"gcs session {name}") for name in GCS),
    *(pytest.param("azurite", 200_000, AZURE[name], id=f"azure {name}") for name in AZURE),
    *(
        pytest.param("azurite", AZURE_WHOLE_BYTES + 5, AZURE_LARGE[name], id=f"azure blocks {name}")
        for name in AZURE_LARGE
    ),
]


@pytest.mark.parametrize(("kind", "size", "answer"), CASES)
def test_what_was_stored_is_read_back_and_counts(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, size: int, answer: FalseAnswer
) -> None:
    with a_liar(request.getfixturevalue(kind), tmp_path) as liar:
        liar.lies(answer)
        data = noise(size)
        assert liar.store.put("a", payload_of(tmp_path / "f", data)).size_bytes == size
        assert sum(is_upload(seen) for seen in liar.proxy.seen) == 1
        assert hashlib.md5(liar.server.objects(liar.bucket)["a"]).digest() == hashlib.md5(data).digest()


@pytest.mark.parametrize(("kind", "size", "answer"), CASES)
def test_what_was_not_stored_does_not_count(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, size: int, answer: FalseAnswer
) -> None:
    with a_liar(request.getfixturevalue(kind), tmp_path) as liar:
        liar.lies(undone(answer), undone(answer))
        with pytest.raises(NotStored, match="is missing, although"):
            liar.store.put("a", payload_of(tmp_path / "f", noise(size)))
        # Another object under the key is not taken for it, and the second try is.
        liar.lies()
        liar.store.put("a", payload_of(tmp_path / "f", b"older"))
        liar.lies(undone(answer), undone(answer))
        with pytest.raises(ChecksumMismatch, match="damaged"):
            liar.store.put("a", payload_of(tmp_path / "f", noise(size)))
        liar.lies(undone(answer))
        liar.store.put("a", payload_of(tmp_path / "f", noise(size)))
        assert len(liar.server.objects(liar.bucket)["a"]) == size


@pytest.mark.parametrize(
    ("kind", "size", "answer"),
    [
        ("gcs", 1000, GCS["200 with an error"]),
        ("gcs", 1000, GCS["204"]),
        *(("gcs", GCS_WHOLE_BYTES + 5, answer) for answer in GCS.values()),
        ("azurite", 1000, AZURE["202"]),
        ("azurite", 1000, AZURE["201 without a checksum"]),
        *(("azurite", AZURE_WHOLE_BYTES + 5, answer) for answer in AZURE_LARGE.values()),
    ],
)
def test_false_answers_under_tls_are_not_believed_either(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, size: int, answer: FalseAnswer
) -> None:
    with a_liar(request.getfixturevalue(kind), tmp_path, encrypted=True) as liar:
        liar.lies(answer)
        liar.store.put("a", payload_of(tmp_path / "f", noise(size)))
        liar.lies(*[undone(answer)] * 2)
        with pytest.raises(TransientStorageError):
            liar.store.put("b", payload_of(tmp_path / "f", noise(size)))


@pytest.mark.parametrize("status", [200, 202, 204])
def test_a_block_that_is_said_to_be_stored_in_other_words_is_sent_again(
    azurite: AzureServer, tmp_path: Path, status: int
) -> None:
    with a_liar(azurite, tmp_path) as liar:
        data = noise(AZURE_WHOLE_BYTES + 5)
        liar.proxy.rule = lambda seen: FalseAnswer(status, is_done=False) if "comp=block&" in seen.path else None
        with pytest.raises(StoreBusy, match="not a response of Azure"):
            liar.store.put("a", payload_of(tmp_path / "f", data))
        left = iter([FalseAnswer(status, is_done=False)])
        liar.proxy.rule = lambda seen: next(left, None) if "comp=block&" in seen.path else None
        liar.store.put("a", payload_of(tmp_path / "f", data))
        assert liar.server.objects(liar.bucket) == {"a": data}


def test_a_block_that_never_arrived_is_missed_at_the_end(azurite: AzureServer, tmp_path: Path) -> None:
    with a_liar(azurite, tmp_path) as liar:
        data = noise(AZURE_WHOLE_BYTES + 5)
        left = iter([FalseAnswer(201, is_done=False)])
        liar.proxy.rule = lambda seen: next(left, None) if "comp=block&" in seen.path else None
        liar.store.put("a", payload_of(tmp_path / "f", data))
        assert liar.server.objects(liar.bucket) == {"a": data}
