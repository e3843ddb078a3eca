"""What every ObjectStore promises: a directory, memory, S3 (two servers), GCS and Azure, by one suite."""

import itertools
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfypin.digest import Digest
from comfypin.errors import Cancelled
from comfypin.storage.azure import AzureStore
from comfypin.storage.errors import KeyInvalid, ObjectMissing, PayloadUnreadable, SigningImpossible
from comfypin.storage.gcs import GcsStore
from comfypin.storage.interface import ObjectStore, Payload, RemovableStore
from comfypin.storage.local import LocalStore
from comfypin.storage.retry import StoreRetry
from comfypin.storage.s3 import S3Store
from comfypin.testing import MemoryStore
from tests.support.google_key import service_account
from tests.support.payloads import noise, payload_of

LARGE = 17 * (1 << 20) + 12_345  # above what goes up in one request, everywhere
_BUCKETS = (f"contract-{number}" for number in itertools.count())
PATIENT = StoreRetry(retries=2, base_sleep_s=0.01)


def _directory(request: pytest.FixtureRequest) -> ObjectStore:
    return LocalStore(request.getfixturevalue("tmp_path") / "store")


def _memory(request: pytest.FixtureRequest) -> ObjectStore:
    return MemoryStore()


def _s3(fixture: str, prefix: str) -> Callable[[pytest.FixtureRequest], ObjectStore]:
    def make(request: pytest.FixtureRequest) -> ObjectStore:
        server = request.getfixturevalue(fixture)
        return S3Store(server.config(server.new_bucket(next(_BUCKETS))), prefix=prefix, retry=PATIENT)

    return make


def _gcs(request: pytest.FixtureRequest) -> ObjectStore:
    server = request.getfixturevalue("gcs")
    key_file = service_account(request.getfixturevalue("tmp_path") / "key.json")
    config = server.config(server.new_bucket(next(_BUCKETS)), GOOGLE_APPLICATION_CREDENTIALS=str(key_file))
    return GcsStore(config, prefix="below/this", retry=PATIENT)


def _azure(request: pytest.FixtureRequest) -> ObjectStore:
    server = request.getfixturevalue("azurite")
    return AzureStore(server.config(server.new_bucket(next(_BUCKETS))), prefix="below/this", retry=PATIENT)


STORES: dict[str, Any] = {
    "directory": _directory,
    "memory": _memory,
    "s3-moto": _s3("moto", "below/this"),
    "s3-rclone": _s3("rclone", ""),
    "gcs": _gcs,
    "azure": _azure,
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> RemovableStore:
    made: RemovableStore = STORES[request.param](request)
    return made


@pytest.mark.parametrize("size", [0, 1, 200_000, LARGE], ids=["empty", "one byte", "small", "large"])
def test_what_was_put_is_read_back_bit_for_bit(store: ObjectStore, tmp_path: Path, size: int) -> None:
    data = noise(size)
    stored = store.put("jobs/a.png", payload_of(tmp_path / "f", data))
    assert (stored.key, stored.size_bytes) == ("jobs/a.png", size)
    assert Digest.of(b"".join(store.read("jobs/a.png"))) == Digest.of(data)


def test_head_knows_size_and_metadata(store: ObjectStore, tmp_path: Path) -> None:
    metadata = {"release": "wan22", "sha256": "ab" * 32}
    store.put("a/b.mp4", payload_of(tmp_path / "f", b"video", media_type="video/mp4", metadata=metadata))
    found = store.head("a/b.mp4")
    assert found is not None
    assert (found.key, found.size_bytes) == ("a/b.mp4", 5)
    assert metadata.items() <= found.metadata.items()


def test_metadata_may_be_in_any_script(store: ObjectStore, tmp_path: Path) -> None:
    store.put("a", payload_of(tmp_path / "f", b"x", metadata={"release": "größe 100% 猫"}))
    found = store.head("a")
    assert found is not None
    assert found.metadata["release"] == "größe 100% 猫"


def test_head_of_nothing_is_none(store: ObjectStore) -> None:
    assert store.head("not/there") is None


def test_reading_nothing_names_the_object(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing, match="not/there"):
        list(store.read("not/there"))


def test_reading_starts_at_the_offset(store: ObjectStore, tmp_path: Path) -> None:
    data = noise(3_000_000)
    store.put("a", payload_of(tmp_path / "f", data))
    assert b"".join(store.read("a", offset=1_234_567)) == data[1_234_567:]


@pytest.mark.parametrize("size", [1000, LARGE], ids=["small", "large"])
def test_put_again_replaces(store: ObjectStore, tmp_path: Path, size: int) -> None:
    store.put("a", payload_of(tmp_path / "f", b"first"))
    data = noise(size, seed=2)
    store.put("a", payload_of(tmp_path / "f", data))
    store.put("a", payload_of(tmp_path / "f", data))
    assert b"".join(store.read("a")) == data


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../../b", "a/./b", "a\nb", "a\0b", "x" * 1025])
def test_keys_that_leave_the_store_are_refused(store: ObjectStore, tmp_path: Path, key: str) -> None:
    with pytest.raises(KeyInvalid):
        store.put(key, payload_of(tmp_path / "f", b"x"))
    with pytest.raises(KeyInvalid):
        store.head(key)
    with pytest.raises(KeyInvalid):
        list(store.read(key))


@pytest.mark.parametrize("key", ["größe/猫.png", "a b+c&d=e.png", "100%/#1?.png", "it's ~(fine)!.png", "a%20b"])
def test_keys_keep_every_other_character(store: ObjectStore, tmp_path: Path, key: str) -> None:
    store.put(key, payload_of(tmp_path / "f", b"x"))
    assert b"".join(store.read(key)) == b"x"
    assert store.head(key) is not None


def test_a_file_that_is_gone_is_named(store: ObjectStore, tmp_path: Path) -> None:
    payload = Payload(path=tmp_path / "gone.png", size_bytes=1, sha256=Digest.of(b"x"))
    with pytest.raises(PayloadUnreadable, match=r"gone\.png"):
        store.put("a", payload)
    assert store.head("a") is None


def test_a_file_of_another_size_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"longer")
    with pytest.raises(PayloadUnreadable, match="6 bytes"):
        store.put("a", Payload(path=tmp_path / "f", size_bytes=3, sha256=Digest.of(b"lon")))
    assert store.head("a") is None


