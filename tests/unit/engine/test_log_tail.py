"""The engine's log: last lines in memory, all in a file."""

import asyncio
import logging
import os
from pathlib import Path

import pytest

from comfypin.engine import log_tail as journal_module
from comfypin.engine.log_tail import EngineLog


async def kept(path: Path, *chunks: bytes) -> EngineLog:
    engine_log = EngineLog(path)
    read_end, write_end = os.pipe()
    following = asyncio.create_task(engine_log.follow_pipe(read_end))
    for chunk in chunks:
        os.write(write_end, chunk)
        await asyncio.sleep(0)
    os.close(write_end)
    await following
    return engine_log


async def test_lines_are_kept_and_written(tmp_path: Path) -> None:
    engine_log = await kept(tmp_path / "log", b"one\ntwo\n", b"thr", b"ee\n")
    assert engine_log.last_lines() == ("one", "two", "three")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nthree\n"


async def test_a_last_line_without_an_end_is_kept(tmp_path: Path) -> None:
    assert (await kept(tmp_path / "log", b"Segmentation fault")).last_lines() == ("Segmentation fault",)


async def test_of_a_progress_bar_the_last_state_is_kept(tmp_path: Path) -> None:
    assert (await kept(tmp_path / "log", b"10%\r20%\r30%\ndone\n")).last_lines() == ("30%", "done")


async def test_colours_are_left_out_of_the_lines(tmp_path: Path) -> None:
    assert (await kept(tmp_path / "log", b"\x1b[31mred\x1b[0m\n")).last_lines() == ("red",)


async def test_bytes_that_are_no_text_are_survived(tmp_path: Path) -> None:
    assert len((await kept(tmp_path / "log", b"\xff\xfe\n")).last_lines()) == 1


async def test_memory_and_file_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_FILE_BYTES", 1000)
    engine_log = await kept(tmp_path / "log", *[b"x" * 99 + b"\n"] * 500)
    assert len(engine_log.last_lines(10_000)) == 400
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 500 * 100


async def test_lines_are_logged_for_those_who_want_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="comfypin.engine.log"):
        await kept(tmp_path / "log", b"one\n10%\r20%\n\ntwo\n")
    assert [record.getMessage() for record in caplog.records if record.name == "comfypin.engine.log"] == [
        "one",
        "20%",
        "two",
    ]


async def test_a_disk_that_takes_nothing_does_not_stop_the_reading() -> None:
    assert (await kept(Path("/dev/full"), b"one\n", b"two\n")).last_lines() == ("one", "two")
