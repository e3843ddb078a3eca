"""Decides what a hashed file is: delivered already, or a revision to upload under a key of its own."""

import time
from collections.abc import Mapping
from dataclasses import replace

from comfypin.digest import Digest
from comfypin.sync.folder_scan import Fingerprint
from comfypin.sync.key_names import object_key, revision_key
from comfypin.sync.outbox import Outbox
from comfypin.sync.outbox_row import OutboxRow
from comfypin.sync.sync_options import OnChange


class RevisionPlanner:
    """Plans rows from the outbox; files of `doubtful_paths` may be in the store and not yet in the outbox."""

    def __init__(self, outbox: Outbox, on_change: OnChange) -> None:
        self._outbox = outbox
        self._on_change = on_change
        self.doubtful_paths: frozenset[str] = frozenset()

    def next_revision(
        self,
        relative_path: str,
        fingerprint: Fingerprint,
        digest: Digest,
        changed_rows: Mapping[str, OutboxRow],
        *,
        is_uploading: bool,
    ) -> OutboxRow:
        """Return the row of a file that was hashed; `changed_rows` are changed but not recorded yet."""
        previous_row = changed_rows.get(relative_path) or self._outbox.find_row(relative_path)
        if previous_row is None:
            return self._first_revision(relative_path, fingerprint, digest, changed_rows)
        if previous_row.sha256 == digest and previous_row.state != "gone":
            return replace(previous_row, fingerprint=fingerprint)  # touched, not changed
        if self._on_change == "ignore" and previous_row.state == "done":
            return replace(previous_row, fingerprint=fingerprint)
        # An upload under way may still arrive, so what comes after it is a revision of its own too.
        revision = previous_row.revision + (previous_row.state == "done" or is_uploading)
        free_key = previous_row.key
        if self._on_change == "version":
            free_key = self._free_key(
                revision_key(object_key(relative_path), revision), relative_path, digest, changed_rows
            )
        return replace(
            previous_row,
            key=free_key,
            revision=revision,
            fingerprint=fingerprint,
            sha256=digest,
            state="owed",
            failures=0,
            reason=None,
            owed_at=time.time(),
            done_at=None,
        )

    def _first_revision(
        self, relative_path: str, fingerprint: Fingerprint, digest: Digest, changed_rows: Mapping[str, OutboxRow]
    ) -> OutboxRow:
        return OutboxRow(
            path=relative_path,
            key=self._free_key(object_key(relative_path), relative_path, digest, changed_rows),
            revision=1,
            fingerprint=fingerprint,
            sha256=digest,
            doubtful=relative_path in self.doubtful_paths,
            owed_at=time.time(),
        )

    def _free_key(
        self, wanted_key: str, relative_path: str, digest: Digest, changed_rows: Mapping[str, OutboxRow]
    ) -> str:
        """Return the key, marked with the digest if another path has it (a file named like a revision, an odd name)."""
        key_holder = next(
            (outbox_row.path for outbox_row in changed_rows.values() if outbox_row.key == wanted_key), None
        ) or self._outbox.key_holder(wanted_key)
        return wanted_key if key_holder in (None, relative_path) else f"{wanted_key}~{digest.hex[:12]}"
