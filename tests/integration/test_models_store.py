"""The store: one blob for all, links that move with the volume, files that were there already, several processes."""

import os
import pickle
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from comfypin.lease import acquire_lease
from comfypin.models.errors import DiskTooSmall
from comfypin.models.pull import PullOptions
from comfypin.models.store import BlobStore
from comfypin.models.verify import (
    Corrupt,
    FormatRefused,
    Missing,
    Present,
    Unreadable,
    WrongSize,
    inspect_model,
    inspect_models,
)
from tests.support.faulty_server import faulty_server, ranged, wait_until
from tests.support.models import FAST, Home, pin_of, safetensors, some_bytes

DATA = safetensors(some_bytes(100_000))
OTHER = safetensors(some_bytes(100_000, seed=2))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "models")


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "source.safetensors"
    path.write_bytes(DATA)
    return str(path)


# -- places


def test_a_model_is_a_relative_link_to_its_blob(home: Home, source: str) -> None:
    pin = pin_of(DATA, source)
    home.pull(pin)
    link = home.path(pin).readlink()
    assert str(link) == f"../.comfypin/blobs/sha256/{pin.sha256.hex[:2]}/{pin.sha256.hex}"


def test_links_lead_to_the_blob_when_the_volume_has_another_name(home: Home, source: str, tmp_path: Path) -> None:
    pin = pin_of(DATA, source)
    home.pull(pin)
    moved = Home(tmp_path / "runpod-volume" / "models")
    moved.models_dir.parent.mkdir()
    home.models_dir.rename(moved.models_dir)
    assert moved.path(pin).read_bytes() == DATA
    assert [outcome.state for outcome in moved.pull(pin_of(DATA)).outcomes] == ["present"]


@pytest.mark.parametrize("kind", ["hardlink", "copy"])
def test_a_model_may_have_to_be_a_file(home: Home, source: str, kind: str) -> None:
    pin = pin_of(DATA, source)
    home.pull(pin, options=PullOptions(link=kind, fetch_policy=FAST))
    assert not home.path(pin).is_symlink()
    assert home.path(pin).read_bytes() == DATA


def test_a_copy_that_is_there_is_not_made_again(home: Home, source: str) -> None:
    pin, options = pin_of(DATA, source), PullOptions(link="copy", fetch_policy=FAST)
    home.pull(pin, options=options)
    before = home.path(pin).stat().st_ino
    assert [outcome.state for outcome in home.pull(pin, options=options).outcomes] == ["present"]
    assert home.path(pin).stat().st_ino == before


def test_what_another_process_hashed_is_not_hashed_again(home: Home, source: str) -> None:
    store, pin = home.store, pin_of(DATA, source)
    assert not store.has_blob(pin.sha256)
    home.pull(pin)
    assert store.has_blob(pin.sha256)


def test_a_store_that_is_full_of_models_may_be_read_only(home: Home, source: str) -> None:
    pin = pin_of(DATA, source)
    home.pull(pin)
    store = home.store
    store.remember_release("x", [pin])
    store.root.chmod(0o555)
    try:
        assert [outcome.state for outcome in home.pull(pin).outcomes] == ["present"]
    finally:
        store.root.chmod(0o755)


def test_a_reflink_is_made_or_its_absence_said(home: Home, source: str) -> None:
    pin = pin_of(DATA, source)
    report = home.pull(pin, options=PullOptions(link="reflink", fetch_policy=FAST))
    assert (home.path(pin).exists() and not report.failures) or "not supported" in report.failures[0].message


def test_two_places_share_one_blob(home: Home, source: str) -> None:
    first, second = pin_of(DATA, source), pin_of(DATA, source, target="$MODELS_DIR/other/y.safetensors")
    home.pull(first, second).raise_failures()
    assert home.path(first).samefile(home.path(second))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_the_place_of_a_model_is_said_and_left(home: Home, source: str, overwrite: bool) -> None:
    pin = pin_of(DATA, source)
    (home.path(pin) / "mine").mkdir(parents=True)
    report = home.pull(pin, options=PullOptions(overwrite=overwrite))
    assert "a folder has this path" in report.failures[0].message
    assert (home.path(pin) / "mine").is_dir()


