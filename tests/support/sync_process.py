"""A syncer in a process of its own, to be killed: FOLDER BUCKET OUTBOX RATE [once]."""

import os
import signal
import sys
from pathlib import Path

from comfypin.retry import RetryPolicy
from comfypin.sync.outbox import Outbox
from comfypin.sync.sync_options import SyncOptions
from comfypin.sync.syncer import Syncer
from tests.support.flaky_store import FlakyStore

RETRIES = RetryPolicy(retries=None, base_s=0.5, longest_s=0.5)


def main(folder: str, bucket: str, outbox: str, rate: str, *once: str) -> None:
    rows = Outbox(Path(outbox))
    store = FlakyStore(Path(bucket), rate=float(rate), seed=os.getpid())
    options = SyncOptions(settle_s=0.2, poll_s=1, retry_policy=RETRIES, once=bool(once))
    syncer = Syncer(Path(folder), store, rows, options, media_type=lambda _path: "application/octet-stream")
    signal.signal(signal.SIGTERM, lambda *_: syncer.stop())
    owed = syncer.run_sync()
    rows.close()
    sys.exit(1 if owed else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
