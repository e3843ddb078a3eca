"""The journal of an unfinished file, the pace of a connection."""

import os
from pathlib import Path

from comfypin.http.stall_watch import StallWatch
from comfypin.models.partial_file import PartialFile, TransferJournal
from comfypin.models.pull_limits import FetchFailures
from comfypin.retry import RetryPolicy


def unfinished(folder: Path, **facts: object) -> PartialFile:
    partial = PartialFile(folder / "p")
    partial.begin_session(TransferJournal(size_bytes=25, part_bytes=10, **facts), fresh=True)  # type: ignore[arg-type]
    return partial


def test_a_journal_remembers_parts_and_prefixes(tmp_path: Path) -> None:
    partial = unfinished(tmp_path, validator='"e"', source="s")
    partial.record_part(0)
    partial.record_part(2)
    partial.record_prefix(10, "00")
    partial.close_files()
    loaded = PartialFile(tmp_path / "p").load_journal()
    assert loaded == TransferJournal(
        size_bytes=25, part_bytes=10, validator='"e"', source="s", written={0, 2}, prefixes={10: "00"}
    )


def test_parts_ahead_of_the_hash_count_only_on_the_machine_that_wrote_them(tmp_path: Path) -> None:
    partial = unfinished(tmp_path)
    partial.record_part(0)
    partial.record_part(2)
    partial.record_prefix(10, "00")
    partial.close_files()
    journal = partial.folder / "journal"
    text = journal.read_text()
    machine = text.partition('"machine":"')[2].partition('"')[0]
    journal.write_text(text.replace(machine, "elsewhere"))
    loaded = PartialFile(tmp_path / "p").load_journal()
    assert loaded is not None
    assert loaded.written == {0}


def test_a_file_of_another_size_than_its_journal_is_not_gone_on_with(tmp_path: Path) -> None:
    partial = unfinished(tmp_path)
    partial.close_files()
    os.truncate(partial.data, 24)
    assert PartialFile(tmp_path / "p").load_journal() is None


def test_a_journal_that_makes_no_sense_is_not_gone_on_with(tmp_path: Path) -> None:
    partial = unfinished(tmp_path)
    partial.close_files()
    (partial.folder / "journal").write_text('{"format":99}\n')
    assert PartialFile(tmp_path / "p").load_journal() is None


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
    trouble = FetchFailures(RetryPolicy(base_s=1, longest_s=4), own=3)
    assert 0 <= (trouble.delay_s(None) or 0) <= 4
    assert 300 <= (trouble.delay_s(300) or 0) <= 304, "the hub counts in windows of five minutes"
    assert trouble.delay_s(3600) is None