def test_a_second_release_fetches_nothing(home: Home, source: str) -> None:
    home.pull(pin_of(DATA, source))
    (outcome,) = home.pull(pin_of(DATA, target="$MODELS_DIR/b/z.safetensors")).outcomes
    assert outcome.state == "linked"


def test_a_store_on_a_volume_serves_another_models_folder(tmp_path: Path, source: str) -> None:
    from comfypin.models.pull import Puller
    from comfypin.models.pull_limits import PullBudget
    from tests.support.models import sources_over

    target = tmp_path / "container" / "models" / "vae" / "x.safetensors"
    Puller(BlobStore(tmp_path / "volume"), sources_over(), PullBudget(2)).pull_models([(pin_of(DATA, source), target)])
    assert target.read_bytes() == DATA
    assert target.resolve().is_relative_to(tmp_path / "volume")


# -- files that were there


def test_a_file_with_the_right_bytes_is_adopted_not_fetched(home: Home) -> None:
    pin = pin_of(DATA, "/nowhere")
    home.path(pin).parent.mkdir(parents=True)
    home.path(pin).write_bytes(DATA)
    (outcome,) = home.pull(pin).outcomes
    assert outcome.state == "adopted"
    assert home.path(pin).samefile(home.store.blob_path(pin.sha256))


def test_a_file_with_wrong_bytes_is_kept_aside(home: Home, source: str) -> None:
    pin = pin_of(DATA, source)
    home.path(pin).parent.mkdir(parents=True)
    home.path(pin).write_bytes(OTHER)
    (outcome,) = home.pull(pin).outcomes
    assert outcome.aside is not None
    assert outcome.aside.read_bytes() == OTHER
    assert home.path(pin).read_bytes() == DATA


def test_a_file_with_wrong_bytes_stays_until_the_right_ones_are_there(home: Home) -> None:
    pin = pin_of(DATA, "/nowhere")
    home.path(pin).parent.mkdir(parents=True)
    home.path(pin).write_bytes(OTHER)
    assert home.pull(pin).failures
    assert home.path(pin).read_bytes() == OTHER


def test_a_wrong_file_is_overwritten_where_that_is_asked_for(home: Home, source: str) -> None:
    pin = pin_of(DATA, source)
    home.path(pin).parent.mkdir(parents=True)
    home.path(pin).write_bytes(OTHER)
    (outcome,) = home.pull(pin, options=PullOptions(overwrite=True, fetch_policy=FAST)).outcomes
    assert outcome.aside is None
    assert not (home.store.root / "aside").exists()


def test_a_blob_that_rotted_is_put_aside_and_fetched_again(home: Home, source: str) -> None:
    pin = pin_of(DATA, source)
    home.pull(pin)
    blob = home.store.blob_path(pin.sha256)
    blob.chmod(0o644)
    blob.write_bytes(OTHER)
    (outcome,) = home.pull(pin).outcomes
    assert outcome.state == "fetched"
    assert home.path(pin).read_bytes() == DATA
    assert [path.read_bytes() for path in (home.store.root / "aside").iterdir()] == [OTHER]


def test_a_link_that_leads_nowhere_is_replaced(home: Home, source: str) -> None:
    pin = pin_of(DATA, source)
    home.path(pin).parent.mkdir(parents=True)
    home.path(pin).symlink_to("nowhere")
    home.pull(pin).raise_failures()
    assert home.path(pin).read_bytes() == DATA


# -- what is refused


def test_a_pickle_in_disguise_is_not_placed(home: Home, tmp_path: Path) -> None:
    data = pickle.dumps({"a": 1}) + bytes(1000)
    (tmp_path / "evil").write_bytes(data)
    pin = pin_of(data, str(tmp_path / "evil"))
    report = home.pull(pin)
    assert "its bytes are a pickle" in report.failures[0].message
    assert not home.path(pin).exists()
    assert not home.store.blob_path(pin.sha256).exists()


