"""Uploads one file of the outbox, or finds that it is in the store already; runs in worker threads."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
    """Uploads files of the folder `root` and reports each outcome to `report`.

    `on_bytes` hears of every piece that is sent, with its file, from the threads that upload.
    """

    def __init__(
        self,
        root_folder: Path,
        store: ObjectStore,
        report: Callable[[UploadEnded], None],
        *,
        media_type: Callable[[str], str],
        bytes_per_s: float | None,
        on_bytes: Callable[[OutboxRow, int], None] | None = None,
    ) -> None:
        self._root = str(root_folder)
        self._store = store
        self._report = report
        self._media_type = media_type
        self._rate_limiter = RateLimiter(bytes_per_s) if bytes_per_s else None
        self._on_bytes = on_bytes
        self._absent_count = 0

    def upload_file(self, outbox_row: OutboxRow) -> None:
        """Upload unless it is there already, and report the outcome, whatever it is."""
        upload_error: ComfypinError | None = None
        is_sent = False
        try:
            if not (outbox_row.doubtful and self._absent_count < _ABSENT_PROBES and self._is_delivered(outbox_row)):
                is_sent = True
                self._store.put(outbox_row.key, self._make_payload(outbox_row))
        except ComfypinError as error:
            upload_error = error
        except OSError as error:
            upload_error = ComfypinError(f"{outbox_row.path} cannot be read: {error.strerror or error}")
        # Even for a bug the row must be released, or the syncer would wait for this upload for ever.
        except BaseException as error:
            upload_error = ComfypinError(f"unexpected {type(error).__name__}: {error}")
            self._report(UploadEnded(outbox_row, is_sent, upload_error))
            raise
        self._report(UploadEnded(outbox_row, is_sent, upload_error))

    def _is_delivered(self, outbox_row: OutboxRow) -> bool:
        stored_object = self._store.head(outbox_row.key)
        is_same = (
            stored_object is not None
            and stored_object.size_bytes == outbox_row.fingerprint.size
            and stored_object.metadata.get("sha256") == outbox_row.sha256.hex
        )
        self._absent_count = 0 if stored_object is not None else self._absent_count + 1
        return is_same

    def _make_payload(self, outbox_row: OutboxRow) -> Payload:
        return Payload(
            path=Path(self._root, outbox_row.path),
            size_bytes=outbox_row.fingerprint.size,
            sha256=outbox_row.sha256,
            media_type=self._media_type(outbox_row.path),
            # Lets a later HEAD recognise the object, since an ETag is not a content digest for large ones.
            metadata={"sha256": outbox_row.sha256.hex},
            pace=partial(self._let_through, outbox_row),
        )

    def _let_through(self, outbox_row: OutboxRow, byte_count: int) -> None:
        if self._rate_limiter is not None:
            self._rate_limiter(byte_count)
        if self._on_bytes is not None:
            self._on_bytes(outbox_row, byte_count)
