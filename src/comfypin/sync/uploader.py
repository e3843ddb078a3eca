"""Uploads one file of the outbox, or finds that it is in the store already; runs in worker threads."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from comfypin.errors import ComfypinError
from comfypin.storage.interface import ObjectStore, Payload
from comfypin.sync.outbox_row import OutboxRow
from comfypin.sync.rate_limit import RateLimiter

_ABSENT_PROBES = 16  # HEADs in a row that find nothing, before a folder without an outbox is taken for a first sync


@dataclass(frozen=True, slots=True)
class UploadEnded:
    """Reports the end of an upload; `sent` is False if the file was in the store already."""

    row: OutboxRow
    sent: bool
    failure: ComfypinError | None


class Uploader:
    """Uploads files of the folder `root` and reports each outcome to `report`."""

    def __init__(
        self,
        root: Path,
        store: ObjectStore,
        report: Callable[[UploadEnded], None],
        *,
        media_type: Callable[[str], str],
        bytes_per_s: float | None,
    ) -> None:
        self._root = str(root)
        self._store = store
        self._report = report
        self._media_type = media_type
        self._rate_limiter = RateLimiter(bytes_per_s) if bytes_per_s else None
        self._absent_count = 0

    def upload_file(self, row: OutboxRow) -> None:
        """Upload unless it is there already, and report the outcome, whatever it is."""
        failure: ComfypinError | None = None
        sent = False
        try:
            if not (row.doubtful and self._absent_count < _ABSENT_PROBES and self._is_delivered(row)):
                sent = True
                self._store.put(row.key, self._make_payload(row))
        except ComfypinError as exc:
            failure = exc
        except OSError as exc:
            failure = ComfypinError(f"{row.path} cannot be read: {exc.strerror or exc}")
        # Even for a bug the row must be released, or the syncer would wait for this upload for ever.
        except BaseException as exc:
            failure = ComfypinError(f"unexpected {type(exc).__name__}: {exc}")
            self._report(UploadEnded(row, sent, failure))
            raise
        self._report(UploadEnded(row, sent, failure))

    def _is_delivered(self, row: OutboxRow) -> bool:
        found = self._store.head(row.key)
        is_same = (
            found is not None
            and found.size_bytes == row.fingerprint.size
            and found.metadata.get("sha256") == row.sha256.hex
        )
        self._absent_count = 0 if found is not None else self._absent_count + 1
        return is_same

    def _make_payload(self, row: OutboxRow) -> Payload:
        return Payload(
            path=Path(self._root, row.path),
            size_bytes=row.fingerprint.size,
            sha256=row.sha256,
            media_type=self._media_type(row.path),
            # Lets a later HEAD recognise the object, since an ETag is no content digest for large ones.
            metadata={"sha256": row.sha256.hex},
            pace=self._rate_limiter,
        )
