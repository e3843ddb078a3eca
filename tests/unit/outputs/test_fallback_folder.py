"""What was made stays on this machine where its delivery fails or is stopped."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.errors import StorageError
from comfypin.outputs.fallback_folder import FallbackFolderSink
from comfypin.outputs.interface import Delivery, JobFacts, Output
from tests.support.outputs import FACTS, an_output


class _Sink:
    """Raises what it is told to, or takes so long that somebody stops it."""

    def __init__(self, error: Exception | None = None, *, endless: bool = False) -> None:
        self.error = error
        self.endless = endless

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        if self.endless:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return tuple(Delivery(output=output, uri="gs://bucket/a.png") for output in outputs)


def _two(tmp_path: Path) -> tuple[Output, ...]:
    return (
        an_output(tmp_path / "spool", b"one", filename="a.png"),
        an_output(tmp_path / "spool", b"two", filename="b.png", subfolder="deep", index=1),
    )


async def test_what_is_delivered_is_not_kept(tmp_path: Path) -> None:
    deliveries = await FallbackFolderSink(_Sink(), tmp_path / "kept").deliver(FACTS, _two(tmp_path))
    assert [delivery.uri for delivery in deliveries] == ["gs://bucket/a.png"] * 2
    assert not (tmp_path / "kept").exists()


async def test_what_cannot_be_delivered_is_kept_by_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outputs = _two(tmp_path)
    with caplog.at_level(logging.WARNING), pytest.raises(StorageError, match="away"):
        await FallbackFolderSink(_Sink(StorageError("away")), tmp_path / "kept").deliver(FACTS, outputs)
    assert (tmp_path / "kept" / "job" / "a.png").read_bytes() == b"one"
    assert (tmp_path / "kept" / "job" / "deep" / "b.png").read_bytes() == b"two"
    assert f"2 outputs are kept in {tmp_path / 'kept' / 'job'}" in caplog.text


@pytest.mark.parametrize("job_id", ["../../up", "/abs", "..", "x" * 300, "a/b"])
async def test_a_jobs_id_never_leads_out_of_the_folder(tmp_path: Path, job_id: str) -> None:
    kept = tmp_path / "in" / "kept"
    with pytest.raises(StorageError, match="away"):
        await FallbackFolderSink(_Sink(StorageError("away")), kept).deliver(
            replace(FACTS, job_id=job_id), _two(tmp_path)
        )
    (folder,) = kept.iterdir()
    assert (folder / "a.png").read_bytes() == b"one"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "spool"}


async def test_a_delivery_that_is_stopped_keeps_them_too(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await FallbackFolderSink(_Sink(endless=True), tmp_path / "kept").deliver(FACTS, _two(tmp_path))
    assert (tmp_path / "kept" / "job" / "a.png").read_bytes() == b"one"


async def test_where_nothing_can_be_kept_the_first_error_is_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kept").write_text("in the way")
    with caplog.at_level(logging.WARNING), pytest.raises(StorageError, match="away"):
        await FallbackFolderSink(_Sink(StorageError("away")), tmp_path / "kept").deliver(FACTS, _two(tmp_path))
    assert "could not be kept" in caplog.text
