"""Objects in buckets as models, by their addresses: `s3://bucket/key`, `gs://bucket/key`, ..."""

import contextlib
from collections.abc import Callable, Iterator

from comfypin.errors import ComfypinError
from comfypin.models.errors import SourceFailed, SourceMissing, SourceUnavailable, UnknownSource
from comfypin.models.interface import Reader, SourceFacts, Wanted
from comfypin.storage.errors import ObjectMissing
from comfypin.storage.interface import ObjectStore
from comfypin.storage.registry import SCHEMES, find_kind

OpenStore = Callable[[str, str], ObjectStore]


class _Range:
    """Bytes of an object, cut to one range out of chunks of the store's own size."""

    def __init__(self, chunks: Iterator[bytes], length: int | None, uri: str) -> None:
        self._chunks = chunks
        self._left = length
        self._uri = uri
        self._chunk = memoryview(b"")

    def readinto(self, buffer: memoryview) -> int:
        if self._left == 0:
            return 0
        while not self._chunk:
            try:
                self._chunk = memoryview(next(self._chunks))
            except StopIteration:
                return 0
            except ComfypinError as error:
                raise SourceUnavailable(uri=self._uri, reason=error.message) from error
        count = min(len(buffer), len(self._chunk), len(buffer) if self._left is None else self._left)
        buffer[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        if self._left is not None:
            self._left -= count
        return count


class BucketFile:
    """An object, opened."""

    ranged = True
    # A store reads to the end of an object; a part that ends earlier costs what was on its way, so parts are large.
    part_bytes = 64 << 20

    def __init__(self, store: ObjectStore, key: str, uri: str) -> None:
        try:
            found = store.head(key)
        except ComfypinError as error:
            raise SourceFailed(uri=uri, reason=error.message) from error
        if found is None:
            raise SourceMissing(uri=uri, reason=_why_missing(store, key))
        self._store = store
        self._key = key
        self._uri = uri
        self.size_bytes: int | None = found.size_bytes
        self.validator = found.etag

    @contextlib.contextmanager
    def read(self, start: int, length: int | None) -> Iterator[Reader]:
        chunks = self._store.read(self._key, offset=start)
        try:
            yield _Range(iter(chunks), length, self._uri)
        finally:
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

    def accepts(self, uri: str) -> bool:
        return uri.partition("://")[0].lower() in SCHEMES

    def open(self, uri: str, wanted: Wanted, *, start: int = 0, length: int | None = None) -> BucketFile:
        scheme, bucket, key = _parts(uri)
        try:
            store = self._open_store(find_kind(scheme).scheme, bucket)
        except ComfypinError as error:
            raise SourceFailed(uri=uri, reason=error.message) from error
        return BucketFile(store, key, uri)

    def facts(self, uri: str) -> SourceFacts:
        opened = self.open(uri, Wanted())
        return SourceFacts(uri=uri, filename=uri.rpartition("/")[2], size_bytes=opened.size_bytes)


def _why_missing(store: ObjectStore, key: str) -> str:
    """Whether the object is missing or its bucket: only a read is told."""
    try:
        next(iter(store.read(key)), None)
    except ObjectMissing:
        return "there is no such object"
    except ComfypinError as error:
        return error.message
    return "it was not there when it was first asked for"


def _parts(uri: str) -> tuple[str, str, str]:
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket or not key or key.endswith("/"):
        raise UnknownSource(uri=uri, reason=f"it is not {scheme}://bucket/key")
    return scheme.lower(), bucket, key
