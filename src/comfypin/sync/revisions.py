"""Decides what a hashed file is: delivered already, or a revision to upload under a key of its own."""

import time
from collections.abc import Mapping
from dataclasses import replace

from comfypin.digest import Digest
from comfypin.sync.key_names import object_key, revision_key
from comfypin.sync.outbox import Outbox
from comfypin.sync.outbox_row import OutboxRow
from comfypin.sync.scan import Fingerprint
from comfypin.sync.sync_options import OnChange


class RevisionPlanner:
    """Plans rows from the outbox; files of `doubtful_paths` may be in the store without the outbox knowing it."""

    def __init__(self, outbox: Outbox, on_change: OnChange) -> None:
        self._outbox = outbox
        self._on_change = on_change
        self.doubtful_paths: frozenset[str] = frozenset()

    def next_revision(
        self, path: str, mark: Fingerprint, digest: Digest, rows: Mapping[str, OutboxRow], *, is_uploading: bool
    ) -> OutboxRow:
        """Return the row of a file that was hashed; `rows` are changed but not recorded yet."""
        previous = rows.get(path) or self._outbox.find_row(path)
        if previous is None:
            return self._first_revision(path, mark, digest, rows)
        if previous.sha256 == digest and previous.state != "gone":
            return replace(previous, fingerprint=mark)  # touched, not changed
        if self._on_change == "ignore" and previous.state == "done":
            return replace(previous, fingerprint=mark)
        # One that is on its way may arrive: what comes after it is a revision of its own too.
        revision = previous.revision + (previous.state == "done" or is_uploading)
        key = previous.key
        if self._on_change == "version":
            key = self._free_key(revision_key(object_key(path), revision), path, digest, rows)
        return replace(
            previous,
            key=key,
            revision=revision,
            fingerprint=mark,
            sha256=digest,
            state="owed",
            failures=0,
            reason=None,
            owed_at=time.time(),
            done_at=None,
        )

    def _first_revision(self, path: str, mark: Fingerprint, digest: Digest, rows: Mapping[str, OutboxRow]) -> OutboxRow:
        return OutboxRow(
            path=path,
            key=self._free_key(object_key(path), path, digest, rows),
            revision=1,
            fingerprint=mark,
            sha256=digest,
            doubtful=path in self.doubtful_paths,
            owed_at=time.time(),
        )

    def _free_key(self, key: str, path: str, digest: Digest, rows: Mapping[str, OutboxRow]) -> str:
        """Return the key, marked with the digest if another path has it (a file named like a revision, an odd name)."""
        holder = next((row.path for row in rows.values() if row.key == key), None) or self._outbox.key_holder(key)
        return key if holder in (None, path) else f"{key}~{digest.hex[:12]}"
