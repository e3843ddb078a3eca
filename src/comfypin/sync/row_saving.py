"""Saves rows of the outbox even if the disk is full for a while."""

import threading
import time
from collections.abc import Callable, Sequence

from comfypin.sync.errors import OutboxUnusable
from comfypin.sync.folder_watch import SyncNotice
from comfypin.sync.outbox import Outbox
from comfypin.sync.outbox_row import OutboxRow
from comfypin.sync.sync_options import SyncOptions

# A full disk that somebody is making room on should not delay the next file.
_SAVE_AGAIN_S = 0.5


def save_when_possible(
    outbox: Outbox,
    rows: Sequence[OutboxRow],
    options: SyncOptions,
    stopping: threading.Event,
    report: Callable[[SyncNotice], None],
) -> None:
    """Save rows, waiting while the outbox cannot be written: what was uploaded stays known meanwhile.

    Raises `OutboxUnusable` if the sync is to end: once, or when the grace time after `stopping` is over.
    """
    is_reported, stopped_at_s = False, None
    while True:
        try:
            outbox.save_rows(rows)
        except OutboxUnusable as error:
            stopped_at_s = stopped_at_s or (time.monotonic() if stopping.is_set() else None)
            too_late = stopped_at_s is not None and time.monotonic() - stopped_at_s > options.grace_s
            if options.once or too_late:
                raise
            if not is_reported:
                is_reported = True
                report(SyncNotice(f"{error.message} Sync waits until it can be written."))
            time.sleep(_SAVE_AGAIN_S)
        else:
            if is_reported:
                report(SyncNotice("The outbox can be written again; sync continues."))
            return
