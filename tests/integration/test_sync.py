"""The syncer on a real folder with real events: nothing is lost, nothing is sent twice, nothing half."""

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfypin.retry import RetryPolicy
from comfypin.sync.delivery_log import DeliveryLog
from comfypin.sync.folder_watch import SyncNotice
from comfypin.sync.key_names import FileFilter
from comfypin.sync.outbox import Outbox
from comfypin.sync.outbox_row import OutboxRow
from comfypin.sync.sync_events import Delivered, SyncEvent, UploadFailed
from comfypin.sync.sync_options import SyncOptions
from comfypin.sync.syncer import Syncer
from tests.support.flaky_store import FlakyStore

OPTIONS = SyncOptions(
    settle_s=0.15, poll_s=0.2, grace_s=20, retry_policy=RetryPolicy(retries=None, base_s=0.3, longest_s=0.3)
)


class Bench:
    """A folder, a store and an outbox, and a syncer that runs in a thread while `running`."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "outputs"
        self.folder.mkdir()
        self.store = FlakyStore(base / "bucket")
        self.outbox = base / "state" / "outbox.sqlite"
        self.events: list[SyncEvent] = []
        self.owed: list[OutboxRow] = []

    @contextmanager
    def running(self, **changes: Any) -> Iterator[None]:
        started = threading.Event()
        box: dict[str, Syncer] = {}

        def work() -> None:
            outbox = Outbox(self.outbox, copy=changes.pop("copy", None))
            box["syncer"] = self._syncer(outbox, replace(OPTIONS, **changes))
            started.set()
            self.owed = box["syncer"].run_sync()
            outbox.close()

        thread = threading.Thread(target=work)
        thread.start()
        started.wait()
        try:
            yield
        finally:
            box["syncer"].stop()
            thread.join()

    def once(self, **changes: Any) -> list[OutboxRow]:
        outbox = Outbox(self.outbox, copy=changes.pop("copy", None))
        self.owed = self._syncer(outbox, replace(OPTIONS, once=True, **changes)).run_sync()
        outbox.close()
        return self.owed

    def _syncer(self, outbox: Outbox, options: SyncOptions) -> Syncer:
        return Syncer(
            self.folder,
            self.store,
            outbox,
            options,
            media_type=lambda _path: "application/octet-stream",
            on_event=self.events.append,
        )

    def delivered(self) -> dict[str, bytes]:
        root, found = self.store.root, {}
        for path in root.rglob("*"):
            # What is still being written gets its name at the end: it may be gone when it is looked at.
            if path.suffix != ".partial":
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    found[str(path.relative_to(root))] = path.read_bytes()
        return found

    def notices(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, SyncNotice))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def eventually(condition: Callable[[], bool], *, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def write_tree(folder: Path, count: int, *, folders: int = 5) -> dict[str, bytes]:
    files = {f"d{i % folders}/n{i % 3}/f{i}.bin": os.urandom(i % 2000) for i in range(count)}
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return files


def test_what_was_there_before_the_start_is_delivered(bench: Bench) -> None:
    files = write_tree(bench.folder, 50)
    assert bench.once() == []
    assert bench.delivered() == files


def test_files_in_folders_made_meanwhile_are_delivered_once_each(bench: Bench) -> None:
    with bench.running():
        (bench.folder / "first").write_bytes(b"")
        eventually(lambda: "first" in bench.delivered())
        bench.store.requests.clear()
        files = write_tree(bench.folder, 400, folders=40) | {"first": b""}
        eventually(lambda: len(bench.delivered()) == 401)
    assert bench.delivered() == files
    assert sorted(bench.store.keys) == sorted(files)
    assert bench.store.requests == {"put": 400}


def test_a_second_start_sends_nothing_and_asks_nothing(bench: Bench) -> None:
    write_tree(bench.folder, 30)
    bench.once()
    bench.store.requests.clear()
    bench.once()
    assert not bench.store.requests


def test_a_lost_outbox_costs_one_head_a_file_and_no_put(bench: Bench) -> None:
    write_tree(bench.folder, 30)
    bench.once()
    bench.outbox.unlink()
    bench.store.requests.clear()
    bench.once()
    assert bench.store.requests == {"head": 30}


def test_the_first_sync_of_a_full_folder_does_not_ask_for_every_file(bench: Bench) -> None:
    write_tree(bench.folder, 300)
    bench.once()
    assert bench.store.requests["put"] == 300
    assert bench.store.requests["head"] < 40


def test_a_store_that_fails_is_asked_again_until_it_works(bench: Bench) -> None:
    bench.store.rate = 0.5
    files = write_tree(bench.folder, 60)
    assert bench.once() == []
    assert bench.delivered() == files
    assert any(isinstance(event, UploadFailed) for event in bench.events)


def test_a_file_that_is_still_open_is_not_taken(bench: Bench) -> None:
    with bench.running():
        with (bench.folder / "a.bin").open("wb") as file:
            file.write(b"first half, ")
            file.flush()
            (bench.folder / "other.bin").write_bytes(b"x")
            eventually(lambda: "other.bin" in bench.delivered())
            time.sleep(0.5)
            assert "a.bin" not in bench.delivered()
            file.write(b"second half")
        eventually(lambda: "a.bin" in bench.delivered())
    assert bench.delivered()["a.bin"] == b"first half, second half"


def test_a_file_renamed_into_place_goes_out_under_its_last_name_alone(bench: Bench) -> None:
    with bench.running():
        for index in range(20):
            temporary = bench.folder / f"upload-{index}"
            temporary.write_bytes(b"data")
            temporary.rename(bench.folder / f"final-{index}.bin")
        eventually(lambda: len(bench.delivered()) >= 20)
    assert sorted(bench.delivered()) == sorted(f"final-{index}.bin" for index in range(20))


def test_a_file_linked_into_place_is_delivered(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"linked")
    with bench.running():
        os.link(tmp_path / "elsewhere", bench.folder / "a.bin")
        eventually(lambda: bench.delivered() == {"a.bin": b"linked"})


def test_a_folder_moved_in_is_delivered_and_one_moved_out_is_forgotten(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "a.bin").write_bytes(b"a")
    with bench.running():
        (tmp_path / "aside").rename(bench.folder / "in")
        eventually(lambda: "in/a.bin" in bench.delivered())
        (bench.folder / "in").rename(tmp_path / "out")
        (tmp_path / "out" / "later.bin").write_bytes(b"not ours any more")
        (bench.folder / "b.bin").write_bytes(b"b")
        eventually(lambda: "b.bin" in bench.delivered())
    assert sorted(bench.delivered()) == ["b.bin", "in/a.bin"]


@pytest.mark.parametrize(
    ("on_change", "expected"),
    [
        ("overwrite", {"a.bin": b"second"}),
        ("version", {"a.bin": b"first", "a.r2.bin": b"second"}),
        ("ignore", {"a.bin": b"first"}),
    ],
)
def test_a_rewritten_file_is_a_new_revision(bench: Bench, on_change: str, expected: dict[str, bytes]) -> None:
    with bench.running(on_change=on_change):
        (bench.folder / "a.bin").write_bytes(b"first")
        eventually(lambda: any(isinstance(event, Delivered) for event in bench.events))
        (bench.folder / "a.bin").write_bytes(b"second")
        (bench.folder / "z.bin").write_bytes(b"z")
        eventually(lambda: bench.delivered().get("z.bin") == b"z")
        eventually(lambda: bench.delivered() == {**expected, "z.bin": b"z"})


def test_a_revision_never_takes_the_key_of_another_file(bench: Bench) -> None:
    with bench.running(on_change="version"):
        (bench.folder / "a.r2.bin").write_bytes(b"a file of that name")
        (bench.folder / "a.bin").write_bytes(b"first")
        # In the bucket is not yet noted as delivered: a file that changes before that is no revision of it.
        eventually(lambda: sum(isinstance(event, Delivered) for event in bench.events) == 2)
        (bench.folder / "a.bin").write_bytes(b"second")
        eventually(lambda: len(bench.delivered()) == 3)
    assert bench.delivered()["a.r2.bin"] == b"a file of that name"


def test_a_touched_file_is_not_sent_again(bench: Bench) -> None:
    with bench.running():
        (bench.folder / "a.bin").write_bytes(b"same")
        eventually(lambda: bench.delivered() == {"a.bin": b"same"})
        (bench.folder / "a.bin").write_bytes(b"same")
        os.utime(bench.folder / "a.bin", (0, 0))
        (bench.folder / "b.bin").write_bytes(b"b")
        eventually(lambda: "b.bin" in bench.delivered())
    assert bench.store.requests["put"] == 2


def test_delete_after_removes_what_is_confirmed_and_nothing_else(bench: Bench) -> None:
    bench.store.rate = 0.3
    files = write_tree(bench.folder, 40)
    bench.once(delete_after=True)
    assert bench.delivered() == files
    assert [path for path in bench.folder.rglob("*") if path.is_file()] == []


def remaining(bench: Bench) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bench.folder.rglob("*") if path.is_file()}


def test_delete_after_removes_what_an_earlier_run_had_confirmed(bench: Bench) -> None:
    files = write_tree(bench.folder, 10)
    bench.once()
    bench.once(delete_after=True)
    assert (remaining(bench), bench.delivered()) == ({}, files)
    assert bench.store.requests["put"] == 10


def test_delete_after_removes_in_a_running_sync_what_was_confirmed_before(bench: Bench) -> None:
    write_tree(bench.folder, 3)
    bench.once()
    with bench.running(delete_after=True):
        eventually(lambda: remaining(bench) == {})


def test_delete_after_keeps_a_confirmed_file_whose_bytes_changed_under_the_same_fingerprint(bench: Bench) -> None:
    target = bench.folder / "a.bin"
    target.write_bytes(b"first")
    before = target.stat()
    bench.once()
    target.write_bytes(b"other")
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    bench.once(delete_after=True)
    assert "a.bin" not in remaining(bench) or bench.delivered() == {"a.bin": b"first"}
    assert b"other" in {*remaining(bench).values(), *bench.delivered().values()}


def test_delete_after_keeps_a_change_that_was_ignored(bench: Bench) -> None:
    target = bench.folder / "a.bin"
    target.write_bytes(b"first")
    bench.once(on_change="ignore")
    target.write_bytes(b"second, not delivered")
    bench.once(on_change="ignore", delete_after=True)
    bench.once(on_change="ignore", delete_after=True)
    assert remaining(bench) == {"a.bin": b"second, not delivered"}


def test_delete_after_removes_what_a_killed_run_had_set_aside(bench: Bench) -> None:
    (bench.folder / "a.bin").write_bytes(b"first")
    bench.once()
    (bench.folder / "a.bin").rename(bench.folder / ".comfypin-removing-0123456789ab")
    (bench.folder / ".comfypin-removing-ba9876543210").write_bytes(b"of nobody")
    bench.once(delete_after=True)
    assert remaining(bench) == {".comfypin-removing-ba9876543210": b"of nobody"}


def test_a_file_changed_while_it_is_uploaded_is_kept_and_sent_again(bench: Bench) -> None:
    target = bench.folder / "a.bin"
    rewrites = iter([b"second version"])

    def rewrite(_key: str, _payload: object) -> None:
        if (data := next(rewrites, None)) is not None:
            target.write_bytes(data)

    bench.store.before_put = rewrite
    with bench.running(delete_after=True):
        target.write_bytes(b"first")
        eventually(lambda: bench.delivered() == {"a.bin": b"second version"})
        eventually(lambda: not target.exists())


def test_names_that_are_no_text_arrive(bench: Bench) -> None:
    (bench.folder / "line\nbreak.bin").write_bytes(b"1")
    with open(os.fsencode(bench.folder) + b"/caf\xe9.bin", "wb") as file:  # noqa: PTH123
        file.write(b"2")
    bench.once()
    assert bench.delivered() == {"line%0Abreak.bin": b"1", "caf%E9.bin": b"2"}


def test_links_are_not_followed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_bytes(b"secret")
    (bench.folder / "folder").symlink_to(tmp_path / "secret")
    (bench.folder / "file").symlink_to(tmp_path / "secret" / "key")
    (bench.folder / "a.bin").write_bytes(b"a")
    bench.once()
    assert bench.delivered() == {"a.bin": b"a"}


def test_only_what_the_filter_takes_is_delivered(bench: Bench) -> None:
    for name in ("a.png", "b.txt", "c.png.part"):
        (bench.folder / name).write_bytes(b"x")
    bench.once(filter=FileFilter(include=("*.png",)))
    assert sorted(bench.delivered()) == ["a.png"]


def test_a_folder_deleted_under_us_is_said_and_taken_up_again(bench: Bench) -> None:
    with bench.running():
        (bench.folder / "a.bin").write_bytes(b"a")
        eventually(lambda: "a.bin" in bench.delivered())
        (bench.folder / "a.bin").unlink()
        bench.folder.rmdir()
        eventually(lambda: "is gone" in bench.notices())
        bench.folder.mkdir()
        (bench.folder / "b.bin").write_bytes(b"b")
        eventually(lambda: "b.bin" in bench.delivered())


def test_a_file_deleted_before_it_could_be_delivered_is_said(bench: Bench) -> None:
    def delete(_key: str, payload: Any) -> None:
        payload.path.unlink()

    bench.store.before_put = delete
    (bench.folder / "a.bin").write_bytes(b"a")
    assert bench.once() == []
    assert "a.bin was deleted before it was delivered" in bench.notices()


def test_a_stop_delivers_the_small_ones_first_and_says_what_is_owed(bench: Bench) -> None:
    release = threading.Event()

    def hold_large(key: str, _payload: object) -> None:
        if key.startswith("large"):
            release.wait(20)

    bench.store.before_put = hold_large
    with bench.running(workers=2, grace_s=1.0):
        (bench.folder / "large1.bin").write_bytes(b"x" * 1000)
        eventually(lambda: bool(bench.store.before_put) and len(os.listdir(bench.folder)) == 1)  # noqa: PTH208
        for index in range(10):
            (bench.folder / f"small{index}.bin").write_bytes(b"s")
        time.sleep(0.3)
    release.set()
    assert [row.path for row in bench.owed] == ["large1.bin"]
    assert len(bench.delivered()) >= 10
    bench.store.before_put = lambda _key, _payload: None
    assert bench.once() == []
    assert len(bench.delivered()) == 11


def test_the_next_pod_goes_on_from_the_copy_on_the_volume(bench: Bench, tmp_path: Path) -> None:
    copy = tmp_path / "volume" / "outbox.jsonl"
    write_tree(bench.folder, 30)
    bench.once(copy=copy)
    bench.outbox.unlink()
    bench.store.requests.clear()
    (bench.folder / "new.bin").write_bytes(b"new")
    bench.once(copy=copy)
    assert bench.store.requests == {"put": 1}


def test_a_failing_file_does_not_hold_up_the_others(bench: Bench) -> None:
    def refuse(key: str, _payload: object) -> None:
        if key == "bad.bin":
            raise OSError(13, "Permission denied")

    bench.store.before_put = refuse
    with bench.running(grace_s=0.2):
        (bench.folder / "bad.bin").write_bytes(b"bad")
        files = write_tree(bench.folder, 50)
        eventually(lambda: len(bench.delivered()) == 50)
    assert bench.delivered() == files
    assert [row.path for row in bench.owed] == ["bad.bin"]
    assert "Permission denied" in str(bench.owed[0].reason)


def test_every_delivery_is_told_once(bench: Bench) -> None:
    bench.store.rate = 0.3
    write_tree(bench.folder, 40)
    bench.once()
    told = [event.row.path for event in bench.events if isinstance(event, Delivered)]
    assert len(told) == len(set(told)) == 40


def test_the_manifest_names_every_delivery_one_line_a_batch(bench: Bench, tmp_path: Path) -> None:
    files = write_tree(bench.folder, 40)
    manifest = DeliveryLog(tmp_path / "manifest.jsonl", ".comfypin/manifest.jsonl")
    bench.once(manifest=manifest)
    lines = bench.delivered()[".comfypin/manifest.jsonl"].decode().splitlines()
    told = [file for line in lines for file in json.loads(line)["files"]]
    assert {file["key"]: file["sha256"] for file in told} == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }
    assert len(lines) < 40


@pytest.mark.parametrize("mtime_s", [0, 4_000_000_000], ids=["1970", "2096"])
def test_a_clock_that_jumps_loses_nothing_and_sends_nothing_twice(bench: Bench, mtime_s: int) -> None:
    with bench.running():
        (bench.folder / "a.bin").write_bytes(b"a")
        os.utime(bench.folder / "a.bin", (mtime_s, mtime_s))
        eventually(lambda: "a.bin" in bench.delivered())
        (bench.folder / "b.bin").write_bytes(b"b")
        eventually(lambda: "b.bin" in bench.delivered())
    bench.once()
    assert bench.store.requests["put"] == 2
    assert bench.delivered() == {"a.bin": b"a", "b.bin": b"b"}
