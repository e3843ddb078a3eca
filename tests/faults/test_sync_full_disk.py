"""A disk that is full for moments under sync's state: nothing is lost, nothing is sent twice as new, it goes on."""

import random
import threading
import time
from pathlib import Path

import pytest

from comfypin.retry import RetryPolicy
from comfypin.storage.local import LocalStore
from comfypin.sync.delivery_log import DeliveryLog
from comfypin.sync.errors import OutboxUnusable
from comfypin.sync.folder_watch import SyncNotice
from comfypin.sync.outbox import Outbox
from comfypin.sync.sync_options import SyncOptions
from comfypin.sync.syncer import Syncer
from tests.faults.test_serve_full_disk import a_seed
from tests.support.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.needs("unshare")
FILES = 40


def a_syncer(folder: Path, bucket: Path, disk: SmallDisk, events: list[object], *, once: bool) -> tuple[Syncer, Outbox]:
    outbox = Outbox(disk.path / "outbox.sqlite", copy=disk.path / "copy.jsonl")
    options = SyncOptions(
        settle_s=0.1,
        poll_s=0.5,
        retry_policy=RetryPolicy(retries=None, base_s=0.5, longest_s=0.5),
        once=once,
        grace_s=20,
        manifest=DeliveryLog(disk.path / "manifest.jsonl", "manifest.jsonl"),
    )
    store = LocalStore(bucket)
    syncer = Syncer(folder, store, outbox, options, media_type=lambda _path: "image/png", on_event=events.append)
    return syncer, outbox


def test_files_that_come_while_the_state_disk_is_full_are_synced_when_it_is_free(tmp_path: Path) -> None:
    dice = random.Random(a_seed())
    folder, bucket = tmp_path / "outputs", tmp_path / "bucket"
    folder.mkdir()
    bucket.mkdir()
    events: list[object] = []
    with small_disk(tmp_path / "disk", size_mb=1) as disk:

        def disturb(syncer: Syncer) -> None:
            for number in range(FILES):
                (folder / f"{number}.png").write_bytes(b"x" * dice.randrange(1, 5000))
                if number % 10 == 5:
                    disk.fill()
                    time.sleep(dice.random())
                    (folder / f"{number}-full.png").write_bytes(b"y")
                    time.sleep(0.5)
                    disk.free()
            deadline = time.monotonic() + 40
            while len(list(bucket.rglob("*.png"))) < FILES + 4 and time.monotonic() < deadline:
                time.sleep(0.1)
            syncer.stop()

        ended: list[object] = []

        def sync() -> None:  # the outbox belongs to the thread that opened it
            syncer, outbox = a_syncer(folder, bucket, disk, events, once=False)
            threading.Thread(target=disturb, args=(syncer,)).start()
            ended.append(syncer.run_sync())
            outbox.close()

        syncing = threading.Thread(target=sync)
        syncing.start()
        syncing.join(90)
        assert ended == [[]]
        there = {path.name for path in bucket.rglob("*.png")}
        assert there == {path.name for path in folder.iterdir()}
        delivered = [line for line in (disk.path / "manifest.jsonl").read_text().splitlines() if line]
        assert sum(line.count('"path"') for line in delivered) == len(there)
        print([event.text for event in events if isinstance(event, SyncNotice)])


def test_once_on_a_full_disk_ends_with_a_sentence_that_names_it(tmp_path: Path) -> None:
    folder, bucket = tmp_path / "outputs", tmp_path / "bucket"
    folder.mkdir()
    bucket.mkdir()
    for number in range(30):
        (folder / f"{number:0200}.png").write_bytes(b"x")
    with small_disk(tmp_path / "disk", size_mb=1) as disk:
        syncer, outbox = a_syncer(folder, bucket, disk, [], once=True)
        disk.fill()
        with pytest.raises(OutboxUnusable, match=r"outbox\.sqlite.*full"):
            syncer.run_sync()
        assert list(bucket.rglob("*.png")) == []
        disk.free()
        syncer, outbox = a_syncer(folder, bucket, disk, [], once=True)
        assert syncer.run_sync() == []
        outbox.close()
        assert len(list(bucket.rglob("*.png"))) == 30
