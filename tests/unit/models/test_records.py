"""The ledger of known digests, the journal of an unfinished file, the pace of a connection."""

import os
from pathlib import Path

from comfypin.digest import Digest
from comfypin.http.stall import StallWatch
from comfypin.models import digest_cache as ledger_module
from comfypin.models.digest_cache import Ledger
from comfypin.models.partial_file import Journal, Partial
from comfypin.models.pull_limits import Trouble
from comfypin.models.temp_files import Scratch
from comfypin.retry import RetryPolicy

A, B = Digest.of(b"a"), Digest.of(b"b")


def new_ledger(folder: Path) -> Ledger:
    return Ledger(folder / "verified", Scratch(folder / "tmp"))


def test_a_digest_is_known_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a")
    ledger = new_ledger(tmp_path)
    ledger.record(path, path.stat(), A)
    assert ledger.digest_of(path, path.stat()) == A
    os.utime(path, ns=(0, 0))
    assert ledger.digest_of(path, path.stat()) is None


def test_what_another_ledger_records_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a")
    mine, theirs = new_ledger(tmp_path), new_ledger(tmp_path)
    assert mine.digest_of(path, path.stat()) is None
    theirs.record(path, path.stat(), A)
    assert mine.digest_of(path, path.stat()) == A


def test_a_ledger_that_grew_is_made_short_and_keeps_what_is_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ledger_module, "COMPACT_ABOVE_LINES", 10)
    ledger, path, gone = new_ledger(tmp_path), tmp_path / "x", tmp_path / "gone"
    path.write_bytes(b"a")
    gone.write_bytes(b"b")
    ledger.record(gone, gone.stat(), B)
    gone.unlink()
    for number in range(30):
        os.utime(path, ns=(number, number))
        ledger.record(path, path.stat(), A)
    assert len((tmp_path / "verified").read_bytes().split(b"\n")) < 20
    assert new_ledger(tmp_path).digest_of(path, path.stat()) == A
    assert b"gone" not in (tmp_path / "verified").read_bytes()


def unfinished(folder: Path, **facts: object) -> Partial:
    partial = Partial(folder / "p")
    partial.begin(Journal(size_bytes=25, part_bytes=10, **facts), fresh=True)  # type: ignore[arg-type]
    return partial


def test_a_journal_remembers_parts_and_prefixes(tmp_path: Path) -> None:
    partial = unfinished(tmp_path, validator='"e"', source="s")
    partial.wrote(0)
    partial.wrote(2)
    partial.hashed(10, "00")
    partial.close()
    loaded = Partial(tmp_path / "p").load()
    assert loaded == Journal(
        size_bytes=25, part_bytes=10, validator='"e"', source="s", written={0, 2}, prefixes={10: "00"}
    )


def test_parts_ahead_of_the_hash_count_only_on_the_machine_that_wrote_them(tmp_path: Path) -> None:
    partial = unfinished(tmp_path)
    partial.wrote(0)
    partial.wrote(2)
    partial.hashed(10, "00")
    partial.close()
    journal = partial.folder / "journal"
    text = journal.read_text()
    machine = text.partition('"machine":"')[2].partition('"')[0]
    journal.write_text(text.replace(machine, "elsewhere"))
    loaded = Partial(tmp_path / "p").load()
    assert loaded is not None
    assert loaded.written == {0}


def test_a_file_of_another_size_than_its_journal_is_not_gone_on_with(tmp_path: Path) -> None:
    partial = unfinished(tmp_path)
    partial.close()
    os.truncate(partial.data, 24)
    assert Partial(tmp_path / "p").load() is None


def test_a_journal_that_makes_no_sense_is_not_gone_on_with(tmp_path: Path) -> None:
    partial = unfinished(tmp_path)
    partial.close()
    (partial.folder / "journal").write_text('{"format":99}\n')
    assert Partial(tmp_path / "p").load() is None


def test_hardly_any_bytes_in_a_whole_window_is_too_slow() -> None:
    now = 0.0
    pace = StallWatch(10, clock=lambda: now)
    assert not pace.is_too_slow(1)
    now = 11
    assert pace.is_too_slow(1)


def test_enough_bytes_begin_a_new_window() -> None:
    now = 0.0
    pace = StallWatch(10, clock=lambda: now)
    now = 11
    assert not pace.is_too_slow(1_000_000)
    now = 12
    assert not pace.is_too_slow(0)


def test_pauses_grow_and_heed_the_server() -> None:
    trouble = Trouble(RetryPolicy(base_s=1, longest_s=4), own=3)
    assert 0 <= (trouble.delay_s(None) or 0) <= 4
    assert 300 <= (trouble.delay_s(300) or 0) <= 304, "the hub counts in windows of five minutes"
    assert trouble.delay_s(3600) is None