def test_a_pickle_that_another_release_allowed_is_refused_all_the_same(home: Home, tmp_path: Path) -> None:
    data = pickle.dumps({"a": 1}) + bytes(1000)
    (tmp_path / "evil").write_bytes(data)
    target = "$MODELS_DIR/a/x.gguf"
    home.pull(pin_of(data, str(tmp_path / "evil"), target=target, allow_pickle=True)).raise_failures()
    assert home.pull(pin_of(data, target=target)).failures


def test_too_little_space_is_said_in_gb_before_anything_is_fetched(home: Home) -> None:
    with faulty_server(lambda request: pytest.fail("asked")) as server:
        pin = pin_of(DATA, f"{server.url}/x", size_bytes=10**18)
        with pytest.raises(DiskTooSmall, match=r"needs 1000000000\.00 GB and has [0-9.]+ GB free"):
            home.pull(pin)


def test_space_is_checked_when_only_the_server_knows_the_size(home: Home) -> None:
    with faulty_server(lambda request: ranged(DATA, request, length=10**18)) as server:
        report = home.pull(pin_of(DATA, f"{server.url}/x", size_bytes=None))
    assert report.failures


# -- several at once


def test_a_model_that_another_process_brings_is_waited_for(home: Home, source: str) -> None:
    pin = pin_of(DATA, source)
    lease = acquire_lease(home.store.lease_path(pin.sha256.hex))
    reports = []
    waiter = threading.Thread(target=lambda: reports.append(home.pull(pin)))
    waiter.start()
    home.store.blob_path(pin.sha256).parent.mkdir(parents=True)
    shutil.copy(source, home.store.blob_path(pin.sha256))
    lease.release()
    waiter.join()
    assert [outcome.state for outcome in reports[0].outcomes] == ["linked"]


def test_pulls_at_once_fetch_each_byte_once(home: Home) -> None:
    big = some_bytes(20 << 20)
    with faulty_server(lambda request: ranged(big, request, bytes_per_s=40 << 20)) as server:
        pin = pin_of(big, f"{server.url}/x", target="$MODELS_DIR/unet/x.gguf")
        pulls = [threading.Thread(target=home.pull, args=(pin,)) for _ in range(4)]
        for pull in pulls:
            pull.start()
        for pull in pulls:
            pull.join()
        assert len(server.requests) == 3
    assert home.path(pin).read_bytes() == big


def test_nothing_is_left_but_the_model_and_the_stores_records(home: Home, source: str) -> None:
    home.pull(pin_of(DATA, source))
    names = {path.name for path in home.store.root.rglob("*") if path.is_file()}
    assert names == {pin_of(DATA).sha256.hex, "verified"}


# -- verifying


def test_findings_say_what_is_wrong(home: Home, source: str) -> None:
    pin = pin_of(DATA, source)
    path = home.path(pin)
    assert inspect_model(pin, path, home.store) == Missing()
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA[:-1])
    assert inspect_model(pin, path, home.store) == WrongSize(len(DATA) - 1, len(DATA))
    path.write_bytes(OTHER)
    assert isinstance(inspect_model(pin, path, home.store), Corrupt)
    path.write_bytes(DATA)
    assert inspect_model(pin, path, home.store) == Present(len(DATA))
    path.unlink()
    path.mkdir()
    assert isinstance(inspect_model(pin, path, home.store), Unreadable)


def test_a_model_without_sha256_is_present_and_not_proven(home: Home) -> None:
    pin = pin_of(DATA, sha256=None, size_bytes=None)
    home.path(pin).parent.mkdir(parents=True)
    home.path(pin).write_bytes(DATA)
    assert inspect_model(pin, home.path(pin), home.store) == Present(len(DATA), proven=False)