def test_a_file_that_changed_since_it_was_hashed_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    payload = payload_of(tmp_path / "f", b"as it was")
    payload.path.write_bytes(b"as it is.")
    with pytest.raises(PayloadUnreadable, match="changed"):
        store.put("a", payload)
    assert store.head("a") is None


def test_a_signed_url_reads_the_object_or_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    store.put("a b.png", payload_of(tmp_path / "f", b"picture"))
    try:
        url = store.signed_url("a b.png", ttl_s=60)
    except SigningImpossible:
        assert isinstance(store, LocalStore)
        return
    if not isinstance(store, MemoryStore):
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.read() == b"picture"


@pytest.mark.parametrize("size", [1000, LARGE], ids=["small", "large"])
def test_the_pace_is_told_of_every_byte(store: ObjectStore, tmp_path: Path, size: int) -> None:
    told: list[int] = []
    payload = replace(payload_of(tmp_path / "f", noise(size)), pace=told.append)
    store.put("a", payload)
    assert sum(told) == size
    assert Digest.of(b"".join(store.read("a"))) == payload.sha256


@pytest.mark.parametrize("size", [1000, LARGE], ids=["small", "large"])
def test_a_pace_that_raises_stops_the_upload(store: ObjectStore, tmp_path: Path, size: int) -> None:
    told: list[int] = []

    def stop(count: int) -> None:
        told.append(count)
        raise Cancelled("Enough.")

    with pytest.raises(Cancelled, match="Enough"):
        store.put("a", replace(payload_of(tmp_path / "f", noise(size)), pace=stop))
    assert store.head("a") is None


def test_many_threads_may_put_at_once(store: ObjectStore, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    payloads = {f"k/{number}": payload_of(tmp_path / str(number), noise(50_000, number)) for number in range(24)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: store.put(*item), payloads.items()))
    for key, payload in payloads.items():
        assert Digest.of(b"".join(store.read(key))) == payload.sha256


def test_what_was_removed_is_gone_and_may_be_removed_again(store: RemovableStore, tmp_path: Path) -> None:
    store.put("passing/a", payload_of(tmp_path / "f", b"x"))
    store.put("passing/b", payload_of(tmp_path / "f", b"y"))
    for _ in range(2):
        store.remove("passing/a")
        assert store.head("passing/a") is None
    assert store.head("passing/b") is not None
