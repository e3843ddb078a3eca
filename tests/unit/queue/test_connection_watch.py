"""What is logged of a connection to NATS."""

import logging

import pytest

from comfypin.queue.nats.connection import _Watch


async def test_each_reason_is_logged_once_until_the_connection_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="comfypin.queue.nats.connection")
    watch = _Watch(has_login=False)
    watch.is_open = True
    for reason in ("nobody there", "nobody there", "too slow"):
        await watch.note_error(OSError(reason))
    await watch.note_back()
    await watch.note_error(OSError("too slow"))
    reasons = [getattr(record, "reason", record.getMessage()) for record in caplog.records]
    assert reasons == ["nobody there", "too slow", "queue is back", "too slow"]
