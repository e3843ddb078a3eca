"""What is known of a server's checks: does it refuse other bytes than were signed, are its ETags md5 sums."""

import logging
import threading

log = logging.getLogger(__name__)

_OPAQUE_AFTER = 3


class Proof:
    """Kept for a store's life. ETags are no longer asked when several differed and none ever agreed."""

    def __init__(self, store: str) -> None:
        self.digests_are_checked = False
        self._store = store
        self._lock = threading.Lock()
        self._seen_agreeing = False
        self._differing = 0

    @property
    def wants_etag(self) -> bool:
        """Whether an ETag says something here."""
        return self._seen_agreeing or self._differing < _OPAQUE_AFTER

    def etag_agreed(self) -> None:
        """An ETag was the md5 of what was sent."""
        self._seen_agreeing = True

    def etag_differed(self) -> None:
        """An ETag was something else, and the bytes were right."""
        with self._lock:
            self._differing += 1
            if self._differing == _OPAQUE_AFTER and not self._seen_agreeing:
                log.info("etags are no checksums here", extra={"action": "etags_opaque", "store": self._store})
