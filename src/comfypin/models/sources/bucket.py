"""Reads objects in buckets as models, by their addresses: `s3://bucket/key`, `gs://bucket/key`, ..."""

import contextlib
from collections.abc import Callable, Iterator

from comfypin.errors import ComfypinError
from comfypin.models.errors import SourceFailed, SourceMissing, SourceUnavailable, UnknownSource
from comfypin.models.interface import ExpectedFile, RangeReader, SourceFacts
from comfypin.storage.errors import ObjectMissing
from comfypin.storage.interface import ObjectStore
from comfypin.storage.registry import SCHEMES, find_kind

OpenStore = Callable[[str, str], ObjectStore]


class _ObjectRange:
    """Bytes of an object, cut to one range out of chunks of the store's own size."""

    def __init__(self, chunks: Iterator[bytes], length: int | None, address: str) -> None:
        self._chunks = chunks
        self._left = length
        self._uri = address
        self._chunk = memoryview(b"")

    def readinto(self, buffer: memoryview) -> int:
        # The store goes on to the end of the object; the range does not.
        if self._left == 0:
            return 0
        while not self._chunk:
            try:
                # A view, so that cutting a chunk copies nothing.
                self._chunk = memoryview(next(self._chunks))
            except StopIteration:
                return 0
            except ComfypinError as error:
                raise SourceUnavailable(uri=self._uri, reason=error.message) from error
        byte_count = min(len(buffer), len(self._chunk), len(buffer) if self._left is None else self._left)
        buffer[:byte_count] = self._chunk[:byte_count]
        self._chunk = self._chunk[byte_count:]
        if self._left is not None:
            self._left -= byte_count
        return byte_count


class BucketFile:
    """An open object."""

    ranged = True
    # A store reads to the end of an object; a part that ends earlier costs what was on its way, so parts are large.
    part_bytes = 64 << 20

    def __init__(self, object_store: ObjectStore, object_key: str, address: str) -> None:
        try:
            object_info = object_store.head(object_key)
        except ComfypinError as error:
            raise SourceFailed(uri=address, reason=error.message) from error
        if object_info is None:
            raise SourceMissing(uri=address, reason=_explain_missing(object_store, object_key))
        self._store = object_store
        self._key = object_key
        self._uri = address
        self.size_bytes: int | None = object_info.size_bytes
        self.validator = object_info.etag

    @contextlib.contextmanager
    def read(self, start: int, length: int | None) -> Iterator[RangeReader]:
        chunks = self._store.read(self._key, offset=start)
        try:
            yield _ObjectRange(iter(chunks), length, self._uri)
        finally:
            # Generators hold their connection until they are closed.
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    def abort(self) -> None:
        """Reads end by themselves soon enough."""

    def close(self) -> None:
        """Nothing is held between reads."""


class BucketSource:
    """Addresses of every scheme in the registry; `open_store(scheme, bucket)` gives the bucket."""

    def __init__(self, open_store: OpenStore) -> None:
        self._open_store = open_store

    def accepts(self, address: str) -> bool:
        return address.partition("://")[0].lower() in SCHEMES

    def open(
        self, address: str, expected_file: ExpectedFile, *, start: int = 0, length: int | None = None
    ) -> BucketFile:
        scheme, bucket, key = _parse_address(address)
        try:
            store = self._open_store(find_kind(scheme).scheme, bucket)
        except ComfypinError as error:
            raise SourceFailed(uri=address, reason=error.message) from error
        return BucketFile(store, key, address)

    def facts(self, address: str) -> SourceFacts:
        remote_file = self.open(address, ExpectedFile())
        return SourceFacts(uri=address, filename=address.rpartition("/")[2], size_bytes=remote_file.size_bytes)


def _explain_missing(store: ObjectStore, key: str) -> str:
    """Return whether the object or its bucket is missing: only a read tells."""
    try:
        next(iter(store.read(key)), None)
    except ObjectMissing:
        return "there is no such object"
    except ComfypinError as error:
        return error.message
    return "it was missing when it was first asked for"


def _parse_address(address: str) -> tuple[str, str, str]:
    scheme, _, rest = address.partition("://")
    bucket_name, _, object_key = rest.partition("/")
    if not bucket_name or not object_key or object_key.endswith("/"):
        raise UnknownSource(uri=address, reason=f"it is not {scheme}://bucket/key")
    return scheme.lower(), bucket_name, object_key
