"""crc32c, the checksum that Google Cloud Storage compares, in the making."""

import base64

from comfypin.errors import Cancelled


class Crc32c:
    """One in the making. The base install lacks what sums it: raises `ImportError`."""

    def __init__(self) -> None:
        import google_crc32c

        self._checksum = google_crc32c.Checksum()
        self._given_up = False

    def update(self, data: bytes | memoryview) -> None:
        """Take in more bytes. Raises `Cancelled` where it was given up."""
        if self._given_up:
            raise Cancelled("The upload was given up.")
        # What sums takes no memory that could change meanwhile.
        self._checksum.update(bytes(data))

    def give_up(self) -> None:
        """Have whoever makes it stop."""
        self._given_up = True

    @property
    def base64(self) -> str:
        """The sum so far, as the server writes it."""
        return base64.b64encode(self._checksum.digest()).decode("ascii")
