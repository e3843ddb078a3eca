"""Uploads in parts that a process did not end are known to the next one on this machine, and only to it."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.storage.errors import StoreUnreachable
from comfypin.storage.part_sizes import PART_BYTES
from comfypin.storage.retry import StoreRetry
from comfypin.storage.s3 import S3Store
from comfypin.storage.upload_notes import UnfinishedUpload, UploadNotes
from tests.support.fault_proxy import FaultProxy, Seen, fault_proxy
from tests.support.object_servers import S3Server
from tests.support.payloads import noise, payload_of


class Aborting:
    """Remembers what it was to abort."""

    def __init__(self, *, works: bool = True) -> None:
        self.told: list[UnfinishedUpload] = []
        self._works = works

    def __call__(self, left: UnfinishedUpload) -> bool:
        self.told.append(left)
        return self._works


def cleared(notes: UploadNotes, store: str = "s3://b", *, works: bool = True) -> list[UnfinishedUpload]:
    aborting = Aborting(works=works)
    notes.abort_unfinished(store, aborting)
    return aborting.told


def test_what_was_not_ended_is_left_to_the_next_one(tmp_path: Path) -> None:
    notes = UploadNotes(tmp_path / "state/uploads")
    assert cleared(notes) == []
    with notes.open_note("s3://b", "a") as note:
        note.note_begun("a-long-id")
        note.note_begun("id-1")
    with notes.open_note("s3://b", "done") as note:
        note.note_begun("id-2")
        note.note_ended()
    assert cleared(notes, "s3://other") == []
    assert cleared(notes, works=False) == cleared(notes) == [UnfinishedUpload(key="a", upload_id="id-1")]
    assert cleared(notes) == []
    assert list((tmp_path / "state/uploads").iterdir()) == []


def test_a_note_that_somebody_holds_is_left_alone(tmp_path: Path) -> None:
    notes = UploadNotes(tmp_path)
    with notes.open_note("s3://b", "a") as held:
        held.note_begun("id")
        with notes.open_note("s3://b", "a") as other:
            other.note_begun("id-of-other")
        assert cleared(notes) == []
        (path,) = tmp_path.iterdir()
        assert path.stat().st_mode & 0o077 == 0
    assert cleared(notes) == [UnfinishedUpload(key="a", upload_id="id")]


@pytest.mark.parametrize("changed", [{"host": "another"}, {"pid": os.getppid()}])
def test_where_locks_are_nothing_notes_of_other_machines_and_live_processes_are_left_alone(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    with UploadNotes(tmp_path).open_note("s3://b", "a") as note:
        note.note_begun("id")
    (path,) = tmp_path.iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    assert cleared(UploadNotes(tmp_path)) == []
    assert path.exists()


@pytest.mark.parametrize("text", ["", '{"store": "s3://b", "key": "a', "[]", "\xff"])
def test_a_note_that_was_not_written_to_its_end_is_thrown_away(tmp_path: Path, text: str) -> None:
    (tmp_path / "note").write_text(text, encoding="latin-1")
    assert cleared(UploadNotes(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [None, Path("/dev/null/uploads")])
def test_uploads_do_without_notes_where_there_can_be_none(folder: Path | None) -> None:
    with UploadNotes(folder).open_note("s3://b", "a") as note:
        note.note_begun("id")
    assert cleared(UploadNotes(folder)) == []


def store_of(moto: S3Server, proxy: FaultProxy, bucket: str, notes: Path) -> S3Store:
    return S3Store(replace(moto.config(bucket, url=proxy.url), notes=notes), retry=StoreRetry(retries=0))


def test_an_upload_that_could_not_be_aborted_is_aborted_later(moto: S3Server, tmp_path: Path) -> None:
    def all_but_the_first(seen: Seen) -> str | None:
        return None if "uploads" in seen.path else "drop"

    bucket, payload = moto.new_bucket("notes"), payload_of(tmp_path / "f", noise(PART_BYTES + 1))
    with fault_proxy(moto.url) as proxy:
        proxy.rule = all_but_the_first  # type: ignore[assignment]
        with pytest.raises(StoreUnreachable):
            store_of(moto, proxy, bucket, tmp_path / "notes").put("a", payload)
        assert len(moto.unfinished_uploads(bucket)) == 1
        proxy.rule = lambda seen: None
        store_of(moto, proxy, bucket, tmp_path / "notes").put("of-another-job", payload)
    assert moto.unfinished_uploads(bucket) == []
    assert set(moto.objects(bucket)) == {"of-another-job"}
    assert list((tmp_path / "notes").iterdir()) == []


def test_an_upload_that_is_gone_already_is_no_hindrance(moto: S3Server, tmp_path: Path) -> None:
    bucket, payload = moto.new_bucket("gone"), payload_of(tmp_path / "f", noise(PART_BYTES + 1))
    with fault_proxy(moto.url) as proxy:
        store = store_of(moto, proxy, bucket, tmp_path / "notes")
        with UploadNotes(tmp_path / "notes").open_note(f"s3://{bucket} at {proxy.url}", "b") as note:
            note.note_begun("nobody-knows-it")
        store.put("a", payload)
        assert [seen.method for seen in proxy.seen[:2]] == ["DELETE", "POST"]
    assert set(moto.objects(bucket)) == {"a"}
    assert list((tmp_path / "notes").iterdir()) == []
