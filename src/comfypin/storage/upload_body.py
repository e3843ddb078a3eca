"""Part of a file as a client library reads it: first to sign it, then to send it."""

import os
from typing import Any

from comfypin.storage.errors import PayloadUnreadable
from comfypin.storage.interface import Payload
from comfypin.storage.payload_file import payload_changed


class UploadBody:
    """Reads `size_bytes` of a payload's open file from `offset`, like a file object.

    While it is being sent, the payload's pace is called before each piece goes out, and `summing`, a hash object, gets
    the bytes. Reads are by position, so that parts of one file can be sent at the same time.
    """

    def __init__(self, payload: Payload, descriptor: int, *, offset: int, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.summing: Any = None
        self._payload = payload
        self._descriptor = descriptor
        self._offset = offset
        self._position = 0
        self._is_sending = False

    def start_sending(self) -> None:
        """Treat what is read from now on as sent."""
        self._position = 0
        self._is_sending = True

    def stop_sending(self) -> None:
        """Treat what is read from now on as only looked at."""
        self._position = 0
        self._is_sending = False

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes. Raises `PayloadUnreadable`."""
        remaining_bytes = self.size_bytes - self._position
        wanted_bytes = remaining_bytes if size < 0 else min(size, remaining_bytes)
        if wanted_bytes <= 0:
            return b""
        try:
            # By position: other parts of the file are read at the same time through one descriptor.
            piece = os.pread(self._descriptor, wanted_bytes, self._offset + self._position)
        except OSError as exception:
            reason = (exception.strerror or str(exception)).lower()
            raise PayloadUnreadable(path=str(self._payload.path), reason=reason) from exception
        if not piece:
            raise PayloadUnreadable(path=str(self._payload.path), reason="it became shorter while it was uploaded")
        self._position += len(piece)
        if self._is_sending:
            if self._payload.pace is not None:
                self._payload.pace(len(piece))
            if self.summing is not None:
                self.summing.update(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position."""
        start_position = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        self._position = start_position + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def require_digest(self, signed_sha256: str) -> None:
        """Raise `PayloadUnreadable` unless what was signed is what was hashed before."""
        if self.size_bytes == self._payload.size_bytes and signed_sha256 != self._payload.sha256.hex:
            raise payload_changed(self._payload)


class TamperedBody:
    """Gives other bytes when it is sent than when it was signed, to find out whether a server notices."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def start_sending(self) -> None:
        """Give other bytes from now on."""
        self._position, self._data = 0, bytes(byte ^ 1 for byte in self._data)

    def stop_sending(self) -> None:
        """Give the first bytes again from now on."""
        self.start_sending()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        start_position = self._position
        self._position = len(self._data) if size < 0 else min(len(self._data), start_position + size)
        return self._data[start_position : self._position]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position."""
        start_position = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._data)}[whence]
        self._position = start_position + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position
