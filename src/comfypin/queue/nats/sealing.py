"""Seals a job's secrets with the fleet's key, so that whoever reads the queue's disks or traffic learns nothing."""

import base64
import binascii

from comfypin.queue.nats.errors import FleetKeyInvalid, JobSecretsRefused, SealBroken

_KEY_BYTES = 32


class Seal:
    """The key of a fleet, if it has one. Without a key, secrets are refused."""

    def __init__(self, key: str | None) -> None:
        """Read a key in base64. Raises `FleetKeyInvalid`."""
        self._box = None
        if key is None:
            return
        try:
            raw_key = base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise FleetKeyInvalid from exc
        if len(raw_key) != _KEY_BYTES:
            raise FleetKeyInvalid
        from nacl.secret import SecretBox

        self._box = SecretBox(raw_key)

    @property
    def is_usable(self) -> bool:
        """Return whether there is a key."""
        return self._box is not None

    def close(self, plain_bytes: bytes) -> bytes:
        """Return data that only this fleet can read. Raises `JobSecretsRefused` if the fleet has no key."""
        if self._box is None:
            raise JobSecretsRefused
        return bytes(self._box.encrypt(plain_bytes))

    def open(self, sealed_bytes: bytes) -> bytes:
        """Return what was sealed. Raises `SealBroken` if another key sealed it, or it was changed since."""
        from nacl.exceptions import CryptoError

        if self._box is None:
            raise SealBroken
        try:
            return bytes(self._box.decrypt(sealed_bytes))
        except CryptoError as exc:
            raise SealBroken from exc

    def close_text(self, plain_text: str) -> str:
        """Return a short text, such as a webhook's address, sealed. Raises `JobSecretsRefused`."""
        return base64.b64encode(self.close(plain_text.encode())).decode()

    def open_text(self, plain_text: str) -> str:
        """Return a short text that was sealed. Raises `SealBroken`."""
        return self.open(base64.b64decode(plain_text)).decode()
