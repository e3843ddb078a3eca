"""A store in a folder that fails as often as told, before or after the bytes are there, and counts what it is asked."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from comfypin.digest import Digest
from comfypin.errors import StorageError
from comfypin.storage.interface import Payload, StoredObject


class FlakyStore:
    """Objects as plain files below `root`, verified by sha256 as a server would; `rate` of all puts fail."""

    def __init__(self, root: Path, *, rate: float = 0.0, seed: int = 1) -> None:
        self.root = root
        self.rate = rate
        self.requests: Counter[str] = Counter()
        self.keys: list[str] = []
        self.before_put: Callable[[str, Payload], None] = lambda _key, _payload: None
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def put(self, key: str, payload: Payload) -> StoredObject:
        self.before_put(key, payload)
        with self._lock:
            self.requests["put"] += 1
            self.keys.append(key)
            draw = self._random.random()
        if draw < self.rate / 2:
            raise StorageError(f"503 for {key}")
        data = payload.path.read_bytes()
        if Digest.of(data) != payload.sha256:
            raise StorageError(f"checksum of {key}")
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{threading.get_ident()}.partial")
        partial.write_bytes(data)
        partial.replace(target)
        if draw < self.rate:
            raise StorageError(f"the answer for {key} was lost")
        return StoredObject(key=key, size_bytes=len(data), uri=f"file://{target}", metadata=payload.metadata)

    def head(self, key: str) -> StoredObject | None:
        with self._lock:
            self.requests["head"] += 1
        target = self.root / key
        if not target.is_file():
            return None
        digest = Digest.of_file(target)
        return StoredObject(key=key, size_bytes=target.stat().st_size, uri="", metadata={"sha256": digest.hex})

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        yield (self.root / key).read_bytes()[offset:]

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        raise StorageError(f"no URL for {key} ({ttl_s} s)")