def test_a_broken_safetensors_file_is_found_though_its_digest_is_right(home: Home) -> None:
    broken = DATA[:-1]
    pin = pin_of(broken)
    home.path(pin).parent.mkdir(parents=True)
    home.path(pin).write_bytes(broken)
    assert isinstance(inspect_model(pin, home.path(pin), home.store), FormatRefused)


def test_a_file_that_did_not_change_is_not_read_again(home: Home, source: str) -> None:
    pin = pin_of(DATA, source)
    home.pull(pin)
    blob = home.store.blob_path(pin.sha256)
    status = blob.stat()
    blob.chmod(0o644)
    blob.write_bytes(OTHER[: len(DATA)])
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert inspect_model(pin, home.path(pin), home.store) == Present(len(DATA))
    assert isinstance(inspect_model(pin, home.path(pin), home.store, deep=True), Corrupt)


def test_what_a_deep_look_finds_is_remembered(home: Home, source: str) -> None:
    test_a_file_that_did_not_change_is_not_read_again(home, source)
    assert isinstance(inspect_model(pin_of(DATA), home.path(pin_of(DATA)), home.store), Corrupt)


def test_many_are_compared_in_the_order_given(home: Home, source: str) -> None:
    good, bad = pin_of(DATA, source), pin_of(OTHER, target="$MODELS_DIR/vae/y.safetensors")
    home.pull(good)
    models = [(pin, home.path(pin)) for pin in (bad, good)]
    for deep in (False, True):
        assert inspect_models(models, home.store, read_all_bytes=deep) == [Missing(), Present(len(DATA))]


def test_a_torn_line_in_the_ledger_is_ignored(home: Home, source: str) -> None:
    home.pull(pin_of(DATA, source))
    with (home.store.root / "verified").open("ab") as ledger:
        ledger.write(b'\n["blobs/sha256/ab')
    assert home.store.has_blob(pin_of(DATA).sha256)


def test_what_only_another_machines_memory_had_is_hashed_again(home: Home, source: str) -> None:
    pin = pin_of(DATA, source)
    home.pull(pin)
    ledger = home.store.root / "verified"
    lines = [line.rsplit(",", 1)[0] + ',"another-boot"]' for line in ledger.read_text().splitlines() if line]
    ledger.write_text("\n".join(lines))
    assert not home.store.has_blob(pin.sha256)
    assert inspect_model(pin, home.path(pin), home.store) == Present(len(DATA))
    assert home.store.has_blob(pin.sha256)


def test_many_verified_models_need_no_reading(home: Home, tmp_path: Path) -> None:
    pins = []
    for number in range(200):
        data = safetensors(number.to_bytes(4, "little"))
        path = tmp_path / f"{number}"
        path.write_bytes(data)
        pins.append(pin_of(data, str(path), target=f"$MODELS_DIR/vae/{number}.safetensors"))
    home.pull(*pins).raise_failures()
    for path in home.store.root.glob("blobs/sha256/*/*"):
        status = path.stat()
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"!")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    models = [(pin, home.path(pin)) for pin in pins]
    assert all(isinstance(finding, Present) for finding in inspect_models(models, home.store))


def test_a_pull_that_is_interrupted_stops_its_threads(home: Home) -> None:
    big = some_bytes(30 << 20)

    class Interrupting:
        def plan_files(self, sizes: Mapping[str, int | None]) -> None: ...

        def start_file(self, name: str, total_bytes: int | None, resumed_bytes: int) -> None:
            raise KeyboardInterrupt

        def advance_file(self, name: str, count: int) -> None: ...

        def end_file(self, name: str, outcome: str) -> None: ...

    with faulty_server(lambda request: ranged(big, request)) as server:
        pin = pin_of(big, f"{server.url}/x", target="$MODELS_DIR/unet/x.gguf")
        with pytest.raises(KeyboardInterrupt):
            home.pull(pin, watcher=Interrupting())
        wait_until(lambda: not any(thread.name.startswith("fetch-") for thread in threading.enumerate()))
